//! Checkpoints: one file with everything that training goes on from.
//!
//! Eight bytes of magic, the SHA-256 of all that follows, and a safetensors file: `net.*` and
//! `ema.*`, named as in a weights file, and `optimizer`, the optimizer's record as Burn writes it.
//! Its metadata holds [`Progress`].

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use model::card::ClassGroup;
use model::config::ModelConfig;
use model::importance::{Drawn, TimeSampler};
use model::network::Network;
use model::noise::{Random, Stream};
use model::weights::f32_values;
use model::{Model, TensorSpec};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::TrainConfig;
use crate::loader::Batch;
use crate::run_folder::{RunFolder, write_file};

const MAGIC: &[u8; 8] = b"DIFFIT\0\x01";
const KEY: &str = "diffit-checkpoint";

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The recipe.
    pub config: TrainConfig,
    /// What the run started from: nothing, or the name of a set of weights.
    pub started_from: String,
    /// Images seen.
    pub images: u64,
    /// Time spent training, in seconds.
    pub seconds: f64,
    /// Loss per value over the last stretch that was reported.
    pub loss: Option<f64>,
    /// Loss per value on the held-out pictures, when it was last measured.
    #[serde(default)]
    pub validation_loss: Option<f64>,
    /// Sum of the loss over the images seen since then, and their number.
    pub stretch: (f64, u64),
    /// Steps that were not taken, since their loss or gradient was not finite.
    #[serde(default)]
    pub skipped: u64,
    /// How many of them came last, without one that was taken.
    #[serde(default)]
    pub skipped_in_row: u32,
    /// Hashes of what the data are latents of: the pictures, and the autoencoder. None if they are
    /// pictures.
    #[serde(default)]
    pub latents_of: Option<[String; 2]>,
    /// Names of the model's classes.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Groups of the model's classes.
    #[serde(default)]
    pub class_groups: Vec<ClassGroup>,
    /// What draws noise levels by what it has learned of them, where anything does.
    #[serde(default)]
    pub times: Option<TimeSampler>,
}

impl Progress {
    /// Of a run that has not begun.
    pub fn new(config: TrainConfig, started_from: String) -> Self {
        Self {
            times: config.loss.time_sampler(None),
            config,
            started_from,
            images: 0,
            seconds: 0.0,
            loss: None,
            validation_loss: None,
            stretch: (0.0, 0),
            skipped: 0,
            skipped_in_row: 0,
            latents_of: None,
            classes: Vec::new(),
            class_groups: Vec::new(),
        }
    }

    /// Gives a share of the next batch the noise levels that suit what was learned of them, where
    /// that is wanted, and returns the steps of discrete time of the whole batch.
    pub fn draw_times(&self, batch: &mut Batch, share: Range<usize>) -> Vec<usize> {
        let Some(times) = &self.times else { return Vec::new() };
        let draw = |k| times.draw(&mut Random::new(self.config.seed, Stream::Time, k));
        let drawn: Vec<Drawn> = (self.images..).take(self.config.batch).map(draw).collect();
        for (i, drawn) in drawn[share].iter().enumerate() {
            batch.sigma[i] = self.config.loss.sigma_of(drawn.time);
            batch.weight[i] = drawn.weight;
        }
        drawn.into_iter().map(|drawn| drawn.time).collect()
    }

    /// What all machines that train together have to agree on: the recipe, but for where the data
    /// lie, and how far the run has come.
    pub fn identity(&self) -> anyhow::Result<String> {
        let mut config = TrainConfig { data: PathBuf::new(), ..self.config.clone() };
        if let Some(path) = config.validation.as_mut().and_then(|v| v.data.as_mut()) {
            path.clear();
        }
        Ok(serde_json::to_string(&(config, self.images, &self.latents_of, &self.times))?)
    }

    /// Ends a stretch and returns the loss over it.
    pub fn end_stretch(&mut self) -> f64 {
        let (sum, images) = std::mem::take(&mut self.stretch);
        let loss = sum / images as f64;
        self.loss = Some(loss);
        loss
    }
}

/// Bytes of a checkpoint: weights, their average, and the two moments of Adam. (Muon has one.)
pub fn size(network: &Network) -> usize {
    4 * 4 * network.parameter_count()
}

/// Named values, as in a weights file.
pub type Parameters = Vec<(TensorSpec, Vec<f32>)>;

/// What is saved.
pub struct State<'a> {
    /// How far the run has come.
    pub progress: &'a Progress,
    /// The network's parameters.
    pub network: Parameters,
    /// Their moving average.
    pub ema: Parameters,
    /// The optimizer's record.
    pub optimizer: Vec<u8>,
}

