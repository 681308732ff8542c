//! The view "Playground": samplers in the plane.

use std::rc::Rc;
use std::time::Duration;

use leptos::prelude::*;
use model::mixture::Mixture;

use super::controls::Controls;
use super::engine::Engine;
use super::fields::{Number, choice_field};
use super::keep::CopyLink;
use super::make::dice;
use super::plane::plane;
use super::state::State;
use super::timeline::number;
use crate::playground::draw::{Axis, arrows, data};
use crate::playground::track::{Track, verdict};
use crate::playground::{PRESETS, PointSet};
use crate::scene::{FIELDS, Field, Place, Slot};

/// Time between two frames, in milliseconds.
const FRAME: f64 = 30.0;
/// Time from noise to data at the speed of [`INTERESTING`], in milliseconds.
const DURATION: f64 = 7000.0;
/// Noise levels between which the particles move most. Others are played faster.
const INTERESTING: [f64; 2] = [0.02, 4.0];
/// How much faster.
const FASTER: f64 = 3.0;
/// Width of the drawing of the marks.
const WIDTH: f64 = 1000.0;
/// Maximum of the sliders for steps and churn. Their number fields take more.
const MOST: f64 = 40.0;

/// The panels, the slider over the noise levels, and the controls.
#[component]
pub fn Playground(state: State, engine: Engine) -> impl IntoView {
    let exploration = Memo::new(move |_| state.scene.read().exploration());
    Effect::new(move || engine.explore(exploration.get()));
    let mixture: Memo<Mixture> = Memo::new(move |_| state.scene.read().playground.points.mixture());
    let axis = Memo::new(move |_| {
        let explored = state.explored.read();
        let sigmas = explored.iter().flat_map(|tracks| &**tracks).flat_map(Track::levels);
        Axis::of(sigmas)
    });
    let at = RwSignal::new(if still() { 1.0 } else { 0.0 });
    let playing = RwSignal::new(false);
    play(at, playing, axis);
    // Plays once as soon as there is something to see.
    Effect::new(move |started: Option<bool>| {
        let there = state.explored.read().is_some();
        if there && started != Some(true) {
            playing.set(!still());
        }
        there || started == Some(true)
    });

    let field = Memo::new(move |_| arrows(&mixture.read(), axis.get().sigma(at.get())));
    let dots = Memo::new(move |_| data(&mixture.read()));
    let panels = [0, 1].map(|of| plane(state, of, at, axis, [dots, field]));
    let controls = [0, 1].map(|of| controls(state, of));
    let said = move || {
        let explored = state.explored.read();
        explored.as_ref().map(|tracks| verdict([&tracks[0].outcome, &tracks[1].outcome]))
    };
    let refused = move || {
        state.refused.get().map(|pairs| {
            format!("This link has values that the playground does not know: {pairs}. It shows the usual ones instead.")
        })
    };
    view! {
        <section class="playground" aria-labelledby="playground">
            <div class="card intro">
                <h2 id="playground">"Playground"</h2>
                <p>
                    "Each dot starts as noise and is moved towards the data by the sampler that makes the \
                     pictures, here with a denoiser that is known exactly. The paths curve where the data take \
                     shape, and a sampler that takes straight steps there ends in the wrong place. Both \
                     panels start from the same noise."
                </p>
                <p class="note" data-testid="refused" hidden=move || state.refused.read().is_none()>{refused}</p>
                {presets(state, at, playing)}
                {what(state)}
            </div>
            {panels}
            <div class="card level">
                <p class="verdict" aria-live="polite" data-testid="verdict">{said}</p>
                {slider(state, at, playing, axis)}
            </div>
            {controls}
        </section>
    }
}

/// Returns whether the visitor prefers no motion.
fn still() -> bool {
    let query = window().match_media("(prefers-reduced-motion: reduce)");
    query.ok().flatten().is_some_and(|query| query.matches())
}

/// Moves along the axis while it plays.
fn play(at: RwSignal<f64>, playing: RwSignal<bool>, axis: Memo<Axis>) {
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
        if at.get_untracked() >= 1.0 {
            at.set(0.0);
        }
        let next = move || {
            let sigma = axis.get_untracked().sigma(at.get_untracked());
            let slow = (INTERESTING[0]..INTERESTING[1]).contains(&sigma);
            let by = FRAME / DURATION * if slow { 1.0 } else { FASTER };
            at.update(|at| *at = (*at + by).min(1.0));
            if at.get_untracked() >= 1.0 {
                playing.set(false);
            }
        };
        let pause = Duration::from_secs_f64(FRAME / 1e3);
        timer.set_value(set_interval_with_handle(next, pause).ok());
    });
    on_cleanup(stop);
}

/// The presets, and the text of the selected one.
fn presets(state: State, at: RwSignal<f64>, playing: RwSignal<bool>) -> AnyView {
    let selected = Memo::new(move |_| {
        let scene = state.scene.read();
        PRESETS.iter().position(|preset| preset.playground() == scene.playground)
    });
    let buttons: Vec<AnyView> = PRESETS
        .iter()
        .enumerate()
        .map(|(i, preset)| {
            let choose = move |_| {
                state.refused.set(None);
                state.scene.update(|scene| scene.playground = preset.playground());
                at.set(if still() { 1.0 } else { 0.0 });
                playing.set(!still());
            };
            view! {
                <button
                    type="button" class="plain small" data-testid=format!("preset-{}", preset.name)
                    aria-pressed=move || (selected.get() == Some(i)).to_string() on:click=choose
                >{preset.label}</button>
            }
            .into_any()
        })
        .collect();
    let text = move || selected.get().map_or("", |i| PRESETS[i].text);
    view! {
        <div class="presets">
            <div class="buttons" role="group" aria-label="Presets">{buttons}</div>
            <p class="hint" data-testid="preset" hidden=move || selected.get().is_none()>{text}</p>
        </div>
    }
    .into_any()
}

