//! The worker: finds a device, loads a model, makes pictures.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use burn::tensor::{Device, Tensor};
use futures::StreamExt;
use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use model::Model;
use model::generate::{Settings, generate};
use model::picture::Rgb;
use model::weights::{Answer, Weights};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent, Response};
use web_time::Instant;

use crate::adapter::{Adapter, Backend, Choice, choose, is_software};
use crate::manifest::Manifest;
use crate::protocol::{Evaluated, Event, Ready, Request};

/// A sentence for the visitor.
type Trouble = String;

/// Runs the worker.
pub fn start() {
    let started = Instant::now();
    // A panic ends the worker: the page is told, with what went wrong.
    std::panic::set_hook(Box::new(|info| {
        console_error_panic_hook::hook(info);
        let message = format!("The computation stopped unexpectedly ({info}). Reload the page.");
        post(&Event::Failed { message, fatal: true }, None);
    }));
    let worker = Rc::new(Worker::default());
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
        let Some(text) = message.data().as_string() else { return };
        let Ok(request) = serde_json::from_str::<Request>(&text) else { return };
        let worker = worker.clone();
        match request {
            Request::Cancel => worker.cancelled.set(true),
            Request::Start { base, wish } => spawn_local(async move {
                if let Err(message) = worker.load(&base, wish, started).await {
                    post(&Event::Failed { message, fatal: false }, None);
                }
            }),
            Request::Generate { seeds, settings } => spawn_local(async move {
                if let Err(message) = worker.generate(&seeds, &settings).await {
                    post(&Event::Failed { message, fatal: false }, None);
                }
            }),
        }
    });
    scope().set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    on_message.forget();
    post(&Event::Hello, None);
}

#[derive(Default)]
struct Worker {
    cancelled: Cell<bool>,
    loaded: RefCell<Option<Rc<Loaded>>>,
}

struct Loaded {
    model: Model,
    device: Device,
    backend: Backend,
}

