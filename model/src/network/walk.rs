//! The walk over a network's blocks: dropout, gradient checkpointing and attention maps.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::kernels::DropoutKeys;
use crate::network::io::{AttentionMaps, NetworkOptions, NetworkOutput};

/// A block of a network: a map in, a map out, with the time token.
pub(crate) trait WalkedBlock: Module + 'static {
    /// Computes the output, and with `weights` the attention maps if the block has any.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`; time: `[B, time width]`; output: `[B, H', W', C_out]`
    fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        dropout: Option<DropoutKeys>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>);
}

/// A walk over the blocks of a network in the order of execution, during one forward pass.
pub(crate) struct Walk<'a> {
    options: &'a NetworkOptions,
    time: Tensor<2>,
    /// Number of the next block.
    number: usize,
    /// Attention maps of the block that is inspected, once it has run.
    attention: Option<AttentionMaps>,
    /// Summaries of the attention of the blocks that have run, if requested.
    summaries: Vec<Option<Tensor<2>>>,
}

impl<'a> Walk<'a> {
    /// The walk of a forward pass with these options and this time token.
    pub fn new(options: &'a NetworkOptions, time: Tensor<2>) -> Self {
        Self { options, time, number: 0, attention: None, summaries: Vec::new() }
    }

    /// Runs the next block.
    pub fn run<B: WalkedBlock>(&mut self, block: &B, x: Tensor<4>) -> Tensor<4> {
        let NetworkOptions { training, inspection, .. } = self.options;
        let (number, time) = (self.number, self.time.clone());
        self.number += 1;
        let dropout = training.dropout.as_ref().map(|keys| DropoutKeys::new(keys, number));
        #[cfg(feature = "train")]
        if let Some(recompute) = &training.recompute {
            return recompute.block(block, x, time, move |block, x, time| {
                block.forward(x, time, dropout.clone(), false).0
            });
        }
        let inspected = inspection.attention_of == Some(number);
        let (x, maps) = block.forward(x, time, dropout, inspected || inspection.summaries);
        if inspection.summaries {
            self.summaries.push(maps.as_ref().map(AttentionMaps::summary));
        }
        if inspected {
            self.attention = maps;
        }
        x
    }

    /// Ends the walk with the network's output, `[B, C, H, W]`.
    pub fn finish(self, x: Tensor<4>) -> NetworkOutput {
        NetworkOutput { x, attention: self.attention, summaries: self.summaries }
    }
}
