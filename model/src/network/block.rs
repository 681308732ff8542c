//! The DiffiT transformer block (Eq 7-8) and the DiffiT ResBlock (Eq 9-10).

use burn::module::Module;
use burn::tensor::Tensor;

use crate::config::{Activation, ImageConfig, Residual, TimeEntry, TransformerConfig};
use crate::kernels::cpu::{self, Input};
use crate::kernels::{self, Activate, DropoutKeys};
use crate::network::io::AttentionMaps;
use crate::network::layers::{Around, Conv3x3, GroupNorm, LayerNorm, Linear};
use crate::network::macs::Macs;
use crate::network::params::Params;
use crate::network::tmsa::{Tmsa, TmsaOutput, TransformerShape, plus_time};
use crate::network::window::RelativePositions;

/// The MLP of a transformer block: two linear maps with an activation between them.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    /// Map of the time token to the input.
    input_temb: Option<Linear>,
    /// Map of the time token to the hidden layer.
    fc1_temb: Option<Linear>,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// The MLP of a block of this shape, with the maps of the time token that `config` asks for.
    fn new(params: &Params, config: &TransformerConfig, shape: &TransformerShape) -> Self {
        let hidden = config.mlp_ratio * shape.channels;
        let time_map =
            |name, place, d_out| shape.time_map(params.enter(name), config, place, d_out);
        Self {
            input_temb: time_map("input_temb", TimeEntry::MlpInput, shape.channels),
            fc1_temb: time_map("fc1_temb", TimeEntry::Mlp, hidden),
            ..Self::without_time(params, config, shape.channels, shape.branch_init)
        }
    }

    /// The MLP without a time token.
    pub(crate) fn without_time(
        params: &Params,
        config: &TransformerConfig,
        channels: usize,
        branch_init: f64,
    ) -> Self {
        let hidden = config.mlp_ratio * channels;
        Self {
            fc1: Linear::new(&params.enter("fc1"), [channels, hidden], true, 1.0),
            fc2: Linear::new(&params.enter("fc2"), [hidden, channels], true, branch_init),
            input_temb: None,
            fc1_temb: None,
            activation: config.activation,
        }
    }

    /// Computes the output for a normalised `x`; `time` is added where the MLP has a map of it.
    pub(crate) fn forward(&self, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        self.forward_with(x, time, Around::default())
    }

    /// Computes `MLP(LN(x)) + ..`; `around` has the layer normalisation and what is added.
    fn forward_with(&self, x: Tensor<4>, time: &Tensor<2>, around: Around<4>) -> Tensor<4> {
        let Around { mut norm, adds, .. } = around;
        let mut x = x;
        if self.input_temb.is_some() {
            // Added between the two.
            x = norm.take().map_or(x.clone(), |norm| norm.forward(x));
            x = plus_time(x, &self.input_temb, time);
        }
        let activation = match self.activation {
            Activation::GeluTanh => Activate::GeluTanh,
            Activation::Gelu => Activate::Gelu,
        };
        let hidden = |activation| Around { norm, activation, ..Around::default() };
        let x = match &self.fc1_temb {
            None => self.fc1.forward_with(x, hidden(Some(activation))),
            time_map => {
                let x = self.fc1.forward_with(x, hidden(None));
                activation.apply(plus_time(x, time_map, time))
            }
        };
        self.fc2.forward_with(x, Around { adds, ..Around::default() })
    }

    pub(crate) fn macs(&self, tokens: usize) -> Macs {
        let time_maps = self.input_temb.iter().chain(&self.fc1_temb);
        self.fc1.macs(tokens) + self.fc2.macs(tokens) + time_maps.map(|map| map.macs(1)).sum()
    }
}

