//! Tests of ADM's discrete process, objective and samplers, in the units of the publication.

use core::convert::Infallible;
use core::ops::ControlFlow;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{Golden, close};
use crate::config::{LinearBetas, PrecondConfig};
use crate::diffusion::discrete::{Diffusion, Respacing};
use crate::diffusion::noise::{churn_noise, start_noise};
use crate::diffusion::sampler::{Churn, Evaluation, Method, Prediction, Variance, sample};
use crate::diffusion::schedule::Schedule;
use crate::training::hybrid::{HybridInputs, HybridLoss};

fn diffusion(text: &str) -> Diffusion {
    let Respacing { spacing, steps } = text.parse().expect("ADM's notation");
    Diffusion::new(&LinearBetas::default()).respaced(&spacing, steps).expect("a valid respacing")
}

fn schedule(text: &str) -> Vec<f64> {
    let Respacing { spacing, steps } = text.parse().expect("ADM's notation");
    Schedule::Adm { betas: LinearBetas::default(), spacing }.sigmas(steps)
}

#[test]
fn processes_match_adm() {
    let golden = Golden::open("adm.safetensors");
    for text in ["1000", "250", "ddim50", "10,15,20"] {
        let diffusion = diffusion(text);
        let posteriors: Vec<_> = (0..diffusion.len()).map(|t| diffusion.posterior(t)).collect();
        let of = |value: fn(&crate::diffusion::discrete::Posterior) -> f64| {
            posteriors.iter().map(value).collect::<Vec<_>>()
        };
        for (name, found) in [
            ("indices", diffusion.indices().iter().map(|&t| t as f64).collect()),
            ("bar", diffusion.alphas_bar().to_vec()),
            ("beta", diffusion.betas().to_vec()),
            ("variance", of(|p| p.variance)),
            ("log_small", of(|p| p.log_small)),
            ("log_large", of(|p| p.log_large)),
            ("c_picture", of(|p| p.c_picture)),
            ("c_noisy", of(|p| p.c_noisy)),
        ] {
            let (_, want) = golden.values(&format!("{text}.{name}"));
            assert_eq!(found.len(), want.len());
            for (t, (found, want)) in found.into_iter().zip(want).enumerate() {
                let off = (found - want).abs();
                assert!(off <= 1e-9 * want.abs(), "{text}: {name}[{t}] is {found}, not {want}");
            }
        }
    }
}

#[cfg(feature = "train")]
#[test]
fn hybrid_loss_and_gradient_match_adm() {
    let golden = Golden::open("adm.safetensors");
    let (_, times) = golden.values("hybrid.times");
    let times: Vec<usize> = times.into_iter().map(|t| t as usize).collect();
    let device = Device::flex().autodiff();
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 2e-4)] {
        let tensor = |name| golden.tensor::<4>(name, &device, dtype);
        let output = tensor("hybrid.output").require_grad();
        let channels = output.dims()[1] / 2;
        let inputs = HybridInputs {
            images: tensor("hybrid.images"),
            noise: tensor("hybrid.noise"),
            times: &times,
            predicted: output.clone().narrow(1, 0, channels),
            variance: output.clone().narrow(1, channels, channels),
        };
        let loss = diffusion("100").hybrid_loss(inputs);
        let HybridLoss { squared_error, variational } = loss.clone();
        close(squared_error.inner(), &golden, "hybrid.squared_error", tolerance);
        close(variational.inner(), &golden, "hybrid.variational", tolerance);
        let gradient = output.grad(&loss.total(1.0).sum().backward()).expect("a gradient");
        close(gradient, &golden, "hybrid.gradient", tolerance);
    }
}

/// A function in place of a network: noise and variance, computed from `x_t` and `t` by formulas.
fn fixed_network(x: Tensor<4>, t: f64) -> (Tensor<4>, Tensor<4>) {
    let noise = x.clone() * 0.6 + (x.clone() * 3.0 + t / 200.0).sin() * 0.2;
    (noise, (x * 2.0 - t / 300.0).cos())
}

/// Trajectories of this crate's samplers, which work with noise levels, converted to ADM's `x_t`.
#[test]
fn trajectories_match_adm() {
    let golden = Golden::open("adm.safetensors");
    let device = Device::flex();
    let noise = |of: &dyn Fn(u64) -> Vec<f32>| {
        let values: Vec<f32> = [3, (1 << 40) + 1].into_iter().flat_map(of).collect();
        Tensor::<4>::from_data(TensorData::new(values, [2, 1, 3, 3]), (&device, DType::F64))
    };
    let precond = PrecondConfig::Adm { betas: LinearBetas::default() };
    for (name, text, method, clip) in [
        ("ddpm", "10", Method::Ddpm { variance: Variance::Learned }, false),
        ("ddim", "ddim20", Method::Ddim { eta: 0.7 }, true),
    ] {
        let sigmas = schedule(text);
        let mut trajectory = Vec::new();
        let x = pollster::block_on(sample(
            method,
            &Churn::default(),
            &sigmas,
            noise(&|seed| start_noise(seed, 9)) * precond.initial_std(sigmas[0]),
            |step| noise(&|seed| churn_noise(seed, step, 9)),
            async |x: &Tensor<4>, sigma| {
                let c = precond.coefficients(sigma);
                let (raw, variance) = fixed_network(x.clone() * c.c_in, c.c_noise);
                let denoised = x.clone() * c.c_skip + raw * c.c_out;
                let denoised = if clip { denoised.clamp(-1.0, 1.0) } else { denoised };
                Ok::<_, Infallible>(Prediction { denoised, variance: Some(variance) })
            },
            async |e: Evaluation<'_>| {
                if e.step > 0 {
                    trajectory.push(e.x.clone() / e.sigma.hypot(1.0));
                }
                Ok(ControlFlow::Continue(()))
            },
        ));
        trajectory.push(x.expect("infallible").expect("not cancelled"));
        close(Tensor::stack::<5>(trajectory, 0), &golden, name, 1e-10);
    }
}
