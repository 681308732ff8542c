//! The worker as the page sees it.

use std::sync::Arc;

use leptos::prelude::*;
use model::picture::Rgb;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{ErrorEvent, File, MessageEvent, Worker};
use web_time::Instant;

use super::state::{Doing, Frame, Run, State};
use crate::adapter::Backend;
use crate::manifest::named;
use crate::memory::{is_shortage, smaller};
use crate::names::opening;
use crate::plot::Maps;
use crate::protocol::{Event, Fault, Look, Noise, Order, Ready, Request, Start, Usual, carry};
use crate::scene::View;

/// Starts of the worker before the page gives up: a device may be lost, but not each time.
const STARTS: usize = 3;

/// Bytes of attention maps that are kept, besides those that are shown: a map of 1024 tokens with 16
/// heads has 64 MiB.
const MAPS: usize = 256 << 20;

/// What was asked of the worker and is not done.
#[derive(Clone, Default)]
struct Asked {
    /// What to make, one after the other, with the bytes of guides and the state of the page.
    orders: Vec<(Order, Vec<u8>, String)>,
    at: Option<Instant>,
    /// Steps to look into, the next one last. The one that the worker is at comes first.
    looks: Vec<Look>,
    /// All that were asked for last: what else is known may be forgotten.
    wanted: Vec<Look>,
    looking: Option<Look>,
    /// Files that the worker is yet to look at, the next one first.
    files: Vec<Own>,
    /// The file that it looks at.
    opening: Option<Own>,
    /// Weights in use that are the visitor's own, and an autoencoder.
    weights: Option<Own>,
    autoencoder: Option<Own>,
}

/// A file of the visitor's: not what is in it, but where it is, which takes no memory.
#[derive(Clone)]
enum Own {
    /// One that was brought.
    File(File),
    /// One beside the page, which its address names.
    Named(String),
}

impl Own {
    fn name(&self) -> String {
        match self {
            Own::File(file) => file.name(),
            Own::Named(name) => name.clone(),
        }
    }
}

/// The worker.
#[derive(Clone, Copy)]
pub struct Engine {
    state: State,
    worker: StoredValue<Option<Worker>, LocalStorage>,
    asked: StoredValue<Asked, LocalStorage>,
    starts: StoredValue<usize>,
    /// The model that the scene was brought to last.
    settled: StoredValue<Option<Ready>>,
    /// Counts workers: what one that has been replaced still says is not heard.
    generation: StoredValue<usize>,
}

impl Engine {
    /// Starts the worker, which at once looks for a device and loads a model.
    pub fn start(state: State) -> Self {
        let query = query();
        let files = ["weights", "vae"].into_iter().filter_map(|word| named(&query, word));
        let asked = Asked { files: files.map(Own::Named).collect(), ..Asked::default() };
        let engine = Self {
            state,
            worker: StoredValue::new_local(None),
            asked: StoredValue::new_local(asked),
            starts: StoredValue::new(0),
            settled: StoredValue::new(None),
            generation: StoredValue::new(0),
        };
        engine.start_worker();
        engine
    }

