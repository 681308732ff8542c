//! `trainer train`: the training loop.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anstream::{eprintln, println};
use anyhow::{Context, bail, ensure};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bytes, Device, Tensor, TensorData};
use model::generate::Settings;
use model::loss::weighted_squared_error;
use model::noise::{Random, Stream};
use model::picture::Rgb;
use model::weights::{Precision, Weights};
use model::{Conditioning, Model};

use crate::args::TrainArgs;
use crate::augment::Resampler;
use crate::checkpoint::{self, Checkpoint, Part, Progress, State};
use crate::config::TrainConfig;
use crate::data::Dataset;
use crate::loader::{Batch, Loader};
use crate::report::Status;
use crate::run_folder::{RunFolder, write_file};
use crate::signals::Stop;
use crate::{ema, export, sample, shipped};

/// Images between two lines of `stats.jsonl`, at the least.
const STRETCH: u64 = 1_000;

/// Checkpoints that are kept.
const KEEP: usize = 3;

/// Runs the command.
///
/// # Errors
///
/// If anything keeps training from starting or going on. What was saved stays.
pub fn run(args: TrainArgs) -> anyhow::Result<ExitCode> {
    let stop = Stop::listen().context("cannot listen to signals")?;
    let device = args.device.open()?;
    let (folder, mut run) = match &args.resume {
        Some(path) => Run::resume(path, &args, &device)?,
        None => Run::start(&args, &device)?,
    };
    let config = run.progress.config.clone();
    let data = Arc::new(Dataset::open(&config.data, config.model.image_shape())?);
    let seldom = (config.duration / 3).clamp(STRETCH, 500_000);
    let sample_every = args.sample_every.unwrap_or(seldom).max(1);
    let save_every = args.save_every.unwrap_or(seldom).max(1);
    ensure!(
        run.progress.images < config.duration,
        "this run has seen its {} images; --duration makes it longer",
        config.duration
    );
    run.introduce(&folder, &data);

    let mut stats = folder.stats(run.progress.images)?;
    let mut status = Status::new(run.progress.images, config.duration);
    let loader = Loader::new(&config, data, run.progress.images);
    let started = Instant::now();
    let trained_before = run.progress.seconds;
    run.grid(args.grid, &folder, &status)?;
    let stopped = loop {
        // One step.
        let step_started = Instant::now();
        let lr = config.lr(run.progress.images);
        let loss = run.step(loader.next(), lr)?;
        run.progress.seconds = trained_before + started.elapsed().as_secs_f64();

        // Tell.
        let images = run.progress.images;
        status.step(images, config.batch, step_started.elapsed(), loss, lr);
        if run.progress.stretch.1 >= STRETCH {
            run.write_stats(&mut stats, lr, status.rate()).context("cannot write stats.jsonl")?;
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
    println!("{} images seen; the weights are in {}", run.progress.images, weights.display());
    if args.grid > 0 {
        println!("pictures so far: {}", folder.grid(run.progress.images).display());
    }
    println!("to make more:  cargo run -p trainer -- sample --weights {}", weights.display());
    if run.progress.images < config.duration {
        println!("to go on:      cargo run -p {again}");
    }
    Ok(ExitCode::SUCCESS)
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
    fn optimizer(config: &TrainConfig) -> ModuleOptimizer {
        let [beta_1, beta_2] = config.adam.betas;
        AdamConfig::new()
            .with_beta_1(beta_1)
            .with_beta_2(beta_2)
            .with_epsilon(config.adam.eps)
            .init()
    }

    fn resampler(config: &TrainConfig, device: &Device) -> Resampler {
        let [_, _, side] = config.model.image_shape();
        Resampler::new(side, device)
    }

    /// A new run, and its folder.
    fn start(args: &TrainArgs, device: &Device) -> anyhow::Result<(RunFolder, Self)> {
        let Some(mut config) = TrainConfig::preset(&args.preset) else {
            let known = model::preset::all().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            bail!("--preset {}: the presets are {}", args.preset, known.join(", "));
        };
        config.data = args.data.clone();
        if let Some(batch) = args.batch {
            config.batch = batch as usize;
        }
        config.seed = args.seed.unwrap_or(config.seed);
        config.augment = args.augment.unwrap_or(config.augment);
        adjust(&mut config, args);

        let autodiff = device.clone().autodiff();
        let embedded = config.data == Path::new(crate::data::EMBEDDED);
        let from = match &args.from {
            Some(from) => from.clone(),
            // What the bare command trains is what the shipped weights were trained on.
            None if args.preset == "tiny" && embedded => shipped::NAME.into(),
            None => "scratch".into(),
        };
        let (model, ema, started_from) = match from.as_str() {
            "scratch" => {
                let make = |device| Model::new(config.model.clone(), config.seed, device);
                (make(&autodiff)?, make(device)?, String::new())
            }
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
                let make = |device| Model::from_weights(&weights, device);
                (make(&autodiff), make(device), weights.card().name.clone())
            }
        };
        // Data that cannot be used should not leave a folder behind.
        Dataset::open(&config.data, config.model.image_shape())?;
        let data = config.data.file_stem().unwrap_or_default().to_string_lossy();
        let label = format!("{}-{data}-batch{}", args.preset, config.batch);
        let folder = RunFolder::create(&args.out, &label)?;
        let options = serde_json::to_string_pretty(&config)?;
        write_file(&folder.options(), options.as_bytes()).context("cannot write options.json")?;
        let progress = Progress {
            started_from,
            images: 0,
            seconds: 0.0,
            loss: None,
            stretch: (0.0, 0),
            config,
        };
        let optimizer = Self::optimizer(&progress.config);
        let resampler = Self::resampler(&progress.config, device);
        Ok((folder, Self { progress, model, ema, optimizer, resampler, device: autodiff }))
    }

    /// A run that goes on, and its folder.
    fn resume(path: &Path, args: &TrainArgs, device: &Device) -> anyhow::Result<(RunFolder, Self)> {
        let (folder, path) = RunFolder::find(path)?;
        let checkpoint = Checkpoint::load(&path)?;
        let mut progress = checkpoint.progress.clone();
        adjust(&mut progress.config, args);
        let autodiff = device.clone().autodiff();
        let optimizer = Self::optimizer(&progress.config)
            .from_bytes(Bytes::from_bytes_vec(checkpoint.optimizer.clone()))
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let run = Self {
            resampler: Self::resampler(&progress.config, device),
            progress,
            model: checkpoint.model(Part::Network, &autodiff),
            ema: checkpoint.model(Part::Ema, device),
            optimizer,
            device: autodiff,
        };
        Ok((folder, run))
    }

    fn introduce(&self, folder: &RunFolder, data: &Dataset) {
        let config = &self.progress.config;
        let parameters: usize = self.model.network.specs().iter().map(|spec| spec.len()).sum();
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
        eprintln!("everything goes to {}", folder.path().display());
    }

    /// One step of the optimizer. Returns the loss: the weighted squared error, averaged over
    /// the values of all pictures.
    fn step(&mut self, batch: Batch, lr: f64) -> anyhow::Result<f64> {
        let config = &self.progress.config;
        let b = batch.sigma.len();
        let [c, h, w] = config.model.image_shape();
        let labels = config.model.augment_labels();
        let images_before = self.progress.images;
        // Dropout draws from the device: seeding it makes it a function of the images seen.
        let mut random = Random::new(config.seed, Stream::Dropout, images_before);
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
        // Summed over values, averaged over pictures, as EDM has it.
        let objective = weighted_squared_error(denoised, images, weight).sum() / b as f64;
        let loss = f64::from(objective.clone().into_scalar::<f32>()) / (c * h * w) as f64;
        ensure!(
            loss.is_finite(),
            "the loss is {loss} after {images_before} images at learning rate {lr:e}; the step was \
             not taken. Go on from the last checkpoint with a lower --lr"
        );
        let gradients = GradientsParams::from_grads(objective.backward(), &self.model.network);
        let network = self.optimizer.step(lr, self.model.network.clone(), gradients);
        self.model.network = network;

        let beta = config.ema_beta(images_before);
        self.ema.network = ema::update(self.ema.network.clone(), &self.model.network, beta);
        self.progress.images += b as u64;
        self.progress.stretch.0 += loss * b as f64;
        self.progress.stretch.1 += b as u64;
        Ok(loss)
    }

    fn write_stats(&mut self, stats: &mut File, lr: f64, rate: f64) -> std::io::Result<()> {
        let progress = &mut self.progress;
        let loss = progress.stretch.0 / progress.stretch.1 as f64;
        progress.loss = Some(loss);
        progress.stretch = (0.0, 0);
        let line = serde_json::json!({
            "images": progress.images,
            "loss": loss,
            "lr": lr,
            "images_per_second": rate,
            "seconds": progress.seconds,
        });
        // One write, so that a line is there whole or not at all.
        stats.write_all(format!("{line}\n").as_bytes())
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

    /// Saves a checkpoint and removes those that are too many.
    fn save(&self, folder: &RunFolder) -> anyhow::Result<()> {
        let optimizer = self.optimizer.into_bytes();
        let optimizer = optimizer.map_err(|error| anyhow::anyhow!("the optimizer: {error}"))?;
        let state = State {
            progress: &self.progress,
            network: self.model.parameters(),
            ema: self.ema.parameters(),
            optimizer: optimizer.to_vec(),
        };
        checkpoint::save(&folder.checkpoint(self.progress.images), state)?;
        folder.keep(KEEP)
    }
}

/// Applies the flags that may change when a run goes on.
fn adjust(config: &mut TrainConfig, args: &TrainArgs) {
    config.duration = args.duration.unwrap_or(config.duration);
    config.adam.lr = args.lr.unwrap_or(config.adam.lr);
    config.lr_ramp = args.lr_ramp.unwrap_or(config.lr_ramp);
}