/// The DiffiT transformer block: `h = TMSA(LN(x), x_t) + x` (Eq 7), `MLP(LN(h)) + h` (Eq 8).
#[derive(Module, Debug)]
pub struct Transformer {
    norm1: LayerNorm,
    attn: Tmsa,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl Transformer {
    pub(crate) fn new(
        params: &Params,
        config: &TransformerConfig,
        shape: &TransformerShape,
    ) -> Self {
        let norm = |name| LayerNorm::of_block(&params.enter(name), config, shape.channels);
        let attn = params.enter("attn");
        Self {
            norm1: norm("norm1"),
            attn: Tmsa::new(&attn, config, shape),
            norm2: norm("norm2"),
            mlp: Mlp::new(&params.enter("mlp"), config, shape),
        }
    }

    /// Computes the output, and with `weights` the attention maps.
    ///
    /// # Shapes
    ///
    /// - x, output: `[B, H, W, C]`; time: `[B, time width]`
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        self.forward_plus(x, time, None, weights)
    }

    /// As [`Transformer::forward`], with a residual added to the output.
    fn forward_plus(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        residual: Option<Tensor<4>>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let around = Around { norm: Some(&self.norm1), activation: None, adds: vec![x.clone()] };
        let TmsaOutput { context: h, attention } =
            self.attn.forward(x, time.clone(), weights, around);
        let adds = core::iter::once(h.clone()).chain(residual).collect();
        let around = Around { norm: Some(&self.norm2), activation: None, adds };
        (self.mlp.forward_with(h, &time, around), attention)
    }

    pub(crate) fn macs(&self, tokens: usize, channels: usize) -> Macs {
        self.attn.macs(tokens, channels) + self.mlp.macs(tokens)
    }
}

/// The DiffiT ResBlock: `h = Conv3x3(Swish(GN(x)))` (Eq 9), `Transformer(h, x_t) + x` (Eq 10).
#[derive(Module, Debug)]
pub struct ResBlock {
    norm: GroupNorm,
    conv: Conv3x3,
    transformer: Transformer,
    /// The 1x1 convolution of the residual, if the number of channels changes.
    residual: Option<Linear>,
    has_residual: bool,
    dropout: f64,
    channels: usize,
}

impl ResBlock {
    /// A block from maps of `c_in` channels to maps of `c_out` channels.
    pub(crate) fn new(
        params: &Params,
        config: &ImageConfig,
        [c_in, c_out]: [usize; 2],
        positions: &RelativePositions,
    ) -> Self {
        let has_residual = config.residual == Residual::Projection;
        Self {
            norm: GroupNorm::new(&params.enter("norm"), c_in, &config.group_norm),
            conv: Conv3x3::new(&params.enter("conv"), [c_in, c_out], 1, 1.0),
            transformer: Transformer::new(
                &params.enter("transformer"),
                &config.transformer,
                &TransformerShape {
                    channels: c_out,
                    time_width: config.time.width,
                    positions,
                    branch_init: config.branch_init,
                },
            ),
            residual: (has_residual && c_in != c_out)
                .then(|| Linear::new(&params.enter("residual"), [c_in, c_out], true, 1.0)),
            has_residual,
            dropout: config.dropout,
            channels: c_out,
        }
    }

