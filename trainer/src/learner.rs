//! A step of training: gradients of a batch, Adam or Muon, the moving average.
//!
//! The batch may be computed in parts ([`TrainConfig::micro_batch`]), and by several workers, each
//! with a copy of the model on a device of its own. The step is that of the whole batch either way,
//! up to the order in which sums are rounded.

use std::ops::Range;
use std::thread;

use anyhow::ensure;
use burn::optim::{AdamConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, DType, Device, Gradients, Tensor, TensorData};
use model::label::Label;
use model::recompute::Recompute;
use model::{Conditioning, Model, NetworkOptions, TrainingOptions};

use crate::augment::Resampler;
use crate::config::{Optimizer, Precision, TrainConfig};
use crate::loader::Batch;
use crate::nodes::Nodes;
use crate::{ema, gradients, muon};

/// What one step came to.
pub struct Step {
    /// The loss, averaged over the values of all pictures, each with its weight.
    pub loss: f64,
    /// The loss of each picture, averaged over its values, without the weight.
    pub losses: Vec<f64>,
    /// The norm of the gradient, before it was shortened.
    pub norm: f64,
    /// Whether the weights were changed: they are not where loss or gradient are not finite.
    pub taken: bool,
}

/// A model in training.
pub struct Learner {
    /// One for each device, all with the same weights.
    workers: Vec<Worker>,
    /// The moving average of the weights, on the first device.
    ema: Model,
    /// Other machines that take the same steps.
    nodes: Option<Nodes>,
}

impl Learner {
    /// From a maker of models: it is called for every device, and once more for the moving
    /// average, and returns the same weights for each. `nodes` are other machines that share the
    /// batch with this one.
    ///
    /// # Errors
    ///
    /// If a device cannot compute in the precision of the recipe, or no model can be made.
    pub fn new(
        config: &TrainConfig,
        devices: &[Device],
        nodes: Option<Nodes>,
        model: impl Fn(&Device) -> anyhow::Result<Model>,
        ema: impl FnOnce(&Device) -> anyhow::Result<Model>,
    ) -> anyhow::Result<Self> {
        let [_, _, side] = config.model.image_shape();
        let [beta_1, beta_2] = config.adam.betas.map(|beta| beta as f32);
        let adam = AdamConfig::new()
            .with_beta_1(beta_1)
            .with_beta_2(beta_2)
            .with_epsilon(config.adam.eps as f32);
        let muon_lr = config.muon_lr.unwrap_or(config.adam.lr);
        let optimizer = |model: &Model| match config.optimizer {
            Optimizer::Adam => adam.init(),
            Optimizer::Muon => muon::beside(&adam, muon_lr / config.adam.lr, model.network.specs()),
        };
        let compute = match config.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        let worker = |device: &Device| {
            ensure!(
                device.supports_dtype(compute),
                "this device cannot compute in {compute:?}; --precision f32 does without"
            );
            let device = device.clone().autodiff();
            let model = model(&device)?.computing_in(compute);
            Ok(Worker {
                optimizer: optimizer(&model),
                model,
                resampler: Resampler::new(side, &device.clone().inner()),
                device,
            })
        };
        let workers = devices.iter().map(worker).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { workers, ema: ema(&devices[0])?, nodes })
    }

    /// Goes on with the optimizer's state of an earlier run.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn resume_optimizer(&mut self, record: &[u8]) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            let bytes = Bytes::from_bytes_vec(record.to_vec());
            let optimizer = worker.optimizer.clone().from_bytes(bytes);
            worker.optimizer =
                optimizer.map_err(|error| anyhow::anyhow!("the optimizer's state: {error}"))?;
        }
        Ok(())
    }

    /// The optimizer's state.
    ///
    /// # Errors
    ///
    /// If Burn cannot write it down.
    pub fn optimizer(&self) -> anyhow::Result<Vec<u8>> {
        let record = self.workers[0].optimizer.into_bytes();
        Ok(record.map_err(|error| anyhow::anyhow!("the optimizer's state: {error}"))?.to_vec())
    }

    /// The model that trains.
    pub fn model(&self) -> &Model {
        &self.workers[0].model
    }

    /// The moving average of its weights.
    pub fn ema(&self) -> &Model {
        &self.ema
    }

    /// The other machines.
    pub fn nodes(&mut self) -> Option<&mut Nodes> {
        self.nodes.as_mut()
    }

    /// This machine's part of a batch.
    pub fn share(&self, batch: usize) -> Range<usize> {
        self.nodes.as_ref().map_or(0..batch, |nodes| nodes.share(batch))
    }

    /// Ends training on several machines.
    pub fn leave(&mut self) {
        if let Some(nodes) = self.nodes.take() {
            nodes.leave();
        }
    }

    /// One step of the optimizer on this machine's share of a batch, after `images` have been seen.
    /// It is not taken where the loss or the gradient is not finite.
    ///
    /// # Errors
    ///
    /// If another machine is gone.
    pub fn step(
        &mut self,
        batch: Batch,
        config: &TrainConfig,
        images: u64,
    ) -> anyhow::Result<Step> {
        let whole = config.batch;
        let weight = batch.weight.clone();
        let share = batch.sigma.len() / self.workers.len();
        let shares = batch.parts(share, config.model.image_shape());
        let size = config.micro_batch.map_or(share, |size| size.min(share));
        let (parts, losses): (Vec<_>, Vec<_>) = match &self.workers[..] {
            [worker] => {
                shares.into_iter().map(|share| worker.gradients(share, config, size, whole)).unzip()
            }
            workers => thread::scope(|scope| {
                let running: Vec<_> = workers
                    .iter()
                    .zip(shares)
                    .map(|(worker, share)| {
                        scope.spawn(move || worker.gradients(share, config, size, whole))
                    })
                    .collect();
                running.into_iter().map(|work| work.join().expect("a worker panicked")).unzip()
            }),
        };
        let mut losses = losses.concat();
        let weighted = losses.iter().zip(weight).map(|(loss, weight)| loss * weight);
        let mut loss = weighted.sum::<f64>() / whole as f64;
        let network = &self.workers[0].model.network;
        let devices: Vec<_> = self.workers.iter().map(|worker| worker.device.clone()).collect();
        let mut sums = gradients::all_reduce(network, parts, &devices);
        if let Some(nodes) = &mut self.nodes {
            // What each machine knows of the losses, in its places of the batch.
            let mut values = vec![0.0; whole];
            let places = nodes.share(whole).zip(&losses);
            places.for_each(|(place, loss)| values[place] = *loss as f32);
            values.push(loss as f32);
            values.extend(gradients::values(network, &sums[0]));
            let values = nodes.sum(&values)?;
            losses = values[..whole].iter().copied().map(f64::from).collect();
            loss = values[whole].into();
            let replace = |sum| gradients::replace(network, sum, &values[whole + 1..]);
            sums = sums.into_iter().map(replace).collect();
        }

        let norm = gradients::norm(network, &sums[0]);
        let taken = loss.is_finite() && norm.is_finite();
        if taken {
            if let Some(clip) = config.clip
                && norm > clip
            {
                let scale = |sum| gradients::scale(network, sum, clip / norm);
                sums = sums.into_iter().map(scale).collect();
            }
            let lr = config.lr(images);
            for (worker, sum) in self.workers.iter_mut().zip(sums) {
                let network = worker.model.network.clone();
                worker.model.network = worker.optimizer.step(lr, network, sum);
            }
            let network = &self.workers[0].model.network;
            self.ema.network =
                ema::update(self.ema.network.clone(), network, config.ema_beta(images));
        }
        Ok(Step { loss, losses, norm, taken })
    }
}

