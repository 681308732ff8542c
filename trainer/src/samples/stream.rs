//! Pictures of many seeds, written batch by batch, by one process or by several.
//!
//! Every picture is a file of its own while pictures are generated. What is there is kept, so that an
//! interrupted command continues, and the process that finds all of them complete writes the zip or
//! the npz. Batches are the same for any number of processes and devices, and so are the pictures.

use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, anyhow, bail, ensure};
use burn::tensor::Device;
use model::Model;
use model::generate::Settings;
use model::picture::{Origin, Rgb};
use model::vae::Vae;
use rayon::prelude::*;

use super::generate::one_batch;
use super::labels::Labels;
use super::pack::{Format, dataset_json, pack};
use super::progress::Meter;
use super::record::Record;
use super::store::Store;
use crate::args::Shard;
use crate::files::atomic::write;
use crate::run::report::print_message;
use crate::run::signals::StopSignal;

/// Form of an output of many pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A folder of PNG files.
    Folder,
    /// A single file.
    File(Format),
}

impl Form {
    /// Returns the form that a path stands for, judging by its ending. `None` is a grid.
    pub fn of(output: &Path, separate: bool) -> Option<Self> {
        let ending = output.extension().map(|ending| ending.to_ascii_lowercase());
        match ending.as_deref().and_then(|ending| ending.to_str()) {
            Some("zip") => Some(Self::File(Format::Zip)),
            Some("npz") => Some(Self::File(Format::Npz)),
            _ => separate.then_some(Self::Folder),
        }
    }
}

/// A model on a device, and the decoder of its latents.
pub struct Generator {
    /// Model.
    pub model: Model,
    /// Decoder. `None` for models of pictures.
    pub vae: Option<Vae>,
    /// Device of both.
    pub device: Device,
}

/// Pictures to generate.
pub struct Job<'a> {
    /// Form of the output.
    pub form: Form,
    /// Path of the output.
    pub output: &'a Path,
    /// What the pictures depend on, apart from their seeds.
    pub record: Record,
    /// Labels of the pictures.
    pub labels: &'a Labels,
    /// Names of the classes.
    pub class_names: &'a [String],
    /// Seeds of all pictures, each once.
    pub seeds: &'a [u64],
    /// Part that this process generates.
    pub shard: Shard,
}

/// How a job ended.
pub enum Outcome {
    /// All pictures are in the output.
    Complete,
    /// All pictures were in the output before.
    Unchanged,
    /// This process is done; others are not, or have yet to start. The number of missing pictures, if no
    /// other process is at work.
    Waiting(Option<usize>),
    /// Stopped by a signal, with this exit code, after so many of the pictures.
    Stopped(ExitCode, usize),
}

