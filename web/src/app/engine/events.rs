//! The messages of the worker.

use std::sync::Arc;

use leptos::prelude::*;
use model::picture::Rgb;

use super::{Asked, Engine, faults};
use crate::adapter::waits;
use crate::app::link::hash;
use crate::app::state::{Doing, Frame, Run};
use crate::app::survey;
use crate::looks::Question;
use crate::memory::is_shortage;
use crate::names::opening;
use crate::plot::Attention;
use crate::protocol::{Event, Order, Usual};
use crate::scene::{View, has_settings};

/// Number of attention rows that are kept, besides those that are shown. A row of 1024 tokens with 16
/// heads takes 128 KiB.
const ROWS: usize = 256;

/// Splits bytes into pictures.
pub fn pictures(bytes: &[u8], [width, height]: [usize; 2]) -> Vec<Rgb> {
    if width * height == 0 {
        return Vec::new();
    }
    let pictures = bytes.chunks_exact(3 * width * height);
    pictures.map(|bytes| Rgb { width, height, bytes: bytes.to_vec() }).collect()
}

impl Engine {
    /// Handles a message of the worker.
    pub(super) fn heard(self, event: Event, bytes: Vec<u8>) {
        let state = self.state;
        match event {
            Event::Program { loaded, total } => state.doing.set(Doing::Fetching(loaded, total)),
            Event::Hello => {
                self.load();
                self.explores(true);
            }
            Event::Chosen { backend, adapter, note } => {
                state.device.set(Some((backend, adapter)));
                // The note on a lost device stays visible.
                if note.is_some() || self.starts.get_value() == 1 {
                    state.note.set(note);
                }
            }
            Event::Models(models) => state.models.set(models),
            Event::Loading { loaded, total } => state.doing.set(Doing::Loading(loaded, total)),
            Event::Checking => state.doing.set(Doing::Checking),
            Event::Ready(ready) => {
                let adapter = state.device.get_untracked().and_then(|(_, adapter)| adapter);
                state.device.set(Some((ready.backend, adapter)));
                if ready.note.is_some() {
                    state.note.set(ready.note.clone());
                }
                let other = state
                    .ready
                    .read_untracked()
                    .as_ref()
                    .is_some_and(|before| before.sha256 != ready.sha256);
                if other {
                    // The steps of another model's pictures are gone.
                    state.run.set(None);
                    state.attention.update(|rows| rows.clear());
                    state.surveyed.update(|rows| rows.clear());
                    state.enlarged.set(None);
                    state.guide.set(None);
                    state.class_problem.set(None);
                }
                state.ready.set(Some(*ready));
                self.asked.update_value(|asked| {
                    if let Some(own) = asked.opening.take() {
                        asked.weights = Some(own);
                    }
                });
                // Continues with the queue, which a lost device may have left.
                self.go_on();
            }
            Event::Autoencoder(info) => {
                self.asked.update_value(|asked| asked.autoencoder = asked.opening.take());
                let fits = untrack(|| state.latent()) == Some(info.channels);
                let said = if fits {
                    "The autoencoder is ready: latents are decoded to pictures."
                } else {
                    "The autoencoder is ready. It is used once a model that makes latents for it is open."
                };
                state.said.set(said.into());
                // The note on a lost device stays visible.
                if self.starts.get_value() == 1 {
                    state.note.set(Some(said.into()));
                }
                state.guide.set(None);
                state.autoencoder.set(Some(info));
                self.go_on();
            }
            Event::Evaluated(evaluated) => {
                let size = state.ready.read_untracked().as_ref().map_or([0; 2], |r| r.size);
                let mut noisy = pictures(&bytes, size);
                let guess = noisy.split_off(noisy.len() / 2);
                let latent = untrack(|| state.latent()).is_some();
                let frame = Frame { sigma: evaluated.sigma, noisy, guess, latent };
                if evaluated.evaluation == 1 {
                    self.begin();
                }
                self.keep(evaluated.step, frame);
                state.progress.set(Some(evaluated));
            }
            Event::Decoding(decoding) => state.decoding.set(Some(decoding)),
            Event::Done { milliseconds, evaluations, size, autoencoder, work } => {
                state.work.set(work);
                state.decoding.set(None);
                let guess = pictures(&bytes, size);
                let latent = untrack(|| state.latent()).is_some() && autoencoder.is_none();
                let frame = Frame { sigma: 0.0, noisy: guess.clone(), guess, latent };
                let steps = self.asked.with_value(|asked| {
                    asked.orders.last().map_or(0, |(order, ..)| order.settings.steps)
                });
                self.keep(steps, frame);
                state.run.update(|run| {
                    if let Some(run) = run {
                        run.finished = Some((milliseconds, evaluations));
                        run.autoencoder = autoencoder;
                    }
                });
                // After a success, the next lost device has all starts again.
                self.starts.set_value(1);
                let at = self.asked.try_update_value(|asked| {
                    asked.orders.pop();
                    if asked.orders.is_empty() { asked.at } else { None }
                });
                if let Some(at) = at.flatten() {
                    if state.first.read_untracked().is_none() {
                        state.first.set(Some(at.elapsed().as_secs_f64() * 1e3));
                    }
                    state.said.set("The pictures are done.".into());
                    state.doing.set(Doing::Resting);
                } else {
                    state.beside.set(state.run.get_untracked());
                    self.send_order();
                }
            }
            Event::Attended(attended) => {
                let look = attended.look;
                let counts = self.answered(Question::Token(look));
                let row = Attention::new(attended, &bytes).filter(|_| counts);
                if let Some(row) = row {
                    let looks = self.asked.with_value(|asked| asked.looks.clone());
                    state.attention.update(|rows| {
                        rows.insert(look, Arc::new(row));
                        if rows.len() > ROWS {
                            rows.retain(|look, _| looks.wants(&Question::Token(*look)));
                        }
                    });
                }
                self.look_on();
            }
            Event::Surveyed(surveyed) => {
                if self.answered(Question::Blocks(surveyed.scan)) {
                    survey::keep(state, surveyed);
                }
                self.look_on();
            }
            Event::Gone { run } => {
                self.lose(run);
                self.look_on();
            }
            Event::Explored(answer) => self.explored(answer, &bytes),
            // Those are of the worker that trains.
            Event::Learned(_)
            | Event::Sampled { .. }
            | Event::Paused { .. }
            | Event::Weights { .. } => {}
            Event::Cancelled => {
                self.asked.update_value(|asked| asked.orders.clear());
                state.decoding.set(None);
                state.said.set("Cancelled.".into());
                state.doing.set(Doing::Resting);
            }
            Event::TooMuch { message } => {
                self.offer_fewer(&message);
                state.doing.set(Doing::Resting);
            }
            Event::Refused { message } => {
                let name = self.asked.try_update_value(|asked| asked.opening.take()).flatten();
                let name = name.map_or(String::new(), |own| format!("{}: ", own.name()));
                state.trouble.set(Some(format!("{name}{message}")));
                self.go_on();
            }
            Event::Failed { message, fatal: true } => self.restart(message),
            Event::Failed { message, fatal: false } => {
                let generating = self.asked.with_value(|asked| !asked.orders.is_empty());
                if generating && is_shortage(&message) {
                    self.offer_fewer(&message);
                    state.decoding.set(None);
                    state.doing.set(Doing::Resting);
                    return;
                }
                self.asked.update_value(|asked| {
                    if let Some(run) = asked.looks.fail() {
                        state.gone.set(Some(run));
                    }
                    let Asked { weights, autoencoder, run, looks, .. } = std::mem::take(asked);
                    *asked = Asked { weights, autoencoder, run, looks, ..Asked::default() };
                });
                state.decoding.set(None);
                state.trouble.set(Some(message));
                let usable = state.ready.read_untracked().is_some();
                state.doing.set(if usable { Doing::Resting } else { Doing::Broken });
            }
        }
    }