/// A copy of the model on a device.
struct Worker {
    model: Model,
    optimizer: ModuleOptimizer,
    resampler: Resampler,
    /// With backpropagation.
    device: Device,
}

impl Worker {
    /// The share of `batch` in the gradient of a batch of `whole` pictures, and their losses,
    /// computed `size` pictures at a time.
    fn gradients(
        &self,
        batch: Batch,
        config: &TrainConfig,
        size: usize,
        whole: usize,
    ) -> (GradientsParams, Vec<f64>) {
        let mut accumulator = GradientsAccumulator::new();
        let mut losses = Vec::with_capacity(batch.sigma.len());
        for part in batch.parts(size, config.model.image_shape()) {
            losses.extend(self.backward(part, config, whole, |gradients| {
                let gradients = GradientsParams::from_grads(gradients, &self.model.network);
                accumulator.accumulate(&self.model.network, gradients);
            }));
        }
        (accumulator.grads(), losses)
    }

    /// The same for pictures that are computed at once: returns the losses, and gives the gradient
    /// to `take` in one or more parts, which add up.
    fn backward(
        &self,
        batch: Batch,
        config: &TrainConfig,
        whole: usize,
        mut take: impl FnMut(Gradients),
    ) -> Vec<f64> {
        let b = batch.sigma.len();
        let [c, h, w] = config.model.image_shape();
        let labels = config.model.augment_labels();
        let pictures = |values, device: &Device| {
            Tensor::<4>::from_data(TensorData::new(values, [b, c, h, w]), device)
        };
        let images = if batch.inverses.is_empty() {
            pictures(batch.images, &self.device)
        } else {
            // Nothing here needs gradients.
            let images = pictures(batch.images, &self.device.clone().inner());
            Tensor::from_inner(self.resampler.apply(images, &batch.inverses))
        };
        let noise = pictures(batch.noise, &self.device);
        let sigma = TensorData::new(batch.sigma.clone(), [b, 1, 1, 1]);
        let noisy = images.clone() + noise.clone() * Tensor::from_data(sigma, &self.device);
        let augment = (labels > 0).then(|| {
            Tensor::<2>::from_data(TensorData::new(batch.augment, [b, labels]), &self.device)
        });
        let recompute = config.gradient_checkpointing.then(Recompute::default);
        let labels = batch.classes.into_iter().map(Label::from).collect();
        let options = NetworkOptions {
            conditioning: Conditioning { labels, augment },
            training: TrainingOptions {
                dropout: Some(batch.dropout),
                recompute: recompute.clone(),
            },
            ..NetworkOptions::default()
        };
        let made = self.model.denoise(noisy, &batch.sigma, options);
        // Summed over values, averaged over the pictures of the step, as EDM has it.
        let losses = config.loss.of(images, noise, &batch.sigma, made);
        let weight = Tensor::<1>::from_data(TensorData::new(batch.weight, [b]), &self.device);
        let objective = (losses.clone() * weight).sum() / whole as f64;
        let losses = losses.into_data().try_into_vec::<f32>().expect("losses are f32");
        let losses = losses.into_iter().map(|loss| f64::from(loss) / (c * h * w) as f64).collect();
        match recompute {
            Some(recompute) => recompute.backward(objective, take),
            None => take(objective.backward()),
        }
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::loader::Loader;
    use model::config::NetworkConfig;
    use std::sync::Arc;

    /// A small network with dropout and augmentation, in batches of 8.
    fn config() -> TrainConfig {
        let mut config = TrainConfig::preset("tiny").expect("a preset");
        let NetworkConfig::Image(image) = &mut config.model.network else { unreachable!() };
        image.channels = vec![32, 32];
        image.blocks = vec![1, 1];
        image.time.width = 32;
        image.dropout = 0.2;
        TrainConfig { batch: 8, lr_ramp: 0, augment: 0.5, ..config }
    }

    /// Takes 4 steps with so many workers.
    fn learn(config: &TrainConfig, workers: usize) -> (Learner, Vec<Step>) {
        let devices = vec![Device::flex(); workers];
        let make = |device: &_| Ok(Model::new(config.model.clone(), 1, device)?);
        let mut learner =
            Learner::new(config, &devices, None, make, make).expect("it fits together");
        let data = Dataset::open(&config.data, &config.model).expect("embedded");
        let loader = Loader::new(config, Arc::new(data), 0, 0..config.batch);
        let steps = (0..4u64)
            .map(|step| {
                let step = learner.step(loader.next(), config, step * config.batch as u64);
                step.expect("there are no other machines")
            })
            .collect();
        (learner, steps)
    }

    /// How far the parameters of two models lie apart, as vectors.
    fn distance(a: &Model, b: &Model) -> f64 {
        let values = |model: &Model| {
            model.parameters().into_iter().flat_map(|(_, values)| values).collect::<Vec<f32>>()
        };
        let squares = values(a).into_iter().zip(values(b)).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    }

    fn start(config: &TrainConfig) -> Model {
        Model::new(config.model.clone(), 1, &Device::flex()).expect("valid")
    }

    #[test]
    fn the_step_is_that_of_the_whole_batch() {
        let whole = config();
        let (one, steps) = learn(&whole, 1);
        let moved = distance(&start(&whole), one.model());
        for (micro_batch, workers) in [(Some(2), 1), (Some(4), 2), (None, 2), (Some(1), 4)] {
            let gradient_checkpointing = workers == 2;
            let parts = TrainConfig { micro_batch, gradient_checkpointing, ..whole.clone() };
            let (other, other_steps) = learn(&parts, workers);
            for (a, b) in steps.iter().zip(&other_steps) {
                assert!(
                    (a.loss / b.loss - 1.0).abs() < 1e-5 && (a.norm / b.norm - 1.0).abs() < 1e-4
                );
            }
            let off = distance(one.model(), other.model()).max(distance(one.ema(), other.ema()));
            assert!(off < 1e-2 * moved, "{micro_batch:?} x {workers}: off by {off} of {moved}");
            for worker in &other.workers {
                assert_eq!(distance(&worker.model, other.model()), 0.0);
            }
        }
    }

    /// The weights stay in single precision: steps far below what bfloat16 can tell apart add up.
    #[test]
    fn bf16_learns_as_f32_does() {
        let mut config = config();
        config.adam.lr = 1e-5;
        let (exact, exact_steps) = learn(&config, 1);
        config.precision = Precision::Bf16;
        let (rounded, steps) = learn(&config, 1);
        for (a, b) in exact_steps.iter().zip(&steps) {
            assert!((a.loss / b.loss - 1.0).abs() < 0.02, "{} and {}", a.loss, b.loss);
            assert!((a.norm / b.norm - 1.0).abs() < 0.1, "{} and {}", a.norm, b.norm);
        }
        assert_ne!(exact_steps[3].loss, steps[3].loss, "nothing was computed in bf16");
        let start = start(&config);
        let (moved, off) =
            (distance(&start, exact.model()), distance(rounded.model(), exact.model()));
        assert!(off < 0.5 * moved, "{off}, of {moved}");
    }
}
