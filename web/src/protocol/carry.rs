//! Messages as arrays of JavaScript: the JSON text, and the bytes or the file that are attached.

use js_sys::{Array, Uint8Array};
use serde::{Serialize, de::DeserializeOwned};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::Blob;
#[cfg(feature = "page")]
use web_sys::File;

/// Packs a message and its bytes. Also returns the list of the buffers to transfer.
pub fn pack(message: &impl Serialize, bytes: Option<&[u8]>) -> (Array, Array) {
    let text = serde_json::to_string(message).expect("messages are plain data");
    let (message, moved) = (Array::of1(&text.into()), Array::new());
    if let Some(bytes) = bytes {
        let bytes = Uint8Array::from(bytes);
        moved.push(&bytes.buffer());
        message.push(&bytes);
    }
    (message, moved)
}

/// Packs a message and a file, as [`pack`] does with bytes. The contents of the file are not copied.
#[cfg(feature = "page")]
pub fn pack_file(message: &impl Serialize, file: Option<&File>) -> (Array, Array) {
    let (message, moved) = pack(message, None);
    if let Some(file) = file {
        message.push(file);
    }
    (message, moved)
}

/// Returns the file of a message, if one is attached.
pub fn file(data: &JsValue) -> Option<Blob> {
    data.dyn_ref::<Array>()?.get(1).dyn_into().ok()
}

/// Unpacks a message and its bytes; `None` if it has another form.
pub fn unpack<T: DeserializeOwned>(data: JsValue) -> Option<(T, Vec<u8>)> {
    let parts: Array = data.dyn_into().ok()?;
    let message = serde_json::from_str(&parts.get(0).as_string()?).ok()?;
    let bytes = parts.get(1).dyn_into::<Uint8Array>().map(|b| b.to_vec()).unwrap_or_default();
    Some((message, bytes))
}
