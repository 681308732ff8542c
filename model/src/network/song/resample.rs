//! Changes of resolution by a filter, as StyleGAN2 and EDM define them.

use burn::tensor::Tensor;

use crate::kernels::{downsample_bilinear, upsample_nearest};

/// A separable filter that halves or doubles height and width. The map is padded with zeros.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Values along one axis, an even number, with a sum of 1.
    taps: Vec<f64>,
}

impl Filter {
    /// Returns the filter with these values, which are normalised to a sum of 1.
    pub fn new(taps: &[f64]) -> Self {
        let sum: f64 = taps.iter().sum();
        Self { taps: taps.iter().map(|tap| tap / sum).collect() }
    }

    /// Zeros on each side of the map that keep the output of [`Filter::down`] at half the size.
    pub fn padding(&self) -> usize {
        (self.taps.len() - 1) / 2
    }

    /// Whether it is the mean of two values, for which there are faster forms.
    fn is_box(&self) -> bool {
        self.taps == [0.5, 0.5]
    }

    /// Filters and keeps every second row and column.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C]`; output: `[B, H / 2, W / 2, C]`
    pub fn down(&self, x: Tensor<4>) -> Tensor<4> {
        self.down_inside(pad(x, self.padding()))
    }

    /// [`Filter::down`] of a map that has its padding already.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H + 2 padding, W + 2 padding, C]`; output: `[B, H / 2, W / 2, C]`
    pub fn down_inside(&self, x: Tensor<4>) -> Tensor<4> {
        if self.is_box() {
            return downsample_bilinear(x);
        }
        self.halve(self.halve(x, 1), 2)
    }

    /// Puts zeros between rows and columns, and filters with four times the values: the transposed
    /// operation of [`Filter::down`].
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C]`; output: `[B, 2 H, 2 W, C]`
    pub fn up(&self, x: Tensor<4>) -> Tensor<4> {
        if self.is_box() {
            return upsample_nearest(x);
        }
        self.double(self.double(x, 1), 2)
    }

    /// `y[i] = sum_k taps[k] x[2 i + k]` along dimension `dim`.
    fn halve(&self, x: Tensor<4>, dim: usize) -> Tensor<4> {
        let mut shape = x.dims();
        let pairs = shape[dim] / 2;
        shape[dim] = (shape[dim] - self.taps.len()) / 2 + 1;
        let half = shape[dim];
        // Dimension `dim` as pairs: value 2 i + k is value k % 2 of pair i + k / 2.
        let [b, h, w, c] = x.dims();
        let x: Tensor<5> = match dim {
            1 => x.reshape([b, pairs, 2, w, c]),
            _ => x.reshape([b, h, pairs, 2, c]),
        };
        let part = |k: usize| x.clone().narrow(dim, k / 2, half).narrow(dim + 1, k % 2, 1);
        sum(self.taps.iter().enumerate().map(|(k, &tap)| part(k).reshape(shape) * tap))
    }

    /// `y[j] = sum_i 2 taps[j - 2 i + padding] x[i]` along dimension `dim`.
    fn double(&self, x: Tensor<4>, dim: usize) -> Tensor<4> {
        let mut shape = x.dims();
        let n = shape[dim];
        // Value 2 m + parity takes tap k from value m + (parity + padding - k) / 2.
        let around = self.taps.len() / 4;
        let x = pad_along(x, around, dim);
        let rows = |parity: usize| {
            let first = parity + self.padding();
            let taps = self.taps.iter().enumerate().filter(|(k, _)| (first + k).is_multiple_of(2));
            sum(taps.map(|(k, &tap)| {
                let start = (2 * around + first - k) / 2;
                x.clone().narrow(dim, start, n) * (2.0 * tap)
            }))
        };
        shape[dim] = 2 * n;
        Tensor::stack::<5>(vec![rows(0), rows(1)], dim + 1).reshape(shape)
    }
}

fn sum(parts: impl Iterator<Item = Tensor<4>>) -> Tensor<4> {
    parts.reduce(|sum, part| sum + part).expect("a filter has values")
}

/// Puts `n` zeros around the map, on each side.
pub(crate) fn pad(x: Tensor<4>, n: usize) -> Tensor<4> {
    pad_along(pad_along(x, n, 1), n, 2)
}

fn pad_along(x: Tensor<4>, n: usize, dim: usize) -> Tensor<4> {
    if n == 0 {
        return x;
    }
    let mut shape = x.dims();
    shape[dim] = n;
    let zeros = Tensor::zeros(shape, (&x.device(), x.dtype()));
    Tensor::cat(vec![zeros.clone(), x, zeros], dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    /// The definition, on one axis: zeros around, then a correlation at every second place.
    fn down(x: &[f64], taps: &[f64]) -> Vec<f64> {
        let padding = (taps.len() - 1) / 2;
        let at = |place: usize| {
            place.checked_sub(padding).and_then(|i| x.get(i)).copied().unwrap_or_default()
        };
        let tap = |i: usize, k: usize| taps[k] * at(2 * i + k);
        (0..x.len() / 2).map(|i| (0..taps.len()).map(|k| tap(i, k)).sum()).collect()
    }

    /// The transposed operation, times 2.
    fn up(x: &[f64], taps: &[f64]) -> Vec<f64> {
        let n = 2 * x.len();
        let unit = |j: usize| (0..n).map(|i| f64::from(u8::from(i == j))).collect::<Vec<f64>>();
        let of = |j: usize| down(&unit(j), taps).iter().zip(x).map(|(a, b)| 2.0 * a * b).sum();
        (0..n).map(of).collect()
    }

    /// Applies an operation of one axis to rows and columns of a square map.
    fn both(x: &[f64], side: usize, along: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
        let transposed = |x: &[f64], width: usize| -> Vec<f64> {
            (0..width).flat_map(|c| x.iter().copied().skip(c).step_by(width)).collect()
        };
        let rows: Vec<f64> = x.chunks(side).flat_map(&along).collect();
        let width = rows.len() / side;
        let columns: Vec<f64> = transposed(&rows, width).chunks(side).flat_map(&along).collect();
        transposed(&columns, columns.len() / width)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn filters_follow_their_definition(
            half in 1usize..5, taps in prop::collection::vec(0.1f64..3.0, 1..5), is_box: bool,
        ) {
            let mut taps = taps;
            taps.extend(taps.clone());
            if is_box {
                taps = vec![1.0, 1.0];
            }
            let filter = Filter::new(&taps);
            let total: f64 = taps.iter().sum();
            let taps: Vec<f64> = taps.iter().map(|tap| tap / total).collect();
            let side = 2 * half;
            prop_assume!(side + 2 * filter.padding() >= taps.len());
            let x: Vec<f64> = (0..side * side).map(|i| (i as f64 * 1.7).sin()).collect();
            let map = Tensor::<4>::from_data(
                TensorData::new(x.clone(), [1, side, side, 1]),
                (&Device::flex(), burn::tensor::DType::F64),
            );
            for (found, want) in [
                (filter.down(map.clone()), both(&x, side, |line| down(line, &taps))),
                (filter.up(map), both(&x, side, |line| up(line, &taps))),
            ] {
                let found: Vec<f64> = found.into_data().try_into_vec().expect("f64");
                prop_assert_eq!(found.len(), want.len());
                for (found, want) in found.iter().zip(&want) {
                    prop_assert!((found - want).abs() < 1e-12, "{} and {}", found, want);
                }
            }
        }
    }
}