    /// Computes the output, and with `weights` the attention maps.
    ///
    /// # Shapes
    ///
    /// - x: `[B, H, W, C_in]`; time: `[B, time width]`
    /// - output: `[B, H, W, C_out]`
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        dropout: Option<DropoutKeys>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let dropout = dropout.filter(|_| self.dropout > 0.0);
        if !weights
            && cpu::supports(&x)
            && let Some(output) = self.fused(x.clone(), time.clone(), dropout.clone())
        {
            return (output, None);
        }
        self.composed(x, time, dropout, weights)
    }

    /// Computes the block with the fused CPU kernel, if the kernel supports its configuration.
    fn fused(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        dropout: Option<DropoutKeys>,
    ) -> Option<Tensor<4>> {
        let Transformer { norm1, attn, norm2, mlp } = &self.transformer;
        if !self.has_residual || mlp.activation != Activation::GeluTanh {
            return None;
        }
        let kernel = cpu::Block {
            norm: self.norm.kernel(),
            dropout: dropout.map(|keys| kernels::dropout_kernel(self.dropout, keys)),
            layer_norms: [norm1.kernel(), norm2.kernel()],
            window: attn.window(),
        };
        let (time, attn) = attn.inputs(time)?;
        let mut inputs: Vec<Input> = vec![x.into(), time.into()];
        inputs.extend(self.norm.inputs());
        inputs.extend(self.conv.inputs());
        inputs.extend(norm1.inputs()?);
        inputs.extend(attn);
        inputs.extend(norm2.inputs()?);
        inputs.extend(mlp.fc1.inputs()?);
        inputs.extend(mlp.fc2.inputs()?);
        if let Some(residual) = &self.residual {
            inputs.extend(residual.inputs()?);
        }
        match <[Input; 19]>::try_from(inputs) {
            Ok(inputs) => Some(cpu::run(kernel, inputs)),
            Err(inputs) => Some(cpu::run(kernel, <[Input; 21]>::try_from(inputs).ok()?)),
        }
    }

    /// Computes the block operation by operation.
    fn composed(
        &self,
        x: Tensor<4>,
        time: Tensor<2>,
        dropout: Option<DropoutKeys>,
        weights: bool,
    ) -> (Tensor<4>, Option<AttentionMaps>) {
        let h = self.norm.swish(x.clone());
        let h = match dropout {
            Some(keys) => kernels::dropout(h, self.dropout, keys),
            None => h,
        };
        let h = self.conv.forward(h);
        let identity = (self.has_residual && self.residual.is_none()).then(|| x.clone());
        let (h, attention) = self.transformer.forward_plus(h, time, identity, weights);
        let output = match &self.residual {
            Some(projection) => {
                projection.forward_with(x, Around { adds: vec![h], ..Around::default() })
            }
            None => h,
        };
        (output, attention)
    }

    pub(crate) fn macs(&self, pixels: usize) -> Macs {
        self.conv.macs(pixels)
            + self.transformer.macs(pixels, self.channels)
            + self.residual.iter().map(|linear| linear.macs(pixels)).sum::<Macs>()
    }
}

#[cfg(all(test, feature = "train"))]
mod tests {
    use super::*;
    use crate::config::{GroupNormConfig, Window};
    use crate::diffusion::noise::{Random, Stream};
    use crate::network::params::Source;
    use burn::module::{ModuleMapper, ModuleVisitor, Param};
    use burn::tensor::{Device, Gradients, TensorData};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn normal<const D: usize>(shape: [usize; D], index: u64) -> Tensor<D> {
        let mut values = vec![0.0; shape.iter().product()];
        Random::new(1, Stream::Start, index).fill_normal(&mut values);
        let device = Device::flex().autodiff();
        Tensor::from_data(TensorData::new(values, shape), &device)
    }

    /// Adds noise to every parameter: many initial values are 0 or 1, for which errors can go
    /// unseen.
    struct Shake(u64);

