//! What a run is made of, before it begins: the recipe, the weights to start from, the folder.

use std::collections::HashMap;
use std::path::Path;

use anstream::println;
use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use model::weights::{Weights, shape_of};
use model::{Model, TensorSpec};
use serde_json::{Value, json};

use crate::args::TrainArgs;
use crate::checkpoint::{self, Checkpoint, Part, Progress};
use crate::class_vectors;
use crate::config::{ClassVectors, TrainConfig};
use crate::data::Dataset;
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

/// The tensor with the vectors of the classes.
const CLASS_VECTORS: &str = "time.class.weight";

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
        let emoji =
            args.data.as_deref().is_none_or(|data| data == Path::new(crate::data::EMBEDDED));
        let usual = if emoji { "tiny-emoji" } else { "tiny" };
        let name = args.preset.as_deref().unwrap_or(usual);
        let Some(preset) = TrainConfig::preset(name) else {
            bail!("--preset {name}: the presets are {}", model::preset::names());
        };
        let mut options = Options::new(&format!("preset {name}"), &preset)?;
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
            None if config.model == preset.model && name == "tiny-emoji" && embedded => {
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
                let same = weights.config().clone().with_classes(config.model.classes());
                ensure!(
                    same == config.model,
                    "--from {from}: these weights belong to another model than preset {name}"
                );
                let name = weights.card().name.clone();
                (Origin::Weights(bytes), name)
            }
        };
        let data = config.data.file_stem().unwrap_or_default().to_string_lossy();
        let label = format!("{name}-{data}-batch{}", config.batch);
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

    /// Initial values of the tensors, by name, of those that are not among the weights to start
    /// from: where the classes are others, what knows of them begins anew.
    fn initial(
        &self,
        weights: Option<&Weights>,
        data: &Dataset,
    ) -> anyhow::Result<HashMap<String, Vec<f32>>> {
        let config = &self.config;
        let kept = |spec: &TensorSpec| weights.is_some_and(|w| w.specs().contains(spec));
        let parameters =
            Model::new(config.model.clone(), config.seed, &Device::flex())?.parameters();
        let new = parameters.into_iter().filter(|(spec, _)| !kept(spec));
        let values = new.map(|(spec, values)| match &spec.shape[..] {
            &[channels, classes]
                if spec.name == CLASS_VECTORS
                    && config.class_vectors == ClassVectors::Components =>
            {
                (spec.name, class_vectors::components(data, classes, channels, config.seed))
            }
            _ => (spec.name, values),
        });
        Ok(values.collect())
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// If the model or the optimizer cannot be made of what is there, or not on these devices.
    pub fn build(
        &self,
        data: &Dataset,
        devices: &[Device],
        nodes: Option<Nodes>,
    ) -> anyhow::Result<(Progress, Learner)> {
        let config = &self.config;
        let new = || Progress::new(config.clone(), self.started_from.clone());
        match &self.origin {
            // Each device makes them itself: initial values of a large model take much memory.
            Origin::Scratch if config.class_vectors == ClassVectors::Random => {
                let make = |device: &_| Ok(Model::new(config.model.clone(), config.seed, device)?);
                Ok((new(), Learner::new(config, devices, nodes, make, make)?))
            }
            Origin::Scratch => {
                let values = self.initial(None, data)?;
                let make = |device: &_| {
                    let values = |spec: &TensorSpec| values[&spec.name].clone();
                    Ok(Model::from_values(config.model.clone(), &values, device))
                };
                Ok((new(), Learner::new(config, devices, nodes, make, make)?))
            }
            Origin::Weights(bytes) => {
                let weights = Weights::parse(bytes)?;
                let initial = if weights.config() == &config.model {
                    HashMap::new()
                } else {
                    self.initial(Some(&weights), data)?
                };
                let values = |spec: &TensorSpec| match initial.get(&spec.name) {
                    Some(values) => values.clone(),
                    None => weights.values(spec),
                };
                let make =
                    |device: &_| Ok(Model::from_values(config.model.clone(), &values, device));
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
        ("class_vectors", args.class_vectors.map(|vectors| json!(vectors))),
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
