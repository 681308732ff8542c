//! Muon for the matrices inside the network, Adam for all other parameters.

use burn::module::{ParamGroup, ParamId};
use burn::optim::{
    AdamConfig, AdjustLrFn, ModuleOptimizer, Muon, MuonConfig, MuonState, Optimizer,
};
use burn::tensor::{Device, Tensor};
use model::TensorSpec;

use super::placed::{self, Placed};

/// Returns an optimizer that uses Muon for the matrices of a network, with `ratio` times the
/// learning rate, and Adam for the other parameters. Its state is restored on `device`.
pub fn with_adam(
    adam: &AdamConfig,
    ratio: f64,
    specs: &[TensorSpec],
    device: &Device,
) -> ModuleOptimizer {
    let ids: Vec<ParamId> =
        specs.iter().filter(|spec| is_matrix(spec)).map(TensorSpec::id).collect();
    // Updates of about the RMS of Adam's (Moonlight), so that both can share a learning rate.
    let muon = MuonConfig::new().with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW).build();
    let matrices = Placed::new(Matrices { muon, ratio }, device);
    placed::optimizer(adam.build(), device).with_group(ParamGroup::from_ids(ids), matrices, None)
}

/// Returns whether a tensor is the weight of a linear layer or convolution between features. The
/// first and the last layer, embeddings and tables are not.
fn is_matrix(spec: &TensorSpec) -> bool {
    const OTHERS: [&str; 7] =
        ["tokenizer", "head", "time", "x_embedder", "t_embedder", "y_embedder", "final_layer"];
    let mut parts = spec.name.split('.');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // DDPM++ and NCSN++: the embeddings are `map_..`, the first and the last layer `.._conv`.
    let other = OTHERS.contains(&first) || first.starts_with("map_") || second.ends_with("_conv");
    spec.name.ends_with(".weight") && spec.shape.len() >= 2 && !other
}

/// Muon for tensors of any rank, flattened to matrices: all dimensions but the first are merged.
#[derive(Clone)]
struct Matrices {
    muon: Muon,
    ratio: f64,
}

impl Optimizer for Matrices {
    type State<const D: usize> = MuonState<2>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<MuonState<2>>,
    ) -> (Tensor<D>, Option<MuonState<2>>) {
        let shape = tensor.dims();
        let columns: usize = shape[1..].iter().product();
        let flat = |tensor: Tensor<D>| tensor.reshape([shape[0], columns]);
        let (tensor, state) = self.muon.step(lr * self.ratio, flat(tensor), flat(grad), state);
        (tensor.reshape(shape), state)
    }

    fn to_device<const D: usize>(state: MuonState<2>, device: &Device) -> MuonState<2> {
        Muon::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use model::weights::shape_of;

    fn matrices(preset: &str) -> Vec<String> {
        let network = shape_of(&model::preset::by_name(preset).expect("a preset"));
        let matrices = network.specs().iter().filter(|spec| is_matrix(spec));
        matrices.map(|spec| spec.name.clone()).collect()
    }

    #[test]
    fn muon_is_used_for_matrices_between_features() {
        let tiny = matrices("tiny");
        for name in [
            "encoder.0.blocks.0.conv.weight",
            "encoder.0.blocks.0.transformer.attn.qkv.weight",
            "encoder.0.blocks.0.transformer.mlp.fc2.weight",
            "encoder.1.down.weight",
        ] {
            assert!(tiny.iter().any(|found| found == name), "{name} is not among {tiny:?}");
        }
        let parts = ["tokenizer", "head", "time", "bias", "table", "norm"];
        for name in &tiny {
            assert!(!parts.iter().any(|part| name.split('.').any(|of| of == *part)), "{name}");
        }
        let latent = matrices("latent-tiny");
        assert!(latent.iter().all(|name| name.starts_with("blocks.")), "{latent:?}");
        let song = matrices("t5-ve-tmsa");
        let inside = |name: &String| name.contains("block") || name.contains("_in");
        let between = |name: &String| {
            ["_up.", "_down.", "_aux_residual."].iter().any(|part| name.contains(part))
        };
        assert!(song.iter().all(|name| inside(name) || between(name)), "{song:?}");
        let all = |preset| shape_of(&model::preset::by_name(preset).expect("a preset"));
        for (preset, found) in [("tiny", tiny), ("latent-tiny", latent), ("t5-ve-tmsa", song)] {
            let count = |names: &[String]| -> usize {
                let network = all(preset);
                let of = network.specs().iter().filter(|spec| names.contains(&spec.name));
                of.map(TensorSpec::len).sum()
            };
            // Most of the parameters.
            assert!(count(&found) * 10 > all(preset).parameter_count() * 7, "{preset}");
        }
    }

    /// The update is nearly orthogonal for tensors of any rank: its singular values, relative to
    /// the step size, are about 1.
    #[test]
    fn an_update_is_nearly_orthogonal() {
        let device = Device::flex();
        let mut noise = vec![0.0; 4 * 2 * 3 * 3];
        model::noise::Random::new(1, model::noise::Stream::Start, 0).fill_normal(&mut noise);
        let grad = Tensor::<4>::from_data(TensorData::new(noise, [4, 2, 3, 3]), &device);
        let muon = MuonConfig::new().with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW).build();
        let matrices = Matrices { muon, ratio: 2.0 };
        let (moved, state) = matrices.step(0.1, grad.zeros_like(), grad.clone(), None);
        assert!(state.is_some());
        // lr · ratio · 0.2 sqrt(max(rows, columns)).
        let length = 0.2 * 0.2 * 18f64.sqrt();
        let update = moved.clone().reshape([4, 18]) / -length;
        let gram = update.clone().matmul(update.swap_dims(0, 1));
        let gram: Vec<f32> = gram.into_data().try_into_vec().expect("f32");
        // Five Newton-Schulz iterations give singular values within 0.7 and 1.2.
        for (i, value) in gram.iter().enumerate() {
            let (want, tolerance) = if i % 5 == 0 { (1.0, 0.55) } else { (0.0, 0.35) };
            assert!((value - want).abs() < tolerance, "{i}: {value} of {gram:?}");
        }
        let along = (moved * grad).sum().into_scalar::<f32>();
        assert!(along < 0.0, "not a descent direction: {along}");
    }
}
