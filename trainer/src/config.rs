//! The recipe: everything that decides what a training run computes.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use model::config::{LinearBetas, ModelConfig, NetworkConfig};
use model::importance::TimeSampling;
use model::loss::LossConfig;
use serde::{Deserialize, Serialize};

/// One training run. It is written to the run's `options.json` and into every checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The model.
    pub model: ModelConfig,
    /// The training objective.
    pub loss: LossConfig,
    /// Folder, archive, or name of the embedded set.
    pub data: PathBuf,
    /// Whether half of the pictures are mirrored. The network is told which.
    pub flip: bool,
    /// Probability of each of the other changes of EDM's augmentation; 0 for none. The network is
    /// told of them.
    #[serde(default)]
    pub augment: f64,
    /// Probability that a picture is shown without its class, which guidance needs.
    #[serde(default)]
    pub label_dropout: f64,
    /// How the vectors of classes begin.
    #[serde(default)]
    pub class_vectors: ClassVectors,
    /// Images per step.
    pub batch: usize,
    /// Images computed at a time, where all of a step's do not fit into memory; it divides
    /// `batch`. The gradients are those of the whole batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Whether what is inside the blocks is computed again for the gradients instead of being kept:
    /// it takes far less memory, and one more forward pass.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// What the network computes in. Weights, their average and Adam's moments are `f32` always.
    #[serde(default)]
    pub precision: Precision,
    /// Longest gradient, all parameters taken together; longer ones are shortened to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Images to train on in all.
    pub duration: u64,
    /// Adam: step size, decay of the two moments, and what keeps the division finite.
    pub adam: AdamConfig,
    /// Images over which the learning rate rises from 0.
    pub lr_ramp: u64,
    /// Part of the duration over which, at its end, the learning rate falls to 0; 0 for none.
    #[serde(default)]
    pub lr_decay: f64,
    /// What takes the steps.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Learning rate of Muon after the ramp, if it is not Adam's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon_lr: Option<f64>,
    /// Whether the noise of a batch is dealt out so that each picture has noise that is near to it.
    #[serde(default)]
    pub immiscible: bool,
    /// Pictures on which the loss is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationConfig>,
    /// Moving average of the weights.
    pub ema: EmaConfig,
    /// Seed of everything random.
    pub seed: u64,
}

/// How the vectors of the classes of an image-space network begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassVectors {
    /// Random, as EDM's.
    #[default]
    Random,
    /// Principal components of the mean picture of each class: for many classes of few pictures.
    Components,
}

/// What the network computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Products and convolutions in bfloat16; normalisation, softmax and loss in single precision.
    Bf16,
}

/// What takes the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam for all parameters.
    #[default]
    Adam,
    /// Muon for the matrices and kernels inside the network, Adam for the rest.
    Muon,
}

/// Pictures on which the loss is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// How many.
    pub images: usize,
    /// The data that they are taken from. Without it they are taken from the training data, and
    /// are not trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
}

/// Adam.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// Learning rate after the ramp.
    pub lr: f64,
    /// Decay of the first and the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// Exponential moving average of the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Half-life in images, once training has gone on for long enough.
    pub half_life: u64,
    /// Before that: half-life as a part of the images seen.
    pub ramp: f64,
}

/// What the latent models share: the noise is predicted, time steps are uniform, and 0.9999 of the
/// moving average is kept in every step. How long the paper trained them, it does not say.
fn latent(config: TrainConfig) -> TrainConfig {
    let half_life = config.batch as f64 * 0.5f64.ln() / 0.9999f64.ln();
    TrainConfig {
        loss: LossConfig::Adm { betas: LinearBetas::default(), times: TimeSampling::default() },
        ema: EmaConfig { half_life: half_life.round() as u64, ramp: 1e9 },
        ..config
    }
}

impl TrainConfig {
    /// The recipe of a preset.
    pub fn preset(name: &str) -> Option<Self> {
        let model = model::preset::by_name(name)?;
        let classes = model.classes();
        let config = |augment, batch, duration, lr, lr_ramp| Self {
            model,
            loss: LossConfig::default(),
            data: crate::data::EMBEDDED.into(),
            flip: true,
            augment,
            // What classifier-free guidance needs.
            label_dropout: if classes > 0 { 0.1 } else { 0.0 },
            class_vectors: ClassVectors::default(),
            batch,
            micro_batch: None,
            gradient_checkpointing: false,
            precision: Precision::F32,
            clip: None,
            duration,
            adam: AdamConfig { lr, betas: [0.9, 0.999], eps: 1e-8 },
            lr_ramp,
            lr_decay: 0.0,
            optimizer: Optimizer::Adam,
            muon_lr: None,
            immiscible: false,
            validation: None,
            ema: EmaConfig { half_life: 500_000, ramp: 0.05 },
            seed: 0,
        };
        Some(match name {
            // Small batches: on a CPU it is steps that are scarce.
            // Each class has one picture, which need not be its own mirror image: flags, letters.
            "tiny-emoji" => Self {
                flip: false,
                class_vectors: ClassVectors::Components,
                ..config(0.0, 32, 3_000, 5e-4, 2_000)
            },
            name if name.starts_with("tiny") => config(0.0, 32, 3_000, 5e-4, 20_000),
            name if name.starts_with("ffhq64") => config(0.15, 256, 200_000_000, 2e-4, 10_000_000),
            "latent-tiny" => latent(config(0.0, 32, 3_000, 5e-4, 0)),
            "latent256" => latent(config(0.0, 256, 200_000_000, 3e-4, 0)),
            "latent512" => latent(config(0.0, 512, 200_000_000, 1e-4, 0)),
            _ => config(0.12, 512, 200_000_000, 1e-3, 10_000_000),
        })
    }

