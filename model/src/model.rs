//! A model: a network with its configuration and preconditioner.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, ExecutionError, Tensor, TensorData};

use crate::config::{ConfigError, ModelConfig};
use crate::diffusion::label::Label;
use crate::diffusion::noise::start_noise;
use crate::diffusion::precond::Coefficients;
use crate::network::Network;
use crate::network::io::{AttentionMaps, Conditioning, NetworkInput, NetworkOptions};
use crate::network::params::{Source, TensorSpec, collect};
use crate::weights::{Answer, AnswerAt, Weights};

/// A network with its configuration, which together define the denoiser `D(x; σ)`.
#[derive(Clone, Debug)]
pub struct Model {
    /// The configuration of the network and the preconditioner.
    pub config: ModelConfig,
    /// The network F.
    pub network: Network,
    /// The type that the network computes in. Parameters keep their own type.
    compute: DType,
}

/// The result of [`Model::denoise`].
#[derive(Clone, Debug)]
pub struct Denoised {
    /// Denoised pictures D(x; σ), `[B, C, H, W]`.
    pub denoised: Tensor<4>,
    /// Output of the network F, `[B, C, H, W]`, or `[B, 2 C, H, W]` with a learned variance.
    pub raw: Tensor<4>,
    /// Attention maps of the requested block, if any.
    pub attention: Option<AttentionMaps>,
    /// Summary of the attention of each block, if requested: see
    /// [`NetworkOutput::summaries`](crate::network::io::NetworkOutput::summaries).
    pub summaries: Vec<Option<Tensor<2>>>,
}

impl Denoised {
    /// The learned variance of an ancestral step, `[B, C, H, W]`, if the network predicts one: the
    /// position of its logarithm between the smallest, -1, and the largest, 1.
    pub fn variance(&self) -> Option<Tensor<4>> {
        let c = self.denoised.dims()[1];
        (self.raw.dims()[1] == 2 * c).then(|| self.raw.clone().narrow(1, c, c))
    }
}

impl Model {
    /// A model with initial weights, a pure function of `seed`.
    ///
    /// # Errors
    ///
    /// If the configuration is not valid.
    pub fn new(config: ModelConfig, seed: u64, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let network = Network::new(&config.network, device, &Source::Random { seed });
        Ok(Self { config, network, compute: DType::F32 })
    }

    /// A model with the weights of a weights file.
    pub fn from_weights(weights: &Weights, device: &Device) -> Self {
        Self::from_values(weights.config().clone(), &|spec| weights.values(spec), device)
    }

    /// A model with the weights of a weights file, stored and computed in another type, such as
    /// `f16`: [`Model::stored_as`] and [`Model::computing_in`], but never in memory in `f32`.
    pub fn from_weights_as(weights: &Weights, device: &Device, dtype: DType) -> Self {
        let config = weights.config().clone();
        let values = |spec: &TensorSpec| weights.values(spec);
        let network = Network::new(&config.network, device, &Source::StoredAs(&values, dtype));
        Self { config, network, compute: dtype }
    }

    /// A model with a valid configuration and given parameters: `values` returns the values of a
    /// tensor in the order of the weights file.
    ///
    /// # Panics
    ///
    /// If the number of values does not match the tensor's shape.
    pub fn from_values(
        config: ModelConfig,
        values: &dyn Fn(&TensorSpec) -> Vec<f32>,
        device: &Device,
    ) -> Self {
        let network = Network::new(&config.network, device, &Source::Stored(values));
        Self { config, network, compute: DType::F32 }
    }

    /// Sets the type that the network computes products and convolutions in, such as `bf16` or
    /// `f16`. Normalisation, softmax and everything outside the network are still computed in
    /// `f32`.
    pub fn computing_in(self, compute: DType) -> Self {
        Self { compute, ..self }
    }

    /// Casts the parameters to another type. `bf16` or `f16` take half the memory of `f32`. This
    /// does not change the type of the computation; see [`Model::computing_in`].
    pub fn stored_as(self, dtype: DType) -> Self {
        Self { network: self.network.map(&mut Cast(dtype)), ..self }
    }

    /// Computes `D(x; σ) = c_skip x + c_out F(c_in x; c_noise)`.
    ///
    /// # Shapes
    ///
    /// - x: `[B, C, H, W]`; sigma: one noise level per picture
    ///
    /// # Panics
    ///
    /// If the number of noise levels is not that of the pictures, if there are labels but not one
    /// per picture, or if a class is not one of the model's.
    pub fn denoise(
        &self,
        x: Tensor<4>,
        sigma: &[f64],
        options: impl Into<NetworkOptions>,
    ) -> Denoised {
        let network: NetworkOptions = options.into();
        let b = x.dims()[0];
        assert_eq!(b, sigma.len(), "one noise level per picture");
        let given = &network.conditioning.labels;
        assert!(given.is_empty() || given.len() == b, "one label per picture");
        let known = self.config.classes();
        let mut classes = given.iter().flat_map(Label::parts);
        assert!(classes.all(|&(class, _)| class < known), "there are {known} classes");
        let options = (&x.device(), x.dtype());
        let coefficients: Vec<Coefficients> =
            sigma.iter().map(|&sigma| self.config.precond.coefficients(sigma)).collect();
        // In sampling, all pictures have one noise level: then nothing is sent to the device.
        let times = |x: Tensor<4>, coefficient: fn(&Coefficients) -> f64| {
            let values: Vec<f64> = coefficients.iter().map(coefficient).collect();
            if let Some(&first) = values.first()
                && values.iter().all(|&value| value == first)
            {
                return x * first;
            }
            x * Tensor::<4>::from_data(TensorData::new(values, [b, 1, 1, 1]), options)
        };
        let output = self.network.forward(NetworkInput {
            x: times(x.clone(), |c| c.c_in).cast(self.compute),
            c_noise: coefficients.iter().map(|c| c.c_noise).collect(),
            options: network,
        });
        let raw = output.x.cast(x.dtype());
        // The channels after those of the prediction are the variance.
        let prediction = raw.clone().narrow(1, 0, x.dims()[1]);
        let denoised = times(x, |c| c.c_skip) + times(prediction, |c| c.c_out);
        Denoised { denoised, raw, attention: output.attention, summaries: output.summaries }
    }

