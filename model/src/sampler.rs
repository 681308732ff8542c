//! Samplers: how pictures come out of noise, given a denoiser and a list of noise levels.
//!
//! A sampler knows nothing of networks, and noise levels are all it knows of time: those of
//! discrete time come from `ᾱ = 1 / (1 + σ²)`. It sees `denoise(x, sigma)`, which returns the
//! denoised picture, and after each evaluation it calls `on_step`, which serves progress, preview and
//! cancelling alike. Both may wait: in a browser they have to.

use core::ops::ControlFlow;

use burn::tensor::Tensor;

pub use crate::settings::{Churn, Method, Variance};

/// The range of the variance of a step from noise level `sigma` to `next`, in units of the
/// picture: those of discrete time, over `ᾱ = 1 / (1 + next²)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepVariance {
    /// `next² (σ² - next²) / σ²`
    pub small: f64,
    /// `(1 + next²) (σ² - next²) / (1 + σ²)`
    pub large: f64,
}

impl StepVariance {
    /// Of a step from `sigma` down to `next`.
    pub fn of(sigma: f64, next: f64) -> Self {
        let fall = (sigma - next) * (sigma + next);
        Self {
            small: fall * (next / sigma).powi(2),
            large: fall * (1.0 + next * next) / (1.0 + sigma * sigma),
        }
    }
}

/// What a denoiser makes of a noisy picture.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// D(x; σ), `[B, C, H, W]`.
    pub denoised: Tensor<4>,
    /// Where the variance of an ancestral step lies by its logarithm, from -1 for the smallest to
    /// 1 for the largest, `[B, C, H, W]`; none from a denoiser that does not say.
    pub variance: Option<Tensor<4>>,
}

impl From<Tensor<4>> for Prediction {
    fn from(denoised: Tensor<4>) -> Self {
        Self { denoised, variance: None }
    }
}

/// What `on_step` is told after an evaluation of the denoiser.
#[derive(Debug)]
pub struct Evaluation<'a> {
    /// The step it belongs to, counted from 0.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Evaluations done, this one included.
    pub evaluation: usize,
    /// Evaluations in all.
    pub evaluations: usize,
    /// The noise level of `x`.
    pub sigma: f64,
    /// The noisy picture.
    pub x: &'a Tensor<4>,
    /// What the denoiser made of it.
    pub denoised: &'a Tensor<4>,
}

