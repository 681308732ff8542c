//! A known answer of a model, by which a device is checked.

use serde::{Deserialize, Serialize};

/// A known answer of the model, by which whoever loads it can tell that the arithmetic of a device
/// is right: some values of `D(σ n; σ)`, `n` being the noise that sampling from seed 0 starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The noise level σ.
    pub sigma: f64,
    /// The values number 0, `stride`, `2 stride` and so on of the denoised picture `[C, H, W]`.
    pub values: Vec<f32>,
    /// See `values`.
    pub stride: usize,
}

impl Answer {
    /// By how much a device may be off, where values are about 1. A wrong kernel is off by far
    /// more; the order of summation, by far less.
    pub const TOLERANCE: f32 = 2e-3;

    /// The largest difference to another answer; infinite if one of them is no number.
    pub fn deviation(&self, other: &Answer) -> f32 {
        if (self.sigma, self.stride, self.values.len())
            != (other.sigma, other.stride, other.values.len())
        {
            return f32::INFINITY;
        }
        let differences = self.values.iter().zip(&other.values).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, |worst, d| {
            if d <= worst {
                worst
            } else if d.is_nan() {
                f32::INFINITY
            } else {
                d
            }
        })
    }
}
