//! The address of the page, which holds the scene.

use leptos::prelude::*;
use wasm_bindgen::JsValue;

use super::state::State;
use crate::names::opening;
use crate::protocol::Usual;
use crate::scene::{Scene, is_new, refused};

/// Returns the part of the address from `#` on.
pub fn hash() -> String {
    document().location().and_then(|location| location.hash().ok()).unwrap_or_default()
}

/// Keeps the scene and the address in step.
pub fn keep(state: State) {
    Effect::new(move || {
        let scene = state.scene.read();
        if Scene::decode(&hash()).encode() == scene.encode() {
            return;
        }
        let address = document().location().and_then(|location| location.href().ok());
        let address = address.unwrap_or_default();
        let page = address.split('#').next().unwrap_or_default();
        let address = format!("{page}#{}", scene.address());
        // Browsers limit the rate of these calls. The next change corrects the address then.
        let history = window().history();
        let _ = history.map(|h| h.replace_state_with_url(&JsValue::NULL, "", Some(&address)));
    });
    let changed = window_event_listener(leptos::ev::hashchange, move |_| {
        let (link, mut scene) = (hash(), Scene::decode(&hash()));
        state.anew.set(is_new(&link));
        if let Some(ready) =
            state.ready.read_untracked().as_ref().filter(|_| state.anew.get_untracked())
        {
            scene.fit(&Usual::default(), &ready.usual);
            scene.open(opening(&state.names.read_untracked(), &ready.card.class_groups));
        }
        state.refused.set(refused(&link));
        state.scene.set(scene);
    });
    on_cleanup(move || changed.remove());
}
