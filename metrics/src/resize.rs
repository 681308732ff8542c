//! Bilinear resizing.
//!
//! Inception's input is resized as TensorFlow 1 did it (`tf.image.resize_bilinear` with
//! `align_corners=False`): pixel `i` of the output is at `i · scale` of the input, without the shift
//! by half a pixel of later versions, and there is no antialiasing. Other resizing changes FID by
//! whole units.

use model::picture::Rgb;

/// Where the pixels of the output lie in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// The first pixels of both lie on each other: `i · scale`, as in TensorFlow 1.
    Corners,
    /// The centres of both images lie on each other: `(i + 1/2) · scale - 1/2`, as in PyTorch.
    Centres,
}

/// Where a row or column of the output lies in the input.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Position {
    /// Index of the pixel before it.
    low: usize,
    /// Index of the pixel after it.
    high: usize,
    /// Weight of the pixel after it.
    weight: f32,
}

/// Returns the positions of all rows or columns for an input of `size` of them.
fn positions(size: usize, side: usize, grid: Grid) -> Vec<Position> {
    let scale = size as f32 / side as f32;
    (0..side)
        .map(|i| {
            let at = match grid {
                Grid::Corners => i as f32 * scale,
                Grid::Centres => ((i as f32 + 0.5) * scale - 0.5).max(0.0),
            };
            let low = (at.floor() as usize).min(size - 1);
            Position { low, high: (low + 1).min(size - 1), weight: at - low as f32 }
        })
        .collect()
}

/// Resizes a picture to `side` pixels a side, with values from 0 to 255, `[3, side, side]`.
///
/// # Panics
///
/// If the picture has no pixels, or another number of bytes than its size asks for.
pub fn resize(picture: &Rgb, side: usize, grid: Grid) -> Vec<f32> {
    let (width, height) = (picture.width, picture.height);
    assert!(
        width > 0 && height > 0 && picture.bytes.len() == width * height * 3,
        "a whole picture"
    );
    let (rows, columns) = (positions(height, side, grid), positions(width, side, grid));
    let mut values = Vec::with_capacity(3 * side * side);
    for channel in 0..3 {
        let pixel = |y: usize, x: usize| f32::from(picture.bytes[(y * width + x) * 3 + channel]);
        for row in &rows {
            for column in &columns {
                let across = |y: usize| {
                    let left = pixel(y, column.low);
                    left + (pixel(y, column.high) - left) * column.weight
                };
                let (top, bottom) = (across(row.low), across(row.high));
                values.push(top + (bottom - top) * row.weight);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::inception::SIDE;
    use crate::testing::{assert_close, images};

    /// Values of an implementation in PyTorch.
    #[test]
    fn values_are_those_of_tensorflow_1() {
        let pictures = images();
        assert_eq!(
            pictures[0].bytes.iter().step_by(3).take(5).collect::<Vec<_>>(),
            [&153, &19, &180, &251, &75]
        );
        let resized = resize(&pictures[0], SIDE, Grid::Corners);
        let want = [153.0, 138.658_863, 124.317_726, 109.976_589];
        let found: Vec<f64> = resized[..4].iter().copied().map(f64::from).collect();
        assert_close("the first row", &found, &want, 1e-6);
        let found = f64::from(resized[150 * SIDE + 151]);
        assert_close("in the middle", &[found], &[216.911_646], 1e-6);
        let sum: f64 = pictures
            .iter()
            .flat_map(|picture| resize(picture, SIDE, Grid::Corners))
            .map(f64::from)
            .sum();
        assert_close("sum", &[sum], &[68_083_295.45], 1e-7);
    }

    #[test]
    fn a_picture_of_the_right_size_is_unchanged() {
        let bytes: Vec<u8> = (0..12).collect();
        let picture = Rgb { width: 2, height: 2, bytes };
        let pixel = Rgb { width: 1, height: 1, bytes: vec![7, 8, 9] };
        for grid in [Grid::Corners, Grid::Centres] {
            let same = resize(&picture, 2, grid);
            assert_eq!(same, [0., 3., 6., 9., 1., 4., 7., 10., 2., 5., 8., 11.]);
            let large = resize(&pixel, 2, grid);
            assert_eq!(large, [7., 7., 7., 7., 8., 8., 8., 8., 9., 9., 9., 9.]);
        }
    }

    #[test]
    fn centres_lie_on_each_other() {
        let picture = Rgb { width: 2, height: 1, bytes: vec![0, 0, 0, 8, 8, 8] };
        let row = &resize(&picture, 4, Grid::Centres)[..4];
        assert_eq!(row, [0., 2., 6., 8.]);
        let row = &resize(&picture, 4, Grid::Corners)[..4];
        assert_eq!(row, [0., 4., 8., 8.]);
    }
}
