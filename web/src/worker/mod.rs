//! The worker: finds a device, loads a model, makes pictures.

mod browser;

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

use burn::tensor::{Device, Tensor};
use model::generate::{Guide, Start, generate_from};
use model::image::from_bytes;
use model::noise::{between, start_noise};
use model::picture::Rgb;
use model::settings::Settings;
use model::weights::{Answer, Weights};
use model::{Conditioning, Model};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};
use web_time::Instant;

use crate::adapter::{Backend, Choice, choose};
use crate::manifest::{Entry, Manifest};
use crate::protocol::{
    Attended, Block, Evaluated, Event, Look, Noise, Order, Ready, Request, carry,
};
use browser::{fetch, find_adapter};

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
        let Some((request, bytes)) = carry::unpack::<Request>(message.data()) else { return };
        let worker = worker.clone();
        if request == Request::Cancel {
            worker.cancelled.set(true);
            return;
        }
        spawn_local(async move {
            if let Err(message) = worker.answer(request, bytes, started).await {
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
    /// The evaluation before which the device is to be lost.
    fault: Cell<Option<usize>>,
    loaded: RefCell<Option<Rc<Loaded>>>,
    /// The noisy pictures of what was made last, for looking into the model.
    made: RefCell<Vec<Step>>,
}

struct Loaded {
    model: Model,
    device: Device,
    backend: Backend,
}

/// What a step started from.
#[derive(Clone)]
struct Step {
    x: Tensor<4>,
    sigma: f64,
    classes: Vec<Option<usize>>,
    silence_time: bool,
}

impl Worker {
    async fn answer(
        &self,
        request: Request,
        bytes: Vec<u8>,
        started: Instant,
    ) -> Result<(), Trouble> {
        match request {
            Request::Start { base, model, wish, fault } => {
                self.fault.set(fault);
                self.load(&base, model, wish, started).await
            }
            Request::Open { name } => {
                if let Err(message) = self.open(name, &bytes).await {
                    post(&Event::Refused { message }, None);
                }
                Ok(())
            }
            Request::Generate(order) => self.generate(&order, &bytes).await,
            Request::Attend(look) => self.attend(look).await,
            Request::Cancel => Ok(()),
        }
    }

    async fn load(
        &self,
        base: &str,
        model: Option<String>,
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
        let manifest = Manifest::parse(&String::from_utf8_lossy(&text)).map_err(sentence)?;
        post(&Event::Models(manifest.models.clone()), None);
        // A list is never empty. A model that is no longer there is the first.
        let wanted = manifest.models.iter().find(|entry| Some(&entry.file) == model.as_ref());
        let entry = wanted.unwrap_or(&manifest.models[0]);
        let bytes = fetch(&format!("{folder}{}", entry.file), entry.bytes, |loaded| {
            post(&Event::Loading { loaded, total: entry.bytes }, None);
        })
        .await?;
        entry.verify(&bytes).map_err(sentence)?;
        let weights = Weights::parse(&bytes).map_err(sentence)?;

        post(&Event::Checking, None);
        let mut device = match backend {
            Backend::Cpu => Device::flex(),
            Backend::WebGpu => match Device::wgpu_options().init_async().await {
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
        self.take(Loaded { model, device, backend }, &weights, entry, deviation, note, started)
    }

    /// Takes up weights that the visitor brings.
    async fn open(&self, name: String, bytes: &[u8]) -> Result<(), Trouble> {
        let started = Instant::now();
        let Some(now) = self.loaded.borrow().clone() else {
            return Err("The page is not ready yet.".into());
        };
        let weights = Weights::parse(bytes).map_err(sentence)?;
        let channels = weights.config().image_shape()[0];
        if channels != 3 && channels != 1 {
            return Err(format!(
                "A model of {channels} channels makes no pictures that can be shown."
            ));
        }
        let (device, backend) = (now.device.clone(), now.backend);
        let model = Model::from_weights(&weights, &device);
        let deviation = deviation(&model, &weights, &device).await;
        let entry = Entry::new(name, bytes);
        self.take(Loaded { model, device, backend }, &weights, &entry, deviation, None, started)
    }

    /// Uses a model from now on, if it passes its check.
    fn take(
        &self,
        loaded: Loaded,
        weights: &Weights<'_>,
        entry: &Entry,
        deviation: Result<Option<f32>, Trouble>,
        note: Option<String>,
        started: Instant,
    ) -> Result<(), Trouble> {
        if !passes(&deviation) {
            return Err(match deviation {
                Err(error) => format!("The self-check failed: {error}"),
                _ => "The self-check failed: this browser computes something else than the \
                      model's author did. Nothing it draws could be trusted."
                    .into(),
            });
        }
        let network = &loaded.model.network;
        let [_, height, width] = loaded.model.config.image_shape();
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
            classes: loaded.model.config.classes(),
            first: Settings::first_for(&loaded.model.config),
            blocks: network.blocks().iter().map(block).collect(),
            deviation: deviation.ok().flatten(),
            backend: loaded.backend,
            note,
            milliseconds: milliseconds(started),
            memory: browser::memory(),
        };
        self.loaded.replace(Some(Rc::new(loaded)));
        self.made.borrow_mut().clear();
        post(&Event::Ready(Box::new(ready)), None);
        Ok(())
    }

    async fn generate(&self, order: &Order, bytes: &[u8]) -> Result<(), Trouble> {
        let Some(loaded) = self.loaded.borrow().clone() else {
            return Err("No model is loaded yet.".into());
        };
        let Order { noises, settings, guide } = order;
        settings.validate().map_err(sentence)?;
        settings.validate_for(&loaded.model.config).map_err(sentence)?;
        if noises.is_empty() || noises.len() > MOST_PICTURES {
            return Err(format!("1 to {MOST_PICTURES} pictures can be made at a time."));
        }
        self.cancelled.set(false);
        self.made.borrow_mut().clear();
        let started = Instant::now();
        let mut before = started;
        let shape = loaded.model.config.image_shape();
        let size = shape.iter().product();
        let seeds: Vec<u64> = noises.iter().map(Noise::seed).collect();
        let guide = match guide {
            Some(guide) => Some(read_guide(guide, bytes, shape)?),
            None => None,
        };
        let start = Start {
            noise: noises.iter().flat_map(|n| noise(n, size)).collect(),
            seeds: &seeds,
            guide,
        };
        let on_step =
            async |e: model::sampler::Evaluation<'_>| -> Result<ControlFlow<()>, Trouble> {
                self.fail_on_purpose(e.evaluation);
                // The noisy pictures are scaled to unit variance, so that they can be shown.
                let scale = 1.0 / e.sigma.hypot(1.0);
                let both = Tensor::cat(vec![e.x.clone() * scale, e.denoised.clone()], 0);
                // Reading the pictures back waits for the evaluation, and lets messages in.
                let pictures = rgb(both, shape).await?;
                if loaded.backend == Backend::Cpu {
                    gloo_timers::future::TimeoutFuture::new(0).await;
                }
                if self.cancelled.get() {
                    return Ok(ControlFlow::Break(()));
                }
                let mut made = self.made.borrow_mut();
                if made.len() == e.step {
                    made.push(Step {
                        x: e.x.clone(),
                        sigma: e.sigma,
                        classes: settings.classes_of(&seeds),
                        silence_time: settings.silence_time,
                    });
                }
                let evaluated = Evaluated {
                    step: e.step,
                    steps: e.steps,
                    evaluation: e.evaluation,
                    evaluations: e.evaluations,
                    sigma: e.sigma,
                    milliseconds: milliseconds(before),
                };
                before = Instant::now();
                post(&Event::Evaluated(evaluated), Some(&pictures));
                Ok(ControlFlow::Continue(()))
            };
        match generate_from(&loaded.model, settings, start, &loaded.device, on_step).await? {
            None => post(&Event::Cancelled, None),
            Some(pictures) => {
                let pictures = rgb(pictures, shape).await?;
                let done = Event::Done {
                    milliseconds: milliseconds(started),
                    evaluations: settings.method.evaluations(settings.steps),
                };
                post(&done, Some(&pictures));
            }
        }
        Ok(())
    }

    /// Loses the device, where a test asked for it.
    fn fail_on_purpose(&self, evaluation: usize) {
        if self.fault.get() != Some(evaluation) {
            return;
        }
        self.fault.set(None);
        if !browser::lose() {
            panic!("the device was lost on purpose");
        }
    }

    /// One more forward pass over a step of what was made, with its attention maps.
    async fn attend(&self, look: Look) -> Result<(), Trouble> {
        let step = self.made.borrow().get(look.step).cloned();
        let (Some(loaded), Some(step)) = (self.loaded.borrow().clone(), step) else {
            return Err("There is nothing to look into yet: make a picture first.".into());
        };
        let blocks = loaded.model.network.blocks();
        let Some(block) = blocks.get(look.block).filter(|_| look.picture < step.x.dims()[0]) else {
            return Err("The model has no such block, or there is no such picture.".into());
        };
        let conditioning = Conditioning {
            attention_of: Some(look.block),
            classes: step.classes.get(look.picture).copied().into_iter().collect(),
            silence_time: step.silence_time,
            ..Conditioning::default()
        };
        let x = step.x.narrow(0, look.picture, 1);
        let maps = loaded.model.denoise(x, &[step.sigma], conditioning).attention;
        let maps = maps.ok_or("This block has no attention.")?;
        let heads = maps.weights.dims()[2];
        let mut values = read(maps.weights).await?;
        values.extend(read(maps.bias).await?);
        let lengths = read(maps.lengths).await?;
        let part = |i: usize| [lengths[i], lengths[i + 1], lengths[i + 2]];
        let attended = Attended {
            look,
            heads,
            side: block.side,
            window: maps.window,
            lengths: [part(0), part(3)],
        };
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        post(&Event::Attended(attended), Some(&bytes));
        Ok(())
    }
}

/// Pictures at a time: more could exceed what a browser lets one buffer hold.
const MOST_PICTURES: usize = 64;

/// The values of noise.
fn noise(noise: &Noise, size: usize) -> Vec<f32> {
    let of = |seed| start_noise(seed, size);
    let mix = |[a, b]: [u64; 2], at| between(&of(a), &of(b), at);
    match *noise {
        Noise::Seed(seed) => of(seed),
        Noise::Between(seeds, at) => mix(seeds, at),
        Noise::Among([a, b, c, d], [right, down]) => {
            between(&mix([a, b], right), &mix([c, d], right), down)
        }
    }
}

/// Takes a guide's bytes apart.
fn read_guide(
    guide: &crate::protocol::Guide,
    bytes: &[u8],
    [c, height, width]: [usize; 3],
) -> Result<Guide, Trouble> {
    let pixels = height * width;
    if c != 3 || bytes.len() != 4 * pixels {
        return Err(format!("The picture to start from is not one of {width} x {height} colours."));
    }
    if !(guide.sigma.is_finite() && guide.sigma > 0.0) {
        return Err("The noise level to start from is not a positive number.".into());
    }
    let (rgb, keep) = bytes.split_at(3 * pixels);
    let mut values = vec![0.0; 3 * pixels];
    from_bytes(rgb, &mut values);
    // (h w, c) -> (c, h w)
    let picture = (0..3 * pixels).map(|i| values[i % pixels * 3 + i / pixels]).collect();
    let keep = guide.keep.then(|| keep.iter().map(|&keep| f32::from(keep.min(1))).collect());
    Ok(Guide { picture, sigma: guide.sigma, keep })
}

/// A batch of pictures as RGB, one after the other.
async fn rgb(pictures: Tensor<4>, shape: [usize; 3]) -> Result<Vec<u8>, Trouble> {
    let pictures = Rgb::from_values(&read(pictures).await?, shape);
    Ok(pictures.into_iter().flat_map(|picture| picture.bytes).collect())
}

/// Waits for the values of a tensor.
async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Trouble> {
    let failed = |error: &dyn std::fmt::Display| format!("The device failed: {error}");
    let data = tensor.into_data_async().await.map_err(|error| failed(&error))?;
    data.try_into_vec::<f32>().map_err(|error| failed(&error))
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

/// Sends an event to the page.
fn post(event: &Event, bytes: Option<&[u8]>) {
    let (message, moved) = carry::pack(event, bytes);
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
fn sentence(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}
