//! EDM's geometric augmentation (arXiv 2206.00364, appendix F.2): mirroring, scaling, rotation,
//! stretching and translation, in one resampling.
//!
//! The transformation of training image `k` is a function of the seed and `k` ([`Transform::draw`],
//! on the host). Images are resampled on the device ([`Resampler::apply`]): padded by reflection,
//! upsampled by 2 with the wavelet sym6, sampled bilinearly, and downsampled with the same wavelet.
//! EDM pads by as much as the batch needs; here every image is padded by the maximum of `side - 1`
//! pixels, so that the result does not depend on the other images of the batch.

use std::f64::consts::PI;

use burn::tensor::ops::{GridSampleOptions, GridSamplePaddingMode, InterpolateMode};
use burn::tensor::{Device, Tensor, TensorData};
use model::noise::Random;

use crate::config::AUGMENT_LABELS;

/// Standard deviation of the base-2 logarithm of scale and stretching.
const SCALE_STD: f64 = 0.2;
/// Probability that the axis of stretching is rotated.
const STRETCH_ROTATED: f64 = 0.5;
/// Standard deviation of the translation, relative to the image size.
const TRANSLATION_STD: f64 = 0.125;

/// Low-pass filter of the wavelet sym6 (Daubechies, "Ten lectures on wavelets"; values of
/// PyWavelets).
const SYM6: [f64; 12] = [
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
];
/// Half of the filter's length, in pixels of the image.
const PAD: usize = SYM6.len() / 4;

/// An affine map of the plane, `[[a, b, c], [d, e, f]]`: `(x, y)` to `(ax + by + c, dx + ey + f)`.
pub type Affine = [[f64; 3]; 2];

/// The identity.
pub const IDENTITY: Affine = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];

/// Returns `after ∘ before`.
fn compose(after: Affine, before: Affine) -> Affine {
    after.map(|[a, b, c]| {
        let [p, q] = before;
        [a * p[0] + b * q[0], a * p[1] + b * q[1], a * p[2] + b * q[2] + c]
    })
}

fn rotation(angle: f64) -> Affine {
    let (sin, cos) = (libm::sin(angle), libm::cos(angle));
    [[cos, -sin, 0.0], [sin, cos, 0.0]]
}

fn scaling(x: f64, y: f64) -> Affine {
    [[x, 0.0, 0.0], [0.0, y, 0.0]]
}

fn translation(x: f64, y: f64) -> Affine {
    [[1.0, 0.0, x], [0.0, 1.0, y]]
}

/// The transformation of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Whether the image is mirrored horizontally.
    pub mirror_x: bool,
    /// Whether the image is mirrored vertically.
    pub mirror_y: bool,
    /// Map from positions in the result to positions in the image, in pixels from the center.
    /// `None` for the identity.
    pub inverse: Option<Affine>,
    /// Augmentation labels.
    pub labels: [f32; AUGMENT_LABELS],
}

impl Transform {
    /// Draws the transformation of an image of `side` pixels a side. `flip` mirrors half of the
    /// images horizontally; each other transformation is applied with `probability`.
    pub fn draw(random: &mut Random, flip: bool, probability: f64, side: usize) -> Self {
        let mirror_x = flip && random.uniform() < 0.5;
        let mut labels = [0.0; AUGMENT_LABELS];
        labels[0] = f64::from(u8::from(mirror_x));
        if probability <= 0.0 {
            let labels = labels.map(|label| label as f32);
            return Self { mirror_x, mirror_y: false, inverse: None, labels };
        }
        // Unused numbers are drawn too, so that later ones do not depend on them.
        let chosen = |random: &mut Random| random.uniform() < probability;
        let mirror_y = chosen(random) & (random.uniform() < 0.5);
        labels[1] = f64::from(u8::from(mirror_y));
        let mut inverse = IDENTITY;
        let mut moved = false;

        let (is_chosen, normal) = (chosen(random), random.normal());
        if is_chosen {
            let scale = libm::exp2(SCALE_STD * normal);
            inverse = compose(inverse, scaling(1.0 / scale, 1.0 / scale));
            labels[2] = normal;
            moved = true;
        }
        let (is_chosen, angle) = (chosen(random), (2.0 * random.uniform() - 1.0) * PI);
        if is_chosen {
            inverse = compose(inverse, rotation(angle));
            labels[3] = libm::cos(angle) - 1.0;
            labels[4] = libm::sin(angle);
            moved = true;
        }
        let (is_chosen, normal) = (chosen(random), random.normal());
        let (is_rotated, angle) =
            (random.uniform() < STRETCH_ROTATED, (2.0 * random.uniform() - 1.0) * PI);
        if is_chosen {
            let angle = if is_rotated { angle } else { 0.0 };
            let scale = libm::exp2(SCALE_STD * normal);
            inverse = compose(inverse, rotation(-angle));
            inverse = compose(inverse, scaling(1.0 / scale, scale));
            inverse = compose(inverse, rotation(angle));
            labels[5] = normal * libm::cos(angle);
            labels[6] = normal * libm::sin(angle);
            moved = true;
        }
        let (is_chosen, x, y) = (chosen(random), random.normal(), random.normal());
        if is_chosen {
            let step = TRANSLATION_STD * side as f64;
            inverse = compose(inverse, translation(-x * step, -y * step));
            (labels[7], labels[8]) = (x, y);
            moved = true;
        }
        let labels = labels.map(|label| label as f32);
        Self { mirror_x, mirror_y, inverse: moved.then_some(inverse), labels }
    }
}

