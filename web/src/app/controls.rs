//! Seed, number, steps, sampler; Generate and Cancel; the download.

use js_sys::{Array, Uint8Array};
use leptos::prelude::*;
use model::generate::Settings;
use model::sampler::Method;
use wasm_bindgen::JsCast;
use web_sys::{Blob, BlobPropertyBag, HtmlAnchorElement, Url};

use super::engine::Engine;
use super::{Doing, Finished, State};

/// Numbers of pictures that make a square.
const COUNTS: [u64; 4] = [1, 4, 9, 16];

/// What a visitor finds in the field: one that shows what the first model makes when it does well.
const FIRST_SEED: u64 = 154;

/// The form.
#[component]
pub fn Controls(state: State, engine: Engine) -> impl IntoView {
    let seed = RwSignal::new(FIRST_SEED);
    let count = RwSignal::new(4u64);
    let settings = RwSignal::new(Settings::default());
    let busy = move || matches!(*state.doing.read(), Doing::Generating | Doing::Cancelling);
    let usable = move || state.ready.read().is_some() && *state.doing.read() != Doing::Broken;

    let submit = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        if busy() {
            engine.cancel();
        } else if usable() {
            let first = seed.get();
            let seeds = (0..count.get()).map(|i| first.wrapping_add(i)).collect();
            engine.generate(seeds, settings.get());
        }
    };
    let dice = move |_| seed.set((js_sys::Math::random() * 1e6) as u64);
    let set_steps = move |text: String| {
        if let Ok(steps) = text.parse::<usize>() {
            settings.update(|s| s.steps = steps.clamp(1, Settings::MAX_STEPS));
        }
    };
    let set_sampler = move |name: String| {
        let method = if name == "euler" { Method::Euler } else { Method::Heun };
        settings.update(|s| s.method = method);
    };
    let is_heun = move || settings.read().method == Method::Heun;
    view! {
        <form class="controls" aria-label="Settings" on:submit=submit>
            <div class="field">
                <label for="seed">"Seed"</label>
                <div class="with-button">
                    <input
                        id="seed" type="number" min="0" max="18446744073709551615" step="1"
                        prop:value=move || seed.get().to_string()
                        on:change:target=move |e| seed.set(e.target().value().parse().unwrap_or(seed.get_untracked()))
                    />
                    <button type="button" class="plain" on:click=dice title="Another seed">"Dice"</button>
                </div>
                <p>"The noise to start from. The same seed makes the same picture, here and on the command line."</p>
            </div>
            <div class="field">
                <label for="count">"Pictures"</label>
                <select
                    id="count"
                    on:change:target=move |e| count.set(e.target().value().parse().unwrap_or(1))
                    prop:value=move || count.get().to_string()
                >
                    {COUNTS.map(|n| view! { <option value=n.to_string()>{n}</option> })}
                </select>
            </div>
            <div class="field">
                <label for="steps">"Steps"</label>
                <input
                    id="steps" type="number" min="1" max=Settings::MAX_STEPS.to_string() step="1"
                    prop:value=move || settings.read().steps.to_string()
                    on:change:target=move |e| set_steps(e.target().value())
                />
            </div>
            <div class="field">
                <label for="sampler">"Sampler"</label>
                <select
                    id="sampler"
                    on:change:target=move |e| set_sampler(e.target().value())
                    prop:value=move || if is_heun() { "heun" } else { "euler" }
                >
                    <option value="heun">"Heun (second order)"</option>
                    <option value="euler">"Euler (first order)"</option>
                </select>
            </div>
            <div class="actions">
                <button
                    type="submit" class="primary" data-testid="generate"
                    disabled=move || !usable() || *state.doing.read() == Doing::Cancelling
                >
                    {move || if busy() { "Cancel" } else { "Generate" }}
                </button>
                <button
                    type="button" class="plain" data-testid="download"
                    disabled=move || state.finished.read().is_none()
                    on:click=move |_| { state.finished.with(|f| f.as_ref().map(download)); }
                >
                    "Download PNG"
                </button>
                <Show when=move || *state.doing.read() == Doing::Broken>
                    <button type="button" class="plain" data-testid="again" on:click=move |_| engine.load()>"Try again"</button>
                </Show>
            </div>
        </form>
    }
}

/// Hands the pictures to the visitor as a PNG file with their settings inside.
fn download(finished: &Finished) {
    let Ok(png) = finished.grid.to_png(Some(&finished.origin)) else { return };
    let options = BlobPropertyBag::new();
    options.set_type("image/png");
    let parts = Array::of1(&Uint8Array::from(&png[..]));
    let link =
        document().create_element("a").ok().and_then(|a| a.dyn_into::<HtmlAnchorElement>().ok());
    let blob = Blob::new_with_u8_array_sequence_and_options(&parts, &options);
    if let (Some(link), Ok(blob)) = (link, blob)
        && let Ok(url) = Url::create_object_url_with_blob(&blob)
    {
        let seed = finished.origin.seeds.first().copied().unwrap_or_default();
        link.set_href(&url);
        link.set_download(&format!("diffit-{seed}.png"));
        link.click();
        // It fails only for what is not an address.
        let _ = Url::revoke_object_url(&url);
    }
}
