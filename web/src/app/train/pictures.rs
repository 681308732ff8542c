//! The choice of the training pictures: sets, files, drawings.

use leptos::ev::KeyboardEvent;
use leptos::prelude::*;
use model::picture::Rgb;
use wasm_bindgen_futures::spawn_local;
use web_sys::{File, FileList};

use super::runner::Runner;
use crate::app::paint::{Surface, scaled};
use crate::app::picture::Picture;
use crate::app::state::State;
use crate::brush::Mask;
use crate::lesson::shapes::SETS;
use crate::lesson::{MOST_PICTURES, SIDE, shrunk};

/// Enlargement of picture files before they are shrunk to means, which browsers do not do.
const FINE: usize = 16;
/// Maximum size of a picture file in bytes.
const MOST: f64 = 5e7;
/// The colours of a drawing.
const COLOURS: [(&str, [u8; 3]); 8] = [
    ("black", [28, 26, 43]),
    ("red", [227, 51, 61]),
    ("orange", [245, 128, 41]),
    ("yellow", [250, 201, 51]),
    ("green", [41, 163, 102]),
    ("blue", [46, 107, 222]),
    ("violet", [125, 77, 204]),
    ("white", [255, 255, 255]),
];

/// The training pictures, and how to add some.
#[component]
pub fn Pictures(state: State, runner: Runner) -> impl IntoView {
    let sets = SETS.iter().map(|set| {
        let take = move |_| runner.take(set.pictures());
        view! {
            <button type="button" class="plain small" data-testid=format!("set-{}", set.name) on:click=take>{set.label}</button>
        }
    });
    let made = Memo::new(move |_| {
        let run = state.run.read();
        let frame = run.as_ref().filter(|run| run.finished.is_some())?.frames.last().cloned()?;
        let pictures: Option<Vec<Rgb>> = frame.guess.iter().map(shrunk).collect();
        pictures.filter(|_| !frame.latent)
    });
    let take_made = move |_| {
        let names = untrack(|| state.captions());
        let pictures = made.get_untracked().into_iter().flatten().enumerate();
        let named = |(i, picture)| (names.get(i).cloned().unwrap_or_default(), picture);
        runner.take(pictures.map(named).collect());
    };
    let slots = (0..MOST_PICTURES).map(|i| {
        let here = Memo::new(move |_| runner.examples.read().get(i).cloned());
        let picture = Signal::derive(move || here.get().map(|example| example.picture));
        let name = Signal::derive(move || here.get().map_or(String::new(), |e| e.name));
        let remove = move |_| {
            runner.examples.update(|examples| {
                if i < examples.len() {
                    examples.remove(i);
                }
            });
        };
        view! {
            <li hidden=Signal::derive(move || here.read().is_none())>
                <div class="frame tiny"><Picture picture label=name name="example"/></div>
                <p class="name">{name}</p>
                <button
                    type="button" class="plain small" on:click=remove
                    aria-label=Signal::derive(move || format!("Remove {}", name.get()))
                >"Remove"</button>
            </li>
        }
    });
    let none = Signal::derive(move || runner.examples.read().is_empty());
    view! {
        <section class="card choose" aria-labelledby="choose">
            <h2 id="choose">"1. Choose up to eight pictures"</h2>
            <div class="buttons" role="group" aria-label="Examples">
                {sets.collect_view()}
                <button
                    type="button" class="plain small" data-testid="set-made" on:click=take_made
                    disabled=Signal::derive(move || made.read().is_none())
                >"The pictures of Generate"</button>
            </div>
            <ul class="examples" data-testid="examples">{slots.collect_view()}</ul>
            <p class="hint" hidden=Signal::derive(move || !none.get())>
                "Take a set, drop picture files anywhere on this page, choose files, or draw. Everything is \
                 shrunk to 16 by 16 pixels, and nothing leaves your device."
            </p>
            <div class="buttons">
                <label class="file plain small">
                    <span>"Choose files"</span>
                    <input
                        type="file" id="training-files" accept="image/*" multiple
                        on:change:target=move |e| {
                            take(e.target().files(), runner);
                            e.target().set_value("");
                        }
                    />
                </label>
                <button
                    type="button" class="plain small" data-testid="none" disabled=none
                    on:click=move |_| runner.examples.set(Vec::new())
                >"Remove all"</button>
            </div>
            <details class="more">
                <summary data-testid="sketch">"Draw a picture"</summary>
                <Sketch runner/>
            </details>
        </section>
    }
}