/// Writes a checkpoint. A crash at any moment leaves either no file of this name or a whole one.
///
/// # Errors
///
/// If the file system refuses.
pub fn save(path: &Path, state: State) -> anyhow::Result<()> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let part = |prefix: &'static str, parameters: &Parameters| {
        parameters
            .iter()
            .map(|(spec, values)| {
                (format!("{prefix}.{}", spec.name), spec.shape.clone(), bytes(values))
            })
            .collect::<Vec<_>>()
    };
    let mut stored = part("net", &state.network);
    stored.extend(part("ema", &state.ema));
    let mut views = stored
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let optimizer = TensorView::new(Dtype::U8, vec![state.optimizer.len()], &state.optimizer)?;
    views.push(("optimizer", optimizer));
    let metadata = HashMap::from([(KEY.to_string(), serde_json::to_string(state.progress)?)]);
    let payload = safetensors::serialize(views, Some(metadata))?;
    let mut file = Vec::with_capacity(payload.len() + 40);
    file.extend(MAGIC);
    file.extend(Sha256::digest(&payload));
    file.extend(payload);
    write_file(path, &file).with_context(|| {
        format!(
            "cannot save {} ({} MB); earlier checkpoints are untouched",
            path.display(),
            file.len() / 1_000_000
        )
    })
}

