//! The worker of the page, as it uses it: requests, and the queue of what is not done yet.
//!
//! [`events`] handles what the worker sends, [`explore`] has the requests of the playground, [`recovery`]
//! handles failures of the worker.

mod events;
mod explore;
mod recovery;

use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{ErrorEvent, File, MessageEvent, Worker, WorkerOptions};
use web_time::Instant;

use super::state::{Doing, State};
use crate::adapter::Backend;
use crate::looks::{Looks, Question};
use crate::manifest::named;
use crate::protocol::{Order, Ready, Request, Start, carry};
use crate::testing::{Fault, Faults, MARK};
pub use events::pictures;
use explore::Explorations;

/// Returns the address of the worker's start script, of which the build makes one name for each version.
fn script() -> String {
    let page = document().document_element();
    page.and_then(|page| page.get_attribute("data-compute")).unwrap_or("./compute.js".into())
}

/// Number of times the worker is started before the page gives up: a device can be lost, but not
/// every time.
const STARTS: usize = 3;

/// Requests that are not done yet.
#[derive(Clone, Default)]
struct Asked {
    /// The orders, the next one last, each with the bytes of its guide and the link to the scene.
    orders: Vec<(Order, Vec<u8>, String)>,
    /// The time of the first of these orders.
    at: Option<Instant>,
    /// The number of the run of the last order that was sent.
    run: u64,
    /// The requests for attention.
    looks: Looks,
    /// Files to be opened, the next one first.
    files: Vec<Own>,
    /// The file that the worker is opening.
    opening: Option<Own>,
    /// The visitor's own weights and autoencoder that are in use.
    weights: Option<Own>,
    autoencoder: Option<Own>,
}

/// A file that the visitor opened. Its contents are not in memory.
#[derive(Clone)]
enum Own {
    /// A file of the visitor's machine.
    File(File),
    /// The name of a file in the folder of the shipped weights, given in the page's address.
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
    /// The model that the scene was last adapted to.
    settled: StoredValue<Option<Ready>>,
    /// The number of the worker. Messages of earlier workers are ignored.
    generation: StoredValue<usize>,
    /// The requests of the playground.
    explorations: StoredValue<Explorations>,
}

