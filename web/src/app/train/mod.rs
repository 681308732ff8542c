//! The view "Train": training a very small network on a few pictures.

mod pictures;
mod runner;

use js_sys::{Array, Uint8Array};
use leptos::prelude::*;
use model::picture::Rgb;
use web_sys::File;

use super::engine::Engine;
use super::fields::{Choice, switch_field};
use super::keep::hand_over;
use super::picture::Picture;
use super::state::{Doing, State};
use super::status::seconds;
use crate::lesson::{MOST_STEPS, SAMPLES, STEPS, progress};
use crate::plot::{dots, path};
use crate::scene::{COUNTS, View};

pub use pictures::take;
pub use runner::Runner;
use runner::{Phase, Use};

/// Width and height of the drawing of the curve.
const CURVE: [f64; 2] = [600.0, 200.0];

/// The choice of pictures, the controls of the run, and its progress.
#[component]
pub fn Train(state: State, runner: Runner) -> impl IntoView {
    view! {
        <section class="train" aria-labelledby="train">
            <div class="card intro">
                <h2 id="train">"Train a model in this tab"</h2>
                <p>
                    "The network sees your pictures with noise of random strength, and their names, and learns \
                     to remove the noise. That is all of the training. A sample then starts as a name and nothing \
                     but noise, which the network removes step by step. It is a DiffiT of two stages with random \
                     initial weights, small enough for your processor."
                </p>
                <p class="hint">
                    "With so few pictures it memorises them: the samples become copies of your pictures, or \
                     mixtures, and nothing new. The model that this page starts with was trained on 1,911 pictures, \
                     for hours."
                </p>
            </div>
            <pictures::Pictures state runner/>
            <Controls state runner/>
            <Progress runner/>
        </section>
    }
}

/// The options, and the buttons that start, stop and use a run.
#[component]
fn Controls(state: State, runner: Runner) -> impl IntoView {
    let steps = ["200", "600", "1200", "2400"];
    let steps = [0, 1, 2, 3].map(|i| (STEPS[i], steps[i], steps[i]));
    let phase = runner.phase;
    let busy = Signal::derive(move || runner.busy());
    let running = move || matches!(phase.get(), Phase::Running | Phase::Stopping);
    let empty = move || runner.examples.read().is_empty();
    let known = Signal::derive(move || {
        matches!(phase.get(), Phase::Running | Phase::Paused) && runner.curve.read().steps() > 0
    });
    // The worker of the page opens files when it is idle.
    let opens = move || known.get() && *state.doing.read() == Doing::Resting;
    let start = move |_| if untrack(running) { runner.stop() } else { runner.begin() };
    let status = move || match phase.get() {
        Phase::Loading(part) => format!("Loading the program that trains: {:.0} %", 100.0 * part),
        Phase::Stopping => "Stopping after this step …".into(),
        _ => {
            let (learned, steps) = (runner.learned.read(), runner.target.get());
            match &*learned {
                None if phase.get() == Phase::Running => "Making the first samples …".into(),
                None => "Nothing is trained yet.".into(),
                Some(learned) => {
                    let running = phase.get() == Phase::Running;
                    progress(learned, steps, running, seconds)
                }
            }
        }
    };
    let part = move || match phase.get() {
        Phase::Loading(part) => part,
        _ => runner.curve.read().steps() as f64 / runner.target.get().max(1) as f64,
    };
    view! {
        <section class="card make run" aria-labelledby="run">
            <h2 id="run">"2. Train"</h2>
            <Choice
                id="training-steps" label="Number of steps" options=steps value=runner.steps
                on_change=move |steps| runner.steps.set(steps)
            />
            {switch_field(
                "mirror".into(),
                ["Mirrored pictures too", "Each picture is used as it is and mirrored left to right"],
                runner.mirror.into(),
                Box::new(move |mirror| runner.mirror.set(mirror)),
            )}
            <div class="buttons">
                <button
                    type="button" class="primary" data-testid="train" on:click=start
                    disabled=Signal::derive(move || match phase.get() {
                        Phase::Loading(_) | Phase::Stopping => true,
                        Phase::Running => false,
                        Phase::Idle | Phase::Paused => empty(),
                    })
                >{move || if running() { "Stop" } else { "Start training" }}</button>
                <button
                    type="button" class="plain" data-testid="go-on" on:click=move |_| runner.go_on()
                    disabled=Signal::derive(move || {
                        phase.get() != Phase::Paused || runner.curve.read().steps() >= MOST_STEPS
                    })
                >"Continue"</button>
            </div>
            <div class="doing">
                <p data-testid="training-status">{status}</p>
                <progress
                    max="1" aria-label="Progress of training" prop:value=Signal::derive(part)
                    class:idle=Signal::derive(move || !busy.get())
                />
            </div>
            <p class="hidden" role="status">{Signal::derive(move || runner.said.get())}</p>
            <div role="alert">
                <Show when=move || runner.trouble.read().is_some()>
                    <p class="trouble" data-testid="training-trouble">{Signal::derive(move || runner.trouble.get())}</p>
                </Show>
            </div>
            <div class="buttons">
                <button
                    type="button" class="plain small" data-testid="save-weights"
                    disabled=Signal::derive(move || !known.get()) on:click=move |_| runner.write(Use::Save)
                >"Download the weights"</button>
                <button
                    type="button" class="plain small" data-testid="use-weights"
                    disabled=Signal::derive(move || !opens()) on:click=move |_| runner.write(Use::Open)
                >"Use this model in Generate"</button>
            </div>
            <p class="hint">
                "The file is a usual weights file: \u{201c}Open a file\u{201d} in the view Generate loads it, and \
                 the command line makes pictures with it (trainer sample --weights FILE). Training goes on while \
                 you use the other views."
            </p>
        </section>
    }
}

