//! `trainer evaluate`: measures the quality of generated images.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use metrics::network::FeatureNetwork;
use metrics::reference::Reference;
use metrics::store::Store;
use model::Model;
use model::card::Card;
use model::generate::Settings;
use model::weights::Weights;
use serde_json::json;

use super::collect::Collector;
use super::load_network;
use super::report::{Report, Source};
use super::scores::{Plan, Prepared, scores};
use crate::args::{EvaluateArgs, seeds};
use crate::files::hash::sha256;
use crate::run::checkpoint::Checkpoint;
use crate::run::report::{print_message, warn};
use crate::samples::generate::one_batch;
use crate::samples::labels::Labels;
use crate::weights::autoencoder::Autoencoder;
use crate::weights::load::{LoadedModel, load, read};
use crate::weights::save::save;

/// Number of samples below which covariances of Inception's features are singular.
const FEW: usize = 2_048;

/// Number of samples of published values.
const PROTOCOL: usize = 50_000;

/// Runs the command.
///
/// # Errors
///
/// If the flags are invalid, a file cannot be used, or there are too few samples.
pub fn run(args: EvaluateArgs) -> anyhow::Result<()> {
    let card = if args.card { args.weights.as_deref() } else { None };
    if let Some(path) = card {
        check_has_card(path)?;
    }
    let device = args.device.device.open()?;
    let model = match &args.images {
        Some(_) => None,
        None => Some(Generator::new(&args, &device)?),
    };
    let reference = Reference::open(&args.reference)?;
    let network = load_network(&args.network, &device)?;
    reference.check(&network.identity, [network.pooled_dim(), network.spatial_dim()])?;
    let mut plan = Plan::new(&args.metrics, &reference, &network)?;

    let (store, source) = match (&args.images, model) {
        (Some(path), _) => {
            let source = json!({ "images": path });
            let batch = args.batch as usize;
            let state = args.state.as_deref();
            let mut collector = Collector::new(&network, state, &source, batch, None)?;
            collector.add_all(path)?;
            let images = path.display().to_string();
            (collector.finish()?, Source::Images { images })
        }
        (None, Some(generator)) => generator.collect(&args, &network, &device)?,
        (None, None) => unreachable!("there is a model or there are images"),
    };
    let count = store.len();
    plan.notes.extend(notes(count, &network, &reference));
    for note in &plan.notes {
        warn(note);
    }
    let (path, sha256) = (reference.path.display().to_string(), reference.sha256.clone());
    let reference_images = reference.info.as_ref().map(|info| info.images);
    let state = args.state.as_deref();
    let prepared = Prepared::new(reference, &plan, &network, state, args.batch as usize)?;
    let samples = || match &source {
        Source::Images { images } => images.clone(),
        Source::Generated { seeds, .. } => format!("the samples of the seeds {seeds}"),
    };
    let announce = |name: &str| print_message!("computing {name}");
    let scores =
        scores(&plan, &store, &prepared, &network, &device, announce).with_context(samples)?;
    let report = Report {
        scores,
        count,
        source,
        network: network.identity.clone(),
        reference: path,
        reference_sha256: sha256,
        reference_images,
        notes: plan.notes,
    };
    if args.json {
        report.print_json()?;
    } else {
        report.print_table();
    }
    if let Some(path) = card {
        write_card(path, &report)?;
    }
    Ok(())
}

/// Checks that a path is that of a weights file of ours, whose card can be changed.
///
/// # Errors
///
/// If it is a run folder, a checkpoint or another file.
fn check_has_card(path: &Path) -> anyhow::Result<()> {
    let problem =
        "only a weights file has a card that can be changed: write one with trainer export";
    ensure!(!path.is_dir(), "{}: {problem}", path.display());
    let bytes = read(Some(path))?;
    ensure!(!Checkpoint::is_checkpoint(&bytes), "{}: {problem}", path.display());
    let weights = Weights::parse(&bytes).with_context(|| path.display().to_string())?;
    // Files of the official release have neither.
    ensure!(weights.answer().is_some(), "{}: {problem}", path.display());
    Ok(())
}

/// Writes the values into the card of the weights file that they were measured on.
///
/// # Errors
///
/// If the file was changed in the meantime, or cannot be written.
fn write_card(path: &Path, report: &Report) -> anyhow::Result<()> {
    let bytes = read(Some(path))?;
    let measured = match &report.source {
        Source::Generated { weights_sha256, .. } => weights_sha256.as_str(),
        Source::Images { .. } => "",
    };
    ensure!(
        sha256(&bytes) == measured,
        "{} was changed during the evaluation; its card was not written",
        path.display()
    );
    let weights = Weights::parse(&bytes).with_context(|| path.display().to_string())?;
    let card = Card { quality: report.quality(), ..weights.card().clone() };
    let model = Model::from_weights(&weights, &Device::flex());
    save(path, &model, &card, weights.precision())?;
    print_message!("wrote the values into the card of {}", path.display());
    Ok(())
}

