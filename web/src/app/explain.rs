//! An explanation: one line, and the rest behind a disclosure.

use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use crate::equation::{mathml, mathml_inline, settings};
use crate::explain::{Topic, linked};
use crate::scene::FIELDS;

/// An explanation of a control or a picture.
#[component]
pub fn Explain(topic: Topic) -> impl IntoView {
    view! {
        <details class="explain">
            <summary><span>{topic.line}</span></summary>
            <p>{topic.more}</p>
            {equation(topic.equation)}
            <Symbols equation=topic.equation/>
            <p class="source">{source(topic.source)}</p>
        </details>
    }
}

/// An equation. It scrolls where it is wider than the page.
pub fn equation(text: &'static str) -> impl IntoView {
    view! {
        <div class="equation" role="group" aria-label="Equation" tabindex="0" inner_html=mathml(text)></div>
    }
}

/// The symbols of an equation that are settings. Each leads to its control.
#[component]
fn Symbols(equation: &'static str) -> impl IntoView {
    let link = |(symbol, field): (&'static str, &'static str)| {
        let known = FIELDS.iter().find(|known| known.name == field);
        let (id, label) = known.map_or((field, "Seed"), |known| (known.id, known.label));
        view! {
            <button type="button" class="symbol" data-symbol=symbol on:click=move |_| show(id)>
                <span inner_html=mathml_inline(symbol)></span>{label}
            </button>
        }
    };
    let symbols = settings(equation);
    (!symbols.is_empty()).then(|| {
        let links = symbols.into_iter().map(link).collect_view();
        view! { <p class="symbols" role="group" aria-label="Settings in the equation">{links}</p> }
    })
}

/// Moves the focus to the control of a field, if the present settings have it.
fn show(id: &str) {
    let Some(control) = document().get_element_by_id(id) else { return };
    let mut part = control.parent_element();
    while let Some(element) = part {
        if element.tag_name().eq_ignore_ascii_case("details") {
            let _ = element.set_attribute("open", "");
        }
        part = element.parent_element();
    }
    if let Some(control) = control.dyn_ref::<HtmlElement>() {
        let _ = control.focus();
    }
}

/// A source, with a link to each paper.
pub fn source(text: &'static str) -> Vec<AnyView> {
    let part = |(text, address): (&'static str, Option<String>)| match address {
        Some(address) => {
            view! { <a href=address target="_blank" rel="noreferrer">{text}</a> }.into_any()
        }
        None => view! { <span>{text}</span> }.into_any(),
    };
    linked(text).into_iter().map(part).collect()
}
