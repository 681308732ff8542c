//! A training step: gradients of a batch, Adam or Muon, the moving average.
//!
//! A batch may be split into micro-batches ([`TrainConfig::micro_batch`]) and across workers, each
//! with a copy of the model on its own device. The result is that of the whole batch, up to the
//! order in which sums are rounded.

use std::ops::Range;
use std::thread;

use anyhow::ensure;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams};
use burn::tensor::{Bytes, DType, Device};
use model::Model;

use super::nodes::Nodes;
use super::worker::Worker;
use super::{ema, gradients, muon, placed};
use crate::averages::Profile;
use crate::config::{Optimizer, Precision, TrainConfig};
use crate::data::loader::Batch;

/// Result of a training step.
pub struct Step {
    /// Weighted loss, averaged over values and images.
    pub loss: f64,
    /// Unweighted loss of each image, averaged over its values.
    pub losses: Vec<f64>,
    /// Global norm of the gradient before clipping.
    pub norm: f64,
    /// Whether the weights were updated. A step is skipped if its loss or gradient is not finite.
    pub taken: bool,
}

/// A model in training.
pub struct Learner {
    /// One worker per device, all with the same weights.
    workers: Vec<Worker>,
    /// Moving average of the weights, on the first device.
    ema: Model,
    /// Moving averages with power-function profiles, on the first device; usually none.
    averages: Vec<(Profile, Model)>,
    /// Connection to the other machines, if there are any.
    nodes: Option<Nodes>,
}

impl Learner {
    /// Makes a learner. `model` is called once per device and must return the same weights each
    /// time; `ema` returns the moving average.
    ///
    /// # Errors
    ///
    /// If a device does not support the precision of the recipe, or a model cannot be built.
    pub fn new(
        config: &TrainConfig,
        devices: &[Device],
        nodes: Option<Nodes>,
        model: impl Fn(&Device) -> anyhow::Result<Model>,
        ema: impl FnOnce(&Device) -> anyhow::Result<Model>,
    ) -> anyhow::Result<Self> {
        let [beta_1, beta_2] = config.adam.betas.map(|beta| beta as f32);
        let adam = AdamConfig::new()
            .with_beta_1(beta_1)
            .with_beta_2(beta_2)
            .with_epsilon(config.adam.eps as f32);
        let muon_lr = config.muon_lr.unwrap_or(config.adam.lr);
        let weight_decay = config.adam.weight_decay as f32;
        let adam_w = AdamWConfig::new()
            .with_beta_1(beta_1)
            .with_beta_2(beta_2)
            .with_epsilon(config.adam.eps as f32)
            .with_weight_decay(weight_decay);
        let optimizer = |model: &Model, device: &Device| match config.optimizer {
            Optimizer::Adam if weight_decay > 0.0 => placed::optimizer(adam_w.build(), device),
            Optimizer::Adam => placed::optimizer(adam.build(), device),
            Optimizer::Muon => {
                muon::with_adam(&adam, muon_lr / config.adam.lr, model.network.specs(), device)
            }
        };
        let precision = match config.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        let worker = |device: &Device| {
            ensure!(
                device.supports_dtype(precision),
                "this device does not support {precision:?}; use --precision f32"
            );
            let of_weights = device.clone().autodiff();
            let model = model(&of_weights)?;
            let optimizer = optimizer(&model, device);
            Ok(Worker::new(model, optimizer, precision, of_weights))
        };
        let workers = devices.iter().map(worker).collect::<anyhow::Result<Vec<_>>>()?;
        let ema = ema(&devices[0])?;
        // The first step replaces these.
        let profiles = config.profile_stds().iter().filter_map(|std| Profile::of_std(*std));
        let averages = profiles.map(|profile| (profile, ema.clone())).collect();
        Ok(Self { workers, ema, averages, nodes })
    }

    /// Restores the moving averages with power-function profiles, in the order of the recipe.
    /// `model` returns each by its number, on a device.
    pub fn restore_averages(&mut self, model: impl Fn(usize, &Device) -> Model) {
        let device = self.workers[0].device.clone().inner();
        for (i, (_, average)) in self.averages.iter_mut().enumerate() {
            *average = model(i, &device);
        }
    }

