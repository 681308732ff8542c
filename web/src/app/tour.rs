//! The tour.

use leptos::prelude::*;

use super::state::State;
use crate::scene::STOPS;
use crate::tour;

/// The current stop of the tour with links to its neighbours, or a link to its start. The style sheet
/// highlights the part of the page that the stop explains.
#[component]
pub fn Tour(state: State) -> impl IntoView {
    let at = Memo::new(move |_| state.scene.read().tour);
    let off = move || at.get() == 0;
    let stop = Memo::new(move |_| tour::stop(&state.scene.read()));
    // The link to another stop. During a new visit it leaves the choice of classes to the page.
    let link = move |to: usize| {
        let scene = tour::scene(&state.scene.read(), to);
        format!("#{}", if state.anew.get() { scene.encode() } else { scene.address() })
    };
    let next = move || if at.get() < STOPS { at.get() + 1 } else { 0 };
    select_steps(state, at);
    view! {
        <p class="invitation" hidden=move || !off()>
            <a href=move || link(1) data-testid="tour">"Take the tour"</a>
            ": six stops, two minutes, no formulas."
        </p>
        <section class="tour card" aria-label="Tour" hidden=off>
            <div aria-live="polite">
                <h2 data-testid="stop">{move || stop.get().map(|stop| format!("{} of {STOPS}: {}", at.get(), stop.title))}</h2>
                <p>{move || stop.get().map(|stop| stop.text)}</p>
            </div>
            <p class="buttons">
                <a class="plain small" href=move || link(at.get().saturating_sub(1)) hidden=move || at.get() == 1>"Back"</a>
                <a class="plain small" href=move || link(next()) data-testid="next">
                    {move || if next() == 0 { "Finish" } else { "Next" }}
                </a>
                <a class="plain small" href=move || link(0) data-testid="leave" hidden=move || next() == 0>"Leave the tour"</a>
            </p>
        </section>
    }
}

/// Selects the step of each stop, at once or as soon as the pictures are done.
fn select_steps(state: State, at: Memo<usize>) {
    let finished =
        Memo::new(move |_| state.run.read().as_ref().is_some_and(|run| run.finished.is_some()));
    // The stop whose step was selected.
    let selected = StoredValue::new(0);
    Effect::new(move || {
        let (now, finished) = (at.get(), finished.get());
        if !finished || selected.get_value() == now {
            return;
        }
        selected.set_value(now);
        let part = tour::stop(&state.scene.read_untracked()).and_then(|stop| stop.at);
        let last = state.run.read_untracked().as_ref().map_or(0, |run| run.frames.len() - 1);
        if let Some(part) = part {
            state.at.set((part * last as f64).round() as usize);
        }
    });
}
