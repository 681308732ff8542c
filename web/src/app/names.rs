//! Class and guidance: the field with suggestions, random classes, mixtures, the scale.

use leptos::ev::{KeyboardEvent, MouseEvent};
use leptos::html::Input;
use leptos::prelude::*;
use model::classes::{find, find_all, list};
use model::guidance::{Guidance, GuidanceSchedule, GuidedChannels};
use model::label::Label;

use super::controls::Controls;
use super::explain::Explain;
use super::state::State;
use crate::explain;
use crate::names::{Mix, OFFERED, caption, draw, groups_of, matches};
use crate::scene::{Game, Place, View, number, range};

/// Maximum of the guidance slider. The number field takes more.
const STRONG: f64 = 5.0;

/// The controls for class and guidance; nothing if the model has no classes.
#[component]
pub fn Names(state: State) -> impl IntoView {
    view! { <Show when=move || { state.classes() > 0 }><NamesAndGuidance state/></Show> }
}

#[component]
fn NamesAndGuidance(state: State) -> impl IntoView {
    let names = state.names;
    let labels = Memo::new(move |_| state.scene.read().settings.classes.clone());
    let mix = Memo::new(move |_| Mix::of(&labels.read()));
    let change = move |edit: &dyn Fn(&mut Mix)| {
        let mut mix = mix.get_untracked().unwrap_or_default();
        edit(&mut mix);
        state.scene.update(|scene| scene.settings.classes = mix.labels());
    };
    let first = Signal::derive(move || {
        let labels = match &*mix.read() {
            Some(mix) => mix.firsts.iter().copied().map(Label::from).collect(),
            None => labels.get(),
        };
        names.with(|names| list(names, &labels))
    });
    let take_first = Callback::new(move |text: String| {
        let labels = names.with_untracked(|names| find_all(names, &text));
        let labels = labels.map_err(|error| format!("{error}."))?;
        let plain: Option<Vec<usize>> = labels.iter().map(Label::class).collect();
        match plain {
            Some(firsts) => change(&|mix| mix.firsts.clone_from(&firsts)),
            // Mixtures are kept as they were typed.
            None => state.scene.update(|scene| scene.settings.classes = labels),
        }
        Ok(())
    });
    let second = Signal::derive(move || {
        let second = mix.read().as_ref().and_then(|mix| mix.second);
        names.with(|names| list(names, &second.map(Label::from).into_iter().collect::<Vec<_>>()))
    });
    let second_problem = RwSignal::new(None);
    let take_second = Callback::new(move |text: String| {
        let class = match text.trim() {
            "" => None,
            text => {
                let class = names.with_untracked(|names| find(names, text));
                Some(class.map_err(|error| format!("{error}."))?)
            }
        };
        change(&|mix| {
            if mix.second.is_none() {
                mix.percent = 50.0;
            }
            mix.second = class;
        });
        Ok(())
    });
    let random = move |_| {
        let count = names.read_untracked().len();
        let drawn = draw(count, untrack(|| different(state)), js_sys::Math::random);
        state.class_problem.set(None);
        change(&|mix| mix.firsts.clone_from(&drawn));
    };
    // A second class needs a first one. Mixtures of more classes have to be typed.
    let alone = Signal::derive(move || mix.read().as_ref().is_none_or(|mix| mix.firsts.is_empty()));
    let unmixed =
        Signal::derive(move || mix.read().as_ref().is_none_or(|mix| mix.second.is_none()));
    let percent =
        Signal::derive(move || mix.read().as_ref().map_or(0.0, |mix| mix.percent).to_string());
    let said = Signal::derive(move || {
        let mix = mix.get().unwrap_or_default();
        let name = |class: Option<usize>| names.with(|names| caption(names, &Label::from(class)));
        let part = format!("{:.0} % {}", mix.percent, name(mix.second));
        match mix.firsts[..] {
            [first] => format!("{:.0} % {}, {part}", 100.0 - mix.percent, name(Some(first))),
            _ => part,
        }
    });
    view! {
        <section class="names" aria-label="Names and guidance">
            <div class="with-button">
                <NameField
                    id="class" label="Draw" value=first state problem=state.class_problem
                    example="type a name" on_change=take_first
                />
                <button type="button" class="plain" data-testid="random" on:click=random>"Random"</button>
            </div>
            <Problem id="class" problem=state.class_problem/>
            <div class="mixing" hidden=alone>
                <NameField
                    id="second" label="Mixed with" value=second state problem=second_problem
                    example="nothing" on_change=take_second
                />
                <Problem id="second" problem=second_problem/>
                <div class="field" hidden=unmixed>
                    <label for="mix">"Mix: "{said}</label>
                    <input
                        type="range" id="mix" min="0" max="100" step="1" aria-valuetext=said
                        prop:value=percent
                        on:input:target=move |e| {
                            if let Some(percent) = number(&e.target().value(), 0.0..=100.0) {
                                change(&|mix| mix.percent = percent);
                            }
                        }
                    />
                </div>
            </div>
            <Guide state/>
            <Explain topic=explain::CLASS/>
            <Explain topic=explain::GUIDANCE/>
        </section>
    }
}

