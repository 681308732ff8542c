//! The page: what is shown, and what is asked of the worker.

mod controls;
mod engine;
mod facts;
mod stage;

use leptos::mount::mount_to;
use leptos::prelude::*;
use model::picture::{Origin, Rgb};
use wasm_bindgen::JsCast;

use crate::adapter::Backend;
use crate::protocol::{Evaluated, Ready};

use controls::Controls;
use engine::Engine;
use facts::{About, Facts};
use stage::Stage;

/// Shows the page.
pub fn start() {
    console_error_panic_hook::set_once();
    let place = document()
        .get_element_by_id("app")
        .and_then(|element| element.dyn_into().ok())
        .expect("index.html has a place for the page");
    mount_to(place, App).forget();
}

/// What the page is doing.
#[derive(Clone, Debug, PartialEq)]
enum Doing {
    /// Waiting for the worker, which looks for a graphics processor.
    Starting,
    /// Downloading weights: bytes so far, bytes in all.
    Loading(u64, u64),
    /// Checking that the device computes what it should.
    Checking,
    /// Nothing; the model is there.
    Resting,
    /// Making pictures.
    Generating,
    /// Making pictures, until the evaluation that runs is done.
    Cancelling,
    /// Nothing, for good.
    Broken,
}

impl Doing {
    /// A word for tests and styles.
    fn word(&self) -> &'static str {
        match self {
            Doing::Starting => "starting",
            Doing::Loading(..) => "loading",
            Doing::Checking => "checking",
            Doing::Resting => "ready",
            Doing::Generating => "generating",
            Doing::Cancelling => "cancelling",
            Doing::Broken => "broken",
        }
    }
}

/// A picture as a canvas takes it.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    width: usize,
    height: usize,
    rgba: Vec<u8>,
}

/// Finished pictures, and how they came about.
#[derive(Clone, Debug, PartialEq)]
struct Finished {
    grid: Rgb,
    origin: Origin,
    milliseconds: f64,
    evaluations: usize,
}

/// Everything the page knows. All parts of it read this; only the engine and the controls write.
#[derive(Clone, Copy)]
struct State {
    doing: RwSignal<Doing>,
    /// What is computed with, and the graphics processor's name.
    device: RwSignal<Option<(Backend, Option<String>)>>,
    /// Something the visitor should know of the device.
    note: RwSignal<Option<String>>,
    /// What went wrong last.
    trouble: RwSignal<Option<String>>,
    ready: RwSignal<Option<Ready>>,
    /// How far the pictures have come.
    progress: RwSignal<Option<Evaluated>>,
    /// What the canvas shows.
    frame: RwSignal<Option<Frame>>,
    finished: RwSignal<Option<Finished>>,
    /// Time from the first request to the first finished pictures.
    first: RwSignal<Option<f64>>,
}

impl State {
    fn new() -> Self {
        Self {
            doing: RwSignal::new(Doing::Starting),
            device: RwSignal::new(None),
            note: RwSignal::new(None),
            trouble: RwSignal::new(None),
            ready: RwSignal::new(None),
            progress: RwSignal::new(None),
            frame: RwSignal::new(None),
            finished: RwSignal::new(None),
            first: RwSignal::new(None),
        }
    }
}

#[component]
fn App() -> impl IntoView {
    let state = State::new();
    let engine = Engine::start(state);
    view! {
        <main data-state=move || state.doing.read().word()>
            <header>
                <h1>"DiffiT"</h1>
                <p>
                    "A diffusion vision transformer, trained in Rust and running here, in your browser: \
                     it turns noise into pictures, step by step."
                </p>
            </header>
            <Stage state/>
            <Controls state engine/>
            <Facts state/>
            <About state/>
        </main>
    }
}
