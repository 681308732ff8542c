//! The timeline: the curve of noise levels, and a slider for the step.

use std::time::Duration;

use leptos::prelude::*;

use super::engine::Engine;
use super::explain::Explain;
use super::make::generate;
use super::paint::fits;
use super::state::{Doing, Frame, Guide, Run, State};
use crate::explain;
use crate::plot::{curve, dots, path, phase};
use crate::protocol::Noise;
use crate::scene::range::SIGMA;

/// Time between frames at speed 1, in milliseconds.
const FRAME: f64 = 320.0;
/// The speeds and their labels.
const SPEEDS: [(f64, &str); 4] = [(0.5, "½×"), (1.0, "1×"), (2.0, "2×"), (4.0, "4×")];
/// Size of the plot.
const SIZE: [f64; 2] = [600.0, 96.0];

/// The curve, the slider, and the buttons.
#[component]
pub fn Timeline(state: State, engine: Engine) -> impl IntoView {
    let sigmas = Memo::new(move |_| state.run.read().as_ref().map_or(Vec::new(), Run::sigmas));
    let points = move || curve(&sigmas.read(), SIZE[0], SIZE[1]);
    let frames = move || state.run.read().as_ref().map_or(0, |run| run.frames.len());
    let last = move || frames().saturating_sub(1);
    let here = move || points().get(state.at.get()).copied().unwrap_or([0.0, 0.0]);
    let (playing, speed) = (RwSignal::new(false), RwSignal::new(1.0f64));

    let step = move |by: isize| {
        playing.set(false);
        state.at.update(|at| *at = at.saturating_add_signed(by).min(last()));
    };
    let timer = StoredValue::new(None::<IntervalHandle>);
    let stop = move || {
        if let Some(timer) = timer.try_update_value(Option::take).flatten() {
            timer.clear();
        }
    };
    Effect::new(move || {
        stop();
        if !playing.get() {
            return;
        }
        if state.at.get_untracked() >= untrack(last) {
            state.at.set(0);
        }
        let next = move || {
            if state.at.get_untracked() >= untrack(last) {
                playing.set(false);
            } else {
                state.at.update(|at| *at += 1);
            }
        };
        let pause = Duration::from_secs_f64(FRAME / 1e3 / speed.get());
        timer.set_value(set_interval_with_handle(next, pause).ok());
    });
    on_cleanup(stop);

    let text = move || {
        let sigma = sigmas.read().get(state.at.get()).copied().unwrap_or(0.0);
        let steps = sigmas.read().len().saturating_sub(1);
        let at = state.at.get();
        if sigma == 0.0 {
            format!("After {steps} steps: the picture")
        } else {
            format!("Step {} of {steps}, noise level {}", at + 1, number(sigma))
        }
    };
    let level = Signal::derive(move || {
        let sigma = sigmas.read().get(state.at.get()).copied();
        sigma.map_or(String::new(), |sigma| phase(sigma).into())
    });
    let none = move || frames() < 2;
    // The model's own guess, with other noise of the same level, is another state that leads to a picture.
    let closed = Signal::derive(move || {
        let open =
            |frame: &Frame| frame.sigma >= *SIGMA.start() && !frame.latent && fits(frame, state);
        *state.doing.read() != Doing::Resting || !state.frame().is_some_and(|frame| open(&frame))
    });
    view! {
        <section class="timeline" aria-label="Timeline">
            <svg viewBox=format!("-8 -6 {} {}", SIZE[0] + 16.0, SIZE[1] + 12.0) preserveAspectRatio="none" aria-hidden="true">
                <path class="whole" d=Signal::derive(move || path(&points()))/>
                <path class="done" d=Signal::derive(move || path(&points()[..frames().min(points().len())]))/>
                <path class="dots" d=Signal::derive(move || dots(&points()))/>
                <line class="here" x1=Signal::derive(move || here()[0]) x2=Signal::derive(move || here()[0]) y1="0" y2=SIZE[1] hidden=none/>
                <line class="mark" x1=Signal::derive(move || here()[0]) x2=Signal::derive(move || here()[0]) y1=Signal::derive(move || here()[1]) y2=Signal::derive(move || here()[1]) hidden=none/>
            </svg>
            <input
                type="range" min="0" step="1" aria-label="Step" data-testid="scrubber"
                max=Signal::derive(move || sigmas.read().len().saturating_sub(1).to_string())
                aria-valuetext=text
                prop:value=Signal::derive(move || state.at.get().to_string())
                disabled=none
                on:input:target=move |e| {
                    playing.set(false);
                    let at = e.target().value().parse().unwrap_or(0usize).min(last());
                    state.at.set(at);
                    // The slider stops at the last available step.
                    e.target().set_value(&at.to_string());
                }
            />
            <div class="transport">
                <button type="button" class="icon" aria-label="Step back" disabled=none on:click=move |_| step(-1)>
                    <svg viewBox="0 0 20 20" aria-hidden="true"><path d="M14 4 L6 10 L14 16 Z M4 4 H6 V16 H4 Z"/></svg>
                </button>
                <button
                    type="button" class="icon" data-testid="play" disabled=none
                    aria-label=Signal::derive(move || if playing.get() { "Pause" } else { "Play" })
                    on:click=move |_| playing.update(|playing| *playing = !*playing)
                >
                    <svg viewBox="0 0 20 20" aria-hidden="true">
                        <path d=Signal::derive(move || if playing.get() { "M5 4 H9 V16 H5 Z M11 4 H15 V16 H11 Z" } else { "M6 3 L16 10 L6 17 Z" })/>
                    </svg>
                </button>
                <button type="button" class="icon" aria-label="Step forward" disabled=none on:click=move |_| step(1)>
                    <svg viewBox="0 0 20 20" aria-hidden="true"><path d="M6 4 L14 10 L6 16 Z M14 4 H16 V16 H14 Z"/></svg>
                </button>
                <select
                    aria-label="Speed" prop:value=Signal::derive(move || speed.get().to_string())
                    on:change:target=move |e| speed.set(e.target().value().parse().unwrap_or(1.0))
                >
                    {SPEEDS.map(|(value, name)| view! { <option value=value.to_string() selected={value == 1.0}>{name}</option> })}
                </select>
                <output data-testid="level">{text}</output>
            </div>
            <p class="phase" data-testid="phase">{level}</p>
            <div class="buttons" hidden=closed>
                <button type="button" class="plain small" data-testid="branch" on:click=move |_| branch(state, engine)>
                    "Branch here: four pictures from this guess"
                </button>
            </div>
            <Explain topic=explain::LEVELS/>
        </section>
    }
}

/// Makes four pictures from the selected guess, with other noise of the same level: they show what is
/// still open at that level.
fn branch(state: State, engine: Engine) {
    let (frame, run) = untrack(|| (state.frame(), state.run.get()));
    let picture = untrack(|| state.picture());
    let (Some(frame), Some(run)) = (frame, run) else { return };
    let Some(guess) = frame.guess.get(picture).cloned() else { return };
    let seeds: Vec<u64> = run.order.noises.iter().map(Noise::seed).collect();
    let class = run.order.settings.labels_of(&seeds).get(picture).cloned();
    state.guide.set(Some(Guide::new(guess)));
    state.enlarged.set(None);
    state.scene.update(|scene| scene.branch(frame.sigma, class));
    generate(state, engine);
}

/// Formats a noise level with about three significant digits.
pub fn number(sigma: f64) -> String {
    match sigma {
        s if s >= 10.0 => format!("{s:.1}"),
        s if s >= 1.0 => format!("{s:.2}"),
        s => format!("{s:.3}"),
    }
}
