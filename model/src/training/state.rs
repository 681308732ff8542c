//! A model in training on one device: gradients of a batch, Adam, the moving average.

use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;

use crate::config::{ConfigError, ModelConfig};
use crate::loss::LossConfig;
use crate::model::Model;
use crate::training::examples::Examples;
use crate::training::{ema, gradients};

/// Result of a training step.
#[derive(Clone, Debug, PartialEq)]
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

/// Options of a training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOptions {
    /// Learning rate.
    pub lr: f64,
    /// Limit of the global norm of the gradient.
    pub clip: Option<f64>,
    /// Decay rate of the moving average.
    pub ema_beta: f64,
}

/// A model in training on one device.
pub struct TrainState {
    /// Model on the device with autodiff.
    model: Model,
    optimizer: ModuleOptimizer,
    /// Moving average of the weights, on the device without autodiff.
    ema: Model,
}

impl TrainState {
    /// A model with initial weights, a pure function of `seed`, on a device without autodiff.
    ///
    /// # Errors
    ///
    /// If the configuration is not valid.
    pub fn new(
        config: ModelConfig,
        seed: u64,
        adam: &AdamConfig,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let model = Model::new(config.clone(), seed, &device.clone().autodiff())?;
        let ema = Model::new(config, seed, device)?;
        Ok(Self { model, optimizer: adam.init(), ema })
    }

    /// Returns the moving average of the model.
    pub fn ema(&self) -> &Model {
        &self.ema
    }

    /// Returns the trained model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Takes a step on a batch. It is skipped if its loss or gradient is not finite.
    ///
    /// # Panics
    ///
    /// In a browser, if the device is a GPU.
    pub fn step(&mut self, loss: &LossConfig, batch: Examples, options: StepOptions) -> Step {
        let [b, c, h, w] = batch.images.dims();
        let losses = batch.losses(&self.model, loss, None);
        // Summed over values and averaged over images, as in EDM.
        let objective = losses.clone().sum() / b as f64;
        let losses = losses.inner();
        let network = &self.model.network;
        let parts = GradientsParams::from_grads(objective.backward(), network);
        let losses = losses.into_data().try_into_vec::<f32>().expect("losses are f32");
        let values = (c * h * w) as f64;
        let losses: Vec<f64> = losses.into_iter().map(|loss| f64::from(loss) / values).collect();
        let loss = losses.iter().sum::<f64>() / b as f64;
        let norm = gradients::norm(network, &parts);
        let taken = loss.is_finite() && norm.is_finite();
        if taken {
            let parts = match options.clip {
                Some(limit) => gradients::clip(network, parts, norm, limit),
                None => parts,
            };
            let network = self.optimizer.step(options.lr, network.clone(), parts);
            self.ema.network = ema::update(self.ema.network.clone(), &network, options.ema_beta);
            self.model.network = network;
        }
        Step { loss, losses, norm, taken }
    }
}
