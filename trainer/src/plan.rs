//! What a run is made of, before it begins: the recipe, the weights to start from, the folder.

use std::path::Path;

use anstream::println;
use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use model::Model;
use model::weights::{Weights, shape_of};
use serde_json::{Value, json};

use crate::args::TrainArgs;
use crate::checkpoint::{self, Checkpoint, Part, Progress};
use crate::config::TrainConfig;
use crate::learner::Learner;
use crate::memory;
use crate::nodes::Nodes;
use crate::options::Options;
use crate::report::warn;
use crate::run_folder::RunFolder;
use crate::shipped;

/// What a run begins with.
enum Origin {
    /// Random weights.
    Scratch,
    /// A weights file.
    Weights(Vec<u8>),
    /// Where another run, or this one, has come to.
    Checkpoint { folder: RunFolder, checkpoint: Box<Checkpoint> },
}

/// A run that has not begun: nothing is built, and nothing is written.
pub struct Plan {
    options: Options,
    /// The recipe.
    pub config: TrainConfig,
    origin: Origin,
    /// Name of the weights that are started from; empty if there are none.
    started_from: String,
    /// What the run folder is called, after its number.
    label: String,
}

/// What `--from` calls random weights.
const SCRATCH: &str = "scratch";

impl Plan {
    /// The run that the flags ask for.
    ///
    /// # Errors
    ///
    /// If they do not fit together, or a file cannot be used.
    pub fn new(args: &TrainArgs) -> anyhow::Result<Self> {
        match &args.resume {
            Some(path) => Self::resume(path, args),
            None => Self::start(args),
        }
    }

    /// A new run.
    fn start(args: &TrainArgs) -> anyhow::Result<Self> {
        let Some(preset) = TrainConfig::preset(&args.preset) else {
            bail!("--preset {}: the presets are {}", args.preset, model::preset::names());
        };
        let mut options = Options::new(&format!("preset {}", args.preset), &preset)?;
        if let Some(path) = &args.options {
            let context = || format!("--options {}", path.display());
            let text = std::fs::read_to_string(path).with_context(context)?;
            let values: Value = serde_json::from_str(&text).with_context(context)?;
            ensure!(values.is_object(), "--options {}: not a JSON object", path.display());
            options.put(&path.display().to_string(), values);
        }
        options.put("flags", flags(args));
        let config = options.config()?;

        let embedded = config.data == Path::new(crate::data::EMBEDDED);
        let from = match &args.from {
            Some(from) => from.clone(),
            // What the bare command trains is what the shipped weights were trained on.
            None if config.model == preset.model && args.preset == "tiny" && embedded => {
                shipped::NAME.into()
            }
            None => SCRATCH.into(),
        };
        let (origin, started_from) = match from.as_str() {
            SCRATCH => (Origin::Scratch, String::new()),
            from => {
                let bytes = match from {
                    shipped::NAME => shipped::WEIGHTS.to_vec(),
                    path => std::fs::read(path).with_context(|| format!("--from {path}"))?,
                };
                let weights = Weights::parse(&bytes).with_context(|| format!("--from {from}"))?;
                ensure!(
                    weights.config() == &config.model,
                    "--from {from}: these weights belong to another model than preset {}",
                    args.preset
                );
                let name = weights.card().name.clone();
                (Origin::Weights(bytes), name)
            }
        };
        let data = config.data.file_stem().unwrap_or_default().to_string_lossy();
        let label = format!("{}-{data}-batch{}", args.preset, config.batch);
        Ok(Self { options, config, origin, started_from, label })
    }

    /// A run that goes on.
    fn resume(path: &Path, args: &TrainArgs) -> anyhow::Result<Self> {
        let (folder, path, checkpoint) = checkpoint::find(path, warn)?;
        let mut options = Options::new(&path.display().to_string(), &checkpoint.progress.config)?;
        options.put("flags", flags(args));
        let config = options.config()?;
        ensure!(
            config.held_out() == checkpoint.progress.config.held_out(),
            "--validate: the pictures that are held out would be others, and so would those that this \
             run is trained on; --validation-data takes them from elsewhere"
        );
        let started_from = checkpoint.progress.started_from.clone();
        let origin = Origin::Checkpoint { folder, checkpoint: Box::new(checkpoint) };
        Ok(Self { options, config, origin, started_from, label: String::new() })
    }

