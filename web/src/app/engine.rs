//! The worker as the page sees it.

use std::sync::Arc;

use leptos::prelude::*;
use model::picture::Rgb;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{ErrorEvent, MessageEvent, Worker};
use web_time::Instant;

use super::state::{Doing, Frame, Run, State};
use crate::adapter::Backend;
use crate::manifest::Entry;
use crate::plot::Maps;
use crate::protocol::{Event, Look, Order, Request, carry};

/// Starts of the worker before the page gives up: a device may be lost, but not each time.
const STARTS: usize = 3;

/// What was asked of the worker and is not done.
#[derive(Clone, Default)]
struct Asked {
    /// What to make, one after the other, with the bytes of guides and the state of the page.
    orders: Vec<(Order, Vec<u8>, String)>,
    at: Option<Instant>,
    /// Steps to look into, the next one last. The one that the worker is at comes first.
    looks: Vec<Look>,
    looking: Option<Look>,
    /// The visitor's own weights, which are asked for, or in use.
    own: Option<(Entry, Vec<u8>)>,
    /// Those in use before, should the others be refused.
    own_before: Option<(Entry, Vec<u8>)>,
}

/// The worker.
#[derive(Clone, Copy)]
pub struct Engine {
    state: State,
    worker: StoredValue<Option<Worker>, LocalStorage>,
    asked: StoredValue<Asked>,
    starts: StoredValue<usize>,
}

impl Engine {
    /// Starts the worker, which at once looks for a device and loads a model.
    pub fn start(state: State) -> Self {
        let engine = Self {
            state,
            worker: StoredValue::new_local(None),
            asked: StoredValue::new(Asked::default()),
            starts: StoredValue::new(0),
        };
        engine.start_worker();
        engine
    }

    fn start_worker(self) {
        let engine = self;
        self.starts.update_value(|starts| *starts += 1);
        let Ok(worker) = Worker::new("./compute.js") else {
            self.broken("This browser does not run workers, which compute the pictures here.");
            return;
        };
        let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            if let Some((event, bytes)) = carry::unpack(message.data()) {
                engine.heard(event, bytes);
            }
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        on_message.forget();
        let on_error = Closure::<dyn Fn(ErrorEvent)>::new(move |event: ErrorEvent| {
            event.prevent_default();
            // A panic has told more already, and started another worker.
            if matches!(*engine.state.doing.read_untracked(), Doing::Starting)
                && engine.starts.get_value() == 1
            {
                engine.broken(
                    "The computing part of this page could not be loaded. Reload the page.",
                );
            }
        });
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        on_error.forget();
        self.worker.set_value(Some(worker));
    }

    /// Makes pictures. Several orders are for comparison: the last one is the one that stays in
    /// the worker's memory.
    pub fn generate(self, orders: Vec<(Order, Vec<u8>, String)>) {
        self.state.trouble.set(None);
        self.state.progress.set(None);
        self.state.beside.set(None);
        self.state.said.set("Making pictures.".into());
        self.asked.update_value(|asked| {
            asked.orders = orders;
            asked.orders.reverse();
            asked.at = Some(Instant::now());
            asked.looks.clear();
        });
        self.send_order();
    }

    /// Sends the order that is next.
    fn send_order(self) {
        let next = self.asked.with_value(|asked| asked.orders.last().cloned());
        let Some((order, bytes, _)) = next else { return };
        self.state.doing.set(Doing::Generating);
        self.send(&Request::Generate(order), Some(&bytes));
    }

    /// Asks to stop. The worker does so after the evaluation that runs.
    pub fn cancel(self) {
        self.state.doing.set(Doing::Cancelling);
        self.asked.update_value(|asked| asked.orders.truncate(1));
        self.send(&Request::Cancel, None);
    }

    /// Looks into the model, unless it is known already what is there. What was asked for before
    /// and has not begun is dropped.
    pub fn look(self, mut looks: Vec<Look>) {
        looks.retain(|look| !self.state.maps.read_untracked().contains_key(look));
        looks.reverse();
        self.asked.update_value(|asked| asked.looks = looks);
        self.look_on();
    }

