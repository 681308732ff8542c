//! Samplers: how pictures come out of noise, given a denoiser and a list of noise levels.
//!
//! A sampler knows nothing of networks. It sees `denoise(x, sigma)`, which returns the denoised
//! picture, and after each evaluation it calls `on_step`, which serves progress, preview and
//! cancelling alike. Both may wait: in a browser they have to.

use core::ops::ControlFlow;

use burn::tensor::Tensor;

pub use crate::settings::{Churn, Method};

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
/// such noise added. `churn_noise(step)` returns unit noise of its shape and is called only where
/// churn adds any. Returns the picture, or `None` if `on_step` broke off.
///
/// # Errors
///
/// Whatever `denoise` or `on_step` fail with.
///
/// # Panics
///
/// If `sigmas` has fewer than two levels.
pub async fn sample<E>(
    method: Method,
    churn: &Churn,
    sigmas: &[f64],
    mut x: Tensor<4>,
    mut churn_noise: impl FnMut(usize) -> Tensor<4>,
    mut denoise: impl AsyncFnMut(&Tensor<4>, f64) -> Result<Tensor<4>, E>,
    mut on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    assert!(sigmas.len() > 1, "a schedule has at least two noise levels");
    let steps = sigmas.len() - 1;
    let evaluations = method.evaluations(steps);
    let mut evaluation = 0;
    // The slope dx/dσ of the probability flow at `x`, or `None` if `on_step` breaks off.
    let mut slope = async |x: &Tensor<4>, sigma: f64, step: usize| -> Result<_, E> {
        let denoised = denoise(x, sigma).await?;
        evaluation += 1;
        let told =
            Evaluation { step, steps, evaluation, evaluations, sigma, x, denoised: &denoised };
        Ok(match on_step(told).await? {
            ControlFlow::Continue(()) => Some((x.clone() - denoised) / sigma),
            ControlFlow::Break(()) => None,
        })
    };
    for (step, pair) in sigmas.windows(2).enumerate() {
        let (sigma, next) = (pair[0], pair[1]);
        let raised = churn.raise(sigma, steps);
        if raised > sigma {
            let added = churn.s_noise * (raised.powi(2) - sigma.powi(2)).sqrt();
            x = x + churn_noise(step) * added;
        }
        let Some(d) = slope(&x, raised, step).await? else { return Ok(None) };
        let euler = x.clone() + d.clone() * (next - raised);
        x = if method == Method::Heun && next > 0.0 {
            let Some(d_next) = slope(&euler, next, step).await? else { return Ok(None) };
            x + (d + d_next) * (0.5 * (next - raised))
        } else {
            euler
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
    fn churn_keeps_the_spread_of_a_gaussian() {
        use crate::noise::{Random, Stream};
        let n = 4_000;
        let mut values = vec![0.0f32; n];
        let normals = |index: u64, values: &mut Vec<f32>| {
            Random::new(5, Stream::Churn, index).fill_normal(values);
            let data = TensorData::new(values.clone(), [n, 1, 1, 1]);
            Tensor::<4>::from_data(data, &Device::flex())
        };
        let start = normals(u64::MAX, &mut values) * 80.0;
        let churn = Churn { s_churn: 30.0, ..Churn::default() };
        let mut added = 0;
        let x = now(sample(
            Method::Heun,
            &churn,
            &Schedule::default().sigmas(60),
            start,
            |step| {
                added += 1;
                normals(step as u64, &mut values)
            },
            async |x: &Tensor<4>, sigma| Ok::<_, Infallible>(gaussian(x, sigma)),
            async |_| Ok(ControlFlow::Continue(())),
        ));
        let x = x.expect("infallible").expect("not cancelled").into_data();
        let x: Vec<f32> = x.try_to_vec().expect("f32");
        let mean = x.iter().sum::<f32>() / n as f32;
        let std = (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n as f32).sqrt();
        assert!(
            (mean - MEAN as f32).abs() < 0.05 && (std - STD as f32).abs() < 0.05,
            "{mean} {std}"
        );
        assert_eq!(added, 60);
    }

    #[test]
    fn the_callback_sees_every_evaluation_and_can_stop_at_any() {
        for (method, evaluations) in [(Method::Euler, 5), (Method::Heun, 9)] {
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
            async |_: &Tensor<4>, _| Err("device lost"),
            async |_| Ok(ControlFlow::Continue(())),
        ));
        assert_eq!(result.err(), Some("device lost"));
    }
}
