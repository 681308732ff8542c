//! Tests that compare the paper's blocks with an independent computation in float64, whose values
//! `tests/golden/reference.py` writes. The crate `tests` does the same for whole networks.

mod adm;
pub(crate) mod dit;
mod song;
mod synthetic;
mod time_entries;
#[cfg(feature = "train")]
mod trained;
mod vae;
#[cfg(feature = "train")]
mod variants;

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::config::{
    GroupNormConfig, ImageConfig, LatentConfig, Position, SongAttention, SongConfig, TimeConfig,
    TransformerConfig, Window,
};
use crate::diffusion::label::Label;
use crate::network::block::{ResBlock, Transformer};
use crate::network::latent::position_embedding;
use crate::network::layers::Around;
use crate::network::params::{Init, Params, Source, TensorSpec};
use crate::network::tmsa::{Tmsa, TransformerShape};
use crate::network::window::{RelativePositions, relative_position_index};

/// The bytes of a file in `tests/golden/`.
struct Golden(Vec<u8>);

impl Golden {
    /// Reads a golden file.
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// Returns the shape and the values of a tensor.
    fn values(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let view =
            file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name} in the golden file"));
        let values = match view.dtype() {
            Dtype::F64 => view
                .data()
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().expect("8")))
                .collect(),
            Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().expect("4")).into())
                .collect(),
            Dtype::I64 => view
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().expect("8")) as f64)
                .collect(),
            other => panic!("tensor {name} has the unexpected type {other:?}"),
        };
        (view.shape().to_vec(), values)
    }

    /// Returns a tensor on a device, cast to `dtype`.
    fn tensor<const D: usize>(&self, name: &str, device: &Device, dtype: DType) -> Tensor<D> {
        let (shape, values) = self.values(name);
        Tensor::from_data(TensorData::new(values, shape), (device, dtype))
    }

    /// Builds a module with the parameters of the file.
    fn build<T>(&self, device: &Device, make: impl FnOnce(&Params) -> T) -> T {
        let values = |spec: &TensorSpec| {
            let (shape, values) = self.values(&spec.name);
            assert_eq!(shape, spec.shape, "{}", spec.name);
            values.into_iter().map(|value| value as f32).collect()
        };
        let source = Source::Stored(&values);
        make(&Params::new(device, &source))
    }
}

/// The configuration of the latent network in `tests/golden/reference.py`.
pub(crate) fn latent_config() -> LatentConfig {
    let transformer = TransformerConfig { head_dim: 8, ..LatentConfig::default().transformer };
    LatentConfig {
        resolution: 8,
        width: 24,
        depth: 2,
        classes: 5,
        time_channels: 16,
        transformer,
        ..LatentConfig::default()
    }
}

/// Small networks like DDPM++ and NCSN++, the latter with TMSA.
#[cfg(feature = "train")]
pub(crate) fn song_configs() -> [SongConfig; 2] {
    let position = Position::Relative { init_std: 0.02 };
    let tmsa = SongConfig { attention: SongAttention::Tmsa { position }, ..SongConfig::ncsnpp() };
    [SongConfig::default(), tmsa].map(|config| SongConfig {
        channel_mult: vec![1, 1, 2],
        dropout: 0.3,
        ..song::small(config)
    })
}

/// The configuration of the image-space network in `tests/golden/reference.py`.
pub(crate) fn config() -> ImageConfig {
    ImageConfig {
        resolution: 8,
        channels: vec![16, 32],
        blocks: vec![2, 1],
        time: TimeConfig { channels: 8, width: 12, ..TimeConfig::default() },
        transformer: TransformerConfig { head_dim: 8, ..TransformerConfig::default() },
        window: Window::Size(4),
        group_norm: GroupNormConfig::default(),
        dropout: 0.0,
        ..ImageConfig::default()
    }
}

fn shape(
    channels: usize,
    time_width: usize,
    positions: &RelativePositions,
) -> TransformerShape<'_> {
    TransformerShape { channels, time_width, positions, branch_init: 1.0 }
}

fn tmsa(golden: &Golden, device: &Device) -> Tmsa {
    golden.build(device, |params| {
        let positions = RelativePositions::new(4, params);
        Tmsa::new(params, &config().transformer, &shape(16, 12, &positions))
    })
}

