//! Seed, number, sampler; Generate and Cancel.

use leptos::prelude::*;
use model::classes::{find_all, list};
use model::guidance::Guidance;
use model::schedule::Schedule;
use model::settings::{Method, Settings};

use super::engine::Engine;
use super::explain::Explain;
use super::fields::{Choice, Number, Text};
use super::state::{Doing, Guide, State};
use crate::explain;
use crate::scene::{
    CHANNELS, Game, LEVELS, Levels, METHODS, Scene, VARIANCES, View, course, edm, levels, power,
    range, respacing, set_levels, set_respacing, set_steps,
};

/// Seeds that are remembered.
const HISTORY: usize = 8;

/// The form of the view "Form".
#[component]
pub fn Make(state: State, engine: Engine) -> impl IntoView {
    let counts = [(1, "1", "1"), (4, "4", "4"), (9, "9", "9"), (16, "16", "16")];
    view! {
        <form class="card make" aria-label="Settings" on:submit=move |event| submit(event, state, engine)>
            <Seed state/>
            <Classes state/>
            <Choice
                id="count" label="Pictures" options=counts
                value=Signal::derive(move || state.scene.read().count)
                on_change=move |count| state.scene.update(|scene| scene.count = count)
            />
            <Generate state engine/>
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

/// What the pictures are of, and how much: nothing where the model has no classes.
#[component]
pub fn Classes(state: State) -> impl IntoView {
    view! { <Show when=move || { state.classes() > 0 }><ClassesAndGuidance state/></Show> }
}

#[component]
fn ClassesAndGuidance(state: State) -> impl IntoView {
    let names = Memo::new(move |_| state.class_names());
    let text = Signal::derive(move || {
        names.with(|names| list(names, &state.scene.read().settings.classes))
    });
    let take = move |text: &str| {
        let classes = names.with_untracked(|names| find_all(names, text));
        let classes = classes.map_err(|error| format!("{error}."))?;
        state.scene.update(|scene| scene.settings.classes = classes);
        Ok(())
    };
    let options = move || {
        let option =
            |class| view! { <option value=names.with(|names| list(names, &[class.into()]))/> };
        (0..names.read().len()).map(option).collect_view()
    };
    let guided = Memo::new(move |_| state.scene.read().settings.guidance.is_some());
    let classless = move || state.scene.read().settings.classes.is_empty();
    view! {
        <section class="apart" aria-label="Class and guidance">
            <Text
                id="class" label="Class, by name or number" value=text list="class-names"
                example="none" problem=state.class_problem on_change=take
            />
            <datalist id="class-names">{options}</datalist>
            <Explain topic=explain::CLASS/>
            <label class="check">
                <input
                    type="checkbox" id="guidance" prop:checked=move || guided.get()
                    on:change:target=move |e| {
                        let on = e.target().checked();
                        state.scene.update(|scene| {
                            let first = || Guidance::default();
                            scene.settings.guidance = on.then(first);
                        });
                    }
                />
                <span>"Guide to the class"</span>
            </label>
            <Show when=move || guided.get()>
                <Guiding state/>
                <Show when=classless><p class="hint">"Guidance begins with a class to guide to."</p></Show>
            </Show>
            <Explain topic=explain::GUIDANCE/>
        </section>
    }
}

/// Scale, course, channels and interval of guidance.
#[component]
fn Guiding(state: State) -> impl IntoView {
    let get = move || state.scene.read().settings.guidance.unwrap_or_default();
    let set = move |change: &dyn Fn(&mut Guidance)| {
        state.scene.update(|scene| {
            if let Some(guidance) = &mut scene.settings.guidance {
                change(guidance);
            }
        });
    };
    let texts = ["First three", "All"];
    let channels = std::array::from_fn::<_, 2, _>(|i| (CHANNELS[i].0, CHANNELS[i].1, texts[i]));
    // A level above all others stands for no end.
    const TOP: f64 = 1000.0;
    view! {
        <Number
            id="guidance-scale" label="Scale" range=range::GUIDANCE
            value=Signal::derive(move || get().scale)
            on_change=move |scale| set(&|guidance| guidance.scale = scale)
        />
        <details class="fine">
            <summary data-testid="fine">"Course, channels, interval"</summary>
            <Number
                id="guidance-power" label="Power of its course; 0: the scale throughout"
                range=range::GUIDANCE_POWER value=Signal::derive(move || power(&get()))
                on_change=move |power| set(&|guidance| guidance.course = course(power))
            />
            <Choice
                id="guidance-channels" label="Channels" options=channels
                value=Signal::derive(move || get().channels)
                on_change=move |channels| set(&|guidance| guidance.channels = channels)
            />
            <div class="fields">
                <Number
                    id="guidance-low" label="Above σ" range=0.0..=TOP
                    value=Signal::derive(move || get().sigma_low)
                    on_change=move |low| set(&|guidance| guidance.sigma_low = low)
                />
                <Number
                    id="guidance-high" label="Up to σ" range=0.0..=TOP
                    value=Signal::derive(move || get().sigma_high.min(TOP))
                    on_change=move |high| set(&|guidance| {
                        guidance.sigma_high = if high < TOP { high } else { f64::MAX };
                    })
                />
            </div>
        </details>
    }
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
