//! The training recipe: every option that a training run depends on.

mod fit;
pub mod options;
mod preset;
mod validate;

use std::f64::consts::PI;
use std::path::PathBuf;

use clap::ValueEnum;
use model::config::ModelConfig;
use model::ema;
use model::loss::LossConfig;
use serde::{Deserialize, Serialize};

/// Name of the embedded dataset, in place of a path.
pub const EMBEDDED_DATA: &str = "emoji";

/// Number of augmentation labels that the network is given: mirrored horizontally, mirrored
/// vertically, scale, rotation (2), stretching (2), translation (2).
pub const AUGMENT_LABELS: usize = 9;

/// The recipe of a training run. It is written to the run's `options.json` and to every checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Model.
    pub model: ModelConfig,
    /// Training objective.
    pub loss: LossConfig,
    /// Training data: a folder, an archive, a latent dataset, or [`EMBEDDED_DATA`].
    pub data: PathBuf,
    /// Whether images of other sizes are center-cropped to a square and resized. Otherwise they are
    /// errors.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resize: bool,
    /// Whether images that cannot be used are left out. They are found at the start, when all images
    /// are decoded. Otherwise they are errors.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip_bad: bool,
    /// Whether half of the images are mirrored horizontally. The augmentation labels say which.
    pub flip: bool,
    /// Probability of each other transformation of EDM's augmentation; 0 disables it.
    #[serde(default)]
    pub augment: f64,
    /// Probability of training on an image without its class, for classifier-free guidance.
    #[serde(default)]
    pub label_dropout: f64,
    /// Initial class embeddings.
    #[serde(default)]
    pub class_vectors: ClassVectors,
    /// Batch size.
    pub batch: usize,
    /// Micro-batch size for gradient accumulation. It divides `batch`. `None` computes the whole
    /// batch at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Whether activations inside the blocks are recomputed in the backward pass.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Precision of matrix products and convolutions. Weights, their moving average and the
    /// optimizer state are `f32`.
    #[serde(default)]
    pub precision: Precision,
    /// Limit of the gradient's global norm. `None` disables clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Number of images to train on.
    pub duration: u64,
    /// Adam.
    pub adam: AdamConfig,
    /// Number of images over which the learning rate warms up linearly from 0.
    pub lr_ramp: u64,
    /// Fraction of the duration, at its end, over which the learning rate decays to 0.
    #[serde(default)]
    pub lr_decay: f64,
    /// Shape of that decay: a straight line or a cosine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lr_decay_shape: DecayShape,
    /// Number of images after which the learning rate falls with the inverse square root of the
    /// number of images, as in EDM2. `None` keeps it constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_inverse_sqrt: Option<u64>,
    /// Optimizer.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Learning rate of Muon after warm-up. `None` uses that of Adam.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon_lr: Option<f64>,
    /// Whether the noise of a batch is assigned to its images by distance.
    #[serde(default)]
    pub immiscible: bool,
    /// Validation images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationConfig>,
    /// Exponential moving average of the weights.
    pub ema: EmaConfig,
    /// Moving averages with power-function profiles (EDM2). `None` keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_profiles: Option<EmaProfiles>,
    /// Seed of all random numbers.
    pub seed: u64,
    /// SHA-256 of the weights file that the run started from. `None` for random weights, and in
    /// recipes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_sha256: Option<String>,
}

/// Returns whether an option has its default. Then it is not serialised, and earlier versions read
/// the recipe.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Shape of the decay of the learning rate to 0 at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DecayShape {
    /// A straight line.
    #[default]
    Linear,
    /// Half a period of a cosine.
    Cosine,
}

/// Initial class embeddings of an image-space network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassVectors {
    /// Random values, as in EDM.
    #[default]
    Random,
    /// Principal components of the mean image of each class, for many classes with few images.
    Components,
}

/// Precision of matrix products and convolutions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// bfloat16; normalisation, softmax and loss in single precision.
    Bf16,
}

/// Optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam.
    #[default]
    Adam,
    /// Muon for the matrices and convolution kernels inside the network, Adam for the rest.
    Muon,
}

/// Validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Number of images.
    pub images: usize,
    /// Dataset to take them from. `None` holds them out of the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
}

