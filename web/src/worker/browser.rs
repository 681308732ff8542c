//! Browser APIs for the worker: the graphics processor, downloads, memory.

use burn::tensor::Device;
use futures::StreamExt;
use futures::future::{Either, select};
use gloo_timers::future::TimeoutFuture;
use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Blob, MessageChannel, RequestCache, RequestInit, Response};

use super::{Trouble, scope};
use crate::adapter::{Adapter, is_software};
use crate::protocol::GpuWork;

/// Requests a graphics processor from the browser.
pub async fn find_adapter() -> Result<Adapter, Trouble> {
    let none = || "This browser does not support WebGPU.".to_string();
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
    let adapter = JsFuture::from(Promise::resolve(&promise)).await.map_err(|_| none())?;
    if adapter.is_null() || adapter.is_undefined() {
        return Err("This browser supports WebGPU but found no graphics processor.".into());
    }
    let info = get(&adapter, "info").unwrap_or(JsValue::UNDEFINED);
    let text = |name: &str| get(&info, name).and_then(|v| v.as_string()).unwrap_or_default();
    let flag = |object: &JsValue| get(object, "isFallbackAdapter").is_some_and(|v| v.is_truthy());
    let parts = [text("vendor"), text("architecture"), text("device"), text("description")];
    let has = |feature: &str| {
        get(&adapter, "features")
            .and_then(|features| {
                let has: Function = get(&features, "has")?.dyn_into().ok()?;
                has.call1(&features, &feature.into()).ok()
            })
            .is_some_and(|has| has.is_truthy())
    };
    let mut name: Vec<&str> = parts.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
    name.dedup();
    Ok(Adapter {
        software: is_software(flag(&info) || flag(&adapter), &name),
        name: if name.is_empty() { "unnamed".into() } else { name.join(" ") },
        timestamps: has("timestamp-query"),
        halves: has("shader-f16"),
    })
}

/// Starts the runtime of the graphics processor.
#[cfg(feature = "gpu")]
pub async fn start_graphics() -> Result<Device, Trouble> {
    Device::wgpu_options().init_async().await.map_err(|error| error.to_string())
}

/// Refuses: this program has no code for graphics processors. `compute.js` loads it where there is
/// none.
#[cfg(not(feature = "gpu"))]
pub async fn start_graphics() -> Result<Device, Trouble> {
    Err("it was not there when the page was opened".into())
}

/// Waits for the next task, so that messages that have arrived are handled first. A timer would do
/// too, but browsers delay repeated timers by at least 4 ms.
pub async fn next_task() {
    let Ok(channel) = MessageChannel::new() else { return TimeoutFuture::new(0).await };
    let (receiver, sender) = (channel.port1(), channel.port2());
    let message = Promise::new(&mut |resolve, _| receiver.set_onmessage(Some(&resolve)));
    // Posting to the worker's own port does not fail.
    let _ = sender.post_message(&JsValue::NULL);
    let _ = JsFuture::from(message).await;
    receiver.close();
}

/// Which copy of a file is downloaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The one that a cache has, if any.
    Cache,
    /// The server's, which then takes the place of those in caches.
    Server,
}

/// Downloads a file. `progress` is called with the bytes so far.
pub async fn fetch(
    url: &str,
    source: Source,
    expected: u64,
    progress: impl Fn(u64),
) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0).min(1 << 30));
    download(url, source, |part, _| {
        bytes.extend(part.to_vec());
        progress(bytes.len() as u64);
        true
    })
    .await?;
    Ok(bytes)
}

/// Downloads a file without loading it into the program's memory. `progress` is called with the
/// bytes so far and the total, if the server sends it, and returns whether to go on; if not, there is
/// no file.
///
/// Browsers keep blobs outside of the memory of pages and workers, and move large ones to the disk.
/// Parts are therefore put into blobs as they arrive, and a blob of blobs does not copy them.
pub async fn fetch_blob(
    url: &str,
    progress: impl Fn(u64, u64) -> bool,
) -> Result<Option<Blob>, Trouble> {
    const PIECE: u32 = 4 << 20;
    let full = |_| Trouble::from("This browser has no space for the file.");
    let (mut pieces, mut parts) = (Vec::new(), Array::new());
    let (mut loaded, mut waiting, mut failure) = (0, 0, None);
    let whole = download(url, Source::Cache, |part, total| {
        loaded += u64::from(part.length());
        waiting += part.length();
        parts.push(&part);
        if waiting >= PIECE {
            match Blob::new_with_u8_array_sequence(&parts) {
                Ok(piece) => pieces.push(piece),
                Err(error) => failure = Some(error),
            }
            (parts, waiting) = (Array::new(), 0);
        }
        failure.is_none() && progress(loaded, total.max(loaded))
    })
    .await?;
    if let Some(error) = failure {
        return Err(full(error));
    }
    if !whole {
        return Ok(None);
    }
    pieces.push(Blob::new_with_u8_array_sequence(&parts).map_err(full)?);
    let pieces: Array = pieces.into_iter().collect();
    Blob::new_with_blob_sequence(&pieces).map(Some).map_err(full)
}

/// Returns the answer that `compute.js` has requested in advance, if it has.
fn taken_ahead(url: &str) -> Option<Promise> {
    let take: Function = Reflect::get(&scope(), &"takeAhead".into()).ok()?.dyn_into().ok()?;
    take.call1(&scope(), &url.into()).ok()?.dyn_into().ok()
}

