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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conditioning;
    use crate::config::{ImageConfig, NetworkConfig, PrecondConfig, TimeConfig};
    use crate::examples::draw_noise;
    use burn::tensor::{Tensor, TensorData};

    const SIDE: usize = 8;
    const VALUES: usize = 3 * SIDE * SIDE;
    const BATCH: usize = 4;

    fn state(seed: u64) -> TrainState {
        let image = ImageConfig {
            resolution: SIDE,
            channels: vec![32],
            blocks: vec![1],
            time: TimeConfig { channels: 32, width: 32, augment_labels: 0, ..Default::default() },
            dropout: 0.0,
            branch_init: 1.0,
            ..ImageConfig::default()
        };
        let config =
            ModelConfig { network: NetworkConfig::Image(image), precond: PrecondConfig::default() };
        let adam = AdamConfig::new().with_epsilon(1e-8);
        TrainState::new(config, seed, &adam, &Device::flex()).expect("valid")
    }

    /// Steps on one picture, of which `value` gives the values.
    fn steps(state: &mut TrainState, steps: u64, value: impl Fn(usize) -> f32) -> Vec<Step> {
        let (loss, device) = (LossConfig::default(), Device::flex().autodiff());
        let step = |i: u64| {
            let numbers = i * BATCH as u64..(i + 1) * BATCH as u64;
            let (sigma, noise): (Vec<f64>, Vec<Vec<f32>>) =
                numbers.map(|k| draw_noise(&loss, 0, k, VALUES)).unzip();
            let images = (0..BATCH).flat_map(|_| (0..VALUES).map(&value)).collect();
            let tensor = |values: Vec<f32>| {
                let data = TensorData::new(values, [BATCH, 3, SIDE, SIDE]);
                Tensor::<4>::from_data(data, &device)
            };
            let examples = Examples {
                images: tensor(images),
                noise: tensor(noise.concat()),
                sigma,
                conditioning: Conditioning::default(),
                dropout: vec![0; BATCH],
            };
            let options = StepOptions { lr: 3e-3, clip: Some(1.0), ema_beta: 0.5 };
            state.step(&loss, examples, options)
        };
        (0..steps).map(step).collect()
    }

    fn picture(i: usize) -> f32 {
        if (i / 4).is_multiple_of(2) { 0.8 } else { -0.6 }
    }

    fn values(model: &Model) -> Vec<f32> {
        model.parameters().into_iter().flat_map(|(_, values)| values).collect()
    }

    #[test]
    fn steps_on_one_picture_reduce_its_loss() {
        let taken = steps(&mut state(0), 150, picture);
        let mean = |steps: &[Step]| steps.iter().map(|s| s.loss).sum::<f64>() / steps.len() as f64;
        let (before, after) = (mean(&taken[..5]), mean(&taken[120..]));
        assert!(after < 0.2 * before, "{before}, then {after}");
        assert!(taken.iter().all(|step| step.taken && step.losses.len() == BATCH));
    }

    #[test]
    fn a_run_is_a_function_of_its_seed() {
        let run = |seed| {
            let mut state = state(seed);
            let steps = steps(&mut state, 3, picture);
            (steps, values(state.model()), values(state.ema()))
        };
        let (first, again, other) = (run(1), run(1), run(2));
        assert_eq!(first, again);
        assert_ne!(first.1, other.1);
        // The average follows the weights.
        assert_ne!(first.1, first.2);
    }

    #[test]
    fn a_step_that_is_not_finite_changes_nothing() {
        let mut state = state(1);
        let before = values(state.model());
        let taken = steps(&mut state, 1, |i| if i == 7 { f32::NAN } else { 0.0 });
        assert!(!taken[0].taken);
        assert_eq!(values(state.model()), before);
        assert_eq!(values(state.ema()), before);
    }
}
