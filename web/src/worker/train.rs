//! Training.

use web_time::Instant;

use super::browser::next_task;
use super::{Reply, Trouble, Worker, milliseconds};
use crate::lesson::run::Training;
use crate::lesson::{Learned, Lesson, MOST_STEPS};
use crate::protocol::Event;
use crate::testing::Fault;

/// Time between two messages about the progress, in milliseconds.
const REPORTS: f64 = 100.0;

/// Time between two sets of samples as a multiple of the time that the last set took.
const SAMPLING: f64 = 6.0;

/// Minimum time between two sets of samples, in milliseconds.
const SAMPLES: f64 = 800.0;

/// A training run in this worker.
pub struct Pupil {
    run: u64,
    training: Training,
    /// Time that was spent on it, in milliseconds.
    spent: f64,
    /// Losses that were not sent yet.
    losses: Vec<f64>,
}

impl Pupil {
    /// Sends the progress.
    fn report(&mut self, reply: Reply) {
        let learned = Learned {
            run: self.run,
            step: self.training.steps(),
            losses: std::mem::take(&mut self.losses),
            milliseconds: self.spent,
        };
        reply.post(&Event::Learned(learned), None);
    }

    /// Makes samples and sends them.
    async fn sample(&self, reply: Reply) -> Result<(), Trouble> {
        let pictures = self.training.samples().await?;
        reply.post(&Event::Sampled { run: self.run, step: self.training.steps() }, Some(&pictures));
        Ok(())
    }
}

impl Worker {
    /// Begins a training run.
    pub async fn train(&self, reply: Reply, lesson: Lesson, bytes: &[u8]) -> Result<(), Trouble> {
        let (run, steps) = (lesson.run, lesson.steps);
        let training = Training::new(lesson, bytes)?;
        let pupil = Pupil { run, training, spent: 0.0, losses: Vec::new() };
        pupil.sample(reply).await?;
        self.pupil.replace(Some(pupil));
        self.go_on(reply, run, steps).await
    }

    /// Goes on with the training run, until it has taken this many steps or is stopped.
    pub async fn go_on(&self, reply: Reply, run: u64, steps: usize) -> Result<(), Trouble> {
        let mut last = Instant::now();
        let (mut reported, mut sampled, mut sampling) = (0.0, 0.0, 0.0);
        loop {
            let mut pupil = self.pupil_of(run)?;
            let done = pupil.training.steps() >= steps.min(MOST_STEPS) || self.is_cancelled(reply);
            if !done {
                self.fail_in_training(pupil.training.steps());
                pupil.losses.push(pupil.training.step()?);
            }
            let now = Instant::now();
            pupil.spent += milliseconds(last);
            last = now;
            if done || pupil.spent - reported > REPORTS {
                pupil.report(reply);
                reported = pupil.spent;
            }
            if done || pupil.spent - sampled > SAMPLES.max(SAMPLING * sampling) {
                pupil.sample(reply).await?;
                sampling = milliseconds(last);
                sampled = pupil.spent + sampling;
            }
            self.pupil.replace(Some(pupil));
            if done {
                reply.post(&Event::Paused { run }, None);
                return Ok(());
            }
            // Messages are received while this waits.
            next_task().await;
        }
    }

    /// Sends the weights file of the training run.
    pub async fn weights(&self, reply: Reply, run: u64) -> Result<(), Trouble> {
        let pupil = self.pupil_of(run)?;
        let file = pupil.training.file(pupil.spent / 1e3).await;
        let step = pupil.training.steps();
        self.pupil.replace(Some(pupil));
        reply.post(&Event::Weights { run, step }, Some(&file?));
        Ok(())
    }

    /// Takes the training run with this number out of the worker.
    fn pupil_of(&self, run: u64) -> Result<Pupil, Trouble> {
        let mut slot = self.pupil.borrow_mut();
        match slot.take_if(|pupil| pupil.run == run) {
            Some(pupil) => Ok(pupil),
            None => Err("This training run is not there any more.".into()),
        }
    }

    /// Ends the worker if a test injected that fault.
    fn fail_in_training(&self, step: usize) {
        if self.fault.get() == Some(Fault::Training(step)) {
            panic!("training failed on purpose");
        }
    }
}
