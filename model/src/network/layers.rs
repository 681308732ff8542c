//! The layers that networks are made of. Maps are channels-last, `[B, H, W, C]`.
//!
//! A layer casts its parameters to the type of its input and computes in that type. In
//! mixed-precision training, parameters stay `f32` while products are computed in `bf16`.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::config::TransformerConfig;
use crate::diffusion::label::Label;
use crate::kernels::cpu::{self, Input};
use crate::kernels::{self, Activate, LinearMap, Norm};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};

/// What is done around a linear map: `activation(LN(x) W + b) + ..`. A GPU does it in one kernel.
pub(crate) struct Around<'a, const D: usize> {
    /// Normalises the input.
    pub norm: Option<&'a LayerNorm>,
    /// Applied to the product.
    pub activation: Option<Activate>,
    /// Added at the end, in this order.
    pub adds: Vec<Tensor<D>>,
}

impl<const D: usize> Default for Around<'_, D> {
    fn default() -> Self {
        Self { norm: None, activation: None, adds: Vec::new() }
    }
}

/// A linear map over the last dimension, `x W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A linear map with Xavier-uniform initial weights.
    pub(crate) fn new(params: &Params, dims: [usize; 2], bias: bool, gain: f64) -> Self {
        Self::with_init(params, dims, bias, Init::XavierUniform { gain })
    }

    /// A linear map with the given initialisation.
    pub(crate) fn with_init(
        params: &Params,
        [d_in, d_out]: [usize; 2],
        bias: bool,
        init: Init,
    ) -> Self {
        Self {
            weight: params.matrix("weight", [d_in, d_out], init),
            bias: bias.then(|| params.tensor("bias", [d_out], Init::Zeros)),
        }
    }

    /// A linear map of patches `[c, p, p]`, stored as a convolution with kernel size and stride
    /// `p`.
    pub(crate) fn of_patches(params: &Params, [c, p, d_out]: [usize; 3]) -> Self {
        let init = Init::XavierUniform { gain: 1.0 };
        Self {
            weight: params.kernel("weight", [d_out, c, p, p], init),
            bias: Some(params.tensor("bias", [d_out], Init::Zeros)),
        }
    }

    /// Cuts maps into patches for [`Linear::of_patches`].
    ///
    /// # Shapes
    ///
    /// - x: `[B, c, H, W]`
    /// - output: `[B, H / p, W / p, c p p]`
    pub(crate) fn patches(x: Tensor<4>, p: usize) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let (rows, columns) = (h / p, w / p);
        // (b, c, h p, w q) -> (b, h, w, c p q)
        let x = x.reshape([b, c, rows, p, columns, p]).permute([0, 2, 4, 1, 3, 5]);
        x.reshape([b, rows, columns, c * p * p])
    }

    /// A 1x1 convolution, stored as such.
    pub(crate) fn conv1x1(params: &Params, [c_in, c_out]: [usize; 2], gain: f64) -> Self {
        Self {
            weight: params.kernel("weight", [c_out, c_in, 1, 1], Init::XavierUniform { gain }),
            bias: Some(params.tensor("bias", [c_out], Init::Zeros)),
        }
    }

    /// Applies the map.
    ///
    /// # Shapes
    ///
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, Around::default())
    }

    /// Applies the map, and what is around it.
    ///
    /// # Shapes
    ///
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub(crate) fn forward_with<const D: usize>(
        &self,
        x: Tensor<D>,
        around: Around<D>,
    ) -> Tensor<D> {
        let dtype = x.dtype();
        let weight = self.weight.val().cast(dtype);
        let [d_in, d_out] = weight.dims();
        let mut shape = x.dims();
        let rows = shape[..D - 1].iter().product::<usize>();
        shape[D - 1] = d_out;
        let y = kernels::linear(LinearMap {
            // Reshaped to one product over all rows, because a batched product may run as many
            // small ones.
            x: x.reshape([rows, d_in]),
            norm: around.norm.map(|norm| norm.values(d_in, &weight.device())),
            bias: self.bias.as_ref().map(|bias| bias.val().cast(dtype)),
            weight,
            activation: around.activation,
            adds: around.adds.into_iter().map(|add| add.reshape([rows, d_out])).collect(),
        });
        y.reshape(shape)
    }

    /// Weight and bias as inputs of a kernel; `None` if there is no bias.
    pub(crate) fn inputs(&self) -> Option<[Input; 2]> {
        let bias = self.bias.as_ref()?.val().cast(DType::F32);
        Some([self.weight.val().cast(DType::F32).into(), bias.into()])
    }

    pub(crate) fn macs(&self, rows: usize) -> Macs {
        Macs::weights(&[rows, self.weight.lazy_shape().num_elements()])
    }
}

