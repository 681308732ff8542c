//! Known answer of a model, for checking a device.

use serde::{Deserialize, Serialize};

use crate::diffusion::label::Label;

/// Known answer of a model, which shows whether the arithmetic of a device is right: some values of
/// `D(σ n; σ)` at several noise levels and, if the model has classes, for a class. `n` is the noise
/// that sampling from seed 0 starts with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The noise level σ of `values`.
    pub sigma: f64,
    /// Values 0, `stride`, `2 stride` and so on of the denoised picture `[C, H, W]`.
    pub values: Vec<f32>,
    /// Distance between the stored values in the denoised picture.
    pub stride: usize,
    /// Answers at other noise levels and for a class; empty in files of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<AnswerAt>,
}

/// Known answer at another noise level, or for a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerAt {
    /// The noise level σ.
    pub sigma: f64,
    /// The label.
    pub label: Label,
    /// The same values of the denoised picture as in [`Answer`].
    pub values: Vec<f32>,
}

impl Answer {
    /// Tolerance of [`Answer::deviation`], for values of about 1. A wrong kernel deviates far more,
    /// another order of summation far less.
    pub const TOLERANCE: f32 = 2e-3;

    /// Returns the number of stored values for pictures of `size` values.
    pub(crate) fn len(&self, size: usize) -> Option<usize> {
        (self.stride > 0).then(|| size.div_ceil(self.stride))
    }

    /// Returns whether this is an answer for pictures of `size` values.
    pub(crate) fn fits(&self, size: usize) -> bool {
        let n = self.len(size);
        let further = self.further.iter().map(|at| at.values.len());
        further.chain([self.values.len()]).all(|len| Some(len) == n)
    }

    /// Returns the largest difference of `found` from this answer, over all noise levels and labels
    /// of this answer; infinite if `found` lacks one of them, or a value is NaN.
    pub fn deviation(&self, found: &Answer) -> f32 {
        if self.stride != found.stride {
            return f32::INFINITY;
        }
        let pairs = self.entries().map(|(sigma, label, values)| {
            let same = |at: &(f64, &Label, &[f32])| {
                (at.0, at.1, at.2.len()) == (sigma, label, values.len())
            };
            found.entries().find(same).map(|(_, _, found)| (values, found))
        });
        pairs.fold(0.0, |worst, pair| {
            let Some((a, b)) = pair else { return f32::INFINITY };
            let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
            differences.fold(worst, |worst, difference| {
                if difference.is_nan() { f32::INFINITY } else { worst.max(difference) }
            })
        })
    }

    /// Iterates over noise level, label and values of every answer.
    fn entries(&self) -> impl Iterator<Item = (f64, &Label, &[f32])> {
        const NONE: &Label = &Label::NONE;
        let further = self.further.iter().map(|at| (at.sigma, &at.label, &at.values[..]));
        [(self.sigma, NONE, &self.values[..])].into_iter().chain(further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(values: [f32; 2], further: [f32; 2]) -> Answer {
        let at = AnswerAt { sigma: 20.0, label: 3.into(), values: further.to_vec() };
        Answer { sigma: 0.5, values: values.to_vec(), stride: 31, further: vec![at] }
    }

    #[test]
    fn every_level_and_class_is_compared() {
        let want = answer([0.5, 1.0], [-1.0, 0.0]);
        assert_eq!(want.deviation(&want), 0.0);
        assert_eq!(want.deviation(&answer([0.5, 1.5], [-1.0, 0.0])), 0.5);
        assert_eq!(want.deviation(&answer([0.5, 1.0], [-1.0, 0.25])), 0.25);
        for nan in [answer([f32::NAN, 1.0], [-1.0, 0.0]), answer([0.5, 1.0], [f32::NAN, 9.0])] {
            assert_eq!(want.deviation(&nan), f32::INFINITY);
            assert_eq!(nan.deviation(&want), f32::INFINITY);
        }
        let mut other = want.clone();
        other.further[0].label = Label::NONE;
        assert_eq!(want.deviation(&other), f32::INFINITY);
    }

    /// A file of an earlier version has one noise level, and only this one is compared.
    #[test]
    fn answers_of_earlier_versions_are_read() {
        let text = r#"{"sigma":0.5,"values":[0.5,1.0],"stride":31}"#;
        let old: Answer = serde_json::from_str(text).expect("an answer of an earlier version");
        assert_eq!(old.deviation(&answer([0.5, 1.0], [7.0, 7.0])), 0.0);
        assert!(old.fits(62) && !old.fits(63));
        assert!(!Answer { stride: 0, ..old }.fits(62));
    }
}