/// Mirrors an image `[C, H, W]` horizontally.
///
/// # Panics
///
/// If `image` is not a whole number of rows of `side` values.
pub fn mirror_x(image: &mut [f32], side: usize) {
    image.chunks_exact_mut(side).for_each(<[f32]>::reverse);
}

/// Mirrors an image `[C, H, W]` vertically.
///
/// # Panics
///
/// If `image` is not a whole number of channels of `side` rows and columns.
pub fn mirror_y(image: &mut [f32], side: usize) {
    for channel in image.chunks_exact_mut(side * side) {
        for row in 0..side / 2 {
            let (top, bottom) = channel.split_at_mut((side - 1 - row) * side);
            top[row * side..(row + 1) * side].swap_with_slice(&mut bottom[..side]);
        }
    }
}

/// Resamples images of one size on one device.
pub struct Resampler {
    side: usize,
    /// Matrix of padding and upsampling, `[1, 1, 2 (3 side - 2), side]`.
    up: Tensor<4>,
    /// Matrix of filtering, downsampling and cropping, `[1, 1, side, 2 (side + 2 PAD)]`.
    down: Tensor<4>,
    /// Positions `(x, y, 1)` in the upsampled result from its center, row by row, `[1, n, 3]`.
    positions: Tensor<3>,
}

