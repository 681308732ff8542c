//! Synthetic weights and inputs: each value is a hash of its tensor's name and its place in it, so
//! that another program can compute the same without a file.

use crate::network::params::TensorSpec;

/// The first `n` values of the generator of this name, within -1 to 1.
pub(super) fn uniform(name: &str, n: usize) -> Vec<f64> {
    let seed = name
        .bytes()
        .fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let value = |k: usize| {
        let mut h = (k as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^= h >> 16;
        f64::from(h) / 2f64.powi(31) - 1.0
    };
    (0..n).map(value).collect()
}

/// The values of a tensor of a network, by its name and shape in PyTorch.
pub(super) fn fill(spec: &TensorSpec) -> Vec<f32> {
    let values = uniform(&spec.name, spec.len());
    let columns: usize = spec.shape[1..].iter().product();
    let (offset, scale) = match (spec.shape.len(), spec.name.ends_with(".weight")) {
        (1, true) => (1.0, 0.1),
        (1, false) => (0.0, 0.1),
        _ => (0.0, (3.0 / columns as f64).sqrt()),
    };
    values.into_iter().map(|value| (offset + scale * value) as f32).collect()
}

#[test]
fn the_generator_is_the_documented_one() {
    for (found, want) in
        uniform("a", 4).into_iter().zip([-0.792_947_6, -0.811_880_0, -0.292_570_1, 0.304_759_6])
    {
        assert!((found - want).abs() < 1e-7, "{found} and {want}");
    }
}
