//! Gradients of whole networks against finite differences, and training through the weights file.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};

use crate::card::Card;
use crate::config::{
    LatentConfig, LinearBetas, ModelConfig, NetworkConfig, PrecondConfig, SongConfig, VpSchedule,
};
use crate::diffusion::label::Label;
use crate::diffusion::noise::start_noise;
use crate::golden::synthetic::{fill, uniform};
use crate::golden::{dit, song_configs};
use crate::model::Model;
use crate::network::Network;
use crate::network::io::{Conditioning, NetworkInput, NetworkOptions, TrainingOptions};
use crate::network::params::{Source, TensorSpec};
use crate::weights::{Precision, Weights, to_bytes};

/// The networks besides the paper's own, small.
fn networks() -> Vec<NetworkConfig> {
    let song = song_configs().map(|config| SongConfig { classes: 3, ..config });
    let dit = LatentConfig { classes: 3, ..dit::small() };
    song.map(NetworkConfig::Song).into_iter().chain([NetworkConfig::Latent(dit)]).collect()
}

/// A scalar function of a network's output, in `f64`.
fn objective(config: &NetworkConfig, network: &Network, device: &Device) -> Tensor<1> {
    let config = ModelConfig { network: config.clone(), precond: PrecondConfig::default() };
    let tensor = |name, shape: [usize; 4]| {
        let values = uniform(name, shape.iter().product());
        Tensor::<4>::from_data(TensorData::new(values, shape), (device, DType::F64))
    };
    let [c, h, w] = config.image_shape();
    let augment = config.augment_labels();
    let augment = (augment > 0).then(|| tensor("aug", [2, augment, 1, 1]).reshape([2, augment]));
    let labels = vec![Label::from(Some(1)), Label::NONE];
    let output = network.forward(NetworkInput {
        x: tensor("x", [2, c, h, w]),
        c_noise: vec![-0.7, 0.4],
        options: NetworkOptions::from(Conditioning { labels, augment }),
    });
    let cotangent = tensor("cotangent", output.x.dims());
    (output.x * cotangent).sum()
}

/// The gradients of all parameters by the parameter's id, in Burn's order.
struct Collect<'a>(&'a Gradients, HashMap<u64, Vec<f64>>);

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.0).expect("a gradient").into_data();
        let gradient = gradient.convert::<f64>().try_into_vec().expect("f64");
        self.1.insert(param.id.val(), gradient);
    }
}

/// A step along the gradient of each tensor changes the objective by as much as the gradient says.
#[test]
fn gradients_are_finite_differences() {
    for config in networks() {
        let device = Device::flex().autodiff();
        let stored = Source::Stored(&fill);
        let network = Network::new(&config, &device, &stored);
        let gradients = objective(&config, &network, &device).backward();
        let mut collect = Collect(&gradients, HashMap::new());
        network.visit(&mut collect);
        let trained = network.specs().iter().filter(|spec| !spec.buffer);
        assert_eq!(collect.1.len(), trained.clone().count());
        for spec in trained {
            let gradient = &collect.1[&spec.id().val()];
            let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!(length.is_finite() && length > 0.0, "{}: {length}", spec.name);
            // The parameters are `f32`: the step is what is left of it after rounding.
            let moved = |sign: f64| {
                let start = spec.to_burn(fill(spec)).into_iter().zip(gradient);
                start.map(|(p, g)| (f64::from(p) + sign * 1e-3 * g / length) as f32).collect()
            };
            let ends: [Vec<f32>; 2] = [moved(1.0), moved(-1.0)];
            let at = |end: &Vec<f32>| {
                let values = |other: &TensorSpec| match other == spec {
                    true => spec.to_file(end.clone()),
                    false => fill(other),
                };
                let device = Device::flex();
                let network = Network::new(&config, &device, &Source::Stored(&values));
                objective(&config, &network, &device).into_scalar::<f64>()
            };
            let found = at(&ends[0]) - at(&ends[1]);
            let steps = ends[0].iter().zip(&ends[1]).map(|(a, b)| f64::from(*a) - f64::from(*b));
            let want: f64 = steps.zip(gradient).map(|(step, g)| step * g).sum();
            assert!((found / want - 1.0).abs() < 1e-3, "{}: {found}, not {want}", spec.name);
        }
    }
}

/// A model that was trained for a few steps is the same after it was written and read.
#[test]
fn trained_models_survive_their_files() {
    for network in networks() {
        let precond = match &network {
            NetworkConfig::Song(_) => PrecondConfig::Vp { schedule: VpSchedule::default() },
            _ => PrecondConfig::Adm { betas: LinearBetas::default() },
        };
        let config = ModelConfig { network, precond };
        let [c, h, w] = config.image_shape();
        let device = Device::flex().autodiff();
        let mut model = Model::new(config.clone(), 1, &device).expect("it fits together");
        let start = model.parameters();
        let mut optimizer = AdamConfig::new().init();
        let x = TensorData::new(start_noise(1, 2 * c * h * w), [2, c, h, w]);
        let labels = vec![Label::from(Some(2)), Label::NONE];
        let sigma = [0.5, 2.0];
        for step in 0..3 {
            let augment = Tensor::ones([2, config.augment_labels().max(1)], &device);
            let augment = (config.augment_labels() > 0).then_some(augment);
            let options = NetworkOptions {
                conditioning: Conditioning { labels: labels.clone(), augment },
                training: TrainingOptions {
                    dropout: Some(vec![step, step + 1]),
                    ..TrainingOptions::default()
                },
                ..NetworkOptions::default()
            };
            let output = model.denoise(Tensor::from_data(x.clone(), &device), &sigma, options);
            let gradients = output.raw.sub_scalar(1.0).square().mean().backward();
            let gradients = GradientsParams::from_grads(gradients, &model.network);
            model.network = optimizer.step(1e-2, model.network, gradients);
        }
        for ((spec, before), (_, after)) in start.iter().zip(model.parameters()) {
            assert_eq!(*before == after, spec.buffer, "{}", spec.name);
        }
        let denoise = |model: &Model, device: &Device| {
            let conditioning = Conditioning { labels: labels.clone(), augment: None };
            let x = Tensor::from_data(x.clone(), device);
            let denoised = model.denoise(x, &sigma, conditioning).denoised;
            denoised.into_data().try_into_vec::<f32>().expect("f32")
        };
        let want = denoise(&model, &device);
        for precision in [Precision::F32, Precision::F16] {
            let bytes = to_bytes(&config, &Card::default(), None, model.parameters(), precision)
                .expect("finite");
            let weights = Weights::parse(&bytes).expect("its own file");
            assert_eq!((weights.config(), weights.precision()), (&config, precision));
            let device = Device::flex();
            let read = Model::from_weights(&weights, &device);
            let found = denoise(&read, &device);
            let scale = want.iter().fold(0f32, |m, x| m.max(x.abs()));
            for (found, want) in found.iter().zip(&want) {
                match precision {
                    Precision::F32 => assert_eq!(found, want),
                    _ => assert!((found - want).abs() < 5e-3 * scale, "{found}, not {want}"),
                }
            }
        }
    }
}
