//! Exponential moving average of a network's parameters.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::network::Network;

/// Returns the decay rate of the moving average for a step of `batch` images after `images` images
/// (EDM): `0.5^(batch / half-life)`, half-life `min(half_life, ramp · images)`, in images.
pub fn beta(half_life: u64, ramp: f64, batch: usize, images: u64) -> f64 {
    let half_life = (half_life as f64).min(ramp * images as f64);
    0.5f64.powf(batch as f64 / half_life.max(1e-8))
}

/// Updates the moving average: `beta · average + (1 - beta) · network` for each parameter.
/// `average` has no autodiff graph.
pub fn update(average: Network, network: &Network, beta: f64) -> Network {
    let mut values = Values(HashMap::new());
    network.visit(&mut values);
    average.map(&mut Move { towards: values.0, beta })
}

/// Parameters by id, without autodiff. Each is a `Tensor<D>` of the parameter's rank `D`.
struct Values(HashMap<ParamId, Box<dyn Any>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let value = if value.is_autodiff() { value.inner() } else { value };
        self.0.insert(param.id, Box::new(value));
    }
}

struct Move {
    towards: HashMap<ParamId, Box<dyn Any>>,
    beta: f64,
}

impl ModuleMapper for Move {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = self
            .towards
            .remove(&param.id)
            .and_then(|value| value.downcast::<Tensor<D>>().ok())
            .expect("both networks have the same parameters");
        let beta = self.beta;
        param.map(|average| average * beta + *value * (1.0 - beta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use burn::tensor::Device;

    /// A model whose parameters all have one value.
    fn constant(value: f32, device: &Device) -> Model {
        let config = crate::preset::by_name("tiny").expect("a preset");
        Model::from_values(config, &|spec| vec![value; spec.len()], device)
    }

    #[test]
    fn the_average_keeps_beta_of_itself() {
        let device = Device::flex();
        // 0.75 · 2 + 0.25 · 10, and the same from the autodiff device that training uses.
        for (beta, want) in [(0.75, 4.0), (0.0, 10.0), (1.0, 2.0), (0.9375, 2.5)] {
            for of_network in [device.clone(), device.clone().autodiff()] {
                let average = constant(2.0, &device);
                let network = constant(10.0, &of_network);
                let mut updated = average.clone();
                updated.network = update(average.network, &network.network, beta);
                let mut count = 0;
                for (spec, values) in updated.parameters() {
                    assert!(values.iter().all(|value| *value == want), "{}: {values:?}", spec.name);
                    count += values.len();
                }
                assert_eq!(count, updated.network.parameter_count());
            }
        }
    }

    /// Two updates with other weights, against numbers computed by hand.
    #[test]
    fn updates_accumulate() {
        let device = Device::flex();
        let mut model = constant(1.0, &device);
        for (network, beta) in [(5.0, 0.5), (-1.0, 0.25)] {
            model.network = update(model.network, &constant(network, &device).network, beta);
        }
        // 0.5 · 1 + 0.5 · 5 = 3, then 0.25 · 3 - 0.75 · 1 = 0.
        assert!(model.parameters().iter().all(|(_, values)| values.iter().all(|v| *v == 0.0)));
    }
}
