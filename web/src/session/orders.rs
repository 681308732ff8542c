//! Making pictures.

use super::task::Task;
use super::{Attached, Effect, Frame, Run, Session, Show, pictures};
use crate::memory::{is_shortage, smaller};
use crate::protocol::{Evaluated, Event, Noise, Order, Request};

/// An order for pictures, as the page wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The order.
    pub order: Order,
    /// The bytes of its guide.
    pub bytes: Vec<u8>,
    /// The link to the scene.
    pub link: String,
}

impl Session {
    /// Makes the pictures of these orders, one after the other, if the worker is idle.
    pub(super) fn generate(&mut self, mut orders: Vec<Wanted>) {
        if self.task != Task::Resting || orders.is_empty() {
            return;
        }
        self.change_over();
        self.show(Show::Trouble(None));
        self.show(Show::Progress(None));
        self.show(Show::Decoding(None));
        self.show(Show::Smaller(None));
        self.show(Show::NothingBeside);
        self.show(Show::Said("Making pictures.".into()));
        self.looks.forget();
        orders.reverse();
        self.orders = orders;
        self.send_order();
    }

    /// Sends the next order.
    pub(super) fn send_order(&mut self) {
        let Some(Wanted { order, bytes, .. }) = self.orders.last().cloned() else { return };
        let number = self.post(Request::Generate(order), Attached::Bytes(bytes));
        self.task = Task::Drawing { number, begun: false, cancelled: false };
    }

    /// Stops what the worker does, if it makes pictures or opens a file, and drops the queue.
    pub(super) fn cancel(&mut self) {
        let number = match &mut self.task {
            Task::Drawing { number, cancelled, .. } if !*cancelled => {
                *cancelled = true;
                let number = *number;
                // The one that the worker is at ends the cancellation.
                let current = self.orders.pop();
                self.orders = current.into_iter().collect();
                number
            }
            Task::Opening { number, cancelled, .. } if !*cancelled => {
                *cancelled = true;
                let number = *number;
                self.orders.clear();
                self.files.forget_next();
                number
            }
            _ => return,
        };
        let message = crate::protocol::Message { number, request: Request::Cancel };
        let worker = self.worker.unwrap_or_default();
        self.effects.push(Effect::Post { worker, message, attached: Attached::Nothing });
    }

    /// Takes note of a message about the order that was sent.
    pub(super) fn draws(&mut self, event: Event, bytes: &[u8]) {
        let Task::Drawing { cancelled, .. } = self.task else { return };
        match event {
            // What was on its way when the order was cancelled.
            Event::Evaluated(_) | Event::Decoding(_) if cancelled => {}
            Event::Evaluated(evaluated) => self.evaluated(evaluated, bytes),
            Event::Decoding(decoding) => self.show(Show::Decoding(Some(decoding))),
            Event::Done { .. } | Event::Cancelled if cancelled => self.cancelled(),
            Event::Done { milliseconds, evaluations, size, autoencoder, work } => {
                self.show(Show::Work(work));
                self.show(Show::Decoding(None));
                self.begin();
                let guess = pictures(bytes, size);
                let latent = self.makes_latents() && autoencoder.is_none();
                let frame = Frame { sigma: 0.0, noisy: guess.clone(), guess, latent };
                let steps = self.orders.last().map_or(0, |wanted| wanted.order.settings.steps);
                self.keep(steps, frame);
                self.orders.pop();
                // After a success, the next lost device has all starts again.
                self.starts = 1;
                self.files.succeed();
                let last = self.orders.is_empty();
                if let Some((run, _)) = self.shown {
                    self.effects.push(Effect::Finish {
                        run,
                        milliseconds,
                        evaluations,
                        autoencoder,
                        last,
                    });
                }
                if last {
                    self.show(Show::Said("The pictures are done.".into()));
                    self.go_on();
                } else {
                    self.send_order();
                }
            }
            // The page did not ask for it; there is nothing to wait for.
            Event::Cancelled => self.cancelled(),
            Event::TooMuch { message } => {
                self.offer_fewer(&message);
                self.go_on();
            }
            Event::Failed { message, .. } => {
                self.show(Show::Decoding(None));
                if is_shortage(&message) {
                    self.offer_fewer(&message);
                } else {
                    self.orders.clear();
                    self.show(Show::Trouble(Some(message)));
                }
                self.go_on();
            }
            _ => {}
        }
    }

    /// Takes note of an evaluation.
    fn evaluated(&mut self, evaluated: Evaluated, bytes: &[u8]) {
        self.begin();
        let size = self.model.as_ref().map_or([0; 2], |model| model.size);
        let mut noisy = pictures(bytes, size);
        let guess = noisy.split_off(noisy.len() / 2);
        let frame = Frame { sigma: evaluated.sigma, noisy, guess, latent: self.makes_latents() };
        self.keep(evaluated.step, frame);
        self.show(Show::Progress(Some(evaluated)));
    }

    /// Replaces the previous run when the first pictures of an order arrive.
    fn begin(&mut self) {
        let Task::Drawing { number, begun, .. } = &mut self.task else { return };
        let Some(Wanted { order, link, .. }) = self.orders.last().cloned() else { return };
        if std::mem::replace(begun, true) {
            return;
        }
        let number = *number;
        self.shown = Some((number, 0));
        self.looks.forget_all();
        let (frames, finished, autoencoder) = (Vec::new(), None, None);
        self.effects.push(Effect::Begin(Run {
            number,
            order,
            link,
            frames,
            finished,
            autoencoder,
        }));
    }

    /// Keeps the pictures of a step. Those of a second evaluation in the same step are not kept.
    fn keep(&mut self, step: usize, frame: Frame) {
        if let Some((run, frames)) = self.shown.as_mut().filter(|(_, frames)| *frames == step) {
            *frames += 1;
            let run = *run;
            self.effects.push(Effect::Frame { run, step, frame });
        }
    }

    /// Goes on after a cancellation.
    fn cancelled(&mut self) {
        self.orders.clear();
        self.show(Show::Decoding(None));
        self.show(Show::Said("Cancelled.".into()));
        self.go_on();
    }

    /// Reports that there is not enough memory for the orders, drops them, and offers fewer pictures.
    pub(super) fn offer_fewer(&mut self, why: &str) {
        let Some(Wanted { order, .. }) = std::mem::take(&mut self.orders).pop() else { return };
        let count = order.noises.len();
        let of_seeds = order.noises.iter().all(|noise| matches!(noise, Noise::Seed(_)));
        let what = match count {
            1 => "There is not enough memory for a picture of this model.".into(),
            _ if of_seeds => format!("There is not enough memory for {count} pictures at a time."),
            _ => format!(
                "There is not enough memory for these {count} pictures. In the view \"Generate\", you can \
                 make fewer."
            ),
        };
        self.show(Show::Trouble(Some(format!("{what} {why}"))));
        self.show(Show::Smaller(smaller(count).filter(|_| of_seeds)));
    }

    /// Returns whether the model makes latents.
    fn makes_latents(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.latent.is_some())
    }
}
