//! When a training process saves: only good states, and at once if other files cannot be written.
//!
//! Checkpoints are written on a thread of their own while training goes on, one at a time, except the
//! last one of a process.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;

use super::invocation;
use super::session::Session;
use crate::data::error::DataError;
use crate::run::background::Background;
use crate::run::checkpoint::{self, State};
use crate::run::progress::Progress;

/// Part of --save-every after which a save that failed is tried again.
const RETRY: u64 = 10;

/// State of the saves of a training process.
pub struct Saves {
    /// Number of images of the latest checkpoint, or at the start.
    latest: u64,
    /// Number of images after the latest step that was taken, or at the start.
    taken: u64,
    /// Whether checkpoints before the latest one were not removed yet. They are kept until a step has
    /// shown that training can go on from that.
    outdated: bool,
    /// Reason why the last save was refused.
    refused: Option<String>,
    /// Whether the last save failed.
    failed: bool,
    /// Whether a failed write has caused a save.
    after_failure: bool,
    /// The checkpoint that is being written, or the removal of old ones.
    task: Background<Done>,
}

/// What was done in the background.
enum Done {
    /// The save after this many images, or the reason why it was refused.
    Save(u64, Result<(), String>),
    /// The removal of old checkpoints.
    Removal(anyhow::Result<()>),
}

impl Saves {
    /// Starts after `images` images; if these are not 0, from a checkpoint.
    pub fn new(images: u64) -> Self {
        Self {
            latest: images,
            taken: images,
            outdated: false,
            refused: None,
            failed: false,
            after_failure: false,
            task: Background::default(),
        }
    }

    /// Returns the reason why the last save was refused.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Returns the number of images of the latest checkpoint, if no step was taken from it yet.
    pub fn unconfirmed(&self) -> Option<u64> {
        (self.latest > 0 && self.taken <= self.latest).then_some(self.latest)
    }

    /// Notes that the step to `images` images was taken.
    pub fn note_step(&mut self, images: u64) {
        self.taken = images;
    }

    /// Returns after how many images a save is tried again, if the last one failed. `every` is the
    /// number of images between two saves.
    pub fn retry(&self, every: u64) -> Option<u64> {
        self.failed.then_some((every / RETRY).max(1))
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

/// Writes a checkpoint, unless its values are not finite. Returns the reason then.
///
/// # Errors
///
/// If the file cannot be written.
fn write(path: &Path, state: State) -> anyhow::Result<Result<(), String>> {
    if let Some(part) = state.not_finite() {
        return Ok(Err(format!("the {part} is not finite")));
    }
    let started = Instant::now();
    checkpoint::save(path, state)?;
    tracing::info!(path = %path.display(), time = ?started.elapsed(), "checkpoint written");
    Ok(Ok(()))
}

impl Session {
    /// Starts to save a checkpoint, which goes on in the background; first waits for the save before.
    /// A state whose weights are not finite, or that is skipping steps, is not saved; the earlier
    /// checkpoints are kept then. A save that fails is a warning, and tried again later.
    pub fn save(&mut self) {
        self.finish_saving();
        let images = self.progress.images;
        if let Some(problem) = is_skipping(&self.progress) {
            return self.refuse(images, problem);
        }
        let path = self.folder.checkpoint(images);
        let progress = self.progress.clone();
        let learned = self.learner.learned();
        let save =
            move |written: anyhow::Result<_>| written.map(|result| Done::Save(images, result));
        // A GPU's values are read here: another thread would have a queue and a pool of memory of its
        // own there.
        let started = if self.device == Device::flex() {
            self.saves.task.start(move || save(write(&path, learned.read(progress)?)))
        } else {
            match learned.read(progress) {
                Ok(state) => self.saves.task.start(move || save(write(&path, state))),
                Err(error) => Err(error),
            }
        };
        if let Err(error) = started {
            self.note(Err(error));
        }
    }

    /// Saves a checkpoint as [`save`](Self::save) does, and waits until it is written.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save_now(&mut self) -> anyhow::Result<()> {
        self.finish_saving();
        let images = self.progress.images;
        let saved = self.write(&self.folder.checkpoint(images))?;
        self.note(Ok(Done::Save(images, saved)));
        Ok(())
    }

    /// Writes the state to a checkpoint, after the one that is being written. Returns the reason if
    /// it must not be saved.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<Result<(), String>> {
        match is_skipping(&self.progress) {
            Some(problem) => Ok(Err(problem)),
            None => write(path, self.learner.learned().read(self.progress.clone())?),
        }
    }

    /// Waits for what is saved or removed in the background.
    pub fn finish_saving(&mut self) {
        if let Some(done) = self.saves.task.wait() {
            self.note(done);
        }
    }

