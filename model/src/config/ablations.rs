//! The networks that the paper compares its own with, named after its tables (`t`) and figures
//! (`f`), all for CIFAR-10. Each differs from the preset `cifar10` in what the table is about.

use crate::config::{
    BlockKind, DecoderConfig, EncoderConfig, ImageConfig, Position, TimeAdd, TimeConfig, TimeEntry,
    TimeFrequencies, TransformerConfig, Window,
};

/// Every one of them, by name.
pub(crate) fn all() -> Vec<(&'static str, ImageConfig)> {
    let cifar10 = ImageConfig::default();
    let enters = |time_entry| ImageConfig {
        transformer: TransformerConfig { time_entry, ..TransformerConfig::default() },
        ..cifar10.clone()
    };
    let window = |side| ImageConfig { window: Window::Size(side), ..cifar10.clone() };
    let vit = EncoderConfig::Stages { block: BlockKind::Vit };
    let vit_decoder = DecoderConfig::Unet { block: BlockKind::Vit };
    let mla = DecoderConfig::Mla { width: 256, head_width: 128 };
    // ViT-B, whose four groups of three blocks are the stages.
    let vit_b = ImageConfig {
        channels: vec![768; 4],
        blocks: vec![3; 4],
        transformer: TransformerConfig {
            head_dim: 64,
            position: Position::None,
            ..TransformerConfig::default()
        },
        window: Window::Global,
        encoder: EncoderConfig::Isotropic { patch: 2 },
        decoder: mla,
        time_add: TimeAdd::Encoder,
        ..cifar10.clone()
    };
    let stages =
        |encoder, decoder, time_add| ImageConfig { encoder, decoder, time_add, ..cifar10.clone() };
    let residual = EncoderConfig::default();
    let time = TimeConfig::default();
    let fourier = TimeConfig { channels: 256, embedding: TimeFrequencies::Fourier, ..time.clone() };
    vec![
        // Table 3: widths of the spatial and of the time token.
        ("t3-token512", ImageConfig { channels: vec![256, 512, 512], ..cifar10.clone() }),
        ("t3-time256", ImageConfig { time: TimeConfig { width: 256, ..time }, ..cifar10.clone() }),
        // Table 4: encoder and decoder.
        ("t4-a", vit_b),
        ("t4-b", stages(vit, mla, TimeAdd::Encoder)),
        ("t4-c", stages(vit, vit_decoder, TimeAdd::Both)),
        ("t4-d", stages(residual, vit_decoder, TimeAdd::Decoder)),
        ("t4-e", cifar10.clone()),
        // Table 6: where the time token enters, and two controls.
        ("t6-f", enters(TimeEntry::Bias)),
        ("t6-g", enters(TimeEntry::Mlp)),
        ("t6-g-in", enters(TimeEntry::MlpInput)),
        ("t6-none", enters(TimeEntry::None)),
        ("t6-e-add", ImageConfig { time_add: TimeAdd::Both, ..enters(TimeEntry::None) }),
        // Table 7: attention to the time token apart from that to the picture.
        ("t7-token", enters(TimeEntry::Token)),
        ("t7-additive", enters(TimeEntry::Additive)),
        // Table 8: frequencies of the time embedding.
        ("t8-fourier", ImageConfig { time: fourier, ..cifar10.clone() }),
        // Figure 8: sides of a window.
        ("f8-w2", window(2)),
        ("f8-w4", window(4)),
        ("f8-w8", window(8)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelConfig, NetworkConfig, PrecondConfig, preset};
    use crate::weights::shape_of;

    /// Parameters and, in units of 10^9, multiply-adds of linear maps and convolutions and of
    /// attention; 0 where only the sum of both is known, which then is the first.
    const SIZES: [(&str, usize, f64, f64); 18] = [
        ("t3-token512", 101_049_475, 29.2907, 0.0),
        ("t3-time256", 25_326_723, 7.3525, 0.0),
        ("t4-a", 92_111_235, 23.020, 1.208),
        ("t4-b", 11_939_411, 3.382, 0.027),
        ("t4-c", 13_867_651, 4.064, 0.052),
        ("t4-d", 22_384_899, 5.322, 0.052),
        ("t4-e", 28_702_339, 7.303, 0.052),
        ("t6-f", 25_616_131, 7.300, 0.052),
        ("t6-g", 30_803_587, 7.305, 0.052),
        ("t6-g-in", 24_499_843, 7.299, 0.052),
        ("t6-none", 22_398_595, 7.297, 0.052),
        ("t6-e-add", 22_924_931, 7.298, 0.052),
        ("t7-token", 28_702_723, 7.303, 0.056),
        ("t7-additive", 24_499_843, 7.299, 0.052),
        ("t8-fourier", 28_769_027, 7.303, 0.052),
        ("f8-w2", 28_697_219, 7.303, 0.013),
        ("f8-w4", 28_702_339, 7.303, 0.052),
        ("f8-w8", 28_724_867, 7.303, 0.210),
    ];

    #[test]
    fn ablations_have_their_sizes() {
        let names: Vec<&str> = all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, SIZES.map(|(name, ..)| name));
        for (name, parameters, weights, attention) in SIZES {
            let network = shape_of(&preset::by_name(name).expect("a preset"));
            assert_eq!(network.parameter_count(), parameters, "{name}");
            let macs = network.macs();
            let found = match attention {
                0.0 => [macs.total(), 0],
                _ => [macs.weights, macs.attention],
            };
            for (found, want) in found.into_iter().zip([weights, attention]) {
                assert!((found as f64 / 1e9 - want).abs() < 6e-4, "{name}: {macs:?}");
            }
        }
    }

    fn edited(name: &str, edit: impl FnOnce(&mut ImageConfig)) -> [u64; 2] {
        let (_, mut config) = all().into_iter().find(|(known, _)| *known == name).expect("a name");
        edit(&mut config);
        let network = NetworkConfig::Image(config);
        let config = ModelConfig { network, precond: PrecondConfig::default() };
        config.validate().expect("it fits together");
        let network = shape_of(&config);
        [network.parameter_count() as u64, network.macs().total()]
    }

    /// The reading of table 4 in which the networks have four stages, of which the last is as
    /// large as a window, and one with as much work as the whole.
    #[test]
    fn other_readings_of_table_4_have_their_sizes() {
        let four = |c: &mut ImageConfig| {
            (c.channels, c.blocks) = (vec![128, 256, 256, 256], vec![4; 4]);
        };
        for (name, edit, parameters, macs) in [
            ("t4-b", &four as &dyn Fn(&mut ImageConfig), 16_924_915, 3.491),
            ("t4-c", &four, 21_763_523, 4.426),
            ("t4-d", &four, 34_087_491, 5.723),
            ("t4-e", &four, 44_801_987, 7.895),
            ("t4-c", &|c| c.blocks = vec![8; 3], 24_937_219, 7.591),
            ("t4-a", &|c| c.encoder = EncoderConfig::Isotropic { patch: 4 }, 91_991_427, 5.84),
        ] {
            let [found, work] = edited(name, edit);
            assert_eq!(found, parameters, "{name}");
            // 5.84 is known to two places, and leaves attention out.
            let within = if name == "t4-a" { 0.08 } else { 6e-4 };
            assert!((work as f64 / 1e9 - macs).abs() < within, "{name}: {work}");
        }
    }

    /// Ablation networks for pictures of 16x16, small enough to be compared on two cores.
    #[test]
    fn small_ablations_have_their_sizes() {
        let small = |blocks: usize| {
            move |c: &mut ImageConfig| {
                (c.resolution, c.time.width) = (16, 256);
                (c.channels, c.blocks) = (vec![32, 64, 64], vec![blocks; 3]);
                if let DecoderConfig::Mla { width, head_width } = &mut c.decoder {
                    (*width, *head_width) = (64, 32);
                }
                if let EncoderConfig::Isotropic { .. } = c.encoder {
                    (c.channels, c.blocks) = (vec![96; 4], vec![2; 4]);
                    c.transformer.head_dim = 32;
                }
            }
        };
        for (name, blocks, parameters, macs) in [
            ("t4-e", 2, 1_278_195, 0.070),
            ("t4-d", 2, 987_155, 0.048),
            ("t4-c", 2, 640_499, 0.039),
            ("t4-c", 4, 992_003, 0.067),
            ("t4-b", 2, 631_245, 0.040),
            ("t4-a", 2, 1_389_539, 0.082),
            ("t6-f", 2, 1_084_931, 0.0),
            ("t6-g", 2, 1_409_779, 0.0),
            ("t7-token", 2, 1_278_243, 0.0),
            ("t6-none", 2, 883_443, 0.0),
            ("t6-e-add", 2, 949_491, 0.0),
            ("f8-w2", 2, 0, 0.0685),
            ("f8-w8", 2, 0, 0.0744),
        ] {
            let [found, work] = edited(name, small(blocks));
            assert!(parameters == 0 || found == parameters, "{name}: {found}");
            assert!(macs == 0.0 || (work as f64 / 1e9 - macs).abs() < 6e-4, "{name}: {work}");
        }
    }
}