    fn look_on(self) {
        if *self.state.doing.read_untracked() != Doing::Resting {
            return;
        }
        let next = self.asked.try_update_value(|asked| {
            if asked.looking.is_some() {
                return None;
            }
            asked.looking = asked.looks.pop();
            asked.looking
        });
        if let Some(look) = next.flatten() {
            self.send(&Request::Attend(look), None);
        }
    }

    /// Takes up a weights file.
    pub fn open(self, name: String, bytes: Vec<u8>) {
        self.asked.update_value(|asked| {
            let entry = Entry::new(name, &bytes);
            asked.own_before = asked.own.replace((entry, bytes));
        });
        self.send_own();
    }

    /// Sends the visitor's own weights. Whether there are any that are not in use.
    fn send_own(self) -> bool {
        let in_use = self.state.ready.read_untracked().as_ref().map(|r| r.sha256.clone());
        let own = self.asked.with_value(|asked| asked.own.clone());
        let own = own.filter(|(entry, _)| Some(&entry.sha256) != in_use.as_ref());
        let Some((entry, bytes)) = own else { return false };
        self.state.trouble.set(None);
        self.state.doing.set(Doing::Checking);
        self.send(&Request::Open { name: entry.file }, Some(&bytes));
        true
    }

    /// Uses the model that the scene names, instead of the visitor's own.
    pub fn use_shipped(self) {
        self.asked.update_value(|asked| asked.own = None);
        self.load();
    }

    /// Tries again after everything failed.
    pub fn again(self) {
        if self.worker.with_value(Option::is_some) {
            self.load();
        } else {
            self.starts.set_value(0);
            self.state.trouble.set(None);
            self.state.doing.set(Doing::Starting);
            self.start_worker();
        }
    }

    /// Loads the model that the scene names, once more if need be.
    fn load(self) {
        self.state.trouble.set(None);
        self.state.doing.set(Doing::Starting);
        let location = document().location();
        let query = location.and_then(|location| location.search().ok()).unwrap_or_default();
        let base = document().base_uri().ok().flatten().unwrap_or_default();
        let end = base.find(['?', '#']).unwrap_or(base.len());
        let folder = base[..end].rfind('/').map_or("", |slash| &base[..=slash]);
        let starts = self.starts.get_value();
        let fault = query
            .trim_start_matches('?')
            .split('&')
            .find_map(|pair| pair.strip_prefix("fault=").and_then(|number| number.parse().ok()));
        self.send(
            &Request::Start {
                base: folder.into(),
                model: Some(self.state.scene.read_untracked().model.clone()),
                // Where the graphics processor was lost twice, the processor does it.
                wish: if starts < STARTS { Backend::wish(&query) } else { Some(Backend::Cpu) },
                fault: fault.filter(|_| starts == 1),
            },
            None,
        );
    }

    fn send(self, request: &Request, bytes: Option<&[u8]>) {
        let (message, moved) = carry::pack(request, bytes);
        self.worker.with_value(|worker| {
            if let Some(worker) = worker {
                // It fails only for values that cannot be copied; text and bytes can.
                let _ = worker.post_message_with_transfer(&message, &moved);
            }
        });
    }

    fn broken(self, why: &str) {
        self.state.trouble.set(Some(why.into()));
        self.state.doing.set(Doing::Broken);
    }

    /// Takes bytes apart into pictures.
    fn pictures(self, bytes: &[u8]) -> Vec<Rgb> {
        let size = self.state.ready.read_untracked().as_ref().map(|ready| ready.size);
        let Some([width, height]) = size else { return Vec::new() };
        let pictures = bytes.chunks_exact(3 * width * height);
        pictures.map(|bytes| Rgb { width, height, bytes: bytes.to_vec() }).collect()
    }

