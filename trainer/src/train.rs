//! `trainer train`: the training loop.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anstream::{eprintln, print, println};
use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use model::generate::Settings;
use model::label::Label;
use model::picture::Rgb;
use model::vae::Vae;
use model::weights::Precision;
use serde_json::json;

use crate::args::TrainArgs;
use crate::autoencoder::Autoencoder;
use crate::checkpoint::{self, Progress, State};
use crate::config::TrainConfig;
use crate::data::{Dataset, Origin};
use crate::learner::{Learner, Step};
use crate::loader::{Batch, Loader};
use crate::nodes::Nodes;
use crate::plan::Plan;
use crate::report::{Status, Verbosity, warn};
use crate::run_folder::{RunFolder, write_file};
use crate::signals::Stop;
use crate::tensorboard::Events;
use crate::validation::Validation;
use crate::{export, labelled, memory, sample};

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
    let devices = args.device.open_all(args.devices.into())?;
    let plan = Plan::new(&args)?;
    let config = plan.config.clone();
    config.validate_for(args.workers())?;
    ensure!(
        plan.images() < config.duration,
        "this run has seen its {} images; --duration makes it longer",
        config.duration
    );
    if args.dry_run {
        plan.explain(&args)?;
    }
    // Data that cannot be used should not leave a folder behind.
    let data = Arc::new(Dataset::open(&config.data, &config.model)?);
    let validation = Validation::open(&config, &data)?;
    let vae = decoder(&args, &config, &data, &devices[0])?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    memory::check(&config, &devices, args.workers())?;
    let nodes = args.node.map(|node| Nodes::join(&args.nodes, node)).transpose()?;
    let (mut progress, mut learner) = plan.build(&data, &devices, nodes)?;
    let latents_of = data.latents_of().map(Origin::hashes);
    ensure!(
        progress.images == 0 || progress.latents_of == latents_of,
        "{}: not what this run was trained on so far: these are latents of other pictures, or by \
         another autoencoder",
        config.data.display()
    );
    progress.latents_of = latents_of;
    progress.classes.clone_from(&data.class_names.names);
    progress.class_groups.clone_from(&data.class_names.groups);
    agree(&progress, &mut learner, &data)?;
    let folder = plan.folder(&args)?;
    let _lock = folder.lock()?;
    folder.write_options(&progress.config)?;
    folder.set_aside_after(progress.images, warn)?;
    let mut run = Run { progress, learner, vae, device: devices[0].clone() };
    let seldom = (config.duration / 3).clamp(STRETCH, 500_000);
    let sample_every = args.sample_every.unwrap_or(seldom).max(1);
    let validate_every = args.validate_every.unwrap_or(sample_every).max(1);
    let save_every = args.save_every.unwrap_or(seldom).max(1);
    let verbosity = if args.quiet || args.json { Verbosity::Quiet } else { Verbosity::Full };
    if verbosity == Verbosity::Full {
        run.introduce(&folder, &data, &args);
    }

    let mut stats = folder.stats(run.progress.images)?;
    let mut events = Events::create(folder.path(), run.progress.images)?;
    let mut status = Status::new(run.progress.images, config.duration, verbosity);
    status.validation_loss = run.progress.validation_loss;
    let share = run.learner.share(config.batch);
    let loader = Loader::new(&config, data, run.progress.images, share);
    let started = Instant::now();
    let trained_before = run.progress.seconds;
    run.grid(args.grid, &folder, &mut events, &status)?;
    let stopped = loop {
        // One step.
        let step_started = Instant::now();
        let lr = config.lr(run.progress.images);
        let step = run.step(loader.next())?;
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
            let loss = run.progress.end_stretch();
            let line = run.stats(loss, step.norm, lr, status.rate());
            // One write, so that a line is there whole or not at all.
            stats.write_all(line.as_bytes()).context("cannot write stats.jsonl")?;
            let numbers = [("loss", loss), ("gradient_norm", step.norm), ("lr", lr)];
            events.numbers(images, &numbers)?;
            if args.json {
                print!("{line}");
            }
        }

        // Show and save.
        let stopped = stop.asked();
        let out_of_time = args.max_time.is_some_and(|max| started.elapsed() >= max);
        let ending = out_of_time || stopped.is_some();
        let ending = match run.learner.nodes() {
            // All or none.
            Some(nodes) => nodes.any(ending)?,
            None => ending,
        };
        let last = images >= config.duration || ending;
        let due = |every: u64| images / every != (images - config.batch as u64) / every;
        if let Some(validation) = &validation
            && (due(validate_every) || last && stopped.is_none())
        {
            let line = run.validate(validation, &mut events, &mut status)?;
            stats.write_all(line.as_bytes()).context("cannot write stats.jsonl")?;
            if args.json {
                print!("{line}");
            }
        }
        if due(sample_every) || last && stopped.is_none() {
            run.grid(args.grid, &folder, &mut events, &status)?;
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
    run.learner.leave();

    let again = format!("trainer train --resume {}", folder.path().display());
    if let Some(code) = stopped {
        eprintln!("stopped after {} images, all saved; to go on:\n  {again}", run.progress.images);
        return Ok(code);
    }
    let weights = folder.weights();
    export::write(&weights, run.learner.ema(), &export::card(&run.progress), Precision::F32)?;
    if args.json {
        let result = json!({
            "images": run.progress.images,
            "run": folder.path(),
            "weights": weights,
            "validation_loss": run.progress.validation_loss,
        });
        println!("{result}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} images seen; the weights are in {}", run.progress.images, weights.display());
    if args.grid > 0 {
        println!("pictures so far: {}", folder.grid(run.progress.images).display());
    }
    let vae = match config.model.image_shape() {
        [1 | 3, ..] => String::new(),
        _ => format!(
            " --vae {}",
            args.vae.vae.as_deref().unwrap_or(Path::new("AUTOENCODER")).display()
        ),
    };
    println!("to make more:  cargo run -p trainer -- sample --weights {}{vae}", weights.display());
    if run.progress.images < config.duration {
        println!(
            "to go on:      cargo run -p trainer -- train --resume {}",
            folder.path().display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Classes of the embedded emoji that are shown first: they differ, and everybody knows them.
const WELL_KNOWN: [&str; 16] = [
    "grinning",
    "red heart",
    "otter",
    "pizza",
    "rocket",
    "sunflower",
    "Japan Flag",
    "dog",
    "strawberry",
    "soccer",
    "house",
    "snowman",
    "rainbow",
    "apple",
    "octopus",
    "green apple",
];

/// The classes of `n` pictures of a grid, of `count` with such names: well-known ones where they
/// are there, else as far apart as can be.
fn shown(names: &[String], count: usize, n: usize) -> Vec<usize> {
    let known: Vec<usize> = WELL_KNOWN
        .iter()
        .filter_map(|known| names.iter().position(|name| name == known))
        .take(n)
        .collect();
    if known.len() == n.min(WELL_KNOWN.len()) {
        return known;
    }
    let n = n.min(count);
    (0..n).map(|i| i * count / n).collect()
}

/// Checks that other machines, where there are any, are about to train the same.
fn agree(progress: &Progress, learner: &mut Learner, data: &Dataset) -> anyhow::Result<()> {
    if learner.nodes().is_none() {
        return Ok(());
    }
    let mut what = progress.identity()?.into_bytes();
    what.extend(data.len().to_le_bytes());
    let values = learner.model().parameters().into_iter().flat_map(|(_, values)| values);
    what.extend(values.flat_map(f32::to_le_bytes));
    learner.nodes().map_or(Ok(()), |nodes| nodes.agree(&what))
}

/// The autoencoder for the grids, if there is one.
fn decoder(
    args: &TrainArgs,
    config: &TrainConfig,
    data: &Dataset,
    device: &Device,
) -> anyhow::Result<Option<Vae>> {
    let Some(Autoencoder { vae, sha256 }) = Autoencoder::asked_for(&args.vae, device)?
        .map(|autoencoder| autoencoder.fits(&config.model).map(|()| autoencoder))
        .transpose()?
    else {
        return Ok(None);
    };
    if let Some(origin) = data.latents_of() {
        let (found, known) = (vae.config.scale, origin.vae.scale);
        ensure!(
            found == known,
            "{}: the latents have scale {known}, and the autoencoder of --vae {found}",
            config.data.display()
        );
        ensure!(
            sha256 == origin.vae_sha256,
            "{}: the latents are of another autoencoder (SHA-256 {}) than that of --vae ({sha256})",
            config.data.display(),
            origin.vae_sha256
        );
    }
    Ok(Some(vae))
}

/// A run in memory.
struct Run {
    progress: Progress,
    learner: Learner,
    /// What makes pictures of latents.
    vae: Option<Vae>,
    /// What grids are made on.
    device: Device,
}

impl Run {
    fn introduce(&self, folder: &RunFolder, data: &Dataset, args: &TrainArgs) {
        let config = &self.progress.config;
        let network = &self.learner.model().network;
        eprintln!(
            "{:.1} M parameters, {} pictures of {}, batch {}, seed {}",
            network.parameter_count() as f64 / 1e6,
            data.len(),
            config.data.display(),
            config.batch,
            config.seed
        );
        let [c, h, w] = config.model.image_shape();
        let what = if data.latents_of().is_some() { "latents" } else { "pictures" };
        let of_what = match &self.progress.classes[..] {
            [] => String::new(),
            [first, second, ..] => {
                format!(
                    ", each by its name, of {} such as \"{first}\" and \"{second}\"",
                    self.progress.classes.len()
                )
            }
            [one] => format!(" of \"{one}\""),
        };
        eprintln!(
            "It learns to remove noise of any strength from {what} of {w}x{h}x{c}{of_what}: a picture is \
             made by removing noise from noise."
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
        if let Some(origin) = data.latents_of() {
            eprintln!("these are latents, of {} classes", origin.classes.len());
            if self.vae.is_none() && args.grid > 0 {
                eprintln!("grids show their first three channels; --vae makes pictures of them");
            }
        }
        eprintln!(
            "everything goes to {}: {} checkpoints of {} MB, and grids",
            folder.path().display(),
            args.keep,
            checkpoint::size(network) / 1_000_000
        );
    }

    /// One step.
    fn step(&mut self, mut batch: Batch) -> anyhow::Result<Step> {
        let progress = &mut self.progress;
        let whole = progress.config.batch;
        let drawn = progress.draw_times(&mut batch, self.learner.share(whole));
        let b = whole as u64;
        let step = self.learner.step(batch, &progress.config, progress.images)?;
        progress.images += b;
        if step.taken {
            if let Some(times) = &mut progress.times {
                times.learn(&drawn, &step.losses);
            }
            progress.stretch.0 += step.loss * b as f64;
            progress.stretch.1 += b;
            progress.skipped_in_row = 0;
        } else {
            progress.skipped += 1;
            progress.skipped_in_row += 1;
        }
        Ok(step)
    }

    /// What is said when training cannot go on.
    fn given_up(&self, folder: &RunFolder, lr: f64) -> String {
        let images = self.progress.images;
        let again = match RunFolder::find(folder.path()) {
            Ok((_, checkpoints)) => format!(
                "go back to the last checkpoint with a lower learning rate:\n  trainer train --resume {} --lr {:e}",
                checkpoints[0].display(),
                lr / 2.0
            ),
            Err(_) => "no checkpoint was saved yet; start again with a lower --lr".into(),
        };
        format!(
            "{PATIENCE} steps in a row had a loss or a gradient that is not finite, up to image {images} \
             (step {}) at learning rate {lr:e}. Nothing was saved since; {again}",
            images / self.progress.config.batch as u64
        )
    }

    /// What was measured since the last time, as a line of JSON.
    fn stats(&self, loss: f64, norm: f64, lr: f64, rate: f64) -> String {
        let progress = &self.progress;
        let line = json!({
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

    /// Measures the loss on the pictures that are held out, and returns it as a line of JSON.
    fn validate(
        &mut self,
        validation: &Validation,
        events: &mut Events,
        status: &mut Status,
    ) -> anyhow::Result<String> {
        let Progress { config, images, seconds, .. } = &self.progress;
        let loss = validation.loss(self.learner.ema(), config, &self.device);
        let line = json!({ "images": images, "validation_loss": loss, "seconds": seconds });
        events.numbers(*images, &[("validation_loss", loss)])?;
        status.say(&format!("after {images} images: loss {loss:.4} on held-out pictures"));
        status.validation_loss = Some(loss);
        self.progress.validation_loss = Some(loss);
        Ok(format!("{line}\n"))
    }

    /// Writes a grid of `n` pictures, always from the same seeds.
    fn grid(
        &self,
        n: u32,
        folder: &RunFolder,
        events: &mut Events,
        status: &Status,
    ) -> anyhow::Result<()> {
        if n == 0 {
            return Ok(());
        }
        let seeds: Vec<u64> = (0..u64::from(n)).collect();
        let ema = self.learner.ema();
        let classes = shown(&self.progress.classes, ema.config.classes(), n as usize);
        let labels = classes.iter().copied().map(Label::from).collect();
        let settings = Settings { classes: labels, ..Settings::default() };
        let vae = self.vae.as_ref();
        let made = sample::pictures(ema, vae, &settings, &seeds, 16, &self.device, |_| {});
        let pictures = match made {
            Ok(pictures) => pictures,
            Err(error) => {
                eprintln!("no grid after {} images: {error}", self.progress.images);
                return Ok(());
            }
        };
        let images = self.progress.images;
        let path = folder.grid(images);
        let columns = Rgb::square(pictures.len());
        let grid = match &self.progress.classes[..] {
            names if names.is_empty() || classes.is_empty() => Rgb::grid(&pictures, columns),
            names => {
                let text = |i: usize| names.get(classes[i % classes.len()]).cloned();
                let texts: Vec<String> =
                    (0..pictures.len()).map(|i| text(i).unwrap_or_default()).collect();
                labelled::grid(&pictures, &texts, columns)
            }
        };
        let png = grid.to_png(None)?;
        write_file(&path, &png).with_context(|| format!("cannot write {}", path.display()))?;
        events.picture(images, "pictures", [grid.width, grid.height], png)?;
        status.say(&format!("pictures: {}", path.display()));
        Ok(())
    }

    /// Saves a checkpoint.
    fn save(&self, folder: &RunFolder) -> anyhow::Result<()> {
        let state = State {
            progress: &self.progress,
            network: self.learner.model().parameters(),
            ema: self.learner.ema().parameters(),
            optimizer: self.learner.optimizer()?,
        };
        checkpoint::save(&folder.checkpoint(self.progress.images), state)
    }
}