/// The embedding of class labels that is added to the time embedding, as in EDM: a linear map
/// without bias of the one-hot vector times the square root of the number of classes. The null
/// class is the zero vector.
#[derive(Module, Debug)]
pub struct ClassEmbedding {
    linear: Linear,
    classes: usize,
}

impl ClassEmbedding {
    pub(crate) fn new(params: &Params, classes: usize, channels: usize) -> Self {
        Self { linear: Linear::new(params, [classes, channels], false, 1.0), classes }
    }

    /// An embedding with a bias, which is added without a class too: the form of EDM's `SongUNet`.
    pub(crate) fn with_bias(params: &Params, classes: usize, channels: usize) -> Self {
        Self { linear: Linear::new(params, [classes, channels], true, 1.0), classes }
    }

    /// Computes the embedding of labels.
    ///
    /// # Shapes
    ///
    /// - labels: one per picture
    /// - output: `[B, channels]`
    pub fn forward(&self, labels: &[Label], options: (&Device, DType)) -> Tensor<2> {
        let scale = (self.classes as f64).sqrt();
        let mut values = vec![0.0; labels.len() * self.classes];
        for (row, label) in values.chunks_exact_mut(self.classes).zip(labels) {
            for &(class, weight) in label.parts() {
                row[class] += weight * scale;
            }
        }
        let values = TensorData::new(values, [labels.len(), self.classes]);
        self.linear.forward(Tensor::from_data(values, options))
    }

    pub(crate) fn macs(&self) -> Macs {
        self.linear.macs(1)
    }
}

/// An embedding table: a learned vector for each index.
#[derive(Module, Debug)]
pub struct Embedding {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(crate) fn new(params: &Params, shape: [usize; 2], init: Init) -> Self {
        Self { weight: params.tensor("weight", shape, init) }
    }

    /// Looks up the vectors of these indices.
    ///
    /// # Shapes
    ///
    /// - output: `[indices, C]`
    pub fn forward(&self, indices: impl IntoIterator<Item = usize>) -> Tensor<2> {
        let indices: Vec<i32> = indices.into_iter().map(|index| index as i32).collect();
        let weight = self.weight.val();
        let shape = [indices.len()];
        let index = Tensor::<1, Int>::from_data(TensorData::new(indices, shape), &weight.device());
        weight.select(0, index)
    }

    /// Computes the vectors of labels, which may be mixtures of classes. `null` is the index of the
    /// null class.
    ///
    /// # Shapes
    ///
    /// - output: `[labels, C]`
    pub fn of_labels(&self, labels: &[Label], null: usize) -> Tensor<2> {
        // The sum over the labels' parts, one lookup per part for the whole batch. Shorter labels
        // are padded with weight 0. The null class has the weight that the parts leave.
        let most = labels.iter().map(|label| label.parts().len()).max().unwrap_or(0);
        let rest =
            |label: &Label| 1.0 - label.parts().iter().map(|(_, weight)| weight).sum::<f64>();
        let device = self.weight.val().device();
        let at = |i: usize| {
            let part = |label: &Label| label.parts().get(i).copied().unwrap_or((null, 0.0));
            labels.iter().map(part).collect::<Vec<_>>()
        };
        let nulls = labels.iter().map(|label| (null, rest(label))).collect();
        let sum = (0..most).map(at).chain([nulls]).filter_map(|parts| {
            if parts.iter().all(|(_, weight)| *weight == 0.0) {
                return None;
            }
            let rows = self.forward(parts.iter().map(|(class, _)| *class));
            if parts.iter().all(|(_, weight)| *weight == 1.0) {
                return Some(rows);
            }
            let weights: Vec<f64> = parts.iter().map(|(_, weight)| *weight).collect();
            let weights = TensorData::new(weights, [labels.len(), 1]);
            let weights = Tensor::<2>::from_data(weights, (&device, rows.dtype()));
            Some(rows * weights)
        });
        // All weights are zero.
        let zeros = || self.forward(labels.iter().map(|_| null)) * 0.0;
        sum.reduce(|sum, rows| sum + rows).unwrap_or_else(zeros)
    }
}

/// A 3x3 convolution with zero padding of 1.
#[derive(Module, Debug)]
pub struct Conv3x3 {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
}

impl Conv3x3 {
    pub(crate) fn new(
        params: &Params,
        [c_in, c_out]: [usize; 2],
        stride: usize,
        gain: f64,
    ) -> Self {
        let weight = params.tensor("weight", [c_out, c_in, 3, 3], Init::XavierUniform { gain });
        Self { weight, bias: Some(params.tensor("bias", [c_out], Init::Zeros)), stride }
    }

    /// A convolution of stride 1 without a bias.
    pub(crate) fn without_bias(params: &Params, [c_in, c_out]: [usize; 2]) -> Self {
        let init = Init::XavierUniform { gain: 1.0 };
        let weight = params.tensor("weight", [c_out, c_in, 3, 3], init);
        Self { weight, bias: None, stride: 1 }
    }

