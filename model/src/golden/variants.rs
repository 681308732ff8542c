//! Every variant of the image network and of the latent network: through a weights file and back,
//! gradients of all that is trained, gradient checkpointing, and 16 bits.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};

use super::time_entries::ENTRIES;
use super::{Nudge, Widen, config, latent_config};
use crate::Model;
use crate::card::Card;
use crate::config::{
    BlockKind, DecoderConfig, EncoderConfig, ImageConfig, ModelConfig, NetworkConfig, Position,
    PrecondConfig, Resample, Residual, Skip, TimeAdd, TimeConfig, TimeEntry, TimeFrequencies,
    TransformerConfig, Window,
};
use crate::diffusion::label::Label;
use crate::diffusion::noise::{Random, Stream, start_noise};
use crate::network::Network;
use crate::network::io::{Conditioning, Inspection, NetworkInput, NetworkOptions, TrainingOptions};
use crate::network::params::Source;
use crate::training::recompute::Recompute;
use crate::weights::{Precision, Weights, to_bytes};

/// Every variant, and whether its time token reaches the output.
fn variants() -> Vec<(String, NetworkConfig, bool)> {
    let image = || ImageConfig { branch_init: 1.0, dropout: 0.3, ..config() };
    let enters = |time_entry, transformer: TransformerConfig| TransformerConfig {
        time_entry,
        ..transformer
    };
    let mut all = Vec::new();
    for (name, entry) in ENTRIES {
        let timed = entry != TimeEntry::None;
        let mut network = image();
        network.transformer = enters(entry, network.transformer);
        all.push((format!("image, {name}"), NetworkConfig::Image(network), timed));
        let mut network = latent_config();
        network.transformer = enters(entry, network.transformer);
        all.push((format!("latent, {name}"), NetworkConfig::Latent(network), timed));
    }
    let vit = EncoderConfig::Stages { block: BlockKind::Vit };
    let vit_decoder = DecoderConfig::Unet { block: BlockKind::Vit };
    let mla = DecoderConfig::Mla { width: 16, head_width: 8 };
    let token_without_bias = TransformerConfig {
        position: Position::None,
        qkv_bias: false,
        ..enters(TimeEntry::Token, config().transformer)
    };
    let edits: [(&str, &dyn Fn(&mut ImageConfig)); 10] = [
        ("time add", &|c| {
            c.time_add = TimeAdd::Both;
            c.transformer.time_entry = TimeEntry::None;
        }),
        ("time add with skips of blocks", &|c| {
            (c.time_add, c.skip) = (TimeAdd::Decoder, Skip::Block);
        }),
        ("Fourier", &|c| {
            c.time = TimeConfig { embedding: TimeFrequencies::Fourier, ..c.time.clone() };
        }),
        ("a window larger than the last map", &|c| {
            (c.channels, c.blocks, c.window) = (vec![16; 3], vec![1; 3], Window::Size(4));
        }),
        ("a token without a bias", &|c| c.transformer = token_without_bias.clone()),
        ("A", &|c| {
            (c.encoder, c.decoder) = (EncoderConfig::Isotropic { patch: 2 }, mla);
            (c.channels, c.time_add, c.window) = (vec![16; 2], TimeAdd::Encoder, Window::Global);
            c.transformer.position = Position::None;
        }),
        ("B", &|c| (c.encoder, c.decoder, c.time_add) = (vit, mla, TimeAdd::Encoder)),
        ("C", &|c| (c.encoder, c.decoder, c.time_add) = (vit, vit_decoder, TimeAdd::Both)),
        ("D", &|c| {
            (c.decoder, c.time_add, c.residual) = (vit_decoder, TimeAdd::Decoder, Residual::None);
        }),
        ("transformer blocks, bilinear", &|c| {
            (c.channels, c.resample) = (vec![16; 2], Resample::Bilinear);
            (c.encoder, c.time_add) = (vit, TimeAdd::Encoder);
        }),
    ];
    for (name, edit) in edits {
        let mut network = image();
        edit(&mut network);
        all.push((name.into(), NetworkConfig::Image(network), true));
    }
    all
}

