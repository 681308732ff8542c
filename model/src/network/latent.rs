//! The latent network: a linear embedding of patches, a stack of DiffiT transformer blocks that
//! attend over the whole map, and a linear map back to patches.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use crate::config::{LatentConfig, Modulation as Kind};
use crate::kernels::{at_least_f32, swish};
use crate::network::block::Transformer;
use crate::network::dit::{DitBlock, LatentBlock, Modulation, modulate};
use crate::network::io::{BlockInfo, NetworkInput, NetworkOutput};
use crate::network::layers::{Embedding, LayerNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};
use crate::network::time::TimestepEmbedding;
use crate::network::tmsa::TransformerShape;
use crate::network::walk::Walk;
use crate::network::window::RelativePositions;

/// Initialisation of the embeddings of time and class.
const EMBEDDING_INIT: Init = Init::Normal { std: 0.02 };

/// The latent network of section 3.2 of the paper, as released by its authors.
#[derive(Module, Debug)]
pub struct LatentNetwork {
    patches: Linear,
    /// Fixed position embedding, `[1, H, W, C]`.
    positions: Option<Tensor<4>>,
    time: TimestepEmbedding,
    /// Class embedding; its last row is the null class.
    classes: Option<Embedding>,
    blocks: Vec<LatentBlock>,
    head_norm: LayerNorm,
    /// Shift and scale of the final layer, with adaLN-Zero.
    head_modulation: Option<Modulation>,
    head: Linear,
    #[module(skip)]
    config: LatentConfig,
}

impl LatentNetwork {
    /// The network of a valid configuration.
    pub(crate) fn new(params: &Params, config: &LatentConfig) -> Self {
        let LatentConfig { channels, patch, width, depth, classes, .. } = *config;
        let side = config.side();
        let window = config.window.on(side);
        let ada_ln = config.modulation == Kind::AdalnZero;
        let relative = (!ada_ln).then(|| RelativePositions::new(window, params));
        let block = |i: usize| {
            let params = params.enter("blocks").enter(i);
            let Some(relative) = &relative else {
                let block = DitBlock::new(&params, &config.transformer, width, window);
                return LatentBlock::AdaLnZero(block);
            };
            let shape = TransformerShape {
                channels: width,
                time_width: width,
                positions: relative,
                branch_init: 1.0,
            };
            LatentBlock::Tmsa(Transformer::new(&params, &config.transformer, &shape))
        };
        let head = params.enter("final_layer");
        Self {
            patches: Linear::of_patches(
                &params.enter("x_embedder").enter("proj"),
                [channels, patch, width],
            ),
            positions: params.device().map(|device| {
                let values = position_embedding(side, width);
                Tensor::from_data(TensorData::new(values, [1, side, side, width]), device)
            }),
            time: TimestepEmbedding::new(&params.enter("t_embedder"), config, EMBEDDING_INIT),
            classes: (classes > 0).then(|| {
                let params = params.enter("y_embedder").enter("embedding_table");
                Embedding::new(&params, [classes + 1, width], EMBEDDING_INIT)
            }),
            blocks: (0..depth).map(block).collect(),
            head_norm: LayerNorm::new(
                &head.enter("norm_final"),
                width,
                false,
                config.transformer.layer_norm_eps,
            ),
            head_modulation: ada_ln.then(|| Modulation::new(&head, width, 2)),
            head: Linear::with_init(
                &head.enter("linear"),
                [width, patch * patch * config.channels_out()],
                true,
                Init::Zeros,
            ),
            config: config.clone(),
        }
    }

    pub(crate) fn forward(&self, input: NetworkInput) -> NetworkOutput {
        let NetworkInput { x, c_noise, options } = input;
        let (device, dtype) = (x.device(), x.dtype());
        let p = self.config.patch;
        let channels_out = self.config.channels_out();
        let [b, side] = [x.dims()[0], self.config.side()];
        let x = Linear::patches(x, p);
        let positions =
            self.positions.clone().expect("a network built for its shapes alone cannot compute");
        let mut x = self.patches.forward(x) + positions.cast(dtype);

        let mut condition = self.time.forward(&c_noise, (&device, at_least_f32(dtype)));
        if let Some(table) = &self.classes {
            let labels = options.conditioning.labels_of(b);
            condition =
                condition + table.of_labels(&labels, self.config.classes).cast(at_least_f32(dtype));
        }
        let condition = options.time_token(condition, dtype);

        let mut walk = Walk::new(&options, condition.clone());
        for block in &self.blocks {
            x = walk.run(block, x);
        }

        let x = self.head_norm.forward(x);
        let x = match &self.head_modulation {
            Some(modulation) => {
                let [shift, scale] = modulation.forward(condition);
                modulate(x, shift, scale)
            }
            None => swish(x),
        };
        let x = self.head.forward(x);
        // (b, h, w, p q c) -> (b, c, h p, w q)
        let x = x
            .reshape([b, side, side, p, p, channels_out])
            .permute([0, 5, 1, 3, 2, 4])
            .reshape([b, channels_out, side * p, side * p]);
        walk.finish(x)
    }

    pub(crate) fn macs(&self) -> Macs {
        let tokens = self.config.side().pow(2);
        let blocks = self.blocks.iter().map(|block| block.macs(tokens, self.config.width));
        self.patches.macs(tokens)
            + self.time.macs()
            + blocks.sum()
            + self.head_modulation.iter().map(Modulation::macs).sum()
            + self.head.macs(tokens)
    }

    pub(crate) fn blocks(&self) -> Vec<BlockInfo> {
        let side = self.config.side();
        let window = self.config.window.on(side);
        let block = BlockInfo { part: "stack", side, channels: self.config.width, window };
        vec![block; self.blocks.len()]
    }
}

/// Computes the fixed position embedding of a `side x side` map, `[side, side, channels]`.
///
/// The first half of the channels encodes the column `p`, the second half the row `p`; each half is
/// `sin(p f_i)` for all `i`, then `cos(p f_i)`, with `f_i = 10000^(-i / n)` and `n = channels / 4`.
pub(crate) fn position_embedding(side: usize, channels: usize) -> Vec<f32> {
    let n = channels / 4;
    // The half that encodes a column or row of this number.
    let wave = |position: usize| {
        let angle = move |i: usize| position as f64 * 10_000f64.powf(-(i as f64) / n as f64);
        let sines = (0..n).map(move |i| libm::sin(angle(i)) as f32);
        sines.chain((0..n).map(move |i| libm::cos(angle(i)) as f32)).collect::<Vec<f32>>()
    };
    let waves: Vec<Vec<f32>> = (0..side).map(wave).collect();
    let mut values = Vec::with_capacity(side * side * channels);
    for row in &waves {
        for column in &waves {
            values.extend_from_slice(column);
            values.extend_from_slice(row);
        }
    }
    values
}
