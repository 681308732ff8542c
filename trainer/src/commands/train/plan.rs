//! Plan of a run: the recipe, the initial weights, the run folder. Nothing is built or written yet.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anstream::println;
use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use model::weights::{Weights, shape_of};
use model::{Model, TensorSpec};
use serde_json::{Value, json};

use super::flags::recipe_json;
use super::messages;
use crate::args::TrainArgs;
use crate::config::options::{self, Options};
use crate::config::{ClassVectors, EMBEDDED_DATA, TrainConfig};
use crate::data::class_vectors;
use crate::data::dataset::Dataset;
use crate::files::hash::sha256;
use crate::hub::resolve;
use crate::learner::nodes::Nodes;
use crate::learner::step::Learner;
use crate::memory;
use crate::run::checkpoint::{self, Checkpoint, Part};
use crate::run::folder::RunFolder;
use crate::run::launch::{absolute, utf8};
use crate::run::progress::Progress;
use crate::run::report::warn;
use crate::weights::load::read;
use crate::weights::shipped;

/// Starting point of a training process.
enum Start {
    /// Random weights.
    Random,
    /// Weights file.
    Weights(Vec<u8>),
    /// Checkpoint of a run to resume.
    Checkpoint { folder: RunFolder, checkpoint: Box<Checkpoint>, lock: Option<File> },
}

/// Plan of a run.
pub struct Plan {
    options: Options,
    /// Recipe.
    pub config: TrainConfig,
    start: Start,
    /// Name of the initial weights; empty for random weights.
    started_from: String,
    /// Name of the run folder, after its number.
    label: String,
    /// Name of the preset, if it is for data that are not given.
    without_data: Option<String>,
}

/// Presets for the embedded dataset.
const BUNDLED_DATA: [&str; 2] = ["tiny", "tiny-emoji"];

/// Name of the tensor of class embeddings.
const CLASS_EMBEDDINGS: &str = "time.class.weight";

/// Name of random weights in --from.
const SCRATCH: &str = "scratch";

impl Plan {
    /// Makes the plan that the flags ask for.
    ///
    /// # Errors
    ///
    /// If the flags contradict each other, or a file cannot be used.
    pub fn new(args: &TrainArgs) -> anyhow::Result<Self> {
        match &args.resume {
            Some(path) => Self::resume(path, args),
            None => Self::start(args),
        }
    }

    /// Makes the plan of a new run.
    fn start(args: &TrainArgs) -> anyhow::Result<Self> {
        utf8("--out", &args.output.out)?;
        let embedded = Path::new(EMBEDDED_DATA);
        let default_preset = match args.recipe.data.as_deref() {
            Some(data) if data != embedded => "tiny",
            _ => "tiny-emoji",
        };
        let name = args.preset.as_deref().unwrap_or(default_preset);
        let Some(preset) = TrainConfig::preset(name) else {
            bail!("--preset {name}: the presets are {}", model::preset::names());
        };
        let mut options = Options::new(&format!("preset {name}"), &preset)?;
        if let Some(path) = &args.options {
            let context = || format!("--options {}", path.display());
            let text = std::fs::read_to_string(path).with_context(context)?;
            let values: Value = serde_json::from_str(&text).with_context(context)?;
            ensure!(values.is_object(), "--options {}: not a JSON object", path.display());
            options.add(&path.display().to_string(), values);
        }
        options.add("flags", recipe_json(&args.recipe)?);
        let config = options.config()?;
        config.validate_fit()?;
        let without_data = !BUNDLED_DATA.contains(&name) && options.is_of_preset("data");

        let from = match &args.from {
            Some(from) => from.clone(),
            // By default, train the shipped weights further on their own data.
            None if config.model == preset.model
                && name == "tiny-emoji"
                && config.data == embedded =>
            {
                shipped::NAME.into()
            }
            None => SCRATCH.into(),
        };
        let (start, started_from) = match from.as_str() {
            SCRATCH => (Start::Random, String::new()),
            from => initial_weights(from, &config, name)?,
        };
        let fingerprint = match &start {
            Start::Weights(bytes) => Some(sha256(bytes)),
            _ => None,
        };
        if let (Some(known), None) = (&config.from_sha256, &args.from) {
            ensure!(
                fingerprint.as_ref() == Some(known),
                "these options are those of a run that started from the weights with SHA-256 {known}: \
                 use --from with these weights, or with others, or --from scratch"
            );
        }
        if config.from_sha256 != fingerprint {
            options.add("--from", json!({ "from_sha256": fingerprint }));
        }
        let config = with_found_paths(options.config()?)?;
        let data = config.data.file_stem().unwrap_or_default().to_string_lossy();
        let label = format!("{name}-{data}-batch{}", config.batch);
        let without_data = without_data.then(|| name.to_string());
        Ok(Self { options, config, start, started_from, label, without_data })
    }

