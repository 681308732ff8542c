//! Recipes of the presets.

use model::config::{LinearBetas, PrecondConfig};
use model::importance::TimeSampling;
use model::loss::LossConfig;

use super::{
    AdamConfig, ClassVectors, DecayShape, EMBEDDED_DATA, EmaConfig, Optimizer, Precision,
    TrainConfig,
};

impl TrainConfig {
    /// Returns the recipe of a preset, or `None` if there is no such preset.
    pub fn preset(name: &str) -> Option<Self> {
        let model = model::preset::by_name(name)?;
        let classes = model.classes();
        let config = |augment, batch, duration, lr, lr_ramp| Self {
            model,
            loss: LossConfig::default(),
            data: EMBEDDED_DATA.into(),
            resize: false,
            skip_bad: false,
            flip: true,
            augment,
            label_dropout: if classes > 0 { 0.1 } else { 0.0 },
            class_vectors: ClassVectors::default(),
            batch,
            micro_batch: None,
            gradient_checkpointing: false,
            precision: Precision::F32,
            clip: None,
            duration,
            adam: AdamConfig { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 },
            lr_ramp,
            lr_decay: 0.0,
            lr_decay_shape: DecayShape::default(),
            lr_inverse_sqrt: None,
            optimizer: Optimizer::Adam,
            muon_lr: None,
            immiscible: false,
            validation: None,
            ema: EmaConfig { half_life: 500_000, ramp: 0.05 },
            ema_profiles: None,
            seed: 0,
            from_sha256: None,
        };
        Some(match name {
            // Small batches: CPU training is limited by the number of steps.
            // No mirroring: each class has one image, and mirrored flags and letters are wrong.
            "tiny-emoji" => Self {
                flip: false,
                class_vectors: ClassVectors::Components,
                ..config(0.0, 32, 3_000, 5e-4, 2_000)
            },
            // Muon: docs/learning.md compares recipes.
            "tiny-cifar10" => {
                Self { optimizer: Optimizer::Muon, ..config(0.0, 32, 3_000, 1e-3, 20_000) }
            }
            name if name.starts_with("tiny") => config(0.0, 32, 3_000, 5e-4, 20_000),
            name if name.starts_with("ffhq64") => config(0.15, 256, 200_000_000, 2e-4, 10_000_000),
            "latent-tiny" => latent(config(0.0, 32, 3_000, 5e-4, 0)),
            "latent256" => latent(config(0.0, 256, 200_000_000, 3e-4, 0)),
            "latent512" => latent(config(0.0, 512, 200_000_000, 1e-4, 0)),
            "dit-latent-tiny" => latent(config(0.0, 32, 3_000, 5e-4, 0)),
            // The 400,000 steps after which DiT compares its models.
            name if name.starts_with("dit-") => latent(config(0.0, 256, 102_400_000, 1e-4, 0)),
            name if name.starts_with("t5-") => song(config(0.0, 128, 166_400_000, 2e-4, 640_000)),
            _ => config(0.12, 512, 200_000_000, 1e-3, 10_000_000),
        })
    }
}

/// Sets the options that all latent presets share: ADM's loss with uniform timesteps, and a decay
/// rate of 0.9999 for the moving average. The paper does not give a training duration.
fn latent(config: TrainConfig) -> TrainConfig {
    TrainConfig {
        loss: LossConfig::Adm { betas: LinearBetas::default(), times: TimeSampling::default() },
        ema: constant_decay(0.9999, config.batch),
        ..config
    }
}

/// Sets the options that DDPM++ and NCSN++ share, those of their authors: the loss of the
/// preconditioner, clipped gradients, and a moving average of constant decay rate.
fn song(config: TrainConfig) -> TrainConfig {
    let (loss, decay) = match config.model.precond {
        PrecondConfig::Vp { schedule } => (LossConfig::Vp { schedule }, 0.9999),
        PrecondConfig::Ve { sigma_min, sigma_max } => {
            (LossConfig::Ve { sigma_min, sigma_max }, 0.999)
        }
        _ => unreachable!("these presets are VP or VE"),
    };
    TrainConfig { loss, clip: Some(1.0), ema: constant_decay(decay, config.batch), ..config }
}

/// Returns the moving average that keeps `decay` of itself in every step.
fn constant_decay(decay: f64, batch: usize) -> EmaConfig {
    let half_life = batch as f64 * 0.5f64.ln() / decay.ln();
    EmaConfig { half_life: half_life.round() as u64, ramp: 1e9 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_network_for_cifar10_has_the_recipe_that_won() {
        let config = TrainConfig::preset("tiny-cifar10").expect("a preset");
        assert_eq!(
            (config.optimizer, config.adam.lr, config.muon_lr),
            (Optimizer::Muon, 1e-3, None)
        );
        let tiny = TrainConfig::preset("tiny").expect("a preset");
        assert_eq!((tiny.optimizer, tiny.adam.lr), (Optimizer::Adam, 5e-4));
    }

    #[test]
    fn baselines_have_the_recipes_of_their_authors() {
        for (name, batch, steps, lr, decay, clip) in [
            ("t5-vp", 128, 1_300_000, 2e-4, 0.9999, Some(1.0)),
            ("t5-ve-tmsa", 128, 1_300_000, 2e-4, 0.999, Some(1.0)),
            ("dit-xl2", 256, 400_000, 1e-4, 0.9999, None),
        ] {
            let config = TrainConfig::preset(name).expect("a preset");
            assert_eq!((config.batch, config.adam.lr, config.clip), (batch, lr, clip), "{name}");
            assert_eq!((config.duration, config.augment), (batch as u64 * steps, 0.0), "{name}");
            for images in [128, 1_000_000] {
                assert!((config.ema_beta(images) - decay).abs() < 1e-8, "{name}");
            }
        }
    }
}
