//! When a training process saves: only good states, and at once if other files cannot be written.

use model::Model;

use super::invocation;
use super::session::Session;
use crate::data::error::DataError;
use crate::run::checkpoint::{self, State};
use crate::run::progress::Progress;

/// State of the saves of a training process.
pub struct Saves {
    /// Number of images at the start.
    start: u64,
    /// Number of images of the latest checkpoint, or at the start.
    latest: u64,
    /// Number of images of the latest checkpoint, until a step has shown that training can go on
    /// from it. Until then, the checkpoints before it are kept.
    unconfirmed: Option<u64>,
    /// Reason why the last save was refused.
    refused: Option<String>,
    /// Whether a failed write has caused a save.
    after_failure: bool,
}

impl Saves {
    /// Starts after `images` images; if these are not 0, from a checkpoint.
    pub fn new(images: u64) -> Self {
        let unconfirmed = (images > 0).then_some(images);
        Self { start: images, latest: images, unconfirmed, refused: None, after_failure: false }
    }

    /// Returns the reason why the last save was refused.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Returns the number of images of the latest checkpoint, if no step was taken from it yet.
    pub fn unconfirmed(&self) -> Option<u64> {
        self.unconfirmed
    }
}

/// Returns the reason why a run in this state is not saved, apart from its values.
fn is_skipping(progress: &Progress) -> Option<String> {
    match progress.skipped_in_row {
        0 => None,
        1 => Some("the last step was skipped".into()),
        n => Some(format!("the last {n} steps were skipped")),
    }
}

impl Session {
    /// Saves a checkpoint. A state whose weights are not finite, or that is skipping steps, is not
    /// saved; the earlier checkpoints are kept then.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&mut self) -> anyhow::Result<()> {
        let images = self.progress.images;
        let problem = match self.state()? {
            Ok(state) => {
                checkpoint::save(&self.folder.checkpoint(images), state)?;
                (self.saves.latest, self.saves.unconfirmed) = (images, Some(images));
                None
            }
            Err(problem) => Some(problem),
        };
        if let (Some(problem), None) = (&problem, &self.saves.refused) {
            self.log
                .status
                .warn(&format!("warning: no checkpoint is saved after {images} images: {problem}"));
        }
        self.saves.refused = problem;
        Ok(())
    }

    /// Saves a checkpoint after an error of the data, unless there is one of this state, and returns
    /// the error with what can be done.
    pub fn save_after(&mut self, error: &DataError) -> String {
        let images = self.progress.images;
        if images != self.saves.latest
            && let Err(error) = self.save()
        {
            self.log.status.warn(&format!("warning: {error:#}"));
        }
        self.log.status.finish();
        if self.saves.latest != images || images == 0 {
            return error.to_string();
        }
        format!(
            "{error}\nafter {images} images, which are saved in a checkpoint; restore the file, then \
             resume:\n  {}",
            invocation::resume(self.folder.path(), [])
        )
    }

    /// Returns the state to save, or the reason why it must not be saved.
    ///
    /// # Errors
    ///
    /// If the optimizer cannot be serialised.
    pub fn state(&self) -> anyhow::Result<Result<State<'_>, String>> {
        if let Some(problem) = is_skipping(&self.progress) {
            return Ok(Err(problem));
        }
        let state = State {
            progress: &self.progress,
            network: self.learner.model().parameters(),
            ema: self.learner.ema().parameters(),
            averages: self.learner.averages().map(Model::parameters).collect(),
            optimizer: self.learner.optimizer()?,
        };
        Ok(match state.not_finite() {
            Some(part) => Err(format!("the {part} is not finite")),
            None => Ok(state),
        })
    }

    /// Removes old checkpoints if this process has saved one from which a step was taken, or, if
    /// `always`, from which none was taken.
    pub fn remove_old_checkpoints(&mut self, always: bool) {
        let latest = self.saves.unconfirmed;
        if latest.is_none() || (!always && latest == Some(self.progress.images)) {
            return;
        }
        self.saves.unconfirmed = None;
        if self.saves.latest == self.saves.start {
            return;
        }
        let removed =
            self.folder.remove_old_checkpoints(self.args.keep as usize, self.args.keep_every);
        if let Err(error) = removed {
            self.log.status.warn(&format!("warning: {error:#}"));
        }
    }

    /// Reports the error of a write without which training can go on, and saves a checkpoint the
    /// first time.
    pub fn report(&mut self, written: anyhow::Result<()>) {
        let Err(error) = written else { return };
        self.log.status.warn(&format!("warning: {error:#}; training goes on"));
        if !self.saves.after_failure && self.progress.images != self.saves.latest {
            self.saves.after_failure = true;
            if let Err(error) = self.save() {
                self.log.status.warn(&format!("warning: {error:#}"));
            }
        }
    }
}
