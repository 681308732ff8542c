//! Layers of feature networks. Maps are channels-first, `[B, C, H, W]`.

use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, activation, module};

use super::tensors::{Spec, TensorSource};

/// What follows batch normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// Nothing.
    None,
}

/// A convolution without bias, followed by batch normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Name of the filters.
    pub weight: String,
    /// Beginning of the names of the tensors of batch normalisation.
    pub norm: String,
    /// Numbers of channels, in and out.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: usize,
    /// Padding of height and width, before and after.
    pub padding: [(usize, usize); 2],
    /// Number of groups of channels.
    pub groups: usize,
    /// Activation.
    pub activation: Activation,
}

/// The tensors of batch normalisation.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl ConvSpec {
    /// Returns the shape of the filters.
    fn shape(&self) -> [usize; 4] {
        let [c_in, c_out] = self.channels;
        let [h, w] = self.kernel;
        [c_out, c_in / self.groups, h, w]
    }

    /// Returns the names and shapes of the tensors.
    pub fn tensors(&self) -> Vec<Spec> {
        let norm = NORM.map(|part| Spec {
            name: format!("{}.{part}", self.norm),
            shape: vec![self.channels[1]],
        });
        let weight = Spec { name: self.weight.clone(), shape: self.shape().to_vec() };
        std::iter::once(weight).chain(norm).collect()
    }
}

/// A convolution with batch normalisation in evaluation mode, folded into one, and an activation.
#[derive(Debug)]
pub struct Conv {
    weight: Tensor<4>,
    bias: Tensor<1>,
    options: ConvOptions<2>,
    activation: Activation,
}

impl Conv {
    /// Folds batch normalisation into the weights: `w γ / √(σ² + ε)` and `β - μ γ / √(σ² + ε)`.
    pub fn new(spec: &ConvSpec, epsilon: f64, tensors: &TensorSource, device: &Device) -> Self {
        let [gamma, beta, mean, variance] =
            NORM.map(|part| &tensors.get(&format!("{}.{part}", spec.norm)).values);
        let scale: Vec<f64> = gamma
            .iter()
            .zip(variance)
            .map(|(gamma, variance)| f64::from(*gamma) / (f64::from(*variance) + epsilon).sqrt())
            .collect();
        let bias: Vec<f32> = beta
            .iter()
            .zip(mean)
            .zip(&scale)
            .map(|((beta, mean), scale)| (f64::from(*beta) - f64::from(*mean) * scale) as f32)
            .collect();
        let stored = &tensors.get(&spec.weight).values;
        let size = (stored.len() / scale.len().max(1)).max(1);
        let weight: Vec<f32> = stored
            .chunks_exact(size)
            .zip(&scale)
            .flat_map(|(filter, scale)| {
                filter.iter().map(move |value| (f64::from(*value) * scale) as f32)
            })
            .collect();
        let options =
            ConvOptions::new_with_padding([spec.stride; 2], spec.padding, [1, 1], spec.groups);
        Self {
            weight: Tensor::from_data(TensorData::new(weight, spec.shape()), device),
            bias: Tensor::from_data(TensorData::new(bias, [spec.channels[1]]), device),
            options,
            activation: spec.activation,
        }
    }

    /// Applies the layer.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y =
            module::conv2d(x, self.weight.clone(), Some(self.bias.clone()), self.options.clone());
        match self.activation {
            Activation::Relu => activation::relu(y),
            Activation::Relu6 => y.clamp(0.0, 6.0),
            Activation::None => y,
        }
    }
}

/// Returns the mean over 3x3 pixels, of those that lie inside the map; stride 1.
pub fn average_pool(x: Tensor<4>) -> Tensor<4> {
    let options = AvgPoolOptions::new([3, 3])
        .with_stride([1, 1])
        .with_padding([1, 1])
        .with_count_include_pad(false);
    module::avg_pool2d(x, options)
}

/// Returns the maximum over 3x3 pixels.
pub fn max_pool(x: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let options = MaxPoolOptions::new([3, 3]).with_stride([stride; 2]).with_padding([padding; 2]);
    module::max_pool2d(x, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_count_the_pixels_inside_only() {
        let x = Tensor::<4>::ones([1, 1, 3, 4], &Device::flex());
        let found: Vec<f32> = average_pool(x).into_data().try_into_vec().expect("f32");
        assert!(found.iter().all(|value| (value - 1.0).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn the_padding_of_maxima_is_below_every_value() {
        let x = Tensor::<4>::ones([1, 1, 3, 3], &Device::flex()) * -5.0;
        let found: Vec<f32> = max_pool(x, 1, 1).into_data().try_into_vec().expect("f32");
        assert_eq!(found, [-5.0; 9]);
    }
}
