//! Model configuration: one serialisable struct, stored in the weights file.
//!
//! Every choice that the paper leaves open is a field. The defaults are those of the preset
//! `cifar10`; [`crate::config::preset`] holds the named configurations.

#[cfg(feature = "tensor")]
mod ablations;
mod block;
pub(crate) mod check;
mod image;
mod latent;
mod parts;
#[cfg(feature = "tensor")]
pub mod preset;
mod song;

use serde::{Deserialize, Serialize};

use crate::config::check::product;

pub use crate::diffusion::discrete::LinearBetas;
pub use crate::diffusion::precond::PrecondConfig;
pub use crate::diffusion::vp::VpSchedule;
pub use block::{Activation, Position, TimeEntry, TransformerConfig, Window};
pub use check::ConfigError;
pub use image::{
    GroupNormConfig, ImageConfig, Resample, Residual, Skip, TimeAdd, TimeConfig, TimeFrequencies,
};
pub use latent::{LatentConfig, Modulation};
pub use parts::{BlockKind, DecoderConfig, EncoderConfig};
#[cfg(feature = "tensor")]
pub(crate) use parts::{BlockPlan, StagePlan};
#[cfg(feature = "tensor")]
pub(crate) use song::{Direction, SongBlockPlan};
pub use song::{SongAttention, SongConfig, SongEmbedding, SongEncoder};

/// Configuration of a model: everything needed to build it around its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The network F.
    pub network: NetworkConfig,
    /// Preconditioning, which turns F into the denoiser D.
    #[serde(default)]
    pub precond: PrecondConfig,
}

/// Kind and sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "space", rename_all = "kebab-case")]
pub enum NetworkConfig {
    /// The U-shaped network that works on pixels.
    Image(ImageConfig),
    /// The stack of transformer blocks that works on the latents of an autoencoder.
    Latent(LatentConfig),
    /// DDPM++ or NCSN++, which work on pixels.
    Song(SongConfig),
}