/// Returns what limits comparisons of the values.
fn notes(count: usize, network: &FeatureNetwork, reference: &Reference) -> Vec<String> {
    let mut notes: Vec<String> = few_samples(count).into_iter().collect();
    if count >= FEW && count != PROTOCOL {
        notes.push(format!(
            "published values are of {PROTOCOL} samples, these of {count}: FID falls with the number \
             of samples"
        ));
    }
    if let Some(note) = unknown_network(network) {
        notes.push(note);
        if reference.info.is_none() {
            notes.push(format!(
                "{} does not say which feature network its statistics are of",
                reference.path.display()
            ));
        }
    }
    notes
}

/// Returns a note if there are too few samples for Fréchet distances.
pub fn few_samples(count: usize) -> Option<String> {
    (count < FEW).then(|| {
        format!(
            "{count} samples are fewer than {FEW}: their covariances are singular, and Fréchet \
             distances mean little; KID has no such bias"
        )
    })
}

/// Returns a note if the weights of the feature network are not the published ones.
pub fn unknown_network(network: &FeatureNetwork) -> Option<String> {
    (!network.identity.published).then(|| {
        format!(
            "the weights of the feature network are not the published ones: values can only be \
             compared with others of the same weights ({})",
            network.identity.weights_sha256
        )
    })
}

/// A model that generates the samples.
struct Generator {
    loaded: LoadedModel,
    autoencoder: Option<Autoencoder>,
    settings: Settings,
    labels: Labels,
    seeds: Vec<u64>,
}

impl Generator {
    /// Loads the model and checks the sampling settings.
    fn new(args: &EvaluateArgs, device: &Device) -> anyhow::Result<Self> {
        let mut settings = args.sampler.settings()?;
        let seeds = seeds(&args.seeds)?;
        let loaded = load(args.weights.as_deref(), device)?;
        let config = &loaded.model.config;
        ensure!(
            args.guidance.guidance.len() <= 1,
            "an evaluation is of one --guidance scale, not of several"
        );
        settings.guidance = args.guidance.guidance.first().map(|s| args.guidance.with_scale(*s));
        settings.use_process_of(config);
        let names = loaded.card.class_names(config.classes());
        let labels = Labels::from_args(&args.guidance, &names)?;
        settings.classes = labels.examples();
        settings.validate()?;
        settings.validate_for(config)?;
        settings.classes = labels.listed();
        let autoencoder = Autoencoder::from_args(&args.vae, device)?;
        let channels = match &autoencoder {
            Some(autoencoder) => {
                autoencoder.check_fits(config)?;
                autoencoder.vae.config.image_channels
            }
            None => config.image_shape()[0],
        };
        ensure!(
            channels == 1 || channels == 3,
            "samples of {channels} channels are not images: for a latent model, give its autoencoder \
             with --vae (diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-ema)"
        );
        Ok(Self { loaded, autoencoder, settings, labels, seeds })
    }

    /// Generates the samples, and collects their features.
    fn collect(
        self,
        args: &EvaluateArgs,
        network: &FeatureNetwork,
        device: &Device,
    ) -> anyhow::Result<(Store, Source)> {
        let Self { loaded, autoencoder, settings, labels, seeds } = self;
        let source = Source::Generated {
            model: loaded.card.name.clone(),
            weights_sha256: loaded.sha256.clone(),
            vae_sha256: autoencoder.as_ref().map(|autoencoder| autoencoder.sha256.clone()),
            seeds: args.seeds.clone(),
            evaluations: settings.method.evaluations(settings.steps),
            random_classes: labels.random_classes(),
            settings: Box::new(settings.clone()),
        };
        let identity = serde_json::to_value(&source).context("the source")?;
        let (batch, state) = (args.batch as usize, args.state.as_deref());
        let total = Some(seeds.len());
        let mut collector = Collector::new(network, state, &identity, batch, total)?;
        collector.skip_stored();
        let vae = autoencoder.as_ref().map(|autoencoder| &autoencoder.vae);
        let left = seeds.get(collector.stored()..).unwrap_or_default();
        for seeds in left.chunks(batch) {
            let on_evaluation = || ControlFlow::Continue(());
            let labels = labels.of_all(seeds);
            let images =
                one_batch(&loaded.model, vae, &settings, seeds, labels, device, on_evaluation)?;
            for (seed, image) in seeds.iter().zip(images.into_iter().flatten()) {
                collector.add(format!("seed {seed}").into(), image)?;
            }
        }
        Ok((collector.finish()?, source))
    }
}