    /// Makes the plan of resuming a run.
    fn resume(path: &Path, args: &TrainArgs) -> anyhow::Result<Self> {
        // The process that trains this run may save and remove checkpoints until it is locked. A dry
        // run may look at a run that is being trained.
        let (folder, _) = RunFolder::find(path)?;
        utf8("--resume", folder.path())?;
        let lock = if args.dry_run { None } else { Some(folder.lock()?) };
        let (folder, path, checkpoint) = checkpoint::find(path, warn)?;
        let mut options = Options::new(&path.display().to_string(), &checkpoint.progress.config)?;
        options.add("flags", recipe_json(&args.recipe)?);
        let mut config = options.config()?;
        if args.recipe.data.is_some() || args.recipe.validation_data.is_some() {
            config = with_found_paths(config)?;
        }
        ensure!(
            config.held_out() == checkpoint.progress.config.held_out(),
            "--validate: a resumed run must hold out the same images, since it was trained on the \
             others; use --validation-data to validate on other data"
        );
        let started_from = checkpoint.progress.started_from.clone();
        let start = Start::Checkpoint { folder, checkpoint: Box::new(checkpoint), lock };
        let (label, without_data) = (String::new(), None);
        Ok(Self { options, config, start, started_from, label, without_data })
    }

    /// Returns a line for each option that flags change in a resumed run.
    ///
    /// # Errors
    ///
    /// As [`options::changes`].
    pub fn changes(&self) -> anyhow::Result<Vec<String>> {
        match &self.start {
            Start::Checkpoint { checkpoint, .. } => {
                options::changes(&checkpoint.progress.config, &self.config)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Returns the number of images seen before.
    pub fn images(&self) -> u64 {
        match &self.start {
            Start::Checkpoint { checkpoint, .. } => checkpoint.progress.images,
            _ => 0,
        }
    }

    /// Returns whether nothing is left to do: the run has seen all of its images, and its weights file
    /// is of this state. The process may have ended after the last checkpoint and before that.
    pub fn is_finished(&self) -> bool {
        let Start::Checkpoint { folder, checkpoint, .. } = &self.start else { return false };
        let (images, config) = (checkpoint.progress.images, &self.config);
        let seen_by = |bytes: &[u8]| Weights::parse(bytes).ok().map(|file| file.card().images_seen);
        let written = || read(Some(&folder.weights())).ok().and_then(|bytes| seen_by(&bytes));
        images >= config.duration
            && (images >= config.duration + config.batch as u64 || written() == Some(images))
    }

    /// Returns what to do if the preset is for data that are not given.
    pub fn missing_data(&self) -> Option<String> {
        let preset = self.without_data.as_ref()?;
        let how = match self.config.model.image_shape() {
            [3, 32, 32] => {
                "`trainer data fetch cifar10` downloads CIFAR-10 (170 MB), then use --data \
                            data/cifar-10-python.tar.gz; --data emoji trains on the embedded emoji"
                    .into()
            }
            [1 | 3, h, w] => format!(
                "use --data with a folder or a zip of {w}x{h} images; --resize crops and resizes others"
            ),
            _ => {
                "for a latent model, encode the images with `trainer data encode`, then use --data \
                  with the latent dataset"
                    .into()
            }
        };
        Some(format!("--preset {preset} needs --data: {how}"))
    }

    /// Prints the options, the sizes and the run folder.
    ///
    /// # Errors
    ///
    /// As [`Options::config`].
    pub fn print(&self, args: &TrainArgs) -> anyhow::Result<()> {
        for (path, value, source) in self.options.explained()? {
            println!("{path:<40} {value:<24} {source}");
        }
        let network = shape_of(&self.config.model);
        let macs = network.macs();
        let parameters = network.parameter_count();
        println!("\nparameters      {parameters}");
        println!(
            "multiply-adds   {:.3} G per image and forward pass, with the attention products",
            macs.total() as f64 / 1e9
        );
        let needed = memory::estimate(&self.config, args.cluster.workers());
        println!("memory          about {} MB per device", needed / 1_000_000);
        let size = checkpoint::size(&self.config, parameters);
        println!("checkpoints     {} MB each", size / 1_000_000);
        if let Some(interval) = self.config.snapshot_interval() {
            let averages = self.config.profile_stds().len();
            let each = 4 * parameters / 1_000_000;
            println!("snapshots       {averages} averages of {each} MB every {interval} images");
        }
        println!("images          {} of {}", self.images(), self.config.duration);
        match &self.start {
            Start::Checkpoint { folder, checkpoint, .. } => {
                if let Some(left) = messages::time_left(&checkpoint.progress, self.config.duration)
                {
                    println!("time            about {left} left at the speed of the run so far");
                }
                println!("run folder      {}", folder.path().display());
            }
            _ => {
                println!(
                    "time            printed once steps are taken; `trainer bench` measures speed"
                );
                println!(
                    "run folder      a new folder in {}, named NUMBER-{}",
                    args.output.out.display(),
                    self.label
                );
            }
        }
        Ok(())
    }

    /// Returns the run folder, which is created for a new run, and its lock.
    ///
    /// # Errors
    ///
    /// If it cannot be created or locked.
    pub fn folder(self, args: &TrainArgs) -> anyhow::Result<(RunFolder, File)> {
        let (folder, lock) = match self.start {
            Start::Checkpoint { folder, lock, .. } => (folder, lock),
            _ => (RunFolder::create(&args.output.out, &self.label)?, None),
        };
        let lock = lock.map_or_else(|| folder.lock(), Ok)?;
        Ok((folder, lock))
    }

    /// Builds the learner.
    ///
    /// # Errors
    ///
    /// If the model or the optimizer cannot be built on these devices.
    pub fn build(
        &self,
        data: &Dataset,
        devices: &[Device],
        nodes: Option<Nodes>,
    ) -> anyhow::Result<(Progress, Learner)> {
        let config = &self.config;
        let new = || Progress::new(config.clone(), self.started_from.clone());
        match &self.start {
            // Each device initialises its own model: initial values of a large model take much
            // memory.
            Start::Random if config.class_vectors == ClassVectors::Random => {
                let make = |device: &_| Ok(Model::new(config.model.clone(), config.seed, device)?);
                Ok((new(), Learner::new(config, devices, nodes, make, make)?))
            }
            Start::Random => {
                let values = self.initial_values(None, data)?;
                let make = |device: &_| {
                    let values = |spec: &TensorSpec| values[&spec.name].clone();
                    Ok(Model::from_values(config.model.clone(), &values, device))
                };
                Ok((new(), Learner::new(config, devices, nodes, make, make)?))
            }
            Start::Weights(bytes) => {
                let weights = Weights::parse(bytes)?;
                let initial = if weights.config() == &config.model {
                    HashMap::new()
                } else {
                    self.initial_values(Some(&weights), data)?
                };
                let values = |spec: &TensorSpec| match initial.get(&spec.name) {
                    Some(values) => values.clone(),
                    None => weights.values(spec),
                };
                let make =
                    |device: &_| Ok(Model::from_values(config.model.clone(), &values, device));
                Ok((new(), Learner::new(config, devices, nodes, make, make)?))
            }
            Start::Checkpoint { folder, checkpoint, .. } => {
                let network = |device: &_| Ok(checkpoint.model(Part::Network, device));
                let ema = |device: &_| Ok(checkpoint.model(Part::Ema, device));
                let mut learner = Learner::new(config, devices, nodes, network, ema)?;
                learner.restore_averages(|i, device| checkpoint.model(Part::Average(i), device));
                learner
                    .restore_optimizer(&checkpoint.optimizer)
                    .with_context(|| folder.path().display().to_string())?;
                let config = config.clone();
                let progress = checkpoint.progress.clone();
                let times = config.loss.time_sampler(progress.times);
                Ok((Progress { config, times, ..progress }, learner))
            }
        }
    }

    /// Returns initial values, by tensor name, of the tensors that are not in `weights`. These are
    /// all tensors without `weights`, or those that depend on the classes if `weights` has other
    /// classes.
    fn initial_values(
        &self,
        weights: Option<&Weights>,
        data: &Dataset,
    ) -> anyhow::Result<HashMap<String, Vec<f32>>> {
        let config = &self.config;
        let is_known = |spec: &TensorSpec| weights.is_some_and(|w| w.specs().contains(spec));
        let parameters =
            Model::new(config.model.clone(), config.seed, &Device::flex())?.parameters();
        let new = parameters.into_iter().filter(|(spec, _)| !is_known(spec));
        let values = new.map(|(spec, values)| {
            Ok(match &spec.shape[..] {
                &[channels, classes]
                    if spec.name == CLASS_EMBEDDINGS
                        && config.class_vectors == ClassVectors::Components =>
                {
                    (spec.name, class_vectors::components(data, classes, channels, config.seed)?)
                }
                _ => (spec.name, values),
            })
        });
        values.collect()
    }
}

/// Returns a recipe whose datasets are found from any folder. Options in a file can have links, too.
fn with_found_paths(mut config: TrainConfig) -> anyhow::Result<TrainConfig> {
    let validation = config.validation.as_mut().and_then(|validation| validation.data.as_mut());
    let paths = [("--data", Some(&mut config.data)), ("--validation-data", validation)];
    for (flag, path) in paths.into_iter().filter_map(|(flag, path)| Some((flag, path?))) {
        if let Some(found) = resolve(path)? {
            *path = found;
        }
        if path.as_path() != Path::new(EMBEDDED_DATA) {
            *path = absolute(path);
        }
        utf8(flag, path)?;
    }
    Ok(config)
}

/// Reads the initial weights of --from, and returns them with their name.
fn initial_weights(
    from: &str,
    config: &TrainConfig,
    preset: &str,
) -> anyhow::Result<(Start, String)> {
    let bytes = match from {
        shipped::NAME => shipped::WEIGHTS.to_vec(),
        path => std::fs::read(path).with_context(|| format!("--from {path}"))?,
    };
    let weights = Weights::parse(&bytes).with_context(|| format!("--from {from}"))?;
    let same = weights.config().clone().with_classes(config.model.classes());
    ensure!(
        same == config.model,
        "--from {from}: these weights are of another model than that of preset {preset}"
    );
    let name = weights.card().name.clone();
    Ok((Start::Weights(bytes), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use crate::run::checkpoint::State;
    use clap::Parser;
    use model::loss::LossConfig;

    fn plan(flags: &[&str]) -> anyhow::Result<Plan> {
        let args = Args::parse_from([&["trainer", "train"], flags].concat());
        let Some(Command::Train(args)) = args.command else { panic!("trainer train") };
        Plan::new(&args)
    }

    /// Earlier versions did not compare loss and preconditioner. Their runs can be resumed.
    #[test]
    fn a_run_whose_loss_does_not_fit_can_be_resumed_but_not_started() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let mut config = TrainConfig::preset("tiny").expect("a preset");
        let LossConfig::Edm { sigma_data, .. } = &mut config.loss else { unreachable!() };
        *sigma_data = 0.4;
        let folder = RunFolder::create(out.path(), "x").expect("created");
        folder.write_options(&config).expect("written");
        let model = Model::new(config.model.clone(), 1, &Device::flex()).expect("valid");
        let progress = Progress { images: 32, ..Progress::new(config.clone(), String::new()) };
        let state = State {
            progress,
            network: model.parameters(),
            ema: model.parameters(),
            averages: Vec::new(),
            optimizer: Vec::new(),
        };
        checkpoint::save(&folder.checkpoint(32), state).expect("saved");
        let path = folder.path().to_str().expect("a plain path");
        let resumed = plan(&["--resume", path]).expect("resumed");
        assert_eq!((resumed.images(), &resumed.config), (32, &config));

        let options = folder.path().join("options.json");
        let flags = ["--preset", "tiny", "--options", options.to_str().expect("a plain path")];
        let error = plan(&flags).err().expect("refused").to_string();
        assert!(error.contains("loss.sigma_data is 0.4"), "{error}");
    }
}
