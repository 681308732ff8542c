//! What a learner has learned at one moment, to be saved while it goes on.

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use model::Model;

use crate::run::checkpoint::State;
use crate::run::progress::Progress;

/// Weights, moving averages and moments of a learner at one moment.
///
/// It has the tensors themselves, not copies of them: a tensor is counted, and one that is held here
/// is not changed in place. The next step of the learner makes new ones, and the old ones stay in
/// memory until this is dropped.
pub struct Learned {
    network: Model,
    ema: Model,
    averages: Vec<Model>,
    optimizer: ModuleOptimizer,
}

impl Learned {
    /// Holds the tensors of a learner. `network` is on the autodiff device, `ema` and `averages` are
    /// not.
    pub(super) fn new(
        network: &Model,
        ema: &Model,
        averages: Vec<Model>,
        optimizer: &ModuleOptimizer,
    ) -> Self {
        let mut network = network.clone();
        // Without its place in a graph, which is the training thread's.
        network.network = network.network.valid();
        Self { network, ema: ema.clone(), averages, optimizer: optimizer.clone() }
    }

    /// Reads the values back, for a checkpoint with this progress. Tensors are let go as soon as they
    /// are read.
    ///
    /// # Errors
    ///
    /// If Burn cannot serialise the optimizer.
    pub fn read(self, progress: Progress) -> anyhow::Result<State> {
        let Self { network, ema, averages, optimizer } = self;
        let values = |model: Model| model.parameters();
        // First, since it takes the most memory in between.
        let record = optimizer.into_bytes();
        let record = record.map_err(|error| anyhow::anyhow!("optimizer state: {error}"))?;
        drop(optimizer);
        Ok(State {
            progress,
            // The record is not copied again if its memory can be that of a vector.
            optimizer: record.try_into_vec().unwrap_or_else(|record| record.to_vec()),
            network: values(network),
            ema: values(ema),
            averages: averages.into_iter().map(values).collect(),
        })
    }
}
