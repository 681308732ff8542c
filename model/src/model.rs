//! A model: the network, its configuration, and the denoiser that both make.

use burn::tensor::{Device, ExecutionError, Tensor, TensorData};

use crate::config::{ConfigError, ModelConfig};
use crate::network::{AttentionMaps, Network, NetworkInput};
use crate::noise::start_noise;
use crate::params::{Source, TensorSpec, collect};
use crate::weights::{Answer, Weights};

/// A denoiser that can be sampled from.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is made of.
    pub config: ModelConfig,
    /// The network F.
    pub network: Network,
}

/// What [`Model::denoise`] returns.
#[derive(Clone, Debug)]
pub struct Denoised {
    /// D(x; σ), `[B, C, H, W]`.
    pub denoised: Tensor<4>,
    /// The network's own output F, `[B, C, H, W]`.
    pub raw: Tensor<4>,
    /// Attention maps of the block that was asked for.
    pub attention: Option<AttentionMaps>,
}

/// What a picture is denoised under, besides its noise level.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// Augmentation labels, `[B, labels]`; none when sampling.
    pub augment: Option<Tensor<2>>,
    /// The block whose attention maps are wanted, counted in the order of execution.
    pub attention_of: Option<usize>,
    /// Whether the time token is zero.
    pub silence_time: bool,
}

impl Model {
    /// A model with initial weights, a pure function of `seed`.
    ///
    /// # Errors
    ///
    /// If the configuration does not fit together.
    pub fn new(config: ModelConfig, seed: u64, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let network = Network::new(&config.network, device, &Source::Random { seed });
        Ok(Self { config, network })
    }

    /// A model with the weights of a file.
    pub fn from_weights(weights: &Weights, device: &Device) -> Self {
        Self::from_values(weights.config().clone(), &|spec| weights.values(spec), device)
    }

    /// A model of a valid configuration with given parameters: `values` returns those of a tensor
    /// in the order of the weights file.
    ///
    /// # Panics
    ///
    /// If there are not as many values as the tensor's shape asks for.
    pub fn from_values(
        config: ModelConfig,
        values: &dyn Fn(&TensorSpec) -> Vec<f32>,
        device: &Device,
    ) -> Self {
        let network = Network::new(&config.network, device, &Source::Stored(values));
        Self { config, network }
    }

    /// `D(x; σ) = c_skip x + c_out F(c_in x; c_noise)`.
    ///
    /// # Shapes
    ///
    /// - x: `[B, C, H, W]`; sigma: one noise level per picture
    ///
    /// # Panics
    ///
    /// If there are not as many noise levels as pictures.
    pub fn denoise(&self, x: Tensor<4>, sigma: &[f64], conditioning: Conditioning) -> Denoised {
        let b = x.dims()[0];
        assert_eq!(b, sigma.len(), "one noise level per picture");
        let options = (&x.device(), x.dtype());
        let coefficients: Vec<_> =
            sigma.iter().map(|&sigma| self.config.precond.coefficients(sigma)).collect();
        let tensor =
            |values: Vec<f64>| Tensor::<1>::from_data(TensorData::new(values, [b]), options);
        let per_picture = |coefficient: fn(&crate::precond::Coefficients) -> f64| {
            tensor(coefficients.iter().map(coefficient).collect())
        };
        let factor = |coefficient| per_picture(coefficient).reshape([b, 1, 1, 1]);
        let output = self.network.forward(NetworkInput {
            x: x.clone() * factor(|c| c.c_in),
            c_noise: per_picture(|c| c.c_noise),
            augment: conditioning.augment,
            attention_of: conditioning.attention_of,
            silence_time: conditioning.silence_time,
        });
        let denoised = x * factor(|c| c.c_skip) + output.x.clone() * factor(|c| c.c_out);
        Denoised { denoised, raw: output.x, attention: output.attention }
    }

    /// The model's answer on a device: see [`Answer`]. It waits for the device, which in a browser
    /// can only be done like this.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub async fn answer(&self, device: &Device) -> Result<Answer, ExecutionError> {
        let (sigma, stride) = (0.5, 31);
        let shape @ [c, h, w] = self.config.image_shape();
        let noise = TensorData::new(start_noise(0, shape.iter().product()), [1, c, h, w]);
        let x = Tensor::from_data(noise, device) * sigma;
        let denoised = self.denoise(x, &[sigma], Conditioning::default()).denoised;
        let values = denoised.into_data_async().await?;
        let values = values.try_into_vec::<f32>().expect("pictures are f32");
        let values = values.into_iter().step_by(stride).collect();
        Ok(Answer { sigma, values, stride })
    }

    /// The parameters, each with its values in the order of the weights file.
    ///
    /// # Panics
    ///
    /// In a browser, which cannot wait for a GPU like this.
    pub fn parameters(&self) -> Vec<(TensorSpec, Vec<f32>)> {
        collect(&self.network, self.network.specs())
    }
}
