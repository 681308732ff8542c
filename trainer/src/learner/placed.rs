//! Optimizer state on the device of the weights.
//!
//! Burn restores the state of an optimizer on its default device, and moves it in the next step. The
//! default device depends on the features of the program, not on the run: it can be a GPU that does
//! not exist, or one without memory for the moments of all workers.

use burn::module::ParamGroup;
use burn::optim::{DynOptimizer, DynState, ModuleOptimizer, Optimizer, StateSink, StateSource};
use burn::tensor::Device;
use burn::tensor::kind::BridgeTensor;

/// An optimizer whose state is restored on a device.
pub struct Placed<O> {
    optimizer: O,
    device: Device,
}

impl<O> Placed<O> {
    /// Places the restored state of an optimizer on `device`.
    pub fn new(optimizer: O, device: &Device) -> Self {
        Self { optimizer, device: device.clone() }
    }
}

/// Returns an optimizer of all parameters of a module, whose state is restored on `device`.
pub fn optimizer<O: Optimizer>(optimizer: O, device: &Device) -> ModuleOptimizer {
    let placed = Placed::new(optimizer.clone(), device);
    // The group replaces the first optimizer, which must be a plain one.
    ModuleOptimizer::from(optimizer).with_group(ParamGroup::all(), placed, None)
}

impl<O: DynOptimizer> DynOptimizer for Placed<O> {
    fn step_dyn(
        &self,
        rank: usize,
        lr: f64,
        tensor: BridgeTensor,
        grad: BridgeTensor,
        state: Option<DynState>,
    ) -> (BridgeTensor, Option<DynState>) {
        self.optimizer.step_dyn(rank, lr, tensor, grad, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.optimizer.to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.optimizer.state_flatten(prefix, state, out);
    }

    fn state_unflatten(
        &self,
        rank: usize,
        prefix: &str,
        source: &mut StateSource,
        _default: &Device,
    ) -> Option<DynState> {
        self.optimizer.state_unflatten(rank, prefix, source, &self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::Param;
    use burn::optim::{AdamConfig, AdamState, GradientsParams, RecordState};
    use burn::tensor::Tensor;
    use std::sync::Mutex;

    /// On a CPU, the only other device is the same one with autodiff.
    #[test]
    fn restored_state_is_on_the_device_of_the_run() {
        let plain = Device::flex();
        let run = Device::flex().autodiff();
        let adam = AdamConfig::new().build();
        let weights = Tensor::<1>::ones([3], &plain);
        let (_, state) = adam.step(1e-3, weights.clone(), weights * 2.0, None);
        let state = DynState::create(state.expect("moments"), 1);
        for device in [&plain, &run] {
            let placed = Placed::new(adam.clone(), device);
            let mut sink = StateSink::default();
            placed.state_flatten("7", &state, &mut sink);
            let mut source = StateSource::new(sink.scalars.into_iter().collect());
            for (name, data) in sink.tensors {
                source.insert_tensor(name, data);
            }
            let restored =
                placed.state_unflatten(1, "7", &mut source, &plain).expect("a whole state");
            let moments = &restored.downcast_ref::<AdamState<1>>().momentum;
            for (moment, want) in [(&moments.moment_1, 0.2), (&moments.moment_2, 0.004)] {
                assert_eq!(moment.device().is_autodiff(), device.is_autodiff());
                let values: Vec<f32> = moment.to_data().try_into_vec().expect("f32");
                assert!(values.iter().all(|value| (value - want).abs() < 1e-6), "{values:?}");
            }
            assert_eq!(moments.time, 1);
        }
    }

    /// The devices on which a state was restored: for each, whether it has autodiff.
    static RESTORED_ON: Mutex<Vec<bool>> = Mutex::new(Vec::new());

    /// A state that notes the device on which it is restored.
    #[derive(Clone)]
    struct Noted;

    impl RecordState for Noted {
        fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
            out.push_tensor(prefix, "moment", burn::tensor::TensorData::from([1.0f32]));
        }

        fn state_unflatten(_: &str, _: &mut StateSource, device: &Device) -> Option<Self> {
            RESTORED_ON.lock().expect("one thread").push(device.is_autodiff());
            Some(Noted)
        }
    }

    /// An optimizer that subtracts the gradient.
    #[derive(Clone)]
    struct Plain;

    impl Optimizer for Plain {
        type State<const D: usize> = Noted;

        fn step<const D: usize>(
            &self,
            lr: f64,
            tensor: Tensor<D>,
            grad: Tensor<D>,
            _: Option<Noted>,
        ) -> (Tensor<D>, Option<Noted>) {
            (tensor - grad * lr, Some(Noted))
        }

        fn to_device<const D: usize>(state: Noted, _: &Device) -> Noted {
            state
        }
    }

    /// The whole optimizer restores its state on the device of the run, not on Burn's default one.
    #[test]
    fn an_optimizer_is_restored_on_the_device_of_the_run() {
        let run = Device::flex().autodiff();
        let weights = Param::from_tensor(Tensor::<1>::ones([2], &run));
        let mut trained = optimizer(Plain, &run);
        let loss = (weights.val() * 3.0).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &weights);
        let weights = trained.step(0.5, weights, gradients);
        let values: Vec<f32> = weights.val().inner().into_data().try_into_vec().expect("f32");
        assert_eq!(values, [-0.5, -0.5]);
        let record = trained.into_bytes().expect("a record");
        let before = RESTORED_ON.lock().expect("one thread").len();
        assert_eq!(before, 0);
        optimizer(Plain, &run).from_bytes(record).expect("its own record");
        assert_eq!(*RESTORED_ON.lock().expect("one thread"), [true]);
    }
}