/// Moves every trained parameter away from its initial value, which is often 0 or 1.
struct Shake;

impl ModuleMapper for Shake {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.val().is_require_grad() {
            return param;
        }
        let mut noise = vec![0.0; param.val().shape().num_elements()];
        Random::new(1, Stream::Parameters, param.id.val()).fill_normal(&mut noise);
        param.map(|tensor| {
            let noise = TensorData::new(noise, tensor.dims());
            let noise = Tensor::from_data(noise, &tensor.device());
            (tensor + noise * 0.1).detach().require_grad()
        })
    }
}

fn denoised(model: &Model, device: &Device, options: impl Into<NetworkOptions>) -> Tensor<4> {
    let shape @ [c, h, w] = model.config.image_shape();
    let noise = start_noise(1, 2 * shape.iter().product::<usize>());
    let x = Tensor::<4>::from_data(TensorData::new(noise, [2, c, h, w]), device);
    let mut options: NetworkOptions = options.into();
    options.conditioning = Conditioning {
        labels: match model.config.classes() {
            0 => vec![],
            _ => vec![Label::from(1), Label::NONE],
        },
        augment: match model.config.augment_labels() {
            0 => None,
            labels => Some(Tensor::ones([2, labels], device)),
        },
    };
    let inspects = options.inspection.attention_of.is_some();
    let output = model.denoise(x, &[0.5, 2.0], options);
    assert_eq!(output.attention.is_some(), inspects);
    output.denoised
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("f32")
}

/// All gradients, by the names of parameters.
fn gradients(model: &Model, device: &Device, recompute: bool) -> HashMap<String, Vec<f32>> {
    let recompute = recompute.then(Recompute::default);
    let training = TrainingOptions { dropout: Some(vec![3, 4]), recompute: recompute.clone() };
    let options = NetworkOptions { training, ..NetworkOptions::default() };
    let objective = denoised(model, device, options).square().sum();
    let mut gradients = super::gradients(model, objective, recompute);
    let specs = model.network.specs().iter();
    specs.filter_map(|spec| Some((spec.name.clone(), gradients.remove(&spec.id())?))).collect()
}