    fn heard(self, event: Event, bytes: Vec<u8>) {
        let state = self.state;
        match event {
            Event::Hello => self.load(),
            Event::Chosen { backend, adapter, note } => {
                state.device.set(Some((backend, adapter)));
                // That a device was lost stays to be read.
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
                let before = state.ready.read_untracked().as_ref().map(|r| r.first.clone());
                state.scene.update(|scene| scene.fit(&before.unwrap_or_default(), &ready.first));
                if other {
                    // Pictures of another model cannot be looked into.
                    state.run.set(None);
                    state.maps.update(|maps| maps.clear());
                    state.enlarged.set(None);
                    state.guide.set(None);
                }
                state.ready.set(Some(*ready));
                state.doing.set(Doing::Resting);
                // What a lost device left undone.
                if !self.send_own() {
                    self.send_order();
                }
            }
            Event::Evaluated(evaluated) => {
                let mut noisy = self.pictures(&bytes);
                let guess = noisy.split_off(noisy.len() / 2);
                let frame = Frame { sigma: evaluated.sigma, noisy, guess };
                if evaluated.evaluation == 1 {
                    self.begin();
                }
                self.keep(evaluated.step, frame);
                state.progress.set(Some(evaluated));
            }
            Event::Done { milliseconds, evaluations } => {
                let pictures = self.pictures(&bytes);
                let frame = Frame { sigma: 0.0, noisy: pictures.clone(), guess: pictures };
                let steps = self.asked.with_value(|asked| {
                    asked.orders.last().map_or(0, |(order, ..)| order.settings.steps)
                });
                self.keep(steps, frame);
                state.run.update(|run| {
                    if let Some(run) = run {
                        run.finished = Some((milliseconds, evaluations));
                    }
                });
                // One that got through: the next lost device has all its starts again.
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
                if let Some(maps) = Maps::new(attended, &bytes) {
                    state.maps.update(|maps_of| {
                        maps_of.insert(look, Arc::new(maps));
                    });
                }
                self.asked.update_value(|asked| asked.looking = None);
                self.look_on();
            }
            Event::Cancelled => {
                self.asked.update_value(|asked| asked.orders.clear());
                state.said.set("Cancelled.".into());
                state.doing.set(Doing::Resting);
            }
            Event::Refused { message } => {
                self.asked.update_value(|asked| asked.own = asked.own_before.take());
                state.trouble.set(Some(message));
                state.doing.set(Doing::Resting);
            }
            Event::Failed { message, fatal: true } => self.restart(message),
            Event::Failed { message, fatal: false } => {
                self.asked.update_value(|asked| {
                    *asked = Asked { own: asked.own.take(), ..Asked::default() };
                });
                state.trouble.set(Some(message));
                let usable = state.ready.read_untracked().is_some();
                state.doing.set(if usable { Doing::Resting } else { Doing::Broken });
            }
        }
    }

    /// The first pictures of an order have arrived: they take the place of those before.
    fn begin(self) {
        let state = self.state;
        let order = self.asked.with_value(|asked| asked.orders.last().cloned());
        let Some((order, _, link)) = order else { return };
        state.maps.update(|maps| maps.clear());
        if state.enlarged.get_untracked().is_some_and(|i| i >= order.noises.len()) {
            state.enlarged.set(None);
        }
        state.at.set(0);
        state.run.set(Some(Run { order, link, frames: Vec::new(), finished: None }));
    }

    /// Keeps the pictures of a step. A second evaluation in a step is the sampler's affair.
    fn keep(self, step: usize, frame: Frame) {
        let state = self.state;
        // Whoever looks at an earlier frame is left there.
        let follows = state.at.get_untracked() + 1 >= step;
        let kept = state.run.try_update(|run| {
            let run = run.as_mut().filter(|run| run.frames.len() == step);
            run.map(|run| run.frames.push(Arc::new(frame)))
        });
        if follows && kept.flatten().is_some() {
            state.at.set(step);
        }
    }

    /// Starts another worker after the one before ended, and goes on with what it was doing.
    fn restart(self, message: String) {
        self.worker.update_value(|worker| {
            if let Some(worker) = worker.take() {
                worker.terminate();
            }
        });
        let state = self.state;
        if self.starts.get_value() >= STARTS {
            self.broken(&message);
            return;
        }
        self.asked.update_value(|asked| {
            asked.looking = None;
            asked.looks.clear();
            // The second time, it may be the visitor's weights that end it.
            if self.starts.get_value() > 1 {
                asked.own = None;
            }
        });
        state.note.set(Some(format!("{message} It was started again, and goes on.")));
        state.progress.set(None);
        state.doing.set(Doing::Starting);
        self.start_worker();
    }
}