    fn start_worker(self) {
        let engine = self;
        self.starts.update_value(|starts| *starts += 1);
        self.generation.update_value(|generation| *generation += 1);
        let generation = self.generation.get_value();
        let current = move || engine.generation.get_value() == generation;
        let Ok(worker) = Worker::new("./compute.js") else {
            self.broken("This browser does not run workers, which compute the pictures here.");
            return;
        };
        let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            if let Some((event, bytes)) = carry::unpack(message.data()).filter(|_| current()) {
                engine.heard(event, bytes);
            }
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        on_message.forget();
        let on_error = Closure::<dyn Fn(ErrorEvent)>::new(move |event: ErrorEvent| {
            event.prevent_default();
            // A panic has told more already, and started another worker.
            if !current() {
                return;
            }
            if matches!(*engine.state.doing.read_untracked(), Doing::Starting) {
                engine.broken(
                    "The computing part of this page could not be loaded. Reload the page.",
                );
            } else {
                engine.restart(format!("The computation stopped ({}).", event.message()));
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
        self.state.decoding.set(None);
        self.state.smaller.set(None);
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
        self.asked.update_value(|asked| asked.wanted = looks.clone());
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

    /// Takes up a file: weights, or an autoencoder.
    pub fn open(self, file: File) {
        self.asked.update_value(|asked| asked.files.push(Own::File(file)));
        self.open_next();
    }

    /// Has the worker look at the next file. Whether there is one.
    fn open_next(self) -> bool {
        let next = self.asked.try_update_value(|asked| {
            if asked.opening.is_some() || asked.files.is_empty() {
                return None;
            }
            asked.opening = Some(asked.files.remove(0));
            asked.opening.clone()
        });
        let Some(next) = next.flatten() else {
            return self.asked.with_value(|asked| asked.opening.is_some());
        };
        self.state.doing.set(Doing::Checking);
        let name = next.name();
        match next {
            Own::File(file) => {
                let message = carry::pack_file(&Request::Open { name }, &file);
                self.worker.with_value(|worker| {
                    if let Some(worker) = worker {
                        // It fails only for values that cannot be copied; text and files can.
                        let _ = worker.post_message(&message);
                    }
                });
            }
            Own::Named(_) => self.send(&Request::Fetch { base: folder(), name }, None),
        }
        true
    }

    /// Goes on with what is left to do: files first, since pictures may be made with them.
    fn go_on(self) {
        self.state.doing.set(Doing::Resting);
        if !self.open_next() {
            self.settle();
            self.send_order();
        }
    }

    /// Uses one of the models beside the page.
    pub fn choose(self, file: String) {
        let first = self.state.models.read_untracked().first().is_some_and(|e| e.file == file);
        self.state.scene.update(|scene| scene.model = if first { String::new() } else { file });
        self.use_shipped();
    }

    /// Uses the model that the scene names, instead of the visitor's own.
    fn use_shipped(self) {
        self.asked.update_value(|asked| asked.weights = None);
        self.state.trouble.set(None);
        self.load();
    }

    /// Tries again after everything failed.
    pub fn again(self) {
        self.state.trouble.set(None);
        if self.worker.with_value(Option::is_some) {
            self.load();
        } else {
            self.starts.set_value(0);
            self.state.doing.set(Doing::Starting);
            self.start_worker();
        }
    }

    /// Loads the model that the scene names, once more if need be.
    fn load(self) {
        self.state.doing.set(Doing::Starting);
        let query = query();
        let starts = self.starts.get_value();
        let fault =
            Fault::wish(&query).filter(|fault| starts == 1 || matches!(fault, Fault::Memory(_)));
        let memory = query.trim_start_matches('?').split('&');
        self.send(
            &Request::Start(Start {
                base: folder(),
                model: Some(self.state.scene.read_untracked().model.clone()),
                // Where the graphics processor was lost twice, the processor does it.
                wish: if starts < STARTS { Backend::wish(&query) } else { Some(Backend::Cpu) },
                plain: starts > 1,
                fault,
                memory: memory.filter_map(|pair| pair.strip_prefix("memory=")?.parse().ok()).next(),
            }),
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
    fn pictures(bytes: &[u8], [width, height]: [usize; 2]) -> Vec<Rgb> {
        if width * height == 0 {
            return Vec::new();
        }
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
                if other {
                    // Pictures of another model cannot be looked into.
                    state.run.set(None);
                    state.maps.update(|maps| maps.clear());
                    state.enlarged.set(None);
                    state.guide.set(None);
                }
                state.ready.set(Some(*ready));
                self.asked.update_value(|asked| {
                    if let Some(own) = asked.opening.take() {
                        asked.weights = Some(own);
                    }
                });
                // What a lost device left undone.
                self.go_on();
            }
            Event::Autoencoder(info) => {
                self.asked.update_value(|asked| asked.autoencoder = asked.opening.take());
                let fits = untrack(|| state.latent()) == Some(info.channels);
                let said = if fits {
                    "The autoencoder is ready: latents become pictures."
                } else {
                    "The autoencoder is ready, and waits for a model that makes latents for it."
                };
                state.said.set(said.into());
                // That a device was lost stays to be read.
                if self.starts.get_value() == 1 {
                    state.note.set(Some(said.into()));
                }
                state.guide.set(None);
                state.autoencoder.set(Some(info));
                self.go_on();
            }
            Event::Evaluated(evaluated) => {
                let size = state.ready.read_untracked().as_ref().map_or([0; 2], |r| r.size);
                let mut noisy = Self::pictures(&bytes, size);
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
            Event::Done { milliseconds, evaluations, size, autoencoder } => {
                state.decoding.set(None);
                let pictures = Self::pictures(&bytes, size);
                let latent = untrack(|| state.latent()).is_some() && autoencoder.is_none();
                let frame = Frame { sigma: 0.0, noisy: pictures.clone(), guess: pictures, latent };
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
                    let wanted = self.asked.with_value(|asked| asked.wanted.clone());
                    state.maps.update(|maps_of| {
                        maps_of.insert(look, Arc::new(maps));
                        if maps_of.values().map(|maps| maps.bytes()).sum::<usize>() > MAPS {
                            maps_of.retain(|look, _| wanted.contains(look));
                        }
                    });
                }
                self.asked.update_value(|asked| asked.looking = None);
                self.look_on();
            }
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
                    let Asked { weights, autoencoder, .. } = std::mem::take(asked);
                    *asked = Asked { weights, autoencoder, ..Asked::default() };
                });
                state.decoding.set(None);
                state.trouble.set(Some(message));
                let usable = state.ready.read_untracked().is_some();
                state.doing.set(if usable { Doing::Resting } else { Doing::Broken });
            }
        }
    }

    /// Brings the scene to what the model begins with and has names for, once no other is to come:
    /// a file that the address names, or that a lost device took along.
    fn settle(self) {
        let state = self.state;
        let Some(ready) = state.ready.get_untracked() else { return };
        let before = self.settled.get_value();
        let names = ready.card.class_names(ready.classes);
        let begins = opening(&names, &ready.card.class_groups);
        let anew = state.anew.get_untracked();
        match &before {
            None => state.scene.update(|scene| {
                scene.fit(&Usual::default(), &ready.usual);
                if anew && !begins.is_empty() {
                    state.draws.set(scene.view != View::About);
                    scene.open(begins);
                }
            }),
            Some(before) if before.sha256 != ready.sha256 => state.scene.update(|scene| {
                let known = before.card.class_names(before.classes);
                let named = !scene.settings.classes.is_empty();
                scene.change_model((&before.usual, &known), (&ready.usual, &names));
                // Whoever had names, or could have none, goes on with some.
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
        let (frames, finished, autoencoder) = (Vec::new(), None, None);
        state.run.set(Some(Run { order, link, frames, finished, autoencoder }));
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

    /// Says that memory does not suffice for what was asked for, and offers fewer pictures.
    fn offer_fewer(self, why: &str) {
        let state = self.state;
        let order = self.asked.try_update_value(|asked| std::mem::take(&mut asked.orders).pop());
        let Some((order, ..)) = order.flatten() else { return };
        let count = order.noises.len();
        let of_seeds = order.noises.iter().all(|noise| matches!(noise, Noise::Seed(_)));
        let fewer = smaller(count);
        let what = match count {
            1 => "There is not enough memory for a picture of this model.".into(),
            _ if of_seeds => format!("There is not enough memory for {count} pictures at a time."),
            _ => format!(
                "There is not enough memory for these {count} pictures. In the view Form, fewer can \
                 be made."
            ),
        };
        state.trouble.set(Some(format!("{what} {why}")));
        state.smaller.set(fewer.filter(|_| of_seeds));
    }

    /// Starts another worker after the one before ended, and goes on with what it was doing, unless
    /// that took too much memory.
    fn restart(self, message: String) {
        self.worker.update_value(|worker| {
            if let Some(worker) = worker.take() {
                worker.terminate();
            }
        });
        let state = self.state;
        let (short, opening) =
            (is_shortage(&message), self.asked.with_value(|a| a.opening.clone()));
        let busy = self.asked.with_value(|asked| !asked.orders.is_empty());
        if let Some(own) = opening.filter(|_| short) {
            let name = own.name();
            state.trouble.set(Some(format!("{name} takes more memory than there is here.")));
            self.asked.update_value(|asked| asked.opening = None);
            self.starts.set_value(0);
        } else if short && busy {
            self.offer_fewer(&message);
            self.starts.set_value(0);
        }
        if self.starts.get_value() >= STARTS {
            self.broken(&message);
            return;
        }
        self.asked.update_value(|asked| {
            asked.looking = None;
            asked.looks.clear();
            // All files once more: first the weights, then what was to be opened after them. The
            // second time, it may be one of them that ends it.
            let files = std::mem::take(&mut asked.files);
            let again = [asked.weights.take(), asked.autoencoder.take(), asked.opening.take()];
            if self.starts.get_value() <= 1 {
                asked.files = again.into_iter().flatten().chain(files).collect();
            }
        });
        state.autoencoder.set(None);
        let goes_on =
            if short { "It was started again." } else { "It was started again, and goes on." };
        state.note.set(Some(format!("{message} {goes_on}")));
        state.progress.set(None);
        state.decoding.set(None);
        state.doing.set(Doing::Starting);
        self.start_worker();
    }
}

/// The query of the page's address.
fn query() -> String {
    let location = document().location();
    location.and_then(|location| location.search().ok()).unwrap_or_default()
}

/// The address of the page's folder.
fn folder() -> String {
    let base = document().base_uri().ok().flatten().unwrap_or_default();
    let end = base.find(['?', '#']).unwrap_or(base.len());
    base[..end].rfind('/').map_or("", |slash| &base[..=slash]).into()
}
