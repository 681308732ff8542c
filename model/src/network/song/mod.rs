//! DDPM++ and NCSN++: EDM's `SongUNet`, under EDM's tensor names.

mod block;
mod resample;

use core::f64::consts::{FRAC_1_SQRT_2, TAU};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use crate::config::{Direction, GroupNormConfig, SongConfig, SongEmbedding, SongEncoder};
use crate::diffusion::label::Label;
use crate::kernels::{DropoutKeys, at_least_f32, swish};
use crate::network::io::{BlockInfo, NetworkInput, NetworkOutput};
use crate::network::layers::{ClassEmbedding, Conv3x3, GroupNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};
use crate::network::song::block::{BRANCH_INIT, SongBlock};
use crate::network::song::resample::{Filter, pad};
use crate::network::time::sinusoid;

/// The network of a [`SongConfig`].
#[derive(Module, Debug)]
pub(crate) struct SongNetwork {
    mapping: Mapping,
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
        let mapping = Mapping::new(params, config);
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
        let mut attention = None;
        let mut number = 0;
        let mut run = |block: &SongBlock, x: Tensor<4>| {
            let wanted = options.inspection.attention_of == Some(number);
            let dropout =
                options.training.dropout.as_ref().map(|keys| DropoutKeys::new(keys, number));
            number += 1;
            #[cfg(feature = "train")]
            if let Some(recompute) = &options.training.recompute {
                return recompute.block(block, x, time.clone(), move |block, x, time| {
                    block.forward(x, time, dropout.clone(), false).0
                });
            }
            let (x, maps) = block.forward(x, time.clone(), dropout, wanted);
            attention = attention.take().or(maps);
            x
        };
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
            x = run(block, x);
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
            x = run(block, x);
        }
        let x = self.aux_conv.forward(self.aux_norm.swish(x));
        // (b, h, w, c) -> (b, c, h, w)
        NetworkOutput { x: x.permute([0, 3, 1, 2]), attention }
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

/// Embedding of the noise level, labels, and an MLP.
#[derive(Module, Debug)]
struct Mapping {
    map_label: Option<ClassEmbedding>,
    map_augment: Option<Linear>,
    map_layer0: Linear,
    map_layer1: Linear,
    /// Factors of the noise level in the sinusoid's argument.
    #[module(skip)]
    frequencies: Vec<f64>,
}

impl Mapping {
    fn new(params: &Params, config: &SongConfig) -> Self {
        let (channels, width) = (config.noise_channels(), config.time_width());
        let n = channels / 2;
        let frequencies = match config.embedding {
            SongEmbedding::Positional { max_period } => {
                (0..n).map(|i| max_period.powf(-(i as f64) / (n - 1) as f64)).collect()
            }
            SongEmbedding::Fourier { scale } => {
                let frequencies =
                    params.enter("map_noise").buffer("freqs", n, Init::Normal { std: scale });
                frequencies.into_iter().map(|f| TAU * f64::from(f)).collect()
            }
        };
        let linear = |name, dims| Linear::new(&params.enter(name), dims, true, 1.0);
        Self {
            map_label: (config.classes > 0).then(|| {
                ClassEmbedding::with_bias(&params.enter("map_label"), config.classes, channels)
            }),
            map_augment: (config.augment_labels > 0).then(|| {
                let dims = [config.augment_labels, channels];
                Linear::new(&params.enter("map_augment"), dims, false, 1.0)
            }),
            map_layer0: linear("map_layer0", [channels, width]),
            map_layer1: linear("map_layer1", [width, width]),
            frequencies,
        }
    }

    fn forward(
        &self,
        c_noise: &[f64],
        labels: &[Label],
        augment: Option<Tensor<2>>,
        options: (&Device, DType),
    ) -> Tensor<2> {
        let mut x = sinusoid(c_noise, &self.frequencies, [libm::sin, libm::cos], options);
        if let Some(class) = &self.map_label {
            x = x + class.forward(labels, options);
        }
        if let (Some(linear), Some(labels)) = (&self.map_augment, augment) {
            x = x + linear.forward(labels);
        }
        swish(self.map_layer1.forward(swish(self.map_layer0.forward(x))))
    }

    fn macs(&self) -> Macs {
        self.map_label.iter().map(ClassEmbedding::macs).sum::<Macs>()
            + self.map_augment.iter().map(|linear| linear.macs(1)).sum::<Macs>()
            + self.map_layer0.macs(1)
            + self.map_layer1.macs(1)
    }
}