impl Job<'_> {
    /// Generates the missing pictures of this process, and completes the output if no picture is
    /// missing after that.
    ///
    /// # Errors
    ///
    /// If the output has pictures of other settings or cannot be written, a picture is not finite, or
    /// another process generates the same part.
    pub fn run(&self, generators: &[Generator], stop: &StopSignal) -> anyhow::Result<Outcome> {
        self.run_unadvised(generators, stop).map_err(|error| {
            let full = error.chain().any(|cause| {
                let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
            });
            match full {
                true => anyhow!("{error:#}; free some space, then the same command continues"),
                false => error,
            }
        })
    }

    fn run_unadvised(
        &self,
        generators: &[Generator],
        stop: &StopSignal,
    ) -> anyhow::Result<Outcome> {
        if self.is_complete()? {
            return Ok(Outcome::Unchanged);
        }
        let store = Store::open(&self.folder(), self.record.subfolders, self.shard)?;
        self.claim(&store)?;

        let Shard { number, count } = self.shard;
        let batches = self.seeds.chunks(self.record.batch as usize);
        let mine: Vec<&[u64]> = batches.skip(number - 1).step_by(count).collect();
        let all: usize = mine.iter().map(|seeds| seeds.len()).sum();
        // A batch is generated as a whole, so that rounding does not depend on interruptions.
        let missing: Vec<&[u64]> =
            mine.into_iter().filter(|seeds| !seeds.iter().all(|seed| store.has(*seed))).collect();
        let to_do: usize = missing.iter().map(|seeds| seeds.len()).sum();
        if to_do < all && to_do > 0 {
            print_message!("continuing after {} of {all} images", all - to_do);
        }
        let settings = &self.record.settings;
        let meter = Meter::new(to_do, settings.method.evaluations(settings.steps));
        let result = self.generate(&store, generators, &missing, &meter, stop);
        meter.clear();
        result?;
        let (done, speed) = meter.result();
        if let Some(code) = stop.exit_code() {
            return Ok(Outcome::Stopped(code, all - to_do + done as usize));
        }
        if to_do > 0 {
            print_message!("generated {done} images at {speed}");
        }
        self.finish(&store)
    }

    /// Returns the folder of the pictures while they are generated.
    fn folder(&self) -> PathBuf {
        match self.form {
            Form::Folder => self.output.to_owned(),
            Form::File(_) => with_ending(self.output, ".parts"),
        }
    }

    /// Returns the path of the record.
    fn record_path(&self) -> PathBuf {
        match self.form {
            Form::Folder => self.output.join("sampling.json"),
            Form::File(_) => with_ending(self.output, ".json"),
        }
    }

    /// Returns whether the output is a file that is there already, with the same settings.
    fn is_complete(&self) -> anyhow::Result<bool> {
        if self.form == Form::Folder || !self.output.exists() {
            return Ok(false);
        }
        let record = self.record_path();
        let (name, record_name) = (self.output.display(), record.display());
        let agrees = self.record.agrees_with(&record).with_context(|| {
            format!("{name} exists already; choose another --output, or remove it")
        })?;
        ensure!(
            agrees,
            "{name} exists already, without {record_name}, which would tell its settings; choose \
             another --output, or remove it"
        );
        // An interruption after the file was complete can have left them.
        let _ = fs::remove_dir_all(self.folder());
        Ok(true)
    }

    /// Makes sure that the pictures in the folder have these settings, and that those to come will.
    fn claim(&self, store: &Store) -> anyhow::Result<()> {
        let _turn = store.wait_for_turn()?;
        let (path, root) = (self.record_path(), store.root().display());
        let advice = "choose another --output, or remove it";
        let difference = match self.record.agrees_with(&path) {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if !store.is_empty()? {
            return Err(match difference {
                Some(error) => error.context(format!("{root} has images already; {advice}")),
                None => anyhow!(
                    "{root} has images already, without {}, which would tell their settings; {advice}",
                    path.display()
                ),
            });
        }
        if let Some(error) = difference {
            // No picture depends on the old settings, unless another process is about to write one.
            if !store.lock_alone().with_context(|| format!("cannot lock {root}"))? {
                return Err(error.context(format!("another process writes to {root}; {advice}")));
            }
            store.share().with_context(|| format!("cannot lock {root}"))?;
        }
        self.record.write(&path)
    }

    /// Generates batches on all devices, each of which takes the next one when it is free.
    fn generate(
        &self,
        store: &Store,
        generators: &[Generator],
        batches: &[&[u64]],
        meter: &Meter,
        stop: &StopSignal,
    ) -> anyhow::Result<()> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let is_over = || failed.load(Ordering::Relaxed) || stop.exit_code().is_some();
        let work = |generator: &Generator| -> anyhow::Result<()> {
            while !is_over() {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                let Some(seeds) = batches.get(batch) else { break };
                let Generator { model, vae, device } = generator;
                let (settings, labels) = (&self.record.settings, self.labels.of_all(seeds));
                let evaluated = || {
                    meter.evaluated(seeds.len());
                    if is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                let vae = vae.as_ref();
                let images = one_batch(model, vae, settings, seeds, labels, device, evaluated)
                    .with_context(|| format!("seeds {}", super::record::seeds_text(seeds)))?;
                let Some(images) = images else { break };
                let pictures = seeds.par_iter().zip(&images);
                pictures.try_for_each(|(seed, image)| self.put(store, *seed, image))?;
                meter.finished(seeds.len());
            }
            Ok(())
        };
        thread::scope(|scope| {
            let work = &work;
            let failed = &failed;
            let running: Vec<_> = generators
                .iter()
                .map(|generator| {
                    scope.spawn(move || {
                        let result = work(generator);
                        failed.fetch_or(result.is_err(), Ordering::Relaxed);
                        result
                    })
                })
                .collect();
            running
                .into_iter()
                .try_for_each(|work| work.join().expect("a device's thread panicked"))
        })
    }

    /// Writes a picture with its origin inside.
    fn put(&self, store: &Store, seed: u64, image: &Rgb) -> anyhow::Result<()> {
        let Record { model, weights_sha256, vae_sha256, settings, .. } = &self.record;
        let origin = Origin {
            model: model.clone(),
            weights_sha256: weights_sha256.clone(),
            vae_sha256: vae_sha256.clone(),
            seeds: vec![seed],
            // The label of this picture instead of all.
            settings: Settings { classes: self.labels.of_all(&[seed]), ..settings.clone() },
            page: None,
        };
        let context = || format!("cannot write {}", store.path(seed).display());
        let png = image.to_png(Some(&origin)).with_context(context)?;
        store.put(seed, &png).with_context(context)
    }

    /// Completes the output, if no picture is missing and no other process is at work.
    fn finish(&self, store: &Store) -> anyhow::Result<Outcome> {
        let root = store.root();
        let alone = store.lock_alone();
        if !alone.with_context(|| format!("cannot lock {}", root.display()))? {
            return Ok(Outcome::Waiting(None));
        }
        let missing = self.seeds.iter().filter(|seed| !store.has(**seed)).count();
        if missing > 0 {
            return Ok(Outcome::Waiting(Some(missing)));
        }
        match self.form {
            Form::Folder => {
                // Without it, subfolders would be read as classes.
                if self.record.subfolders || self.labels.are_classes() {
                    let (path, seeds) = (root.join("dataset.json"), store.seeds()?);
                    let json = dataset_json(store, seeds, self.labels, self.class_names)?;
                    write(&path, &json)
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
                store.clean();
            }
            Form::File(format) => {
                let (seeds, labels) = (self.seeds, self.labels);
                pack(store, seeds, labels, self.class_names, format, self.output)?;
                fs::remove_dir_all(root)
                    .with_context(|| format!("cannot remove {}", root.display()))?;
            }
        }
        Ok(Outcome::Complete)
    }
}

/// Checks that each seed is there once: a seed is a file.
///
/// # Errors
///
/// If one is not.
pub fn check_unique(seeds: &[u64]) -> anyhow::Result<()> {
    let mut sorted = seeds.to_vec();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("--seeds: {} is there twice, but each image is a file named by its seed", twice[0]);
    }
    Ok(())
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(ending);
    path.into()
}
