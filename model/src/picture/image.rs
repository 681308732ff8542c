//! Conversions between the values and the bytes of pictures.

/// Converts a picture `[C, H, W]` of values from -1 to 1 into bytes `[H, W, C]`: `x · 127.5 + 128`,
/// clipped to 0 to 255 and truncated, as EDM does.
///
/// # Panics
///
/// If `values` is not a multiple of `channels`.
pub fn to_bytes(values: &[f32], channels: usize) -> Vec<u8> {
    assert!(values.len().is_multiple_of(channels), "{} values", values.len());
    let pixels = values.len() / channels;
    (0..values.len())
        .map(|i| {
            let value = values[i % channels * pixels + i / channels];
            (value * 127.5 + 128.0).clamp(0.0, 255.0) as u8
        })
        .collect()
}

/// Converts bytes into values from -1 to 1: `x / 127.5 - 1`, in the same order.
pub fn from_bytes(bytes: &[u8], values: &mut [f32]) {
    for (value, byte) in values.iter_mut().zip(bytes) {
        *value = f32::from(*byte) / 127.5 - 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_through_values() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut values = vec![0.0; 256];
        from_bytes(&bytes, &mut values);
        assert_eq!((values[0], values[255]), (-1.0, 1.0));
        assert_eq!(to_bytes(&values, 1), bytes);
    }

    #[test]
    fn channels_are_interleaved() {
        // Two pixels of red 1, 2; green 3, 4; blue 5, 6.
        let values = [1., 2., 3., 4., 5., 6.].map(|b: f32| b / 127.5 - 1.0);
        assert_eq!(to_bytes(&values, 3), [1, 3, 5, 2, 4, 6]);
        assert_eq!(to_bytes(&[-9.0, 9.0, f32::NAN], 3), [0, 255, 0]);
    }
}
