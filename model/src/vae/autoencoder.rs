//! The autoencoder's interface: encoding pictures and decoding latents.

use burn::tensor::{Device, Tensor};

use crate::config::ConfigError;
use crate::network::macs::Macs;
use crate::network::params::Source;
use crate::vae::config::VaeConfig;
use crate::vae::names::Names;
use crate::vae::network::Autoencoder;

/// An autoencoder between pictures and latents.
///
/// Latents in this interface are those that diffusion works on: the network's latents times
/// [`VaeConfig::scale`].
#[derive(Clone, Debug)]
pub struct Vae {
    /// The configuration of the network.
    pub config: VaeConfig,
    pub(super) network: Autoencoder,
}

/// The output of the encoder: a normal distribution for each value of the latents.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Means, `[B, latent channels, H / factor, W / factor]`.
    pub mean: Tensor<4>,
    /// Standard deviations, of the same shape.
    pub std: Tensor<4>,
}

impl Encoded {
    /// Computes a sample `mean + std · noise`, given unit normal noise of the same shape.
    pub fn sample(self, noise: Tensor<4>) -> Tensor<4> {
        self.mean + self.std * noise
    }
}

impl Vae {
    /// An autoencoder with initial weights, a pure function of `seed`.
    ///
    /// # Errors
    ///
    /// If the configuration is not valid.
    pub fn new(config: VaeConfig, seed: u64, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let network = Autoencoder::new(&config, Names::New, device, &Source::Random { seed });
        Ok(Self { config, network })
    }

    /// Encodes pictures as latents.
    ///
    /// # Shapes
    ///
    /// - images: `[B, C, H, W]`, values from -1 to 1
    ///
    /// # Panics
    ///
    /// If height or width is not a multiple of [`VaeConfig::factor`].
    pub fn encode(&self, images: Tensor<4>) -> Encoded {
        let [_, _, h, w] = images.dims();
        let factor = self.config.factor();
        assert!(
            h.is_multiple_of(factor) && w.is_multiple_of(factor),
            "height and width of pictures must be multiples of {factor}, but are {h} and {w}"
        );
        let channels = self.config.latent_channels;
        let moments = self.network.encode(images);
        let mean = moments.clone().narrow(1, 0, channels);
        // The same bounds as in the autoencoder's training; they keep the exponential finite.
        let log_variance = moments.narrow(1, channels, channels).clamp(-30.0, 20.0);
        Encoded {
            mean: mean * self.config.scale,
            std: (log_variance * 0.5).exp() * self.config.scale,
        }
    }

    /// Decodes latents as pictures, without tiles. [`Vae::decode_tiled`] needs less memory.
    ///
    /// # Shapes
    ///
    /// - latents: `[B, latent channels, h, w]`
    /// - output: `[B, C, factor h, factor w]`, values around -1 to 1
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let x = self.start_decoding(latents);
        self.network.finish_decoding().iter().fold(x, |x, step| step(x))
    }

    /// Computes the first part of decoding, at the resolution of the latents.
    pub(super) fn start_decoding(&self, latents: Tensor<4>) -> Tensor<4> {
        self.network.start_decoding(latents / self.config.scale)
    }

    /// Multiply-adds of encoding and of decoding one picture whose latent is `side x side`.
    pub fn macs(&self, side: usize) -> [Macs; 2] {
        self.network.macs((side * self.config.factor()).pow(2), side.pow(2))
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.network.specs().iter().map(crate::TensorSpec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stable Diffusion's autoencoder has the published number of parameters.
    #[test]
    fn default_configuration_has_the_published_size() {
        let config = VaeConfig::default();
        let specs = crate::vae::network::specs(&config, Names::New);
        assert_eq!(config.parameters(), 83_653_863);
        assert_eq!((specs.len(), config.factor()), (248, 8));
    }

    #[test]
    fn sample_is_mean_plus_scaled_noise() {
        let device = Device::flex();
        let vae = Vae::new(VaeConfig::tiny(), 0, &device).expect("a valid configuration");
        let images = Tensor::<4>::zeros([2, 3, 8, 16], &device);
        let encoded = vae.encode(images);
        assert_eq!((encoded.mean.dims(), encoded.std.dims()), ([2, 4, 2, 4], [2, 4, 2, 4]));
        let (mean, std) = (encoded.mean.clone(), encoded.std.clone());
        let drawn = encoded.sample(mean.ones_like() * 2.0);
        let off = (drawn - mean - std * 2.0).abs().max().into_scalar::<f32>();
        assert!(off < 1e-6);
        assert_eq!(vae.decode(Tensor::zeros([1, 4, 2, 3], &device)).dims(), [1, 3, 8, 12]);
    }
}
