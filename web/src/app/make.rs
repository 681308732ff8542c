//! Seed, number, sampler; Generate and Cancel.

use leptos::prelude::*;
use model::schedule::Schedule;
use model::settings::Settings;

use super::engine::Engine;
use super::explain::Explain;
use super::fields::{Choice, Number};
use super::state::{Doing, Guide, State};
use crate::explain;
use crate::scene::{Game, METHODS, Scene, View, edm, range};

/// Seeds that are remembered.
const HISTORY: usize = 8;

/// The form of the view "Form".
#[component]
pub fn Make(state: State, engine: Engine) -> impl IntoView {
    let counts = [(1, "1", "1"), (4, "4", "4"), (9, "9", "9"), (16, "16", "16")];
    view! {
        <form class="card make" aria-label="Settings" on:submit=move |event| submit(event, state, engine)>
            <Seed state/>
            <Choice
                id="count" label="Pictures" options=counts
                value=Signal::derive(move || state.scene.read().count)
                on_change=move |count| state.scene.update(|scene| scene.count = count)
            />
            <Generate state engine/>
            <details class="more">
                <summary data-testid="more">"Sampler and noise levels"</summary>
                <HowMade id=["sampler", "steps"] state/>
                <Explain topic=explain::SAMPLER/>
                <Schedule state/>
            </details>
        </form>
    }
}

/// The seed: number, dice, lock, history.
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
                <button type="button" class="plain" data-testid="dice" on:click=move |_| set(dice())>"Dice"</button>
            </div>
            <label class="check">
                <input
                    type="checkbox" id="lock"
                    prop:checked=move || !state.rolls.get()
                    on:change:target=move |e| state.rolls.set(!e.target().checked())
                />
                <span>"Keep this seed for the next picture"</span>
            </label>
            <div class="history" data-testid="history">{past}</div>
            <Explain topic=explain::SEED/>
        </div>
    }
}

/// Another seed.
fn dice() -> u64 {
    (js_sys::Math::random() * 1e6) as u64
}

/// The settings, or those to compare with, and how to change them.
fn settings(
    state: State,
    beside: bool,
) -> (impl Fn() -> Settings + Copy, impl Fn(&dyn Fn(&mut Settings)) + Copy) {
    let pick = move |scene: &Scene| {
        if beside { scene.beside.clone() } else { scene.settings.clone() }
    };
    let change = move |change: &dyn Fn(&mut Settings)| {
        state.scene.update(|scene| {
            change(if beside { &mut scene.beside } else { &mut scene.settings });
        });
    };
    (move || state.scene.with(pick), change)
}

