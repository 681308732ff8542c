//! Validation loss of the moving average of the weights.
//!
//! Validation image `i` always has the same noise and the same of a few noise levels, which are
//! quantiles of the training distribution. So the loss depends on the weights only, not on the
//! seed.

use std::sync::Arc;

use anyhow::ensure;
use burn::tensor::{Device, Tensor, TensorData};
use model::label::Label;
use model::noise::{Random, Stream};
use model::{Conditioning, Model};

use crate::config::TrainConfig;
use crate::data::dataset::{Dataset, Entry, Opening};
use crate::data::error::DataError;
use crate::data::held_out::held_out;
use crate::run::report::warn;

/// Number of noise levels: the medians of this many equal parts of the training distribution.
const LEVELS: usize = 8;

/// The validation images.
pub struct Validation {
    data: Arc<Dataset>,
    images: Vec<usize>,
}

impl Validation {
    /// Opens the validation images of a recipe, if it has any. They are held out of the training
    /// data `data`, or taken from the recipe's validation dataset, which has the memory that the
    /// training data leave.
    ///
    /// # Errors
    ///
    /// If there are too few images, or the validation dataset does not match the training data.
    pub fn open(
        config: &TrainConfig,
        data: &Arc<Dataset>,
        opening: Opening,
    ) -> anyhow::Result<Option<Self>> {
        let Some(validation) = &config.validation else { return Ok(None) };
        let n = validation.images;
        let data = match &validation.data {
            None => {
                ensure!(
                    n < data.len(),
                    "--validate {n}: the training data has {} images, and some must remain for training",
                    data.len()
                );
                data.clone()
            }
            Some(path) => {
                let memory = opening.memory.saturating_sub(data.memory());
                let opening = Opening { memory, ..opening };
                let others = Dataset::open_with(path, &config.model, config.resize, opening)?;
                if let Some(left_out) = &others.left_out {
                    warn(left_out);
                }
                let path = path.display();
                ensure!(n <= others.len(), "--validate {n}: {path} has {} images", others.len());
                ensure!(
                    others.class_names.names == data.class_names.names,
                    "--validation-data {path}: its classes differ from those of the training data"
                );
                let encoder =
                    |data: &Dataset| data.latents_of().map(|origin| origin.vae_sha256.clone());
                ensure!(
                    encoder(&others) == encoder(data),
                    "--validation-data {path}: training and validation data must both be images, or \
                     latents of the same autoencoder"
                );
                Arc::new(others)
            }
        };
        let images = held_out(data.len(), n).collect();
        Ok(Some(Self { data, images }))
    }

