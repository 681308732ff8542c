//! Presets: named model configurations.

use crate::config::{
    ImageConfig, LatentConfig, LinearBetas, ModelConfig, Modulation, NetworkConfig, Position,
    PrecondConfig, SongAttention, SongConfig, TimeConfig, TransformerConfig, VpSchedule, Window,
    ablations,
};

/// Returns every preset with its name.
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
    // Small enough to train on two CPU cores and to run in a browser tab without a GPU.
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
    // For 128x128 pictures in ten classes, at about the cost of `tiny`.
    let latent_tiny = LatentConfig {
        resolution: 16,
        width: 192,
        depth: 8,
        classes: 10,
        transformer: TransformerConfig { head_dim: 32, ..latent256.transformer.clone() },
        ..latent256.clone()
    };
    let dit_xl2 = LatentConfig {
        modulation: Modulation::AdalnZero,
        transformer: TransformerConfig {
            position: Position::None,
            ..latent256.transformer.clone()
        },
        ..latent256.clone()
    };
    let dit = |width, depth, head_dim| LatentConfig {
        width,
        depth,
        transformer: TransformerConfig { head_dim, ..dit_xl2.transformer.clone() },
        ..dit_xl2.clone()
    };
    let latent = |config: LatentConfig| ModelConfig {
        network: NetworkConfig::Latent(config),
        precond: PrecondConfig::Adm { betas: LinearBetas::default() },
    };
    // The baselines of Table 5 are EDM's configuration A.
    let vp = |config: SongConfig| ModelConfig {
        network: NetworkConfig::Song(config),
        precond: PrecondConfig::Vp { schedule: VpSchedule::default() },
    };
    let ve = |config: SongConfig| ModelConfig {
        network: NetworkConfig::Song(config),
        precond: PrecondConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 },
    };
    let tmsa = |config: SongConfig| {
        let position = Position::Relative { init_std: 0.02 };
        SongConfig { attention: SongAttention::Tmsa { position }, ..config }
    };
    let mut presets = vec![
        ("tiny", image(tiny.clone())),
        // `tiny` with classes: one per embedded emoji, and the ten of CIFAR-10.
        ("tiny-emoji", image(ImageConfig { classes: 1911, ..tiny.clone() })),
        ("tiny-cifar10", image(ImageConfig { classes: 10, ..tiny })),
        ("cifar10", image(cifar10.clone())),
        // The block counts of the paper's appendix I, which are lower.
        ("cifar10-i", image(ImageConfig { blocks: vec![2, 2, 2], ..cifar10.clone() })),
        // 256 channels at every stage, by analogy with EDM.
        ("cifar10-256", image(ImageConfig { channels: vec![256, 256, 256], ..cifar10 })),
        ("ffhq64", image(ffhq64.clone())),
        ("ffhq64-i", image(ImageConfig { blocks: vec![1, 2, 2, 2], ..ffhq64 })),
        ("latent256", latent(latent256)),
        ("latent512", latent(latent512)),
        ("latent-tiny", latent(latent_tiny)),
        // DiT with adaLN-Zero, and the counterpart of `latent-tiny`.
        ("dit-xl2", latent(dit_xl2.clone())),
        ("dit-b2", latent(dit(768, 12, 64))),
        ("dit-s2", latent(dit(384, 12, 64))),
        (
            "dit-latent-tiny",
            latent(LatentConfig { resolution: 16, classes: 10, ..dit(192, 8, 32) }),
        ),
        // DDPM++ and NCSN++, then both with TMSA in their attention layers.
        ("t5-vp", vp(SongConfig::default())),
        ("t5-ve", ve(SongConfig::ncsnpp())),
        ("t5-vp-tmsa", vp(tmsa(SongConfig::default()))),
        ("t5-ve-tmsa", ve(tmsa(SongConfig::ncsnpp()))),
    ];
    presets.extend(ablations::all().into_iter().map(|(name, config)| (name, image(config))));
    presets
}

/// Returns the preset with this name.
pub fn by_name(name: &str) -> Option<ModelConfig> {
    all().into_iter().find(|(known, _)| *known == name).map(|(_, config)| config)
}

/// Returns the names of all presets, separated by commas.
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
