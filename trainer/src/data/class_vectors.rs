//! Initial class embeddings from the training data: principal components of mean images.
//!
//! Random embeddings must be learned class by class. With many classes of few images, training is
//! faster from embeddings in which similar classes are close.

use burn::tensor::{Device, Tensor, TensorData};
use model::noise::{Random, Stream};

use super::dataset::Dataset;
use super::error::DataError;

/// Number of orthogonal iterations.
const ITERATIONS: usize = 30;
/// Components with a standard deviation below this fraction of the largest are rounding errors.
const MIN_DEVIATION: f64 = 1e-4;

/// Computes `time.class.weight`, `[channels, classes]`, in PyTorch's layout: component `i` of the
/// mean image of each class, divided by the square root of its standard deviation, which reduces
/// the dominance of the first components. The mean square is that of Xavier initialisation. A class
/// without images has the zero vector.
///
/// # Errors
///
/// If an image cannot be read.
pub fn components(
    data: &Dataset,
    classes: usize,
    channels: usize,
    seed: u64,
) -> Result<Vec<f32>, DataError> {
    let x = means(data, classes)?;
    let codes = project(&x, classes, channels, seed);
    let mut weight = vec![0.0f64; channels * classes];
    for (row, code) in weight.chunks_exact_mut(classes).zip(&codes) {
        let deviation = root_mean_square(code);
        if deviation > MIN_DEVIATION * root_mean_square(&codes[0]) {
            for (value, code) in row.iter_mut().zip(code) {
                *value = code / deviation.sqrt();
            }
        }
    }
    let xavier = (2.0 / (classes + channels) as f64).sqrt();
    let scale = xavier / root_mean_square(&weight).max(f64::MIN_POSITIVE);
    Ok(weight.into_iter().map(|value| (value * scale) as f32).collect())
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|value| value * value).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// Computes the mean image of each class minus the mean over classes, `[classes, values]`; zeros
/// for classes without images.
fn means(data: &Dataset, classes: usize) -> Result<Vec<f32>, DataError> {
    let size: usize = data.shape.iter().product();
    let (mut sums, mut counts) = (vec![0.0f32; classes * size], vec![0u32; classes]);
    for index in 0..data.len() {
        let entry = data.entry(index, false)?;
        let Some(class) = entry.class else { continue };
        counts[class] += 1;
        for (sum, value) in sums[class * size..][..size].iter_mut().zip(entry.image) {
            *sum += value;
        }
    }
    let mut centre = vec![0.0f32; size];
    let known = counts.iter().filter(|count| **count > 0).count().max(1);
    for (sums, &count) in sums.chunks_exact_mut(size).zip(&counts).filter(|(_, n)| **n > 0) {
        for (sum, centre) in sums.iter_mut().zip(&mut centre) {
            *sum /= count as f32;
            *centre += *sum / known as f32;
        }
    }
    for (sums, _) in sums.chunks_exact_mut(size).zip(&counts).filter(|(_, n)| **n > 0) {
        for (sum, centre) in sums.iter_mut().zip(&centre) {
            *sum -= centre;
        }
    }
    Ok(sums)
}

/// Projects the rows of `x`, `[rows, values]`, on its first `k` principal axes, found by orthogonal
/// iteration. Returns `rows` values for each axis.
fn project(x: &[f32], rows: usize, k: usize, seed: u64) -> Vec<Vec<f64>> {
    let device = Device::flex();
    let size = x.len() / rows;
    let x = Tensor::<2>::from_data(TensorData::new(x.to_vec(), [rows, size]), &device);
    let mut axes = vec![vec![0.0f64; size]; k];
    let mut random = Random::new(seed, Stream::Parameters, u64::MAX);
    for value in axes.iter_mut().flatten() {
        *value = random.normal();
    }
    let values = |tensor: Tensor<2>| {
        tensor.into_data().try_into_vec::<f32>().expect("products of f32 are f32")
    };
    // [rows, size] · [size, k]
    let codes = |axes: &[Vec<f64>]| {
        let flat: Vec<f32> = axes.iter().flatten().map(|value| *value as f32).collect();
        let axes = Tensor::<2>::from_data(TensorData::new(flat, [k, size]), &device);
        x.clone().matmul(axes.transpose())
    };
    for _ in 0..ITERATIONS {
        orthonormalise(&mut axes);
        // [k, rows] · [rows, size]
        let product = values(codes(&axes).transpose().matmul(x.clone()));
        for (axis, product) in axes.iter_mut().zip(product.chunks_exact(size)) {
            *axis = product.iter().map(|value| f64::from(*value)).collect();
        }
    }
    orthonormalise(&mut axes);
    let codes = values(codes(&axes).transpose());
    codes.chunks_exact(rows).map(|code| code.iter().map(|v| f64::from(*v)).collect()).collect()
}