/// Returns how many of the pictures can have different classes.
fn different(state: State) -> usize {
    let scene = state.scene.read();
    match (scene.view, scene.game) {
        // All of them have the class of the first seed.
        (View::Play, Game::Between | Game::Among | Game::Compare) => 1,
        _ => scene.count,
    }
}

/// The guidance scale; 1 means no guidance.
#[component]
fn Guide(state: State) -> impl IntoView {
    let get = move || state.scene.read().settings.guidance;
    let scale = move || get().map_or(1.0, |guidance| guidance.scale);
    let first = move || {
        let ready = state.ready.read_untracked();
        // The model's usual guidance, or a constant scale for all channels.
        ready.as_ref().and_then(|ready| ready.usual.first.guidance).unwrap_or(Guidance {
            schedule: GuidanceSchedule::Constant,
            channels: GuidedChannels::All,
            ..Guidance::default()
        })
    };
    let set = move |scale: f64| {
        state.scene.update(|scene| match &mut scene.settings.guidance {
            Some(guidance) => guidance.scale = scale,
            None if scale == 1.0 => {}
            none => *none = Some(Guidance { scale, ..first() }),
        });
    };
    let value = Signal::derive(move || scale().to_string());
    let free = Signal::derive(move || get().is_none());
    let named = Signal::derive(move || !state.scene.read().settings.classes.is_empty());
    view! {
        <div class="slider">
            <label for="guidance-scale">"Guidance"</label>
            <input
                type="range" id="guidance" min="1" max=STRONG step="0.1" aria-label="Guidance, 1 for none"
                prop:value=value
                on:input:target=move |e| {
                    if let Some(scale) = number(&e.target().value(), range::GUIDANCE) {
                        set(scale);
                    }
                }
            />
            <input
                type="number" id="guidance-scale" step="any" inputmode="decimal"
                min=range::GUIDANCE.start().to_string() max=range::GUIDANCE.end().to_string()
                prop:value=value
                on:change:target=move |e| {
                    if let Some(scale) = number(&e.target().value(), range::GUIDANCE) {
                        set(scale);
                    }
                    e.target().set_value(&value.get_untracked());
                }
            />
        </div>
        <div hidden=free>
            <p class="hint" hidden=named>"Guidance has no effect without a class."</p>
            <GuidanceDetails state/>
        </div>
    }
}

/// The schedule, the channels and the interval of guidance.
#[component]
fn GuidanceDetails(state: State) -> impl IntoView {
    view! {
        <details class="fine">
            <summary data-testid="fine">"Schedule, channels, interval of guidance"</summary>
            <Controls state places=&[Place::Guidance]/>
            <div class="fields"><Controls state places=&[Place::Interval]/></div>
        </details>
    }
}

/// The error message of a class field.
#[component]
fn Problem(id: &'static str, problem: RwSignal<Option<String>>) -> impl IntoView {
    let none = Signal::derive(move || problem.read().is_none());
    let text = Signal::derive(move || problem.get().unwrap_or_default());
    view! {
        <div role="alert">
            <p class="trouble" id=format!("{id}-problem") hidden=none>{text}</p>
        </div>
    }
}

/// Returns the start of the part that is being typed: after the last comma or semicolon.
fn last_part(text: &str) -> usize {
    text.rfind([',', ';']).map_or(0, |at| at + 1)
}

