//! Exponential moving average of a network's parameters.

use std::any::Any;
use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use model::TensorSpec;
use model::network::Network;

/// Moves `average` towards `network`: `beta · average + (1 - beta) · network`, parameter by
/// parameter. `average` stays off the autodiff graph.
pub fn update(average: Network, network: &Network, beta: f64) -> Network {
    let mut values = Values(HashMap::new());
    network.visit(&mut values);
    // What is not trained stays as it is, to the last bit.
    let fixed = network.specs().iter().filter(|spec| !spec.trained).map(TensorSpec::id).collect();
    average.map(&mut Move { towards: values.0, fixed, beta })
}

/// The parameters by id, without their gradients. Each is a `Tensor<D>` of its own rank `D`.
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
    fixed: HashSet<ParamId>,
    beta: f64,
}

impl ModuleMapper for Move {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.fixed.contains(&param.id) {
            return param;
        }
        let value = self
            .towards
            .remove(&param.id)
            .and_then(|value| value.downcast::<Tensor<D>>().ok())
            .expect("both networks have the same parameters");
        let beta = self.beta;
        param.map(|average| average * beta + *value * (1.0 - beta))
    }
}
