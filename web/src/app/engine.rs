//! The worker as the page sees it.

use js_sys::{Array, Uint8Array};
use leptos::prelude::*;
use model::generate::Settings;
use model::picture::{Origin, Rgb};
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{ErrorEvent, MessageEvent, Worker};
use web_time::Instant;

use super::{Doing, Finished, Frame, State};
use crate::adapter::Backend;
use crate::protocol::{Event, Request};

/// What was asked of the worker last.
#[derive(Clone)]
struct Asked {
    seeds: Vec<u64>,
    settings: Settings,
    at: Instant,
}

/// The worker.
#[derive(Clone, Copy)]
pub struct Engine {
    state: State,
    worker: StoredValue<Option<Worker>, LocalStorage>,
    asked: StoredValue<Option<Asked>>,
}

impl Engine {
    /// Starts the worker, which at once looks for a device and loads a model.
    pub fn start(state: State) -> Self {
        let engine =
            Self { state, worker: StoredValue::new_local(None), asked: StoredValue::new(None) };
        let Ok(worker) = Worker::new("./worker_loader.js") else {
            engine.broken("This browser does not run workers, which compute the pictures here.");
            return engine;
        };
        let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |message: MessageEvent| {
            let parts: Array = message.data().unchecked_into();
            let event = parts.get(0).as_string().and_then(|text| serde_json::from_str(&text).ok());
            let bytes = parts.get(1).dyn_into::<Uint8Array>().ok().map(|bytes| bytes.to_vec());
            if let Some(event) = event {
                engine.heard(event, bytes);
            }
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        on_message.forget();
        let on_error = Closure::<dyn Fn(ErrorEvent)>::new(move |_: ErrorEvent| {
            // A panic has told more already.
            if *engine.state.doing.read_untracked() != Doing::Broken {
                engine.broken(
                    "The computing part of this page could not be loaded. Reload the page.",
                );
            }
        });
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        on_error.forget();
        engine.worker.set_value(Some(worker));
        engine
    }

    /// Asks for pictures.
    pub fn generate(self, seeds: Vec<u64>, settings: Settings) {
        self.state.trouble.set(None);
        self.state.progress.set(None);
        self.state.finished.set(None);
        self.state.doing.set(Doing::Generating);
        let asked = Asked { seeds: seeds.clone(), settings: settings.clone(), at: Instant::now() };
        self.asked.set_value(Some(asked));
        self.send(&Request::Generate { seeds, settings });
    }

    /// Asks to stop. The worker does so after the evaluation that runs.
    pub fn cancel(self) {
        self.state.doing.set(Doing::Cancelling);
        self.send(&Request::Cancel);
    }

    /// Loads the model, once more if need be.
    pub fn load(self) {
        self.state.trouble.set(None);
        self.state.doing.set(Doing::Starting);
        let location = document().location();
        let query = location.and_then(|location| location.search().ok()).unwrap_or_default();
        let base = document().base_uri().ok().flatten().unwrap_or_default();
        let end = base.find(['?', '#']).unwrap_or(base.len());
        let folder = base[..end].rfind('/').map_or("", |slash| &base[..=slash]);
        self.send(&Request::Start { base: folder.into(), wish: Backend::wish(&query) });
    }

    fn send(self, request: &Request) {
        let text = serde_json::to_string(request).expect("requests are plain data");
        self.worker.with_value(|worker| {
            if let Some(worker) = worker {
                // It fails only for values that cannot be copied; text can.
                let _ = worker.post_message(&text.into());
            }
        });
    }

    fn broken(self, why: &str) {
        self.state.trouble.set(Some(why.into()));
        self.state.doing.set(Doing::Broken);
    }

    fn heard(self, event: Event, bytes: Option<Vec<u8>>) {
        let state = self.state;
        let frame = |[width, height]: [usize; 2]| {
            let rgba = bytes.unwrap_or_default();
            (rgba.len() == 4 * width * height).then_some(Frame { width, height, rgba })
        };
        match event {
            Event::Hello => self.load(),
            Event::Chosen { backend, adapter, note } => {
                state.device.set(Some((backend, adapter)));
                state.note.set(note);
            }
            Event::Loading { loaded, total } => state.doing.set(Doing::Loading(loaded, total)),
            Event::Checking => state.doing.set(Doing::Checking),
            Event::Ready(ready) => {
                let adapter = state.device.get_untracked().and_then(|(_, adapter)| adapter);
                state.device.set(Some((ready.backend, adapter)));
                state.note.set(ready.note.clone());
                state.ready.set(Some(*ready));
                state.doing.set(Doing::Resting);
            }
            Event::Evaluated(evaluated) => {
                state.frame.set(frame(evaluated.size));
                state.progress.set(Some(evaluated));
            }
            Event::Done { size, milliseconds, evaluations } => {
                let frame = frame(size);
                if let (Some(frame), Some(asked), Some(ready)) =
                    (&frame, self.asked.get_value(), state.ready.get_untracked())
                {
                    let rgb = frame.rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]);
                    let grid =
                        Rgb { width: frame.width, height: frame.height, bytes: rgb.collect() };
                    let origin = Origin {
                        model: ready.card.name,
                        weights_sha256: ready.sha256,
                        seeds: asked.seeds,
                        settings: asked.settings,
                    };
                    state.finished.set(Some(Finished { grid, origin, milliseconds, evaluations }));
                    if state.first.get_untracked().is_none() {
                        state.first.set(Some(asked.at.elapsed().as_secs_f64() * 1e3));
                    }
                }
                state.frame.set(frame);
                state.doing.set(Doing::Resting);
            }
            Event::Cancelled => state.doing.set(Doing::Resting),
            Event::Failed { message, fatal } => {
                state.trouble.set(Some(message));
                let usable = !fatal && state.ready.read_untracked().is_some();
                state.doing.set(if usable { Doing::Resting } else { Doing::Broken });
            }
        }
    }
}