    /// Notes what was done in the background, and removes old checkpoints there once a step was taken
    /// from the latest one.
    pub fn look_after_saves(&mut self) {
        if let Some(done) = self.saves.task.ended() {
            self.note(done);
        }
        let Saves { outdated, latest, taken, task, .. } = &mut self.saves;
        if !*outdated || taken <= latest || task.is_busy() {
            return;
        }
        *outdated = false;
        let (folder, args) = (self.folder.clone(), &self.args);
        let (keep, every) = (args.keep as usize, args.keep_every);
        let removal = move || Ok(Done::Removal(folder.remove_old_checkpoints(keep, every)));
        if let Err(error) = task.start(removal) {
            self.note(Ok(Done::Removal(Err(error))));
        }
    }

    /// Removes old checkpoints at the end, if this process has saved one, from which no step was taken.
    pub fn remove_old_checkpoints(&mut self) {
        self.finish_saving();
        if self.saves.outdated {
            let (keep, every) = (self.args.keep as usize, self.args.keep_every);
            let removed = self.folder.remove_old_checkpoints(keep, every);
            self.note(Ok(Done::Removal(removed)));
        }
    }

    fn note(&mut self, done: anyhow::Result<Done>) {
        match done {
            Ok(Done::Save(images, Ok(()))) => {
                (self.saves.latest, self.saves.outdated) = (images, true);
                (self.saves.refused, self.saves.failed) = (None, false);
            }
            Ok(Done::Save(images, Err(problem))) => self.refuse(images, problem),
            Ok(Done::Removal(Ok(()))) => (),
            Ok(Done::Removal(Err(error))) => self.log.status.warn(&format!("warning: {error:#}")),
            Err(error) => {
                self.saves.failed = true;
                let warning =
                    format!("warning: {error:#}; training goes on, and saves again later");
                self.log.status.warn(&warning);
            }
        }
    }

    /// Notes that the state after `images` images is not saved.
    fn refuse(&mut self, images: u64, problem: String) {
        if self.saves.refused.is_none() {
            self.log
                .status
                .warn(&format!("warning: no checkpoint is saved after {images} images: {problem}"));
        }
        self.saves.refused = Some(problem);
    }

    /// Saves a checkpoint after an error of the data, and returns the error with what can be done.
    pub fn save_after(&mut self, error: &DataError) -> String {
        if !self.save_state() {
            return error.to_string();
        }
        format!(
            "{error}\nafter {} images, which are saved in a checkpoint; restore the file, then \
             resume:\n  {}",
            self.progress.images,
            invocation::resume(self.folder.path(), [])
        )
    }

    /// Saves a checkpoint after the loss of another machine, and returns the error with what was saved.
    pub fn save_after_loss(&mut self, error: &anyhow::Error) -> String {
        if !self.save_state() {
            return format!("{error:#}");
        }
        format!("{error:#}\nafter {} images, which are saved in a checkpoint", self.progress.images)
    }

    /// Saves a checkpoint before the process ends with an error, unless there is one of this state.
    /// Returns whether there is one then.
    fn save_state(&mut self) -> bool {
        self.finish_saving();
        let images = self.progress.images;
        if images != self.saves.latest
            && let Err(error) = self.save_now()
        {
            self.log.status.warn(&format!("warning: {error:#}"));
        }
        self.log.status.finish();
        self.saves.latest == images && images > 0
    }

    /// Reports the error of a write without which training can go on, and saves a checkpoint the
    /// first time.
    pub fn report(&mut self, written: anyhow::Result<()>) {
        let Err(error) = written else { return };
        self.log.status.warn(&format!("warning: {error:#}; training goes on"));
        if !self.saves.after_failure {
            self.finish_saving();
            if self.progress.images != self.saves.latest {
                self.saves.after_failure = true;
                self.save();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_confirmed_by_a_step_from_it() {
        let mut saves = Saves::new(0);
        assert_eq!(saves.unconfirmed(), None, "there is no checkpoint");
        saves.note_step(8);
        saves.latest = 8;
        assert_eq!(saves.unconfirmed(), Some(8));
        saves.note_step(16);
        assert_eq!(saves.unconfirmed(), None);
        // The save of an earlier state ended after the next step.
        saves.latest = 8;
        assert_eq!(saves.unconfirmed(), None);
        let mut resumed = Saves::new(24);
        assert_eq!(resumed.unconfirmed(), Some(24));
        resumed.note_step(32);
        assert_eq!(resumed.unconfirmed(), None);
    }

    #[test]
    fn a_save_that_failed_is_tried_again_sooner() {
        let mut saves = Saves::new(0);
        assert_eq!(saves.retry(500), None);
        saves.failed = true;
        assert_eq!((saves.retry(500), saves.retry(5)), (Some(50), Some(1)));
    }
}
