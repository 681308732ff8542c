//! A training step: gradients of a batch, Adam or Muon, the moving average.
//!
//! A batch may be split into micro-batches ([`TrainConfig::micro_batch`]) and across workers, each
//! with a copy of the model on its own device. The result is that of the whole batch, up to the
//! order in which sums are rounded.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::ensure;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams};
use burn::tensor::{Bytes, DType, Device};
use model::gradients::norm;
pub use model::state::Step;
use model::{Model, ema};

use super::learned::Learned;
use super::nodes::Nodes;
use super::worker::Worker;
use super::{gradients, muon, placed};
use crate::averages::Profile;
use crate::config::{Optimizer, Precision, TrainConfig};
use crate::data::loader::Batch;

/// The time that the parts of steps took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTimes {
    /// Forward and backward pass, the sum over devices and machines, and the norm. On a GPU, the rest
    /// of the update of the step before is a part of it: the device works on it while the host goes on.
    pub gradients: Duration,
    /// Clipping, the optimizer and the moving averages. On a GPU, the time to queue them.
    pub update: Duration,
}

/// The decay of a moving average.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// The half-life of the recipe.
    HalfLife,
    /// A power-function profile.
    Power(Profile),
}

impl Rule {
    /// Returns the decay rate of a step after `images` images.
    fn beta(self, config: &TrainConfig, images: u64) -> f64 {
        match self {
            Self::HalfLife => config.ema_beta(images),
            Self::Power(profile) => {
                let batch = config.batch as u64;
                profile.beta(images + batch, batch)
            }
        }
    }
}

/// A model in training.
pub struct Learner {
    /// One worker per device, all with the same weights.
    workers: Vec<Worker>,
    /// Moving averages of the weights, on the first device: the one of the recipe, then those with
    /// power-function profiles, usually none.
    averages: Vec<(Rule, Model)>,
    /// Connection to the other machines, if there are any.
    nodes: Option<Nodes>,
    /// Time of the steps since it was last taken.
    times: StepTimes,
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
            let worker = Worker::new(model, optimizer, precision, of_weights);
            if devices.len() > 1 { worker.with_thread() } else { Ok(worker) }
        };
        let workers = devices.iter().map(worker).collect::<anyhow::Result<Vec<_>>>()?;
        let ema = ema(&devices[0])?;
        // The first step replaces these.
        let profiles = config.profile_stds().iter().filter_map(|std| Profile::of_std(*std));
        let powers: Vec<_> = profiles.map(|profile| (Rule::Power(profile), ema.clone())).collect();
        let averages = std::iter::once((Rule::HalfLife, ema)).chain(powers).collect();
        Ok(Self { workers, averages, nodes, times: StepTimes::default() })
    }

    /// Restores the moving averages with power-function profiles, in the order of the recipe.
    /// `model` returns each by its number, on a device.
    pub fn restore_averages(&mut self, model: impl Fn(usize, &Device) -> Model) {
        let device = self.workers[0].device.clone().inner();
        for (i, (_, average)) in self.averages.iter_mut().skip(1).enumerate() {
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

    /// Returns what was learned so far. This takes no copy of the tensors.
    pub fn learned(&self) -> Learned {
        let averages = self.averages().cloned().collect();
        let Worker { model, optimizer, .. } = &self.workers[0];
        Learned::new(model, self.ema(), averages, optimizer)
    }

    /// Returns the trained model.
    pub fn model(&self) -> &Model {
        &self.workers[0].model
    }

    /// Returns the moving average of the model.
    pub fn ema(&self) -> &Model {
        &self.averages[0].1
    }

    /// Returns the moving averages with power-function profiles, in the order of the recipe.
    pub fn averages(&self) -> impl ExactSizeIterator<Item = &Model> {
        self.averages[1..].iter().map(|(_, average)| average)
    }

    /// Returns the connection to the other machines, if there are any.
    pub fn nodes(&mut self) -> Option<&mut Nodes> {
        self.nodes.as_mut()
    }

    /// Returns the time that all steps took since the call before.
    pub fn take_times(&mut self) -> StepTimes {
        std::mem::take(&mut self.times)
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
        let started = Instant::now();
        let weight = batch.weight.clone();
        let (parts, losses) = self.gradients(batch, config);
        let weighted = losses.iter().zip(weight).map(|(loss, weight)| loss * weight);
        let loss = weighted.sum::<f64>() / config.batch as f64;
        let network = &self.workers[0].model.network;
        let devices: Vec<_> = self.workers.iter().map(|worker| worker.device.clone()).collect();
        let sums = gradients::all_reduce(network, parts, &devices);
        let (sums, loss, losses) = self.sum_over_nodes(sums, loss, losses, config.batch)?;

        let network = &self.workers[0].model.network;
        let norm = norm(network, &sums[0]);
        let taken = loss.is_finite() && norm.is_finite();
        self.times.gradients += started.elapsed();
        if taken {
            let started = Instant::now();
            self.update(sums, norm, config, images);
            self.times.update += started.elapsed();
        }
        Ok(Step { loss, losses, norm, taken })
    }

    /// Computes the gradient of each worker's share of a batch, and the loss of each image.
    fn gradients(&self, batch: Batch, config: &TrainConfig) -> (Vec<GradientsParams>, Vec<f64>) {
        let share = batch.sigma.len() / self.workers.len();
        let shares = batch.split(share, config.model.image_shape());
        let micro_batch = config.micro_batch.map_or(share, |size| size.min(share));
        let compute = |worker: &Worker, share: Batch| {
            worker.gradients(share, config, micro_batch, config.batch)
        };
        let gradients = Worker::all_gradients(&self.workers, shares, &compute);
        let (parts, losses): (Vec<_>, Vec<_>) = gradients.into_iter().unzip();
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
        let values = nodes.sum_step(values)?;
        let losses = values[..batch].iter().copied().map(f64::from).collect();
        let loss = values[batch].into();
        let replace = |sum| gradients::replace(network, sum, &values[batch + 1..]);
        Ok((sums.into_iter().map(replace).collect(), loss, losses))
    }

    /// Clips the gradients and updates the weights and their moving averages.
    ///
    /// Workers and averages are taken apart for it: a tensor is changed in place if nothing else
    /// holds it.
    fn update(&mut self, sums: Vec<GradientsParams>, norm: f64, config: &TrainConfig, images: u64) {
        let lr = config.lr(images);
        let workers = std::mem::take(&mut self.workers).into_iter().zip(sums);
        let updated = workers.map(|(worker, sum)| worker.update(sum, norm, config.clip, lr));
        self.workers = updated.collect();
        let network = &self.workers[0].model.network;
        let averages = std::mem::take(&mut self.averages).into_iter();
        let moved = averages.map(|(rule, mut average)| {
            average.network = ema::update(average.network, network, rule.beta(config, images));
            (rule, average)
        });
        self.averages = moved.collect();
    }
}

#[cfg(test)]
mod tests;
