//! The configuration of an autoencoder.

use serde::{Deserialize, Serialize};

use crate::config::GroupNormConfig;
use crate::config::check::{ConfigError, check, positive, product, within};

/// The sizes of an autoencoder. The defaults are those of Stable Diffusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeConfig {
    /// Colour channels of pictures.
    pub image_channels: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Channels of each stage, from the finest to the coarsest. Each after the first works at half
    /// the resolution of the one before.
    pub channels: Vec<usize>,
    /// Residual blocks per stage of the encoder; a stage of the decoder has one more.
    pub layers: usize,
    /// Groups of group normalisation.
    pub groups: usize,
    /// Constant added to the variance in group normalisation.
    pub eps: f64,
    /// Factor that gives the latents a standard deviation of about 1.
    pub scale: f64,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            image_channels: 3,
            latent_channels: 4,
            channels: vec![128, 256, 512, 512],
            layers: 2,
            groups: 32,
            eps: 1e-6,
            scale: 0.18215,
        }
    }
}

impl VaeConfig {
    /// A small configuration for tests, with every kind of layer of the default one.
    pub fn tiny() -> Self {
        Self { channels: vec![8, 16, 16], layers: 1, groups: 4, ..Self::default() }
    }

    /// The ratio of a picture's height and width to those of its latent.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }

    /// Number of values of the largest map in decoding a `side x side` latent: the input of the
    /// first block at the picture's resolution, which still has the channels of the stage before.
    pub fn largest_map(&self, side: usize) -> u64 {
        let channels = self.channels.get(1).max(self.channels.first()).copied().unwrap_or(0);
        let factor = self.factor();
        product(&[side, factor, side, factor, channels])
    }

    /// The configuration of the group normalisation layers.
    pub(super) fn group_norm(&self) -> GroupNormConfig {
        GroupNormConfig { max_groups: self.groups, min_group_channels: 1, eps: self.eps }
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    ///
    /// The first inconsistency, with the field and its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("vae.image_channels", self.image_channels, 1, 64)?;
        within("vae.latent_channels", self.latent_channels, 1, 64)?;
        within("stages of vae.channels", self.channels.len(), 1, 8)?;
        within("vae.layers", self.layers, 1, 64)?;
        within("vae.groups", self.groups, 1, 4_096)?;
        positive("vae.eps", self.eps)?;
        positive("vae.scale", self.scale)?;
        for (stage, &channels) in self.channels.iter().enumerate() {
            within(&format!("vae.channels[{stage}]"), channels, 1, 4_096)?;
            check(channels.is_multiple_of(self.groups), || {
                format!("vae.groups {} does not divide channels[{stage}] = {channels}", self.groups)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_configurations_are_rejected_by_name() {
        let cases: [(fn(&mut VaeConfig), &str); 5] = [
            (|c| c.groups = 48, "vae.groups 48 does not divide channels[0] = 128"),
            (|c| c.channels.clear(), "stages of vae.channels is 0"),
            (|c| c.channels[2] = 1 << 40, "vae.channels[2] is 1099511627776"),
            (|c| c.scale = 0.0, "vae.scale is 0"),
            (|c| c.layers = 0, "vae.layers is 0"),
        ];
        for (edit, message) in cases {
            let mut config = VaeConfig::default();
            edit(&mut config);
            let error = config.validate().expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
        assert_eq!(VaeConfig::tiny().validate(), Ok(()));
        assert_eq!(VaeConfig::default().largest_map(32), 256 * 256 * 256);
        let config: VaeConfig = serde_json::from_str("{}").expect("all fields have defaults");
        assert_eq!(config, VaeConfig::default());
    }
}
