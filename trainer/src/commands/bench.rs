//! `trainer bench`: measures speed and memory use.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anstream::println;
use anyhow::Context;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use model::config::ModelConfig;
use model::generate::{Settings, generate};
use model::loss::{LossConfig, weighted_squared_error};
use model::macs::Macs;
use model::noise::start_noise;
use model::vae::{Vae, VaeConfig};
use model::{Conditioning, Model};
use serde::Serialize;

use crate::args::{BenchArgs, Measure};
use crate::memory;

/// A measurement.
#[derive(Serialize)]
struct Measurement {
    preset: String,
    device: String,
    batch: usize,
    /// Measured operation.
    what: &'static str,
    /// Number format of weights and activations.
    precision: String,
    /// Median time per batch.
    milliseconds: f64,
    images_per_second: f64,
    /// Floating-point operations per second, two for each multiply-add.
    gflops_per_second: f64,
    /// Peak memory of the process so far, in bytes.
    peak_memory: Option<u64>,
}

/// Name of the autoencoder in place of a preset.
const AUTOENCODER: &str = "vae";

/// Runs the command.
///
/// # Errors
///
/// If a preset does not exist or the device cannot be opened.
pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    let device = args.device.device.open()?;
    let batch = args.batch as usize;
    let precision = DType::from(args.precision);
    let wanted = |measure| {
        let supported = match measure {
            Measure::Forward => true,
            Measure::Training => precision != DType::F16,
            Measure::Sampling => precision == DType::F32,
        };
        supported && (args.only.is_empty() || args.only.contains(&measure))
    };
    if !args.json {
        println!(
            "{:<12} {:<18} {:>10} {:>10} {:>10} {:>12}",
            "preset", "", "ms", "images/s", "GFLOP/s", "memory, MB"
        );
    }
    for preset in &args.presets {
        for work in operations(preset, batch, precision, &device)? {
            let Operation { what, macs, measure, prepare } = work;
            if !wanted(measure) {
                continue;
            }
            // One model at a time: some nearly fill the memory.
            let work = prepare()?;
            let time = median(work, args.time);
            let images_per_second = batch as f64 / time.as_secs_f64();
            let measurement = Measurement {
                preset: preset.clone(),
                device: format!("{:?}", args.device.device),
                batch,
                what,
                precision: precision.name().to_lowercase(),
                milliseconds: time.as_secs_f64() * 1e3,
                images_per_second,
                gflops_per_second: images_per_second * macs as f64 * 2e-9,
                peak_memory: memory::peak(),
            };
            if args.json {
                println!("{}", serde_json::to_string(&measurement)?);
            } else {
                println!(
                    "{preset:<12} {what:<18} {:>10.1} {:>10.2} {:>10.1} {:>12}",
                    measurement.milliseconds,
                    measurement.images_per_second,
                    measurement.gflops_per_second,
                    measurement
                        .peak_memory
                        .map_or("?".into(), |bytes| (bytes / 1_000_000).to_string()),
                );
            }
        }
    }
    Ok(())
}

/// An operation to measure.
struct Operation {
    what: &'static str,
    /// Multiply-adds per image.
    macs: u64,
    measure: Measure,
    prepare: Prepare,
}

/// Makes the closure that is timed.
type Prepare = Box<dyn FnOnce() -> anyhow::Result<Box<dyn FnMut()>>>;

/// Returns the operations of a preset.
fn operations(
    preset: &str,
    batch: usize,
    precision: DType,
    device: &Device,
) -> anyhow::Result<Vec<Operation>> {
    if preset == AUTOENCODER {
        return autoencoder(batch, device);
    }
    let config = model::preset::by_name(preset).with_context(|| {
        format!("{preset}: no such preset; the presets are {}", model::preset::names())
    })?;
    let macs = model::weights::shape_of(&config).macs().total();
    let work = |what, macs, measure| {
        let (config, device) = (config.clone(), device.clone());
        let prepare: Prepare = Box::new(move || match measure {
            Measure::Forward => forward(&config, batch, precision, &device),
            Measure::Training => training(&config, batch, precision, &device),
            Measure::Sampling => sampling(&config, batch, &device),
        });
        Operation { what, macs, measure, prepare }
    };
    // The backward pass takes twice the multiply-adds of the forward pass.
    Ok(vec![
        work("forward", macs, Measure::Forward),
        work("forward, backward", 3 * macs, Measure::Training),
        work("step of Heun", 2 * macs, Measure::Sampling),
    ])
}

