//! Speed as measured here, and what is known of the model.

use leptos::prelude::*;

use super::State;
use super::stage::seconds;
use crate::adapter::Backend;

/// What this machine does.
#[component]
pub fn Facts(state: State) -> impl IntoView {
    let device = move || match state.device.get() {
        None => "…".into(),
        Some((Backend::Cpu, _)) => "processor (WebAssembly)".into(),
        Some((Backend::WebGpu, adapter)) => {
            format!("WebGPU: {}", adapter.unwrap_or_else(|| "unnamed".into()))
        }
    };
    let ready =
        move || state.ready.read().as_ref().map_or("…".into(), |r| seconds(r.milliseconds));
    let check = move || match state.ready.read().as_ref().map(|ready| ready.deviation) {
        None => "…".into(),
        Some(None) => "this model has no known answer".into(),
        Some(Some(deviation)) => format!("passed, off by {deviation:.0e}"),
    };
    let first = move || state.first.get().map_or("…".into(), seconds);
    let evaluation = move || {
        let finished = state.finished.read();
        let finished = finished.as_ref().map(|f| f.milliseconds / f.evaluations as f64);
        let now = state.progress.read().as_ref().map(|p| p.milliseconds);
        finished.or(now).map_or("…".into(), |ms| format!("{ms:.1} ms"))
    };
    view! {
        <section class="facts" aria-labelledby="facts">
            <h2 id="facts">"On this machine"</h2>
            <dl>
                <div><dt>"Computes on"</dt><dd data-testid="device">{device}</dd></div>
                <div><dt>"Ready after"</dt><dd data-testid="ready">{ready}</dd></div>
                <div><dt>"Self-check"</dt><dd data-testid="check">{check}</dd></div>
                <div><dt>"First pictures took"</dt><dd data-testid="first">{first}</dd></div>
                <div><dt>"Per evaluation"</dt><dd data-testid="evaluation">{evaluation}</dd></div>
            </dl>
            <p>"Nothing leaves this page: the model was downloaded, and everything is computed here."</p>
        </section>
    }
}

/// The model's card.
#[component]
pub fn About(state: State) -> impl IntoView {
    let rows = move || {
        state.ready.get().map(|ready| {
            let card = ready.card;
            let loss = card.loss.map_or("not recorded".into(), |loss| format!("{loss:.4}"));
            let hours = card.training_seconds / 3600.0;
            let rows = [
                ("Name", card.name),
                ("Makes", card.summary),
                ("Trained on", card.data),
                ("Data licence", card.data_licence),
                ("Licence", card.licence),
                ("Started from", card.started_from),
                ("Images seen", thousands(card.images_seen)),
                ("Training loss", loss),
                ("Trained with", format!("{hours:.1} hours on {}", card.hardware)),
                ("Parameters", thousands(ready.parameters as u64)),
                ("Multiply-adds", format!("{:.2} G for one evaluation", ready.macs as f64 / 1e9)),
                ("File", format!("{:.1} MB", ready.bytes as f64 / 1e6)),
                ("SHA-256", ready.sha256),
            ];
            let known = rows.into_iter().filter(|(_, value)| !value.is_empty());
            known
                .map(|(name, value)| view! { <div><dt>{name}</dt><dd>{value}</dd></div> })
                .collect_view()
        })
    };
    view! {
        <section class="about" aria-labelledby="about">
            <h2 id="about">"The model"</h2>
            <dl data-testid="card">{rows}</dl>
        </section>
    }
}

/// A number for people, such as 3,150,019.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