    /// Returns the validation loss of a model on `device`.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn loss(
        &self,
        model: &Model,
        config: &TrainConfig,
        device: &Device,
    ) -> Result<ValidationLoss, DataError> {
        let sigma = levels(config, LEVELS);
        let examples: Vec<Noisy> = (0..self.images.len())
            .map(|i| Noisy { image: i, sigma: sigma[i % LEVELS], noise: i as u64 })
            .collect();
        let losses = self.losses(model, config, device, &examples)?;
        let mean = |losses: Vec<f64>| losses.iter().sum::<f64>() / losses.len() as f64;
        let level = |(i, sigma)| {
            let losses: Vec<f64> = losses.iter().skip(i).step_by(LEVELS).copied().collect();
            (!losses.is_empty()).then(|| (sigma, mean(losses)))
        };
        let levels = sigma.into_iter().enumerate().filter_map(level).collect();
        Ok(ValidationLoss { levels, mean: mean(losses) })
    }

    /// Returns the number of validation images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Returns the loss of a model on `device` for each noisy image, averaged over values.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn losses(
        &self,
        model: &Model,
        config: &TrainConfig,
        device: &Device,
        examples: &[Noisy],
    ) -> Result<Vec<f64>, DataError> {
        let size = config.micro_batch.unwrap_or(config.batch);
        let mut all = Vec::with_capacity(examples.len());
        for part in examples.chunks(size) {
            let Examples { images, noise, labels, sigma } = self.examples(part)?;
            let b = part.len();
            let [c, h, w] = self.data.shape;
            let tensor =
                |values| Tensor::<4>::from_data(TensorData::new(values, [b, c, h, w]), device);
            let (images, noise) = (tensor(images), tensor(noise));
            let scale = TensorData::new(sigma.clone(), [b, 1, 1, 1]);
            let noisy = images.clone() + noise.clone() * Tensor::from_data(scale, device);
            let conditioning = Conditioning { labels, ..Conditioning::default() };
            let output = model.denoise(noisy, &sigma, conditioning);
            let losses = config.loss.of(images, noise, &sigma, output);
            let losses = losses.into_data().try_into_vec::<f32>().expect("losses are f32");
            all.extend(losses.into_iter().map(|loss| f64::from(loss) / (c * h * w) as f64));
        }
        Ok(all)
    }

    /// Returns validation images with their noise, on the host.
    ///
    /// # Errors
    ///
    /// If an image cannot be read.
    pub fn examples(&self, examples: &[Noisy]) -> Result<Examples, DataError> {
        let mut all = Examples::default();
        for &Noisy { image, sigma, noise } in examples {
            let Entry { image, std, class } = self.data.entry(self.images[image], false)?;
            let mut random = Random::new(0, Stream::Validation, noise);
            let of_noise = all.images.len()..all.images.len() + image.len();
            all.noise.resize(of_noise.end, 0.0);
            random.fill_normal(&mut all.noise[of_noise.clone()]);
            all.images.extend(image);
            for (value, std) in all.images[of_noise].iter_mut().zip(std.into_iter().flatten()) {
                *value += std * random.normal() as f32;
            }
            all.labels.push(Label::from(class));
            all.sigma.push(sigma);
        }
        Ok(all)
    }
}

/// A validation loss.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidationLoss {
    /// Loss, averaged over values and images.
    pub mean: f64,
    /// Noise levels with the loss at each, lowest first.
    pub levels: Vec<(f64, f64)>,
}

/// A validation image with noise.
#[derive(Clone, Copy, Debug)]
pub struct Noisy {
    /// Number of the image among the validation images.
    pub image: usize,
    /// Noise level.
    pub sigma: f64,
    /// Index of its random numbers.
    pub noise: u64,
}

/// Validation images with their noise, on the host.
#[derive(Default)]
pub struct Examples {
    /// Images or sampled latents, `[B, C, H, W]`.
    pub images: Vec<f32>,
    /// Standard normal noise, `[B, C, H, W]`.
    pub noise: Vec<f32>,
    /// Classes, `[B]`.
    pub labels: Vec<Label>,
    /// Noise levels, `[B]`.
    pub sigma: Vec<f64>,
}

