//! Power-function profiles of moving averages.

use std::ops::RangeInclusive;

/// Relative standard deviations of profiles that can be used. That of `gamma = 0`, the plain mean of
/// all weights, is `1 / sqrt(12)`, about 0.289.
pub const STD_RANGE: RangeInclusive<f64> = 0.001..=0.28;

/// A moving average of the weights `theta(t)` whose profile is a power function of time:
///
/// ```text
/// average(T) = integral from 0 to T of p(t) theta(t) dt,   p(t) = (gamma + 1) t^gamma / T^(gamma + 1)
/// ```
///
/// It is named by the standard deviation of `p` relative to `T`, as in EDM2. Times are numbers of
/// images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    gamma: f64,
}

impl Profile {
    /// Returns the profile with a relative standard deviation, or `None` if it is not within
    /// [`STD_RANGE`].
    pub fn of_std(std: f64) -> Option<Self> {
        if !STD_RANGE.contains(&std) {
            return None;
        }
        // The standard deviation falls with gamma, and is below 1 / gamma.
        let (mut low, mut high) = (0.0, 1.0 / std);
        for _ in 0..100 {
            let gamma = 0.5 * (low + high);
            let too_wide = Self { gamma }.std() > std;
            *(if too_wide { &mut low } else { &mut high }) = gamma;
        }
        Some(Self { gamma: 0.5 * (low + high) })
    }

    /// Returns the relative standard deviation,
    /// `(gamma + 1)^(1/2) (gamma + 2)^(-1) (gamma + 3)^(-1/2)`.
    pub fn std(self) -> f64 {
        let gamma = self.gamma;
        ((gamma + 1.0) / (gamma + 3.0)).sqrt() / (gamma + 2.0)
    }

    /// Returns the decay rate of the average in a step of `batch` images that ends after `images`
    /// images: `(1 - batch / images)^(gamma + 1)`. It is 0 in the first step.
    pub fn beta(self, images: u64, batch: u64) -> f64 {
        (1.0 - batch as f64 / images as f64).max(0.0).powf(self.gamma + 1.0)
    }
}

/// Returns the inner product, the integral over `t` of `p_a(t) p_b(t)`, of the profiles of two averages
/// with their ends. Each is 0 after its end, so the integral ends with the earlier one:
///
/// ```text
/// (gamma_a + 1) (gamma_b + 1) / (gamma_a + gamma_b + 1)
///     min(T_a, T_b)^(gamma_a + gamma_b + 1) / (T_a^(gamma_a + 1) T_b^(gamma_b + 1))
/// ```
pub fn inner_product(a: (Profile, f64), b: (Profile, f64)) -> f64 {
    let ((first, end), (last, last_end)) = if a.1 <= b.1 { (a, b) } else { (b, a) };
    let product = (first.gamma + 1.0) * (last.gamma + 1.0) / (first.gamma + last.gamma + 1.0);
    // With the earlier end as minimum, only the ratio of the ends remains, which does not overflow.
    product * (end / last_end).powf(last.gamma) / last_end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(std: f64) -> Profile {
        Profile::of_std(std).expect("within the range")
    }

    impl Profile {
        /// `p(t)` of the average that ends at `end`.
        fn density(self, t: f64, end: f64) -> f64 {
            if t > end { 0.0 } else { (self.gamma + 1.0) * (t / end).powf(self.gamma) / end }
        }
    }

    /// The integral of `f` from 0 to `end` by the midpoint rule.
    fn integral(end: f64, f: impl Fn(f64) -> f64) -> f64 {
        let n = 200_000;
        let step = end / f64::from(n);
        (0..n).map(|i| f((f64::from(i) + 0.5) * step) * step).sum()
    }

    fn near(found: f64, want: f64, tolerance: f64) {
        assert!((found / want - 1.0).abs() < tolerance, "{found}, not {want}");
    }

    /// The paper gives gamma = 16.97 for 5 % and 6.94 for 10 %.
    #[test]
    fn profiles_are_those_of_the_paper() {
        near(profile(0.05).gamma, 16.97, 5e-4);
        near(profile(0.10).gamma, 6.94, 5e-4);
        near(Profile { gamma: 0.0 }.std(), 12f64.sqrt().recip(), 1e-12);
        for std in [0.001, 0.01, 0.05, 0.1, 0.2, 0.28] {
            near(profile(std).std(), std, 1e-12);
        }
        for std in [0.0, -0.1, 0.0009, 0.2801, 1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Profile::of_std(std), None, "{std}");
        }
    }

    #[test]
    fn the_name_of_a_profile_is_its_standard_deviation() {
        for std in [0.02, 0.05, 0.1, 0.25] {
            let (profile, end) = (profile(std), 300.0);
            let moment = |f: &dyn Fn(f64) -> f64| integral(end, |t| profile.density(t, end) * f(t));
            near(moment(&|_| 1.0), 1.0, 1e-6);
            let mean = moment(&|t| t);
            near(moment(&|t| (t - mean).powi(2)).sqrt() / end, std, 1e-5);
        }
    }

    #[test]
    fn inner_products_agree_with_quadrature() {
        for (a, b) in [
            ((0.05, 1000.0), (0.05, 1000.0)),
            ((0.05, 1000.0), (0.1, 1000.0)),
            ((0.05, 700.0), (0.1, 1000.0)),
            ((0.2, 900.0), (0.02, 1000.0)),
            ((0.1, 3.0), (0.25, 0.5)),
        ] {
            let [(p, p_end), (q, q_end)] = [a, b].map(|(std, end): (f64, f64)| (profile(std), end));
            let want = integral(p_end.min(q_end), |t| p.density(t, p_end) * q.density(t, q_end));
            near(inner_product((p, p_end), (q, q_end)), want, 1e-6);
            near(inner_product((q, q_end), (p, p_end)), want, 1e-6);
        }
        // Times of long runs and narrow profiles do not overflow.
        let narrow = (profile(0.001), 1e12);
        assert!(inner_product(narrow, narrow).is_finite() && inner_product(narrow, narrow) > 0.0);
    }

    /// Updating step by step with `beta` gives step `k` of `n` the integral of the profile over it.
    #[test]
    fn steps_have_the_weight_of_the_profile() {
        let (n, batch) = (40u64, 32);
        for std in [0.02, 0.1, 0.28] {
            let profile = profile(std);
            let mut weights = Vec::new();
            for step in 1..=n {
                let beta = profile.beta(step * batch, batch);
                assert!((0.0..1.0).contains(&beta) && (beta == 0.0) == (step == 1), "{beta}");
                weights.iter_mut().for_each(|weight| *weight *= beta);
                weights.push(1.0 - beta);
            }
            let up_to = |k: usize| (k as f64 / n as f64).powf(profile.gamma + 1.0);
            for (k, weight) in weights.into_iter().enumerate() {
                let want = up_to(k + 1) - up_to(k);
                assert!((weight - want).abs() < 1e-12, "step {k}: {weight}, not {want}");
            }
        }
    }
}
