//! The status line, the progress bar, and messages.

use leptos::prelude::*;

use crate::protocol::Decoding;

use super::engine::Engine;
use super::make::generate;
use super::state::{Doing, State};
use crate::scene::View;

/// The status line before the first evaluation.
const NOISE: &str = "Drawing the initial noise …";

/// The status line, the progress bar, and messages. Screen readers get starts and ends only.
#[component]
pub fn Status(state: State, engine: Engine) -> impl IntoView {
    let text = move || match &*state.doing.read() {
        _ if state.pressed.get() => NOISE.to_string(),
        Doing::Fetching(loaded, total) => {
            format!("Loading the program: {:.0} %", 100.0 * *loaded as f64 / (*total).max(1) as f64)
        }
        Doing::Starting => "Starting …".into(),
        Doing::Loading(loaded, total) => {
            format!("Loading the model: {} of {} MB", megabytes(*loaded), megabytes(*total))
        }
        Doing::Opening(Some((loaded, total))) => {
            format!("Reading the file: {} of {} MB", megabytes(*loaded), megabytes(*total))
        }
        Doing::Opening(None) => "Checking the file …".into(),
        Doing::Checking => "Checking the model, and that this device computes correctly …".into(),
        Doing::Resting => match state.run.read().as_ref().map(|run| run.finished) {
            None if state.progress.read().is_some() => "Cancelled.".into(),
            None => match state.wait.get() {
                None => "Ready.".into(),
                Some(wait) => format!(
                    "Ready. This device is slow: the pictures take about {}. Press Generate to make them.",
                    seconds(wait)
                ),
            },
            Some(None) => "Cancelled.".into(),
            Some(Some((milliseconds, _))) => format!("Done in {}.", seconds(milliseconds)),
        },
        Doing::Generating if state.decoding.read().is_some() => {
            let decoding = state.decoding.get().unwrap_or(Decoding { done: 0, of: 1 });
            format!("Decoding latents: layer {} of {}", decoding.done, decoding.of)
        }
        Doing::Generating => state.progress.read().as_ref().map_or_else(
            || NOISE.into(),
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
        Doing::Cancelling => "Stopping after this step …".into(),
        Doing::Broken => "Something went wrong.".into(),
    };
    let part = move || match &*state.doing.read() {
        Doing::Fetching(loaded, total)
        | Doing::Loading(loaded, total)
        | Doing::Opening(Some((loaded, total))) => Some(*loaded as f64 / (*total).max(1) as f64),
        Doing::Generating | Doing::Cancelling if state.decoding.read().is_some() => {
            state.decoding.get().map(|decoding| decoding.done as f64 / decoding.of.max(1) as f64)
        }
        Doing::Generating | Doing::Cancelling => Some(
            state
                .progress
                .read()
                .as_ref()
                .map_or(0.0, |p| p.evaluation as f64 / p.evaluations as f64),
        ),
        _ => None,
    };
    let fewer = move |_| {
        let Some(count) = state.smaller.get_untracked() else { return };
        state.scene.update(|scene| {
            scene.count = count;
            // The order was for pictures of seeds.
            if scene.view == View::About {
                scene.view = View::Form;
            }
        });
        generate(state, engine);
    };
    view! {
        <div class="status">
            <div class="doing">
                <p data-testid="status">{text}</p>
                <progress
                    max="1"
                    prop:value=Signal::derive(move || part().unwrap_or(0.0))
                    class:idle=Signal::derive(move || part().is_none())
                    aria-label="Progress"
                />
            </div>
            <p class="hidden" role="status">{Signal::derive(move || state.said.get())}</p>
            <Show when=move || state.note.read().is_some()>
                <p class="note" data-testid="note">{Signal::derive(move || state.note.get())}</p>
            </Show>
            <div role="alert">
                <Show when=move || state.trouble.read().is_some()>
                    <p class="trouble" data-testid="trouble">{Signal::derive(move || state.trouble.get())}</p>
                </Show>
            </div>
            <Show when=move || state.smaller.read().is_some()>
                <button
                    type="button" class="plain" data-testid="smaller" on:click=fewer
                    disabled=Signal::derive(move || *state.doing.read() != Doing::Resting)
                >
                    {move || match state.smaller.get() {
                        Some(1) => "Make one picture".into(),
                        count => format!("Make {} pictures", count.unwrap_or_default()),
                    }}
                </button>
            </Show>
        </div>
    }
}

/// Formats a number of bytes in megabytes.
fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Formats a duration.
pub fn seconds(milliseconds: f64) -> String {
    match milliseconds / 1e3 {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 100.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}