    /// Computes the model's [`Answer`] to fixed inputs on a device. It is asynchronous because a
    /// browser cannot block on a GPU.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub async fn answer(&self, device: &Device) -> Result<Answer, ExecutionError> {
        let stride = 31;
        let (low, high) = self.config.precond.sigma_range().into_inner();
        let mut points =
            vec![(0.5, Label::NONE), (low.max(0.05), Label::NONE), (high.min(20.0), Label::NONE)];
        if let classes @ 1.. = self.config.classes() {
            points.push((0.5, Label::from(classes / 2)));
        }
        let b = points.len();
        let (sigma, labels): (Vec<f64>, Vec<Label>) = points.into_iter().unzip();
        let [c, h, w] = self.config.image_shape();
        let size = c * h * w;
        let noise = TensorData::new(start_noise(0, size), [1, c, h, w]);
        let levels = TensorData::new(sigma.clone(), [b, 1, 1, 1]);
        let x = Tensor::<4>::from_data(noise, device) * Tensor::from_data(levels, device);
        let conditioning = Conditioning { labels: labels.clone(), augment: None };
        let denoised = self.denoise(x, &sigma, conditioning).denoised;
        let values = denoised.into_data_async().await?;
        let values = values.try_into_vec::<f32>().expect("pictures are f32");
        let mut answers =
            values.chunks(size).zip(sigma).zip(labels).map(|((picture, sigma), label)| AnswerAt {
                sigma,
                label,
                values: picture.iter().copied().step_by(stride).collect(),
            });
        let AnswerAt { sigma, values, .. } = answers.next().expect("the first noise level");
        Ok(Answer { sigma, values, stride, further: answers.collect() })
    }

    /// Reads back the tensors of the weights file, each with its values in the
    /// order of that file.
    ///
    /// # Panics
    ///
    /// In a browser, which cannot block on a GPU.
    pub fn parameters(&self) -> Vec<(TensorSpec, Vec<f32>)> {
        collect(&self.network, self.network.specs(), self.network.buffers())
    }
}

/// A mapper that casts parameters to another type.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_answer_is_close_to_single_precision() {
        let device = Device::flex();
        let bytes = include_bytes!("../../www/weights/tiny-emoji.safetensors");
        let weights = Weights::parse(bytes).expect("the shipped weights");
        let model = Model::from_weights(&weights, &device);
        let half = model.clone().stored_as(DType::F16).computing_in(DType::F16);
        let answer =
            |model: &Model| pollster::block_on(model.answer(&device)).expect("the CPU backend");
        let off = answer(&model).deviation(&answer(&half));
        assert!(off > 0.0 && off < 1e-2, "off by {off}");
        // It makes no difference when they are cast.
        let loaded = Model::from_weights_as(&weights, &device, DType::F16);
        assert_eq!(answer(&half).deviation(&answer(&loaded)), 0.0);
    }

    /// Parameters stored in 16 bits are cast to the type of the computation, in the image network and
    /// in the latent network.
    #[test]
    fn weights_stored_in_16_bits_compute_in_32() {
        use crate::config::{ImageConfig, LatentConfig, NetworkConfig, PrecondConfig, preset};
        let device = Device::flex();
        let Some(ModelConfig { network: NetworkConfig::Latent(latent), .. }) =
            preset::by_name("latent-tiny")
        else {
            panic!("`latent-tiny` is not a latent preset")
        };
        let latent = LatentConfig { depth: 1, classes: 3, ..latent };
        let image = ImageConfig {
            resolution: 8,
            channels: vec![32, 64],
            blocks: vec![1, 1],
            classes: 3,
            branch_init: 1.0,
            ..ImageConfig::default()
        };
        for network in [NetworkConfig::Image(image), NetworkConfig::Latent(latent)] {
            let config = ModelConfig { network, precond: PrecondConfig::default() };
            let model = Model::new(config, 3, &device).expect("a valid configuration");
            let half = model.clone().stored_as(DType::F16);
            let answer =
                |model: &Model| pollster::block_on(model.answer(&device)).expect("the CPU backend");
            let deviation = answer(&model).deviation(&answer(&half));
            assert!(deviation < 1e-2, "off by {deviation}");
            // Attention maps are computed by other code.
            let [c, h, w] = half.config.image_shape();
            let options = NetworkOptions {
                inspection: crate::network::io::Inspection {
                    attention_of: Some(0),
                    ..Default::default()
                },
                ..NetworkOptions::default()
            };
            let x = Tensor::<4>::ones([1, c, h, w], &device);
            assert!(half.denoise(x, &[0.5], options).attention.is_some());
        }
    }

    #[test]
    fn extra_output_channels_are_the_variance() {
        let output = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &Device::flex());
        let output = output.reshape([1, 4, 1, 1]);
        let with = |channels| Denoised {
            denoised: output.clone().narrow(1, 0, channels),
            raw: output.clone(),
            attention: None,
            summaries: Vec::new(),
        };
        let variance = with(2).variance().expect("a variance").into_data();
        assert_eq!(variance.try_into_vec::<f32>().expect("f32"), [3.0, 4.0]);
        assert!(with(4).variance().is_none());
    }
}
