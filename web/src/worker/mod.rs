//! The workers: they choose a device, load the model and make pictures; the one for processors also
//! trains.

mod browser;
mod files;
mod pictures;
mod survey;
#[cfg(feature = "learn")]
mod train;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use burn::tensor::{DType, Device};
use model::Model;
use model::config::{ModelConfig, NetworkConfig};
use model::weights::{Answer, Weights};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};
use web_time::Instant;

use crate::adapter::{Backend, Choice, Numbers, choose, numbers};
#[cfg(not(feature = "learn"))]
use crate::lesson::Lesson;
use crate::manifest::{Entry, Manifest};
use crate::memory::Room;
use crate::playground::{Exploration, run};
use crate::protocol::{Block, Event, Ready, Request, Start, Usual, carry};
use crate::testing::Fault;
use browser::{fetch, find_adapter};
use files::Autoencoder;
use pictures::{Made, Maps};

/// An error message for the visitor.
type Trouble = String;

/// Runs the worker.
pub fn start() {
    let started = Instant::now();
    // A panic ends the worker. The page receives its message and starts another worker.
    std::panic::set_hook(Box::new(|info| {
        console_error_panic_hook::hook(info);
        let message = format!("The computation stopped unexpectedly ({info}).");
        post(&Event::Failed { message, fatal: true }, None);
    }));
    let worker = Rc::new(Worker::default());
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
        let data = message.data();
        let file = carry::file(&data);
        let Some((request, bytes)) = carry::unpack::<Request>(data) else { return };
        let worker = worker.clone();
        if request == Request::Cancel {
            worker.cancelled.set(true);
            return;
        }
        spawn_local(async move {
            let Err(message) = worker.answer(request, bytes, file, started).await else { return };
            // The message about a lost device takes the place of those about what failed with it.
            if !browser::is_lost().await {
                post(&Event::Failed { message, fatal: false }, None);
            }
        });
    });
    scope().set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    on_message.forget();
    post(&Event::Hello, None);
}

#[derive(Default)]
struct Worker {
    cancelled: Cell<bool>,
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

/// A model on a device, with the result of its self-check.
struct Built {
    model: Model,
    numbers: Numbers,
    deviation: Result<Option<f32>, Trouble>,
    /// Time of the self-check in milliseconds.
    check: f64,
    note: Option<String>,
}

impl Worker {
    async fn answer(
        &self,
        request: Request,
        bytes: Vec<u8>,
        file: Option<web_sys::Blob>,
        started: Instant,
    ) -> Result<(), Trouble> {
        match request {
            Request::Start(start) => {
                self.fault.set(start.fault);
                self.limit.set(start.memory);
                self.load(start, started).await
            }
            Request::Open { name } => {
                let opened = match file {
                    Some(file) => self.open(name, file).await,
                    None => Err(format!("{name} could not be read.")),
                };
                opened.or_else(refuse)
            }
            Request::Fetch { base, name } => self.fetch(&base, name).await.or_else(refuse),
            Request::Generate { run, order } => self.generate(run, &order, &bytes).await,
            Request::Attend(look) => self.attend(look).await,
            Request::Survey(scan) => self.survey(scan).await,
            Request::Explore(exploration) => {
                self.explore(&exploration).await;
                Ok(())
            }
            Request::Train { lesson, fault } => {
                self.fault.set(fault);
                self.train(lesson, &bytes).await
            }
            Request::GoOn { run, steps } => self.go_on(run, steps).await,
            Request::Weights { run } => self.weights(run).await,
            Request::Cancel => Ok(()),
        }
    }

    async fn load(&self, start: Start, started: Instant) -> Result<(), Trouble> {
        let Start { base, model, wish, plain, .. } = start;
        let found = find_adapter().await;
        let Choice { mut backend, mut note } = choose(wish, &found);
        let halves = !plain && found.as_ref().is_ok_and(|adapter| adapter.halves);
        post(
            &Event::Chosen {
                backend,
                adapter: found.ok().map(|adapter| adapter.name),
                note: note.clone(),
            },
            None,
        );

        let folder = format!("{base}weights/");
        let text = fetch(&format!("{folder}manifest.json"), 0, |_| {}).await?;
        let manifest = Manifest::parse(&String::from_utf8_lossy(&text)).map_err(sentence)?;
        post(&Event::Models(manifest.models.clone()), None);
        // The list is not empty. A model that is not in it any more is replaced by the first.
        let wanted = manifest.models.iter().find(|entry| Some(&entry.file) == model.as_ref());
        let entry = wanted.unwrap_or(&manifest.models[0]);
        let bytes = fetch(&format!("{folder}{}", entry.file), entry.bytes, |loaded| {
            post(&Event::Loading { loaded, total: entry.bytes }, None);
        })
        .await?;
        entry.verify(&bytes).map_err(sentence)?;
        let weights = Weights::parse(&bytes).map_err(sentence)?;

        post(&Event::Checking, None);
        let before = self.loaded.borrow().as_ref().map(|loaded| loaded.place.clone());
        let device = match (backend, before) {
            (Backend::Cpu, _) => Device::flex(),
            // The graphics processor is initialised once.
            (Backend::WebGpu, Some(place)) if place.backend == backend => place.device,
            (Backend::WebGpu, _) => match browser::start_graphics().await {
                Ok(device) => {
                    spawn_local(async {
                        let why = browser::lost().await;
                        let message = format!("The graphics processor was lost ({why}).");
                        post(&Event::Failed { message, fatal: true }, None);
                    });
                    device
                }
                Err(error) => {
                    backend = Backend::Cpu;
                    note = Some(format!(
                        "The graphics processor could not be started ({error}). The pictures are \
                         computed on your processor instead."
                    ));
                    Device::flex()
                }
            },
        };
        let halves = halves && backend == Backend::WebGpu && device.supports_dtype(DType::F16);
        let mut place = Place { device, backend, halves };
        let mut built = build(&weights, &place).await;
        if backend == Backend::WebGpu && !passes(&built.deviation) {
            note = Some(
                "Your graphics processor gives wrong results in the self-check. The pictures are \
                 computed on your processor instead."
                    .into(),
            );
            place = Place { device: Device::flex(), backend: Backend::Cpu, halves: false };
            built = build(&weights, &place).await;
        }
        built.note = note.or(built.note);
        self.take(built, place, &weights, entry, started)
    }