/// Asserts that all values are within `tolerance` of the golden ones, relative to the largest.
fn close<const D: usize>(found: Tensor<D>, golden: &Golden, name: &str, tolerance: f64) {
    let (shape, want) = golden.values(name);
    assert_eq!(found.dims().to_vec(), shape, "{name}");
    let found: Vec<f64> = found.into_data().convert::<f64>().try_to_vec().expect("f64");
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(&want).enumerate() {
        // Each difference is compared: `max` would ignore NaN.
        let error = (a - b).abs();
        assert!(
            error <= tolerance * scale,
            "{name}[{i}]: off by {error:e} where values reach {scale}"
        );
    }
}

#[test]
fn tmsa_matches_reference() {
    let golden = Golden::open("tmsa.safetensors");
    let device = Device::flex();
    let tmsa = tmsa(&golden, &device);
    let input = || {
        let x = golden.tensor::<4>("x", &device, DType::F32);
        (x, golden.tensor::<2>("time", &device, DType::F32))
    };
    let (x, time) = input();
    let output = tmsa.forward(x, time, false, Around::default());
    assert!(output.attention.is_none());
    close(output.context, &golden, "output", 1e-5);
    // With attention maps, the output is the same.
    let (x, time) = input();
    let output = tmsa.forward(x, time, true, Around::default());
    close(output.context, &golden, "output", 1e-5);
    let attended = output.attention.expect("attention maps");
    close(attended.weights, &golden, "weights", 1e-5);
    assert_eq!(attended.bias.dims(), [1, 2, 16, 16]);
    // The norms of the terms of Eq (3)-(5).
    let lengths: Vec<f32> = attended.lengths.into_data().try_to_vec().expect("f32");
    for (i, (input, layer)) in [("x", "qkv"), ("time", "qkv_temb")].into_iter().enumerate() {
        let (shape, x) = golden.values(input);
        let (_, weight) = golden.values(&format!("{layer}.weight"));
        let (_, bias) = golden.values(&format!("{layer}.bias"));
        let width = *shape.last().expect("a width");
        let tokens: Vec<&[f64]> = x.chunks_exact(width).take(x.len() / width / shape[0]).collect();
        for part in 0..3 {
            let length = |token: &[f64]| {
                let value = |row: usize| {
                    let row_of = &weight[row * width..][..width];
                    bias[row] + token.iter().zip(row_of).map(|(x, w)| x * w).sum::<f64>()
                };
                (16 * part..16 * (part + 1)).map(|row| value(row).powi(2)).sum::<f64>().sqrt()
            };
            let want = tokens.iter().map(|t| length(t)).sum::<f64>() / tokens.len() as f64;
            let found = f64::from(lengths[3 * i + part]);
            assert!((found / want - 1.0).abs() < 1e-4, "{layer} {part}: {found}, not {want}");
        }
    }
}

#[test]
fn transformer_block_matches_reference() {
    let golden = Golden::open("transformer.safetensors");
    let device = Device::flex();
    let block = golden.build(&device, |params| {
        let positions = RelativePositions::new(4, params);
        Transformer::new(params, &config().transformer, &shape(16, 12, &positions))
    });
    let x = golden.tensor("x", &device, DType::F32);
    let time = golden.tensor("time", &device, DType::F32);
    let (output, _) = block.forward(x, time, false);
    close(output, &golden, "output", 1e-5);
}

#[test]
fn res_block_matches_reference() {
    let golden = Golden::open("res_block.safetensors");
    let device = Device::flex();
    let block = golden.build(&device, |params| {
        ResBlock::new(params, &config(), [48, 16], &RelativePositions::new(4, params))
    });
    let x = golden.tensor("x", &device, DType::F32);
    let time = golden.tensor("time", &device, DType::F32);
    let (output, _) = block.forward(x, time, None, false);
    close(output, &golden, "output", 1e-5);
}

/// The latent network's block, bias and position embedding, with the names of the official release.
#[test]
fn parts_of_the_latent_network_match_reference() {
    let official = Golden::open("latent.official.safetensors");
    let golden = Golden::open("latent.expected.safetensors");
    let device = Device::flex();
    let transformer =
        TransformerConfig { head_dim: 8, layer_norm_affine: false, ..TransformerConfig::default() };
    let (block, bias) = official.build(&device, |params| {
        let positions = RelativePositions::new(4, params);
        let params = params.enter("blocks");
        let first = params.enter(0).enter("attn");
        let table = first.tensor("relative_position_bias_table", [49, 3], Init::Zeros);
        let block = Transformer::new(&params.enter(1), &transformer, &shape(24, 24, &positions));
        (block, positions.bias(table.val()).values().squeeze_dim::<3>(0))
    });
    close(bias, &golden, "bias", 1e-7);
    let tokens = golden.tensor("tokens", &device, DType::F32);
    let condition = golden.tensor("condition", &device, DType::F32);
    close(block.forward(tokens, condition, false).0, &golden, "block", 1e-5);
    let positions = TensorData::new(position_embedding(4, 24), [1, 16, 24]);
    close(Tensor::<3>::from_data(positions, &device), &golden, "positions", 1e-7);
    let (shape, index) = official.values("blocks.1.attn.relative_position_index");
    assert_eq!(shape, [16, 16]);
    let ours: Vec<f64> = relative_position_index(4).into_iter().map(|i| i as f64).collect();
    assert_eq!(ours, index);
}