impl Worker {
    async fn load(
        &self,
        base: &str,
        wish: Option<Backend>,
        started: Instant,
    ) -> Result<(), Trouble> {
        let found = find_adapter().await;
        let Choice { mut backend, mut note } = choose(wish, &found);
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
        let manifest = Manifest::parse(&String::from_utf8_lossy(&text))
            .map_err(|e| sentence(&e.to_string()))?;
        let entry = &manifest.models[0];
        let bytes = fetch(&format!("{folder}{}", entry.file), entry.bytes, |loaded| {
            post(&Event::Loading { loaded, total: entry.bytes }, None);
        })
        .await?;
        entry.verify(&bytes).map_err(|e| sentence(&e.to_string()))?;
        let weights = Weights::parse(&bytes).map_err(|e| sentence(&e.to_string()))?;

        post(&Event::Checking, None);
        let mut device = match backend {
            Backend::Cpu => Device::flex(),
            Backend::WebGpu => match Device::wgpu_options().init_async().await {
                Ok(device) => device,
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
        let mut model = Model::from_weights(&weights, &device);
        let mut deviation = deviation(&model, &weights, &device).await;
        if backend == Backend::WebGpu && !passes(&deviation) {
            backend = Backend::Cpu;
            note = Some(
                "Your graphics processor gives wrong results in the self-check. The pictures are \
                 computed on your processor instead."
                    .into(),
            );
            device = Device::flex();
            model = Model::from_weights(&weights, &device);
            deviation = self::deviation(&model, &weights, &device).await;
        }
        if !passes(&deviation) {
            return Err(match deviation {
                Err(error) => format!("The self-check failed: {error}"),
                _ => "The self-check failed: this browser computes something else than the \
                      model's author did. Nothing it draws could be trusted."
                    .into(),
            });
        }
        let ready = Ready {
            card: weights.card().clone(),
            sha256: entry.sha256.clone(),
            bytes: entry.bytes,
            parameters: weights.specs().iter().map(|spec| spec.len()).sum(),
            macs: model.network.macs().total(),
            deviation: deviation.ok().flatten(),
            backend,
            note,
            milliseconds: milliseconds(started),
        };
        self.loaded.replace(Some(Rc::new(Loaded { model, device, backend })));
        post(&Event::Ready(Box::new(ready)), None);
        Ok(())
    }

    async fn generate(&self, seeds: &[u64], settings: &Settings) -> Result<(), Trouble> {
        let Some(loaded) = self.loaded.borrow().clone() else {
            return Err("No model is loaded yet.".into());
        };
        settings.validate().map_err(|e| sentence(&e.to_string()))?;
        if seeds.is_empty() || seeds.len() > MOST_PICTURES {
            return Err(format!("1 to {MOST_PICTURES} pictures can be made at a time."));
        }
        self.cancelled.set(false);
        let started = Instant::now();
        let mut before = started;
        let shape = loaded.model.config.image_shape();
        let on_step =
            async |e: model::sampler::Evaluation<'_>| -> Result<ControlFlow<()>, Trouble> {
                // Reading the picture back waits for the evaluation, and lets messages in.
                let grid = grid(e.denoised, shape).await?;
                if loaded.backend == Backend::Cpu {
                    gloo_timers::future::TimeoutFuture::new(0).await;
                }
                if self.cancelled.get() {
                    return Ok(ControlFlow::Break(()));
                }
                let evaluated = Evaluated {
                    step: e.step,
                    steps: e.steps,
                    evaluation: e.evaluation,
                    evaluations: e.evaluations,
                    sigma: e.sigma,
                    milliseconds: milliseconds(before),
                    size: [grid.width, grid.height],
                };
                before = Instant::now();
                post(&Event::Evaluated(evaluated), Some(&grid.bytes));
                Ok(ControlFlow::Continue(()))
            };
        let pictures = generate(&loaded.model, settings, seeds, &loaded.device, on_step).await?;
        match pictures {
            None => post(&Event::Cancelled, None),
            Some(pictures) => {
                let grid = grid(&pictures, shape).await?;
                let done = Event::Done {
                    size: [grid.width, grid.height],
                    milliseconds: milliseconds(started),
                    evaluations: settings.method.evaluations(settings.steps),
                };
                post(&done, Some(&grid.bytes));
            }
        }
        Ok(())
    }
}

/// Pictures at a time: more could exceed what a browser lets one buffer hold.
const MOST_PICTURES: usize = 64;

/// A batch of pictures as one.
async fn grid(pictures: &Tensor<4>, shape: [usize; 3]) -> Result<Rgb, Trouble> {
    let data = pictures.clone().into_data_async().await;
    let data = data.map_err(|error| format!("The device failed: {error}"))?;
    let values =
        data.try_into_vec::<f32>().map_err(|error| format!("The device failed: {error}"))?;
    let pictures = Rgb::from_values(&values, shape);
    Ok(Rgb::grid(&pictures, Rgb::square(pictures.len())))
}

/// By how much the model's known answer is missed; `None` if it has none.
async fn deviation(
    model: &Model,
    weights: &Weights<'_>,
    device: &Device,
) -> Result<Option<f32>, Trouble> {
    let Some(want) = weights.answer() else { return Ok(None) };
    let found = model.answer(device).await.map_err(|error| error.to_string())?;
    Ok(Some(want.deviation(&found)))
}

fn passes(deviation: &Result<Option<f32>, Trouble>) -> bool {
    match deviation {
        Ok(Some(deviation)) => *deviation <= Answer::TOLERANCE,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Asks the browser for a graphics processor, before anything is downloaded.
async fn find_adapter() -> Result<Adapter, Trouble> {
    let none = || "This browser has no WebGPU.".to_string();
    let get = |object: &JsValue, name: &str| {
        let value = Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED);
        (!value.is_undefined() && !value.is_null()).then_some(value)
    };
    let gpu = get(&scope().navigator(), "gpu").ok_or_else(none)?;
    let request: Function =
        get(&gpu, "requestAdapter").and_then(|f| f.dyn_into().ok()).ok_or_else(none)?;
    let options = Object::new();
    let _ = Reflect::set(&options, &"powerPreference".into(), &"high-performance".into());
    let promise = request.call1(&gpu, &options).map_err(|_| none())?;
    let adapter = JsFuture::from(js_sys::Promise::resolve(&promise)).await.map_err(|_| none())?;
    if adapter.is_null() || adapter.is_undefined() {
        return Err("This browser has WebGPU but found no graphics processor for it.".into());
    }
    let info = get(&adapter, "info").unwrap_or(JsValue::UNDEFINED);
    let text = |name: &str| get(&info, name).and_then(|v| v.as_string()).unwrap_or_default();
    let flag = |object: &JsValue| get(object, "isFallbackAdapter").is_some_and(|v| v.is_truthy());
    let parts = [text("vendor"), text("architecture"), text("device"), text("description")];
    let has_timestamps = get(&adapter, "features")
        .and_then(|features| {
            let has: Function = get(&features, "has")?.dyn_into().ok()?;
            has.call1(&features, &"timestamp-query".into()).ok()
        })
        .is_some_and(|has| has.is_truthy());
    let mut name: Vec<&str> = parts.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
    name.dedup();
    Ok(Adapter {
        software: is_software(flag(&info) || flag(&adapter), &name),
        name: if name.is_empty() { "unnamed".into() } else { name.join(" ") },
        timestamps: has_timestamps,
    })
}

/// Downloads a file. `progress` is told the bytes so far.
async fn fetch(url: &str, expected: u64, progress: impl Fn(u64)) -> Result<Vec<u8>, Trouble> {
    let name = url.rsplit('/').next().unwrap_or(url).to_string();
    let failed = |_| format!("{name} could not be downloaded. Is the connection up?");
    let response = JsFuture::from(scope().fetch_with_str(url)).await.map_err(failed)?;
    let response: Response = response.dyn_into().map_err(failed)?;
    if !response.ok() {
        return Err(format!(
            "{name} could not be downloaded: the server answered {}.",
            response.status()
        ));
    }
    let body = response.body().ok_or_else(|| failed(JsValue::NULL))?;
    let mut stream = wasm_streams::ReadableStream::from_raw(body.unchecked_into()).into_stream();
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0).min(1 << 30));
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|_| format!("{name} stopped arriving after {} bytes.", bytes.len()))?;
        bytes.extend(Uint8Array::new(&chunk).to_vec());
        progress(bytes.len() as u64);
    }
    Ok(bytes)
}

/// Sends an event to the page, with a grid of RGB turned into the RGBA that a canvas takes.
fn post(event: &Event, rgb: Option<&[u8]>) {
    let text = serde_json::to_string(event).expect("events are plain data");
    let message = Array::of1(&text.into());
    let moved = Array::new();
    if let Some(rgb) = rgb {
        let rgba: Vec<u8> = rgb.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        let bytes = Uint8Array::from(&rgba[..]);
        moved.push(&bytes.buffer());
        message.push(&bytes);
    }
    // It fails only where the page is gone.
    let _ = scope().post_message_with_transfer(&message, &moved);
}

fn scope() -> DedicatedWorkerGlobalScope {
    js_sys::global().unchecked_into()
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// An error as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}
