//! Seed, number, sampler; Generate and Cancel.

use std::time::Duration;

use leptos::prelude::*;
use model::schedule::Schedule;
use model::settings::{Method, Settings};
use web_time::Instant;

use super::engine::Engine;
use super::explain::Explain;
use super::fields::{Choice, Number, Text};
use super::names::Names;
use super::state::{Doing, Guide, State};
use crate::explain;
use crate::scene::{
    Game, LEVELS, Levels, METHODS, Scene, VARIANCES, View, edm, levels, range, respacing,
    set_levels, set_respacing, set_steps,
};

/// Seeds that are remembered.
const HISTORY: usize = 8;

/// The form of the view "Form".
#[component]
pub fn Make(state: State, engine: Engine) -> impl IntoView {
    let counts = [(1, "1", "1"), (4, "4", "4"), (9, "9", "9"), (16, "16", "16")];
    view! {
        <form class="card make" aria-label="Settings" on:submit=move |event| submit(event, state, engine)>
            <Names state/>
            <Choice
                id="count" label="Pictures" options=counts
                value=Signal::derive(move || state.scene.read().count)
                on_change=move |count| state.scene.update(|scene| scene.count = count)
            />
            <Generate state engine/>
            <Seed state/>
            <details class="more">
                <summary data-testid="more">"Sampler and noise levels"</summary>
                <HowMade id=["sampler", "steps"] state/>
                <Finer state/>
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
                <button type="button" class="plain" data-testid="dice" on:click=move |_| set(dice(state))>"Dice"</button>
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

/// Another seed: one of those whose pictures come in the order of their names.
fn dice(state: State) -> u64 {
    let seed = (js_sys::Math::random() * 1e6) as u64;
    let names = state.scene.read_untracked().settings.classes.len().max(1) as u64;
    seed - seed % names
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
    let texts = ["Heun", "Euler", "iPNDM", "DPM++", "DDIM", "DDPM"];
    let kind = std::mem::discriminant::<Method>;
    let methods = std::array::from_fn::<_, 6, _>(|i| (kind(&METHODS[i].0), METHODS[i].1, texts[i]));
    let evaluations = move || get().method.evaluations(get().steps);
    view! {
        <Choice
            id=id[0] label="Sampler" options=methods
            value=Signal::derive(move || kind(&get().method))
            on_change=move |chosen| {
                let method = METHODS.iter().map(|(method, _)| *method).find(|m| kind(m) == chosen);
                set(&|settings| settings.method = method.unwrap_or(settings.method));
            }
        />
        <Number
            id=id[1] label="Steps" range=range::STEPS
            value=Signal::derive(move || get().steps)
            on_change=move |steps| set(&|settings| set_steps(settings, steps))
        />
        <p class="hint">{move || format!("{} evaluations of the model", evaluations())}</p>
    }
}

/// What samplers can be adjusted by, and clipping.
#[component]
fn Finer(state: State) -> impl IntoView {
    let (get, set) = settings(state, false);
    let texts = ["Learned", "Small", "Large"];
    let variances = std::array::from_fn::<_, 3, _>(|i| (VARIANCES[i].0, VARIANCES[i].1, texts[i]));
    let ipndm = move || matches!(get().method, Method::Ipndm { .. });
    let dpmpp = move || matches!(get().method, Method::Dpmpp { .. });
    let order = Signal::derive(move || get().method.order().map_or(0, |(order, _)| order));
    let take = move |order| set(&|settings| settings.method = settings.method.of_order(order));
    let eta = move || if let Method::Ddim { eta } = get().method { Some(eta) } else { None };
    let variance = move || match get().method {
        Method::Ddpm { variance } => Some(variance),
        _ => None,
    };
    view! {
        <Show when=ipndm>
            <Choice
                id="order" label="Order" value=order on_change=take
                options=[(1, "1", "1"), (2, "2", "2"), (3, "3", "3"), (4, "4", "4")]
            />
        </Show>
        <Show when=dpmpp>
            <Choice
                id="order" label="Order" value=order on_change=take
                options=[(2, "2", "2"), (3, "3", "3")]
            />
        </Show>
        <Show when=move || eta().is_some()>
            <Number
                id="eta" label="Fresh noise η" range=range::ETA
                value=Signal::derive(move || eta().unwrap_or_default())
                on_change=move |eta| set(&|settings| settings.method = Method::Ddim { eta })
            />
        </Show>
        <Show when=move || variance().is_some()>
            <Choice
                id="variance" label="Variance of a step" options=variances
                value=Signal::derive(move || variance().unwrap_or_default())
                on_change=move |variance| set(&|settings| settings.method = Method::Ddpm { variance })
            />
        </Show>
        <label class="check">
            <input
                type="checkbox" id="clip" prop:checked=move || get().clip_denoised
                on:change:target=move |e| {
                    let clip = e.target().checked();
                    set(&|settings| settings.clip_denoised = clip);
                }
            />
            <span>"Clip every guess to the range of pictures"</span>
        </label>
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
    let ends = move || edm(&settings().schedule);
    let change = move |change: &dyn Fn(&mut Settings)| {
        state.scene.update(|scene| change(&mut scene.settings));
    };
    let set_ends = move |edit: &dyn Fn(&mut f64, &mut f64, &mut f64)| {
        change(&|settings| {
            let kind = levels(&settings.schedule);
            let [mut sigma_min, mut sigma_max, mut rho] = edm(&settings.schedule);
            edit(&mut sigma_min, &mut sigma_max, &mut rho);
            settings.schedule = Schedule::Edm { sigma_min, sigma_max, rho };
            if kind == Levels::LogSnr {
                set_levels(settings, kind);
            }
        });
    };
    let laid = Memo::new(move |_| levels(&settings().schedule));
    let discrete = move || laid.get() == Levels::Adm;
    let spaced = Signal::derive(move || respacing(&settings()).unwrap_or_default());
    let problem = RwSignal::new(None);
    let take = move |text: &str| {
        state
            .scene
            .try_update(|scene| set_respacing(&mut scene.settings, text))
            .unwrap_or(Ok(()))
            .map_err(|error| format!("{error}."))
    };
    let [(edm_kind, edm_name), (even, even_name)] = LEVELS;
    let kinds =
        [(edm_kind, edm_name, "EDM"), (even, even_name, "Log-SNR"), (Levels::Adm, "adm", "ADM")];
    let choose = move |kind| change(&|settings| set_levels(settings, kind));
    let churns = move || settings().method.takes_churn();
    let paper = move || {
        state.ready.read().as_ref().map_or_else(Settings::default, |r| r.usual.paper.clone())
    };
    view! {
        <Choice id="schedule" label="Noise levels" options=kinds value=laid on_change=choose/>
        <Show when=discrete>
            <Text
                id="respacing" label="Steps of discrete time" value=spaced problem
                example="50" on_change=take
            />
            <Explain topic=explain::RESPACING/>
        </Show>
        <div class="fields">
            <Show when=move || !discrete()>
                <Number
                    id="sigma-max" label="σ max" range=range::SIGMA_MAX value=Signal::derive(move || ends()[1])
                    on_change=move |value| set_ends(&|_, high, _| *high = value)
                />
                <Number
                    id="sigma-min" label="σ min" range=range::SIGMA_MIN value=Signal::derive(move || ends()[0])
                    on_change=move |value| set_ends(&|low, _, _| *low = value)
                />
            </Show>
            <Show when=move || laid.get() == Levels::Edm>
                <Number
                    id="rho" label="ρ" range=range::RHO value=Signal::derive(move || ends()[2])
                    on_change=move |value| set_ends(&|_, _, rho| *rho = value)
                />
            </Show>
            <Show when=churns>
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
            </Show>
        </div>
        <Show when=churns><Explain topic=explain::CHURN/></Show>
        <button
            type="button" class="plain" data-testid="paper"
            disabled=move || settings() == paper()
            on:click=move |_| state.scene.update(|scene| scene.settings = untrack(paper))
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
    let outdated = Signal::derive(move || resting() && state.outdated());
    view! {
        <button
            type="submit" class="primary" class:outdated=outdated
            data-testid="generate"
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
        // Whoever leaves the name for the button wants its pictures, which are on their way.
        let followed = state.followed.get_value();
        if followed.is_none_or(|at| at.elapsed() > LEAVING) {
            engine.cancel();
        }
        return;
    }
    if state.rolls.get_untracked() && state.run.read_untracked().is_some() {
        state.scene.update(|scene| scene.seed = dice(state));
    }
    generate(state, engine);
}

/// An evaluation that takes no longer than this, in milliseconds, is fast enough for pictures to
/// follow their names.
const FAST: f64 = 150.0;

/// As long as it takes to get from a name to the button.
const LEAVING: Duration = Duration::from_secs(1);

/// Makes pictures again when their names or guidance have changed, where the device is fast. Where
/// it is not, the button says so.
pub fn keep_up(state: State, engine: Engine) {
    let asked = Memo::new(move |_| {
        let scene = state.scene.read();
        (scene.settings.classes.clone(), scene.settings.guidance)
    });
    // What was made, or tried, last.
    let tried = StoredValue::new(asked.get_untracked());
    let fast = move || {
        let finished = state.run.read().as_ref().is_some_and(|run| run.finished.is_some());
        finished && state.progress.read().as_ref().is_some_and(|p| p.milliseconds <= FAST)
    };
    Effect::new(move || {
        let asked = asked.get();
        let resting = *state.doing.read() == Doing::Resting;
        if !resting || !untrack(fast) || tried.with_value(|tried| *tried == asked) {
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

/// Generates what the scene asks for.
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
    let beside = scene.order_beside(classes).map(|order| (order, Vec::new(), link.clone()));
    let main = (order, bytes, link);
    engine.generate(beside.into_iter().chain([main]).collect());
}