    /// Checks that the values can be used.
    ///
    /// # Errors
    ///
    /// The first that cannot, with its name.
    pub fn validate(&self) -> anyhow::Result<()> {
        self.model.validate()?;
        self.loss.validate().context("loss")?;
        let above_0 = |name: &str, value: f64| {
            ensure!(value > 0.0 && value.is_finite(), "{name} is {value}, which is not above 0");
            Ok(())
        };
        ensure!((1..=65_536).contains(&self.batch), "batch is {}, not 1 to 65536", self.batch);
        let micro = self.micro_batch.unwrap_or(self.batch);
        ensure!(
            micro > 0 && self.batch.is_multiple_of(micro),
            "micro_batch is {micro}, which does not divide the batch of {}",
            self.batch
        );
        ensure!(self.duration > 0, "duration is 0: there is nothing to train on");
        ensure!(
            (0.0..=1.0).contains(&self.augment),
            "augment is {}, which is no probability",
            self.augment
        );
        ensure!(
            self.augment == 0.0 || matches!(self.model.network, NetworkConfig::Image(_)),
            "augment is {}, and latents cannot be augmented: they are only mirrored",
            self.augment
        );
        ensure!(
            (0.0..=1.0).contains(&self.label_dropout),
            "label_dropout is {}, which is no probability",
            self.label_dropout
        );
        ensure!(
            self.class_vectors == ClassVectors::Random
                || matches!(self.model.network, NetworkConfig::Image(_)),
            "class_vectors is components, which is for image-space networks"
        );
        if let Some(clip) = self.clip {
            above_0("clip", clip)?;
        }
        ensure!(
            (0.0..=1.0).contains(&self.lr_decay),
            "lr_decay is {}, not 0 to 1, a part of the duration",
            self.lr_decay
        );
        if let Some(lr) = self.muon_lr {
            above_0("muon_lr", lr)?;
            ensure!(
                self.optimizer == Optimizer::Muon,
                "muon_lr is {lr}, and the optimizer is Adam: --optimizer muon makes it Muon"
            );
        }
        if let Some(validation) = &self.validation {
            ensure!(
                validation.images > 0,
                "validation.images is 0: there is nothing to measure on"
            );
        }
        above_0("adam.lr", self.adam.lr)?;
        above_0("adam.eps", self.adam.eps)?;
        for beta in self.adam.betas {
            ensure!((0.0..1.0).contains(&beta), "adam.betas holds {beta}, not within 0 to 1");
        }
        ensure!(
            self.ema.ramp >= 0.0 && self.ema.ramp.is_finite(),
            "ema.ramp is {}, which is below 0",
            self.ema.ramp
        );
        Ok(())
    }

    /// Checks that so many devices can share a batch.
    ///
    /// # Errors
    ///
    /// If they cannot do so evenly.
    pub fn validate_for(&self, workers: usize) -> anyhow::Result<()> {
        ensure!(
            self.batch.is_multiple_of(workers),
            "{workers} devices cannot share a batch of {} evenly",
            self.batch
        );
        Ok(())
    }

    /// Learning rate after `images` have been seen: a linear ramp, then constant (EDM); then, if
    /// that is wanted, linear to 0 at the end.
    pub fn lr(&self, images: u64) -> f64 {
        let ramp = if self.lr_ramp == 0 { 1.0 } else { images as f64 / self.lr_ramp as f64 };
        let decay = if self.lr_decay == 0.0 {
            1.0
        } else {
            let left = self.duration.saturating_sub(images) as f64;
            left / (self.lr_decay * self.duration as f64)
        };
        self.adam.lr * ramp.min(decay).min(1.0)
    }

    /// How many pictures of the training data are not trained on.
    pub fn held_out(&self) -> usize {
        let validation = self.validation.as_ref().filter(|validation| validation.data.is_none());
        validation.map_or(0, |validation| validation.images)
    }

    /// How much of the moving average is kept in a step after `images` have been seen (EDM):
    /// `0.5^(batch / half-life)`, half-life `min(half_life, ramp · images)`.
    pub fn ema_beta(&self, images: u64) -> f64 {
        let half_life = (self.ema.half_life as f64).min(self.ema.ramp * images as f64);
        0.5f64.powf(self.batch as f64 / half_life.max(1e-8))
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
    fn the_learning_rate_falls_to_nothing_at_the_end() {
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

    proptest! {
        #[test]
        fn the_learning_rate_goes_without_jumps(
            lr_ramp in 0u64..2_000,
            lr_decay in 0.0f64..=1.0,
            duration in 1u64..1_000,
        ) {
            let preset = TrainConfig::preset("tiny").expect("a preset");
            let config = TrainConfig { lr_ramp, lr_decay, duration, ..preset };
            let per_image = |images: f64| config.adam.lr / images.max(1.0);
            let slope = per_image(lr_ramp as f64).max(per_image(lr_decay * duration as f64));
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

    /// Files that were written before there was a field for it are read, and mean what they meant.
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
    fn latent_models_keep_0_9999_of_their_average() {
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