/// Saves or opens weights files once they are written, whatever the view.
pub fn deliver(state: State, engine: Engine, runner: Runner) {
    Effect::new(move || {
        let Some((wanted, name, bytes)) = runner.file.get() else { return };
        runner.file.set(None);
        match wanted {
            Use::Save => hand_over(&bytes, &name, "application/octet-stream"),
            Use::Open => open(&bytes, &name, state, engine, runner),
        }
    });
}

/// Opens a weights file in the worker of the page and goes to its pictures.
fn open(bytes: &[u8], name: &str, state: State, engine: Engine, runner: Runner) {
    let parts = Array::of1(&Uint8Array::from(bytes));
    let Ok(file) = File::new_with_u8_array_sequence(&parts, name) else {
        runner.trouble.set(Some("This browser has no space for the weights file.".into()));
        return;
    };
    engine.open(file);
    state.scene.update(|scene| (scene.view, scene.count) = (View::Form, COUNTS[1]));
    // The page chooses classes of the new model.
    state.anew.set(true);
    state.draws.set(true);
}

/// The curve of the loss, the samples, and the training pictures beside them.
#[component]
fn Progress(runner: Runner) -> impl IntoView {
    let curve = runner.curve;
    let target = runner.target;
    let range = Memo::new(move |_| curve.read().range());
    let line = move || path(&curve.read().line(target.get(), range.get(), CURVE[0], CURVE[1]));
    let all = move || dots(&curve.read().dots(target.get(), range.get(), CURVE[0], CURVE[1]));
    let bound = move |i: usize| Signal::derive(move || range.get()[i].to_string());
    let label = Signal::derive(move || match (curve.read().last(), target.get()) {
        (Some(loss), _) => {
            format!("The loss after {} steps is about {loss:.3}.", curve.read().steps())
        }
        (None, _) => "The loss, once training has started".into(),
    });
    let sample = move |i: usize| {
        let picture = Signal::derive(move || runner.samples.read().1.get(i).cloned());
        let name = Signal::derive(move || {
            let trained = runner.trained.read();
            let name = trained.get(i % trained.len().max(1)).map_or("", |example| &example.name);
            format!("Sample of {name}")
        });
        tile(picture, name, "sample")
    };
    let example = move |i: usize| {
        let here = Memo::new(move |_| runner.trained.read().get(i).cloned());
        let picture = Signal::derive(move || here.get().map(|example| example.picture));
        let name = Signal::derive(move || here.get().map_or(String::new(), |e| e.name));
        tile(picture, name, "trained")
    };
    let heading = move || match runner.samples.get() {
        (0, _) => "Samples before training".into(),
        (step, _) => format!("Samples after {step} steps"),
    };
    let none = Signal::derive(move || runner.samples.read().1.is_empty());
    view! {
        <section class="card learning" aria-labelledby="learning">
            <h2 id="learning">"3. Watch it learn"</h2>
            <p class="empty" hidden=Signal::derive(move || !none.get())>
                "The loss and samples appear here while the model trains."
            </p>
            <div class="watch" hidden=none>
                <figure class="loss">
                    <div class="plot">
                        <span class="most" aria-hidden="true">{bound(1)}</span>
                        <span class="least" aria-hidden="true">{bound(0)}</span>
                        <svg
                            viewBox=format!("0 0 {} {}", CURVE[0], CURVE[1]) preserveAspectRatio="none"
                            role="img" aria-label=label data-testid="loss"
                        >
                            <path class="all" d=all/>
                            <path class="line" d=line/>
                        </svg>
                        <span class="first" aria-hidden="true">"step 0"</span>
                        <span class="last" aria-hidden="true">{Signal::derive(move || target.get().to_string())}</span>
                    </div>
                    <figcaption>
                        <h3>"Loss"</h3>
                        <p class="hint">
                            "The squared error of the denoised pictures, weighted by noise level, on a \
                             logarithmic scale. Each dot is a step of eight noisy pictures, the line their moving \
                             average. Dots scatter because each step draws other noise."
                        </p>
                    </figcaption>
                </figure>
                <figure>
                    <div class="tiles eight" data-testid="samples">{(0..SAMPLES).map(sample).collect_view()}</div>
                    <figcaption>
                        <h3 data-testid="samples-heading">{heading}</h3>
                        <p class="hint">
                            "One sample for each picture's name in turn, always from the same noise, made with the \
                             moving average of the weights."
                        </p>
                    </figcaption>
                </figure>
                <figure>
                    <div class="tiles eight">{(0..SAMPLES).map(example).collect_view()}</div>
                    <figcaption>
                        <h3>"Training pictures"</h3>
                        <p class="hint">"What it is trained on, in the order of the samples."</p>
                    </figcaption>
                </figure>
            </div>
        </section>
    }
}

/// A picture in a grid.
fn tile(picture: Signal<Option<Rgb>>, name: Signal<String>, test: &'static str) -> AnyView {
    view! {
        <div class="tile" hidden=Signal::derive(move || picture.read().is_none())>
            <div class="frame"><Picture picture label=name name=test/></div>
        </div>
    }
    .into_any()
}
