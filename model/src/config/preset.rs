//! Named configurations.

use crate::config::{
    ImageConfig, LatentConfig, LinearBetas, ModelConfig, NetworkConfig, PrecondConfig, TimeConfig,
    TransformerConfig, Window, ablations,
};

/// Every preset, by name.
pub fn all() -> Vec<(&'static str, ModelConfig)> {
    let cifar10 = ImageConfig::default();
    let ffhq64 = ImageConfig {
        resolution: 64,
        channels: vec![128, 256, 256, 256],
        blocks: vec![4, 4, 4, 4],
        window: Window::Size(8),
        dropout: 0.05,
        ..ImageConfig::default()
    };
    // Small enough to learn on two CPU cores and to run in a browser tab without a GPU.
    let tiny = ImageConfig {
        channels: vec![32, 64, 128],
        blocks: vec![2, 3, 4],
        time: TimeConfig { width: 256, ..TimeConfig::default() },
        window: Window::Size(8),
        dropout: 0.0,
        ..ImageConfig::default()
    };
    let image = |config: ImageConfig| ModelConfig {
        network: NetworkConfig::Image(config),
        precond: PrecondConfig::default(),
    };
    let latent256 = LatentConfig::default();
    let latent512 = LatentConfig { resolution: 64, ..latent256.clone() };
    // For pictures of 128x128 in ten classes: as much work as `tiny`.
    let latent_tiny = LatentConfig {
        resolution: 16,
        width: 192,
        depth: 8,
        classes: 10,
        transformer: TransformerConfig { head_dim: 32, ..latent256.transformer.clone() },
        ..latent256.clone()
    };
    let latent = |config: LatentConfig| ModelConfig {
        network: NetworkConfig::Latent(config),
        precond: PrecondConfig::Adm { betas: LinearBetas::default() },
    };
    let mut presets = vec![
        ("tiny", image(tiny.clone())),
        // The same with classes: the names of the embedded emoji, and those of CIFAR-10.
        ("tiny-emoji", image(ImageConfig { classes: 1911, ..tiny.clone() })),
        ("tiny-cifar10", image(ImageConfig { classes: 10, ..tiny })),
        ("cifar10", image(cifar10.clone())),
        // The reading of appendix I: fewer blocks.
        ("cifar10-i", image(ImageConfig { blocks: vec![2, 2, 2], ..cifar10.clone() })),
        // The EDM analogy: 256 channels at every stage.
        ("cifar10-256", image(ImageConfig { channels: vec![256, 256, 256], ..cifar10 })),
        ("ffhq64", image(ffhq64.clone())),
        ("ffhq64-i", image(ImageConfig { blocks: vec![1, 2, 2, 2], ..ffhq64 })),
        ("latent256", latent(latent256)),
        ("latent512", latent(latent512)),
        ("latent-tiny", latent(latent_tiny)),
    ];
    presets.extend(ablations::all().into_iter().map(|(name, config)| (name, image(config))));
    presets
}

/// The preset of this name.
pub fn by_name(name: &str) -> Option<ModelConfig> {
    all().into_iter().find(|(known, _)| *known == name).map(|(_, config)| config)
}

/// The names of all presets, for people to read.
pub fn names() -> String {
    all().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_preset_can_be_built() {
        for (name, config) in super::all() {
            config.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(super::by_name(name), Some(config));
        }
        assert_eq!(super::by_name("no-such-preset"), None);
    }
}
