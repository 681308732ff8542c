//! What is going on, in a line and a bar; and what went wrong.

use leptos::prelude::*;

use super::state::{Doing, State};

/// The line, the bar, the troubles. Screen readers are told of beginnings and ends only.
#[component]
pub fn Status(state: State) -> impl IntoView {
    let text = move || match &*state.doing.read() {
        Doing::Starting => "Looking for a graphics processor …".into(),
        Doing::Loading(loaded, total) => {
            format!("Loading the model: {} of {} MB", megabytes(*loaded), megabytes(*total))
        }
        Doing::Checking => "Checking that this device computes correctly …".into(),
        Doing::Resting => match state.run.read().as_ref().map(|run| run.finished) {
            None if state.progress.read().is_some() => "Cancelled.".into(),
            None => "Ready.".into(),
            Some(None) => "Cancelled.".into(),
            Some(Some((milliseconds, _))) => format!("Done in {}.", seconds(milliseconds)),
        },
        Doing::Generating => state.progress.read().as_ref().map_or_else(
            || "Making noise …".into(),
            |p| {
                let left = p.milliseconds * (p.evaluations - p.evaluation) as f64;
                format!(
                    "Evaluation {} of {}, about {} left",
                    p.evaluation,
                    p.evaluations,
                    seconds(left)
                )
            },
        ),
        Doing::Cancelling => "Stopping after this evaluation …".into(),
        Doing::Broken => "Something went wrong.".into(),
    };
    let part = move || match &*state.doing.read() {
        Doing::Loading(loaded, total) => Some(*loaded as f64 / (*total).max(1) as f64),
        Doing::Generating | Doing::Cancelling => Some(
            state
                .progress
                .read()
                .as_ref()
                .map_or(0.0, |p| p.evaluation as f64 / p.evaluations as f64),
        ),
        _ => None,
    };
    view! {
        <div class="status">
            <div class="doing">
                <p data-testid="status">{text}</p>
                <progress
                    max="1"
                    prop:value=move || part().unwrap_or(0.0)
                    class:idle=move || part().is_none()
                    aria-label="Progress"
                />
            </div>
            <p class="hidden" role="status">{move || state.said.get()}</p>
            <Show when=move || state.note.read().is_some()>
                <p class="note" data-testid="note">{move || state.note.get()}</p>
            </Show>
            <div role="alert">
                <Show when=move || state.trouble.read().is_some()>
                    <p class="trouble" data-testid="trouble">{move || state.trouble.get()}</p>
                </Show>
            </div>
        </div>
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// A duration for people.
pub fn seconds(milliseconds: f64) -> String {
    match milliseconds / 1e3 {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}
