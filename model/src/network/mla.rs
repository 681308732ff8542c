//! The decoder by multi-level aggregation of SETR (arXiv 2012.15840), which ends at full resolution:
//! noise could not be predicted by a map that is enlarged afterwards.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::config::{GroupNormConfig, ImageConfig};
use crate::kernels::{enlarge_bilinear, upsample_bilinear};
use crate::network::layers::{Conv3x3, GroupNorm, LayerNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::Params;

/// A convolution, group normalisation and Swish.
#[derive(Module, Debug)]
struct ConvNorm {
    conv: Conv3x3,
    norm: GroupNorm,
}

impl ConvNorm {
    fn new(params: &Params, channels: [usize; 2], config: &GroupNormConfig) -> Self {
        Self {
            conv: Conv3x3::without_bias(&params.enter("conv"), channels),
            norm: GroupNorm::new(&params.enter("norm"), channels[1], config),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.swish(self.conv.forward(x))
    }
}

/// The way of one encoder stage's output.
#[derive(Module, Debug)]
struct Level {
    norm: LayerNorm,
    reduce: Linear,
    reduce_norm: GroupNorm,
    /// After the sum with the coarser levels.
    fuse: ConvNorm,
    refine: Vec<ConvNorm>,
    /// Height and width of the map.
    side: usize,
}

impl Level {
    fn macs(&self) -> Macs {
        let pixels = self.side * self.side;
        let convs = [&self.fuse].into_iter().chain(&self.refine);
        self.reduce.macs(pixels) + convs.map(|conv| conv.conv.macs(pixels)).sum()
    }
}

/// The decoder of all encoder outputs at once.
#[derive(Module, Debug)]
pub(crate) struct MlaDecoder {
    /// Finest first.
    levels: Vec<Level>,
    head: Conv3x3,
    resolution: usize,
}

impl MlaDecoder {
    /// `[width, head_width]` are the channels of a level before and after its last convolutions.
    pub(crate) fn new(
        params: &Params,
        config: &ImageConfig,
        [width, head_width]: [usize; 2],
    ) -> Self {
        let norms = &config.group_norm;
        let level = |(i, &channels): (usize, &usize)| {
            let params = params.enter("decoder").enter("levels").enter(i);
            let refine = |j, c_in| {
                ConvNorm::new(&params.enter("refine").enter(j), [c_in, head_width], norms)
            };
            let eps = config.transformer.layer_norm_eps;
            Level {
                norm: LayerNorm::new(&params.enter("norm"), channels, true, eps),
                reduce: Linear::new(&params.enter("reduce"), [channels, width], false, 1.0),
                reduce_norm: GroupNorm::new(&params.enter("reduce_norm"), width, norms),
                fuse: ConvNorm::new(&params.enter("fuse"), [width, width], norms),
                refine: vec![refine(0usize, width), refine(1, head_width)],
                side: config.side(i),
            }
        };
        let channels = [head_width * config.channels.len(), config.image_channels];
        let head = params.enter("head").enter("conv");
        Self {
            levels: config.channels.iter().enumerate().map(level).collect(),
            head: Conv3x3::new(&head, channels, 1, config.branch_init),
            resolution: config.resolution,
        }
    }

    /// # Shapes
    ///
    /// - maps: the encoder's outputs `[B, h, w, C]`, finest first
    /// - output: `[B, H, W, image channels]`
    pub(crate) fn forward(&self, maps: Vec<Tensor<4>>) -> Tensor<4> {
        let mut above: Option<Tensor<4>> = None;
        let mut outputs = Vec::new();
        for (level, map) in self.levels.iter().zip(maps).rev() {
            let map = level.reduce_norm.swish(level.reduce.forward(level.norm.forward(map)));
            let map = match above {
                Some(above) if above.dims()[1] < level.side => map + upsample_bilinear(above),
                Some(above) => map + above,
                None => map,
            };
            above = Some(map.clone());
            let map = level.refine.iter().fold(level.fuse.forward(map), |x, conv| conv.forward(x));
            outputs.push(enlarge_bilinear(map, self.resolution / level.side));
        }
        outputs.reverse();
        self.head.forward(Tensor::cat(outputs, 3))
    }

    pub(crate) fn macs(&self) -> Macs {
        self.levels.iter().map(Level::macs).sum::<Macs>() + self.head.macs(self.resolution.pow(2))
    }
}
