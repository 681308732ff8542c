//! The view "About": how it works, measured speed, the model, stored files.

use leptos::prelude::*;
use model::card::{Metric, Quality};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};

use super::engine::Engine;
use super::explain::{equation, source};
use super::keep::{CopyText, is_there};
use super::state::{Doing, State};
use super::status::seconds;
use crate::adapter::{Backend, Numbers};
use crate::manifest::Entry;
use crate::protocol::GpuWork;

/// The view.
#[component]
pub fn About(state: State, engine: Engine) -> impl IntoView {
    view! {
        <div class="about">
            <Understand/>
            <Card state/>
            <Models state engine/>
            <Machine state/>
            <Storage state/>
        </div>
    }
}

/// A short explanation of diffusion and DiffiT, and all topics.
#[component]
fn Understand() -> impl IntoView {
    view! {
        <section class="card wide" aria-labelledby="understand">
            <h2 id="understand">"How it works"</h2>
            <p>
                "A denoiser is a network that was trained on one task: given a picture with noise added, \
                 guess the picture without it. That is enough to make new pictures. Start with nothing \
                 but noise, let the denoiser guess, move a little towards the guess, and repeat. Each \
                 step leaves less noise, and after a dozen steps there is none."
            </p>
            <p>
                "The guess has a different purpose on the way. With much noise it decides where things \
                 go; with little noise it adds details. Transformers make the guess by attention: each \
                 patch of the picture gathers information from the patches that matter to it. DiffiT \
                 lets the amount of noise decide which ones matter. It enters every query, key and value \
                 as the \u{201c}time token\u{201d}, so the same block can look far away in early steps and \
                 close by in late ones."
            </p>
            <p>
                "This page runs such a network of 3 million parameters, trained on a CPU with 1,911 emoji. \
                 The same code runs the models of the "
                <a href="https://arxiv.org/abs/2312.02139">"paper"</a>", which have up to 562 million."
            </p>
            {crate::explain::ALL.map(|topic| view! {
                <details class="explain topic">
                    <summary><strong>{topic.title}</strong>": "{topic.line}</summary>
                    <p>{topic.more}</p>
                    {equation(topic.equation)}
                    <p class="source">{source(topic.source)}</p>
                </details>
            })}
        </section>
    }
}

/// Device, precision, speed and memory.
#[component]
fn Machine(state: State) -> impl IntoView {
    let device = move || match state.device.get() {
        None => "…".into(),
        Some((Backend::Cpu, _)) if state.waits.get() => {
            "processor (WebAssembly); WebGPU from the next pictures on".into()
        }
        Some((Backend::Cpu, _)) => "processor (WebAssembly)".into(),
        Some((Backend::WebGpu, adapter)) => {
            format!("WebGPU: {}", adapter.unwrap_or_else(|| "unnamed".into()))
        }
    };
    let numbers = move || match state.ready.read().as_ref().map(|ready| ready.numbers) {
        None => "…",
        Some(Numbers::F16) => "16-bit numbers",
        Some(Numbers::F32) => "32-bit numbers",
    };
    let ready =
        move || state.ready.read().as_ref().map_or("…".into(), |r| seconds(r.milliseconds));
    let check = move || match state.ready.read().as_ref().map(|ready| ready.deviation) {
        None => "…".into(),
        Some(None) => "this model has no known answer".into(),
        Some(Some(deviation)) => format!("passed, deviation {deviation:.0e}"),
    };
    let first = move || state.first.get().map_or("nothing made yet".into(), seconds);
    let evaluation = move || {
        let finished = state.run.read().as_ref().and_then(|run| run.finished);
        let finished = finished.map(|(milliseconds, n)| milliseconds / n as f64);
        let now = state.progress.read().as_ref().map(|p| p.milliseconds);
        finished.or(now).map_or("nothing made yet".into(), |ms| format!("{ms:.1} ms"))
    };
    let work = move || match state.work.get() {
        None => "counted on a graphics processor".into(),
        Some(GpuWork { dispatches, writes, reads, submissions }) => format!(
            "{dispatches} dispatches, {writes} writes, {reads} reads, {submissions} submissions"
        ),
    };
    let memory = move || {
        let ready = state.ready.read();
        ready.as_ref().map_or("…".into(), |r| format!("{:.0} MB", r.memory as f64 / 1e6))
    };
    let rows = Memo::new(move |_| {
        [
            ("Device", "device", device()),
            ("Precision", "numbers", numbers().to_string()),
            ("Time until ready", "ready", ready()),
            ("Self-check", "check", check()),
            ("Time of the first pictures", "first", first()),
            ("Per evaluation", "evaluation", evaluation()),
            ("Work of an evaluation", "work", work()),
            ("Memory of the worker", "memory", memory()),
        ]
    });
    let list = move || {
        let row = |(name, id, value): (&'static str, &'static str, String)| {
            view! { <div><dt>{name}</dt><dd data-testid=id>{value}</dd></div> }.into_any()
        };
        rows.get().into_iter().map(row).collect::<Vec<AnyView>>()
    };
    let report = Signal::derive(move || {
        let mut lines = vec![("Browser", window().navigator().user_agent().unwrap_or_default())];
        lines.extend(document().location().and_then(|l| l.href().ok()).map(|href| ("Page", href)));
        if let Some(ready) = state.ready.read().as_ref() {
            lines.push(("Model", format!("{}, SHA-256 {}", ready.file, ready.sha256)));
        }
        lines.extend(rows.get().map(|(name, _, value)| (name, value)));
        lines.extend(state.note.get().map(|note| ("Note", note)));
        lines.extend(state.trouble.get().map(|trouble| ("Error", trouble)));
        Some(lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect())
    });
    view! {
        <section class="card" aria-labelledby="machine">
            <h2 id="machine">"On this machine"</h2>
            <dl>{list}</dl>
            <p class="hint">"Nothing is sent anywhere: the model was downloaded, and everything is computed on this machine."</p>
            <div class="buttons"><CopyText state name="diagnostics" label="Copy for a bug report" text=report/></div>
        </section>
    }
}

