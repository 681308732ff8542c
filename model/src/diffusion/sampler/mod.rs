//! Samplers, which turn noise into pictures by means of a denoiser and a list of noise levels.
//!
//! A sampler is independent of the network and of its notion of time: it works with noise levels
//! only, and those of discrete time follow from `ᾱ = 1 / (1 + σ²)`. It calls `denoise(x, sigma)`,
//! which returns the denoised picture, and after each evaluation `on_step`, which serves progress,
//! preview and cancellation. Both are asynchronous, as a browser requires.

mod ancestral;
mod dpmpp;
mod edm;
mod ipndm;
mod step;

use core::ops::ControlFlow;

use burn::tensor::Tensor;

pub use crate::diffusion::method::{Churn, Method, Variance};
pub use ancestral::StepVariance;
use ancestral::{ddim, ddpm};
use dpmpp::dpmpp;
use edm::{euler, heun};
use ipndm::ipndm;
pub use step::Prediction;
use step::Stop;

/// Report on one evaluation of the denoiser, passed to `on_step`.
#[derive(Debug)]
pub struct Evaluation<'a> {
    /// Index of the step that the evaluation belongs to.
    pub step: usize,
    /// Total number of steps.
    pub steps: usize,
    /// Number of evaluations so far, including this one.
    pub evaluation: usize,
    /// Total number of evaluations.
    pub evaluations: usize,
    /// The noise level of `x`.
    pub sigma: f64,
    /// The noisy picture.
    pub x: &'a Tensor<4>,
    /// The denoised picture.
    pub denoised: &'a Tensor<4>,
}

