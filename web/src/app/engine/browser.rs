//! Starting workers, and the page's address.

use std::time::Duration;

use js_sys::{Array, Reflect};
use leptos::prelude::*;
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{ErrorEvent, MessageEvent, Worker, WorkerOptions};

use crate::testing::{Faults, MARK};

/// Returns the address of the worker's start script, of which the build makes one name for each version.
fn script() -> String {
    let page = document().document_element();
    page.and_then(|page| page.get_attribute("data-compute")).unwrap_or("./compute.js".into())
}

/// Starts a worker: the one with the program of this name, or of the browser's kind if it is empty. It
/// downloads a model in advance, if it is to open one: the one with this name, or the first of the list.
/// Returns `None` if the browser does not support workers.
pub fn start_worker(
    name: &str,
    model: Option<&str>,
    on_message: impl Fn(MessageEvent) + 'static,
    on_error: impl Fn(ErrorEvent) + 'static,
) -> Option<Worker> {
    let options = WorkerOptions::new();
    options.set_name(name);
    let model = model.map_or(String::new(), |model| format!("#model={model}"));
    let worker = Worker::new_with_options(&format!("{}{model}", script()), &options).ok()?;
    listen(&worker, on_message, on_error);
    Some(worker)
}

/// Returns the worker with the program for processors that `start.js` has started in advance, if it has.
/// Its messages until now are handled in a later task of the browser.
pub fn first_worker(
    on_message: impl Fn(MessageEvent) + 'static,
    on_error: impl Fn(ErrorEvent) + 'static,
) -> Option<Worker> {
    let name = JsValue::from_str("firstWorker");
    let first = Reflect::get(&window(), &name).ok().filter(|first| first.is_object())?;
    let _ = Reflect::delete_property(&window(), &name);
    let part = |name: &str| Reflect::get(&first, &name.into()).ok();
    let worker: Worker = part("worker")?.dyn_into().ok()?;
    let heard: Array = part("heard")?.dyn_into().ok()?;
    let adopted = worker.clone();
    set_timeout(
        move || {
            for event in heard.iter() {
                match event.dyn_into::<MessageEvent>() {
                    Ok(message) => on_message(message),
                    Err(error) => on_error(error.unchecked_into()),
                }
            }
            listen(&adopted, on_message, on_error);
        },
        Duration::ZERO,
    );
    Some(worker)
}

/// Handles what a worker sends from now on.
fn listen(
    worker: &Worker,
    on_message: impl Fn(MessageEvent) + 'static,
    on_error: impl Fn(ErrorEvent) + 'static,
) {
    let on_message = Closure::<dyn Fn(MessageEvent)>::new(on_message);
    worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    on_message.forget();
    let on_error = Closure::<dyn Fn(ErrorEvent)>::new(on_error);
    worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
    on_error.forget();
}

/// Returns the faults that a test injects.
pub fn faults() -> Faults {
    let marked = document().document_element().is_some_and(|html| html.has_attribute(MARK));
    Faults::read(&query(), marked)
}

/// Returns the query of the page's address.
pub fn query() -> String {
    let location = document().location();
    location.and_then(|location| location.search().ok()).unwrap_or_default()
}

/// Returns the address of the page's folder.
pub fn folder() -> String {
    let base = document().base_uri().ok().flatten().unwrap_or_default();
    let end = base.find(['?', '#']).unwrap_or(base.len());
    base[..end].rfind('/').map_or("", |slash| &base[..=slash]).into()
}
