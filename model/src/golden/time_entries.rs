//! The transformer block with the time token in each of its places, against the independent
//! computation, and its gradients against finite differences.

use burn::tensor::{DType, Device};

use super::{Golden, close, shape};
use crate::config::{TimeEntry, TransformerConfig};
use crate::network::block::Transformer;
use crate::network::window::RelativePositions;

/// Every place, under its name in the golden file and in configurations.
pub(crate) const ENTRIES: [(&str, TimeEntry); 7] = [
    ("qkv", TimeEntry::Qkv),
    ("bias", TimeEntry::Bias),
    ("mlp", TimeEntry::Mlp),
    ("mlp-input", TimeEntry::MlpInput),
    ("none", TimeEntry::None),
    ("token", TimeEntry::Token),
    ("additive", TimeEntry::Additive),
];

fn block(golden: &Golden, (name, time_entry): (&str, TimeEntry), device: &Device) -> Transformer {
    golden.build(device, |params| {
        let positions = RelativePositions::new(2, params);
        let config = TransformerConfig { head_dim: 8, time_entry, ..TransformerConfig::default() };
        Transformer::new(&params.enter(name), &config, &shape(16, 12, &positions))
    })
}

#[test]
fn each_place_is_the_one_of_the_reference() {
    let golden = Golden::open("time_entries.safetensors");
    let device = Device::flex();
    for entry @ (name, place) in ENTRIES {
        assert_eq!(serde_json::to_value(place).expect("plain data"), name);
        let block = block(&golden, entry, &device);
        for weights in [false, true] {
            let x = golden.tensor("x", &device, DType::F32);
            let time = golden.tensor("time", &device, DType::F32);
            let (output, maps) = block.forward(x, time, weights);
            close(output, &golden, &format!("{name}.output"), 1e-5);
            assert_eq!(maps.is_some(), weights);
            let Some(maps) = maps else { continue };
            close(maps.weights, &golden, &format!("{name}.weights"), 1e-5);
            let tables = if place == TimeEntry::Bias { 2 } else { 1 };
            assert_eq!(maps.bias.dims(), [tables, 2, 4, 4]);
            // Whether queries, keys and values have a part of the time token.
            let lengths: Vec<f32> = maps.lengths.into_data().try_to_vec().expect("f32");
            let want = match place {
                TimeEntry::Qkv | TimeEntry::Token => [true; 3],
                TimeEntry::Additive => [false, false, true],
                _ => [false; 3],
            };
            for (part, want) in want.into_iter().enumerate() {
                assert!(lengths[part] > 0.0);
                assert_eq!(lengths[3 + part] > 0.0, want, "{name}: {part}");
            }
        }
    }
}

/// Central differences in `f64`, for inputs and parameters.
#[cfg(feature = "train")]
#[test]
fn gradients_of_each_place_are_those_of_finite_differences() {
    use super::{Nudge, Widen, nudge};
    use burn::module::{Module, ModuleVisitor, Param, ParamId};
    use burn::tensor::{Distribution, Gradients, Tensor};

    const STEP: f64 = 1e-5;
    /// Each parameter and its gradient, 0 where it has none.
    struct Collect<'a>(&'a Gradients, Vec<(ParamId, Vec<f64>)>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push((param.id, of(&param.val(), self.0)));
        }
    }
    fn of<const D: usize>(x: &Tensor<D>, gradients: &Gradients) -> Vec<f64> {
        match x.grad(gradients) {
            Some(gradient) => gradient.into_data().try_to_vec().expect("f64"),
            None => vec![0.0; x.shape().num_elements()],
        }
    }

    let golden = Golden::open("time_entries.safetensors");
    let device = Device::flex().autodiff();
    for entry @ (name, place) in ENTRIES {
        let block = block(&golden, entry, &device).map(&mut Widen);
        let x = golden.tensor::<4>("x", &device, DType::F64).require_grad();
        let time = golden.tensor::<2>("time", &device, DType::F64).require_grad();
        device.seed(1);
        let cotangent = x.random_like(Distribution::Normal(0.0, 1.0)).detach();
        let loss = |block: &Transformer, x: &Tensor<4>, time: &Tensor<2>| {
            (block.forward(x.clone(), time.clone(), false).0 * cotangent.clone()).sum()
        };
        let check = |what: &str, place: usize, found: f64, at: &dyn Fn(f64) -> Tensor<1>| {
            let at = |step| at(step).into_scalar::<f64>();
            let want = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let error = (found - want).abs();
            assert!(error < 1e-6 * want.abs().max(1.0), "{name}, {what}[{place}]: {found}, {want}");
        };
        let gradients = loss(&block, &x, &time).backward();
        for (i, found) in of(&x, &gradients).into_iter().enumerate().step_by(61) {
            check("x", i, found, &|step| loss(&block, &nudge(x.clone(), i, step), &time));
        }
        let of_time = of(&time, &gradients);
        assert_eq!(of_time.iter().any(|g| *g != 0.0), place != TimeEntry::None, "{name}");
        for (i, found) in of_time.into_iter().enumerate() {
            check("time", i, found, &|step| loss(&block, &x, &nudge(time.clone(), i, step)));
        }
        let mut collect = Collect(&gradients, Vec::new());
        block.visit(&mut collect);
        for (number, (id, gradient)) in collect.1.into_iter().enumerate() {
            assert!(gradient.iter().any(|g| *g != 0.0), "{name}: parameter {number}");
            for i in (0..gradient.len()).step_by(gradient.len().div_ceil(6)) {
                check(&format!("parameter {number}"), i, gradient[i], &|step| {
                    let nudged = block.clone().map(&mut Nudge { id, index: i, step });
                    loss(&nudged, &x, &time)
                });
            }
        }
    }
}
