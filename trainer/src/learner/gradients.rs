//! Gradients of all parameters as one vector: norm, clipping, sums over devices.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::distributed::{ReduceOperation, all_reduce as all_reduce_tensor};
use burn::tensor::{Device, Tensor, TensorData};
use model::network::Network;

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

/// Adds the gradients of all workers, and returns the sum on the device of each.
///
/// GPUs use Burn's collective operation (NCCL under CUDA). CPU workers share one device: their
/// gradients are added directly.
pub fn all_reduce(
    network: &Network,
    parts: Vec<GradientsParams>,
    devices: &[Device],
) -> Vec<GradientsParams> {
    if parts.len() == 1 {
        return parts;
    }
    let devices: Vec<Device> = devices.iter().map(|device| device.clone().inner()).collect();
    let to = parts.iter().map(|_| GradientsParams::new()).collect();
    let mut sums = Sums { from: parts, to, running: Vec::new(), devices };
    network.visit(&mut sums);
    let Sums { mut to, running, .. } = sums;
    for (worker, wait) in running {
        wait(&mut to[worker]);
    }
    to
}

/// Waits for a collective operation and stores its result.
type Wait = Box<dyn FnOnce(&mut GradientsParams)>;

struct Sums {
    from: Vec<GradientsParams>,
    to: Vec<GradientsParams>,
    /// Running operations, each with the index of its worker. All are started before the first is
    /// waited for.
    running: Vec<(usize, Wait)>,
    devices: Vec<Device>,
}

impl ModuleVisitor for Sums {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let id = param.id;
        let parts: Vec<Tensor<D>> =
            self.from.iter_mut().filter_map(|part| part.remove::<D>(id)).collect();
        if self.devices.iter().all(|device| *device == self.devices[0]) {
            let Some(sum) = parts.into_iter().reduce(|sum, part| sum + part) else { return };
            for to in &mut self.to {
                to.register(id, sum.clone());
            }
            return;
        }
        for (worker, part) in parts.into_iter().enumerate() {
            let sum = all_reduce_tensor(part, ReduceOperation::Sum, self.devices.clone());
            let wait = move |to: &mut GradientsParams| to.register(id, sum.resolve());
            self.running.push((worker, Box::new(wait)));
        }
    }
}

/// Returns all gradients, concatenated.
pub fn values(network: &Network, gradients: &GradientsParams) -> Vec<f32> {
    let mut values = Values { gradients, values: Vec::new() };
    network.visit(&mut values);
    values.values
}

struct Values<'a> {
    gradients: &'a GradientsParams,
    values: Vec<f32>,
}

impl ModuleVisitor for Values<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let values = gradient.into_data().try_into_vec::<f32>();
            self.values.extend(values.expect("gradients are f32"));
        }
    }
}

/// Replaces all gradients by concatenated values, in the order of [`values`], on the same device.
pub fn replace(network: &Network, gradients: GradientsParams, values: &[f32]) -> GradientsParams {
    let mut replaced = Replaced { values, from: gradients, to: GradientsParams::new() };
    network.visit(&mut replaced);
    replaced.to
}

struct Replaced<'a> {
    values: &'a [f32],
    from: GradientsParams,
    to: GradientsParams,
}

impl ModuleVisitor for Replaced<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            let (values, rest) = self.values.split_at(gradient.shape().num_elements());
            self.values = rest;
            let data = TensorData::new(values.to_vec(), gradient.dims());
            self.to.register(param.id, Tensor::<D>::from_data(data, &gradient.device()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Conditioning, Model};

    /// Gradients of the smallest preset for one noisy image.
    fn gradients() -> (Model, GradientsParams) {
        let device = Device::flex().autodiff();
        let config = model::preset::by_name("tiny").expect("a preset");
        let model = Model::new(config, 0, &device).expect("it fits together");
        let noise = model::noise::start_noise(1, 3072);
        let x = Tensor::<4>::from_data(TensorData::new(noise, [1, 3, 32, 32]), &device);
        let loss = model.denoise(x, &[1.0], Conditioning::default()).denoised.square().sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &model.network);
        (model, gradients)
    }

    #[test]
    fn the_norm_is_that_of_all_values() {
        let (model, gradients) = gradients();
        struct Sum<'a>(&'a GradientsParams, f64);
        impl ModuleVisitor for Sum<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Some(gradient) = self.0.get::<D>(param.id) else { return };
                let values: Vec<f32> = gradient.into_data().try_into_vec().expect("f32");
                self.1 += values.into_iter().map(|v| f64::from(v).powi(2)).sum::<f64>();
            }
        }
        let mut sum = Sum(&gradients, 0.0);
        model.network.visit(&mut sum);
        let (found, want) = (norm(&model.network, &gradients), sum.1.sqrt());
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
    fn values_can_be_replaced() {
        let (model, gradients) = gradients();
        let before = values(&model.network, &gradients);
        // The embedding of augmentation labels has no gradient here.
        let count = model.network.parameter_count();
        assert!(before.len() <= count && before.len() > count * 9 / 10, "{}", before.len());
        let doubled: Vec<f32> = before.iter().map(|value| 2.0 * value).collect();
        let gradients = replace(&model.network, gradients, &doubled);
        assert_eq!(values(&model.network, &gradients), doubled);
    }

    #[test]
    fn an_infinite_gradient_has_an_infinite_norm() {
        let (model, gradients) = gradients();
        let gradients = scale(&model.network, gradients, f64::INFINITY);
        assert!(!norm(&model.network, &gradients).is_finite());
    }
}
