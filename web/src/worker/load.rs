//! Loading a model of the list, and taking it into use.

use std::rc::Rc;

use burn::tensor::{DType, Device};
use model::weights::Weights;
use wasm_bindgen_futures::spawn_local;
use web_time::Instant;

use super::browser::{self, Source, fetch, find_adapter};
use super::build::{Built, build};
use super::{Loaded, Place, Reply, Trouble, Worker, is_latent, milliseconds, say, sentence};
use crate::adapter::{Adapter, Backend, Choice, choose};
use crate::manifest::{Entry, Manifest};
use crate::protocol::{Block, Event, Ready, Start, Usual};

impl Worker {
    /// Finds a device, loads a model and checks it.
    pub async fn load(&self, reply: Reply, start: Start, started: Instant) -> Result<(), Trouble> {
        let Start { base, model, wish, plain, software, .. } = start;
        let real = |found: Adapter| Adapter { software: found.software && !software, ..found };
        let found = find_adapter().await.map(real);
        let Choice { mut backend, mut note } = choose(wish, &found);
        // A visit starts with the program for processors.
        let graphics = cfg!(not(feature = "gpu")) && wish.is_none() && backend == Backend::WebGpu;
        if graphics {
            backend = Backend::Cpu;
        }
        let halves = !plain && found.as_ref().is_ok_and(|adapter| adapter.halves);
        reply.post(
            &Event::Chosen {
                backend,
                adapter: found.ok().map(|adapter| adapter.name),
                note: note.clone(),
                graphics,
            },
            None,
        );

        let folder = format!("{base}weights/");
        let text = fetch(&format!("{folder}manifest.json"), Source::Cache, 0, |_| {}).await?;
        let manifest = Manifest::parse(&String::from_utf8_lossy(&text)).map_err(sentence)?;
        reply.post(&Event::Models(manifest.models.clone()), None);
        // The list is not empty. A model that is not in it any more is replaced by the first.
        let wanted = manifest.models.iter().find(|entry| Some(&entry.file) == model.as_ref());
        let entry = wanted.unwrap_or(&manifest.models[0]);
        let file = format!("{folder}{}", entry.file);
        let loading = |loaded| {
            reply.post(&Event::Loading { loaded, total: entry.bytes }, None);
        };
        let mut bytes = fetch(&file, Source::Cache, entry.bytes, loading).await?;
        if entry.verify(&bytes).is_err() {
            // A cache may have a damaged copy, or that of another version.
            bytes = fetch(&file, Source::Server, entry.bytes, loading).await?;
        }
        entry.verify(&bytes).map_err(sentence)?;
        let weights = Weights::parse(&bytes).map_err(sentence)?;

        reply.post(&Event::Checking, None);
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
                        say(&Event::Failed { message, fatal: true });
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
        if backend == Backend::WebGpu && !built.passed {
            note = Some(
                "Your graphics processor gives wrong results in the self-check. The pictures are \
                 computed on your processor instead."
                    .into(),
            );
            place = Place { device: Device::flex(), backend: Backend::Cpu, halves: false };
            built = build(&weights, &place).await;
        }
        built.note = note.or(built.note);
        self.take(reply, built, place, &weights, entry, started)
    }

    /// Replaces the model in use, if the new one passed its self-check.
    pub fn take(
        &self,
        reply: Reply,
        built: Built,
        place: Place,
        weights: &Weights<'_>,
        entry: &Entry,
        started: Instant,
    ) -> Result<(), Trouble> {
        let Built { model, numbers, deviation, passed, check, note } = built;
        if !passed {
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
        reply.post(&Event::Ready(Box::new(ready)), None);
        Ok(())
    }
}