/// Returns the measured quality of a model's pictures in words.
fn measured(quality: &Quality) -> String {
    let value = |metric: &Metric| {
        let deviation = metric.deviation.map_or(String::new(), |value| format!(" ± {value:.4}"));
        format!("{} {:.4}{deviation}", metric.name, metric.value)
    };
    let values: Vec<String> = quality.metrics.iter().map(value).collect();
    let Quality { samples, sampling, reference, .. } = quality;
    format!("{}: {samples} pictures ({sampling}) against {reference}", values.join(", "))
}

/// The card of the model.
#[component]
fn Card(state: State) -> impl IntoView {
    let rows = move || {
        state.ready.get().map(|ready| {
            let card = ready.card;
            let loss = card.loss.map_or("not recorded".into(), |loss| format!("{loss:.4}"));
            let hours = card.training_seconds / 3600.0;
            let quality = card.quality.as_ref().map_or(String::new(), measured);
            let rows = [
                ("Name", card.name),
                ("Makes", card.summary),
                ("Trained on", card.data),
                ("Data licence", card.data_licence),
                ("Licence", card.licence),
                ("Started from", card.started_from),
                ("Images seen", thousands(card.images_seen)),
                ("Training loss", loss),
                ("Image quality", quality),
                ("Trained with", format!("{hours:.1} hours on {}", card.hardware)),
                ("Parameters", thousands(ready.parameters as u64)),
                (
                    "Multiply-adds",
                    format!(
                        "{:.2} G for one evaluation, with the attention products",
                        ready.macs as f64 / 1e9
                    ),
                ),
                ("File", format!("{:.1} MB", ready.bytes as f64 / 1e6)),
                ("SHA-256", ready.sha256),
            ];
            let known = rows.into_iter().filter(|(_, value)| !value.is_empty());
            known
                .map(|(name, value)| view! { <div><dt>{name}</dt><dd>{value}</dd></div> })
                .collect_view()
        })
    };
    view! {
        <section class="card wide" aria-labelledby="model">
            <h2 id="model">"The model"</h2>
            <dl data-testid="card">{rows}</dl>
        </section>
    }
}

/// The shipped models, the autoencoder, and how to open other files.
#[component]
fn Models(state: State, engine: Engine) -> impl IntoView {
    let in_use = move |file: &str| state.ready.read().as_ref().is_some_and(|r| r.file == file);
    let resting = move || *state.doing.read() == Doing::Resting;
    let rows = move || {
        let row = |entry: Entry| {
            let name = entry.file.trim_end_matches(".safetensors").to_string();
            let used = StoredValue::new(entry.file.clone());
            let is_used = move || used.with_value(|file| in_use(file));
            view! {
                <div>
                    <dt>{name}</dt>
                    <dd>
                        {format!("{:.1} MB, SHA-256 {}", entry.bytes as f64 / 1e6, &entry.sha256[..16.min(entry.sha256.len())])}
                        "… "
                        <Show when=is_used fallback=move || view! {
                            <button
                                type="button" class="plain small" disabled=Signal::derive(move || !resting())
                                on:click=move |_| engine.choose(used.get_value())
                            >"Use"</button>
                        }>
                            <strong>"in use"</strong>
                        </Show>
                    </dd>
                </div>
            }
        };
        state.models.get().into_iter().map(row).collect_view()
    };
    let autoencoder = move || {
        state.autoencoder.get().map(|info| {
            let use_of = if state.latent() == Some(info.channels) {
                "in use"
            } else {
                "not used by this model"
            };
            let text = format!(
                "{:.1} MB, {} parameters, SHA-256 {}… ",
                info.bytes as f64 / 1e6,
                thousands(info.parameters as u64),
                &info.sha256[..16.min(info.sha256.len())],
            );
            view! {
                <div>
                    <dt>"Autoencoder "{info.file}</dt>
                    <dd>{text}<strong>{use_of}</strong></dd>
                </div>
            }
        })
    };
    view! {
        <section class="card" aria-labelledby="models">
            <h2 id="models">"Models"</h2>
            <dl data-testid="models">{rows}</dl>
            <dl data-testid="autoencoder">{autoencoder}</dl>
            <p class="hint">
                "To use a model of your own, drop its weights file on this page; for latents, drop the file \
                 of their autoencoder too. Files are checked before they are used, and are not uploaded."
            </p>
        </section>
    }
}

