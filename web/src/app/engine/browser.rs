//! Starting workers, and the page's address.

use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{ErrorEvent, MessageEvent, Worker, WorkerOptions};

use crate::testing::{Faults, MARK};

/// Returns the address of the worker's start script, of which the build makes one name for each version.
fn script() -> String {
    let page = document().document_element();
    page.and_then(|page| page.get_attribute("data-compute")).unwrap_or("./compute.js".into())
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
