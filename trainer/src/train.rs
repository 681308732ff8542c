//! `trainer train`: the training loop.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anstream::{eprintln, print, println};
use anyhow::{Context, bail, ensure};
use burn::optim::{AdamConfig, GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, Device, Tensor, TensorData};
use model::generate::Settings;
use model::loss::weighted_squared_error;
use model::network::Network;
use model::noise::{Random, Stream};
use model::picture::Rgb;
use model::weights::{Precision, Weights, shape_of};
use model::{Conditioning, Model};
use serde_json::{Map, Value};

use crate::args::TrainArgs;
use crate::augment::Resampler;
use crate::checkpoint::{self, Checkpoint, Part, Progress, State};
use crate::config::TrainConfig;
use crate::data::Dataset;
use crate::loader::{Batch, Loader};
use crate::options::Options;
use crate::report::{Status, Verbosity};
use crate::run_folder::{RunFolder, write_file};
use crate::signals::Stop;
use crate::weights_file::warn;
use crate::{ema, export, gradients, memory, sample, shipped};

/// Images between two lines of `stats.jsonl`, at the least.
const STRETCH: u64 = 1_000;

/// Steps in a row that may fail before training stops.
const PATIENCE: u32 = 10;

/// Runs the command.
///
/// # Errors
///
/// If anything keeps training from starting or going on. What was saved stays.
pub fn run(args: TrainArgs) -> anyhow::Result<ExitCode> {
    let stop = Stop::listen().context("cannot listen to signals")?;
    let device = args.device.open()?;
    let plan = match &args.resume {
        Some(path) => Plan::resume(path, &args)?,
        None => Plan::start(&args)?,
    };
    let config = plan.options.config()?;
    ensure!(
        plan.images() < config.duration,
        "this run has seen its {} images; --duration makes it longer",
        config.duration
    );
    // Data that cannot be used should not leave a folder behind.
    let data = Arc::new(Dataset::open(&config.data, config.model.image_shape())?);
    if args.dry_run {
        plan.explain(&args)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (folder, mut run) = plan.build(&args, &device)?;
    let _lock = folder.lock()?;
    let seldom = (config.duration / 3).clamp(STRETCH, 500_000);
    let sample_every = args.sample_every.unwrap_or(seldom).max(1);
    let save_every = args.save_every.unwrap_or(seldom).max(1);
    let quiet = args.quiet || args.json;
    if !quiet {
        run.introduce(&folder, &data, &args);
    }

    let mut stats = folder.stats(run.progress.images)?;
    let mut status = Status::new(
        run.progress.images,
        config.duration,
        if quiet { Verbosity::Quiet } else { Verbosity::Full },
    );
    let loader = Loader::new(&config, data, run.progress.images);
    let started = Instant::now();
    let trained_before = run.progress.seconds;
    run.grid(args.grid, &folder, &status)?;
    let stopped = loop {
        // One step.
        let step_started = Instant::now();
        let lr = config.lr(run.progress.images);
        let step = run.step(loader.next(), lr);
        run.progress.seconds = trained_before + started.elapsed().as_secs_f64();

        // Tell.
        let images = run.progress.images;
        status.step(images, config.batch, step_started.elapsed(), step.loss, lr);
        if !step.taken {
            status.warn(&format!(
                "after {images} images: loss {}, gradient {}: this step was not taken ({} of {PATIENCE} in a \
                 row)",
                step.loss, step.norm, run.progress.skipped_in_row
            ));
        }
        if run.progress.skipped_in_row >= PATIENCE {
            status.finish();
            bail!(run.given_up(&folder, lr));
        }
        if run.progress.stretch.1 >= STRETCH {
            let line = run.stats(lr, step.norm, status.rate());
            // One write, so that a line is there whole or not at all.
            stats.write_all(line.as_bytes()).context("cannot write stats.jsonl")?;
            if args.json {
                print!("{line}");
            }
        }

        // Show and save.
        let stopped = stop.asked();
        let out_of_time = args.max_time.is_some_and(|max| started.elapsed() >= max);
        let last = images >= config.duration || out_of_time || stopped.is_some();
        let due = |every: u64| images / every != (images - config.batch as u64) / every;
        if due(sample_every) || last && stopped.is_none() {
            run.grid(args.grid, &folder, &status)?;
        }
        if due(save_every) || last {
            run.save(&folder)?;
            folder.keep(args.keep as usize, args.keep_every)?;
        }
        if last {
            break stopped;
        }
    };
    status.finish();

    let again = format!("trainer train --resume {}", folder.path().display());
    if let Some(code) = stopped {
        eprintln!("stopped after {} images, all saved; to go on:\n  {again}", run.progress.images);
        return Ok(code);
    }
    let weights = folder.weights();
    export::write(&weights, &run.ema, &export::card(&run.progress), Precision::F32)?;
    if args.json {
        let result = serde_json::json!({
            "images": run.progress.images,
            "run": folder.path(),
            "weights": weights,
        });
        println!("{result}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} images seen; the weights are in {}", run.progress.images, weights.display());
    if args.grid > 0 {
        println!("pictures so far: {}", folder.grid(run.progress.images).display());
    }
    println!("to make more:  cargo run -p trainer -- sample --weights {}", weights.display());
    if run.progress.images < config.duration {
        println!(
            "to go on:      cargo run -p trainer -- train --resume {}",
            folder.path().display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

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
struct Plan {
    options: Options,
    origin: Origin,
    /// Name of the weights that are started from; empty if there are none.
    started_from: String,
    /// What the run folder is called, after its number.
    label: String,
}

impl Plan {
    /// A new run.
    fn start(args: &TrainArgs) -> anyhow::Result<Self> {
        let Some(preset) = TrainConfig::preset(&args.preset) else {
            let known = model::preset::all().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            bail!("--preset {}: the presets are {}", args.preset, known.join(", "));
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
        Ok(Self { options, origin, started_from, label })
    }

    /// A run that goes on.
    fn resume(path: &Path, args: &TrainArgs) -> anyhow::Result<Self> {
        let (folder, path, checkpoint) = checkpoint::find(path, warn)?;
        let mut options = Options::new(&path.display().to_string(), &checkpoint.progress.config)?;
        options.put("flags", flags(args));
        let started_from = checkpoint.progress.started_from.clone();
        let origin = Origin::Checkpoint { folder, checkpoint: Box::new(checkpoint) };
        Ok(Self { options, origin, started_from, label: String::new() })
    }

    /// Images that were seen before.
    fn images(&self) -> u64 {
        match &self.origin {
            Origin::Checkpoint { checkpoint, .. } => checkpoint.progress.images,
            _ => 0,
        }
    }

    /// Prints what would be done.
    fn explain(&self, args: &TrainArgs) -> anyhow::Result<()> {
        for (path, value, source) in self.options.explained()? {
            println!("{path:<40} {value:<24} {source}");
        }
        let config = self.options.config()?;
        let network = shape_of(&config.model);
        let macs = network.macs();
        println!("\nparameters      {}", parameters(&network));
        println!("multiply-adds   {:.3} G a picture and forward pass", macs.total() as f64 / 1e9);
        println!("memory          about {} MB", memory_estimate(&config) / 1_000_000);
        println!("checkpoints     {} MB each", checkpoint_bytes(&network) / 1_000_000);
        println!("images          {} of {}", self.images(), config.duration);
        match &self.origin {
            Origin::Checkpoint { folder, .. } => {
                println!("run folder      {}", folder.path().display())
            }
            _ => println!(
                "run folder      a new one in {}, named after {}",
                args.out.display(),
                self.label
            ),
        }
        Ok(())
    }

    /// Builds it, and its folder.
    fn build(self, args: &TrainArgs, device: &Device) -> anyhow::Result<(RunFolder, Run)> {
        let config = self.options.config()?;
        let autodiff = device.clone().autodiff();
        let [_, _, side] = config.model.image_shape();
        let resampler = Resampler::new(side, device);
        let optimizer = optimizer(&config);
        let new = |config: TrainConfig| Progress {
            started_from: self.started_from.clone(),
            images: 0,
            seconds: 0.0,
            loss: None,
            stretch: (0.0, 0),
            skipped: 0,
            skipped_in_row: 0,
            config,
        };
        let (progress, model, ema, optimizer, folder) = match self.origin {
            Origin::Scratch => {
                let make = |device| Model::new(config.model.clone(), config.seed, device);
                (new(config.clone()), make(&autodiff)?, make(device)?, optimizer, None)
            }
            Origin::Weights(bytes) => {
                let weights = Weights::parse(&bytes)?;
                let make = |device| Model::from_weights(&weights, device);
                (new(config.clone()), make(&autodiff), make(device), optimizer, None)
            }
            Origin::Checkpoint { folder, checkpoint } => {
                let optimizer = optimizer
                    .from_bytes(Bytes::from_bytes_vec(checkpoint.optimizer.clone()))
                    .map_err(|error| anyhow::anyhow!("{}: {error}", folder.path().display()))?;
                let progress = Progress { config, ..checkpoint.progress.clone() };
                let model = checkpoint.model(Part::Network, &autodiff);
                (progress, model, checkpoint.model(Part::Ema, device), optimizer, Some(folder))
            }
        };
        let folder = match folder {
            Some(folder) => folder,
            None => RunFolder::create(&args.out, &self.label)?,
        };
        let options = serde_json::to_string_pretty(&progress.config)?;
        write_file(&folder.options(), options.as_bytes()).context("cannot write options.json")?;
        Ok((folder, Run { progress, model, ema, optimizer, resampler, device: autodiff }))
    }
}

/// What `--from` calls random weights.
const SCRATCH: &str = "scratch";

/// The values of the recipe that were given as flags.
fn flags(args: &TrainArgs) -> Value {
    let mut adam = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        value.map(|value| adam.insert(name.into(), value));
    };
    put("lr", args.lr.map(Value::from));
    let adam = (!adam.is_empty()).then_some(Value::Object(adam));
    let data = args.data.as_ref().map(|path| path.display().to_string());
    let values = [
        ("data", data.map(Value::from)),
        ("batch", args.batch.map(Value::from)),
        ("micro_batch", args.micro_batch.map(Value::from)),
        ("clip", args.clip.map(Value::from)),
        ("augment", args.augment.map(Value::from)),
        ("duration", args.duration.map(Value::from)),
        ("adam", adam),
        ("lr_ramp", args.lr_ramp.map(Value::from)),
        ("seed", args.seed.map(Value::from)),
    ];
    let given = values.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
    Value::Object(given.collect())
}

fn optimizer(config: &TrainConfig) -> ModuleOptimizer {
    let [beta_1, beta_2] = config.adam.betas.map(|beta| beta as f32);
    AdamConfig::new()
        .with_beta_1(beta_1)
        .with_beta_2(beta_2)
        .with_epsilon(config.adam.eps as f32)
        .init()
}

fn parameters(network: &Network) -> usize {
    network.specs().iter().map(|spec| spec.len()).sum()
}

/// Bytes of a checkpoint: weights, their average, and the two moments of Adam.
fn checkpoint_bytes(network: &Network) -> usize {
    4 * 4 * parameters(network)
}

/// Bytes that training takes, roughly: weights, gradients, moments, average; and what
/// backpropagation keeps, some 20 values for each token and channel of each block.
fn memory_estimate(config: &TrainConfig) -> u64 {
    let network = shape_of(&config.model);
    let at_a_time = config.micro_batch.unwrap_or(config.batch);
    let features: usize =
        network.blocks().iter().map(|block| block.side * block.side * block.channels).sum();
    4 * (5 * parameters(&network) + 20 * at_a_time * features) as u64
}

/// What one step came to.
struct Step {
    /// The loss: the weighted squared error, averaged over the values of all pictures.
    loss: f64,
    /// The norm of the gradient, before it was shortened.
    norm: f64,
    /// Whether the weights were changed.
    taken: bool,
}

/// A run in memory.
struct Run {
    progress: Progress,
    /// The model that trains, on an autodiff device.
    model: Model,
    /// Its moving average.
    ema: Model,
    optimizer: ModuleOptimizer,
    resampler: Resampler,
    device: Device,
}

impl Run {
    fn introduce(&self, folder: &RunFolder, data: &Dataset, args: &TrainArgs) {
        let config = &self.progress.config;
        let parameters = parameters(&self.model.network);
        eprintln!(
            "{:.1} M parameters, {} pictures of {}, batch {}, seed {}",
            parameters as f64 / 1e6,
            data.len(),
            config.data.display(),
            config.batch,
            config.seed
        );
        if self.progress.images > 0 {
            eprintln!("going on after {} images", self.progress.images);
        } else if self.progress.started_from.is_empty() {
            eprintln!("starting from nothing: pictures take shape after some 100,000 images");
        } else {
            eprintln!(
                "starting from the weights \"{}\", not from nothing (--from scratch does that)",
                self.progress.started_from
            );
        }
        eprintln!(
            "everything goes to {}: {} checkpoints of {} MB, and grids",
            folder.path().display(),
            args.keep,
            checkpoint_bytes(&self.model.network) / 1_000_000
        );
    }

    /// One step of the optimizer. It is not taken where the loss or the gradient is not finite.
    fn step(&mut self, batch: Batch, lr: f64) -> Step {
        let config = &self.progress.config;
        let b = batch.sigma.len();
        let images_before = self.progress.images;
        let mut accumulator = GradientsAccumulator::new();
        let mut loss = 0.0;
        let size = config.micro_batch.unwrap_or(b);
        for (i, part) in batch.parts(size, config.model.image_shape()).into_iter().enumerate() {
            let first = images_before + (i * size) as u64;
            let (gradients, part_loss) = self.gradients(part, first, b);
            accumulator.accumulate(&self.model.network, gradients);
            loss += part_loss;
        }
        let mut gradients = accumulator.grads();
        let norm = gradients::norm(&self.model.network, &gradients);
        let taken = loss.is_finite() && norm.is_finite();
        if taken {
            if let Some(clip) = config.clip
                && norm > clip
            {
                gradients = gradients::scale(&self.model.network, gradients, clip / norm);
            }
            self.model.network = self.optimizer.step(lr, self.model.network.clone(), gradients);
            let beta = config.ema_beta(images_before);
            self.ema.network = ema::update(self.ema.network.clone(), &self.model.network, beta);
        }
        let progress = &mut self.progress;
        progress.images += b as u64;
        if taken {
            progress.stretch.0 += loss * b as f64;
            progress.stretch.1 += b as u64;
            progress.skipped_in_row = 0;
        } else {
            progress.skipped += 1;
            progress.skipped_in_row += 1;
        }
        Step { loss, norm, taken }
    }

    /// Gradients and loss of a part of a batch of `whole` pictures; `first` is the number of the
    /// part's first training image.
    fn gradients(&self, batch: Batch, first: u64, whole: usize) -> (GradientsParams, f64) {
        let config = &self.progress.config;
        let b = batch.sigma.len();
        let [c, h, w] = config.model.image_shape();
        let labels = config.model.augment_labels();
        // Dropout draws from the device: seeding it makes it a function of the images seen.
        let mut random = Random::new(config.seed, Stream::Dropout, first);
        self.device.seed(u64::from(random.bits()) << 32 | u64::from(random.bits()));

        let pictures = |values, device: &Device| {
            Tensor::<4>::from_data(TensorData::new(values, [b, c, h, w]), device)
        };
        let column =
            |values: Vec<f64>| Tensor::<1>::from_data(TensorData::new(values, [b]), &self.device);
        let images = if batch.inverses.is_empty() {
            pictures(batch.images, &self.device)
        } else {
            // Nothing here needs gradients.
            let images = pictures(batch.images, &self.device.clone().inner());
            Tensor::from_inner(self.resampler.apply(images, &batch.inverses))
        };
        let noise = pictures(batch.noise, &self.device);
        let noisy = images.clone() + noise * column(batch.sigma.clone()).reshape([b, 1, 1, 1]);
        let augment = (labels > 0).then(|| {
            Tensor::<2>::from_data(TensorData::new(batch.augment, [b, labels]), &self.device)
        });
        let conditioning = Conditioning { augment, ..Conditioning::default() };
        let denoised = self.model.denoise(noisy, &batch.sigma, conditioning).denoised;
        let weight = column(batch.sigma.iter().map(|&sigma| config.loss.weight(sigma)).collect());
        // Summed over values, averaged over the pictures of the step, as EDM has it.
        let objective = weighted_squared_error(denoised, images, weight).sum() / whole as f64;
        let loss = f64::from(objective.clone().into_scalar::<f32>()) / (c * h * w) as f64;
        (GradientsParams::from_grads(objective.backward(), &self.model.network), loss)
    }

    /// What is said when training cannot go on.
    fn given_up(&self, folder: &RunFolder, lr: f64) -> String {
        let images = self.progress.images;
        let last = RunFolder::find(folder.path())
            .ok()
            .and_then(|(_, mut all)| (!all.is_empty()).then(|| all.remove(0)));
        let again = match last {
            Some(path) => format!(
                "go back to the last checkpoint with a lower learning rate:\n  trainer train --resume {} --lr {:e}",
                path.display(),
                lr / 2.0
            ),
            None => "no checkpoint was saved yet; start again with a lower --lr".into(),
        };
        format!(
            "{PATIENCE} steps in a row had a loss or a gradient that is not finite, up to image {images} \
             (step {}) at learning rate {lr:e}. Nothing was saved since; {again}",
            images / self.progress.config.batch as u64
        )
    }

    /// What was measured since the last time, as a line of JSON.
    fn stats(&mut self, lr: f64, norm: f64, rate: f64) -> String {
        let progress = &mut self.progress;
        let loss = progress.stretch.0 / progress.stretch.1 as f64;
        progress.loss = Some(loss);
        progress.stretch = (0.0, 0);
        let line = serde_json::json!({
            "images": progress.images,
            "loss": loss,
            "gradient_norm": norm,
            "lr": lr,
            "skipped_steps": progress.skipped,
            "images_per_second": rate,
            "peak_memory": memory::peak(),
            "seconds": progress.seconds,
        });
        format!("{line}\n")
    }

    /// Writes a grid of `n` pictures, always from the same seeds.
    fn grid(&self, n: u32, folder: &RunFolder, status: &Status) -> anyhow::Result<()> {
        if n == 0 {
            return Ok(());
        }
        let seeds: Vec<u64> = (0..u64::from(n)).collect();
        let device = self.device.clone().inner();
        let settings = Settings::default();
        let pictures = sample::pictures(&self.ema, &settings, &seeds, 16, &device, |_| {});
        let path = folder.grid(self.progress.images);
        sample::save(&Rgb::grid(&pictures, Rgb::square(pictures.len())), &path, None)?;
        status.say(&format!("pictures: {}", path.display()));
        Ok(())
    }

    /// Saves a checkpoint.
    fn save(&self, folder: &RunFolder) -> anyhow::Result<()> {
        let optimizer = self.optimizer.into_bytes();
        let optimizer = optimizer.map_err(|error| anyhow::anyhow!("the optimizer: {error}"))?;
        let state = State {
            progress: &self.progress,
            network: self.model.parameters(),
            ema: self.ema.parameters(),
            optimizer: optimizer.to_vec(),
        };
        checkpoint::save(&folder.checkpoint(self.progress.images), state)
    }
}
