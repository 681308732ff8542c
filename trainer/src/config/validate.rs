//! Validation of single options.

use anyhow::{Context, ensure};
use model::config::NetworkConfig;

use super::{ClassVectors, Optimizer, TrainConfig};
use crate::averages::{Profile, STD_RANGE};

/// Maximum number of moving averages with power-function profiles.
const MAX_PROFILES: usize = 4;

impl TrainConfig {
    /// Checks that every option is within its range.
    ///
    /// # Errors
    ///
    /// The first option that is not, by name.
    pub fn validate(&self) -> anyhow::Result<()> {
        self.model.validate()?;
        self.loss.validate().context("loss")?;
        ensure!((1..=65_536).contains(&self.batch), "batch is {}, not 1 to 65536", self.batch);
        let micro = self.micro_batch.unwrap_or(self.batch);
        ensure!(
            micro > 0 && self.batch.is_multiple_of(micro),
            "micro_batch is {micro}, which does not divide the batch size {}",
            self.batch
        );
        ensure!(self.duration > 0, "duration is 0: there is nothing to train on");
        fraction("augment", self.augment)?;
        fraction("label_dropout", self.label_dropout)?;
        fraction("lr_decay", self.lr_decay)?;
        ensure!(
            self.augment == 0.0 || !matches!(self.model.network, NetworkConfig::Latent(_)),
            "augment is {}, and latents cannot be augmented: they are only mirrored",
            self.augment
        );
        ensure!(
            self.class_vectors == ClassVectors::Random
                || matches!(self.model.network, NetworkConfig::Image(_)),
            "class_vectors is components, which needs an image-space network"
        );
        if let Some(clip) = self.clip {
            positive("clip", clip)?;
        }
        if let Some(lr) = self.muon_lr {
            positive("muon_lr", lr)?;
            ensure!(
                self.optimizer == Optimizer::Muon,
                "muon_lr is {lr}, but the optimizer is Adam; use --optimizer muon"
            );
        }
        if let Some(validation) = &self.validation {
            ensure!(
                validation.images > 0,
                "validation.images is 0: there is nothing to measure the loss on"
            );
        }
        positive("adam.lr", self.adam.lr)?;
        positive("adam.eps", self.adam.eps)?;
        let decay = self.adam.weight_decay;
        ensure!(
            decay >= 0.0 && decay.is_finite(),
            "adam.weight_decay is {decay}, not a finite number of at least 0"
        );
        ensure!(
            decay == 0.0 || self.optimizer == Optimizer::Adam,
            "adam.weight_decay is {decay}, which --optimizer muon does not support"
        );
        ensure!(
            self.lr_inverse_sqrt != Some(0),
            "lr_inverse_sqrt is 0; it is the number of images after which the learning rate falls"
        );
        for beta in self.adam.betas {
            ensure!((0.0..1.0).contains(&beta), "adam.betas contains {beta}, not within 0 to 1");
        }
        ensure!(
            self.ema.ramp >= 0.0 && self.ema.ramp.is_finite(),
            "ema.ramp is {}, not a finite number of at least 0",
            self.ema.ramp
        );
        self.validate_profiles()
    }

    /// Checks the moving averages with power-function profiles.
    fn validate_profiles(&self) -> anyhow::Result<()> {
        let Some(profiles) = &self.ema_profiles else { return Ok(()) };
        let stds = &profiles.stds;
        ensure!(
            (1..=MAX_PROFILES).contains(&stds.len()),
            "ema_profiles.stds has {} values, not 1 to {MAX_PROFILES}; use --ema-profiles 0.05,0.1",
            stds.len()
        );
        for (i, std) in stds.iter().enumerate() {
            ensure!(
                Profile::of_std(*std).is_some(),
                "ema_profiles.stds contains {std}, not within {} to {}",
                STD_RANGE.start(),
                STD_RANGE.end()
            );
            ensure!(!stds[..i].contains(std), "ema_profiles.stds contains {std} twice");
        }
        ensure!(
            profiles.snapshot_every != Some(0),
            "ema_profiles.snapshot_every is 0; it is a number of images"
        );
        Ok(())
    }

    /// Checks that the batch can be split evenly across devices.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn validate_for(&self, workers: usize) -> anyhow::Result<()> {
        ensure!(
            self.batch.is_multiple_of(workers),
            "a batch of {} cannot be split evenly across {workers} devices",
            self.batch
        );
        Ok(())
    }
}

fn positive(name: &str, value: f64) -> anyhow::Result<()> {
    ensure!(value > 0.0 && value.is_finite(), "{name} is {value}, not above 0");
    Ok(())
}

fn fraction(name: &str, value: f64) -> anyhow::Result<()> {
    ensure!((0.0..=1.0).contains(&value), "{name} is {value}, not within 0 to 1");
    Ok(())
}
