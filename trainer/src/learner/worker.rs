//! One device's copy of the model, and the gradients of its share of a batch.

use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use model::label::Label;
use model::recompute::Recompute;
use model::{Conditioning, Model, NetworkOptions, TrainingOptions};

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
        }
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
        let output = self.model.denoise(noisy, &batch.sigma, options);
        // Summed over values and averaged over images, as in EDM.
        let losses = config.loss.of(images, noise, &batch.sigma, output);
        let weight = Tensor::<1>::from_data(TensorData::new(batch.weight, [b]), &self.device);
        let objective = (losses.clone() * weight).sum() / batch_size as f64;
        let losses = losses.into_data().try_into_vec::<f32>().expect("losses are f32");
        let losses = losses.into_iter().map(|loss| f64::from(loss) / (c * h * w) as f64).collect();
        match recompute {
            Some(recompute) => recompute.backward(objective, accumulate),
            None => accumulate(objective.backward()),
        }
        losses
    }
}