/// Downloads a file. `take` is called with each part, and the size that the server sends, or 0, and
/// returns whether to go on. Returns whether it is whole.
async fn download(
    url: &str,
    source: Source,
    mut take: impl FnMut(Uint8Array, u64) -> bool,
) -> Result<bool, Trouble> {
    let name = url.rsplit('/').next().unwrap_or(url).to_string();
    let failed = |_| format!("{name} could not be downloaded. Check the network connection.");
    let answer = match source {
        Source::Cache => taken_ahead(url).unwrap_or_else(|| scope().fetch_with_str(url)),
        Source::Server => {
            let how = RequestInit::new();
            how.set_cache(RequestCache::Reload);
            scope().fetch_with_str_and_init(url, &how)
        }
    };
    let response = JsFuture::from(answer).await.map_err(failed)?;
    let response: Response = response.dyn_into().map_err(failed)?;
    if !response.ok() {
        return Err(format!(
            "{name} could not be downloaded: the server answered {}.",
            response.status()
        ));
    }
    let total = response.headers().get("content-length").ok().flatten();
    let total = total.and_then(|total| total.parse().ok()).unwrap_or(0);
    let body = response.body().ok_or_else(|| failed(JsValue::NULL))?;
    let mut stream = wasm_streams::ReadableStream::from_raw(body.unchecked_into()).into_stream();
    let mut loaded = 0;
    // The rest of the download ends with the stream.
    while let Some(part) = stream.next().await {
        let part =
            part.map_err(|_| format!("The download of {name} stopped after {loaded} bytes."))?;
        let part = Uint8Array::new(&part);
        loaded += part.length();
        if !take(part, total) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the device that `compute.js` has recorded, once the runtime has requested one.
fn device() -> Option<JsValue> {
    let device = Reflect::get(&scope(), &"gpuDevice".into()).ok()?;
    (!device.is_undefined()).then_some(device)
}

/// Returns what the graphics processor was given to do so far, as `compute.js` counts it.
pub fn gpu_work() -> Option<GpuWork> {
    device()?;
    let counts: Array = Reflect::get(&scope(), &"gpuWork".into()).ok()?.dyn_into().ok()?;
    let count = |i| counts.get(i).as_f64().map_or(0, |count| count as u32);
    Some(GpuWork { dispatches: count(0), writes: count(1), reads: count(2), submissions: count(3) })
}

/// Waits until the graphics processor has done what it was given. Returns at once if there is none, and if
/// it is lost, which is noticed elsewhere.
pub async fn gpu_is_done() {
    let wait = |device: JsValue| {
        let queue = Reflect::get(&device, &"queue".into()).ok()?;
        let done: Function =
            Reflect::get(&queue, &"onSubmittedWorkDone".into()).ok()?.dyn_into().ok()?;
        done.call0(&queue).ok()
    };
    if let Some(promise) = device().and_then(wait) {
        let _ = JsFuture::from(Promise::resolve(&promise)).await;
    }
}

/// Waits until the graphics processor is lost, and returns the browser's message. Waits for ever if
/// there is none.
pub async fn lost() -> String {
    let promise = device().and_then(|device| Reflect::get(&device, &"lost".into()).ok());
    let Some(promise) = promise else { return std::future::pending().await };
    let info = JsFuture::from(Promise::resolve(&promise)).await;
    let text = info.ok().and_then(|info| Reflect::get(&info, &"message".into()).ok());
    text.and_then(|text| text.as_string()).unwrap_or_default()
}

/// Returns whether the graphics processor is lost. What was asked of it fails first, so this waits a
/// while for the browser to say so.
pub async fn is_lost() -> bool {
    if device().is_none() {
        return false;
    }
    let lost = std::pin::pin!(lost());
    matches!(select(lost, TimeoutFuture::new(1000)).await, Either::Left(_))
}

/// Destroys the device of the graphics processor. Returns whether there was one.
pub fn lose() -> bool {
    let destroy = |device: JsValue| {
        let destroy: Function = Reflect::get(&device, &"destroy".into()).ok()?.dyn_into().ok()?;
        destroy.call0(&device).ok()
    };
    device().and_then(destroy).is_some()
}

/// Returns the size of the program's memory in bytes.
pub fn memory() -> u64 {
    let memory: Result<js_sys::WebAssembly::Memory, _> = wasm_bindgen::memory().dyn_into();
    let buffer = memory.ok().and_then(|memory| memory.buffer().dyn_into().ok());
    buffer.map_or(0, |buffer: js_sys::ArrayBuffer| u64::from(buffer.byte_length()))
}

/// Returns the machine's memory in GiB, if the browser reports it.
pub fn machine_memory() -> Option<f64> {
    Reflect::get(&scope().navigator(), &"deviceMemory".into()).ok()?.as_f64()
}

/// Returns the maximum size of a buffer on the graphics processor in bytes, once there is a device.
pub fn largest_piece() -> Option<u64> {
    let limits = Reflect::get(&device()?, &"limits".into()).ok()?;
    let limit = |name: &str| Some(Reflect::get(&limits, &name.into()).ok()?.as_f64()? as u64);
    Some(limit("maxBufferSize")?.min(limit("maxStorageBufferBindingSize")?))
}