    /// Images that were seen before.
    pub fn images(&self) -> u64 {
        match &self.origin {
            Origin::Checkpoint { checkpoint, .. } => checkpoint.progress.images,
            _ => 0,
        }
    }

    /// Prints what would be done.
    ///
    /// # Errors
    ///
    /// As [`Options::config`].
    pub fn explain(&self, args: &TrainArgs) -> anyhow::Result<()> {
        for (path, value, source) in self.options.explained()? {
            println!("{path:<40} {value:<24} {source}");
        }
        let network = shape_of(&self.config.model);
        let macs = network.macs();
        println!("\nparameters      {}", network.parameter_count());
        println!("multiply-adds   {:.3} G a picture and forward pass", macs.total() as f64 / 1e9);
        let needed = memory::of_training(&self.config, args.workers());
        println!("memory          about {} MB a device", needed / 1_000_000);
        println!("checkpoints     {} MB each", checkpoint::size(&network) / 1_000_000);
        println!("images          {} of {}", self.images(), self.config.duration);
        match &self.origin {
            Origin::Checkpoint { folder, .. } => {
                println!("run folder      {}", folder.path().display());
            }
            _ => println!(
                "run folder      a new one in {}, named after {}",
                args.out.display(),
                self.label
            ),
        }
        Ok(())
    }

    /// The run's folder, which is made if the run is new.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn folder(&self, args: &TrainArgs) -> anyhow::Result<RunFolder> {
        match &self.origin {
            Origin::Checkpoint { folder, .. } => Ok(folder.clone()),
            _ => RunFolder::create(&args.out, &self.label),
        }
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If the model or the optimizer cannot be made of what is there, or not on these devices.
    pub fn build(
        &self,
        devices: &[Device],
        nodes: Option<Nodes>,
    ) -> anyhow::Result<(Progress, Learner)> {
        let config = &self.config;
        let new = || Progress::new(config.clone(), self.started_from.clone());
        match &self.origin {
            Origin::Scratch => {
                let make = |device: &_| Ok(Model::new(config.model.clone(), config.seed, device)?);
                Ok((new(), Learner::new(config, devices, nodes, make, make)?))
            }
            Origin::Weights(bytes) => {
                let weights = Weights::parse(bytes)?;
                let make = |device: &_| Ok(Model::from_weights(&weights, device));
                Ok((new(), Learner::new(config, devices, nodes, make, make)?))
            }
            Origin::Checkpoint { folder, checkpoint } => {
                let network = |device: &_| Ok(checkpoint.model(Part::Network, device));
                let ema = |device: &_| Ok(checkpoint.model(Part::Ema, device));
                let mut learner = Learner::new(config, devices, nodes, network, ema)?;
                learner
                    .resume_optimizer(&checkpoint.optimizer)
                    .with_context(|| folder.path().display().to_string())?;
                let config = config.clone();
                let progress = checkpoint.progress.clone();
                let times = config.loss.time_sampler(progress.times);
                Ok((Progress { config, times, ..progress }, learner))
            }
        }
    }
}

/// The values of the recipe that were given as flags.
fn flags(args: &TrainArgs) -> Value {
    let data = args.data.as_ref().map(|path| path.display().to_string());
    let validation = |images| match (images, &args.validation_data) {
        (0, _) => Value::Null,
        (images, None) => json!({ "images": images }),
        (images, Some(path)) => json!({ "images": images, "data": path.display().to_string() }),
    };
    let values = [
        ("data", data.map(Value::from)),
        ("batch", args.batch.map(Value::from)),
        ("micro_batch", args.micro_batch.map(Value::from)),
        ("gradient_checkpointing", args.gradient_checkpointing.map(Value::from)),
        ("precision", args.precision.map(|precision| json!(precision))),
        ("clip", args.clip.map(Value::from)),
        ("augment", args.augment.map(Value::from)),
        ("label_dropout", args.label_dropout.map(Value::from)),
        ("duration", args.duration.map(Value::from)),
        ("adam", args.lr.map(|lr| json!({ "lr": lr }))),
        ("lr_ramp", args.lr_ramp.map(Value::from)),
        ("lr_decay", args.lr_decay.map(Value::from)),
        ("optimizer", args.optimizer.map(|optimizer| json!(optimizer))),
        ("muon_lr", args.muon_lr.map(Value::from)),
        ("immiscible", args.immiscible.map(Value::from)),
        ("validation", args.validate.map(validation)),
        ("seed", args.seed.map(Value::from)),
    ];
    let given = values.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
    Value::Object(given.collect())
}
