//! Form fields.

use std::rc::Rc;

use leptos::prelude::*;

use crate::scene::number;

/// A number field. Input is clamped to the range.
#[component]
pub fn Number<T>(
    /// The `id` of the input.
    id: &'static str,
    /// The label.
    label: &'static str,
    /// The number.
    #[prop(into)]
    value: Signal<T>,
    /// The range.
    range: std::ops::RangeInclusive<T>,
    /// Called with a new number.
    on_change: impl Fn(T) + 'static,
) -> impl IntoView
where
    T: Copy + PartialOrd + std::fmt::Display + std::str::FromStr + Send + Sync + 'static,
{
    let bounds = [range.start(), range.end()].map(ToString::to_string);
    let text = Signal::derive(move || value.get().to_string());
    let take = move |text: &str| {
        if let Some(number) = number(text, range.clone()) {
            on_change(number);
        }
    };
    number_field(id.into(), [label, ""], text, bounds, Box::new(take))
}

/// A number field, not generic, which keeps the program small. `texts` are its label and its tooltip,
/// `bounds` the smallest and the largest number.
pub fn number_field(
    id: String,
    texts: [&'static str; 2],
    value: Signal<String>,
    [min, max]: [String; 2],
    take: Box<dyn Fn(&str)>,
) -> AnyView {
    let [label, help] = texts;
    view! {
        <div class="field" title=tooltip(help)>
            <label for=id.clone()>{label}</label>
            <input
                id=id type="number" step="any" inputmode="decimal" min=min max=max
                prop:value=Signal::derive(move || value.get())
                on:change:target=move |e| {
                    take(&e.target().value());
                    // Replaces input that was clamped or refused.
                    e.target().set_value(&value.get_untracked());
                }
            />
        </div>
    }
    .into_any()
}

/// A text field. Below it is the message of `take` for input that it refused.
pub fn text_field(
    id: String,
    texts: [&'static str; 2],
    value: Signal<String>,
    placeholder: &'static str,
    take: Box<dyn Fn(&str) -> Result<(), String>>,
) -> AnyView {
    let [label, help] = texts;
    let problem = RwSignal::new(None::<String>);
    let value = Memo::new(move |_| value.get());
    // A new value makes the message obsolete.
    Effect::new(move || {
        value.track();
        problem.set(None);
    });
    let problem_id = format!("{id}-problem");
    let described = problem_id.clone();
    view! {
        <div class="field" title=tooltip(help)>
            <label for=id.clone()>{label}</label>
            <input
                id=id type="text" autocomplete="off" spellcheck="false" placeholder=placeholder
                aria-invalid=Signal::derive(move || problem.read().is_some().then_some("true"))
                aria-describedby=Signal::derive(move || problem.read().is_some().then(|| described.clone()))
                prop:value=Signal::derive(move || value.get())
                on:change:target=move |e| {
                    let taken = take(&e.target().value());
                    if taken.is_ok() {
                        e.target().set_value(&value.get_untracked());
                    }
                    problem.set(taken.err());
                }
            />
            <div role="alert">
                <p class="trouble" id=problem_id hidden=Signal::derive(move || problem.read().is_none())>
                    {move || problem.get()}
                </p>
            </div>
        </div>
    }
    .into_any()
}

/// A checkbox.
pub fn switch_field(
    id: String,
    texts: [&'static str; 2],
    value: Signal<bool>,
    take: Box<dyn Fn(bool)>,
) -> AnyView {
    let [label, help] = texts;
    view! {
        <label class="check" title=tooltip(help)>
            <input
                type="checkbox" id=id prop:checked=Signal::derive(move || value.get())
                on:change:target=move |e| take(e.target().checked())
            />
            <span>{label}</span>
        </label>
    }
    .into_any()
}

/// A choice of one of several options.
#[component]
pub fn Choice<T, const N: usize>(
    /// The name of the group, and the start of the options' `id`s.
    id: &'static str,
    /// The label.
    label: &'static str,
    /// The options: value, end of the `id`, label.
    options: [(T, &'static str, &'static str); N],
    /// The value.
    #[prop(into)]
    value: Signal<T>,
    /// Called with a new value.
    on_change: impl Fn(T) + 'static,
) -> impl IntoView
where
    T: Copy + PartialEq + Send + Sync + 'static,
{
    let values = options.map(|(value, ..)| value);
    let chosen = Signal::derive(move || values.iter().position(|option| *option == value.get()));
    let names = options.iter().map(|(_, name, label)| [name.to_string(), label.to_string()]);
    let choose = Rc::new(move |i: usize| on_change(values[i]));
    choice_field(id.into(), [label, ""], names.collect(), chosen, choose)
}

/// A choice by position, not generic. `options` are the ends of the options' `id`s and their labels.
pub fn choice_field(
    id: String,
    texts: [&'static str; 2],
    options: Vec<[String; 2]>,
    chosen: Signal<Option<usize>>,
    choose: Rc<dyn Fn(usize)>,
) -> AnyView {
    let [label, help] = texts;
    let options = options.into_iter().enumerate().map(move |(i, [name, text])| {
        let choose = choose.clone();
        view! {
            <label>
                <input
                    type="radio" name=id.clone() id=format!("{id}-{name}")
                    prop:checked=Signal::derive(move || chosen.get() == Some(i))
                    on:change=move |_| choose(i)
                />
                <span>{text}</span>
            </label>
        }
    });
    view! {
        <fieldset class="choice" title=tooltip(help)>
            <legend>{label}</legend>
            <div>{options.collect_view()}</div>
        </fieldset>
    }
    .into_any()
}

/// Returns the value of a `title` attribute, which is left out where there is no text.
fn tooltip(help: &'static str) -> Option<&'static str> {
    Some(help).filter(|help| !help.is_empty())
}