/// Finds and reads a checkpoint: of a run folder the latest that is whole, else the file that
/// `path` names. `warn` is told of those that are damaged.
///
/// # Errors
///
/// If there is none, or the one that was named cannot be used.
pub fn find(path: &Path, warn: impl Fn(&str)) -> anyhow::Result<(RunFolder, PathBuf, Checkpoint)> {
    let (folder, candidates) = RunFolder::find(path)?;
    let mut problems = Vec::new();
    for path in candidates {
        match Checkpoint::load(&path) {
            Ok(checkpoint) => {
                for problem in &problems {
                    warn(&format!("{problem}; taking an earlier one"));
                }
                return Ok((folder, path, checkpoint));
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    bail!(problems.join("\n"))
}

/// A checkpoint that was read back and found whole.
pub struct Checkpoint {
    /// How far the run had come.
    pub progress: Progress,
    /// The optimizer's record.
    pub optimizer: Vec<u8>,
    values: HashMap<String, Vec<f32>>,
}

/// Which of the two sets of parameters.
#[derive(Clone, Copy)]
pub enum Part {
    /// The network as it trains.
    Network,
    /// Its moving average.
    Ema,
}

impl Checkpoint {
    /// Whether a file starts as a checkpoint does.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    ///
    /// If it is damaged in any byte, or is none.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{}", path.display()))
    }

    /// Reads a checkpoint from its bytes.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::load`].
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        ensure!(Self::is_one(bytes), "not a checkpoint of this program");
        let damaged = "this checkpoint is damaged";
        let Some((sum, payload)) = bytes[MAGIC.len()..].split_at_checked(32) else {
            bail!(damaged);
        };
        ensure!(Sha256::digest(payload)[..] == *sum, "{damaged}");
        let (_, header) = SafeTensors::read_metadata(payload).context(damaged)?;
        let tensors = SafeTensors::deserialize(payload).context(damaged)?;
        let progress = header.metadata().as_ref().and_then(|m| m.get(KEY)).context(damaged)?;
        let progress: Progress = serde_json::from_str(progress)
            .context("this checkpoint was made by another version of this program")?;
        progress.config.model.validate()?;
        let optimizer = tensors.tensor("optimizer").context(damaged)?.data().to_vec();
        let values = tensors
            .iter()
            .filter(|(_, view)| view.dtype() == Dtype::F32)
            .map(|(name, view)| (name.to_string(), f32_values(view.data())))
            .collect();
        let checkpoint = Self { progress, optimizer, values };
        for spec in model::weights::specs(checkpoint.config()) {
            for prefix in ["net", "ema"] {
                let values = checkpoint.values.get(&format!("{prefix}.{}", spec.name));
                ensure!(values.is_some_and(|v| v.len() == spec.len()), "{damaged}");
            }
        }
        Ok(checkpoint)
    }

    fn config(&self) -> &ModelConfig {
        &self.progress.config.model
    }

    /// One of the two networks, on a device.
    pub fn model(&self, part: Part, device: &burn::tensor::Device) -> Model {
        let prefix = match part {
            Part::Network => "net",
            Part::Ema => "ema",
        };
        let values = |spec: &TensorSpec| self.values[&format!("{prefix}.{}", spec.name)].clone();
        Model::from_values(self.config().clone(), &values, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use model::config::LinearBetas;
    use model::importance::TimeSampling;
    use model::loss::LossConfig;
    use proptest::num::f64;
    use proptest::prelude::*;

    fn small() -> (Vec<u8>, Model) {
        let mut config = TrainConfig::preset("tiny").expect("a preset");
        let model::config::NetworkConfig::Image(image) = &mut config.model.network else {
            panic!("it works on pixels");
        };
        image.resolution = 4;
        image.channels = vec![32];
        image.blocks = vec![1];
        image.window = model::config::Window::Size(2);
        image.time.channels = 4;
        image.time.width = 4;
        let model = Model::new(config.model.clone(), 1, &Device::flex()).expect("it fits together");
        let progress = Progress {
            images: 64,
            seconds: 1.5,
            loss: Some(0.5),
            stretch: (0.25, 32),
            skipped: 1,
            ..Progress::new(config, String::new())
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.ckpt");
        let state = State {
            progress: &progress,
            network: model.parameters(),
            ema: model.parameters(),
            optimizer: vec![1, 2, 3],
        };
        save(&path, state).expect("saved");
        (std::fs::read(&path).expect("there"), model)
    }

    #[test]
    fn what_was_saved_is_read_back() {
        let (bytes, model) = small();
        let checkpoint = Checkpoint::parse(&bytes).expect("whole");
        assert_eq!((checkpoint.progress.images, checkpoint.progress.stretch), (64, (0.25, 32)));
        assert_eq!(checkpoint.optimizer, [1, 2, 3]);
        for part in [Part::Network, Part::Ema] {
            assert_eq!(checkpoint.model(part, &Device::flex()).parameters(), model.parameters());
        }
    }

    proptest! {
        /// Or training would go on from other sums than it stopped at.
        #[test]
        fn numbers_come_back_as_they_were(seconds in f64::NORMAL, sum in f64::NORMAL) {
            let config = TrainConfig::preset("tiny").expect("a preset");
            let progress = Progress::new(config, String::new());
            let progress = Progress { seconds, stretch: (sum, 3), ..progress };
            let text = serde_json::to_string(&progress).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Progress>(&text).expect("its own"), progress);
        }
    }

    #[test]
    fn what_is_hard_is_drawn_more_often_and_counts_less() {
        let mut config = TrainConfig::preset("latent-tiny").expect("a preset");
        let betas = LinearBetas { steps: 4, ..LinearBetas::default() };
        let times = TimeSampling::Importance { history: 1, uniform: 1e-3 };
        config.loss = LossConfig::Adm { betas, times };
        let mut progress = Progress::new(config, String::new());
        progress.times.as_mut().expect("it learns").learn(&[0, 1, 2, 3], &[1.0, 1.0, 1.0, 7.0]);
        let n = 1000;
        progress.config.batch = n;
        let mut batch = Batch { sigma: vec![0.0; n], weight: vec![0.0; n], ..Batch::default() };
        let drawn = progress.draw_times(&mut batch, 0..n);
        let hard = drawn.iter().filter(|&&time| time == 3).count();
        assert!(hard.abs_diff(700) < 60, "{hard}");
        for ((time, sigma), weight) in drawn.iter().zip(batch.sigma).zip(batch.weight) {
            assert_eq!(sigma, betas.sigmas()[*time]);
            let want = if *time == 3 { 0.25 / 0.7 } else { 0.25 / 0.1 };
            assert!((weight / want - 1.0).abs() < 0.01, "{time}: {weight}");
        }
        // Another batch is drawn for other images, and the same one for the same.
        let mut again = Batch { sigma: vec![0.0; n], weight: vec![0.0; n], ..Batch::default() };
        assert_eq!(progress.draw_times(&mut again, 0..n), drawn);
        let mut part = Batch { sigma: vec![0.0; 10], weight: vec![0.0; 10], ..Batch::default() };
        assert_eq!(progress.draw_times(&mut part, 500..510), drawn);
        assert_eq!(part.sigma, again.sigma[500..510]);
        progress.images = n as u64;
        assert_ne!(progress.draw_times(&mut again, 0..n), drawn);
    }

    #[test]
    fn the_latest_whole_one_is_found() {
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
        // One that was asked for by name is not replaced by another.
        assert!(found(&run.checkpoint(20)).is_err());
        std::fs::write(run.checkpoint(10), b"").expect("written");
        let error = found(run.path()).expect_err("none").to_string();
        assert!(error.contains("000000010.ckpt") && error.contains("000000030.ckpt"), "{error}");
    }

    /// A crash while saving leaves the start of a file under another name, of any length.
    #[test]
    fn a_save_that_ends_at_any_byte_loses_nothing() {
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
    fn damage_is_found_wherever_it_is() {
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
