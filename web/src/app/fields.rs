//! Fields of forms.

use std::rc::Rc;

use leptos::prelude::*;

use crate::scene::number;

/// A field for a number. What is typed is brought into the range.
#[component]
pub fn Number<T>(
    /// Its name in the page.
    id: &'static str,
    /// What it is called.
    label: &'static str,
    /// The number.
    #[prop(into)]
    value: Signal<T>,
    /// Where it may lie.
    range: std::ops::RangeInclusive<T>,
    /// Told of another number.
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
    number_field(id, label, text, bounds, Box::new(take))
}

/// The field itself. It is one function for all numbers, which keeps the program small.
fn number_field(
    id: &'static str,
    label: &'static str,
    value: Signal<String>,
    [min, max]: [String; 2],
    take: Box<dyn Fn(&str)>,
) -> AnyView {
    view! {
        <div class="field">
            <label for=id>{label}</label>
            <input
                id=id type="number" step="any" inputmode="decimal" min=min max=max
                prop:value=move || value.get()
                on:change:target=move |e| {
                    take(&e.target().value());
                    // What could not be used is put right in the field too.
                    e.target().set_value(&value.get_untracked());
                }
            />
        </div>
    }
    .into_any()
}

/// A field for a text that may be refused: why, stands below it.
#[component]
pub fn Text(
    /// Its name in the page.
    id: &'static str,
    /// What it is called.
    label: &'static str,
    /// The text.
    #[prop(into)]
    value: Signal<String>,
    /// What it could be, where it is empty.
    #[prop(optional)]
    example: &'static str,
    /// Why it was refused.
    problem: RwSignal<Option<String>>,
    /// Told of another text, which it takes or refuses.
    on_change: impl Fn(&str) -> Result<(), String> + 'static,
) -> impl IntoView {
    let value = Memo::new(move |_| value.get());
    // What is taken, or comes from elsewhere, is in order.
    Effect::new(move || {
        value.track();
        problem.set(None);
    });
    let problem_id = format!("{id}-problem");
    let described = problem_id.clone();
    view! {
        <div class="field">
            <label for=id>{label}</label>
            <input
                id=id type="text" autocomplete="off" spellcheck="false" placeholder=example
                aria-invalid=move || problem.read().is_some().then_some("true")
                aria-describedby=move || problem.read().is_some().then(|| described.clone())
                prop:value=move || value.get()
                on:change:target=move |e| {
                    let taken = on_change(&e.target().value());
                    if taken.is_ok() {
                        e.target().set_value(&value.get_untracked());
                    }
                    problem.set(taken.err());
                }
            />
            <div role="alert">
                <p class="trouble" id=problem_id hidden=move || problem.read().is_none()>
                    {move || problem.get()}
                </p>
            </div>
        </div>
    }
}

/// A choice of one among few.
#[component]
pub fn Choice<T, const N: usize>(
    /// Its name in the page, and the start of its options' names.
    id: &'static str,
    /// What it is called.
    label: &'static str,
    /// The options: value, name in the page, what they are called.
    options: [(T, &'static str, &'static str); N],
    /// The value.
    #[prop(into)]
    value: Signal<T>,
    /// Told of another value.
    on_change: impl Fn(T) + 'static,
) -> impl IntoView
where
    T: Copy + PartialEq + Send + Sync + 'static,
{
    let values = options.map(|(value, ..)| value);
    let chosen = Signal::derive(move || values.iter().position(|option| *option == value.get()));
    let texts = options.map(|(_, name, text)| (name, text));
    choice_field(id, label, &texts, chosen, Rc::new(move |i: usize| on_change(values[i])))
}

/// The choice itself, by number: one function for all choices.
fn choice_field(
    id: &'static str,
    label: &'static str,
    options: &[(&'static str, &'static str)],
    chosen: Signal<Option<usize>>,
    choose: Rc<dyn Fn(usize)>,
) -> AnyView {
    let options = options.iter().enumerate().map(|(i, &(name, text))| {
        let choose = choose.clone();
        view! {
            <label>
                <input
                    type="radio" name=id id=format!("{id}-{name}")
                    prop:checked=move || chosen.get() == Some(i)
                    on:change=move |_| choose(i)
                />
                <span>{text}</span>
            </label>
        }
    });
    view! {
        <fieldset class="choice">
            <legend>{label}</legend>
            <div>{options.collect_view()}</div>
        </fieldset>
    }
    .into_any()
}