/// Orthonormalises vectors with the Gram-Schmidt process, twice for precision. Linearly dependent
/// vectors become zero.
fn orthonormalise(axes: &mut [Vec<f64>]) {
    for i in 0..axes.len() {
        let (before, rest) = axes.split_at_mut(i);
        let axis = &mut rest[0];
        let length = |axis: &[f64]| axis.iter().map(|x| x * x).sum::<f64>().sqrt();
        let whole = length(axis);
        for _ in 0..2 {
            for other in &*before {
                let along: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
                for (a, b) in axis.iter_mut().zip(other) {
                    *a -= along * b;
                }
            }
        }
        let left = length(axis);
        let scale = if left > 1e-9 * whole { 1.0 / left } else { 0.0 };
        axis.iter_mut().for_each(|value| *value *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;

    #[test]
    fn principal_axes_are_found() {
        // Rows along (3, 4) / 5 and, with a tenth of the length, (-4, 3) / 5; the third axis is
        // empty.
        let rows: Vec<[f64; 3]> = (0..50)
            .map(|i| {
                let (a, b) = ((f64::from(i) * 0.7).sin(), 0.1 * (f64::from(i) * 1.9).cos());
                [(3.0 * a - 4.0 * b) / 5.0, (4.0 * a + 3.0 * b) / 5.0, 0.0]
            })
            .collect();
        let x: Vec<f32> = rows.iter().flatten().map(|value| *value as f32).collect();
        let codes = project(&x, 50, 3, 1);
        let length = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
        let whole: f64 = rows.iter().flatten().map(|v| v * v).sum();
        let found: f64 = codes.iter().flatten().map(|v| v * v).sum();
        assert!((found / whole - 1.0).abs() < 1e-4, "{found} of {whole}");
        assert!(length(&codes[0]) > 5.0 * length(&codes[1]) && length(&codes[1]) > 0.1);
        assert!(length(&codes[2]) < 1e-3);
        for (i, row) in rows.iter().enumerate() {
            let along = (3.0 * row[0] + 4.0 * row[1]) / 5.0;
            assert!((codes[0][i].abs() - along.abs()).abs() < 0.02, "{} {along}", codes[0][i]);
        }
    }

    #[test]
    fn similar_classes_have_similar_embeddings() {
        let config = TrainConfig::preset("tiny-emoji").expect("a preset");
        let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
        let (classes, channels) = (1911, 16);
        let weight = components(&data, classes, channels, 0).expect("read");
        assert!(weight.iter().all(|value| value.is_finite()));
        let mean: f64 = weight.iter().map(|v| f64::from(v * v)).sum::<f64>() / weight.len() as f64;
        assert!((mean / (2.0 / (classes + channels) as f64) - 1.0).abs() < 1e-4);
        let names = &data.class_names.names;
        let vector = |name: &str| -> Vec<f32> {
            let class = names.iter().position(|known| known == name).expect("an emoji");
            weight.chunks_exact(classes).map(|row| row[class]).collect()
        };
        let distance = |a: &str, b: &str| -> f32 {
            vector(a).iter().zip(vector(b)).map(|(a, b)| (a - b).powi(2)).sum()
        };
        assert!(distance("apple", "green apple") < distance("apple", "Japan Flag"));
        assert!(distance("grinning", "smiley") < 0.5 * distance("grinning", "rocket"));
        // Deterministic.
        assert_eq!(weight, components(&data, classes, channels, 0).expect("read"));
    }

    #[test]
    fn classes_without_images_have_zero_embeddings() {
        let mut config = TrainConfig::preset("tiny-emoji").expect("a preset");
        config.model = config.model.with_classes(2000);
        let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
        // A class without images.
        let weight = components(&data, 2000, 4, 0).expect("read");
        assert!(weight.chunks_exact(2000).all(|row| row[1999] == 0.0 && row[0] != 0.0));
    }
}