/// Adam.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Decay rates of the first and the second moment.
    pub betas: [f64; 2],
    /// Term added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay (AdamW): in each step, every parameter is multiplied by
    /// `1 - lr · weight_decay`. 0 is Adam.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_decay: f64,
}

/// Exponential moving average of the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Half-life in images.
    pub half_life: u64,
    /// Upper bound of the half-life, as a fraction of the images seen.
    pub ramp: f64,
}

/// Moving averages with power-function profiles, from whose snapshots others are reconstructed after
/// training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaProfiles {
    /// Relative standard deviation of each profile.
    #[serde(default)]
    pub stds: Vec<f64>,
    /// Number of images between two snapshots. `None` is a thirty-second of the duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_every: Option<u64>,
}

impl TrainConfig {
    /// Returns the relative standard deviations of the power-function profiles; usually none.
    pub fn profile_stds(&self) -> &[f64] {
        self.ema_profiles.as_ref().map_or(&[], |profiles| &profiles.stds)
    }

    /// Returns the number of images between two snapshots of the averages with power-function
    /// profiles, or `None` if there are no such averages.
    pub fn snapshot_interval(&self) -> Option<u64> {
        let profiles = self.ema_profiles.as_ref()?;
        Some(profiles.snapshot_every.unwrap_or(self.duration / 32).max(1))
    }

    /// Returns the learning rate after `images` images: a linear warm-up, then constant (EDM) or
    /// falling with the inverse square root (EDM2), then a decay to 0 if the recipe has one.
    pub fn lr(&self, images: u64) -> f64 {
        let ramp = if self.lr_ramp == 0 { 1.0 } else { images as f64 / self.lr_ramp as f64 };
        let decay = if self.lr_decay == 0.0 {
            1.0
        } else {
            let left = self.duration.saturating_sub(images) as f64;
            let left = (left / (self.lr_decay * self.duration as f64)).min(1.0);
            match self.lr_decay_shape {
                DecayShape::Linear => left,
                DecayShape::Cosine => 0.5 - 0.5 * (PI * left).cos(),
            }
        };
        let inverse_sqrt = match self.lr_inverse_sqrt {
            Some(reference) => (reference as f64 / images.max(1) as f64).min(1.0).sqrt(),
            None => 1.0,
        };
        self.adam.lr * ramp.min(decay * inverse_sqrt).min(1.0)
    }

    /// Returns the decay rate of the moving average for a step after `images` images (EDM):
    /// `0.5^(batch / half-life)`, half-life `min(half_life, ramp · images)`.
    pub fn ema_beta(&self, images: u64) -> f64 {
        ema::beta(self.ema.half_life, self.ema.ramp, self.batch, images)
    }