    impl ModuleMapper for Shake {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.0 += 1;
            let index = self.0;
            param.map(|tensor| {
                let noise = normal(tensor.dims(), index);
                (tensor + noise * 0.2).detach().require_grad()
            })
        }
    }

    /// Collects the gradients of all parameters, in the order of the module.
    struct Collect<'a>(&'a Gradients, Vec<Vec<f32>>);

    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad(self.0).expect("a gradient");
            self.1.push(gradient.into_data().try_into_vec().expect("f32"));
        }
    }

    /// Returns the output and all gradients: of `x`, of `time`, and of the parameters.
    fn output_and_gradients(
        block: &ResBlock,
        [x, time]: [Tensor<2>; 2],
        shape: [usize; 4],
        dropout: Option<DropoutKeys>,
        fused: bool,
    ) -> Vec<Vec<f32>> {
        let (x, time) = (x.require_grad(), time.require_grad());
        let map = x.clone().reshape(shape);
        let output = if fused {
            block.fused(map, time.clone(), dropout).expect("the kernel supports this configuration")
        } else {
            block.composed(map, time.clone(), dropout, false).0
        };
        let cotangent = normal(output.dims(), 99);
        let gradients = (output.clone() * cotangent).sum().backward();
        let mut collect = Collect(&gradients, Vec::new());
        block.visit(&mut collect);
        let mut all = vec![output.into_data().try_into_vec().expect("f32")];
        for input in [x, time] {
            let gradient = input.grad(&gradients).expect("a gradient").into_data();
            all.push(gradient.try_into_vec().expect("f32"));
        }
        all.extend(collect.1);
        all
    }

    fn block(ends: [usize; 2], side: usize, head_dim: usize, dropout: f64) -> ResBlock {
        let eps = 0.1;
        let config = ImageConfig {
            window: Window::Size(side),
            dropout,
            branch_init: 1.0,
            // Large, because a normalisation over two nearly equal values multiplies the rounding
            // errors of both implementations by up to `1 / sqrt(eps)`.
            group_norm: GroupNormConfig { eps, ..GroupNormConfig::default() },
            transformer: TransformerConfig {
                head_dim,
                layer_norm_eps: eps,
                ..TransformerConfig::default()
            },
            time: crate::config::TimeConfig { width: 12, ..Default::default() },
            ..ImageConfig::default()
        };
        let device = Device::flex().autodiff();
        let params = Params::new(&device, &Source::Random { seed: 1 });
        let positions = RelativePositions::new(side, &params);
        ResBlock::new(&params, &config, ends, &positions).map(&mut Shake(0))
    }

    proptest! {
        // A fixed seed: in about one case of some thousands, a gradient is a sum that nearly
        // cancels, and the rounding errors of either implementation exceed the tolerance relative
        // to what is left.
        #![proptest_config(ProptestConfig {
            cases: 256,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::default()
        })]

        #[test]
        fn fused_block_matches_composed_block(
            b in 1usize..12, side in 1usize..5, rows in 1usize..4, columns in 1usize..4,
            heads in 1usize..4, d in 1usize..20, c_in in 1usize..40, same: bool, dropped: bool,
        ) {
            let c = heads * d;
            let c_in = if same { c } else { c_in };
            prop_assume!(c_in.is_multiple_of(GroupNormConfig::default().groups(c_in)));
            let block = block([c_in, c], side, d, if dropped { 0.3 } else { 0.0 });
            let shape = [b, rows * side, columns * side, c_in];
            let pixels = rows * side * columns * side;
            let inputs = || [normal([b, pixels * c_in], 1), normal([b, 12], 2)];
            let keys = || dropped.then(|| DropoutKeys::new(&vec![7; b], 3));
            let fused = output_and_gradients(&block, inputs(), shape, keys(), true);
            let composed = output_and_gradients(&block, inputs(), shape, keys(), false);
            assert_eq!(fused.len(), composed.len());
            for (i, (fused, composed)) in fused.iter().zip(&composed).enumerate() {
                assert_eq!(fused.len(), composed.len());
                let scale = composed.iter().fold(1e-2f32, |m, x| m.max(x.abs()));
                for (a, b) in fused.iter().zip(composed) {
                    assert!((a - b).abs() <= 1e-4 * scale, "{i}: {a} and {b}, of up to {scale}");
                }
            }
        }
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn thread_count_does_not_change_the_result() {
        let run = |threads: usize, b: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads").install(|| {
                let block = block([24, 32], 4, 16, 0.2);
                let inputs = [normal([b, 16 * 8 * 24], 1), normal([b, 12], 2)];
                let keys = DropoutKeys::new(&vec![5; b], 1);
                output_and_gradients(&block, inputs, [b, 16, 8, 24], Some(keys), true)
            })
        };
        for b in [1, 3, 19] {
            let one = run(1, b);
            for threads in [2, 3, 5] {
                assert!(one == run(threads, b), "{threads} threads");
            }
        }
    }
}