    /// Adapts the scene to the settings and classes of the model, once no file is left to be opened:
    /// one that is named in the address, or one to be opened again after a device was lost.
    pub(super) fn settle(self) {
        let state = self.state;
        let Some(ready) = state.ready.get_untracked() else { return };
        let before = self.settled.get_value();
        let names = ready.card.class_names(ready.classes);
        let begins = opening(&names, &ready.card.class_groups);
        let anew = state.anew.get_untracked();
        match &before {
            None => {
                // Other noise levels than the paper's cannot be kept: the model has its own.
                let other = ready.usual.paper != Usual::default().paper;
                if other || !has_settings(&hash()) {
                    state.scene.update(|scene| scene.fit(&Usual::default(), &ready.usual));
                }
                if anew && !begins.is_empty() {
                    state.scene.update(|scene| scene.open(begins));
                    let scene = state.scene.read_untracked();
                    let Order { noises, settings, .. } = scene.order(ready.classes);
                    let evaluations = settings.method.evaluations(settings.steps);
                    let check = faults().check.unwrap_or(ready.check);
                    let wait = waits(ready.backend, check, noises.len(), evaluations);
                    state.wait.set(wait);
                    state.draws.set(scene.view != View::About && wait.is_none());
                }
            }
            Some(before) if before.sha256 != ready.sha256 => state.scene.update(|scene| {
                let known = before.card.class_names(before.classes);
                let named = !scene.settings.classes.is_empty();
                scene.change_model((&before.usual, &known), (&ready.usual, &names));
                // If there were classes before, or the model before had none, there are some now.
                let none = scene.settings.classes.is_empty() && anew;
                if none && before.classes == 0 {
                    scene.open(begins);
                } else if none && named {
                    scene.settings.classes = begins;
                }
            }),
            Some(_) => {}
        }
        self.settled.set_value(Some(ready));
    }

    /// Takes note of an answer on attention. Returns whether it is about the pictures that are shown.
    fn answered(self, question: Question) -> bool {
        let run = self.state.run.read_untracked().as_ref().map(|run| run.number);
        let answered = self.asked.try_update_value(|asked| asked.looks.answered(&question, run));
        answered == Some(true)
    }

    /// Replaces the previous run when the first pictures of an order arrive.
    fn begin(self) {
        let state = self.state;
        let order = self.asked.with_value(|asked| Some((asked.run, asked.orders.last().cloned()?)));
        let Some((number, (order, _, link))) = order else { return };
        state.attention.update(|rows| rows.clear());
        state.surveyed.update(|rows| rows.clear());
        if state.enlarged.get_untracked().is_some_and(|i| i >= order.noises.len()) {
            state.enlarged.set(None);
        }
        state.at.set(0);
        let (frames, finished, autoencoder) = (Vec::new(), None, None);
        state.run.set(Some(Run { number, order, link, frames, finished, autoencoder }));
    }

    /// Keeps the pictures of a step. Those of a second evaluation in the same step are not kept.
    fn keep(self, step: usize, frame: Frame) {
        let state = self.state;
        // If an earlier frame is selected, it stays selected.
        let follows = state.at.get_untracked() + 1 >= step;
        let kept = state.run.try_update(|run| {
            let run = run.as_mut().filter(|run| run.frames.len() == step);
            run.map(|run| run.frames.push(Arc::new(frame)))
        });
        if follows && kept.flatten().is_some() {
            state.at.set(step);
        }
    }
}