/// Returns the median time of `work`, repeated for at least `minimum` and three times after a
/// warm-up.
fn median(mut work: impl FnMut(), minimum: Duration) -> Duration {
    work();
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < minimum || times.len() < 3 {
        let before = Instant::now();
        work();
        times.push(before.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Returns a batch of noise.
fn noise(config: &ModelConfig, batch: usize, device: &Device) -> Tensor<4> {
    let [c, h, w] = config.image_shape();
    let values = start_noise(0, batch * c * h * w);
    Tensor::from_data(TensorData::new(values, [batch, c, h, w]), device)
}

/// Waits for all operations on a device.
fn wait(device: &Device) {
    device.sync().expect("the device computes");
}

fn forward(
    config: &ModelConfig,
    batch: usize,
    precision: DType,
    device: &Device,
) -> anyhow::Result<Box<dyn FnMut()>> {
    let model = Model::new(config.clone(), 0, device)?;
    let model = model.stored_as(precision).computing_in(precision);
    let x = noise(config, batch, device);
    let device = device.clone();
    Ok(Box::new(move || {
        let _ = model.denoise(x.clone(), &vec![1.0; batch], Conditioning::default());
        wait(&device);
    }))
}

fn training(
    config: &ModelConfig,
    batch: usize,
    precision: DType,
    device: &Device,
) -> anyhow::Result<Box<dyn FnMut()>> {
    let device = device.clone().autodiff();
    // The weights stay in single precision, as in `train --precision`.
    let model = Model::new(config.clone(), 0, &device)?.computing_in(precision);
    let x = noise(config, batch, &device);
    let weight = LossConfig::default().weight(1.0);
    let weight = Tensor::<1>::from_data(TensorData::new(vec![weight; batch], [batch]), &device);
    Ok(Box::new(move || {
        let denoised =
            model.denoise(x.clone(), &vec![1.0; batch], Conditioning::default()).denoised;
        let loss = weighted_squared_error(denoised, x.clone() * 0.5, weight.clone()).sum();
        let _ = GradientsParams::from_grads(loss.backward(), &model.network);
        wait(&device);
    }))
}

fn sampling(
    config: &ModelConfig,
    batch: usize,
    device: &Device,
) -> anyhow::Result<Box<dyn FnMut()>> {
    let model = Model::new(config.clone(), 0, device)?;
    // The second of two Heun steps has one evaluation. Stopping before it leaves one whole step.
    let settings = Settings { steps: 2, ..Settings::default() };
    let seeds: Vec<u64> = (0..batch as u64).collect();
    let device = device.clone();
    Ok(Box::new(move || {
        let result = pollster::block_on(generate(&model, &settings, &seeds, &device, async |e| {
            Ok::<_, Infallible>(match e.evaluation {
                2 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        }));
        drop(result);
        wait(&device);
    }))
}

/// Returns the operations of the autoencoder, with images of 256x256.
fn autoencoder(batch: usize, device: &Device) -> anyhow::Result<Vec<Operation>> {
    let vae = Vae::new(VaeConfig::default(), 0, device)?;
    let side = 32;
    let [encoding, decoding] = vae.macs(side).map(Macs::total);
    let shape = [batch, vae.config.latent_channels, side, side];
    let latents = TensorData::new(start_noise(0, shape.iter().product()), shape);
    let latents = Tensor::<4>::from_data(latents, device);
    let images = vae.decode(latents.clone());
    let work = |what, macs, of: fn(&Vae, Tensor<4>) -> Tensor<4>, input: Tensor<4>| {
        let (vae, device) = (vae.clone(), device.clone());
        let work = move || {
            let _ = of(&vae, input.clone());
            wait(&device);
        };
        let prepare: Prepare = Box::new(move || Ok(Box::new(work)));
        Operation { what, macs, measure: Measure::Forward, prepare }
    };
    Ok(vec![
        work("decode", decoding, Vae::decode, latents),
        work("encode", encoding, |vae, images| vae.encode(images).mean, images),
    ])
}