    /// Computes the panels of the playground.
    async fn explore(&self, exploration: &Exploration) {
        let mut references = self.references.take();
        let explored = run::explore(exploration, &mut references).await;
        self.references.replace(references);
        match explored {
            Ok((outcomes, bytes)) => post(&Event::Explored(Ok(outcomes)), Some(&bytes)),
            Err(message) => post(&Event::Explored(Err(message)), None),
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

    /// Replaces the model in use, if the new one passed its self-check.
    fn take(
        &self,
        built: Built,
        place: Place,
        weights: &Weights<'_>,
        entry: &Entry,
        started: Instant,
    ) -> Result<(), Trouble> {
        let Built { model, numbers, deviation, check, note } = built;
        if !passes(&deviation) {
            return Err(match deviation {
                Err(error) => format!("The self-check failed: {error}"),
                _ => "The self-check failed: the results of this browser differ from the model's \
                      known answer, so its pictures would be wrong."
                    .into(),
            });
        }
        weights.intact().map_err(sentence)?;
        let network = &model.network;
        let [channels, height, width] = model.config.image_shape();
        let block = |info: &model::network::BlockInfo| Block {
            part: info.part.into(),
            side: info.side,
            window: info.window,
        };
        let ready = Ready {
            file: entry.file.clone(),
            card: weights.card().clone(),
            sha256: entry.sha256.clone(),
            bytes: entry.bytes,
            parameters: network.parameter_count(),
            macs: network.macs().total(),
            size: [width, height],
            latent: is_latent(&model.config).then_some(channels),
            classes: model.config.classes(),
            usual: Usual::of(&model.config, weights.card()),
            blocks: network.blocks().iter().map(block).collect(),
            deviation: deviation.ok().flatten(),
            backend: place.backend,
            numbers,
            note,
            check,
            milliseconds: milliseconds(started),
            memory: browser::memory(),
        };
        self.loaded.replace(Some(Rc::new(Loaded { model, place, numbers })));
        self.forget();
        post(&Event::Ready(Box::new(ready)), None);
        Ok(())
    }
}

/// The program for graphics processors has no code for training.
#[cfg(not(feature = "learn"))]
impl Worker {
    async fn train(&self, _: Lesson, _: &[u8]) -> Result<(), Trouble> {
        Err("This program does not train.".into())
    }

    async fn go_on(&self, _: u64, _: usize) -> Result<(), Trouble> {
        Err("This program does not train.".into())
    }

    async fn weights(&self, _: u64) -> Result<(), Trouble> {
        Err("This program does not train.".into())
    }
}

/// Reports that a file cannot be used.
fn refuse(message: Trouble) -> Result<(), Trouble> {
    post(&Event::Refused { message }, None);
    Ok(())
}

/// Builds a model on a device and runs its self-check. It computes in 16 bits if the device supports
/// that and the result is accurate enough.
async fn build(weights: &Weights<'_>, place: &Place) -> Built {
    let Place { device, backend, halves } = place;
    let model = Model::from_weights(weights, device);
    let before = Instant::now();
    let deviation = deviation(&model, weights, device).await;
    let check = milliseconds(before);
    let single =
        |model, deviation, note| Built { model, numbers: Numbers::F32, deviation, check, note };
    if !halves || !passes(&deviation) {
        return single(model, deviation, None);
    }
    // A model without a known answer is compared with itself in 32 bits.
    let reference = match weights.answer() {
        Some(answer) => Ok(answer.clone()),
        None => model.answer(device).await,
    };
    let half = model.stored_as(DType::F16).computing_in(DType::F16);
    let missed = match (reference, half.answer(device).await) {
        (Ok(reference), Ok(found)) => Some(reference.deviation(&found)),
        _ => None,
    };
    match numbers(*backend, *halves, missed) {
        Numbers::F16 => {
            Built { model: half, numbers: Numbers::F16, deviation: Ok(missed), check, note: None }
        }
        Numbers::F32 => {
            drop(half);
            let note = "This model is computed in 32-bit numbers: your graphics processor supports 16-bit \
                        numbers, but they are not accurate enough for it.";
            single(Model::from_weights(weights, device), deviation, Some(note.into()))
        }
    }
}

/// Returns whether a model makes latents.
fn is_latent(config: &ModelConfig) -> bool {
    matches!(config.network, NetworkConfig::Latent(_))
}

/// Computes the deviation from the model's known answer; `None` if it has none.
async fn deviation(
    model: &Model,
    weights: &Weights<'_>,
    device: &Device,
) -> Result<Option<f32>, Trouble> {
    let Some(want) = weights.answer() else { return Ok(None) };
    let found = model.answer(device).await.map_err(|error| error.to_string())?;
    Ok(Some(want.deviation(&found)))
}

/// Returns whether the result of a self-check is within the tolerance.
fn passes(deviation: &Result<Option<f32>, Trouble>) -> bool {
    match deviation {
        Ok(Some(deviation)) => *deviation <= Answer::TOLERANCE,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Sends an event to the page.
fn post(event: &Event, bytes: Option<&[u8]>) {
    let (message, moved) = carry::pack(event, bytes);
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
