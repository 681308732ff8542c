//! Gradients of all parameters as one vector: sums over devices, values.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::distributed::{ReduceOperation, all_reduce as all_reduce_tensor};
use burn::tensor::{Device, Tensor, TensorData};
use model::network::Network;

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
}