/// Returns the medians of `n` equal parts of the noise levels of training, lowest first.
pub fn levels(config: &TrainConfig, n: usize) -> Vec<f64> {
    (0..n).map(|level| config.loss.quantile((level as f64 + 0.5) / n as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ValidationConfig;
    use model::config::NetworkConfig;
    use std::path::Path;

    /// A small network with dropout, in batches of 8.
    fn config(images: usize) -> TrainConfig {
        let mut config = TrainConfig::preset("tiny").expect("a preset");
        let NetworkConfig::Image(image) = &mut config.model.network else { unreachable!() };
        image.channels = vec![32];
        image.blocks = vec![1];
        image.time.width = 32;
        image.dropout = 0.5;
        let validation = Some(ValidationConfig { images, data: None });
        TrainConfig { batch: 8, validation, ..config }
    }

    fn open(config: &TrainConfig) -> anyhow::Result<Option<Validation>> {
        let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
        Validation::open(config, &Arc::new(data), Opening::default())
    }

    fn loss(config: &TrainConfig) -> f64 {
        let device = Device::flex();
        let model = Model::new(config.model.clone(), 1, &device).expect("valid");
        let validation = open(config).expect("enough images").expect("the recipe has some");
        let loss = validation.loss(&model, config, &device).expect("read");
        // Each image has one of the levels.
        let numbers = (0..config.held_out()).map(|i| i % LEVELS);
        let counts: Vec<usize> =
            (0..LEVELS).map(|level| numbers.clone().filter(|i| *i == level).count()).collect();
        let sum = loss.levels.iter().zip(counts).map(|((_, loss), n)| loss * n as f64);
        assert!((sum.sum::<f64>() / config.held_out() as f64 / loss.mean - 1.0).abs() < 1e-12);
        loss.mean
    }

    #[test]
    fn the_loss_does_not_depend_on_the_batch_size() {
        let config = config(20);
        let whole = loss(&config);
        assert!(whole > 0.1 && whole < 10.0, "{whole}");
        for (batch, micro_batch) in [(64, None), (8, Some(1)), (8, Some(2))] {
            let found = loss(&TrainConfig { batch, micro_batch, ..config.clone() });
            assert!((found / whole - 1.0).abs() < 1e-6, "{found}, not {whole}");
        }
        // It depends on no random number of the recipe.
        let other = TrainConfig { seed: 9, flip: false, augment: 0.5, ..config.clone() };
        assert_eq!(loss(&other), whole);
    }

    /// Compared with the loss computed here, image by image, from the denoised images.
    #[test]
    fn noise_levels_have_equal_weight() {
        let config = config(16);
        let device = Device::flex();
        let model = Model::new(config.model.clone(), 1, &device).expect("valid");
        let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
        let mut sum = 0.0;
        for (i, place) in held_out(1911, 16).enumerate() {
            // The medians of the eighths of a normal distribution: EDM's noise is log-normal.
            let middles = [-1.534_121, -0.887_147, -0.488_776, -0.157_311];
            let middle = if i % 8 < 4 { middles[i % 8] } else { -middles[7 - i % 8] };
            let sigma: f64 = (1.2 * middle - 1.2f64).exp();
            let image = data.entry(place, false).expect("read").image;
            let mut noise = vec![0.0; image.len()];
            Random::new(0, Stream::Validation, i as u64).fill_normal(&mut noise);
            let noisy: Vec<f32> =
                image.iter().zip(&noise).map(|(y, n)| y + sigma as f32 * n).collect();
            let noisy = Tensor::<4>::from_data(TensorData::new(noisy, [1, 3, 32, 32]), &device);
            let made = model.denoise(noisy, &[sigma], Conditioning::default()).denoised;
            let made: Vec<f32> = made.into_data().try_into_vec().expect("f32");
            let squares = made.iter().zip(&image).map(|(d, y)| f64::from(d - y).powi(2));
            let weight = (sigma.powi(2) + 0.25) / (0.5 * sigma).powi(2);
            sum += weight * squares.sum::<f64>() / 3072.0;
        }
        let (found, want) = (loss(&config), sum / 16.0);
        assert!((found / want - 1.0).abs() < 1e-4, "{found}, not {want}");
    }

    #[test]
    fn invalid_validation_images_are_errors() {
        assert!(open(&TrainConfig { validation: None, ..config(1) }).expect("valid").is_none());
        let error = open(&config(1911)).err().expect("nothing is left").to_string();
        assert!(error.contains("some must remain for training"), "{error}");
        let others = |images| {
            let data = Some(Path::new("emoji").into());
            open(&TrainConfig { validation: Some(ValidationConfig { images, data }), ..config(1) })
        };
        assert_eq!(others(1911).expect("as many").expect("asked for").images.len(), 1911);
        let error = others(1912).err().expect("one too many").to_string();
        assert!(error.contains("has 1911 images"), "{error}");
    }

    /// Every objective has quantiles within its noise levels.
    #[test]
    fn every_objective_has_a_validation_loss() {
        for name in ["vp", "ve", "adm"] {
            let config = config(9);
            let precond = serde_json::from_value(serde_json::json!({ "kind": name }));
            let loss_config = serde_json::from_value(serde_json::json!({ "kind": name }));
            let mut config = TrainConfig { loss: loss_config.expect("known"), ..config };
            config.model.precond = precond.expect("known");
            let found = loss(&config);
            assert!(found > 0.0 && found < 100.0, "{name}: {found}");
        }
    }
}