/// Sampler and steps.
#[component]
pub fn HowMade(
    /// Names of sampler and steps in the page.
    id: [&'static str; 2],
    state: State,
    /// Whether these are the settings to compare with.
    #[prop(optional)]
    beside: bool,
) -> impl IntoView {
    let (get, set) = settings(state, beside);
    let texts = ["Heun", "Euler", "DDIM", "DDPM"];
    let methods = std::array::from_fn::<_, 4, _>(|i| (METHODS[i].0, METHODS[i].1, texts[i]));
    let evaluations = move || get().method.evaluations(get().steps);
    view! {
        <Choice
            id=id[0] label="Sampler" options=methods
            value=Signal::derive(move || get().method)
            on_change=move |method| set(&|settings| settings.method = method)
        />
        <Number
            id=id[1] label="Steps" range=range::STEPS
            value=Signal::derive(move || get().steps)
            on_change=move |steps| set(&|settings| settings.steps = steps)
        />
        <p class="hint">{move || format!("{} evaluations of the model", evaluations())}</p>
    }
}

/// The switch that silences the time token.
#[component]
pub fn Silence(
    /// Its name in the page.
    id: &'static str,
    state: State,
    /// Whether these are the settings to compare with.
    #[prop(optional)]
    beside: bool,
) -> impl IntoView {
    let (get, set) = settings(state, beside);
    view! {
        <label class="check">
            <input
                type="checkbox" id=id prop:checked=move || get().silence_time
                on:change:target=move |e| {
                    let silent = e.target().checked();
                    set(&|settings| settings.silence_time = silent);
                }
            />
            <span>"Silence the time token"</span>
        </label>
    }
}

/// Noise levels and churn, and the way back to the paper's settings.
#[component]
fn Schedule(state: State) -> impl IntoView {
    let settings = move || state.scene.read().settings.clone();
    let levels = move || edm(&settings().schedule);
    let change = move |change: &dyn Fn(&mut Settings)| {
        state.scene.update(|scene| change(&mut scene.settings));
    };
    let set_levels = move |edit: &dyn Fn(&mut f64, &mut f64, &mut f64)| {
        change(&|settings| {
            let [mut sigma_min, mut sigma_max, mut rho] = edm(&settings.schedule);
            edit(&mut sigma_min, &mut sigma_max, &mut rho);
            settings.schedule = Schedule::Edm { sigma_min, sigma_max, rho };
        });
    };
    view! {
        <div class="fields">
            <Number
                id="sigma-max" label="σ max" range=range::SIGMA_MAX value=Signal::derive(move || levels()[1])
                on_change=move |value| set_levels(&|_, high, _| *high = value)
            />
            <Number
                id="sigma-min" label="σ min" range=range::SIGMA_MIN value=Signal::derive(move || levels()[0])
                on_change=move |value| set_levels(&|low, _, _| *low = value)
            />
            <Number
                id="rho" label="ρ" range=range::RHO value=Signal::derive(move || levels()[2])
                on_change=move |value| set_levels(&|_, _, rho| *rho = value)
            />
            <Number
                id="churn" label="Churn" range=range::CHURN
                value=Signal::derive(move || settings().churn.s_churn)
                on_change=move |value| change(&|settings| settings.churn.s_churn = value)
            />
            <Number
                id="churn-noise" label="Churn noise" range=range::NOISE
                value=Signal::derive(move || settings().churn.s_noise)
                on_change=move |value| change(&|settings| settings.churn.s_noise = value)
            />
        </div>
        <Explain topic=explain::CHURN/>
        <button
            type="button" class="plain" data-testid="paper"
            disabled=move || settings() == Settings::default()
            on:click=move |_| state.scene.update(|scene| scene.settings = Settings::default())
        >
            "The paper's settings"
        </button>
    }
}

/// Generate or Cancel, and what is going on.
#[component]
pub fn Generate(state: State, engine: Engine) -> impl IntoView {
    let usable = move || state.ready.read().is_some() && *state.doing.read() != Doing::Broken;
    let resting = move || *state.doing.read() == Doing::Resting;
    view! {
        <button
            type="submit" class="primary" data-testid="generate"
            disabled=move || !usable() || !(resting() || *state.doing.read() == Doing::Generating)
        >
            {move || if state.busy() { "Cancel" } else { "Generate" }}
        </button>
        <Show when=move || *state.doing.read() == Doing::Broken>
            <button type="button" class="plain" data-testid="again" on:click=move |_| engine.again()>"Try again"</button>
        </Show>
    }
}

/// Generates what the scene asks for, or cancels.
pub fn submit(event: leptos::ev::SubmitEvent, state: State, engine: Engine) {
    event.prevent_default();
    if untrack(|| state.busy()) {
        engine.cancel();
        return;
    }
    if state.rolls.get_untracked() && state.run.read_untracked().is_some() {
        state.scene.update(|scene| scene.seed = dice());
    }
    generate(state, engine);
}

/// Generates what the scene asks for.
pub fn generate(state: State, engine: Engine) {
    if *state.doing.read_untracked() != Doing::Resting {
        return;
    }
    let scene = state.scene.get_untracked();
    let order = scene.order();
    let bytes = match (order.guide, state.guide.get_untracked()) {
        (None, _) => Vec::new(),
        (Some(_), Some(guide)) => Guide::bytes(&guide),
        (Some(_), None) => {
            state.trouble.set(Some("Choose a picture to start from first.".into()));
            return;
        }
    };
    if scene.view == View::Play && scene.game == Game::Inpaint {
        let painted = state.guide.read_untracked().as_ref().is_some_and(|g| g.anew.contains(&1));
        if !painted {
            state.trouble.set(Some("Paint over what is to be made anew first.".into()));
            return;
        }
    }
    state.history.update(|history| {
        history.retain(|&past| past != scene.seed);
        history.insert(0, scene.seed);
        history.truncate(HISTORY);
    });
    let link = scene.encode();
    let beside = scene.order_beside().map(|order| (order, Vec::new(), link.clone()));
    let main = (order, bytes, link);
    engine.generate(beside.into_iter().chain([main]).collect());
}
