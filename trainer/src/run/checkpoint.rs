//! Checkpoints: single files from which training resumes.
//!
//! Eight bytes of magic, the SHA-256 of the rest, and a safetensors file: `net.*` and `ema.*`,
//! named as in a weights file, `average0.*` and so on for moving averages with power-function
//! profiles, and `optimizer`, the optimizer's record in Burn's format. The metadata contains
//! [`Progress`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, IntoInnerError, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use model::config::ModelConfig;
use model::weights::f32_values;
use model::{Model, TensorSpec};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use sha2::{Digest, Sha256};

use super::folder::RunFolder;
use super::progress::Progress;
use crate::config::TrainConfig;
use crate::files::atomic::write_with;

const MAGIC: &[u8; 8] = b"DIFFIT\0\x01";
const KEY: &str = "diffit-checkpoint";

/// Length of the hash, SHA-256.
const HASH: usize = 32;

/// Message for bytes that are not those that were written.
const DAMAGED: &str = "this checkpoint is damaged";

/// Returns the approximate size in bytes of a checkpoint with this many parameters: the weights,
/// their moving averages and two moments of Adam. (Muon has one.)
pub fn size(config: &TrainConfig, parameters: usize) -> usize {
    4 * (4 + config.profile_stds().len()) * parameters
}

/// Named parameters, as in a weights file.
pub type Parameters = Vec<(TensorSpec, Vec<f32>)>;

/// Content of a checkpoint to save.
pub struct State {
    /// Progress of the run.
    pub progress: Progress,
    /// Parameters of the network.
    pub network: Parameters,
    /// Moving average of the parameters.
    pub ema: Parameters,
    /// Moving averages with power-function profiles.
    pub averages: Vec<Parameters>,
    /// Record of the optimizer.
    pub optimizer: Vec<u8>,
}

impl State {
    /// Returns the part that has a value which is not finite, if there is one.
    pub fn not_finite(&self) -> Option<&'static str> {
        let finite =
            |parameters: &Parameters| parameters.iter().all(|(_, values)| are_finite(values));
        if !finite(&self.network) {
            Some("weights")
        } else if !finite(&self.ema) || !self.averages.iter().all(finite) {
            Some("moving average")
        } else if !is_finite_record(&self.optimizer) {
            Some("optimizer state")
        } else {
            None
        }
    }
}

fn are_finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Returns whether all tensors of an optimizer record are finite. The record has four bytes of
/// magic, two of version, four with the length of a header, the header, and `f32` values up to the
/// end, some of which are padding with zeros.
fn is_finite_record(record: &[u8]) -> bool {
    let length = record.get(6..10).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let start = length.map_or(record.len(), |length| 10 + length as usize);
    let values = record.get(start..).unwrap_or_default().rchunks_exact(4);
    values.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes"))).all(f32::is_finite)
}

/// Writes a checkpoint atomically. Values go to the file tensor by tensor, so that besides the state
/// only a buffer is in memory, and each tensor is freed when it is written.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save(path: &Path, state: State) -> anyhow::Result<()> {
    let mut infos = Vec::new();
    let mut end = 0;
    let mut add = |name: String, dtype, shape: Vec<usize>, bytes: usize| {
        infos.push((name, TensorInfo { dtype, shape, data_offsets: (end, end + bytes) }));
        end += bytes;
    };
    let averages = (0..).map(Part::Average).zip(&state.averages);
    let parts = [(Part::Network, &state.network), (Part::Ema, &state.ema)];
    for (part, parameters) in parts.into_iter().chain(averages) {
        for (spec, values) in parameters {
            let name = part.tensor(spec);
            add(name, Dtype::F32, spec.shape.clone(), 4 * values.len());
        }
    }
    let record = state.optimizer.len();
    add("optimizer".into(), Dtype::U8, vec![record], record);
    let metadata = HashMap::from([(KEY.to_string(), serde_json::to_string(&state.progress)?)]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(metadata), infos)?)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let write = |file: &mut File| {
        file.write_all(MAGIC)?;
        // The place of the hash, which is known at the end.
        file.write_all(&[0; HASH])?;
        let mut to = Hashing { file: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new() };
        to.write_all(&(header.len() as u64).to_le_bytes())?;
        to.write_all(&header)?;
        let averages = state.averages.into_iter().flatten();
        for (_, values) in state.network.into_iter().chain(state.ema).chain(averages) {
            for values in values.chunks(1 << 12) {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                to.write_all(&bytes)?;
            }
        }
        to.write_all(&state.optimizer)?;
        to.flush()?;
        let hash = to.hash.finalize();
        let file = to.file.into_inner().map_err(IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
        file.write_all(&hash)
    };
    write_with(path, write).with_context(|| {
        format!(
            "cannot write {} ({} MB); earlier checkpoints are unchanged",
            path.display(),
            end / 1_000_000
        )
    })
}

