//! Doing what the session wants.

use std::sync::Arc;
use std::time::Duration;

use leptos::prelude::*;
use web_sys::{ErrorEvent, MessageEvent};

use super::browser::{faults, first_worker, start_worker};
use super::{Engine, SILENCE};
use crate::looks::Question;
use crate::protocol::{Message, Request, carry};
use crate::session::{Attached, Effect, Frame, Input, Run, Show};

/// Number of attention rows that are kept, besides those that are shown. A row of 1024 tokens with 16
/// heads takes 128 KiB.
const ROWS: usize = 256;

impl Engine {
    /// Does what the session wants. If it is a worker and the browser has none, its number is the
    /// error.
    pub(super) fn carry_out(self, effect: Effect) -> Result<(), u64> {
        let state = self.state;
        match effect {
            Effect::Start { worker, processor } => return self.start_worker(worker, processor),
            Effect::Stop { worker } => self.workers.update_value(|workers| {
                if let Some(worker) = workers.remove(&worker) {
                    worker.terminate();
                }
            }),
            Effect::Post { worker, message, attached } => self.post(worker, message, attached),
            Effect::Watch(watch) => {
                let time = faults().silence.map_or(SILENCE, Duration::from_millis);
                set_timeout(move || self.step(Input::Silence { watch }), time);
            }
            Effect::Show(show) => self.show(show),
            Effect::Settle => self.settle(),
            Effect::Forget => {
                state.run.set(None);
                state.progress.set(None);
                state.attention.update(|rows| rows.clear());
                state.surveyed.update(|rows| rows.clear());
                state.enlarged.set(None);
                state.guide.set(None);
                state.class_problem.set(None);
            }
            Effect::Begin(run) => self.begin(run),
            Effect::Frame { step, frame, .. } => self.keep(step, frame),
            Effect::Finish { milliseconds, evaluations, autoencoder, last, .. } => {
                state.run.update(|run| {
                    if let Some(run) = run {
                        run.finished = Some((milliseconds, evaluations));
                        run.autoencoder = autoencoder;
                    }
                });
                if !last {
                    state.beside.set(state.run.get_untracked());
                } else if state.first.read_untracked().is_none() {
                    let at = self.at.get_value();
                    state.first.set(at.map(|at| at.elapsed().as_secs_f64() * 1e3));
                }
            }
            Effect::Row(look, row) => state.attention.update(|rows| {
                rows.insert(look, Arc::new(row));
                if rows.len() > ROWS {
                    self.session.with_value(|session| {
                        rows.retain(|look, _| session.looks().wants(&Question::Token(*look)));
                    });
                }
            }),
            Effect::Survey(surveyed) => state.surveyed.update(|known| {
                known.insert(surveyed.scan, Arc::new(surveyed));
            }),
            Effect::Explored(tracks) => state.explored.set(Some(Arc::new(tracks))),
        }
        Ok(())
    }

    fn start_worker(self, worker: u64, processor: bool) -> Result<(), u64> {
        let on_message = move |message: MessageEvent| {
            if let Some((report, bytes)) = carry::unpack(message.data()) {
                self.step(Input::Heard { worker, report, bytes });
            }
        };
        let on_error = move |event: ErrorEvent| {
            event.prevent_default();
            self.step(Input::Ended { worker, message: event.message() });
        };
        let model = self.state.scene.read_untracked().model.clone();
        let first = if processor { first_worker(on_message, on_error) } else { None };
        let name = if processor { "cpu" } else { "" };
        let started = first.or_else(|| start_worker(name, Some(&model), on_message, on_error));
        let started = started.ok_or(worker)?;
        self.workers.update_value(|workers| {
            workers.insert(worker, started);
        });
        Ok(())
    }

    fn post(self, worker: u64, mut message: Message, attached: Attached) {
        if let Request::Start(start) = &mut message.request {
            start.model = Some(self.state.scene.read_untracked().model.clone());
        }
        let (message, moved) = match attached {
            Attached::Nothing => carry::pack(&message, None),
            Attached::Bytes(bytes) => carry::pack(&message, Some(&bytes)),
            Attached::File(number) => {
                let file = self.files.with_value(|files| files.get(&number).cloned());
                carry::pack_file(&message, file.as_ref())
            }
        };
        self.workers.with_value(|workers| {
            if let Some(worker) = workers.get(&worker) {
                // It fails only for values that cannot be cloned; text, bytes and files can.
                let _ = worker.post_message_with_transfer(&message, &moved);
            }
        });
    }

    fn show(self, show: Show) {
        let state = self.state;
        match show {
            Show::Doing(doing) => state.doing.set(doing),
            Show::Device(backend, adapter) => state.device.set(Some((backend, adapter))),
            Show::Note(note) => state.note.set(note),
            Show::Trouble(trouble) => state.trouble.set(trouble),
            Show::Said(said) => state.said.set(said),
            Show::Models(models) => state.models.set(models),
            Show::Ready(ready) => state.ready.set(Some(*ready)),
            Show::Autoencoder(info) => {
                if info.is_some() {
                    // The picture to start from has another size now.
                    state.guide.set(None);
                }
                state.autoencoder.set(info);
            }
            Show::Progress(progress) => state.progress.set(progress),
            Show::Decoding(decoding) => state.decoding.set(decoding),
            Show::Smaller(smaller) => state.smaller.set(smaller),
            Show::NothingBeside => state.beside.set(None),
            Show::Work(work) => state.work.set(work),
            Show::Gone(run) => state.gone.set(Some(run)),
            Show::Waits(waits) => state.waits.set(waits),
        }
    }

    /// Replaces the previous run.
    fn begin(self, run: Run) {
        let state = self.state;
        state.attention.update(|rows| rows.clear());
        state.surveyed.update(|rows| rows.clear());
        if state.enlarged.get_untracked().is_some_and(|i| i >= run.order.noises.len()) {
            state.enlarged.set(None);
        }
        state.at.set(0);
        state.run.set(Some(run));
    }

    /// Adds a frame to the run.
    fn keep(self, step: usize, frame: Frame) {
        let state = self.state;
        // If an earlier frame is selected, it stays selected.
        let follows = state.at.get_untracked() + 1 >= step;
        state.run.update(|run| {
            if let Some(run) = run {
                run.frames.push(Arc::new(frame));
            }
        });
        if follows {
            state.at.set(step);
        }
    }
}