#[test]
fn variants_are_trained_and_survive_their_files() {
    let trains = Device::flex().autodiff();
    for (name, network, timed) in variants() {
        let config = ModelConfig { network, precond: PrecondConfig::default() };
        let mut model = Model::new(config, 1, &trains).unwrap_or_else(|e| panic!("{name}: {e}"));
        model.network = model.network.map(&mut Shake);

        // Its file.
        let parameters = model.parameters();
        let bytes = to_bytes(&model.config, &Card::default(), None, parameters, Precision::F32);
        let bytes = bytes.expect("finite values");
        let weights = Weights::parse(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(weights.config(), &model.config, "{name}");
        let device = Device::flex();
        let read = Model::from_weights(&weights, &device);
        let mut inference = model.clone();
        inference.network = inference.network.valid();
        let want = values(denoised(&inference, &device, NetworkOptions::default()));
        assert!(want.iter().all(|value| value.is_finite()), "{name}");
        assert_eq!(values(denoised(&read, &device, NetworkOptions::default())), want, "{name}");

        // Attention maps, and 16 bits.
        let largest = |values: &[f32]| values.iter().fold(0f32, |most, x| most.max(x.abs()));
        let near = |found: &[f32], want: &[f32], tolerance: f32, what: &str| {
            assert_eq!(found.len(), want.len(), "{name}, {what}");
            for (a, b) in found.iter().zip(want) {
                let error = (a - b).abs();
                assert!(error <= tolerance * largest(want), "{name}, {what}: {a} and {b}");
            }
        };
        let half = read.clone().stored_as(DType::F16).computing_in(DType::F16);
        for (number, _) in read.network.blocks().iter().enumerate() {
            let inspection = Inspection { attention_of: Some(number), ..Inspection::default() };
            let options = || NetworkOptions { inspection, ..NetworkOptions::default() };
            near(&values(denoised(&read, &device, options())), &want, 1e-5, "maps");
            near(&values(denoised(&half, &device, options())), &want, 0.05, "maps of 16 bits");
        }
        near(&values(denoised(&half, &device, NetworkOptions::default())), &want, 0.05, "16 bits");
        let inspection = Inspection { summaries: true, ..Inspection::default() };
        let options = NetworkOptions { inspection, ..NetworkOptions::default() };
        near(&values(denoised(&read, &device, options)), &want, 1e-5, "summaries");

        // Gradients.
        let (whole, parts) = (gradients(&model, &trains, false), gradients(&model, &trains, true));
        for spec in model.network.specs() {
            let root = spec.name.split('.').next().unwrap_or_default();
            let of_time = ["time", "t_embedder", "y_embedder"].contains(&root);
            let reaches = !spec.buffer && (timed || !of_time);
            let what = format!("gradient of {}", spec.name);
            let Some(whole) = whole.get(&spec.name) else {
                assert!(!reaches, "{name}, {what}: there is none");
                assert!(!parts.contains_key(&spec.name), "{name}, {what}");
                continue;
            };
            assert!(whole.iter().all(|value| value.is_finite()), "{name}, {what}");
            assert_eq!(largest(whole) > 0.0, reaches, "{name}, {what}");
            near(&parts[&spec.name], whole, 1e-5, &what);
        }
    }
}

/// Central differences in `f64`, through whole networks, for two values of every parameter outside
/// blocks, which have a test of their own.
#[test]
fn gradients_of_whole_networks_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    /// Each parameter and its gradient, 0 where it has none.
    struct Collect<'a>(&'a Gradients, Vec<(ParamId, Vec<f64>)>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = match param.val().grad(self.0) {
                Some(gradient) => gradient.into_data().try_to_vec().expect("f64"),
                None => vec![0.0; param.val().shape().num_elements()],
            };
            self.1.push((param.id, values));
        }
    }
    let device = Device::flex().autodiff();
    let draw = |shape: [usize; 4], stream| {
        let mut values = vec![0.0; shape.iter().product()];
        Random::new(2, Stream::Start, stream).fill_normal(&mut values);
        Tensor::<4>::from_data(TensorData::new(values, shape), (&device, DType::F64))
    };
    let entries = |name: &str| name.starts_with("image, ") || name.starts_with("latent, ");
    for (name, config, _) in variants().into_iter().filter(|(name, ..)| !entries(name)) {
        let NetworkConfig::Image(mut image) = config else { continue };
        image.channels.iter_mut().for_each(|channels| *channels /= 2);
        let config = NetworkConfig::Image(image.clone());
        let network = Network::new(&config, &device, &Source::Random { seed: 1 });
        let network = network.map(&mut Shake).map(&mut Widen);
        let shape = [2, image.image_channels, image.resolution, image.resolution];
        let (x, cotangent) = (draw(shape, 0), draw(shape, 1));
        let augment = Tensor::ones([2, image.time.augment_labels], (&device, DType::F64));
        let loss = |network: &Network| {
            let conditioning = Conditioning { labels: vec![], augment: Some(augment.clone()) };
            let input = NetworkInput {
                x: x.clone(),
                c_noise: vec![-0.4, 0.3],
                options: conditioning.into(),
            };
            (network.forward(input).x * cotangent.clone()).sum()
        };
        let gradients = loss(&network).backward();
        let mut collect = Collect(&gradients, Vec::new());
        network.visit(&mut collect);
        let gradients: HashMap<ParamId, Vec<f64>> = collect.1.into_iter().collect();
        let specs = network.specs().iter();
        for spec in specs.filter(|spec| !spec.buffer && !spec.name.contains(".blocks.")) {
            let (id, gradient) = (spec.id(), &gradients[&spec.id()]);
            for place in [gradient.len() / 3, gradient.len() - 1] {
                let at = |step| {
                    let nudged = network.clone().map(&mut Nudge { id, index: place, step });
                    loss(&nudged).into_scalar::<f64>()
                };
                let (found, want) = (gradient[place], (at(STEP) - at(-STEP)) / (2.0 * STEP));
                let error = (found - want).abs();
                assert!(
                    error < 1e-6 * want.abs().max(1.0),
                    "{name}, {}: {found}, {want}",
                    spec.name
                );
            }
        }
    }
}
