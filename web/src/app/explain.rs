//! An explanation: one line, and the rest behind a disclosure.

use leptos::prelude::*;

use crate::explain::Topic;

/// An explanation of a control or a picture.
#[component]
pub fn Explain(topic: Topic) -> impl IntoView {
    view! {
        <details class="explain">
            <summary><span>{topic.line}</span></summary>
            <p>{topic.more}</p>
            <p class="equation">{topic.equation}</p>
            <p class="source">{topic.source}</p>
        </details>
    }
}
