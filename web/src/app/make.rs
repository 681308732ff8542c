//! The forms of the view "Generate", and the button that makes pictures.

use std::time::Duration;

use leptos::prelude::*;
use model::settings::Settings;
use web_time::Instant;

use super::after_frame;
use super::controls::Controls;
use super::engine::Engine;
use super::explain::Explain;
use super::fields::{Choice, Number, switch_field};
use super::names::{Mixing, Names};
use super::state::{Doing, Guide, State};
use crate::explain;
use crate::scene::{Game, Levels, Place, Slot, View, levels};
use crate::session::Wanted;

/// Number of previous seeds that are kept.
const HISTORY: usize = 8;

/// What most visitors need: the name of the picture, and the button that makes it.
#[component]
pub fn Prompt(state: State, engine: Engine) -> impl IntoView {
    view! {
        <div class="card make prompt">
            <Names state/>
            <Generate state engine/>
        </div>
    }
}

/// The other settings.
#[component]
pub fn Make(state: State) -> impl IntoView {
    let counts = [(1, "1", "1"), (4, "4", "4"), (9, "9", "9"), (16, "16", "16")];
    view! {
        <div class="card make rest">
            <Choice
                id="count" label="Number of pictures" options=counts
                value=Signal::derive(move || state.scene.read().count)
                on_change=move |count| state.scene.update(|scene| scene.count = count)
            />
            <Previews state/>
            <Mixing state/>
            <Seed state/>
            <details class="more">
                <summary data-testid="more">"Sampler and noise levels"</summary>
                <HowMade state/>
                <Controls state places=&[Place::Options]/>
                <Explain topic=explain::SAMPLER/>
                <Schedule state/>
            </details>
        </div>
    }
}

/// The switch of the pictures on the way.
#[component]
pub fn Previews(state: State) -> impl IntoView {
    let help = "When off, only the finished pictures are shown. They are the same either way; a GPU is \
                faster without sending the others.";
    switch_field(
        "previews".into(),
        ["Show the pictures on the way", help],
        Signal::derive(move || state.scene.read().previews),
        Box::new(move |on| state.scene.update(|scene| scene.previews = on)),
    )
}

/// The seed: number, dice, lock, previous seeds.
#[component]
pub fn Seed(state: State) -> impl IntoView {
    let seed = Signal::derive(move || state.scene.read().seed);
    let set = move |seed: u64| state.scene.update(|scene| scene.seed = seed);
    let past = move || {
        let now = seed.get();
        state
            .history
            .get()
            .into_iter()
            .filter(|&past| past != now)
            .map(|past| {
                view! {
                    <button type="button" class="plain small" on:click=move |_| set(past)>
                        <span class="hidden">"Seed "</span>{past}
                    </button>
                }
            })
            .collect_view()
    };
    view! {
        <div class="seed">
            <div class="with-button">
                <Number id="seed" label="Seed" value=seed range=0..=u64::MAX on_change=set/>
                <button type="button" class="plain" data-testid="dice" on:click=move |_| set(dice(state))>"Dice"</button>
            </div>
            <label class="check">
                <input
                    type="checkbox" id="lock"
                    prop:checked=Signal::derive(move || !state.rolls.get())
                    on:change:target=move |e| state.rolls.set(!e.target().checked())
                />
                <span>"Keep this seed for the next pictures"</span>
            </label>
            <div class="history" data-testid="history">{past}</div>
            <Explain topic=explain::SEED/>
        </div>
    }
}

/// Draws a seed: a multiple of the number of classes, so that the pictures are in their order.
pub(super) fn dice(state: State) -> u64 {
    let seed = (js_sys::Math::random() * 1e6) as u64;
    let names = state.scene.read_untracked().settings.classes.len().max(1) as u64;
    seed - seed % names
}

/// The sampler and the number of steps.
#[component]
pub fn HowMade(
    state: State,
    /// Whether these are the settings to compare with.
    #[prop(optional)]
    compared: bool,
) -> impl IntoView {
    let evaluations = move || {
        let scene = state.scene.read();
        let settings = scene.settings_of(compared);
        settings.method.evaluations(settings.steps)
    };
    view! {
        <Controls state places=&[Place::Sampler, Place::Steps] compared=compared/>
        <p class="hint">{Signal::derive(move || format!("{} evaluations of the model", evaluations()))}</p>
    }
}

/// The noise levels and churn, and a button for the paper's settings.
#[component]
fn Schedule(state: State) -> impl IntoView {
    let discrete = Memo::new(move |_| levels(&state.scene.read().settings.schedule) == Levels::Adm);
    let churns = Memo::new(move |_| state.scene.read().settings.method.takes_churn());
    let paper = move || {
        state.ready.read().as_ref().map_or_else(Settings::default, |r| r.usual.paper.clone())
    };
    view! {
        <Controls state places=&[Place::Levels]/>
        <Show when=move || discrete.get()><Explain topic=explain::RESPACING/></Show>
        <div class="fields"><Controls state places=&[Place::High, Place::Low, Place::Shape]/></div>
        <Show when=move || churns.get()><Explain topic=explain::CHURN/></Show>
        <button
            type="button" class="plain" data-testid="paper"
            disabled=Signal::derive(move || state.scene.read().settings == paper())
            on:click=move |_| state.scene.update(|scene| scene.change(Slot::Pictures, |s| *s = untrack(paper)))
        >
            "The paper's settings"
        </button>
    }
}