/// Samples from the first of the noise levels `sigmas` to the last.
///
/// `x` is a picture at noise level `sigmas[0]`: unit noise times that level, or a picture with such
/// noise added. `noise(step)` returns unit noise of the same shape; it is called at most once per
/// step, and only if the step adds noise. Returns the picture, or `None` if `on_step` cancelled.
///
/// # Errors
///
/// The error of `denoise` or `on_step`.
///
/// # Panics
///
/// If `sigmas` has fewer than two levels, or the method does not have its order.
pub async fn sample<E, P: Into<Prediction>>(
    method: Method,
    churn: &Churn,
    sigmas: &[f64],
    x: Tensor<4>,
    noise: impl FnMut(usize) -> Tensor<4>,
    mut denoise: impl AsyncFnMut(&Tensor<4>, f64) -> Result<P, E>,
    mut on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    assert!(sigmas.len() > 1, "a schedule has at least two noise levels");
    let steps = sigmas.len() - 1;
    let evaluations = method.evaluations(steps);
    let mut evaluation = 0;
    let evaluate = async |x: &Tensor<4>, sigma: f64, step: usize| -> Result<Prediction, Stop<E>> {
        let prediction: Prediction = denoise(x, sigma).await.map_err(Stop::Failed)?.into();
        evaluation += 1;
        let denoised = &prediction.denoised;
        let report = Evaluation { step, steps, evaluation, evaluations, sigma, x, denoised };
        match on_step(report).await.map_err(Stop::Failed)? {
            ControlFlow::Continue(()) => Ok(prediction),
            ControlFlow::Break(()) => Err(Stop::Cancelled),
        }
    };
    let result = match method {
        Method::Euler => euler(churn, sigmas, x, noise, evaluate).await,
        Method::Heun => heun(churn, sigmas, x, noise, evaluate).await,
        Method::Ipndm { order } => ipndm(order, sigmas, x, evaluate).await,
        Method::Dpmpp { order } => dpmpp(order, sigmas, x, evaluate).await,
        Method::Ddim { eta } => ddim(eta, sigmas, x, noise, evaluate).await,
        Method::Ddpm { variance } => ddpm(variance, sigmas, x, noise, evaluate).await,
    };
    match result {
        Ok(x) => Ok(Some(x)),
        Err(Stop::Cancelled) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::schedule::Schedule;
    use burn::tensor::{DType, Device, TensorData};
    use core::convert::Infallible;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    /// Runs a future that is ready at the first poll.
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

    /// The optimal denoiser for data distributed as N(MEAN, STD²).
    fn gaussian(x: &Tensor<4>, sigma: f64) -> Tensor<4> {
        let total = STD.powi(2) + sigma.powi(2);
        x.clone() * (STD.powi(2) / total) + MEAN * sigma.powi(2) / total
    }

    /// Exact solution of the probability flow from `x` at noise level `sigma` to level `next`.
    fn flow(x: f64, sigma: f64, next: f64) -> f64 {
        let spread = |sigma: f64| (STD.powi(2) + sigma.powi(2)).sqrt();
        MEAN + (x - MEAN) * spread(next) / spread(sigma)
    }

    /// Exact solution of the probability flow from `x` at noise level `sigma` to 0.
    fn exact(x: f64, sigma: f64) -> f64 {
        flow(x, sigma, 0.0)
    }

    /// Mean and standard deviation of many pictures of one value, sampled from `N(0, 80²)` noise.
    fn spread(method: Method, churn: &Churn, steps: usize) -> (f32, f32) {
        use crate::diffusion::noise::{Random, Stream};
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

    /// Samples along `levels`. Returns the result and the last noisy picture given to the denoiser.
    fn follow(method: Method, levels: &[f64], start: f64) -> [f64; 2] {
        let mut last = f64::NAN;
        let x = now(sample(
            method,
            &Churn::default(),
            levels,
            scalar(start),
            |_| unreachable!("no fresh noise"),
            async |x: &Tensor<4>, sigma| Ok::<_, Infallible>(gaussian(x, sigma)),
            async |evaluation: Evaluation<'_>| {
                last = value(evaluation.x);
                Ok(ControlFlow::Continue(()))
            },
        ));
        [value(&x.expect("infallible").expect("not cancelled")), last]
    }

    fn run(method: Method, steps: usize, start: f64) -> f64 {
        follow(method, &Schedule::default().sigmas(steps), start)[0]
    }

    /// Observed order of convergence when the number of steps is doubled.
    fn observed_order(error: impl Fn(usize) -> f64, steps: usize) -> f64 {
        (error(steps) / error(2 * steps)).log2()
    }

    #[test]
    fn euler_and_heun_have_their_orders() {
        for (method, order) in [(Method::Euler, 1.0), (Method::Heun, 2.0)] {
            let error = |steps| (run(method, steps, 50.0) - exact(50.0, 80.0)).abs();
            for steps in [64, 128, 256] {
                let seen = observed_order(error, steps);
                assert!((seen - order).abs() < 0.15, "{method:?} at {steps}: order {seen}");
            }
        }
    }

    /// On steps of equal width, which the weights assume. There are many steps, and they start at a
    /// high level, where the flow is nearly straight, because the first steps are of lower order.
    #[test]
    fn ipndm_has_its_order_on_even_levels() {
        let (high, low, start) = (20.0, 0.5, 12.0);
        for order in 1..=4 {
            let method = Method::Ipndm { order };
            let error = |steps: usize| {
                let level = |i: usize| high + (low - high) * i as f64 / steps as f64;
                let levels: Vec<f64> = (0..=steps).map(level).collect();
                (follow(method, &levels, start)[0] - flow(start, high, low)).abs()
            };
            for steps in [256, 512] {
                let seen = observed_order(error, steps);
                assert!((seen - order as f64).abs() < 0.15, "{order} at {steps}: order {seen}");
            }
        }
    }

    /// Error of `method` at the lowest noise level above 0, from which the last step returns the
    /// denoised picture.
    fn error_at_the_lowest_level(method: Method, schedule: &Schedule, steps: usize) -> f64 {
        let levels = schedule.sigmas(steps);
        let (high, low) = (levels[0], levels[steps - 1]);
        (follow(method, &levels, 50.0)[1] - flow(50.0, high, low)).abs()
    }

    /// On EDM's levels, whose widths differ, the order is at most the second.
    #[test]
    fn ipndm_has_at_most_second_order_on_edm_levels() {
        for order in 1..=4 {
            let method = Method::Ipndm { order };
            for steps in [128, 256] {
                let error = |steps| error_at_the_lowest_level(method, &Schedule::default(), steps);
                let (seen, want) = (observed_order(error, steps), order.min(2) as f64);
                assert!((seen - want).abs() < 0.15, "{order} at {steps}: order {seen}");
            }
        }
    }

    /// On levels even in λ = -ln σ, the errors of 3M's first steps and of its other steps nearly
    /// cancel for these numbers of steps, so the observed order is higher.
    #[test]
    fn dpm_solver_has_its_order() {
        let edm = Schedule::default();
        let even = Schedule::LogSnr { sigma_min: 0.002, sigma_max: 80.0 };
        for (schedule, order, highest) in
            [(&edm, 2, 2.15), (&even, 2, 2.15), (&edm, 3, 3.15), (&even, 3, 5.0)]
        {
            for steps in [64, 128] {
                let method = Method::Dpmpp { order };
                let seen = observed_order(
                    |steps| error_at_the_lowest_level(method, schedule, steps),
                    steps,
                );
                let lowest = order as f64 - 0.15;
                assert!((lowest..highest).contains(&seen), "{order} at {steps}: order {seen}");
            }
        }
    }

    /// A multistep method that extrapolates D by a polynomial is exact where D is one: with a full
    /// history, on levels of any width, 3M is exact for D = λ².
    #[test]
    fn dpm_solver_3m_is_exact_for_a_quadratic_denoiser() {
        let levels = [9.0, 5.0, 3.5, 2.0, 0.9, 0.4, 0.0];
        let mut seen = Vec::new();
        let x = now(sample(
            Method::Dpmpp { order: 3 },
            &Churn::default(),
            &levels,
            scalar(7.0),
            |_| unreachable!("no fresh noise"),
            async |_: &Tensor<4>, sigma| Ok::<_, Infallible>(scalar(sigma.ln().powi(2))),
            async |evaluation: Evaluation<'_>| {
                seen.push(value(evaluation.x));
                Ok(ControlFlow::Continue(()))
            },
        ));
        // The solution of dx/dλ = λ² - x is λ² - 2 λ + 2 + c e^-λ.
        let solution = |sigma: f64| sigma.ln().powi(2) + 2.0 * sigma.ln() + 2.0;
        for i in 2..4 {
            let (from, to) = (levels[i], levels[i + 1]);
            let want = solution(to) + (seen[i] - solution(from)) * to / from;
            assert!((seen[i + 1] - want).abs() < 1e-12, "step {i}: {}, not {want}", seen[i + 1]);
        }
        let end = value(&x.expect("infallible").expect("not cancelled"));
        assert!((end - 0.4f64.ln().powi(2)).abs() < 1e-12, "{end}");
    }

    #[test]
    fn single_steps_equal_those_of_euler() {
        for method in [
            Method::Heun,
            Method::Ipndm { order: 4 },
            Method::Dpmpp { order: 2 },
            Method::Dpmpp { order: 3 },
        ] {
            assert!((run(method, 1, 50.0) - run(Method::Euler, 1, 50.0)).abs() < 1e-10);
        }
        for steps in [2, 7, 50] {
            let first = run(Method::Ipndm { order: 1 }, steps, 50.0);
            assert!((first - run(Method::Euler, steps, 50.0)).abs() < 1e-10);
        }
    }

    #[test]
    fn a_gaussian_is_sampled_exactly() {
        // With many steps, to the precision of the method; a data set of a single point, exactly.
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
    fn fresh_noise_preserves_the_spread_of_a_gaussian() {
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

    /// Compares a step with the posterior of discrete time, computed in its own units.
    #[test]
    fn ancestral_steps_match_discrete_time() {
        use crate::config::LinearBetas;
        use crate::diffusion::discrete::{Diffusion, Spacing};
        let diffusion = Diffusion::new(&LinearBetas::default());
        let diffusion = diffusion.respaced(&Spacing::Ddim, 10).expect("stride 100");
        let (y, z, position) = (0.4, -0.7, 0.3);
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
                        let variance = Some(scalar(position));
                        Ok::<_, Infallible>(Prediction { denoised: scalar(y), variance })
                    },
                    async |_| Ok(ControlFlow::Continue(())),
                ));
                value(&x.expect("infallible").expect("not cancelled")) * before.sqrt()
            };
            let mean = posterior.c_picture * y + posterior.c_noisy * x_t;
            let log = (1.0 + position) / 2.0 * posterior.log_large
                + (1.0 - position) / 2.0 * posterior.log_small;
            for (variance, deviation) in [
                (Variance::Small, posterior.variance.sqrt()),
                (Variance::Large, diffusion.betas()[t].sqrt()),
                (Variance::Learned, (0.5 * log).exp()),
            ] {
                let found = step(Method::Ddpm { variance });
                let want = mean + deviation * z;
                assert!((found - want).abs() < 1e-9, "{variance:?} at {t}: {found}, not {want}");
            }
            // Eq 12 and 16 of the DDIM paper.
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
    fn steps_of_zero_width_change_nothing() {
        let with = |method, levels: &[f64]| {
            let x = now(sample(
                method,
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
        for method in [
            Method::Ddpm { variance: Variance::Learned },
            Method::Ipndm { order: 4 },
            Method::Dpmpp { order: 3 },
        ] {
            for end in [0.0, 0.2] {
                let twice = [3.0, 3.0, 2.0, 2.0, 2.0, 1.0, 0.5, 0.5, end];
                let once = [3.0, 2.0, 1.0, 0.5, end];
                assert_eq!(with(method, &twice), with(method, &once), "{method:?} to {end}");
            }
        }
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
        for (method, evaluations) in [
            (Method::Euler, 5),
            (Method::Heun, 9),
            (Method::Ipndm { order: 4 }, 5),
            (Method::Dpmpp { order: 2 }, 5),
            (Method::Dpmpp { order: 3 }, 5),
            (Method::Ddim { eta: 0.0 }, 5),
        ] {
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
    fn errors_are_propagated() {
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