/// The stored files of this page, and a button that deletes them.
#[component]
fn Storage(state: State) -> impl IntoView {
    let kept = RwSignal::new(None::<(usize, f64)>);
    let look = move || spawn_local(async move { kept.set(Some(stored().await)) });
    look();
    let delete = move |_| {
        spawn_local(async move {
            delete().await;
            state.said.set("The stored files are deleted.".into());
            kept.set(Some(stored().await));
        });
    };
    let text = move || match kept.get() {
        None => "…".into(),
        Some((0, _)) => "Nothing is stored: the page needs the network each time.".into(),
        Some((files, bytes)) => format!(
            "{files} files, {:.1} MB: the page and its model work without the network.",
            bytes / 1e6
        ),
    };
    view! {
        <section class="card" aria-labelledby="storage">
            <h2 id="storage">"Stored files"</h2>
            <p data-testid="storage">{text}</p>
            <button
                type="button" class="plain small" data-testid="delete" on:click=delete
                disabled=Signal::derive(move || kept.get().is_none_or(|(files, _)| files == 0))
            >"Delete them"</button>
        </section>
    }
}

/// Returns the browser's caches, if it has any.
fn caches() -> Option<web_sys::CacheStorage> {
    let window = window();
    is_there(&window, "caches").then(|| window.caches().ok()).flatten()
}

/// Returns the number of files in this page's caches, and their bytes.
async fn stored() -> (usize, f64) {
    let (mut files, mut bytes) = (0, 0.0);
    let Some(caches) = caches() else { return (0, 0.0) };
    for name in names(&caches).await {
        let Ok(cache) = JsFuture::from(caches.open(&name)).await else { continue };
        let cache: web_sys::Cache = cache.unchecked_into();
        let Ok(all) = JsFuture::from(cache.match_all()).await else { continue };
        for response in js_sys::Array::from(&all).iter() {
            let response: web_sys::Response = response.unchecked_into();
            let blob = match response.blob() {
                Ok(blob) => JsFuture::from(blob).await.unwrap_or(JsValue::NULL),
                Err(_) => continue,
            };
            files += 1;
            bytes += blob.dyn_into::<web_sys::Blob>().map_or(0.0, |blob| blob.size());
        }
    }
    (files, bytes)
}

/// Deletes this page's caches, and unregisters the service worker that fills them.
async fn delete() {
    if let Some(caches) = caches() {
        for name in names(&caches).await {
            // It fails only if the cache does not exist any more.
            let _ = JsFuture::from(caches.delete(&name)).await;
        }
    }
    if !is_there(&window().navigator(), "serviceWorker") {
        return;
    }
    let workers = window().navigator().service_worker();
    let registration = JsFuture::from(workers.get_registration()).await;
    if let Ok(Ok(registration)) =
        registration.map(|r| r.dyn_into::<web_sys::ServiceWorkerRegistration>())
        && let Ok(promise) = registration.unregister()
    {
        let _ = JsFuture::from(promise).await;
    }
}

/// Returns the names of this page's caches. Other pages of the same server have their own.
async fn names(caches: &web_sys::CacheStorage) -> Vec<String> {
    let keys = JsFuture::from(caches.keys()).await.unwrap_or(JsValue::NULL);
    let folder = document().base_uri().ok().flatten().unwrap_or_default();
    let end = folder.find(['?', '#']).unwrap_or(folder.len());
    let folder = folder[..end].rfind('/').map_or("", |slash| &folder[..=slash]);
    let start = format!("diffit {folder} ");
    let keys = js_sys::Array::from(&keys);
    keys.iter().filter_map(|key| key.as_string()).filter(|key| key.starts_with(&start)).collect()
}

/// Formats a number with thousands separators, such as 3,150,019.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