impl Engine {
    /// Starts the worker, which finds a device and loads a model.
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
            explorations: StoredValue::new(Explorations::default()),
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
        let on_message = move |message: MessageEvent| {
            if let Some((event, bytes)) = carry::unpack(message.data()).filter(|_| current()) {
                engine.heard(event, bytes);
            }
        };
        let on_error = move |event: ErrorEvent| {
            event.prevent_default();
            // After a panic, the message of the panic has started another worker already.
            if !current() {
                return;
            }
            if matches!(*engine.state.doing.read_untracked(), Doing::Starting | Doing::Fetching(..))
            {
                engine.broken("The worker of this page could not be loaded. Reload the page.");
            } else {
                engine.restart(format!("The computation stopped ({}).", event.message()));
            }
        };
        let name = if self.wish() == Some(Backend::Cpu) { "cpu" } else { "" };
        let worker = start_worker(name, on_message, on_error);
        if worker.is_none() {
            self.broken("This browser does not support web workers, which compute the pictures.");
        }
        self.worker.set_value(worker);
    }

    /// Returns the backend that the page's address asks for. After the graphics processor was lost
    /// twice, the processor is used.
    fn wish(self) -> Option<Backend> {
        let starts = self.starts.get_value();
        if starts < STARTS { Backend::wish(&query()) } else { Some(Backend::Cpu) }
    }

    /// Makes the pictures of one order, or of several for a comparison. The worker keeps the steps of
    /// the last one.
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
            asked.looks.forget();
        });
        self.send_order();
    }

    /// Sends the next order.
    fn send_order(self) {
        let next = self.asked.try_update_value(|asked| {
            asked.run += 1;
            asked.orders.last().cloned().map(|order| (asked.run, order))
        });
        let Some((run, (order, bytes, _))) = next.flatten() else { return };
        self.state.doing.set(Doing::Generating);
        self.send(&Request::Generate { run, order }, Some(&bytes));
    }

    /// Cancels the orders. The worker stops after the current evaluation.
    pub fn cancel(self) {
        self.state.doing.set(Doing::Cancelling);
        self.asked.update_value(|asked| asked.orders.truncate(1));
        self.send(&Request::Cancel, None);
    }

    /// Requests attention, unless the page has it already. Earlier requests that were not sent yet
    /// are dropped.
    pub fn ask(self, questions: Vec<Question>) {
        let (rows, surveyed) =
            (self.state.attention.read_untracked(), self.state.surveyed.read_untracked());
        let known = |question: &Question| match question {
            Question::Token(look) => rows.contains_key(look),
            Question::Blocks(scan) => surveyed.contains_key(scan),
        };
        self.asked.update_value(|asked| asked.looks.want(questions, known));
        drop((rows, surveyed));
        self.look_on();
    }

    /// Sends the next request for attention, if the worker is idle.
    fn look_on(self) {
        if *self.state.doing.read_untracked() != Doing::Resting {
            return;
        }
        let next = self.asked.try_update_value(|asked| asked.looks.take_next());
        if let Some(question) = next.flatten() {
            self.send(&question.request(), None);
        }
    }

    /// Opens a file: weights or an autoencoder.
    pub fn open(self, file: File) {
        self.asked.update_value(|asked| asked.files.push(Own::File(file)));
        self.open_next();
    }

    /// Sends the next file to the worker, if it is not opening one. Returns whether a file is being
    /// opened.
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
                        // It fails only for values that cannot be cloned; text and files can.
                        let _ = worker.post_message(&message);
                    }
                });
            }
            Own::Named(_) => self.send(&Request::Fetch { base: folder(), name }, None),
        }
        true
    }

    /// Continues with the queue: files first, since the orders may use them.
    fn go_on(self) {
        self.state.doing.set(Doing::Resting);
        if !self.open_next() {
            self.settle();
            self.send_order();
        }
    }

    /// Selects one of the shipped models.
    pub fn choose(self, file: String) {
        let first = self.state.models.read_untracked().first().is_some_and(|e| e.file == file);
        self.state.scene.update(|scene| scene.model = if first { String::new() } else { file });
        self.use_shipped();
    }

    /// Uses the scene's model instead of the visitor's own.
    fn use_shipped(self) {
        self.asked.update_value(|asked| asked.weights = None);
        self.state.trouble.set(None);
        self.load();
    }

    /// Tries again after a failure.
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

    /// Loads the scene's model.
    fn load(self) {
        self.state.doing.set(Doing::Starting);
        let starts = self.starts.get_value();
        let Faults { fault, memory, .. } = faults();
        // A device is lost once only.
        let fault = fault.filter(|fault| starts == 1 || matches!(fault, Fault::Memory(_)));
        self.send(
            &Request::Start(Start {
                base: folder(),
                model: Some(self.state.scene.read_untracked().model.clone()),
                wish: self.wish(),
                plain: starts > 1,
                fault,
                memory,
            }),
            None,
        );
    }

    fn send(self, request: &Request, bytes: Option<&[u8]>) {
        let (message, moved) = carry::pack(request, bytes);
        self.worker.with_value(|worker| {
            if let Some(worker) = worker {
                // It fails only for values that cannot be cloned; text and bytes can.
                let _ = worker.post_message_with_transfer(&message, &moved);
            }
        });
    }

    /// Reports a failure that the page does not recover from by itself.
    fn broken(self, why: &str) {
        self.state.trouble.set(Some(why.into()));
        self.state.doing.set(Doing::Broken);
    }
}

/// Starts a worker: the one with the program of this name, or of the browser's kind if it is empty.
/// Returns `None` if the browser does not support workers.
pub fn start_worker(
    name: &str,
    on_message: impl Fn(MessageEvent) + 'static,
    on_error: impl Fn(ErrorEvent) + 'static,
) -> Option<Worker> {
    let options = WorkerOptions::new();
    options.set_name(name);
    let worker = Worker::new_with_options(&script(), &options).ok()?;
    let on_message = Closure::<dyn Fn(MessageEvent)>::new(on_message);
    worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    on_message.forget();
    let on_error = Closure::<dyn Fn(ErrorEvent)>::new(on_error);
    worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
    on_error.forget();
    Some(worker)
}

/// Returns the faults that a test injects.
pub fn faults() -> Faults {
    let marked = document().document_element().is_some_and(|html| html.has_attribute(MARK));
    Faults::read(&query(), marked)
}

/// Returns the query of the page's address.
fn query() -> String {
    let location = document().location();
    location.and_then(|location| location.search().ok()).unwrap_or_default()
}

/// Returns the address of the page's folder.
fn folder() -> String {
    let base = document().base_uri().ok().flatten().unwrap_or_default();
    let end = base.find(['?', '#']).unwrap_or(base.len());
    base[..end].rfind('/').map_or("", |slash| &base[..=slash]).into()
}
