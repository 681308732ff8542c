//! Helpers of the tests.

pub use tests::assert_close;

/// Returns `n` values in [-1, 1) that depend on the name of a tensor: a hash of name and index.
pub fn uniform(name: &str, n: usize) -> Vec<f64> {
    // FNV-1a.
    let seed = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..n as u32)
        .map(|k| {
            let mut hash = k.wrapping_mul(2_654_435_761).wrapping_add(seed);
            hash ^= hash >> 16;
            hash = hash.wrapping_mul(0x85eb_ca6b);
            hash ^= hash >> 13;
            hash = hash.wrapping_mul(0xc2b2_ae35);
            hash ^= hash >> 16;
            f64::from(hash) / 2_147_483_648.0 - 1.0
        })
        .collect()
}

/// Returns [`uniform`] values as features: `scale * value + shift`.
pub fn features(name: &str, n: usize, scale: f64, shift: f64) -> Vec<f32> {
    uniform(name, n).into_iter().map(|value| (scale * value + shift) as f32).collect()
}

#[test]
fn the_generator_is_the_documented_one() {
    let want = [-0.792_947_6, -0.811_880_0, -0.292_570_1, 0.304_759_6];
    assert_close("u(\"a\")", &uniform("a", 4), &want, 1e-6);
}

/// Returns two pictures of 32x32 pixels with random values.
pub fn images() -> Vec<model::picture::Rgb> {
    let (n, side) = (2, 32);
    let bytes: Vec<u8> = uniform("img", n * 3 * side * side)
        .into_iter()
        .map(|value| ((value + 1.0) * 128.0).floor().min(255.0) as u8)
        .collect();
    bytes
        .chunks_exact(3 * side * side)
        .map(|planes| {
            // [C, H, W] -> [H, W, C]
            let pixels = side * side;
            let bytes = (0..3 * pixels).map(|i| planes[i % 3 * pixels + i / 3]).collect();
            model::picture::Rgb { width: side, height: side, bytes }
        })
        .collect()
}
