//! The hash behind dropout masks.

/// Multipliers of [`scramble`].
pub(crate) const SCRAMBLE: [u32; 3] = [0x9E37_79B9, 0x7FEB_352D, 0x846C_A68B];

/// Returns a 32-bit hash of `i` and a key: `i` times the golden ratio, xor the key, then the mixing
/// function `lowbias32` of the hash-prospector project.
#[inline(always)]
pub(crate) fn scramble(i: u32, key: u32) -> u32 {
    let [golden, first, second] = SCRAMBLE;
    let x = i.wrapping_mul(golden) ^ key;
    let x = (x ^ x >> 16).wrapping_mul(first);
    let x = (x ^ x >> 15).wrapping_mul(second);
    x ^ x >> 16
}
