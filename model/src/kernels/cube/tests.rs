//! Tests that compare the GPU kernels with the plain operations on the CPU, in value and in gradient.
//! They need a GPU or a software driver: `cargo xtask device wgpu` runs them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

use super::supports;
use crate::config::{ImageConfig, ModelConfig, NetworkConfig, PrecondConfig, Window};
use crate::diffusion::noise::{Random, Stream};
use crate::kernels::{
    self, Activate, Attention, DropoutKeys, LinearMap, Norm, PositionBias, plain,
};
use crate::network::io::{NetworkOptions, TrainingOptions};
use crate::network::window::relative_position_index;
use crate::{Model, golden};

thread_local! {
    /// Set to compute with plain operations on a GPU too.
    pub(super) static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Normal values from a fixed seed.
fn normal<const D: usize>(shape: [usize; D], index: u64) -> Tensor<D> {
    let mut values = vec![0.0; shape.iter().product()];
    Random::new(1, Stream::Start, index).fill_normal(&mut values);
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Copies values to the GPU, as `dtype`.
fn on_gpu<const D: usize>(x: &Tensor<D>, dtype: DType) -> Tensor<D> {
    let device = Device::wgpu(Default::default());
    Tensor::<D>::from_data(x.clone().into_data(), &device).cast(dtype)
}

fn close<const D: usize>(what: &str, gpu: Tensor<D>, cpu: Tensor<D>, tolerance: f32) {
    assert!(supports(&gpu), "{what} did not run on a GPU");
    assert_eq!(gpu.dims(), cpu.dims(), "{what}");
    let values =
        |x: Tensor<D>| -> Vec<f32> { x.cast(DType::F32).into_data().try_to_vec().expect("f32") };
    let (gpu, cpu) = (values(gpu), values(cpu));
    let scale = cpu.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
        // Each difference is compared: `max` would ignore NaN.
        let error = (gpu - cpu).abs();
        assert!(error <= tolerance * scale, "{what}[{i}]: {gpu} and {cpu}, of up to {scale}");
    }
}

/// The types to test, with the error that each is allowed. A driver may lack 16 bits.
fn types() -> Vec<(DType, f32)> {
    let device = Device::wgpu(Default::default());
    let all = [(DType::F32, 2e-5), (DType::F16, 4e-3)];
    all.into_iter().filter(|&(dtype, _)| device.supports_dtype(dtype)).collect()
}

/// The GPU, with gradients.
fn gpu() -> Device {
    Device::wgpu(Default::default()).autodiff()
}

/// The CPU, with gradients.
fn cpu() -> Device {
    Device::flex().autodiff()
}

/// Copies values to a device, as a leaf of a graph.
fn leaf<const D: usize>(x: &Tensor<D>, device: &Device) -> Tensor<D> {
    Tensor::<D>::from_data(x.clone().into_data(), device).require_grad()
}

/// Compares the output and all gradients of a function on the GPU and of another one on the CPU. The
/// arguments are tensors on the CPU.
macro_rules! compare_gradients {
    ($what:expr, $tolerance:expr, ($($x:ident),+), $gpu:expr, $cpu:expr) => {{
        $(let $x = (leaf(&$x, &gpu()), leaf(&$x, &cpu()));)+
        let found = { $(let $x = $x.0.clone();)+ $gpu };
        let wanted = { $(let $x = $x.1.clone();)+ $cpu };
        close($what, found.clone().inner(), wanted.clone().inner(), $tolerance);
        let cotangent = normal(wanted.dims(), 99);
        let found = (found * leaf(&cotangent, &gpu()).detach()).sum().backward();
        let wanted = (wanted * leaf(&cotangent, &cpu()).detach()).sum().backward();
        $({
            let (gpu, cpu) = ($x.0.grad(&found), $x.1.grad(&wanted));
            let what = format!("{}: gradient of {}", $what, stringify!($x));
            close(&what, gpu.expect("a gradient"), cpu.expect("a gradient"), 2.0 * $tolerance);
        })+
    }};
}

/// The error that gradients in `f32` are allowed.
const TOLERANCE: f32 = 2e-5;

#[test]
#[ignore = "needs a GPU"]
fn group_norm_gradients_match_plain() {
    for ([b, h, w, c], groups, swish) in [
        ([2, 16, 16, 32], 8, true),
        ([3, 5, 7, 12], 3, false),
        ([1, 1, 1, 4], 1, true),
        ([2, 3, 3, 70], 2, true),
    ] {
        let x = normal([b, h, w, c], 1) * 2.0 + 0.7;
        let (weight, bias) = (normal([c], 2), normal([c], 3));
        compare_gradients!(
            "group norm",
            TOLERANCE,
            (x, weight, bias),
            kernels::group_norm(x, groups, weight, bias, 1e-5, swish),
            plain::group_norm(x, groups, weight, bias, 1e-5, swish)
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn layer_norm_gradients_match_plain() {
    for (rows, c) in [(1024, 32), (7, 700), (1, 2), (33000, 5)] {
        let x = normal([rows, c], 1) * 3.0 - 1.0;
        let (weight, bias) = (normal([c], 2), normal([c], 3));
        compare_gradients!(
            "layer norm",
            // Two values are ±1 but for epsilon, and so hardly have a gradient.
            if c == 2 { 1e-3 } else { TOLERANCE },
            (x, weight, bias),
            kernels::layer_norm(x, weight, bias, 1e-4),
            plain::layer_norm(x, weight, bias, 1e-4)
        );
    }
}

/// The plain form of a linear map with what is around it.
fn plain_linear(map: LinearMap) -> Tensor<2> {
    let LinearMap { x, norm, weight, bias, activation, adds } = map;
    let x = match norm {
        Some(norm) => plain::layer_norm(x, norm.weight, norm.bias, norm.eps),
        None => x,
    };
    let y = x.matmul(weight);
    let y = match bias {
        Some(bias) => y + bias.unsqueeze_dim::<2>(0),
        None => y,
    };
    let y = match activation {
        Some(Activate::GeluTanh) => plain::gelu_tanh(y),
        Some(Activate::Swish) => plain::swish(y),
        Some(Activate::Gelu) => unreachable!("the kernel has none"),
        None => y,
    };
    adds.into_iter().fold(y, |y, add| y + add)
}

#[test]
#[ignore = "needs a GPU"]
fn linear_gradients_match_plain() {
    for ([m, k, n], activation) in [
        ([1024, 32, 96], None),
        ([70, 33, 45], Some(Activate::Swish)),
        ([300, 64, 256], Some(Activate::GeluTanh)),
        ([1, 256, 384], None),
        // Enough tiles for the large ones.
        ([4100, 20, 260], Some(Activate::GeluTanh)),
    ] {
        let x = normal([m, k], 1) + 0.3;
        let weight = normal([k, n], 2) / (k as f32).sqrt();
        let (scale, shift, bias) = (normal([k], 3), normal([k], 4), normal([n], 5));
        let (first, second) = (normal([m, n], 6), normal([m, n], 7));
        let around = |x, weight, bias, norm: Option<[Tensor<1>; 2]>, adds| LinearMap {
            x,
            norm: norm.map(|[weight, bias]| Norm { weight, bias, eps: 1e-4 }),
            weight,
            bias,
            activation,
            adds,
        };
        compare_gradients!(
            "linear map after a norm",
            TOLERANCE,
            (x, scale, shift, weight, bias),
            kernels::linear(around(x, weight, Some(bias), Some([scale, shift]), vec![])),
            plain_linear(around(x, weight, Some(bias), Some([scale, shift]), vec![]))
        );
        compare_gradients!(
            "linear map with residuals",
            TOLERANCE,
            (x, weight, bias, first, second),
            kernels::linear(around(x, weight, Some(bias), None, vec![first, second])),
            plain_linear(around(x, weight, Some(bias), None, vec![first, second]))
        );
        compare_gradients!(
            "linear map without bias",
            TOLERANCE,
            (x, weight, first),
            kernels::linear(around(x, weight, None, None, vec![first])),
            plain_linear(around(x, weight, None, None, vec![first]))
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn convolution_gradients_match_plain() {
    for ([b, h, w, c_in], c_out, stride, enlarged) in [
        ([1, 32, 32, 3], 32, 1, false),
        ([2, 16, 16, 64], 32, 1, false),
        ([2, 16, 16, 32], 64, 2, false),
        ([2, 8, 8, 32], 16, 1, true),
        ([3, 3, 5, 7], 5, 1, true),
        ([2, 7, 5, 5], 9, 2, false),
        ([1, 1, 1, 1], 1, 1, false),
        // Enough tiles for the large ones.
        ([4, 64, 64, 8], 68, 1, false),
    ] {
        let x = normal([b, h, w, c_in], 1);
        let kernel = normal([c_out, c_in, 3, 3], 2) / ((9 * c_in) as f32).sqrt();
        let bias = normal([c_out], 3);
        compare_gradients!(
            "convolution",
            TOLERANCE,
            (x, kernel, bias),
            if enlarged {
                kernels::upsample_conv3x3(x, kernel, bias)
            } else {
                kernels::conv3x3(x, kernel, bias, stride)
            },
            {
                let x = if enlarged { plain::upsample_nearest(x) } else { x };
                plain::conv3x3(x, kernel, bias, stride)
            }
        );
    }
}

/// The arguments of attention in square windows.
fn windows(qkv: Tensor<4>, time: Option<Tensor<2>>, table: Tensor<2>, side: usize) -> Attention {
    let index: Vec<i32> = relative_position_index(side).into_iter().map(|i| i as i32).collect();
    let shape = [index.len()];
    let index = TensorData::new(index, shape);
    let index = Tensor::<1, Int>::from_data(index, &table.device());
    let bias = PositionBias::Table { table, index };
    Attention { qkv, time, token: None, bias, window: [side, side] }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_gradients_match_plain() {
    for (b, [rows, columns], side, heads, d) in [
        (2, [4, 4], 8, 1, 32),
        (2, [1, 2], 4, 3, 16),
        (3, [2, 1], 3, 2, 5),
        // More queries than a work group has units, and a last tile of keys that is not full.
        (1, [1, 1], 9, 1, 72),
        (1, [1, 1], 16, 2, 8),
    ] {
        let c = heads * d;
        let qkv = normal([b, rows * side, columns * side, 3 * c], 1);
        let time = normal([b, 3 * c], 2);
        let table = normal([(2 * side - 1).pow(2), heads], 3);
        compare_gradients!(
            "attention",
            TOLERANCE,
            (qkv, time, table),
            kernels::window_attention(windows(qkv, Some(time), table, side), false).0,
            plain::window_attention(windows(qkv, Some(time), table, side)).0
        );
        compare_gradients!(
            "attention without time",
            TOLERANCE,
            (qkv, table),
            kernels::window_attention(windows(qkv, None, table, side), false).0,
            plain::window_attention(windows(qkv, None, table, side)).0
        );
    }
}

#[test]
#[ignore = "needs a GPU"]
fn gradients_of_attention_repeat_bit_for_bit() {
    let (side, heads, d) = (8, 2, 16);
    let qkv = normal([3, 2 * side, side, 3 * heads * d], 1);
    let table = normal([(2 * side - 1).pow(2), heads], 3);
    let gradients = || {
        let (qkv, table) = (leaf(&qkv, &gpu()), leaf(&table, &gpu()));
        let time = leaf(&normal([3, 3 * heads * d], 2), &gpu());
        let attention = windows(qkv.clone(), Some(time.clone()), table.clone(), side);
        let y = kernels::window_attention(attention, false).0;
        let gradients = y.square().sum().backward();
        let bits = |data: TensorData| -> Vec<u32> {
            data.try_to_vec::<f32>().expect("f32").into_iter().map(f32::to_bits).collect()
        };
        [
            bits(qkv.grad(&gradients).expect("a gradient").into_data()),
            bits(time.grad(&gradients).expect("a gradient").into_data()),
            bits(table.grad(&gradients).expect("a gradient").into_data()),
        ]
    };
    let first = gradients();
    assert!(first.iter().all(|values| values.iter().any(|&bits| bits != 0)));
    for _ in 0..3 {
        assert!(first == gradients());
    }
}

#[test]
#[ignore = "needs a GPU"]
fn gradients_of_joined_maps_match_plain() {
    let (a, b) = (normal([2, 3, 4, 5], 1), normal([2, 3, 4, 9], 2));
    compare_gradients!("join", 0.0, (a, b), kernels::join(a, b), Tensor::cat(vec![a, b], 3));
}

#[test]
#[ignore = "needs a GPU"]
fn dropout_matches_plain() {
    let x = normal([3, 5, 6, 7], 1);
    let keys = || DropoutKeys::new(&[1, 2, 0xFFFF_FFFF], 3);
    for p in [0.1, 0.5, 0.9] {
        let x = x.clone();
        compare_gradients!(
            "dropout",
            1e-6,
            (x),
            kernels::dropout(x, p, keys()),
            // The CPU's kernel, which other tests compare with plain operations.
            kernels::dropout(x, p, keys())
        );
    }
}

/// A small network with all that a large one has.
fn small() -> ModelConfig {
    let image = ImageConfig {
        resolution: 16,
        channels: vec![32, 64],
        blocks: vec![2, 1],
        window: Window::Size(4),
        dropout: 0.3,
        branch_init: 1.0,
        ..ImageConfig::default()
    };
    ModelConfig { network: NetworkConfig::Image(image), precond: PrecondConfig::default() }
}

/// The names of all kernels that were started, counted.
#[derive(Default)]
struct Launches(Mutex<BTreeMap<&'static str, usize>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        *self.0.lock().expect("no test panics here").entry(kernel).or_default() += 1;
    }
}

impl Launches {
    fn take(&self) -> BTreeMap<&'static str, usize> {
        core::mem::take(&mut *self.0.lock().expect("no test panics here"))
    }
}

/// A training step without an optimizer: the objective and the gradient of every parameter, by name.
struct Step {
    objective: f32,
    gradients: Vec<(String, Vec<f32>)>,
    /// Kernels that were started, forward and backward.
    kernels: [usize; 2],
}

fn step(model: &Model, device: &Device) -> Step {
    let shape @ [c, h, w] = model.config.image_shape();
    let noise = crate::noise::start_noise(1, 2 * shape.iter().product::<usize>());
    let x = Tensor::<4>::from_data(TensorData::new(noise, [2, c, h, w]), device);
    let training = TrainingOptions { dropout: Some(vec![3, 4]), recompute: None };
    let options = NetworkOptions { training, ..NetworkOptions::default() };
    let launches = Arc::new(Launches::default());
    let _observation = LaunchObservation::new(launches.clone());
    let started = Instant::now();
    let count = |pass: &str| {
        let launches = launches.take();
        for (kernel, count) in &launches {
            eprintln!("{pass}: {count:>4} {kernel}");
        }
        eprintln!("{pass}: until {:?}", started.elapsed());
        launches.values().sum()
    };
    let value = model.denoise(x, &[0.5, 2.0], options).denoised.square().mean();
    let objective = value.clone().inner().into_data().try_to_vec::<f32>().expect("f32")[0];
    let forward = count("forward");
    let mut gradients = golden::gradients(model, value, None);
    let backward = count("backward");
    let trained = model.network.specs().into_iter().filter(|spec| !spec.buffer);
    let gradients = trained.map(|spec| {
        let gradient = gradients.remove(&spec.id()).unwrap_or_default();
        (spec.name.clone(), gradient)
    });
    Step { objective, gradients: gradients.collect(), kernels: [forward, backward] }
}

#[test]
#[ignore = "needs a GPU"]
fn a_network_has_the_gradients_that_it_has_on_the_cpu() {
    let on_cpu = Model::new(small(), 1, &cpu()).expect("fits together");
    let values: BTreeMap<_, _> =
        on_cpu.parameters().into_iter().map(|(spec, values)| (spec.name, values)).collect();
    let on_gpu = Model::from_values(small(), &|spec| values[&spec.name].clone(), &gpu());
    let wanted = step(&on_cpu, &cpu());
    let found = step(&on_gpu, &gpu());
    let (a, b) = (found.objective, wanted.objective);
    assert!((a / b - 1.0).abs() < 1e-5, "{a} and {b}");
    assert_eq!(wanted.gradients.len(), found.gradients.len());
    for ((name, cpu), (_, gpu)) in wanted.gradients.iter().zip(&found.gradients) {
        assert_eq!(cpu.len(), gpu.len(), "{name}");
        let largest = cpu.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (cpu, gpu) in cpu.iter().zip(gpu) {
            assert!((cpu - gpu).abs() <= 1e-4 * largest, "{name}: {gpu} and {cpu}, of {largest}");
        }
    }
    // The layer of the augmentation labels has no gradient if there are none.
    let without = found.gradients.iter().filter(|(_, values)| values.is_empty()).count();
    assert!(without < 2, "{without} parameters have no gradient");
}

#[test]
#[ignore = "needs a GPU"]
fn a_step_takes_a_third_of_the_kernels_of_plain_operations() {
    let model = Model::new(small(), 1, &gpu()).expect("fits together");
    // Twice, since kernels are compiled in the first step.
    let kernels = [(); 2].map(|()| step(&model, &gpu()).kernels)[1];
    PLAIN.set(true);
    let plain = [(); 2].map(|()| step(&model, &gpu()).kernels)[1];
    PLAIN.set(false);
    eprintln!("forward and backward: {kernels:?} kernels, {plain:?} in plain operations");
    for (kernels, plain) in kernels.into_iter().zip(plain) {
        assert!(kernels > 0 && 3 * kernels < plain, "{kernels} and {plain}");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn group_norm_matches_plain() {
    for (dtype, tolerance) in types() {
        for ([b, h, w, c], groups, swish) in [
            ([1, 32, 32, 32], 8, true),
            ([2, 8, 8, 128], 32, true),
            ([3, 5, 7, 12], 3, false),
            ([1, 1, 1, 4], 1, true),
        ] {
            let x = normal([b, h, w, c], 1) * 2.0 + 0.7;
            let (weight, bias) = (normal([c], 2), normal([c], 3));
            let gpu = kernels::group_norm(
                on_gpu(&x, dtype),
                groups,
                on_gpu(&weight, DType::F32),
                on_gpu(&bias, DType::F32),
                1e-5,
                swish,
            );
            let cpu = plain::group_norm(x, groups, weight, bias, 1e-5, swish);
            close("group norm", gpu, cpu, tolerance);
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn layer_norm_matches_plain() {
    for (dtype, tolerance) in types() {
        for (rows, c) in [(1024, 32), (7, 300), (1, 2)] {
            let x = normal([rows, c], 1) * 3.0 - 1.0;
            let (weight, bias) = (normal([c], 2), normal([c], 3));
            let gpu = kernels::layer_norm(
                on_gpu(&x, dtype),
                on_gpu(&weight, DType::F32),
                on_gpu(&bias, DType::F32),
                1e-4,
            );
            close("layer norm", gpu, plain::layer_norm(x, weight, bias, 1e-4), tolerance);
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn linear_maps_match_plain() {
    for (dtype, tolerance) in types() {
        for ([m, k, n], normed, has_bias, activation, adds) in [
            ([1024, 32, 96], true, false, None, 0),
            ([256, 64, 256], true, true, Some(Activate::GeluTanh), 0),
            ([64, 512, 128], false, true, None, 2),
            ([70, 33, 45], false, true, Some(Activate::Swish), 1),
            ([1, 256, 384], false, true, None, 0),
            // Enough tiles for the large ones.
            ([4100, 20, 260], true, true, None, 0),
        ] {
            let x = normal([m, k], 1) + 0.3;
            let weight = normal([k, n], 2) / (k as f32).sqrt();
            let vector = |n, i| normal([n], i);
            let map = |of: &dyn Fn(Tensor<2>) -> Tensor<2>,
                       of_1: &dyn Fn(Tensor<1>) -> Tensor<1>| {
                LinearMap {
                    x: of(x.clone()),
                    norm: normed.then(|| Norm {
                        weight: of_1(vector(k, 3)),
                        bias: of_1(vector(k, 4)),
                        eps: 1e-4,
                    }),
                    weight: of(weight.clone()),
                    bias: has_bias.then(|| of_1(vector(n, 5))),
                    activation,
                    adds: (0..adds).map(|i| of(normal([m, n], 6 + i))).collect(),
                }
            };
            let gpu = map(&|x| on_gpu(&x, dtype), &|x| on_gpu(&x, dtype));
            assert!(super::linear_supports(&gpu));
            let cpu = kernels::linear(map(&|x| x, &|x| x));
            close("linear map", kernels::linear(gpu), cpu, tolerance);
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn convolutions_match_plain() {
    for (dtype, tolerance) in types() {
        for ([b, h, w, c_in], c_out, stride, enlarged) in [
            ([1, 32, 32, 3], 32, 1, false),
            ([2, 16, 16, 64], 32, 1, false),
            ([1, 16, 16, 32], 64, 2, false),
            ([1, 8, 8, 32], 16, 1, true),
            ([2, 7, 5, 5], 9, 2, false),
            ([1, 1, 1, 1], 1, 1, false),
        ] {
            let x = normal([b, h, w, c_in], 1);
            let kernel = normal([c_out, c_in, 3, 3], 2) / ((9 * c_in) as f32).sqrt();
            let bias = normal([c_out], 3);
            let [gpu_x, gpu_kernel] = [&x, &kernel].map(|x| on_gpu(x, dtype));
            let gpu_bias = on_gpu(&bias, dtype);
            let (gpu, cpu) = if enlarged {
                let x = plain::upsample_nearest(x);
                (
                    kernels::upsample_conv3x3(gpu_x, gpu_kernel, gpu_bias),
                    plain::conv3x3(x, kernel, bias, 1),
                )
            } else {
                (
                    kernels::conv3x3(gpu_x, gpu_kernel, gpu_bias, stride),
                    plain::conv3x3(x, kernel, bias, stride),
                )
            };
            close("convolution", gpu, cpu, tolerance);
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn attention_matches_plain() {
    for (dtype, tolerance) in types() {
        for (b, [rows, columns], side, heads, d, has_time) in [
            (1, [4, 4], 8, 1, 32, true),
            (2, [1, 2], 4, 3, 16, true),
            (1, [2, 1], 3, 2, 5, false),
            // More queries than a work group has units, and a last tile of keys that is not full.
            (1, [1, 1], 9, 1, 72, true),
        ] {
            let c = heads * d;
            let qkv = normal([b, rows * side, columns * side, 3 * c], 1);
            let time = has_time.then(|| normal([b, 3 * c], 2));
            let table = normal([(2 * side - 1).pow(2), heads], 3);
            let gpu = kernels::window_attention(
                windows(
                    on_gpu(&qkv, dtype),
                    time.as_ref().map(|time| on_gpu(time, dtype)),
                    on_gpu(&table, DType::F32),
                    side,
                ),
                false,
            );
            let cpu = plain::window_attention(windows(qkv, time, table, side));
            close("attention", gpu.0, cpu.0, tolerance);
        }
    }
}

#[test]
#[ignore = "needs a GPU"]
fn joined_maps_match_plain() {
    for (dtype, _) in types() {
        let (a, b) = (normal([2, 3, 4, 5], 1), normal([2, 3, 4, 9], 2));
        let gpu = kernels::join(on_gpu(&a, dtype), on_gpu(&b, dtype));
        close(
            "join",
            gpu,
            Tensor::cat(vec![a, b], 3),
            if dtype == DType::F32 { 0.0 } else { 1e-3 },
        );
    }
}