impl ModelConfig {
    /// Checks the ranges of all fields, and that the sizes fit together.
    ///
    /// # Errors
    ///
    /// The first invalid field, with its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.precond.validate()?;
        match &self.network {
            NetworkConfig::Image(image) => image.validate(),
            NetworkConfig::Latent(latent) => latent.validate(),
            NetworkConfig::Song(song) => song.validate(),
        }
    }

    /// Returns the shape of one picture, or of one latent, `[C, H, W]`.
    pub fn image_shape(&self) -> [usize; 3] {
        match &self.network {
            NetworkConfig::Image(image) => {
                [image.image_channels, image.resolution, image.resolution]
            }
            NetworkConfig::Latent(latent) => {
                [latent.channels, latent.resolution, latent.resolution]
            }
            NetworkConfig::Song(song) => [song.image_channels, song.resolution, song.resolution],
        }
    }

    /// Returns the number of classes; 0 for an unconditional network.
    pub fn classes(&self) -> usize {
        match &self.network {
            NetworkConfig::Image(image) => image.classes,
            NetworkConfig::Latent(latent) => latent.classes,
            NetworkConfig::Song(song) => song.classes,
        }
    }

    /// Returns this configuration with another number of classes.
    pub fn with_classes(mut self, classes: usize) -> Self {
        match &mut self.network {
            NetworkConfig::Image(image) => image.classes = classes,
            NetworkConfig::Latent(latent) => latent.classes = classes,
            NetworkConfig::Song(song) => song.classes = classes,
        }
        self
    }

    /// Returns the number of values of the largest intermediate result for one picture: the hidden
    /// layer of an MLP; queries, keys and values together; or attention weights. At most
    /// [`u64::MAX`].
    pub fn largest_map(&self) -> u64 {
        let largest =
            |transformer: &TransformerConfig, side: usize, channels: usize, window: usize| {
                let features = product(&[side, side, channels, transformer.mlp_ratio.max(3)]);
                let heads = channels / transformer.head_dim.max(1);
                let token = u64::from(transformer.time_entry == TimeEntry::Token);
                let keys = product(&[window, window]).saturating_add(token);
                features.max(product(&[heads, side, side]).saturating_mul(keys))
            };
        match &self.network {
            NetworkConfig::Image(image) => {
                let stage = |(i, &channels): (usize, &usize)| {
                    let side = image.side(i);
                    largest(&image.transformer, side, channels, image.window.on(side))
                };
                let stages = image.channels.iter().enumerate().map(stage).max().unwrap_or(0);
                let DecoderConfig::Mla { width, head_width } = image.decoder else {
                    return stages;
                };
                let outputs = head_width.saturating_mul(image.channels.len()).max(width);
                stages.max(product(&[image.resolution, image.resolution, outputs]))
            }
            NetworkConfig::Latent(latent) => {
                let side = latent.side();
                largest(&latent.transformer, side, latent.width, latent.window.on(side))
            }
            NetworkConfig::Song(song) => song.largest_map(),
        }
    }

    /// Returns the number of augmentation labels that the network takes; 0 for none.
    pub fn augment_labels(&self) -> usize {
        match &self.network {
            NetworkConfig::Image(image) => image.time.augment_labels,
            NetworkConfig::Latent(_) => 0,
            NetworkConfig::Song(song) => song.augment_labels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edit: impl FnOnce(&mut ImageConfig)) -> Result<(), String> {
        let mut image = ImageConfig::default();
        edit(&mut image);
        let network = NetworkConfig::Image(image);
        let config = ModelConfig { network, precond: PrecondConfig::default() };
        config.validate().map_err(|e| e.to_string())
    }

    #[test]
    fn invalid_image_configurations_are_rejected() {
        assert_eq!(edited(|_| {}), Ok(()));
        let cases: [(fn(&mut ImageConfig), &str); 10] = [
            (|c| c.resolution = 30, "resolution 30 cannot be halved 2 times"),
            (
                |c| c.window = Window::Size(5),
                "a window of 5 does not divide the 32x32 map of stage 0",
            ),
            (|c| c.window = Window::Size(0), "a window of 0"),
            (|c| (c.resolution, c.window) = (512, Window::Global), "window is 512"),
            (|c| c.blocks = vec![4, 4], "blocks lists 2 stages and channels 3"),
            (|c| c.channels = vec![], "channels lists 0 stages"),
            (|c| c.transformer.head_dim = 48, "head_dim 48 does not divide channels[0] = 128"),
            (|c| c.channels[1] = 1 << 40, "channels[1] is 1099511627776"),
            (|c| c.dropout = f64::NAN, "dropout is NaN"),
            (|c| c.group_norm.eps = 0.0, "group_norm.eps is 0"),
        ];
        for (edit, message) in cases {
            let error = edited(edit).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn invalid_variants_are_rejected() {
        let vit = EncoderConfig::Stages { block: BlockKind::Vit };
        let vit_decoder = DecoderConfig::Unet { block: BlockKind::Vit };
        let mla = |width| DecoderConfig::Mla { width, head_width: 128 };
        let patches = |patch| EncoderConfig::Isotropic { patch };
        let cases: [(&dyn Fn(&mut ImageConfig), &str); 9] = [
            (
                &|c| {
                    c.transformer.time_entry = TimeEntry::Bias;
                    c.transformer.position = Position::None;
                },
                "transformer.time_entry is bias, and transformer.position is none",
            ),
            (
                &|c| (c.decoder, c.skip) = (vit_decoder, Skip::Block),
                "decoder.block is vit, and skip is not stage",
            ),
            (
                &|c| (c.encoder, c.resample) = (vit, Resample::Bilinear),
                "nothing changes the channels [128, 256, 256] between vit stages",
            ),
            (
                &|c| (c.encoder, c.channels) = (patches(2), vec![128; 3]),
                "encoder is isotropic, and decoder is not mla",
            ),
            (
                &|c| (c.encoder, c.decoder) = (patches(2), mla(256)),
                "encoder is isotropic, and channels are [128, 256, 256]",
            ),
            (
                &|c| (c.encoder, c.decoder) = (patches(5), mla(256)),
                "encoder.patch 5 does not divide resolution 32",
            ),
            (&|c| c.encoder = patches(0), "encoder.patch is 0"),
            (&|c| c.decoder = mla(0), "decoder.width is 0"),
            (&|c| c.decoder = mla(130), "32 groups of group_norm do not divide 130 channels"),
        ];
        for (edit, message) in cases {
            let error = edited(edit).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
        // A window is no larger than its map.
        assert_eq!(edited(|c| c.window = Window::Size(16)), Ok(()));
        let error = edited(|c| (c.resolution, c.window) = (24, Window::Size(8)));
        assert!(error.expect_err("a part").contains("does not divide the 12x12 map of stage 1"));
    }

    /// Programs that do not know of a field refuse a file with it.
    #[test]
    fn unused_variants_are_not_serialised() {
        for config in [
            serde_json::to_value(ImageConfig::default()),
            serde_json::to_value(LatentConfig::default()),
        ] {
            let text = config.expect("plain data").to_string();
            for field in ["time_entry", "time_add", "encoder", "decoder", "embedding"] {
                assert!(!text.contains(&format!("\"{field}\"")), "{field}: {text}");
            }
        }
    }

    #[test]
    fn invalid_latent_configurations_are_rejected() {
        let cases: [(fn(&mut LatentConfig), &str); 7] = [
            (|c| c.patch = 5, "patch 5 does not divide resolution 32"),
            (|c| c.patch = 0, "patch is 0"),
            (|c| c.resolution = 4096, "resolution / patch is 2048"),
            (|c| c.width = 1150, "width is 1150, not a multiple of 4"),
            (|c| c.transformer.head_dim = 64 + 1, "head_dim 65 does not divide width = 1152"),
            (|c| c.window = Window::Size(3), "a window of 3 does not divide the 16x16 map"),
            (|c| c.depth = 1 << 40, "depth is 1099511627776"),
        ];
        for (edit, message) in cases {
            let mut latent = LatentConfig::default();
            edit(&mut latent);
            let network = NetworkConfig::Latent(latent);
            let config = ModelConfig { network, precond: PrecondConfig::default() };
            let error = config.validate().expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn the_largest_map_is_of_an_mlp_or_of_attention() {
        let latent = |resolution| ModelConfig {
            network: NetworkConfig::Latent(LatentConfig { resolution, ..LatentConfig::default() }),
            precond: PrecondConfig::default(),
        };
        // 256 tokens of 4 x 1152 hidden values; 16 heads over 1024 x 1024 tokens.
        assert_eq!([32, 64].map(|side| latent(side).largest_map()), [256 * 4608, 16 << 20]);
        let network = NetworkConfig::Image(ImageConfig {
            resolution: 32,
            channels: vec![32, 64],
            ..ImageConfig::default()
        });
        let image = ModelConfig { network, precond: PrecondConfig::default() };
        assert_eq!(image.largest_map(), 32 * 32 * 32 * 4);
        // A hostile configuration does not wrap around to a small number.
        let mut hostile = LatentConfig { resolution: 1 << 31, patch: 1, ..LatentConfig::default() };
        hostile.transformer.mlp_ratio = 1 << 20;
        let network = NetworkConfig::Latent(hostile);
        let hostile = ModelConfig { network, precond: PrecondConfig::default() };
        assert_eq!(hostile.largest_map(), u64::MAX);
    }

    #[test]
    fn missing_fields_take_defaults_and_unknown_fields_are_rejected() {
        let config: ModelConfig = serde_json::from_str(r#"{"network": {"space": "image"}}"#)
            .expect("all fields have defaults");
        assert_eq!(config.network, NetworkConfig::Image(ImageConfig::default()));
        let config: ModelConfig = serde_json::from_str(r#"{"network": {"space": "latent"}}"#)
            .expect("all fields have defaults");
        assert_eq!(config.network, NetworkConfig::Latent(LatentConfig::default()));
        let text = r#"{"network": {"space": "image", "widnow": "global"}}"#;
        let error = serde_json::from_str::<ModelConfig>(text).expect_err("a typing error");
        assert!(error.to_string().contains("widnow"));
    }

    #[test]
    fn a_partial_transformer_takes_the_defaults_of_its_network() {
        let read = |text: &str| serde_json::from_str::<ModelConfig>(text);
        let latent = r#"{"network": {"space": "latent", "transformer": {"mlp_ratio": 2}}}"#;
        let NetworkConfig::Latent(config) = read(latent).expect("a part is enough").network else {
            panic!("a latent network")
        };
        let default = LatentConfig::default().transformer;
        assert_eq!(config.transformer, TransformerConfig { mlp_ratio: 2, ..default });
        let image = r#"{"network": {"space": "image", "transformer": {"mlp_ratio": 2}}}"#;
        let NetworkConfig::Image(config) = read(image).expect("a part is enough").network else {
            panic!("an image network")
        };
        let default = TransformerConfig::default();
        assert_eq!(config.transformer, TransformerConfig { mlp_ratio: 2, ..default });
        let wrong = r#"{"network": {"space": "latent", "transformer": {"mpl_ratio": 2}}}"#;
        assert!(read(wrong).expect_err("a typing error").to_string().contains("mpl_ratio"));
    }

    #[test]
    fn configurations_round_trip_through_json() {
        for (_, config) in crate::config::preset::all() {
            let text = serde_json::to_string(&config).expect("a configuration is plain data");
            assert_eq!(serde_json::from_str::<ModelConfig>(&text).expect("its own JSON"), config);
        }
    }
}