/// A class field with suggestions: a combobox. Text that is not a suggestion is accepted or refused as
/// a whole.
#[component]
fn NameField(
    /// The `id` of the input.
    id: &'static str,
    /// The label.
    label: &'static str,
    /// The text.
    value: Signal<String>,
    state: State,
    /// The placeholder.
    example: &'static str,
    /// The error message.
    problem: RwSignal<Option<String>>,
    /// Called with new text, which it accepts or refuses.
    on_change: Callback<String, Result<(), String>>,
) -> impl IntoView {
    let value = Memo::new(move |_| value.get());
    // A new value makes the message obsolete.
    Effect::new(move || {
        value.track();
        problem.set(None);
    });
    let input = NodeRef::<Input>::new();
    // The text that suggestions are for, whether they are shown, and the active one.
    let typed = RwSignal::new(String::new());
    let (open, active) = (RwSignal::new(false), RwSignal::new(None::<usize>));
    // Whether the next click is the one that moved the focus to the field.
    let entered = StoredValue::new(false);
    let offered = Memo::new(move |_| {
        if !open.get() {
            return Vec::new();
        }
        let (ready, typed) = (state.ready.read(), typed.read());
        let groups = ready.as_ref().map_or(&[][..], |ready| &ready.card.class_groups);
        matches(&state.names.read(), groups, &typed[last_part(&typed)..], OFFERED)
    });
    let shown = move || open.get() && !offered.read().is_empty();
    let offer = move |text: String| {
        typed.set(text);
        active.set(None);
        open.set(true);
    };
    let commit = move || {
        let Some(input) = input.get_untracked() else { return };
        let taken = on_change.run(input.value());
        if taken.is_ok() {
            input.set_value(&value.get_untracked());
        }
        problem.set(taken.err());
    };
    let choose = move |class: usize| {
        let Some(input) = input.get_untracked() else { return };
        let text = typed.get_untracked();
        let (before, space) = match last_part(&text) {
            0 => ("", ""),
            at => (&text[..at], " "),
        };
        let name = state.names.with_untracked(|names| list(names, &[class.into()]));
        input.set_value(&format!("{before}{space}{name}"));
        open.set(false);
        commit();
    };
    let mark = move |by: isize| {
        if !untrack(shown) {
            // The current value is not a search text.
            let text = input.get_untracked().map(|input| input.value()).unwrap_or_default();
            offer(if text == value.get_untracked() { String::new() } else { text });
        }
        let count = offered.read_untracked().len() as isize;
        if count > 0 {
            let next = match (active.get_untracked(), by) {
                (None, 1) => 0,
                (None, _) => count - 1,
                (Some(at), by) => (at as isize + by).rem_euclid(count),
            };
            active.set(Some(next as usize));
        }
    };
    let press = move |event: KeyboardEvent| match event.key().as_str() {
        "ArrowDown" | "ArrowUp" if !event.alt_key() => {
            event.prevent_default();
            mark(if event.key() == "ArrowDown" { 1 } else { -1 });
        }
        "Enter" if untrack(shown) => {
            // The form is not submitted.
            event.prevent_default();
            let offered = offered.get_untracked();
            let marked = active.get_untracked().and_then(|at| offered.get(at).copied());
            let text = typed.get_untracked();
            let known = state.names.with_untracked(|names| find_all(names, &text).is_ok());
            match marked.or(offered.first().copied().filter(|_| !known)) {
                Some(class) => choose(class),
                None => {
                    open.set(false);
                    commit();
                }
            }
        }
        "Escape" => {
            if untrack(shown) {
                event.prevent_default();
                open.set(false);
            } else if let Some(input) = input.get_untracked() {
                input.set_value(&value.get_untracked());
                problem.set(None);
            }
        }
        _ => {}
    };
    let enter = move |_: MouseEvent| {
        if entered.try_update_value(std::mem::take) == Some(true) {
            if let Some(input) = input.get_untracked() {
                input.select();
            }
            offer(String::new());
        }
    };
    let options = move || {
        let ready = state.ready.read();
        let names = state.names.read();
        let groups = ready.as_ref().map_or(&[][..], |ready| &ready.card.class_groups);
        let group_of = groups_of(names.len(), groups);
        let option = |(i, &class): (usize, &usize)| {
            let selected = Signal::derive(move || yes(active.get() == Some(i)));
            let group = group_of.get(class).map(|group| group.to_string());
            view! {
                <li
                    role="option" id=format!("{id}-option-{i}") aria-selected=selected
                    // The focus stays in the input.
                    on:mousedown=|event: MouseEvent| event.prevent_default()
                    on:click=move |_| choose(class)
                >
                    <span>{names.get(class).cloned().unwrap_or_default()}</span>
                    <span class="group">{group.unwrap_or_default()}</span>
                </li>
            }
        };
        offered.read().iter().enumerate().map(option).collect_view()
    };
    let list_id = format!("{id}-names");
    let controls = list_id.clone();
    let expanded = Signal::derive(move || yes(shown()));
    let marked = Signal::derive(move || {
        active.get().filter(|_| shown()).map(|at| format!("{id}-option-{at}"))
    });
    let wrong = move || problem.read().is_some();
    let invalid = Signal::derive(move || wrong().then(|| "true".to_string()));
    let described = Signal::derive(move || wrong().then(|| format!("{id}-problem")));
    let closed = Signal::derive(move || !shown());
    view! {
        <div class="field combobox">
            <label for=id>{label}</label>
            <input
                node_ref=input id=id type="text" role="combobox" autocomplete="off" spellcheck="false"
                autocapitalize="none" placeholder=example aria-autocomplete="list" aria-controls=controls
                aria-expanded=expanded aria-activedescendant=marked
                aria-invalid=invalid aria-describedby=described prop:value=value
                on:input:target=move |e| offer(e.target().value())
                on:keydown=press
                on:focus=move |_| {
                    entered.set_value(true);
                    if let Some(input) = input.get_untracked() {
                        input.select();
                    }
                }
                on:click=enter
                on:change=move |_| commit()
                on:blur=move |_| open.set(false)
            />
            <ul role="listbox" id=list_id aria-label=format!("{label}: names") hidden=closed>{options}</ul>
        </div>
    }
}

/// Formats a value for an ARIA attribute.
fn yes(is: bool) -> String {
    if is { "true" } else { "false" }.into()
}
