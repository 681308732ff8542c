//! Gradient checkpointing (Chen et al., arXiv 1604.06174): the intermediate results of a block are
//! recomputed for its gradient instead of being kept. A step takes one more forward pass, and needs
//! the memory of one block instead of that of all.
//!
//! In the forward pass, each block runs without autodiff, and its output is a leaf from which a new
//! graph begins. In the backward pass, last block first, each block runs again with autodiff, on
//! the part of the graph that leads to it from the leaves before it.

use core::fmt;
use std::cell::RefCell;
use std::rc::Rc;

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};

/// Gradient-checkpointing recorder of one forward pass, given to [`crate::Model::denoise`] and then
/// to [`Recompute::backward`].
#[derive(Clone, Default)]
pub struct Recompute(Rc<RefCell<Recording>>);

#[derive(Default)]
struct Recording {
    /// The time token as computed, and the leaf that is passed to the blocks for it.
    time: Option<[Tensor<2>; 2]>,
    blocks: Vec<RecordedBlock>,
}

struct RecordedBlock {
    /// Computes the output again, with autodiff.
    forward: Box<dyn FnOnce() -> Tensor<4>>,
    /// The output as a leaf.
    output: Tensor<4>,
}

impl Recompute {
    /// Records the time token. Returns the leaf to pass to the blocks.
    pub(crate) fn time(&self, time: Tensor<2>) -> Tensor<2> {
        let leaf = time.clone().detach().require_grad();
        self.0.borrow_mut().time = Some([time, leaf.clone()]);
        leaf
    }

    /// Runs a block without autodiff and records it. Returns its output as a leaf.
    pub(crate) fn block<B: Module + 'static>(
        &self,
        block: &B,
        x: Tensor<4>,
        time: Tensor<2>,
        forward: impl Fn(&B, Tensor<4>, Tensor<2>) -> Tensor<4> + 'static,
    ) -> Tensor<4> {
        let output = forward(&block.valid(), x.clone().inner(), time.clone().inner());
        let output = Tensor::from_inner(output).require_grad();
        let block = block.clone();
        let forward = Box::new(move || forward(&block, x, time));
        self.0.borrow_mut().blocks.push(RecordedBlock { forward, output: output.clone() });
        output
    }

    /// Backpropagates from a scalar. `take` receives the gradients of the parameters in parts,
    /// which are to be summed.
    pub fn backward(self, objective: Tensor<1>, mut take: impl FnMut(Gradients)) {
        let Recording { time, mut blocks } = self.0.take();
        let mut outputs: Vec<_> = blocks.iter().map(|block| block.output.clone()).collect();
        let mut output_gradients: Vec<Option<Tensor<4>>> = vec![None; blocks.len()];
        let mut time_gradient: Option<Tensor<2>> = None;
        let mut gradients = objective.backward();
        loop {
            for (output, sum) in outputs.iter().zip(&mut output_gradients) {
                add(sum, output.grad(&gradients));
            }
            if let Some([_, leaf]) = &time {
                add(&mut time_gradient, leaf.grad(&gradients));
            }
            take(gradients);
            let Some(RecordedBlock { forward, .. }) = blocks.pop() else { break };
            outputs.pop();
            let output_gradient =
                output_gradients.pop().flatten().expect("every block leads to the output");
            gradients = (forward() * Tensor::from_inner(output_gradient)).sum().backward();
        }
        if let (Some([time, _]), Some(time_gradient)) = (time, time_gradient) {
            take((time * Tensor::from_inner(time_gradient)).sum().backward());
        }
    }
}

/// Adds a gradient to a sum; either may be absent.
fn add<const D: usize>(sum: &mut Option<Tensor<D>>, part: Option<Tensor<D>>) {
    *sum = match (sum.take(), part) {
        (Some(sum), Some(part)) => Some(sum + part),
        (sum, part) => sum.or(part),
    };
}

impl fmt::Debug for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Recompute({} blocks)", self.0.borrow().blocks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ImageConfig, NetworkConfig, PrecondConfig, Skip, Window};
    use crate::diffusion::noise::start_noise;
    use crate::network::io::{NetworkOptions, TrainingOptions};
    use crate::{Model, preset};
    use burn::tensor::{Device, TensorData};

    /// All gradients, by parameter, in the order of the weights file.
    fn gradients(model: &Model, recompute: bool) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let shape @ [c, h, w] = model.config.image_shape();
        let noise = start_noise(1, 2 * shape.iter().product::<usize>());
        let x = Tensor::<4>::from_data(TensorData::new(noise, [2, c, h, w]), &device);
        let recompute = recompute.then(Recompute::default);
        let training = TrainingOptions { dropout: Some(vec![3, 4]), recompute: recompute.clone() };
        let options = NetworkOptions { training, ..NetworkOptions::default() };
        let objective = model.denoise(x, &[0.5, 2.0], options).denoised.square().sum();
        // The layer of the augmentation labels has no gradient if there are none.
        let mut gradients = crate::golden::gradients(model, objective, recompute);
        let trained = model.network.specs().iter().filter(|spec| !spec.buffer);
        trained.map(|spec| gradients.remove(&spec.id()).unwrap_or_default()).collect()
    }

    #[test]
    fn gradients_match_an_ordinary_backward_pass() {
        let image = ImageConfig {
            resolution: 8,
            channels: vec![32, 64],
            blocks: vec![2, 1],
            window: Window::Size(4),
            dropout: 0.3,
            branch_init: 1.0,
            skip: Skip::Block,
            ..ImageConfig::default()
        };
        let Some(crate::config::ModelConfig { network: NetworkConfig::Latent(latent), .. }) =
            preset::by_name("latent-tiny")
        else {
            unreachable!()
        };
        let latent = crate::config::LatentConfig { resolution: 4, depth: 3, ..latent };
        let song = crate::golden::song_configs().map(NetworkConfig::Song);
        let dit = NetworkConfig::Latent(crate::golden::dit::small());
        let others = [NetworkConfig::Image(image), NetworkConfig::Latent(latent), dit];
        for network in others.into_iter().chain(song) {
            let config = crate::config::ModelConfig { network, precond: PrecondConfig::default() };
            let model = Model::new(config, 1, &Device::flex().autodiff()).expect("fits together");
            let (whole, parts) = (gradients(&model, false), gradients(&model, true));
            assert_eq!(whole.len(), parts.len());
            assert!(whole.iter().filter(|values| values.is_empty()).count() < 2);
            for (whole, part) in whole.iter().zip(&parts) {
                assert_eq!(whole.len(), part.len());
                let largest = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
                for (a, b) in whole.iter().zip(part) {
                    assert!((a - b).abs() <= 1e-5 * largest, "{a} and {b}");
                }
            }
        }
    }
}
