//! Training examples on a device, and their losses.

use burn::tensor::{Tensor, TensorData};

use crate::diffusion::noise::{Random, Stream};
use crate::loss::LossConfig;
use crate::model::Model;
use crate::network::io::{Conditioning, NetworkOptions, TrainingOptions};
use crate::training::recompute::Recompute;

/// Training examples: pictures, and the noise that is added to them.
pub struct Examples {
    /// Pictures with values from -1 to 1, or latents, `[B, C, H, W]`.
    pub images: Tensor<4>,
    /// Standard normal noise, `[B, C, H, W]`.
    pub noise: Tensor<4>,
    /// Noise levels, `[B]`.
    pub sigma: Vec<f64>,
    /// Labels and augmentation labels.
    pub conditioning: Conditioning,
    /// Seeds of dropout, `[B]`.
    pub dropout: Vec<u32>,
}

impl Examples {
    /// Computes the loss of each example with a model on a device with autodiff, summed over its
    /// values, `[B]`. With `recompute`, its gradient comes from [`Recompute::backward`].
    pub fn losses(
        self,
        model: &Model,
        loss: &LossConfig,
        recompute: Option<Recompute>,
    ) -> Tensor<1> {
        let Self { images, noise, sigma, conditioning, dropout } = self;
        let levels = TensorData::new(sigma.clone(), [sigma.len(), 1, 1, 1]);
        let noisy = images.clone() + noise.clone() * Tensor::from_data(levels, &images.device());
        let options = NetworkOptions {
            conditioning,
            training: TrainingOptions { dropout: Some(dropout), recompute },
            ..NetworkOptions::default()
        };
        let output = model.denoise(noisy, &sigma, options);
        loss.of(images, noise, &sigma, output)
    }
}

/// Draws the noise level of training image `k` of a run with this seed, and its noise of `values`
/// numbers.
pub fn draw_noise(loss: &LossConfig, seed: u64, k: u64, values: usize) -> (f64, Vec<f32>) {
    let mut random = Random::new(seed, Stream::Training, k);
    let sigma = loss.sigma(&mut random);
    let mut noise = vec![0.0; values];
    random.fill_normal(&mut noise);
    (sigma, noise)
}

/// Order of the training data: an independent permutation in each epoch.
pub struct Order {
    seed: u64,
    /// Indices of the training images.
    images: Vec<usize>,
    epoch: u64,
    /// Permutation of `images` in this epoch.
    permutation: Vec<u32>,
}

impl Order {
    /// Makes the order of the training images with these indices.
    pub fn new(seed: u64, images: Vec<usize>) -> Self {
        Self { seed, images, epoch: u64::MAX, permutation: Vec::new() }
    }

    /// Returns the index of training image `k` of a run.
    ///
    /// # Panics
    ///
    /// If there are no images.
    pub fn index(&mut self, k: u64) -> usize {
        let len = self.images.len();
        let (epoch, position) = (k / len as u64, k % len as u64);
        if epoch != self.epoch {
            self.permutation = Random::new(self.seed, Stream::Order, epoch).permutation(len);
            self.epoch = epoch;
        }
        self.images[self.permutation[position as usize] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_another_permutation() {
        let mut order = Order::new(3, (0..100).collect());
        let pass = |order: &mut Order, pass: u64| -> Vec<usize> {
            (pass * 100..(pass + 1) * 100).map(|k| order.index(k)).collect()
        };
        let (first, second) = (pass(&mut order, 0), pass(&mut order, 1));
        assert_ne!(first, second);
        assert_eq!(pass(&mut order, 0), first);
        for mut pass in [first, second] {
            pass.sort_unstable();
            assert_eq!(pass, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_image_has_noise_of_its_own() {
        let loss = LossConfig::default();
        let drawn: Vec<_> = (0..3).map(|k| draw_noise(&loss, 5, k, 48)).collect();
        assert_eq!(drawn[1], draw_noise(&loss, 5, 1, 48));
        for (i, (sigma, noise)) in drawn.iter().enumerate() {
            assert!(*sigma > 0.0 && noise.len() == 48);
            assert!(drawn[..i].iter().all(|other| other.0 != *sigma && other.1 != *noise));
        }
    }
}