impl Resampler {
    /// Makes a resampler of images of `side` pixels a side.
    pub fn new(side: usize, device: &Device) -> Self {
        let tensor = |[rows, columns]: [usize; 2], value: &dyn Fn(usize, usize) -> f64| {
            let values: Vec<f32> =
                (0..rows * columns).map(|i| value(i / columns, i % columns) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, rows, columns]), device)
        };
        let padded = Self::padded(side);
        // Row j of the upsampled image is the sum over padded pixels n of SYM6[5 + j - 2n].
        let up = |j: usize, i: usize| {
            (0..padded)
                .filter(|&n| Self::reflected(n, side) == i)
                .filter_map(|n| SYM6.get((5 + j).checked_sub(2 * n)?))
                .sum()
        };
        // Row i of the result is the sum of SYM6[t] times row 2i + 1 + t.
        let down = |i: usize, k: usize| {
            k.checked_sub(2 * i + 1).and_then(|t| SYM6.get(t)).copied().unwrap_or(0.0)
        };
        let out_side = 2 * (side + 2 * PAD);
        let middle = (out_side - 1) as f32 / 2.0;
        let positions: Vec<f32> = (0..out_side * out_side)
            .flat_map(|i| [(i % out_side) as f32 - middle, (i / out_side) as f32 - middle, 1.0])
            .collect();
        let positions = TensorData::new(positions, [1, out_side * out_side, 3]);
        Self {
            side,
            up: tensor([2 * padded, side], &up),
            down: tensor([side, out_side], &down),
            positions: Tensor::from_data(positions, device),
        }
    }

    /// Returns the side of an image with `side - 1` reflected pixels of padding.
    fn padded(side: usize) -> usize {
        3 * side - 2
    }

    /// Returns the pixel at position `n` of the padded image.
    fn reflected(n: usize, side: usize) -> usize {
        let distance = n.abs_diff(side - 1);
        if distance < side { distance } else { 2 * (side - 1) - distance }
    }

    /// Resamples images with maps from positions in the result to positions in the image.
    ///
    /// # Shapes
    ///
    /// - images, output: `[B, C, side, side]`, with `inverses` of length `B`
    pub fn apply(&self, images: Tensor<4>, inverses: &[Affine]) -> Tensor<4> {
        let device = images.device();
        let b = inverses.len();
        let up_side = 2 * Self::padded(self.side);
        let out_side = 2 * (self.side + 2 * PAD);
        // Positions on the upsampled grids: scaled by 2, and shifted by half a pixel, since the
        // filter puts a pixel on the first of its two upsampled pixels.
        let inverses = inverses.iter().flat_map(|&inverse| {
            let twice = compose(scaling(2.0, 2.0), compose(inverse, scaling(0.5, 0.5)));
            let off = compose(translation(-0.5, -0.5), compose(twice, translation(0.5, 0.5)));
            // Normalised to -1 to 1, as grid_sample takes them.
            let [x, y] = compose(scaling(2.0 / up_side as f64, 2.0 / up_side as f64), off);
            // Columns of a matrix [3, 2].
            [x[0], y[0], x[1], y[1], x[2], y[2]]
        });
        let inverses: Vec<f32> = inverses.map(|value| value as f32).collect();
        let inverses = Tensor::<3>::from_data(TensorData::new(inverses, [b, 3, 2]), &device);
        let positions = self.positions.clone().expand([b, out_side * out_side, 3]);
        // [B, H W, 3] · [B, 3, 2]
        let grid = positions.matmul(inverses).reshape([b, out_side, out_side, 2]);

        let [_, c, ..] = images.dims();
        let both = |matrix: &Tensor<4>, x: Tensor<4>| {
            let [_, _, rows, columns] = matrix.dims();
            let matrix = matrix.clone().expand([b, c, rows, columns]);
            // Rows, then columns.
            matrix.clone().matmul(x).matmul(matrix.swap_dims(2, 3))
        };
        let options = GridSampleOptions::new(InterpolateMode::Bilinear)
            .with_padding_mode(GridSamplePaddingMode::Zeros)
            .with_align_corners(false);
        both(&self.down, both(&self.up, images).grid_sample_2d(grid, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::noise::Stream;
    use proptest::prelude::*;

    fn images(b: usize, c: usize, side: usize) -> Tensor<4> {
        let mut values = vec![0.0; b * c * side * side];
        Random::new(5, Stream::Training, 0).fill_normal(&mut values);
        Tensor::from_data(TensorData::new(values, [b, c, side, side]), &Device::flex())
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec().expect("f32")
    }

    fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
        assert_eq!(a.len(), b.len());
        // Value by value: the maximum of the differences would ignore NaN.
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= tolerance, "value {i} is {a}, not {b}");
        }
    }

    /// The filter is orthogonal: downsampling inverts upsampling.
    #[test]
    fn the_identity_changes_nothing() {
        for side in [4, 7, 32] {
            let x = images(2, 3, side);
            let resampler = Resampler::new(side, &Device::flex());
            let same = resampler.apply(x.clone(), &[IDENTITY; 2]);
            assert_close(&values(same), &values(x), 1e-4);
        }
    }

    #[test]
    fn translation_by_whole_pixels_is_exact_and_reflects() {
        let side = 8;
        let x = images(1, 1, side);
        let resampler = Resampler::new(side, &Device::flex());
        // The result at (x, y) is the image at (x + 2, y - 1).
        let moved = values(resampler.apply(x.clone(), &[translation(2.0, -1.0)]));
        let x = values(x);
        let at = |row: i32, column: i32| {
            let reflect = |i: i32| if i < 0 { -i } else { i.min(2 * (side as i32 - 1) - i) };
            x[(reflect(row) * side as i32 + reflect(column)) as usize]
        };
        let want: Vec<f32> = (0..side as i32)
            .flat_map(|row| (0..side as i32).map(move |column| (row - 1, column + 2)))
            .map(|(row, column)| at(row, column))
            .collect();
        assert_close(&moved, &want, 1e-4);
    }

    /// Compared with an independent implementation, `tests/golden/reference.py`.
    #[test]
    fn resampling_matches_the_reference() {
        let golden = ::tests::Tensors::golden("augment.safetensors");
        let get = |name: &str| {
            let (shape, values) = golden.get(name);
            (shape, values.iter().map(|&v| v as f32).collect::<Vec<_>>())
        };
        let (shape, images) = get("images");
        let shape: [usize; 4] = shape.try_into().expect("four dimensions");
        let images = Tensor::from_data(TensorData::new(images, shape), &Device::flex());
        let inverses: Vec<Affine> = golden
            .get("inverses")
            .1
            .chunks_exact(6)
            .map(|m| [[m[0], m[1], m[2]], [m[3], m[4], m[5]]])
            .collect();
        let found = Resampler::new(shape[2], &Device::flex()).apply(images, &inverses);
        let found: Vec<f64> = values(found).into_iter().map(f64::from).collect();
        ::tests::assert_close("augmented", &found, &golden.get("augmented").1, 1e-5);
    }

    /// The transformation can be computed from the labels.
    #[test]
    fn the_labels_determine_the_transformation() {
        let side = 32;
        let mut counts = [0; AUGMENT_LABELS];
        for k in 0..2_000 {
            let mut random = Random::new(1, Stream::Augmentation, k);
            let transform = Transform::draw(&mut random, true, 0.3, side);
            let labels = transform.labels.map(f64::from);
            counts
                .iter_mut()
                .zip(labels)
                .for_each(|(count, label)| *count += usize::from(label != 0.0));
            let scale = (0.2 * labels[2]).exp2();
            let angle = labels[4].atan2(labels[3] + 1.0);
            let stretch = labels[5].hypot(labels[6]);
            let axis = labels[6].atan2(labels[5]);
            let factor = (0.2 * stretch).exp2();
            // Stretching by the inverse factor along the opposite axis has the same labels.
            let found = transform.inverse.unwrap_or(IDENTITY);
            let is = |factor: f64| {
                let mut want = scaling(1.0 / scale, 1.0 / scale);
                want = compose(want, rotation(angle));
                want = compose(want, rotation(-axis));
                want = compose(want, scaling(1.0 / factor, factor));
                want = compose(want, rotation(axis));
                want = compose(want, translation(-4.0 * labels[7], -4.0 * labels[8]));
                found.iter().flatten().zip(want.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-4)
            };
            assert!(is(factor) || is(1.0 / factor), "{transform:?}");
            assert_eq!(transform.mirror_x, labels[0] == 1.0);
            assert_eq!(transform.mirror_y, labels[1] == 1.0);
        }
        // Horizontal mirroring has probability 0.5, vertical mirroring and a rotated axis of
        // stretching 0.15, the rest 0.3.
        for (count, expected) in
            counts.into_iter().zip([1000, 300, 600, 600, 600, 600, 300, 600, 600])
        {
            assert!(count.abs_diff(expected) < 100, "{counts:?}");
        }
    }

    #[test]
    fn mirroring_reverses_rows_and_columns() {
        let plain: Vec<f32> = (0..18).map(|i| i as f32).collect();
        let mut image = plain;
        mirror_y(&mut image, 3);
        assert_eq!(image[..9], [6.0, 7.0, 8.0, 3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
        mirror_x(&mut image, 3);
        assert_eq!(image[..9], [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]);
        assert_eq!(image[9..12], [17.0, 16.0, 15.0]);
    }

    proptest! {
        #[test]
        fn an_image_does_not_depend_on_others_of_the_batch(k in 0u64..1000) {
            let side = 8;
            let resampler = Resampler::new(side, &Device::flex());
            let inverse = |k| {
                let mut random = Random::new(2, Stream::Augmentation, k);
                Transform::draw(&mut random, false, 1.0, side).inverse.expect("always moved")
            };
            let x = images(2, 1, side);
            let both = values(resampler.apply(x.clone(), &[inverse(k), inverse(k + 1)]));
            let alone = values(resampler.apply(x.narrow(0, 0, 1), &[inverse(k)]));
            prop_assert_eq!(&both[..alone.len()], &alone[..]);
        }
    }
}
