//! An explanation: one line, and the rest behind a disclosure.

use leptos::prelude::*;

use crate::explain::{Topic, linked};

/// An explanation of a control or a picture.
#[component]
pub fn Explain(topic: Topic) -> impl IntoView {
    view! {
        <details class="explain">
            <summary><span>{topic.line}</span></summary>
            <p>{topic.more}</p>
            <p class="equation">{topic.equation}</p>
            <p class="source">{source(topic.source)}</p>
        </details>
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
