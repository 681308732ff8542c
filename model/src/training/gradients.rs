//! Gradients of all parameters as one vector: norm and clipping.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::network::Network;

/// Returns the global norm, `sqrt(sum of squares)` over all parameters. It is not finite if any
/// gradient is not.
pub fn norm(network: &Network, gradients: &GradientsParams) -> f64 {
    let mut squares = Squares { gradients, sums: Vec::new() };
    network.visit(&mut squares);
    if squares.sums.is_empty() {
        return 0.0;
    }
    // A single transfer from the device for all parameters.
    let sums: Vec<f32> =
        Tensor::cat(squares.sums, 0).into_data().try_into_vec().expect("sums are f32");
    sums.into_iter().map(f64::from).sum::<f64>().sqrt()
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.sums.push(gradient.square().sum());
        }
    }
}

/// Clips gradients of global norm `norm` to the global norm `limit`.
pub fn clip(
    network: &Network,
    gradients: GradientsParams,
    norm: f64,
    limit: f64,
) -> GradientsParams {
    if norm > limit { scale(network, gradients, limit / norm) } else { gradients }
}

/// Multiplies all gradients by `factor`.
fn scale(network: &Network, gradients: GradientsParams, factor: f64) -> GradientsParams {
    let mut scaled = Scaled { factor, from: gradients, to: GradientsParams::new() };
    network.visit(&mut scaled);
    scaled.to
}

struct Scaled {
    factor: f64,
    from: GradientsParams,
    to: GradientsParams,
}

impl ModuleVisitor for Scaled {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            self.to.register(param.id, gradient * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conditioning, Model};
    use burn::tensor::{Device, TensorData};

    /// Gradients of the smallest preset for one noisy image.
    fn gradients() -> (Model, GradientsParams) {
        let device = Device::flex().autodiff();
        let config = crate::preset::by_name("tiny").expect("a preset");
        let model = Model::new(config, 0, &device).expect("it fits together");
        let noise = crate::noise::start_noise(1, 3072);
        let x = Tensor::<4>::from_data(TensorData::new(noise, [1, 3, 32, 32]), &device);
        let loss = model.denoise(x, &[1.0], Conditioning::default()).denoised.square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model.network);
        (model, gradients)
    }

    /// All gradients, concatenated.
    fn values(network: &Network, gradients: &GradientsParams) -> Vec<f32> {
        struct Values<'a>(&'a GradientsParams, Vec<f32>);
        impl ModuleVisitor for Values<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Some(gradient) = self.0.get::<D>(param.id) else { return };
                self.1.extend(gradient.into_data().try_into_vec::<f32>().expect("f32"));
            }
        }
        let mut values = Values(gradients, Vec::new());
        network.visit(&mut values);
        values.1
    }

    #[test]
    fn the_norm_is_that_of_all_values() {
        let (model, gradients) = gradients();
        let squares = values(&model.network, &gradients).into_iter().map(|v| f64::from(v).powi(2));
        let (found, want) = (norm(&model.network, &gradients), squares.sum::<f64>().sqrt());
        assert!((found / want - 1.0).abs() < 1e-5 && want > 0.0, "{found}, not {want}");

        let halved = scale(&model.network, gradients, 0.5);
        let found = norm(&model.network, &halved);
        assert!((found / want - 0.5).abs() < 1e-5, "{found}, not half of {want}");
    }

    #[test]
    fn clipping_limits_the_norm_and_keeps_the_direction() {
        let (model, gradients) = gradients();
        let network = &model.network;
        let whole = norm(network, &gradients);
        let before = values(network, &gradients);
        let limit = whole / 3.0;
        let clipped = clip(network, gradients, whole, limit);
        let found = norm(network, &clipped);
        assert!((found / limit - 1.0).abs() < 1e-5, "{found}, not {limit}");
        let after = values(network, &clipped);
        assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            let want = f64::from(*before) / 3.0;
            let off = (f64::from(*after) - want).abs();
            assert!(off <= 1e-6 * want.abs() + 1e-30, "{after}, not {want}");
        }
        // A limit above the norm changes nothing.
        let unchanged = clip(network, clipped, found, found * 1.01);
        assert_eq!(values(network, &unchanged), after);
    }

    #[test]
    fn an_infinite_gradient_has_an_infinite_norm() {
        let (model, gradients) = gradients();
        let gradients = scale(&model.network, gradients, f64::INFINITY);
        assert!(!norm(&model.network, &gradients).is_finite());
    }
}