    /// Restores the state of the optimizer, each worker's on its device.
    ///
    /// # Errors
    ///
    /// If the record is invalid.
    pub fn restore_optimizer(&mut self, record: &[u8]) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            let bytes = Bytes::from_bytes_vec(record.to_vec());
            let optimizer = worker.optimizer.clone().from_bytes(bytes);
            worker.optimizer =
                optimizer.map_err(|error| anyhow::anyhow!("optimizer state: {error}"))?;
        }
        Ok(())
    }

    /// Returns the state of the optimizer as a record of Burn.
    ///
    /// # Errors
    ///
    /// If Burn cannot serialise it.
    pub fn optimizer(&self) -> anyhow::Result<Vec<u8>> {
        let record = self.workers[0].optimizer.into_bytes();
        Ok(record.map_err(|error| anyhow::anyhow!("optimizer state: {error}"))?.to_vec())
    }

    /// Returns the trained model.
    pub fn model(&self) -> &Model {
        &self.workers[0].model
    }

    /// Returns the moving average of the model.
    pub fn ema(&self) -> &Model {
        &self.ema
    }

    /// Returns the moving averages with power-function profiles, in the order of the recipe.
    pub fn averages(&self) -> impl ExactSizeIterator<Item = &Model> {
        self.averages.iter().map(|(_, average)| average)
    }

    /// Returns the connection to the other machines, if there are any.
    pub fn nodes(&mut self) -> Option<&mut Nodes> {
        self.nodes.as_mut()
    }

    /// Returns this machine's share of a batch.
    pub fn share(&self, batch: usize) -> Range<usize> {
        self.nodes.as_ref().map_or(0..batch, |nodes| nodes.share(batch))
    }

    /// Disconnects from the other machines at the end of training.
    pub fn disconnect(&mut self) {
        if let Some(nodes) = self.nodes.take() {
            nodes.disconnect();
        }
    }

    /// Takes a step on this machine's share of a batch, after `images` images. The step is skipped
    /// if its loss or gradient is not finite.
    ///
    /// # Errors
    ///
    /// If the connection to another machine is lost.
    pub fn step(
        &mut self,
        batch: Batch,
        config: &TrainConfig,
        images: u64,
    ) -> anyhow::Result<Step> {
        let weight = batch.weight.clone();
        let (parts, losses) = self.gradients(batch, config);
        let weighted = losses.iter().zip(weight).map(|(loss, weight)| loss * weight);
        let loss = weighted.sum::<f64>() / config.batch as f64;
        let network = &self.workers[0].model.network;
        let devices: Vec<_> = self.workers.iter().map(|worker| worker.device.clone()).collect();
        let sums = gradients::all_reduce(network, parts, &devices);
        let (sums, loss, losses) = self.sum_over_nodes(sums, loss, losses, config.batch)?;

        let network = &self.workers[0].model.network;
        let norm = gradients::norm(network, &sums[0]);
        let taken = loss.is_finite() && norm.is_finite();
        if taken {
            self.update(sums, norm, config, images);
        }
        Ok(Step { loss, losses, norm, taken })
    }

    /// Computes the gradient of each worker's share of a batch, and the loss of each image.
    fn gradients(&self, batch: Batch, config: &TrainConfig) -> (Vec<GradientsParams>, Vec<f64>) {
        let share = batch.sigma.len() / self.workers.len();
        let shares = batch.split(share, config.model.image_shape());
        let micro_batch = config.micro_batch.map_or(share, |size| size.min(share));
        let compute =
            |worker: &Worker, share| worker.gradients(share, config, micro_batch, config.batch);
        let (parts, losses): (Vec<_>, Vec<_>) = match &self.workers[..] {
            [worker] => shares.into_iter().map(|share| compute(worker, share)).unzip(),
            workers => thread::scope(|scope| {
                let running: Vec<_> = workers
                    .iter()
                    .zip(shares)
                    .map(|(worker, share)| scope.spawn(move || compute(worker, share)))
                    .collect();
                running.into_iter().map(|work| work.join().expect("a worker panicked")).unzip()
            }),
        };
        (parts, losses.concat())
    }

    /// Adds gradients and losses over all machines.
    fn sum_over_nodes(
        &mut self,
        sums: Vec<GradientsParams>,
        loss: f64,
        losses: Vec<f64>,
        batch: usize,
    ) -> anyhow::Result<(Vec<GradientsParams>, f64, Vec<f64>)> {
        let Some(nodes) = &mut self.nodes else { return Ok((sums, loss, losses)) };
        let network = &self.workers[0].model.network;
        // Each machine fills in the losses of its share of the batch; the others are 0.
        let mut values = vec![0.0; batch];
        for (i, loss) in nodes.share(batch).zip(losses) {
            values[i] = loss as f32;
        }
        values.push(loss as f32);
        values.extend(gradients::values(network, &sums[0]));
        let values = nodes.sum(&values)?;
        let losses = values[..batch].iter().copied().map(f64::from).collect();
        let loss = values[batch].into();
        let replace = |sum| gradients::replace(network, sum, &values[batch + 1..]);
        Ok((sums.into_iter().map(replace).collect(), loss, losses))
    }

    /// Clips the gradients and updates the weights and their moving average.
    fn update(&mut self, sums: Vec<GradientsParams>, norm: f64, config: &TrainConfig, images: u64) {
        let lr = config.lr(images);
        for (worker, sum) in self.workers.iter_mut().zip(sums) {
            let network = worker.model.network.clone();
            let sum = match config.clip {
                Some(limit) => gradients::clip(&network, sum, norm, limit),
                None => sum,
            };
            worker.model.network = worker.optimizer.step(lr, network, sum);
        }
        let network = &self.workers[0].model.network;
        self.ema.network = ema::update(self.ema.network.clone(), network, config.ema_beta(images));
        let batch = config.batch as u64;
        for (profile, average) in &mut self.averages {
            let beta = profile.beta(images + batch, batch);
            average.network = ema::update(average.network.clone(), network, beta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmaProfiles;
    use crate::data::dataset::Dataset;
    use crate::data::loader::Loader;
    use crate::run::checkpoint::State;
    use crate::run::progress::Progress;
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

    /// Takes 4 steps with the given number of workers.
    fn learn(config: &TrainConfig, workers: usize) -> (Learner, Vec<Step>) {
        let devices = vec![Device::flex(); workers];
        let make = |device: &_| Ok(Model::new(config.model.clone(), 1, device)?);
        let mut learner =
            Learner::new(config, &devices, None, make, make).expect("it fits together");
        let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
        let loader = Loader::new(config, Arc::new(data), 0, 0..config.batch);
        let steps = (0..4u64)
            .map(|step| {
                let step = learner.step(loader.next(), config, step * config.batch as u64);
                step.expect("one machine")
            })
            .collect();
        (learner, steps)
    }

    /// Euclidean distance of the parameters of two models.
    fn distance(a: &Model, b: &Model) -> f64 {
        let values = |model: &Model| {
            model.parameters().into_iter().flat_map(|(_, values)| values).collect::<Vec<f32>>()
        };
        let (a, b) = (values(a), values(b));
        assert_eq!(a.len(), b.len());
        let squares = a.into_iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    }

    fn start(config: &TrainConfig) -> Model {
        Model::new(config.model.clone(), 1, &Device::flex()).expect("valid")
    }

    #[test]
    fn micro_batches_and_workers_take_the_same_step() {
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
            for (a, b) in [(one.model(), other.model()), (one.ema(), other.ema())] {
                let off = distance(a, b);
                assert!(off < 1e-2 * moved, "{micro_batch:?} x {workers}: off by {off} of {moved}");
            }
            for worker in &other.workers {
                assert_eq!(distance(&worker.model, other.model()), 0.0);
            }
        }
    }

    /// After one step with decay, the weights differ by `lr · weight_decay · w` from those without.
    #[test]
    fn weight_decay_shrinks_the_weights_apart_from_the_gradient() {
        let config = config();
        let step = |weight_decay: f64| {
            let mut config = config.clone();
            config.adam.weight_decay = weight_decay;
            let make = |device: &_| Ok(Model::new(config.model.clone(), 1, device)?);
            let mut learner =
                Learner::new(&config, &[Device::flex()], None, make, make).expect("valid");
            let data = Dataset::open(&config.data, &config.model, false).expect("embedded");
            let loader = Loader::new(&config, Arc::new(data), 0, 0..config.batch);
            learner.step(loader.next(), &config, 8).expect("one machine");
            let values = learner.model().parameters().into_iter().flat_map(|(_, values)| values);
            values.collect::<Vec<f32>>()
        };
        let (plain, decayed) = (step(0.0), step(20.0));
        let before = start(&config).parameters().into_iter().flat_map(|(_, values)| values);
        let factor = (config.adam.lr * 20.0) as f32;
        let mut moved = 0;
        for ((before, plain), decayed) in before.zip(plain).zip(decayed) {
            let want = plain - factor * before;
            assert!((decayed - want).abs() < 1e-6, "{before}: {decayed}, not {want}");
            moved += usize::from(before.abs() > 0.01);
        }
        assert!(moved > 1_000);
    }

    /// The weights stay in single precision: updates below the resolution of bfloat16 add up.
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

    fn learner(config: &TrainConfig) -> Learner {
        let make = |device: &_| Ok(Model::new(config.model.clone(), 1, device)?);
        Learner::new(config, &[Device::flex()], None, make, make).expect("it fits together")
    }

    /// `n` batches of the embedded dataset.
    fn batches(config: &TrainConfig, n: usize) -> Vec<Batch> {
        let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
        let loader = Loader::new(config, Arc::new(data), 0, 0..config.batch);
        (0..n).map(|_| loader.next()).collect()
    }

    /// The check of a checkpoint knows where the moments are in Burn's record.
    #[test]
    fn moments_that_are_not_finite_are_found() {
        for optimizer in [Optimizer::Adam, Optimizer::Muon] {
            let config = TrainConfig { optimizer, ..config() };
            let mut learner = learner(&config);
            let batch = batches(&config, 1).remove(0);
            learner.step(batch, &config, 8).expect("one machine");
            let progress = Progress::new(config, String::new());
            let problem = |optimizer| {
                let (network, ema, averages) = (Vec::new(), Vec::new(), Vec::new());
                State { progress: &progress, network, ema, averages, optimizer }.not_finite()
            };
            let record = learner.optimizer().expect("a record");
            assert_eq!(problem(record.clone()), None);
            let length = record.len();
            // The moments take nearly all of the record.
            for at in [length / 4 * 2, length / 8 * 4, length - 4] {
                let at = length - (length - at).next_multiple_of(4);
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut record = record.clone();
                    record[at..at + 4].copy_from_slice(&bad.to_le_bytes());
                    assert_eq!(problem(record), Some("optimizer state"));
                }
            }
        }
    }

    /// Steps with NaN in an image, infinite noise or an infinite loss weight change nothing. The
    /// next step shows that the optimizer state is unchanged too.
    #[test]
    fn a_step_that_is_not_finite_changes_nothing() {
        for optimizer in [Optimizer::Adam, Optimizer::Muon] {
            let config = TrainConfig { optimizer, clip: Some(1.0), ..config() };
            let batch = config.batch as u64;
            let (mut plain, mut disturbed) = (learner(&config), learner(&config));
            for learner in [&mut plain, &mut disturbed] {
                let first = batches(&config, 1).remove(0);
                assert!(learner.step(first, &config, batch).expect("one machine").taken);
            }
            let before = disturbed.model().parameters();
            let average = disturbed.ema().parameters();
            let spoil: [fn(&mut Batch); 3] = [
                |batch| batch.images[5] = f32::NAN,
                |batch| batch.noise[5] = f32::INFINITY,
                |batch| batch.weight[1] = f64::INFINITY,
            ];
            for spoil in spoil {
                let mut bad = batches(&config, 1).remove(0);
                spoil(&mut bad);
                let step = disturbed.step(bad, &config, 2 * batch).expect("one machine");
                assert!(!step.taken, "loss {}, gradient norm {}", step.loss, step.norm);
                assert!(disturbed.model().parameters() == before, "the weights changed");
                assert!(disturbed.ema().parameters() == average, "the moving average changed");
            }
            for learner in [&mut plain, &mut disturbed] {
                let last = batches(&config, 2).remove(1);
                assert!(learner.step(last, &config, 3 * batch).expect("one machine").taken);
            }
            assert_eq!(distance(plain.model(), disturbed.model()), 0.0, "{optimizer:?}");
            assert_eq!(distance(plain.ema(), disturbed.ema()), 0.0, "{optimizer:?}");
            assert!(plain.model().parameters() != before, "the last step was not taken");
        }
    }

    /// Averages with power-function profiles are those of the weights after each step, computed in
    /// double precision. Other values are the same with and without them.
    #[test]
    fn averages_have_their_profiles() {
        let plain = config();
        let ema_profiles = Some(EmaProfiles { stds: vec![0.1, 0.2], snapshot_every: None });
        let config = TrainConfig { ema_profiles, ..plain.clone() };
        let (mut with, mut without) = (learner(&config), learner(&plain));
        assert_eq!((with.averages().len(), without.averages().len()), (2, 0));
        let values = |model: &Model| {
            let values = model.parameters().into_iter().flat_map(|(_, values)| values);
            values.map(f64::from).collect::<Vec<f64>>()
        };
        let gammas = [6.9372039, 1.8262138];
        let mut want = [Vec::new(), Vec::new()];
        let batch = config.batch as u64;
        for (step, data) in batches(&config, 3).into_iter().enumerate() {
            with.step(data, &config, step as u64 * batch).expect("one machine");
            let weights = values(with.model());
            for (want, gamma) in want.iter_mut().zip(gammas) {
                want.resize(weights.len(), 0.0);
                let beta = (1.0 - 1.0 / (step + 1) as f64).powf(gamma + 1.0);
                want.iter_mut().zip(&weights).for_each(|(w, x)| *w = beta * *w + (1.0 - beta) * x);
            }
        }
        for (step, data) in batches(&plain, 3).into_iter().enumerate() {
            without.step(data, &plain, step as u64 * batch).expect("one machine");
        }
        let moved = distance(&start(&config), with.model());
        for (average, want) in with.averages().zip(&want) {
            let squares = values(average).into_iter().zip(want).map(|(a, b)| (a - b).powi(2));
            let off = squares.sum::<f64>().sqrt();
            assert!(off < 1e-3 * moved, "off by {off} of {moved}");
            assert!(distance(average, with.model()) > 1e-3 * moved, "not an average");
        }
        assert_eq!(distance(with.model(), without.model()), 0.0);
        assert_eq!(distance(with.ema(), without.ema()), 0.0);
    }

    /// With a large epsilon, a step of Adam is proportional to the gradient: a gradient that is
    /// clipped to a hundredth of its norm moves the weights a hundredth as far.
    #[test]
    fn clipping_limits_the_step() {
        let mut config = config();
        (config.adam.lr, config.adam.eps) = (1e6, 1e6);
        let start = start(&config);
        let moved = |config: &TrainConfig| {
            let mut learner = learner(config);
            let batch = batches(config, 1).remove(0);
            let step = learner.step(batch, config, 0).expect("one machine");
            (step.norm, distance(&start, learner.model()))
        };
        let (norm, free) = moved(&config);
        let (same_norm, clipped) =
            moved(&TrainConfig { clip: Some(norm / 100.0), ..config.clone() });
        assert_eq!(norm, same_norm, "the reported norm is that before clipping");
        assert!((free / norm - 1.0).abs() < 1e-2, "{free} for a gradient of norm {norm}");
        assert!((100.0 * clipped / free - 1.0).abs() < 1e-2, "{clipped} and {free}");
        let (_, loose) = moved(&TrainConfig { clip: Some(norm * 2.0), ..config.clone() });
        assert_eq!(loose, free, "a norm below the limit is not scaled");
    }
}