/// Every parameter of the latent network has a gradient that is finite and not zero.
#[cfg(feature = "train")]
#[test]
fn all_parameters_of_the_latent_network_have_gradients() {
    use crate::config::NetworkConfig;
    use crate::network::Network;
    use crate::network::io::{Conditioning, NetworkInput};
    use burn::module::ModuleVisitor;
    use burn::optim::GradientsParams;

    struct Sizes<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for Sizes<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.0.get::<D>(param.id).expect("a gradient");
            assert_eq!(gradient.dims(), param.val().dims());
            self.1.push(gradient.square().sum().into_scalar::<f32>());
        }
    }

    let official = Golden::open("latent.official.safetensors");
    let golden = Golden::open("latent.expected.safetensors");
    let device = Device::flex().autodiff();
    let values = |spec: &TensorSpec| {
        official.values(&spec.name).1.into_iter().map(|value| value as f32).collect()
    };
    let source = Source::Stored(&values);
    let network = Network::new(&NetworkConfig::Latent(latent_config()), &device, &source);
    let output = network.forward(NetworkInput {
        x: golden.tensor("x", &device, DType::F32),
        c_noise: golden.values("t").1,
        options: Conditioning {
            labels: [Some(0), None, Some(2), Some(4)].map(Label::from).to_vec(),
            augment: None,
        }
        .into(),
    });
    let gradients = GradientsParams::from_grads(output.x.square().sum().backward(), &network);
    let mut sizes = Sizes(&gradients, Vec::new());
    network.visit(&mut sizes);
    assert_eq!(sizes.1.len(), network.specs().len());
    assert!(sizes.1.iter().all(|size| *size > 0.0 && size.is_finite()), "{:?}", sizes.1);
}

/// The gradients of an objective that a model was evaluated for, by parameter; those with a
/// recorder come from gradient checkpointing.
#[cfg(feature = "train")]
pub(crate) fn gradients(
    model: &crate::Model,
    objective: Tensor<1>,
    recompute: Option<crate::recompute::Recompute>,
) -> std::collections::HashMap<burn::module::ParamId, Vec<f32>> {
    use burn::module::{ModuleVisitor, ParamId};
    use burn::optim::{GradientsAccumulator, GradientsParams};
    use std::collections::HashMap;

    struct Collect<'a>(&'a GradientsParams, HashMap<ParamId, Vec<f32>>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                let values = gradient.into_data().try_into_vec().expect("f32");
                self.1.insert(param.id, values);
            }
        }
    }
    let mut sum = GradientsAccumulator::new();
    let mut take = |gradients| {
        sum.accumulate(&model.network, GradientsParams::from_grads(gradients, &model.network));
    };
    match recompute {
        Some(recompute) => recompute.backward(objective, take),
        None => take(objective.backward()),
    }
    let sum = sum.grads();
    let mut collect = Collect(&sum, HashMap::new());
    model.network.visit(&mut collect);
    collect.1
}

/// A mapper that casts parameters to `f64`, with gradients.
#[cfg(feature = "train")]
struct Widen;

#[cfg(feature = "train")]
impl ModuleMapper for Widen {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(param.id, param.val().cast(DType::F64).detach().require_grad())
    }
}

/// A mapper that adds `step` to one value of one parameter.
#[cfg(feature = "train")]
struct Nudge {
    id: burn::module::ParamId,
    index: usize,
    step: f64,
}

#[cfg(feature = "train")]
impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.id != self.id {
            return param;
        }
        param.map(|tensor| nudge(tensor, self.index, self.step))
    }
}

#[cfg(feature = "train")]
fn nudge<const D: usize>(tensor: Tensor<D>, index: usize, step: f64) -> Tensor<D> {
    let shape = tensor.dims();
    let device = tensor.device();
    let mut values = tensor.into_data().try_to_vec::<f64>().expect("f64");
    values[index] += step;
    Tensor::from_data(TensorData::new(values, shape), (&device, DType::F64))
}