/// Adds picture files.
pub fn take(files: Option<FileList>, runner: Runner) {
    let Some(files) = files else { return };
    for file in (0..files.length()).filter_map(|i| files.get(i)) {
        spawn_local(add(file, runner));
    }
}

/// Adds a picture file.
async fn add(file: File, runner: Runner) {
    let name = file.name();
    if file.size() > MOST {
        let message = format!("{name} is larger than 50 MB, the maximum for training pictures.");
        runner.trouble.set(Some(message));
        return;
    }
    let picture = scaled(file, [FINE * SIDE; 2]).await;
    match picture.as_ref().and_then(shrunk) {
        Some(picture) => runner.add(&name, picture),
        None => {
            runner.trouble.set(Some(format!("{name} is not a picture that this browser can read.")))
        }
    }
}

/// A picture that is drawn with a pointer, or with the arrow keys.
#[component]
fn Sketch(runner: Runner) -> impl IntoView {
    let white = || Rgb { width: SIDE, height: SIDE, bytes: vec![255; 3 * SIDE * SIDE] };
    let drawing = RwSignal::new(white());
    let (colour, wide) = (RwSignal::new(0), RwSignal::new(true));
    // Column and row of the keys.
    let place = RwSignal::new([SIDE / 2; 2]);
    let stroke = move |from: [usize; 2], to: [usize; 2]| {
        let mut mask = Mask::new(SIDE, SIDE);
        mask.stroke(from, to, if wide.get_untracked() { 2 } else { 1 }, 1);
        let (_, colour) = COLOURS[colour.get_untracked()];
        drawing.update(|drawing| {
            for (pixel, byte) in drawing.bytes.chunks_exact_mut(3).zip(mask.bytes()) {
                if *byte == 1 {
                    pixel.copy_from_slice(&colour);
                }
            }
        });
    };
    let press = move |event: KeyboardEvent| {
        let [mut x, mut y] = place.get_untracked();
        match event.key().as_str() {
            "ArrowLeft" => x = x.saturating_sub(1),
            "ArrowRight" => x = (x + 1).min(SIDE - 1),
            "ArrowUp" => y = y.saturating_sub(1),
            "ArrowDown" => y = (y + 1).min(SIDE - 1),
            "Enter" | " " => stroke([x, y], [x, y]),
            _ => return,
        }
        event.prevent_default();
        place.set([x, y]);
    };
    let label = move || {
        let [x, y] = place.get();
        format!(
            "Drawing of {SIDE} by {SIDE} pixels, at column {}, row {}: arrow keys move, Enter paints",
            x + 1,
            y + 1
        )
    };
    let area = Signal::derive(move || {
        let [x, y] = place.get();
        [x, y, 1, 1]
    });
    let colours = COLOURS.iter().enumerate().map(|(i, (name, [r, g, b]))| {
        view! {
            <label title=*name>
                <input
                    type="radio" name="colour" id=format!("colour-{name}")
                    prop:checked=Signal::derive(move || colour.get() == i) on:change=move |_| colour.set(i)
                />
                <span class="swatch" style:background=format!("rgb({r} {g} {b})")></span>
                <span class="hidden">{*name}</span>
            </label>
        }
    });
    let picture = Signal::derive(move || Some(drawing.get()));
    view! {
        <div class="sketch">
            <Surface
                picture shown=["The drawing", "drawing"] name="draw" label=Signal::derive(label)
                side=Signal::stored(SIDE) area stroke press
            />
            <fieldset class="colours">
                <legend>"Colour"</legend>
                <div>{colours.collect_view()}</div>
            </fieldset>
            <label class="check">
                <input
                    type="checkbox" id="wide" prop:checked=Signal::derive(move || wide.get())
                    on:change:target=move |e| wide.set(e.target().checked())
                />
                <span>"Wide brush"</span>
            </label>
            <div class="buttons">
                <button
                    type="button" class="plain small" data-testid="add-drawing"
                    on:click=move |_| {
                        runner.add("drawing", drawing.get_untracked());
                        drawing.set(white());
                    }
                >"Add the drawing"</button>
                <button type="button" class="plain small" on:click=move |_| drawing.set(white())>"Clear"</button>
            </div>
        </div>
    }
}