    /// Returns the number of images that are held out of the training data.
    pub fn held_out(&self) -> usize {
        let validation = self.validation.as_ref().filter(|validation| validation.data.is_none());
        validation.map_or(0, |validation| validation.images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ramps_are_those_of_edm() {
        let config = TrainConfig::preset("cifar10").expect("a preset");
        assert_eq!(config.lr(0), 0.0);
        assert_eq!(config.lr(5_000_000), 0.5e-3);
        assert_eq!(config.lr(150_000_000), 1e-3);
        assert_eq!(config.ema_beta(0), 0.0);
        // At 2 M images the half-life is 0.1 M; past 10 M it stays at 0.5 M.
        assert_eq!(config.ema_beta(2_000_000), 0.5f64.powf(512.0 / 100_000.0));
        assert_eq!(config.ema_beta(200_000_000), 0.5f64.powf(512.0 / 500_000.0));
    }

    #[test]
    fn the_learning_rate_decays_to_0_at_the_end() {
        let preset = TrainConfig::preset("cifar10").expect("a preset");
        let mut config = TrainConfig { lr_decay: 0.2, ..preset };
        assert_eq!(config.lr(5_000_000), 0.5e-3);
        assert_eq!(config.lr(160_000_000), 1e-3);
        assert_eq!(config.lr(180_000_000), 0.5e-3);
        assert_eq!([config.lr(200_000_000), config.lr(200_000_512)], [0.0, 0.0]);
        // A run that is made longer follows the course of its new duration.
        config.duration = 400_000_000;
        assert_eq!([config.lr(200_000_000), config.lr(380_000_000)], [1e-3, 0.25e-3]);
    }

    #[test]
    fn other_schedules_have_their_values() {
        let preset = TrainConfig::preset("cifar10").expect("a preset");
        let lr_decay_shape = DecayShape::Cosine;
        let cosine = TrainConfig { lr_decay: 0.5, lr_decay_shape, ..preset.clone() };
        for (images, want) in [(100_000_000, 1.0), (150_000_000, 0.5), (200_000_000, 0.0)] {
            let found = cosine.lr(images) / 1e-3;
            assert!((found - want).abs() < 1e-12, "{found}, not {want}");
        }
        // A third of the decay is left: (1 - cos(60 degrees)) / 2.
        let third = TrainConfig { duration: 300_000_000, lr_decay: 1.0, ..cosine };
        assert!((third.lr(200_000_000) / 1e-3 - 0.25).abs() < 1e-12);

        // EDM2: lr / sqrt(max(images / reference, 1)).
        let edm2 = TrainConfig { lr_inverse_sqrt: Some(40_000_000), ..preset };
        for (images, want) in [(5_000_000, 0.5), (40_000_000, 1.0), (160_000_000, 0.5)] {
            let found = edm2.lr(images) / 1e-3;
            assert!((found - want).abs() < 1e-12, "{found}, not {want}");
        }
    }

    proptest! {
        #[test]
        fn the_learning_rate_is_continuous(
            lr_ramp in 0u64..2_000,
            lr_decay in 0.0f64..=1.0,
            duration in 1u64..1_000,
            cosine: bool,
            inverse_sqrt in prop::option::of(1u64..1_000),
        ) {
            let preset = TrainConfig::preset("tiny").expect("a preset");
            let shape = if cosine { DecayShape::Cosine } else { DecayShape::Linear };
            let config = TrainConfig {
                lr_ramp,
                lr_decay,
                duration,
                lr_decay_shape: shape,
                lr_inverse_sqrt: inverse_sqrt,
                ..preset
            };
            let per_image = |images: f64| config.adam.lr / images.max(1.0);
            // A cosine is steepest in its middle, by pi / 2.
            let decay = per_image(lr_decay * duration as f64) * if cosine { PI / 2.0 } else { 1.0 };
            let root = inverse_sqrt.map_or(0.0, |images| per_image(2.0 * images as f64));
            let slope = per_image(lr_ramp as f64).max(decay + root);
            for images in 0..duration + 2 {
                let [lr, next] = [config.lr(images), config.lr(images + 1)];
                prop_assert!((0.0..=config.adam.lr).contains(&lr), "{lr} after {images}");
                prop_assert!((next - lr).abs() <= 1.001 * slope, "{lr}, then {next}");
            }
            prop_assert!(lr_decay == 0.0 || config.lr(duration) == 0.0);
            let plain = TrainConfig { lr_decay: 0.0, ..config.clone() };
            let decays_from = (duration as f64 * (1.0 - lr_decay)) as u64;
            for images in 0..decays_from {
                prop_assert_eq!(config.lr(images), plain.lr(images));
            }
        }
    }

    /// Recipes without newer options are read, and these options have their defaults.
    #[test]
    fn older_recipes_are_read() {
        let preset = TrainConfig::preset("tiny").expect("a preset");
        let mut value = serde_json::to_value(&preset).expect("plain data");
        let fields = value.as_object_mut().expect("an object");
        for newer in ["lr_decay", "optimizer", "immiscible"] {
            fields.remove(newer).expect("a field");
        }
        assert_eq!(serde_json::from_value::<TrainConfig>(value).expect("valid"), preset);
    }

    #[test]
    fn latent_presets_have_an_ema_decay_of_0_9999() {
        let config = TrainConfig::preset("latent256").expect("a preset");
        assert_eq!(config.ema_beta(0), 0.0);
        for images in [256, 1_000_000, 200_000_000] {
            assert!((config.ema_beta(images) - 0.9999).abs() < 1e-9);
        }
    }

    #[test]
    fn every_model_preset_has_a_recipe() {
        for (name, model) in model::preset::all() {
            assert_eq!(TrainConfig::preset(name).map(|c| c.model), Some(model));
        }
        assert!(TrainConfig::preset("nothing").is_none());
    }
}
