//! DDPM++ and NCSN++: EDM's `SongUNet`, under EDM's tensor names.

mod block;
mod resample;

use core::f64::consts::FRAC_1_SQRT_2;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::config::{Direction, GroupNormConfig, SongConfig, SongEmbedding, SongEncoder};
use crate::kernels::at_least_f32;
use crate::network::io::{BlockInfo, NetworkInput, NetworkOutput};
use crate::network::layers::{ClassEmbedding, Conv3x3, GroupNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::Params;
use crate::network::song::block::{BRANCH_INIT, SongBlock};
use crate::network::song::resample::{Filter, pad};
use crate::network::time::{TimeEmbedding, fourier_frequencies, positional_frequencies};
use crate::network::walk::Walk;

/// The network of a [`SongConfig`].
#[derive(Module, Debug)]
pub(crate) struct SongNetwork {
    mapping: TimeEmbedding,
    conv: Conv3x3,
    encoder: Vec<SongBlock>,
    /// Convolutions of the residual encoder: one for each level after the first.
    aux: Vec<Conv3x3>,
    decoder: Vec<SongBlock>,
    aux_norm: GroupNorm,
    aux_conv: Conv3x3,
    #[module(skip)]
    filter: Filter,
    #[module(skip)]
    config: SongConfig,
}

impl SongNetwork {
    /// The network of a valid configuration.
    pub(crate) fn new(params: &Params, config: &SongConfig) -> Self {
        let (enc, dec) = (params.enter("enc"), params.enter("dec"));
        let ([c_image, c_first], r) =
            ([config.image_channels, config.model_channels], config.resolution);
        let mapping = mapping(params, config);
        let conv = Conv3x3::new(&enc.enter(format!("{r}x{r}_conv")), [c_image, c_first], 1, 1.0);
        let mut aux = Vec::new();
        let mut encoder = Vec::new();
        let mut c_aux = c_image;
        for plan in config.encoder_blocks() {
            encoder.push(SongBlock::new(&enc.enter(&plan.name), config, &plan));
            if config.encoder == SongEncoder::Residual && plan.resample == Some(Direction::Down) {
                let params = enc.enter(format!("{0}x{0}_aux_residual", plan.side));
                aux.push(Conv3x3::new(&params, [c_aux, plan.channels], 1, 1.0));
                c_aux = plan.channels;
            }
        }
        let decoder: Vec<SongBlock> = (config.decoder_blocks().iter())
            .map(|plan| SongBlock::new(&dec.enter(&plan.name), config, plan))
            .collect();
        let c_last = decoder.last().map_or(c_first, |block| block.plan().channels);
        let last = |name| dec.enter(format!("{r}x{r}_{name}"));
        Self {
            mapping,
            conv,
            encoder,
            aux,
            decoder,
            aux_norm: GroupNorm::new(&last("aux_norm"), c_last, &GroupNormConfig::default()),
            aux_conv: Conv3x3::new(&last("aux_conv"), [c_last, c_image], 1, BRANCH_INIT),
            filter: Filter::new(&config.resample_filter),
            config: config.clone(),
        }
    }

    pub(crate) fn forward(&self, input: NetworkInput) -> NetworkOutput {
        let NetworkInput { x, c_noise, options } = input;
        let conditioning = &options.conditioning;
        let target = (&x.device(), at_least_f32(x.dtype()));
        let labels = conditioning.labels_of(c_noise.len());
        let time = self.mapping.forward(&c_noise, &labels, conditioning.augment.clone(), target);
        let time = options.time_token(time, x.dtype());
        let mut walk = Walk::new(&options, time.clone());
        // Gradient checkpointing backpropagates part by part, and through each operation once. A
        // map with several readers therefore has to be the output of a part: these convolutions
        // are parts too.
        let convolve = |conv: &Conv3x3, x: Tensor<4>, filter: Option<&Filter>| {
            let filter = filter.cloned();
            let forward = move |conv: &Conv3x3, x: Tensor<4>| match &filter {
                // The bias passes through the filter unchanged: it is the same for every pixel.
                Some(filter) => filter.down_inside(conv.forward(pad(x, filter.padding()))),
                None => conv.forward(x),
            };
            #[cfg(feature = "train")]
            if let Some(recompute) = &options.training.recompute {
                let forward = move |conv: &Conv3x3, x, _: Tensor<2>| forward(conv, x);
                return recompute.block(conv, x, time.clone(), forward);
            }
            forward(conv, x)
        };

        // (b, c, h, w) -> (b, h, w, c)
        let input = x.permute([0, 2, 3, 1]);
        let mut aux = input.clone();
        let mut aux_convs = self.aux.iter();
        let mut x = convolve(&self.conv, input, None);
        let mut skips = vec![x.clone()];
        for block in &self.encoder {
            x = walk.run(block, x);
            let residual = aux_convs.as_slice().first();
            if let (Some(conv), Some(Direction::Down)) = (residual, block.plan().resample) {
                aux_convs.next();
                let residual = convolve(conv, aux, Some(&self.filter));
                // A sum for each of its readers, for the same reason.
                let sum = || (x.clone() + residual.clone()) * FRAC_1_SQRT_2;
                skips.push(sum());
                aux = sum();
                x = sum();
            } else {
                skips.push(x.clone());
            }
        }
        for block in &self.decoder {
            if block.plan().skip {
                let skip = skips.pop().expect("the encoder has as many outputs");
                x = Tensor::cat(vec![x, skip], 3);
            }
            x = walk.run(block, x);
        }
        let x = self.aux_conv.forward(self.aux_norm.swish(x));
        // (b, h, w, c) -> (b, c, h, w)
        walk.finish(x.permute([0, 3, 1, 2]))
    }

    pub(crate) fn macs(&self) -> Macs {
        let pixels = self.config.resolution.pow(2);
        // At the resolution of their input. The border that the filter also reads is not counted.
        let aux = self.aux.iter().enumerate();
        let aux = aux.map(|(level, conv)| conv.macs(self.config.side(level).pow(2)));
        self.mapping.macs()
            + self.conv.macs(pixels)
            + self.encoder.iter().chain(&self.decoder).map(SongBlock::macs).sum()
            + aux.sum()
            + self.aux_conv.macs(pixels)
    }

    pub(crate) fn blocks(&self) -> Vec<BlockInfo> {
        let info = |part, block: &SongBlock| {
            let plan = block.plan();
            let window = if plan.attention { plan.side } else { 0 };
            BlockInfo { part, side: plan.side, channels: plan.channels, window }
        };
        let encoder = self.encoder.iter().map(|block| info("encoder", block));
        encoder.chain(self.decoder.iter().map(|block| info("decoder", block))).collect()
    }
}

/// The time embedding under EDM's tensor names.
fn mapping(params: &Params, config: &SongConfig) -> TimeEmbedding {
    let (channels, width) = (config.noise_channels(), config.time_width());
    let n = channels / 2;
    let angular = match config.embedding {
        SongEmbedding::Positional { max_period } => positional_frequencies(n, max_period),
        SongEmbedding::Fourier { scale } => {
            fourier_frequencies(&params.enter("map_noise"), "freqs", n, scale)
        }
    };
    let linear = |name, dims| Linear::new(&params.enter(name), dims, true, 1.0);
    TimeEmbedding {
        class: (config.classes > 0).then(|| {
            ClassEmbedding::with_bias(&params.enter("map_label"), config.classes, channels)
        }),
        augment: (config.augment_labels > 0).then(|| {
            let dims = [config.augment_labels, channels];
            Linear::new(&params.enter("map_augment"), dims, false, 1.0)
        }),
        fc1: linear("map_layer0", [channels, width]),
        fc2: linear("map_layer1", [width, width]),
        angular,
    }
}