/// Takes `x` from the first of `sigmas` to the last.
///
/// `x` is a picture at noise level `sigmas[0]`: unit noise times that level, or a picture with
/// such noise added. `noise(step)` returns unit noise of its shape and is called, once a step,
/// only where the step adds any. Returns the picture, or `None` if `on_step` broke off.
///
/// # Errors
///
/// Whatever `denoise` or `on_step` fail with.
///
/// # Panics
///
/// If `sigmas` has fewer than two levels.
pub async fn sample<E, P: Into<Prediction>>(
    method: Method,
    churn: &Churn,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut noise: impl FnMut(usize) -> Tensor<4>,
    mut denoise: impl AsyncFnMut(&Tensor<4>, f64) -> Result<P, E>,
    mut on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    assert!(sigmas.len() > 1, "a schedule has at least two noise levels");
    let steps = sigmas.len() - 1;
    let evaluations = method.evaluations(steps);
    let mut evaluation = 0;
    // What is predicted at `x`, and the slope dx/dσ of the probability flow, which is the noise;
    // `None` if `on_step` breaks off.
    let mut evaluate = async |x: &Tensor<4>, sigma: f64, step: usize| -> Result<_, E> {
        let prediction: Prediction = denoise(x, sigma).await?.into();
        evaluation += 1;
        let denoised = &prediction.denoised;
        let told = Evaluation { step, steps, evaluation, evaluations, sigma, x, denoised };
        let slope = (x.clone() - denoised.clone()) / sigma;
        Ok(match on_step(told).await? {
            ControlFlow::Continue(()) => Some((prediction, slope)),
            ControlFlow::Break(()) => None,
        })
    };
    for (step, pair) in sigmas.windows(2).enumerate() {
        let (sigma, next) = (pair[0], pair[1]);
        let raised = match method {
            Method::Euler | Method::Heun => churn.raise(sigma, steps),
            Method::Ddim { .. } | Method::Ddpm { .. } => sigma,
        };
        if raised > sigma {
            let added = churn.s_noise * (raised.powi(2) - sigma.powi(2)).sqrt();
            x = x + noise(step) * added;
        }
        let Some((Prediction { denoised, variance }, d)) = evaluate(&x, raised, step).await? else {
            return Ok(None);
        };
        let StepVariance { small, large } = StepVariance::of(sigma, next);
        x = match method {
            Method::Heun if next > 0.0 => {
                let euler = x.clone() + d.clone() * (next - raised);
                let Some((_, d_next)) = evaluate(&euler, next, step).await? else {
                    return Ok(None);
                };
                x + (d + d_next) * (0.5 * (next - raised))
            }
            Method::Euler | Method::Heun => x + d * (next - raised),
            // A step of no width changes nothing, and the last adds no noise.
            _ if next == sigma => x,
            _ if next == 0.0 => denoised,
            Method::Ddim { eta } => {
                let fresh = eta * eta * small;
                let x = denoised + d * (next * next - fresh).max(0.0).sqrt();
                if fresh > 0.0 { x + noise(step) * fresh.sqrt() } else { x }
            }
            Method::Ddpm { variance: kind } => {
                let mean = denoised + d * (next * next / sigma);
                let added = match (kind, variance) {
                    (Variance::Large, _) => noise(step) * large.sqrt(),
                    (Variance::Learned, Some(place)) => {
                        // Half the logarithm of the variance is that of the deviation.
                        let (low, high) = (0.5 * small.ln(), 0.5 * large.ln());
                        let log = (place + 1.0) * (0.5 * (high - low)) + low;
                        noise(step) * log.exp()
                    }
                    (Variance::Small | Variance::Learned, _) => noise(step) * small.sqrt(),
                };
                mean + added
            }
        };
    }
    Ok(Some(x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;
    use burn::tensor::{DType, Device, TensorData};
    use core::convert::Infallible;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    /// Runs a future that never waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("nothing here waits"),
        }
    }

    fn scalar(value: f64) -> Tensor<4> {
        let data = TensorData::new(vec![value], [1, 1, 1, 1]);
        Tensor::from_data(data, (&Device::flex(), DType::F64))
    }

    fn value(x: &Tensor<4>) -> f64 {
        x.to_data().try_to_vec::<f64>().expect("one f64")[0]
    }

    const MEAN: f64 = 0.3;
    const STD: f64 = 0.7;

    /// The best denoiser for data that are N(MEAN, STD²).
    fn gaussian(x: &Tensor<4>, sigma: f64) -> Tensor<4> {
        let total = STD.powi(2) + sigma.powi(2);
        x.clone() * (STD.powi(2) / total) + MEAN * sigma.powi(2) / total
    }

    /// Where the probability flow takes `x` from noise level `sigma` to 0.
    fn exact(x: f64, sigma: f64) -> f64 {
        MEAN + (x - MEAN) * STD / (STD.powi(2) + sigma.powi(2)).sqrt()
    }

    /// Values of many pictures of one value, sampled from `N(0, 80²)` noise.
    fn spread(method: Method, churn: &Churn, steps: usize) -> (f32, f32) {
        use crate::noise::{Random, Stream};
        let n = 4_000;
        let normals = |index: u64| {
            let mut values = vec![0.0f32; n];
            Random::new(5, Stream::Churn, index).fill_normal(&mut values);
            Tensor::<4>::from_data(TensorData::new(values, [n, 1, 1, 1]), &Device::flex())
        };
        let x = now(sample(
            method,
            churn,
            &Schedule::default().sigmas(steps),
            normals(u64::MAX) * 80.0,
            |step| normals(step as u64),
            async |x: &Tensor<4>, sigma| Ok::<_, Infallible>(gaussian(x, sigma)),
            async |_| Ok(ControlFlow::Continue(())),
        ));
        let x = x.expect("infallible").expect("not cancelled").into_data();
        let x: Vec<f32> = x.try_to_vec().expect("f32");
        let mean = x.iter().sum::<f32>() / n as f32;
        (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n as f32).sqrt())
    }

    fn run(method: Method, steps: usize, start: f64) -> f64 {
        let x = now(sample(
            method,
            &Churn::default(),
            &Schedule::default().sigmas(steps),
            scalar(start),
            |_| unreachable!("no churn"),
            async |x: &Tensor<4>, sigma| Ok::<_, Infallible>(gaussian(x, sigma)),
            async |_| Ok(ControlFlow::Continue(())),
        ));
        value(&x.expect("infallible").expect("not cancelled"))
    }

    #[test]
    fn errors_fall_with_the_order_of_the_method() {
        for (method, order) in [(Method::Euler, 1.0), (Method::Heun, 2.0)] {
            let error = |steps| (run(method, steps, 50.0) - exact(50.0, 80.0)).abs();
            for steps in [64, 128, 256] {
                let seen = (error(steps) / error(2 * steps)).log2();
                assert!((seen - order).abs() < 0.15, "{method:?} at {steps}: order {seen}");
            }
        }
    }

    #[test]
    fn a_gaussian_is_sampled_exactly() {
        // With many steps, to the precision of the method; the data point itself, in one.
        assert!((run(Method::Heun, 1000, -60.0) - exact(-60.0, 80.0)).abs() < 1e-5);
        let point = now(sample(
            Method::Heun,
            &Churn::default(),
            &Schedule::default().sigmas(7),
            scalar(80.0),
            |_| unreachable!("no churn"),
            async |_: &Tensor<4>, _| Ok::<_, Infallible>(scalar(MEAN)),
            async |_| Ok(ControlFlow::Continue(())),
        ));
        assert!((value(&point.expect("infallible").expect("done")) - MEAN).abs() < 1e-12);
    }

    #[test]
    fn fresh_noise_keeps_the_spread_of_a_gaussian() {
        let churn = Churn { s_churn: 30.0, ..Churn::default() };
        let none = Churn::default();
        for (method, churn, steps) in [
            (Method::Heun, &churn, 60),
            (Method::Ddim { eta: 0.5 }, &none, 250),
            (Method::Ddim { eta: 1.0 }, &none, 250),
            (Method::Ddpm { variance: Variance::Learned }, &none, 250),
            (Method::Ddpm { variance: Variance::Large }, &none, 1000),
        ] {
            let (mean, std) = spread(method, churn, steps);
            let (mean, std) = (mean - MEAN as f32, std - STD as f32);
            assert!(mean.abs() < 0.05 && std.abs() < 0.05, "{method:?}: off by {mean}, {std}");
        }
    }

    /// A step by hand: the posterior of discrete time, in its own units.
    #[test]
    fn ancestral_steps_are_those_of_discrete_time() {
        use crate::config::LinearBetas;
        use crate::discrete::{Diffusion, Spacing};
        let diffusion = Diffusion::new(&LinearBetas::default());
        let diffusion = diffusion.respaced(&Spacing::Ddim, 10).expect("stride 100");
        let (y, z, place) = (0.4, -0.7, 0.3);
        for t in 1..diffusion.len() {
            let (alpha, before) = (diffusion.alphas_bar()[t], diffusion.alphas_bar()[t - 1]);
            let posterior = diffusion.posterior(t);
            let x_t = 1.3;
            let levels = [diffusion.sigmas()[t], diffusion.sigmas()[t - 1]];
            let step = |method| {
                let x = now(sample(
                    method,
                    &Churn::default(),
                    &levels,
                    scalar(x_t / alpha.sqrt()),
                    |_| scalar(z),
                    async |_: &Tensor<4>, _| {
                        let variance = Some(scalar(place));
                        Ok::<_, Infallible>(Prediction { denoised: scalar(y), variance })
                    },
                    async |_| Ok(ControlFlow::Continue(())),
                ));
                value(&x.expect("infallible").expect("not cancelled")) * before.sqrt()
            };
            let mean = posterior.c_picture * y + posterior.c_noisy * x_t;
            let log = (1.0 + place) / 2.0 * posterior.log_large
                + (1.0 - place) / 2.0 * posterior.log_small;
            for (variance, deviation) in [
                (Variance::Small, posterior.variance.sqrt()),
                (Variance::Large, diffusion.betas()[t].sqrt()),
                (Variance::Learned, (0.5 * log).exp()),
            ] {
                let found = step(Method::Ddpm { variance });
                let want = mean + deviation * z;
                assert!((found - want).abs() < 1e-9, "{variance:?} at {t}: {found}, not {want}");
            }
            // DDIM's eq 12 and 16.
            let eps = (x_t - alpha.sqrt() * y) / (1.0 - alpha).sqrt();
            for eta in [0.0, 0.5, 1.0] {
                let s = eta * ((1.0 - before) / (1.0 - alpha) * (1.0 - alpha / before)).sqrt();
                let want = before.sqrt() * y + (1.0 - before - s * s).sqrt() * eps + s * z;
                let found = step(Method::Ddim { eta });
                assert!((found - want).abs() < 1e-9, "eta {eta} at {t}: {found}, not {want}");
            }
        }
    }

    #[test]
    fn a_step_of_no_width_changes_nothing() {
        let with = |levels: &[f64]| {
            let x = now(sample(
                Method::Ddpm { variance: Variance::Learned },
                &Churn::default(),
                levels,
                scalar(1.5),
                |_| scalar(0.3),
                async |x: &Tensor<4>, sigma| {
                    let denoised = gaussian(x, sigma);
                    Ok::<_, Infallible>(Prediction { denoised, variance: Some(scalar(0.1)) })
                },
                async |_| Ok(ControlFlow::Continue(())),
            ));
            value(&x.expect("infallible").expect("not cancelled"))
        };
        assert_eq!(with(&[2.0, 2.0, 1.0, 1.0, 0.0]), with(&[2.0, 1.0, 0.0]));
    }

    #[test]
    fn ddim_without_fresh_noise_is_euler() {
        for steps in [1, 7, 50] {
            let (ddim, euler) = (Method::Ddim { eta: 0.0 }, Method::Euler);
            assert!((run(ddim, steps, 50.0) - run(euler, steps, 50.0)).abs() < 1e-10);
        }
    }

    #[test]
    fn the_callback_sees_every_evaluation_and_can_stop_at_any() {
        let ddim = Method::Ddim { eta: 0.0 };
        for (method, evaluations) in [(Method::Euler, 5), (Method::Heun, 9), (ddim, 5)] {
            for stop in 1..=evaluations {
                let mut seen = Vec::new();
                let result = now(sample(
                    method,
                    &Churn::default(),
                    &Schedule::default().sigmas(5),
                    scalar(1.0),
                    |_| unreachable!("no churn"),
                    async |x: &Tensor<4>, sigma| Ok::<_, Infallible>(gaussian(x, sigma)),
                    async |e: Evaluation| {
                        assert_eq!((e.steps, e.evaluations), (5, evaluations));
                        assert_eq!(value(e.denoised), value(&gaussian(e.x, e.sigma)));
                        seen.push(e.evaluation);
                        Ok(if e.evaluation == stop {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        })
                    },
                ));
                assert!(result.expect("infallible").is_none());
                assert_eq!(seen, (1..=stop).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn errors_come_through() {
        let result = now(sample(
            Method::Euler,
            &Churn::default(),
            &[1.0, 0.0],
            scalar(1.0),
            |_| unreachable!("no churn"),
            async |_: &Tensor<4>, _| Err::<Tensor<4>, _>("device lost"),
            async |_| Ok(ControlFlow::Continue(())),
        ));
        assert_eq!(result.err(), Some("device lost"));
    }
}
