//! The networks that the paper compares its own with, named after its tables and figures. All are
//! for CIFAR-10 and differ from the preset `cifar10` in one respect.

use crate::config::{ImageConfig, TimeEntry, TransformerConfig};

/// Every one of them, by name.
pub(crate) fn all() -> Vec<(&'static str, ImageConfig)> {
    let enters = |time_entry| ImageConfig {
        transformer: TransformerConfig { time_entry, ..TransformerConfig::default() },
        ..ImageConfig::default()
    };
    vec![
        // Table 6: where the time token enters.
        ("t6-f", enters(TimeEntry::Bias)),
        ("t6-g", enters(TimeEntry::Mlp)),
        ("t6-g-in", enters(TimeEntry::MlpInput)),
        ("t6-none", enters(TimeEntry::None)),
        // Table 7: attention to the time token apart from that to the picture.
        ("t7-token", enters(TimeEntry::Token)),
        ("t7-additive", enters(TimeEntry::Additive)),
    ]
}

#[cfg(test)]
mod tests {
    use crate::config::preset;
    use crate::weights::shape_of;

    /// Parameters and, in units of 10^9, multiply-adds of linear maps and convolutions and of
    /// attention; 0 where only the sum of both is known, which then is the first.
    const SIZES: [(&str, usize, f64, f64); 6] = [
        ("t6-f", 25_616_131, 7.300, 0.052),
        ("t6-g", 30_803_587, 7.305, 0.052),
        ("t6-g-in", 24_499_843, 7.299, 0.052),
        ("t6-none", 22_398_595, 7.297, 0.052),
        ("t7-token", 28_702_723, 7.303, 0.056),
        ("t7-additive", 24_499_843, 7.299, 0.052),
    ];

    #[test]
    fn ablations_have_their_sizes() {
        let names: Vec<&str> = super::all().into_iter().map(|(name, _)| name).collect();
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
}
