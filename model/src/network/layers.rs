//! The layers that networks are made of. Maps are channels-last, `[B, H, W, C]`.
//!
//! A layer computes in the type of its input, whatever type its parameters have: what is trained
//! stays `f32` while products are taken in `bf16`.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, module};

use crate::diffusion::label::Label;
use crate::kernels;
use crate::kernels::cpu::{self, Input};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};

/// `x W + b` over the last dimension.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    pub(crate) fn new(params: &Params, dims: [usize; 2], bias: bool, gain: f64) -> Self {
        Self::with_init(params, dims, bias, Init::XavierUniform { gain })
    }

    /// With other initial weights.
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

    /// A convolution whose kernel and stride are one patch: a linear map of the patch, `[c, p, p]`.
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

    /// # Shapes
    ///
    /// - x: `[.., in]`
    /// - output: `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let weight = self.weight.val().cast(dtype);
        let [d_in, d_out] = weight.dims();
        let mut shape = x.dims();
        let rows = shape[..D - 1].iter().product::<usize>();
        shape[D - 1] = d_out;
        // One product over all rows: left in its shape, it could become many small ones.
        let bias = self.bias.as_ref().map(|bias| bias.val().cast(dtype));
        module::linear(x.reshape([rows, d_in]), weight, bias).reshape(shape)
    }

    /// Weight and bias for a kernel; none without a bias.
    pub(crate) fn inputs(&self) -> Option<[Input; 2]> {
        let bias = self.bias.as_ref()?.val().cast(DType::F32);
        Some([self.weight.val().cast(DType::F32).into(), bias.into()])
    }

    pub(crate) fn macs(&self, rows: usize) -> Macs {
        Macs::weights(&[rows, self.weight.lazy_shape().num_elements()])
    }
}

/// The linear map of class labels to the time embedding, as in EDM: without bias, from the one-hot
/// vector times the square root of the number of classes. No class is the zero vector.
#[derive(Module, Debug)]
pub struct ClassEmbedding {
    linear: Linear,
    classes: usize,
}

impl ClassEmbedding {
    pub(crate) fn new(params: &Params, classes: usize, channels: usize) -> Self {
        Self { linear: Linear::new(params, [classes, channels], false, 1.0), classes }
    }

    /// # Shapes
    ///
    /// - labels: one a picture
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

/// A learned vector for each of a number of things.
#[derive(Module, Debug)]
pub struct Embedding {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(crate) fn new(params: &Params, shape: [usize; 2], init: Init) -> Self {
        Self { weight: params.tensor("weight", shape, init) }
    }

    /// # Shapes
    ///
    /// - output: `[numbers, C]`
    pub fn forward(&self, numbers: impl IntoIterator<Item = usize>) -> Tensor<2> {
        let numbers: Vec<i32> = numbers.into_iter().map(|number| number as i32).collect();
        let weight = self.weight.val();
        let shape = [numbers.len()];
        let index = Tensor::<1, Int>::from_data(TensorData::new(numbers, shape), &weight.device());
        weight.select(0, index)
    }

    /// The vectors of labels, of which `null` stands for no class.
    ///
    /// # Shapes
    ///
    /// - output: `[labels, C]`
    pub fn of_labels(&self, labels: &[Label], null: usize) -> Tensor<2> {
        // Labels as rows of one length, each with the null class and what is left of the weights.
        let places = labels.iter().map(|label| label.parts().len()).max().unwrap_or(0);
        let left =
            |label: &Label| 1.0 - label.parts().iter().map(|(_, weight)| weight).sum::<f64>();
        let device = self.weight.val().device();
        let at = |place: usize| {
            let part = |label: &Label| label.parts().get(place).copied().unwrap_or((null, 0.0));
            labels.iter().map(part).collect::<Vec<_>>()
        };
        let nulls = labels.iter().map(|label| (null, left(label))).collect();
        let sum = (0..places).map(at).chain([nulls]).filter_map(|parts| {
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
        // Weights of zero everywhere: a mixture of nothing.
        let nothing = || self.forward(labels.iter().map(|_| null)) * 0.0;
        sum.reduce(|sum, rows| sum + rows).unwrap_or_else(nothing)
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

    /// Without a bias, of stride 1.
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

    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`
    /// - output: `[B, H / stride, W / stride, C_out]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        kernels::conv3x3(x, self.weight.val().cast(dtype), self.bias().cast(dtype), self.stride)
    }

    /// Weight and bias for a kernel.
    pub(crate) fn inputs(&self) -> [Input; 2] {
        [self.weight.val().cast(DType::F32).into(), self.bias().cast(DType::F32).into()]
    }

    /// For an output of `pixels`.
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

    /// # Shapes
    ///
    /// - x, output: `[.., C]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (c, device) = (x.dims()[D - 1], x.device());
        let options = (&device, DType::F32);
        let weight = match &self.weight {
            Some(weight) => weight.val(),
            None => Tensor::ones([c], options),
        };
        let bias = match &self.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([c], options),
        };
        kernels::layer_norm(x, weight, bias, self.eps)
    }

    /// Weight and bias for a kernel; none without them.
    pub(crate) fn inputs(&self) -> Option<[Input; 2]> {
        let (weight, bias) = (self.weight.as_ref()?.val(), self.bias.as_ref()?.val());
        Some([weight.cast(DType::F32).into(), bias.cast(DType::F32).into()])
    }

    /// The kernel that computes it.
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

    /// `GN(x)`.
    ///
    /// # Shapes
    ///
    /// - x, output: `[B, H, W, C]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, false)
    }

    /// `Swish(GN(x))`.
    pub fn swish(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, true)
    }

    /// Weight and bias for a kernel.
    pub(crate) fn inputs(&self) -> [Input; 2] {
        [self.weight.val().cast(DType::F32).into(), self.bias.val().cast(DType::F32).into()]
    }

    /// The kernel that computes `Swish(GN(x))`.
    pub(crate) fn kernel(&self) -> cpu::GroupNorm {
        cpu::GroupNorm { groups: self.groups, eps: self.eps as f32, swish: true }
    }

    fn apply(&self, x: Tensor<4>, swish: bool) -> Tensor<4> {
        kernels::group_norm(x, self.groups, self.weight.val(), self.bias.val(), self.eps, swish)
    }
}
