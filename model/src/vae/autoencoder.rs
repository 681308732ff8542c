//! The autoencoder as others use it.

use burn::tensor::{Device, Tensor};

use crate::config::ConfigError;
use crate::network::macs::Macs;
use crate::network::params::Source;
use crate::vae::config::VaeConfig;
use crate::vae::names::Names;
use crate::vae::network::Autoencoder;

/// An autoencoder: pictures to latents and back.
///
/// Latents are those that diffusion works on everywhere in this interface: the autoencoder's own
/// times [`VaeConfig::scale`].
#[derive(Clone, Debug)]
pub struct Vae {
    /// What it is made of.
    pub config: VaeConfig,
    pub(super) network: Autoencoder,
}

/// What the encoder makes of pictures: for every value of the latent a normal distribution.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its mean, `[B, latent channels, H / factor, W / factor]`.
    pub mean: Tensor<4>,
    /// Its standard deviation, of the same shape.
    pub std: Tensor<4>,
}

impl Encoded {
    /// The latent that unit `noise` of its shape picks out: `mean + std · noise`.
    pub fn sample(self, noise: Tensor<4>) -> Tensor<4> {
        self.mean + self.std * noise
    }
}

impl Vae {
    /// An autoencoder with initial weights, a pure function of `seed`.
    ///
    /// # Errors
    ///
    /// If the configuration does not fit together.
    pub fn new(config: VaeConfig, seed: u64, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let network = Autoencoder::new(&config, Names::New, device, &Source::Random { seed });
        Ok(Self { config, network })
    }

    /// The latents of pictures.
    ///
    /// # Shapes
    ///
    /// - images: `[B, C, H, W]`, values of -1 to 1
    ///
    /// # Panics
    ///
    /// If height or width is not a multiple of [`VaeConfig::factor`].
    pub fn encode(&self, images: Tensor<4>) -> Encoded {
        let [_, _, h, w] = images.dims();
        let factor = self.config.factor();
        assert!(
            h.is_multiple_of(factor) && w.is_multiple_of(factor),
            "pictures of {w}x{h} pixels have no latents: {factor} does not divide the sides"
        );
        let channels = self.config.latent_channels;
        let moments = self.network.encode(images);
        let mean = moments.clone().narrow(1, 0, channels);
        // The bounds keep the exponential finite, as they did in training.
        let log_variance = moments.narrow(1, channels, channels).clamp(-30.0, 20.0);
        Encoded {
            mean: mean * self.config.scale,
            std: (log_variance * 0.5).exp() * self.config.scale,
        }
    }

    /// The pictures of latents, all at once. [`Vae::decode_tiled`] needs less memory.
    ///
    /// # Shapes
    ///
    /// - latents: `[B, latent channels, h, w]`
    /// - output: `[B, C, factor h, factor w]`, values around -1 to 1
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let x = self.start_decoding(latents);
        self.network.finish_decoding().iter().fold(x, |x, step| step(x))
    }

    pub(super) fn start_decoding(&self, latents: Tensor<4>) -> Tensor<4> {
        self.network.start_decoding(latents / self.config.scale)
    }

    /// Multiply-adds of encoding and of decoding one picture whose latent has `side` values a side.
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

    /// The published number of parameters of the real thing.
    #[test]
    fn the_real_thing_has_its_size() {
        let config = VaeConfig::default();
        let specs = crate::vae::network::specs(&config, Names::New);
        assert_eq!(specs.iter().map(crate::TensorSpec::len).sum::<usize>(), 83_653_863);
        assert_eq!((specs.len(), config.factor()), (248, 8));
    }

    #[test]
    fn noise_picks_from_what_the_encoder_says() {
        let device = Device::flex();
        let vae = Vae::new(VaeConfig::tiny(), 0, &device).expect("small");
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