/// A writer that hashes what it writes.
struct Hashing<'a> {
    file: BufWriter<&'a mut File>,
    hash: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Finds and reads a checkpoint: the latest undamaged one of a run folder, or the given one. `warn`
/// receives a message for each damaged checkpoint that is skipped.
///
/// # Errors
///
/// If there is none, or the given one cannot be used.
pub fn find(path: &Path, warn: impl Fn(&str)) -> anyhow::Result<(RunFolder, PathBuf, Checkpoint)> {
    let (folder, candidates) = RunFolder::find(path)?;
    let mut problems = Vec::new();
    for path in candidates {
        let loaded = Checkpoint::load(&path).and_then(|checkpoint| {
            // Earlier versions saved such checkpoints.
            let finite = checkpoint.is_finite();
            ensure!(finite, "{}: this checkpoint has weights that are not finite", path.display());
            Ok(checkpoint)
        });
        match loaded {
            Ok(checkpoint) => {
                for problem in &problems {
                    warn(&format!("{problem}; using an earlier checkpoint"));
                }
                return Ok((folder, path, checkpoint));
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    bail!(problems.join("\n"))
}

/// Reads the progress in a checkpoint, whose hash is verified, without its tensors.
///
/// # Errors
///
/// If the file cannot be read, is damaged, or is not a checkpoint.
#[cfg(feature = "metrics")]
pub fn progress(path: &Path) -> anyhow::Result<Progress> {
    let bytes = crate::files::mapped::map(path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let (_, progress) = verify(&bytes).with_context(|| path.display().to_string())?;
    Ok(progress)
}

/// Verifies the hash of a checkpoint, and returns the bytes after it and the progress.
fn verify(bytes: &[u8]) -> anyhow::Result<(&[u8], Progress)> {
    let (sum, payload) = split(bytes)?;
    ensure!(Sha256::digest(payload)[..] == *sum, "{DAMAGED}");
    Ok((payload, progress_in(payload)?))
}

/// Splits a checkpoint after the magic into the hash and what it is of.
fn split(bytes: &[u8]) -> anyhow::Result<(&[u8], &[u8])> {
    ensure!(Checkpoint::is_checkpoint(bytes), "not a checkpoint");
    bytes[MAGIC.len()..].split_at_checked(HASH).context(DAMAGED)
}

/// Reads the progress in the header of a safetensors file.
fn progress_in(payload: &[u8]) -> anyhow::Result<Progress> {
    let (_, header) = SafeTensors::read_metadata(payload).context(DAMAGED)?;
    let progress = header.metadata().as_ref().and_then(|m| m.get(KEY)).context(DAMAGED)?;
    let progress: Progress = serde_json::from_str(progress)
        .context("this checkpoint was written by another version of this program")?;
    progress.config.model.validate()?;
    Ok(progress)
}

/// A checkpoint that was read and verified.
pub struct Checkpoint {
    /// Progress of the run.
    pub progress: Progress,
    /// Record of the optimizer.
    pub optimizer: Vec<u8>,
    values: HashMap<String, Vec<f32>>,
}

/// A set of parameters in a checkpoint.
#[derive(Clone, Copy)]
pub enum Part {
    /// The trained network.
    Network,
    /// Its moving average.
    Ema,
    /// A moving average with a power-function profile, by its number.
    Average(usize),
}

impl Part {
    /// Returns the name of a tensor of this part.
    fn tensor(self, spec: &TensorSpec) -> String {
        match self {
            Part::Network => format!("net.{}", spec.name),
            Part::Ema => format!("ema.{}", spec.name),
            Part::Average(number) => format!("average{number}.{}", spec.name),
        }
    }
}

impl Checkpoint {
    /// Returns whether bytes start with the magic of a checkpoint.
    pub fn is_checkpoint(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is damaged, or is not a checkpoint.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{}", path.display()))
    }

    /// Reads a checkpoint from its bytes.
    ///
    /// # Errors
    ///
    /// If it is damaged or not a checkpoint.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let damaged = DAMAGED;
        let (payload, progress) = verify(bytes)?;
        let tensors = SafeTensors::deserialize(payload).context(damaged)?;
        let optimizer = tensors.tensor("optimizer").context(damaged)?.data().to_vec();
        let values = tensors
            .iter()
            .filter(|(_, view)| view.dtype() == Dtype::F32)
            .map(|(name, view)| (name.to_string(), f32_values(view.data())))
            .collect();
        let checkpoint = Self { progress, optimizer, values };
        let averages = (0..checkpoint.progress.config.profile_stds().len()).map(Part::Average);
        let parts: Vec<Part> = [Part::Network, Part::Ema].into_iter().chain(averages).collect();
        for spec in model::weights::specs(checkpoint.config()) {
            for part in &parts {
                let values = checkpoint.values.get(&part.tensor(&spec));
                ensure!(values.is_some_and(|v| v.len() == spec.len()), "{damaged}");
            }
        }
        Ok(checkpoint)
    }

    /// Reads the progress in a checkpoint without its tensors, so that the hash is not verified.
    ///
    /// # Errors
    ///
    /// If it is cut short, its header is damaged, or it is not a checkpoint.
    pub fn header(bytes: &[u8]) -> anyhow::Result<Progress> {
        progress_in(split(bytes)?.1)
    }

    /// Returns whether all weights are finite, and those of the moving average.
    pub fn is_finite(&self) -> bool {
        self.values.values().all(|values| are_finite(values))
    }

    fn config(&self) -> &ModelConfig {
        &self.progress.config.model
    }

    /// Builds the model with one of the sets of parameters.
    pub fn model(&self, part: Part, device: &Device) -> Model {
        let values = |spec: &TensorSpec| self.values[&part.tensor(spec)].clone();
        Model::from_values(self.config().clone(), &values, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EmaProfiles;
    use crate::run::progress::LogWindow;
    use model::config::{NetworkConfig, Window};

    fn small() -> (Vec<u8>, Model) {
        let mut config = TrainConfig::preset("tiny").expect("a preset");
        let NetworkConfig::Image(image) = &mut config.model.network else {
            panic!("it works on pixels");
        };
        image.resolution = 4;
        image.channels = vec![32];
        image.blocks = vec![1];
        image.window = Window::Size(2);
        image.time.channels = 4;
        image.time.width = 4;
        config.ema_profiles = Some(EmaProfiles { stds: vec![0.05, 0.1], snapshot_every: None });
        let model = Model::new(config.model.clone(), 1, &Device::flex()).expect("it fits together");
        let progress = Progress {
            images: 64,
            seconds: 1.5,
            loss: Some(0.5),
            log_window: LogWindow(0.25, 32),
            skipped: 1,
            ..Progress::new(config, String::new())
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.ckpt");
        let state = State {
            progress,
            network: model.parameters(),
            ema: model.parameters(),
            averages: vec![model.parameters(), halved(model.parameters())],
            optimizer: vec![1, 2, 3],
        };
        save(&path, state).expect("saved");
        (std::fs::read(&path).expect("there"), model)
    }

    fn halved(mut parameters: Parameters) -> Parameters {
        parameters.iter_mut().flat_map(|(_, values)| values).for_each(|value| *value *= 0.5);
        parameters
    }

    #[test]
    fn a_checkpoint_is_read_as_written() {
        let (bytes, model) = small();
        let checkpoint = Checkpoint::parse(&bytes).expect("whole");
        assert_eq!(
            (checkpoint.progress.images, checkpoint.progress.log_window),
            (64, LogWindow(0.25, 32))
        );
        assert_eq!(checkpoint.optimizer, [1, 2, 3]);
        for part in [Part::Network, Part::Ema, Part::Average(0)] {
            assert_eq!(checkpoint.model(part, &Device::flex()).parameters(), model.parameters());
        }
        let second = checkpoint.model(Part::Average(1), &Device::flex()).parameters();
        assert_eq!(second, halved(model.parameters()));
    }

    #[test]
    fn the_latest_undamaged_checkpoint_is_found() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let (bytes, _) = small();
        let progress = Checkpoint::parse(&bytes).expect("whole").progress;
        run.write_options(&progress.config).expect("written");
        let warnings = std::cell::RefCell::new(Vec::new());
        let found = |path: &Path| {
            find(path, |warning| warnings.borrow_mut().push(warning.to_string())).map(|f| f.1)
        };
        for images in [10, 20, 30] {
            std::fs::write(run.checkpoint(images), &bytes).expect("written");
        }
        assert_eq!(found(run.path()).expect("whole"), run.checkpoint(30));
        assert!(warnings.borrow().is_empty());
        // Cut short, and one bit flipped.
        std::fs::write(run.checkpoint(30), &bytes[..bytes.len() / 2]).expect("written");
        let mut flipped = bytes.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        std::fs::write(run.checkpoint(20), flipped).expect("written");
        assert_eq!(found(run.path()).expect("whole"), run.checkpoint(10));
        assert_eq!(warnings.borrow().len(), 2);
        assert!(warnings.borrow()[0].contains("000000030.ckpt"), "{warnings:?}");
        // A checkpoint given by name is not replaced by another.
        assert!(found(&run.checkpoint(20)).is_err());
        std::fs::write(run.checkpoint(10), b"").expect("written");
        let error = found(run.path()).expect_err("none").to_string();
        assert!(error.contains("000000010.ckpt") && error.contains("000000030.ckpt"), "{error}");
    }

    #[test]
    fn a_checkpoint_that_is_not_finite_is_skipped() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let (bytes, model) = small();
        let progress = Checkpoint::parse(&bytes).expect("whole").progress;
        std::fs::write(run.checkpoint(10), &bytes).expect("written");
        let state = |spoil: fn(&mut State)| {
            let mut state = State {
                progress: progress.clone(),
                network: model.parameters(),
                ema: model.parameters(),
                averages: vec![model.parameters(); 2],
                optimizer: Vec::new(),
            };
            spoil(&mut state);
            state
        };
        assert_eq!(state(|_| ()).not_finite(), None);
        for (part, spoil) in [
            ("weights", (|state| state.network[3].1[0] = f32::NAN) as fn(&mut State)),
            ("moving average", |state| state.ema[0].1[1] = f32::INFINITY),
            ("moving average", |state| state.averages[1][0].1[1] = f32::NAN),
        ] {
            assert_eq!(state(spoil).not_finite(), Some(part));
            save(&run.checkpoint(20), state(spoil)).expect("saved");
            let warnings = std::cell::RefCell::new(Vec::new());
            let warn = |warning: &str| warnings.borrow_mut().push(warning.to_string());
            assert_eq!(find(run.path(), warn).expect("one").1, run.checkpoint(10));
            assert!(warnings.borrow()[0].contains("not finite"), "{warnings:?}");
        }
    }

    /// A crash during a save leaves a temporary file of any length.
    #[test]
    fn a_save_interrupted_at_any_byte_loses_nothing() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let (bytes, _) = small();
        std::fs::write(run.checkpoint(10), &bytes).expect("written");
        let half = run.checkpoint(20).with_file_name(".writing-a1b2c3");
        for length in (0..bytes.len()).step_by(bytes.len() / 50).chain(0..60) {
            std::fs::write(&half, &bytes[..length]).expect("written");
            let found = find(run.path(), |warning| panic!("{warning}")).expect("the earlier one");
            assert_eq!(found.1, run.checkpoint(10));
        }
        let _lock = run.lock().expect("free");
        assert!(!half.exists(), "what the crash left stays");
    }

    #[test]
    fn damage_is_detected_at_any_position() {
        let (bytes, _) = small();
        for place in (0..bytes.len()).step_by(97).chain(0..50) {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0x10;
            assert!(Checkpoint::parse(&bytes).is_err(), "a flipped bit at {place} went unseen");
        }
        for length in [0, 7, 20, 40, 1000, bytes.len() - 1] {
            assert!(Checkpoint::parse(&bytes[..length]).is_err(), "cut to {length}");
        }
    }
}
