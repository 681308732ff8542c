//! The kernels against the plain operations on the CPU. They need a GPU, or a program that plays
//! one: `cargo xtask device wgpu` runs them.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::supports;
use crate::diffusion::noise::{Random, Stream};
use crate::kernels::{self, Activate, Attention, LinearMap, Norm, PositionBias, plain};
use crate::network::window::relative_position_index;

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
            let index: Vec<i32> =
                relative_position_index(side).into_iter().map(|i| i as i32).collect();
            let attention = |qkv, time, table: Tensor<2>| {
                let shape = [index.len()];
                let index = TensorData::new(index.clone(), shape);
                let index = Tensor::<1, Int>::from_data(index, &table.device());
                Attention {
                    qkv,
                    time,
                    token: None,
                    bias: PositionBias::Table { table, index },
                    window: [side, side],
                }
            };
            let gpu = kernels::window_attention(
                attention(
                    on_gpu(&qkv, dtype),
                    time.as_ref().map(|time| on_gpu(time, dtype)),
                    on_gpu(&table, DType::F32),
                ),
                false,
            );
            let cpu = plain::window_attention(attention(qkv, time, table));
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
