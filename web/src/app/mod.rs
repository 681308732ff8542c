//! The page, as Leptos components.
//!
//! They show [`state::State`]. Input changes the scene in it, or sends a request through
//! [`engine::Engine`].

mod about;
mod attend;
mod combobox;
mod controls;
mod engine;
mod explain;
mod fields;
mod keep;
mod link;
mod make;
mod names;
mod network;
mod paint;
mod picker;
mod picture;
mod plane;
mod play;
mod playground;
mod stage;
mod state;
mod status;
mod survey;
mod timeline;
mod tour;
mod train;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use leptos::mount::mount_to;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::Element;

use crate::scene::{View, name_of};

use about::About;
use attend::{Attention, AttentionControls, Strip};
use engine::Engine;
use keep::{Keep, accept_drops};
use make::{Make, Prompt, generate, keep_up, submit};
use network::Network;
use picker::Picker;
use play::Play;
use playground::Playground;
use stage::Stage;
use state::{Doing, State};
use status::Status;
use survey::Survey;
use timeline::Timeline;
use tour::Tour;
use train::{Runner, Train};

/// Mounts the page in place of what `index.html` shows until then. Its recording stays.
pub fn start() {
    console_error_panic_hook::set_once();
    let place: web_sys::HtmlElement = document()
        .get_element_by_id("app")
        .and_then(|element| element.dyn_into().ok())
        .expect("index.html has a place for the page");
    let record = document().get_element_by_id("record");
    place.set_text_content(None);
    mount_to(place, move || view! { <App record/> }).forget();
}

/// The views and their labels.
const VIEWS: [(View, &str); 6] = [
    (View::Form, "Generate"),
    (View::Attend, "Look inside"),
    (View::Play, "Play"),
    (View::Playground, "Playground"),
    (View::Train, "Train"),
    (View::About, "About"),
];

/// Time after which a frame is not waited for any longer: there is none while the tab is hidden.
const FRAME: Duration = Duration::from_millis(250);

/// Does something once the next frame is on the screen.
fn after_frame(action: impl FnOnce() + 'static) {
    let action = Rc::new(Cell::new(Some(action)));
    let once = move || {
        if let Some(action) = action.take() {
            action();
        }
    };
    let late = once.clone();
    // A callback of a frame runs before it is painted, a timeout of that callback after it.
    request_animation_frame(move || set_timeout(once, Duration::ZERO));
    set_timeout(late, FRAME);
}

/// Returns a signal that follows a view once the next frame is on the screen. To build a view takes
/// longer than a click may stay unanswered on a slow device; the tab is marked at once.
fn after_paint(view: Memo<View>) -> ReadSignal<View> {
    let (shown, show) = signal(view.get_untracked());
    let follow = move || {
        if shown.get_untracked() != view.get_untracked() {
            show.set(view.get_untracked());
        }
    };
    Effect::new(move || {
        if view.get() != shown.get_untracked() {
            after_frame(follow);
        }
    });
    shown
}

#[component]
fn App(
    /// The recording of `index.html`.
    record: Option<Element>,
) -> impl IntoView {
    let state = State::new(&link::hash(), record);
    let engine = Engine::start(state);
    let runner = Runner::new();
    train::deliver(state, engine, runner);
    accept_drops(state, engine, runner);
    link::keep(state);
    let chosen = Memo::new(move |_| state.scene.read().view);
    let view = after_paint(chosen);
    let plays = move || view.get() == View::Playground;
    let trains = move || view.get() == View::Train;
    Effect::new(move || {
        // The playground and training have pictures of their own. Those of the model are made once
        // another view is opened.
        let others = plays() || trains();
        if *state.doing.read() == Doing::Resting && state.draws.get() && !others {
            state.draws.set(false);
            let needs_picture = untrack(|| state.scene.read().order(0).guide.is_some());
            if !needs_picture {
                generate(state, engine);
            }
        }
    });
    keep_up(state, engine);
    attend::request(state, engine);
    let tour = Signal::derive(move || state.scene.read().tour.to_string());
    let is = move |wanted: View| move || view.get() == wanted;
    let shows_pictures =
        move || !matches!(view.get(), View::Playground | View::Train | View::About);
    let tabs = VIEWS.map(|(this, name)| {
        view! {
            <button
                type="button" data-testid=format!("view-{}", name_of(&View::ALL, this))
                aria-current=Signal::derive(move || (chosen.get() == this).then_some("page"))
                on:click=move |_| state.scene.update(|scene| scene.view = this)
            >{name}</button>
        }
    });
    view! {
        <main
            data-state=Signal::derive(move || state.word()) data-view=Signal::derive(move || name_of(&View::ALL, view.get()))
            data-tour=tour
        >
            <header>
                <div>
                    <h1>"DiffiT"</h1>
                    <p>"A diffusion transformer, running in your browser, turns noise into pictures you choose by name."</p>
                </div>
                <div class="top">
                    <Picker state engine/>
                    <nav aria-label="Views">{tabs}</nav>
                </div>
            </header>
            <Tour state/>
            <Show when=plays><Playground state engine/></Show>
            <Show when=trains><Train state runner/></Show>
            // It comes before the pictures that it makes, also where the style sheet places it beside
            // them.
            <form class="side" aria-label="Settings" on:submit=move |event| submit(event, state, engine)>
                <Status state engine/>
                <Show when=is(View::Form)>
                    <Prompt state engine/>
                    <Make state/>
                </Show>
                <Show when=is(View::Attend)><AttentionControls state engine/></Show>
                <Show when=is(View::Play)><Play state engine/></Show>
                <Show when=shows_pictures><Keep state engine/></Show>
            </form>
            <Show when=is(View::About)><About state engine/></Show>
            <Show when=shows_pictures>
                <div class="shown">
                    <div class="stage card">
                        <Show when=is(View::Attend) fallback=move || view! { <Stage state/> }>
                            <Attention state/>
                        </Show>
                        <Show when=move || state.run.read().is_some()><Timeline state engine/></Show>
                        <Show when=is(View::Attend)>
                            <Strip state/>
                            <Survey state/>
                        </Show>
                    </div>
                    <Network state/>
                </div>
            </Show>
        </main>
    }
}