    fn bias(&self) -> Tensor<1> {
        match &self.bias {
            Some(bias) => bias.val(),
            None => {
                let weight = self.weight.val();
                Tensor::zeros([weight.dims()[0]], (&weight.device(), weight.dtype()))
            }
        }
    }

    /// Applies the convolution.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`
    /// - output: `[B, H / stride, W / stride, C_out]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        kernels::conv3x3(x, self.weight.val().cast(dtype), self.bias().cast(dtype), self.stride)
    }

    /// Applies a convolution of stride 1 to a map whose sides are doubled first, by repeating every
    /// pixel.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`
    /// - output: `[B, 2 H, 2 W, C_out]`
    pub(crate) fn forward_upsampled(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        kernels::upsample_conv3x3(x, self.weight.val().cast(dtype), self.bias().cast(dtype))
    }

    /// Weight and bias as inputs of a kernel.
    pub(crate) fn inputs(&self) -> [Input; 2] {
        [self.weight.val().cast(DType::F32).into(), self.bias().cast(DType::F32).into()]
    }

    /// Multiply-adds for an output of `pixels` pixels.
    pub(crate) fn macs(&self, pixels: usize) -> Macs {
        Macs::weights(&[pixels, self.weight.lazy_shape().num_elements()])
    }
}

/// Layer normalisation over the channels, with or without a learned scale and shift.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Option<Param<Tensor<1>>>,
    bias: Option<Param<Tensor<1>>>,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(params: &Params, channels: usize, affine: bool, eps: f64) -> Self {
        Self {
            weight: affine.then(|| params.tensor("weight", [channels], Init::Ones)),
            bias: affine.then(|| params.tensor("bias", [channels], Init::Zeros)),
            eps,
        }
    }

    /// The layer normalisation of a transformer block.
    pub(crate) fn of_block(params: &Params, config: &TransformerConfig, channels: usize) -> Self {
        Self::new(params, channels, config.layer_norm_affine, config.layer_norm_eps)
    }

    /// Normalises over the last dimension.
    ///
    /// # Shapes
    ///
    /// - x, output: `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Norm { weight, bias, eps } = self.values(x.dims()[D - 1], &x.device());
        kernels::layer_norm(x, weight, bias, eps)
    }

    /// Scale, shift and epsilon for `c` channels.
    fn values(&self, c: usize, device: &Device) -> Norm {
        let options = (device, DType::F32);
        let value = |param: &Option<Param<Tensor<1>>>| param.as_ref().map(Param::val);
        Norm {
            weight: value(&self.weight).unwrap_or_else(|| Tensor::ones([c], options)),
            bias: value(&self.bias).unwrap_or_else(|| Tensor::zeros([c], options)),
            eps: self.eps,
        }
    }

    /// Weight and bias as inputs of a kernel; `None` if there are none.
    pub(crate) fn inputs(&self) -> Option<[Input; 2]> {
        let (weight, bias) = (self.weight.as_ref()?.val(), self.bias.as_ref()?.val());
        Some([weight.cast(DType::F32).into(), bias.cast(DType::F32).into()])
    }

    /// The CPU kernel of this layer.
    pub(crate) fn kernel(&self) -> cpu::LayerNorm {
        cpu::LayerNorm { eps: self.eps as f32 }
    }
}

/// Group normalisation over a map, optionally followed by Swish.
#[derive(Module, Debug)]
pub struct GroupNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn new(
        params: &Params,
        channels: usize,
        config: &crate::config::GroupNormConfig,
    ) -> Self {
        Self {
            weight: params.tensor("weight", [channels], Init::Ones),
            bias: params.tensor("bias", [channels], Init::Zeros),
            groups: config.groups(channels),
            eps: config.eps,
        }
    }

    /// Computes `GN(x)`.
    ///
    /// # Shapes
    ///
    /// - x, output: `[B, H, W, C]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, false)
    }

    /// Computes `Swish(GN(x))`.
    pub fn swish(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, true)
    }

    /// Weight and bias as inputs of a kernel.
    pub(crate) fn inputs(&self) -> [Input; 2] {
        [self.weight.val().cast(DType::F32).into(), self.bias.val().cast(DType::F32).into()]
    }

    /// The CPU kernel of `Swish(GN(x))`.
    pub(crate) fn kernel(&self) -> cpu::GroupNorm {
        cpu::GroupNorm { groups: self.groups, eps: self.eps as f32, swish: true }
    }

    fn apply(&self, x: Tensor<4>, swish: bool) -> Tensor<4> {
        kernels::group_norm(x, self.groups, self.weight.val(), self.bias.val(), self.eps, swish)
    }
}
