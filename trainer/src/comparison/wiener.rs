//! The Wiener filter: the best linear denoiser for the mean and covariance of the training images. A
//! network that is not better has learned nothing about images beyond these.

use burn::linalg::svd;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::result::noisy;
use crate::config::TrainConfig;
use crate::data::dataset::Dataset;
use crate::data::error::DataError;
use crate::data::held_out::held_out;
use crate::validation::{Examples, Validation, levels};

/// Largest number of values of an image for which the filter is computed. Its time grows with the
/// third power.
const MAX_VALUES: usize = 1_024;

/// Number of images per matrix product.
const CHUNK: usize = 1_000;

/// The Wiener filter of a dataset: `D(x; σ) = μ + U diag(λ / (λ + σ²)) Uᵀ (x - μ)`, with the
/// eigenvectors `U` and eigenvalues `λ` of the covariance.
pub struct Wiener {
    /// Mean image, `[1, d]`.
    mean: Tensor<2>,
    /// Eigenvectors in columns, `[d, d]`.
    vectors: Tensor<2>,
    /// Eigenvalues, `[1, d]`.
    values: Tensor<2>,
}

impl Wiener {
    /// Computes the filter of the training images of a recipe, in `f64` on the CPU. `None` if images
    /// are too large, are latents, or have classes, which the filter does not know.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn fit(data: &Dataset, config: &TrainConfig) -> Result<Option<Self>, DataError> {
        let d: usize = data.shape.iter().product();
        if d > MAX_VALUES || data.latents_of().is_some() || config.model.classes() > 0 {
            return Ok(None);
        }
        let mut skipped = held_out(data.len(), config.held_out()).peekable();
        let images: Vec<usize> =
            (0..data.len()).filter(|&i| skipped.next_if_eq(&i).is_none()).collect();
        let mirrored = if config.flip { &[false, true][..] } else { &[false] };
        let mut count = 0.0;
        let mut sum = tensor(vec![0.0; d], [1, d]);
        let mut squares = tensor(vec![0.0; d * d], [d, d]);
        for &mirrored in mirrored {
            for chunk in images.chunks(CHUNK) {
                let mut values = Vec::with_capacity(chunk.len() * d);
                for &i in chunk {
                    values.extend(data.entry(i, mirrored)?.image.into_iter().map(f64::from));
                }
                let x = tensor(values, [chunk.len(), d]);
                count += chunk.len() as f64;
                sum = sum + x.clone().sum_dim(0);
                squares = squares + x.clone().transpose().matmul(x);
            }
        }
        let mean = sum / count;
        let covariance = squares / count - mean.clone().transpose().matmul(mean.clone());
        // For a symmetric matrix without negative eigenvalues, these are the singular values.
        let (vectors, values, _) = svd::<2, 1>(covariance, SWEEPS);
        Ok(Some(Self { mean, vectors, values: values.unsqueeze() }))
    }

    /// Returns the denoised images, `[B, d]`, of noisy ones, `[B, d]`.
    fn denoise(&self, noisy: Tensor<2>, sigma: f64) -> Tensor<2> {
        let gain = self.values.clone() / (self.values.clone() + sigma * sigma);
        let components = (noisy - self.mean.clone()).matmul(self.vectors.clone());
        (components * gain).matmul(self.vectors.clone().transpose()) + self.mean.clone()
    }

    /// Returns the weighted loss at `n` noise levels on the noisy images on which networks are
    /// evaluated.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn losses(
        &self,
        config: &TrainConfig,
        validation: &Validation,
        n: usize,
    ) -> Result<Vec<f64>, DataError> {
        let levels = levels(config, n).into_iter().enumerate();
        let loss = |(level, sigma): (usize, f64)| {
            let (mut sum, mut count) = (0.0, 0);
            for part in noisy(validation, level, sigma).chunks(CHUNK) {
                let Examples { images, noise, .. } = validation.examples(part)?;
                let shape = [part.len(), images.len() / part.len()];
                let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
                let clean = tensor(wide(images), shape);
                let noisy = clean.clone() + tensor(wide(noise), shape) * sigma;
                let error = self.denoise(noisy, sigma) - clean;
                sum += error.powf_scalar(2.0).sum().into_scalar::<f64>();
                count += shape[0] * shape[1];
            }
            Ok(config.loss.weight(sigma) * sum / count as f64)
        };
        levels.map(loss).collect()
    }
}

/// Number of iterations per singular value, more than any matrix has needed.
const SWEEPS: usize = 100;

/// Returns a tensor of `f64` on the CPU.
fn tensor(values: Vec<f64>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
}
