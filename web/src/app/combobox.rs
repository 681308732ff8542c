//! The class field with suggestions, and its error message.

use leptos::ev::{KeyboardEvent, MouseEvent};
use leptos::html::Input;
use leptos::prelude::*;
use model::classes::{find_all, list};

use super::state::State;
use crate::names::{OFFERED, groups_of, matches};

/// The error message of a class field.
#[component]
pub fn Problem(id: &'static str, problem: RwSignal<Option<String>>) -> impl IntoView {
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
pub fn NameField(
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
