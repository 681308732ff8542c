//! The workers: they choose a device, load the model and make pictures; the one for processors also
//! trains.

mod attention;
mod browser;
mod build;
mod files;
mod load;
mod pictures;
mod survey;
#[cfg(feature = "learn")]
mod train;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use burn::tensor::Device;
use model::Model;
use model::config::{ModelConfig, NetworkConfig};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};
use web_time::Instant;

use crate::adapter::{Backend, Numbers};
#[cfg(not(feature = "learn"))]
use crate::lesson::Lesson;
use crate::memory::Room;
use crate::playground::{Exploration, run};
use crate::protocol::{Event, Message, Report, Request, VERSION, carry};
use crate::testing::Fault;
use attention::{Made, Maps};
use files::{Autoencoder, Stop};

/// An error message for the visitor.
type Trouble = String;

/// Runs the worker.
pub fn start() {
    let started = Instant::now();
    // A panic ends the worker. The page receives its message and starts another worker.
    std::panic::set_hook(Box::new(|info| {
        console_error_panic_hook::hook(info);
        let message = format!("The computation stopped unexpectedly ({info}).");
        say(&Event::Failed { message, fatal: true });
    }));
    let worker = Rc::new(Worker::default());
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
        let data = message.data();
        let file = carry::file(&data);
        let Some((message, bytes)) = carry::unpack::<Message>(data) else { return };
        let Message { number, request } = message;
        let worker = worker.clone();
        if request == Request::Cancel {
            worker.cancelled.set(number);
            return;
        }
        spawn_local(async move {
            let reply = Reply { number };
            let answered = worker.answer(reply, request, bytes, file, started).await;
            let Err(message) = answered else { return };
            // The message about a lost device takes the place of those about what failed with it.
            if !browser::is_lost().await {
                reply.post(&Event::Failed { message, fatal: false }, None);
            }
        });
    });
    scope().set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    on_message.forget();
    say(&Event::Hello { version: VERSION.into() });
}

/// The way back from a request: all events about it carry its number.
#[derive(Clone, Copy)]
struct Reply {
    number: u64,
}

impl Reply {
    /// Sends an event to the page.
    fn post(self, event: &Event, bytes: Option<&[u8]>) {
        post(&Report { answers: Some(self.number), event }, bytes);
    }

    /// Sends the reason why a file was not opened, if it was not.
    fn ends_opening(self, opened: Result<(), Stop>) {
        match opened {
            Ok(()) => {}
            Err(Stop::Cancelled) => self.post(&Event::Cancelled, None),
            Err(Stop::Trouble(message)) => self.post(&Event::Refused { message }, None),
        }
    }
}

#[derive(Default)]
struct Worker {
    /// The number of the last request that was cancelled.
    cancelled: Cell<u64>,
    /// The fault that a test injects.
    fault: Cell<Option<Fault>>,
    /// The memory limit of a test, in bytes.
    limit: Cell<Option<u64>>,
    loaded: RefCell<Option<Rc<Loaded>>>,
    autoencoder: RefCell<Option<Rc<Autoencoder>>>,
    /// The steps of the last run, for attention maps.
    made: RefCell<Made>,
    /// Attention maps of these steps, the last used one last.
    maps: RefCell<Vec<Maps>>,
    /// Exact end points of the playground.
    references: RefCell<Vec<run::Reference>>,
    /// The training run.
    #[cfg(feature = "learn")]
    pupil: RefCell<Option<train::Pupil>>,
}

/// The model in use.
struct Loaded {
    model: Model,
    place: Place,
    numbers: Numbers,
}

/// The device that the model runs on.
#[derive(Clone)]
struct Place {
    device: Device,
    backend: Backend,
    /// Whether the device supports 16-bit numbers and they may be tried.
    halves: bool,
}

impl Worker {
    /// Returns whether a request was cancelled.
    fn is_cancelled(&self, reply: Reply) -> bool {
        self.cancelled.get() == reply.number
    }

    async fn answer(
        &self,
        reply: Reply,
        request: Request,
        bytes: Vec<u8>,
        file: Option<web_sys::Blob>,
        started: Instant,
    ) -> Result<(), Trouble> {
        match request {
            Request::Start(start) => {
                self.fault.set(start.fault);
                self.limit.set(start.memory);
                self.load(reply, start, started).await
            }
            Request::Open { name } => {
                let opened = match file {
                    Some(file) => self.open(reply, name, file).await,
                    None => Err(Trouble::from("It could not be read.").into()),
                };
                reply.ends_opening(opened);
                Ok(())
            }
            Request::Fetch { base, name } => {
                let opened = self.fetch(reply, &base, name).await;
                reply.ends_opening(opened);
                Ok(())
            }
            Request::Generate(order) => self.generate(reply, &order, &bytes).await,
            Request::Attend(look) => self.attend(reply, look).await,
            Request::Survey(scan) => self.survey(reply, scan).await,
            Request::Explore(exploration) => {
                self.explore(reply, &exploration).await;
                Ok(())
            }
            Request::Train { lesson, fault } => {
                self.fault.set(fault);
                self.train(reply, lesson, &bytes).await
            }
            Request::GoOn { run, steps } => self.go_on(reply, run, steps).await,
            Request::Weights { run } => self.weights(reply, run).await,
            Request::Cancel => Ok(()),
        }
    }

    /// Computes the panels of the playground.
    async fn explore(&self, reply: Reply, exploration: &Exploration) {
        let mut references = self.references.take();
        let explored = run::explore(exploration, &mut references).await;
        self.references.replace(references);
        match explored {
            Ok((outcomes, bytes)) => reply.post(&Event::Explored(Ok(outcomes)), Some(&bytes)),
            Err(message) => reply.post(&Event::Explored(Err(message)), None),
        }
    }

    /// Returns the memory of a device, as far as it is known.
    fn room(&self, place: &Place) -> Room {
        let room = match place.backend {
            Backend::Cpu => Room::of_processor(browser::machine_memory()),
            Backend::WebGpu => Room::of_graphics(browser::largest_piece()),
        };
        Room { total: self.limit.get().or(room.total), ..room }
    }
}

/// The program for graphics processors has no code for training.
#[cfg(not(feature = "learn"))]
impl Worker {
    async fn train(&self, _: Reply, _: Lesson, _: &[u8]) -> Result<(), Trouble> {
        Err("This program does not train.".into())
    }

    async fn go_on(&self, _: Reply, _: u64, _: usize) -> Result<(), Trouble> {
        Err("This program does not train.".into())
    }

    async fn weights(&self, _: Reply, _: u64) -> Result<(), Trouble> {
        Err("This program does not train.".into())
    }
}

/// Returns whether a model makes latents.
fn is_latent(config: &ModelConfig) -> bool {
    matches!(config.network, NetworkConfig::Latent(_))
}

/// Sends an event to the page that answers no request.
fn say(event: &Event) {
    post(&Report { answers: None, event }, None);
}

fn post(report: &Report<&Event>, bytes: Option<&[u8]>) {
    let (message, moved) = carry::pack(report, bytes);
    // It fails only if the page is closed.
    let _ = scope().post_message_with_transfer(&message, &moved);
}

fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Formats an error as a sentence.
fn sentence(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}