/// Compares the gradients of TMSA with central differences in `f64`, for every input and every
/// parameter, and the gradients of the CPU kernels in `f32` with those in `f64`.
#[cfg(feature = "train")]
#[test]
fn tmsa_gradients_match_finite_differences() {
    use burn::module::ModuleVisitor;
    use burn::optim::GradientsParams;
    use burn::tensor::Distribution;

    struct Parameters(Vec<(burn::module::ParamId, usize)>);
    impl ModuleVisitor for Parameters {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push((param.id, param.val().shape().num_elements()));
        }
    }
    struct Gradient {
        id: burn::module::ParamId,
        values: Vec<f64>,
        gradients: GradientsParams,
    }
    impl ModuleVisitor for Gradient {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.id == self.id {
                let gradient = self.gradients.get::<D>(param.id).expect("a gradient");
                self.values = gradient.into_data().convert::<f64>().try_to_vec().expect("f64");
            }
        }
    }

    let golden = Golden::open("tmsa.safetensors");
    let device = Device::flex().autodiff();
    let narrow = tmsa(&golden, &device);
    let wide = narrow.clone().map(&mut Widen);
    let x = golden.tensor::<4>("x", &device, DType::F64).require_grad();
    let time = golden.tensor::<2>("time", &device, DType::F64).require_grad();
    // A fixed random projection of the output: a scalar that depends on every value.
    device.seed(1);
    let weight = x.random_like(Distribution::Normal(0.0, 1.0)).detach();
    let loss = |tmsa: &Tmsa, x: Tensor<4>, time: Tensor<2>| {
        (tmsa.forward(x, time, false, Around::default()).context * weight.clone()).sum()
    };
    let number = |tensor: Tensor<1>| tensor.into_scalar::<f64>();
    const STEP: f64 = 1e-5;
    let check = |what: &str, place: usize, gradient: f64, up: f64, down: f64| {
        let want = (up - down) / (2.0 * STEP);
        let scale = want.abs().max(1.0);
        assert!(
            (gradient - want).abs() < 1e-6 * scale,
            "{what}[{place}]: {gradient} is not {want}"
        );
    };

    let mut gradients = loss(&wide, x.clone(), time.clone()).backward();
    let of_x: Vec<f64> =
        x.grad(&gradients).expect("a gradient").into_data().try_to_vec().expect("f64");
    let of_time: Vec<f64> =
        time.grad(&gradients).expect("a gradient").into_data().try_to_vec().expect("f64");
    for place in (0..of_x.len()).step_by(173) {
        let at = |step| number(loss(&wide, nudge(x.clone(), place, step), time.clone()));
        check("x", place, of_x[place], at(STEP), at(-STEP));
    }
    for (place, found) in of_time.into_iter().enumerate() {
        let at = |step| number(loss(&wide, x.clone(), nudge(time.clone(), place, step)));
        check("time", place, found, at(STEP), at(-STEP));
    }
    let mut parameters = Parameters(Vec::new());
    wide.visit(&mut parameters);
    assert_eq!(parameters.0.len(), 7);
    let narrow_loss = {
        let (x, time) =
            (x.clone().detach().cast(DType::F32), time.clone().detach().cast(DType::F32));
        (narrow.forward(x, time, false, Around::default()).context
            * weight.clone().cast(DType::F32))
        .sum()
    };
    let mut narrow_gradients = narrow_loss.backward();
    for (id, len) in parameters.0 {
        let of = |tmsa: &Tmsa, gradients: &mut _| {
            let gradients = GradientsParams::from_params(gradients, tmsa, &[id]);
            let mut gradient = Gradient { id, values: Vec::new(), gradients };
            tmsa.visit(&mut gradient);
            gradient.values
        };
        let gradient = of(&wide, &mut gradients);
        for place in (0..len).step_by(len.div_ceil(12)) {
            let at = |step| {
                let nudged = wide.clone().map(&mut Nudge { id, index: place, step });
                number(loss(&nudged, x.clone(), time.clone()))
            };
            check("parameter", place, gradient[place], at(STEP), at(-STEP));
        }
        let scale = gradient.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        for (narrow, wide) in of(&narrow, &mut narrow_gradients).iter().zip(&gradient) {
            assert!((narrow - wide).abs() < 1e-4 * scale, "{narrow} in f32, {wide} in f64");
        }
    }
}
