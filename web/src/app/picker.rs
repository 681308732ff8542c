//! The choice of the model.

use leptos::prelude::*;

use super::engine::Engine;
use super::state::{Doing, State};
use crate::manifest::title;

/// The choice of a shipped model, unless there is only one. It has its place before the list of models
/// is known, so that nothing moves. The visitor's own model is listed while it is in use.
#[component]
pub fn Picker(state: State, engine: Engine) -> impl IntoView {
    let files = Memo::new(move |_| {
        state.models.read().iter().map(|entry| entry.file.clone()).collect::<Vec<_>>()
    });
    let used = Memo::new(move |_| state.ready.read().as_ref().map(|ready| ready.file.clone()));
    let own = move || used.get().filter(|used| !files.read().contains(used));
    let options = move || {
        let option = |file: String| {
            let name = title(&file);
            let this = file.clone();
            let selected = Signal::derive(move || used.read().as_ref() == Some(&this));
            view! { <option value=file selected=selected>{name}</option> }
        };
        files.get().into_iter().chain(own()).map(option).collect_view()
    };
    let single = Signal::derive(move || files.read().len() == 1);
    let busy = Signal::derive(move || *state.doing.read() != Doing::Resting);
    view! {
        <div class="picker" hidden=single>
            <label for="model-choice">"Model"</label>
            <select
                id="model-choice" disabled=busy
                on:change:target=move |e| {
                    let file = e.target().value();
                    if files.read_untracked().contains(&file) {
                        state.anew.set(true);
                        state.draws.set(true);
                        engine.choose(file);
                    }
                }
            >{options}</select>
        </div>
    }
}