/// The button that makes pictures or cancels, and the one that tries again after a failure.
#[component]
pub fn Generate(state: State, engine: Engine) -> impl IntoView {
    let usable = move || state.ready.read().is_some() && *state.doing.read() != Doing::Broken;
    let resting = move || *state.doing.read() == Doing::Resting;
    let outdated = Signal::derive(move || resting() && state.outdated());
    let stops = move || state.doing.read().can_be_cancelled();
    view! {
        <button
            type="submit" class="primary" class:outdated=outdated
            data-testid="generate"
            disabled=Signal::derive(move || !usable() || !(resting() || stops()))
        >
            {move || if state.busy() || state.pressed.get() { "Cancel" } else { "Generate" }}
        </button>
        <Show when=move || *state.doing.read() == Doing::Broken>
            <button type="button" class="plain" data-testid="again" on:click=move |_| engine.again()>"Try again"</button>
        </Show>
    }
}

/// Makes the pictures of the scene, or cancels. To begin takes longer than a click may stay unanswered
/// on a slow device, so the button and the status answer first.
pub fn submit(event: leptos::ev::SubmitEvent, state: State, engine: Engine) {
    event.prevent_default();
    if untrack(|| state.busy()) {
        // Leaving the field of the class starts its pictures. A click on the button that follows is
        // meant to start them, not to cancel them.
        let followed = state.followed.get_value();
        if followed.is_none_or(|at| at.elapsed() > LEAVING) {
            engine.cancel();
        }
        return;
    }
    // A second press takes the first one back.
    let begins = !state.pressed.get_untracked();
    state.pressed.set(begins);
    if !begins {
        return;
    }
    after_frame(move || {
        if !state.pressed.get_untracked() {
            return;
        }
        if state.rolls.get_untracked() && state.run.read_untracked().is_some() {
            state.scene.update(|scene| scene.seed = dice(state));
        }
        generate(state, engine);
        state.pressed.set(false);
    });
}

/// Maximum time between leaving the field of the class and clicking on the button.
const LEAVING: Duration = Duration::from_secs(1);

/// Makes pictures again when their classes or guidance change, if the device is fast. Otherwise the
/// button is highlighted.
pub fn keep_up(state: State, engine: Engine) {
    let asked = Memo::new(move |_| {
        let scene = state.scene.read();
        (scene.settings.classes.clone(), scene.settings.guidance)
    });
    // The classes and guidance of the last attempt.
    let tried = StoredValue::new(asked.get_untracked());
    Effect::new(move || {
        let asked = asked.get();
        let resting = *state.doing.read() == Doing::Resting;
        if !resting || !untrack(|| state.is_fast()) || tried.with_value(|tried| *tried == asked) {
            return;
        }
        tried.set_value(asked.clone());
        let (classes, guidance) = asked;
        let made = state.run.read_untracked().as_ref().is_some_and(|run| {
            (&run.order.settings.classes, run.order.settings.guidance) == (&classes, guidance)
        });
        let needs_picture = state.scene.read_untracked().order(0).guide.is_some();
        if !made && !needs_picture {
            state.followed.set_value(Some(Instant::now()));
            generate(state, engine);
        }
    });
}

/// Makes the pictures of the scene.
pub fn generate(state: State, engine: Engine) {
    if *state.doing.read_untracked() != Doing::Resting {
        return;
    }
    if let Some(problem) = state.class_problem.get_untracked() {
        state.trouble.set(Some(problem));
        return;
    }
    let scene = state.scene.get_untracked();
    let classes = untrack(|| state.classes());
    let order = scene.order(classes);
    let bytes = match (order.guide, state.guide.get_untracked()) {
        (None, _) => Vec::new(),
        (Some(_), Some(guide)) => Guide::bytes(&guide),
        (Some(_), None) => {
            state.trouble.set(Some("Choose a picture to start from first.".into()));
            return;
        }
    };
    if scene.view == View::Play && scene.game == Game::Inpaint {
        let painted = state.guide.read_untracked().as_ref().is_some_and(|g| g.anew.count() > 0);
        if !painted {
            state.trouble.set(Some("Paint over the part to be replaced first.".into()));
            return;
        }
    }
    state.history.update(|history| {
        history.retain(|&past| past != scene.seed);
        history.insert(0, scene.seed);
        history.truncate(HISTORY);
    });
    state.wait.set(None);
    let link = scene.encode();
    let beside = scene.order_beside(classes);
    let beside = beside.map(|order| Wanted { order, bytes: Vec::new(), link: link.clone() });
    let main = Wanted { order, bytes, link };
    engine.generate(beside.into_iter().chain([main]).collect());
}
