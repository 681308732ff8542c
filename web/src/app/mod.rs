//! The page, as Leptos components.
//!
//! They show [`state::State`]. Input changes the scene in it, or sends a request through
//! [`engine::Engine`].

mod about;
mod attend;
mod controls;
mod engine;
mod explain;
mod fields;
mod keep;
mod make;
mod names;
mod paint;
mod picker;
mod picture;
mod plane;
mod play;
mod playground;
mod stage;
mod state;
mod status;
mod timeline;

use leptos::mount::mount_to;
use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue};

use crate::names::opening;
use crate::scene::{NO_CLASS, Scene, View, name_of, refused};

use about::{Card, Machine, Models, Storage};
use attend::{Attention, AttentionControls, Strip};
use engine::Engine;
use keep::{Keep, accept_drops};
use make::{Make, generate, keep_up};
use picker::Picker;
use play::Play;
use playground::Playground;
use stage::Stage;
use state::{Doing, State};
use status::Status;
use timeline::Timeline;

/// Mounts the page.
pub fn start() {
    console_error_panic_hook::set_once();
    let place = document()
        .get_element_by_id("app")
        .and_then(|element| element.dyn_into().ok())
        .expect("index.html has a place for the page");
    mount_to(place, App).forget();
}

/// The views and their labels.
const VIEWS: [(View, &str); 5] = [
    (View::Form, "Form"),
    (View::Attend, "Attend"),
    (View::Play, "Play"),
    (View::Playground, "Playground"),
    (View::About, "About"),
];

/// Returns the part of the address from `#` on.
fn hash() -> String {
    document().location().and_then(|location| location.hash().ok()).unwrap_or_default()
}

#[component]
fn App() -> impl IntoView {
    let link = hash();
    let state = State::new(&link);
    let engine = Engine::start(state);
    accept_drops(state, engine);
    keep_link(state);
    let view = Memo::new(move |_| state.scene.read().view);
    // The playground has pictures of its own. Those of the model are made once another view is opened.
    let plays = move || view.get() == View::Playground;
    Effect::new(move || {
        if *state.doing.read() == Doing::Resting && state.draws.get() && !plays() {
            state.draws.set(false);
            let needs_picture = untrack(|| state.scene.read().order(0).guide.is_some());
            if !needs_picture {
                generate(state, engine);
            }
        }
    });
    keep_up(state, engine);
    let is = move |wanted: View| move || view.get() == wanted;
    let shows_pictures = move || !matches!(view.get(), View::Playground | View::About);
    let tabs = VIEWS.map(|(this, name)| {
        view! {
            <button
                type="button" data-testid=format!("view-{}", name_of(&View::ALL, this))
                aria-current=move || (view.get() == this).then_some("page")
                on:click=move |_| state.scene.update(|scene| scene.view = this)
            >{name}</button>
        }
    });
    view! {
        <main data-state=move || state.doing.read().word() data-view=move || name_of(&View::ALL, view.get())>
            <header>
                <div>
                    <h1>"DiffiT"</h1>
                    <p>"Watch a diffusion transformer turn noise into pictures. It runs here, in your browser."</p>
                </div>
                <div class="top">
                    <Picker state engine/>
                    <nav aria-label="Views">{tabs}</nav>
                </div>
            </header>
            <Show when=plays><Playground state engine/></Show>
            <Show when=shows_pictures>
                <div class="stage card">
                    <Show when=is(View::Attend) fallback=move || view! { <Stage state/> }>
                        <Attention state engine/>
                    </Show>
                    <Show when=move || state.run.read().is_some()><Timeline state/></Show>
                    <Show when=is(View::Attend)><Strip state/></Show>
                </div>
            </Show>
            <div class="side">
                <Status state engine/>
                <Show when=is(View::Form)><Make state engine/></Show>
                <Show when=is(View::Attend)><AttentionControls state engine/></Show>
                <Show when=is(View::Play)><Play state engine/></Show>
                <Show when=shows_pictures><Keep state engine/></Show>
            </div>
            <Show when=is(View::About)>
                <div class="about">
                    <Card state/>
                    <Models state engine/>
                    <Machine state/>
                    <Storage state/>
                    <Understand/>
                </div>
            </Show>
        </main>
    }
}

/// A short explanation of diffusion and DiffiT, and all topics.
#[component]
fn Understand() -> impl IntoView {
    view! {
        <section class="card wide" aria-labelledby="understand">
            <h2 id="understand">"How it works"</h2>
            <p>
                "A denoiser is a network that is trained to estimate the picture in a noisy one. Sampling \
                 starts with pure noise. Each step computes the estimate, moves towards it, and lowers the \
                 noise level. After some dozen steps there is no noise left."
            </p>
            <p>
                "DiffiT is such a network, made of transformer blocks. Its contribution is that queries, keys \
                 and values of the attention depend on the noise level too. So it can attend to different \
                 places for the layout of a picture and for its details."
            </p>
            {crate::explain::ALL.map(|topic| view! {
                <details class="explain topic">
                    <summary><strong>{topic.title}</strong>": "{topic.line}</summary>
                    <p>{topic.more}</p>
                    <p class="equation">{topic.equation}</p>
                    <p class="source">{topic.source}</p>
                </details>
            })}
            <p>
                <a href="https://arxiv.org/abs/2312.02139">"The paper"</a>
            </p>
        </section>
    }
}

/// Keeps the scene and the address in step.
fn keep_link(state: State) {
    Effect::new(move || {
        let link = state.scene.read().encode();
        if Scene::decode(&hash()).encode() == link {
            return;
        }
        let address = document().location().and_then(|location| location.href().ok());
        let address = address.unwrap_or_default();
        let page = address.split('#').next().unwrap_or_default();
        // Without a link, the page would start with classes.
        let link = if link.is_empty() { NO_CLASS } else { &link };
        let address = format!("{page}#{link}");
        // Browsers limit the rate of these calls. The next change corrects the address then.
        let history = window().history();
        let _ = history.map(|h| h.replace_state_with_url(&JsValue::NULL, "", Some(&address)));
    });
    let changed = window_event_listener(leptos::ev::hashchange, move |_| {
        let (link, mut scene) = (hash(), Scene::decode(&hash()));
        state.anew.set(link.trim_start_matches('#').is_empty());
        if let Some(ready) =
            state.ready.read_untracked().as_ref().filter(|_| state.anew.get_untracked())
        {
            scene.open(opening(&state.names.read_untracked(), &ready.card.class_groups));
        }
        state.refused.set(refused(&link));
        state.scene.set(scene);
    });
    on_cleanup(move || changed.remove());
}