/// The data, the seed, and the link.
fn what(state: State) -> AnyView {
    let options = PointSet::ALL.iter().zip(PointSet::LABELS);
    let options = options.map(|((_, name), label)| [name.to_string(), label.to_string()]).collect();
    let chosen = Signal::derive(move || {
        let points = state.scene.read().playground.points;
        PointSet::ALL.iter().position(|(known, _)| *known == points)
    });
    let choose = move |i: usize| {
        state.scene.update(|scene| scene.playground.points = PointSet::ALL[i].0);
    };
    let seed = Signal::derive(move || state.scene.read().seed);
    let set = move |seed: u64| state.scene.update(|scene| scene.seed = seed);
    view! {
        <div class="what">
            {choice_field("points".into(), ["Data", ""], options, chosen, Rc::new(choose))}
            <div class="with-button">
                <Number id="seed" label="Seed of the noise" value=seed range=0..=u64::MAX on_change=set/>
                <button type="button" class="plain" data-testid="dice" on:click=move |_| set(dice(state))>"Dice"</button>
                <CopyLink state/>
            </div>
        </div>
    }
    .into_any()
}

/// The slider over the noise levels, with a mark for each level of both schedules, and the button that
/// plays.
fn slider(state: State, at: RwSignal<f64>, playing: RwSignal<bool>, axis: Memo<Axis>) -> AnyView {
    let marks = [0, 1].map(|of: usize| {
        let path = Memo::new(move |_| {
            let explored = state.explored.read();
            let levels = explored.as_ref().map_or(Vec::new(), |tracks| tracks[of].levels());
            axis.get().marks(&levels, WIDTH, 10)
        });
        view! {
            <div class="marks" aria-hidden="true">
                <span>{["A", "B"][of]}</span>
                <svg viewBox=format!("0 0 {WIDTH} 10") preserveAspectRatio="none"><path d=path/></svg>
            </div>
        }
        .into_any()
    });
    let [above, below] = marks;
    let text = move || {
        let sigma = axis.get().sigma(at.get());
        if sigma == 0.0 { "No noise left".into() } else { format!("Noise level {}", number(sigma)) }
    };
    view! {
        <div class="transport">
            <button
                type="button" class="icon" data-testid="play"
                aria-label=move || if playing.get() { "Pause" } else { "Play" }
                on:click=move |_| playing.update(|playing| *playing = !*playing)
            >
                <svg viewBox="0 0 20 20" aria-hidden="true">
                    <path d=move || if playing.get() { "M5 4 H9 V16 H5 Z M11 4 H15 V16 H11 Z" } else { "M6 3 L16 10 L6 17 Z" }/>
                </svg>
            </button>
            <div class="levels">
                {above}
                <input
                    type="range" id="level" min="0" max="1" step="0.005" aria-label="Noise level, from noise to data"
                    aria-valuetext=text data-testid="scrubber"
                    prop:value=move || at.get().to_string()
                    on:input:target=move |e| {
                        playing.set(false);
                        at.set(e.target().value().parse().unwrap_or(1.0));
                    }
                />
                {below}
            </div>
            <output data-testid="level">{text}</output>
        </div>
    }
    .into_any()
}

/// The controls of a panel.
fn controls(state: State, of: usize) -> AnyView {
    let slot = Slot::Panel(of);
    let churns = Memo::new(move |_| state.scene.read().settings_in(slot).method.takes_churn());
    let named =
        |name: &str| FIELDS.iter().find(|field| field.name == name).expect("a row of the table");
    view! {
        <fieldset class="card make">
            <legend class="hidden">{["Settings of A", "Settings of B"][of]}</legend>
            <h3 aria-hidden="true">{["A", "B"][of]}</h3>
            <Controls state places=&[Place::Sampler] panel=of/>
            {number_slider(named("steps"), state, slot)}
            <Controls state places=&[Place::Options] panel=of except=&["clip"]/>
            <div hidden=move || !churns.get()>{number_slider(named("churn"), state, slot)}</div>
            <details class="more">
                <summary>"Noise levels"</summary>
                <Controls state places=&[Place::Levels] panel=of/>
                <div class="fields"><Controls state places=&[Place::Shape, Place::High, Place::Low] panel=of except=&["churn"]/></div>
            </details>
        </fieldset>
    }
    .into_any()
}

/// A slider with a number field.
fn number_slider(field: &'static Field, state: State, slot: Slot) -> AnyView {
    let value = Signal::derive(move || field.shown_text(state.scene.read().settings_in(slot)));
    let take = move |text: &str| {
        // Invalid input is replaced by the current value.
        state.scene.update(|scene| {
            let _ = field.enter(scene.settings_in_mut(slot), text);
        });
    };
    let id = format!("{}{}", field.id, slot.suffix());
    let [min, max] = field.bounds();
    view! {
        <div class="slider" title=field.help>
            <label for=id.clone()>{field.label}</label>
            <input
                type="range" id=format!("{id}-slider") min=min.clone() max=MOST step="1" aria-label=field.label
                prop:value=value on:input:target=move |e| take(&e.target().value())
            />
            <input
                id=id type="number" step="any" inputmode="decimal" min=min max=max
                prop:value=value
                on:change:target=move |e| {
                    take(&e.target().value());
                    e.target().set_value(&value.get_untracked());
                }
            />
        </div>
    }
    .into_any()
}
