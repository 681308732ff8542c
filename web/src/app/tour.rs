//! The tour.

use leptos::prelude::*;

use super::state::State;
use crate::scene::STOPS;
use crate::tour;

/// The current stop of the tour with links to its neighbours, or a link to its start. The style sheet
/// highlights the part of the page that the stop explains.
///
/// Signals of the same types keep the program small, where closures would each be another type.
#[component]
pub fn Tour(state: State) -> impl IntoView {
    let at = Memo::new(move |_| state.scene.read().tour);
    let stop = move || tour::stop(&state.scene.read());
    // The link to another stop. During a new visit it leaves the choice of classes to the page.
    let link = move |to: usize| {
        let scene = tour::scene(&state.scene.read(), to);
        format!("#{}", if state.anew.get() { scene.encode() } else { scene.address() })
    };
    let next = move || if at.get() < STOPS { at.get() + 1 } else { 0 };
    let title = Signal::derive(move || match stop() {
        Some(stop) => format!("{} of {STOPS}: {}", at.get(), stop.title),
        None => String::new(),
    });
    let text = Signal::derive(move || stop().map_or(String::new(), |stop| stop.text.into()));
    let off = Signal::derive(move || at.get() == 0);
    let on = Signal::derive(move || at.get() > 0);
    let first = Signal::derive(move || at.get() == 1);
    let last = Signal::derive(move || next() == 0);
    let back = Signal::derive(move || link(at.get().saturating_sub(1)));
    let onward = Signal::derive(move || link(next()));
    let onward_name =
        Signal::derive(move || String::from(if next() == 0 { "Finish" } else { "Next" }));
    let start = Signal::derive(move || link(1));
    let leave = Signal::derive(move || link(0));
    select_steps(state, at);
    view! {
        <p class="invitation" hidden=on>
            <a href=start data-testid="tour">"Take the tour"</a>
            ": six stops in two minutes."
        </p>
        <section class="tour card" aria-label="Tour" hidden=off>
            <div aria-live="polite">
                <h2 data-testid="stop">{title}</h2>
                <p>{text}</p>
            </div>
            <p class="buttons">
                <a class="plain" href=back hidden=first>"Back"</a>
                <a class="plain" href=onward data-testid="next">{onward_name}</a>
                <a class="plain" href=leave data-testid="leave" hidden=last>"Leave the tour"</a>
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
