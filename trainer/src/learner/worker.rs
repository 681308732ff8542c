//! One device's copy of the model, and the gradients of its share of a batch.

use anyhow::Context;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use model::examples::Examples;
use model::gradients::clip;
use model::label::Label;
use model::recompute::Recompute;
use model::{Conditioning, Model};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::config::TrainConfig;
use crate::data::augment::Resampler;
use crate::data::loader::Batch;

/// A copy of the model on a device.
pub struct Worker {
    /// Model on the autodiff device.
    pub model: Model,
    /// Optimizer of this copy. All copies have the same state.
    pub optimizer: ModuleOptimizer,
    /// Device with autodiff.
    pub device: Device,
    resampler: Resampler,
    /// The thread that computes this worker's gradients, if there are several workers. It lasts: on
    /// a GPU, each new thread would get a queue and a pool of memory of its own.
    thread: Option<ThreadPool>,
}

impl Worker {
    /// Makes a worker of a model on `device`, which has autodiff, that computes in `precision`.
    pub fn new(model: Model, optimizer: ModuleOptimizer, precision: DType, device: Device) -> Self {
        let [_, _, side] = model.config.image_shape();
        Self {
            model: model.computing_in(precision),
            optimizer,
            resampler: Resampler::new(side, &device.clone().inner()),
            device,
            thread: None,
        }
    }

    /// Gives the worker a thread of its own for its gradients.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn with_thread(self) -> anyhow::Result<Self> {
        let thread = ThreadPoolBuilder::new().num_threads(1).build();
        Ok(Self { thread: Some(thread.context("a thread for a device")?), ..self })
    }

    /// Computes the gradients of each worker's share at the same time, each on its worker's thread.
    pub fn all_gradients<T: Send>(
        workers: &[Self],
        shares: Vec<Batch>,
        compute: &(impl Fn(&Self, Batch) -> T + Sync),
    ) -> Vec<T> {
        /// Starts the first worker, then all others, then waits for the first.
        fn start<T: Send>(
            workers: &[Worker],
            shares: &mut dyn Iterator<Item = Batch>,
            results: &mut [Option<T>],
            compute: &(impl Fn(&Worker, Batch) -> T + Sync),
        ) {
            let ([worker, workers @ ..], Some(share)) = (workers, shares.next()) else { return };
            let [result, results @ ..] = results else { return };
            match &worker.thread {
                Some(thread) => thread.in_place_scope(|scope| {
                    scope.spawn(|_| *result = Some(compute(worker, share)));
                    start(workers, shares, results, compute);
                }),
                None => {
                    *result = Some(compute(worker, share));
                    start(workers, shares, results, compute);
                }
            }
        }
        let mut results: Vec<Option<T>> = workers.iter().map(|_| None).collect();
        start(workers, &mut shares.into_iter(), &mut results, compute);
        results.into_iter().flatten().collect()
    }

    /// Computes the gradient of a share of a batch of `batch_size` images, `micro_batch` images at
    /// a time. Returns the gradient, divided by `batch_size`, and the loss of each image.
    pub fn gradients(
        &self,
        share: Batch,
        config: &TrainConfig,
        micro_batch: usize,
        batch_size: usize,
    ) -> (GradientsParams, Vec<f64>) {
        let mut accumulator = GradientsAccumulator::new();
        let mut losses = Vec::with_capacity(share.sigma.len());
        for part in share.split(micro_batch, config.model.image_shape()) {
            losses.extend(self.backward(part, config, batch_size, |gradients| {
                let gradients = GradientsParams::from_grads(gradients, &self.model.network);
                accumulator.accumulate(&self.model.network, gradients);
            }));
        }
        (accumulator.grads(), losses)
    }

    /// Clips a gradient of global norm `norm` and updates the weights with it.
    pub fn update(mut self, sum: GradientsParams, norm: f64, limit: Option<f64>, lr: f64) -> Self {
        let network = self.model.network;
        let sum = match limit {
            Some(limit) => clip(&network, sum, norm, limit),
            None => sum,
        };
        self.model.network = self.optimizer.step(lr, network, sum);
        self
    }

    /// Computes the gradient of a micro-batch. Returns the losses, and passes the gradient to
    /// `accumulate`, in several calls with gradient checkpointing.
    fn backward(
        &self,
        batch: Batch,
        config: &TrainConfig,
        batch_size: usize,
        mut accumulate: impl FnMut(Gradients),
    ) -> Vec<f64> {
        let b = batch.sigma.len();
        let [c, h, w] = config.model.image_shape();
        let labels = config.model.augment_labels();
        let tensor = |values, device: &Device| {
            Tensor::<4>::from_data(TensorData::new(values, [b, c, h, w]), device)
        };
        let images = if batch.inverses.is_empty() {
            tensor(batch.images, &self.device)
        } else {
            // Resampling needs no gradients.
            let images = tensor(batch.images, &self.device.clone().inner());
            Tensor::from_inner(self.resampler.apply(images, &batch.inverses))
        };
        let noise = tensor(batch.noise, &self.device);
        let augment = (labels > 0).then(|| {
            Tensor::<2>::from_data(TensorData::new(batch.augment, [b, labels]), &self.device)
        });
        let recompute = config.gradient_checkpointing.then(Recompute::default);
        let labels = batch.classes.into_iter().map(Label::from).collect();
        let examples = Examples {
            images,
            noise,
            sigma: batch.sigma,
            conditioning: Conditioning { labels, augment },
            dropout: batch.dropout,
        };
        // Summed over values and averaged over images, as in EDM.
        let losses = examples.losses(&self.model, &config.loss, recompute.clone());
        let weight = Tensor::<1>::from_data(TensorData::new(batch.weight, [b]), &self.device);
        let objective = (losses.clone() * weight).sum() / batch_size as f64;
        let losses = losses.inner();
        match recompute {
            Some(recompute) => recompute.backward(objective, accumulate),
            None => accumulate(objective.backward()),
        }
        // Read last: a GPU would have nothing to do while the host waits for it, until it is given
        // the backward pass.
        let losses = losses.into_data().try_into_vec::<f32>().expect("losses are f32");
        losses.into_iter().map(|loss| f64::from(loss) / (c * h * w) as f64).collect()
    }
}
