//! The picture, as it forms.

use leptos::html::Canvas;
use leptos::prelude::*;
use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ImageData};

use super::{Doing, Frame, State};

/// The canvas, and a poster until there is something on it.
#[component]
pub fn Stage(state: State) -> impl IntoView {
    let canvas = NodeRef::<Canvas>::new();
    Effect::new(move || {
        if let (Some(frame), Some(canvas)) = (&*state.frame.read(), canvas.get()) {
            draw(&canvas, frame);
        }
    });
    let empty = move || state.frame.read().is_none();
    let label = move || match (&*state.finished.read(), &*state.progress.read()) {
        (Some(finished), _) => {
            let steps = finished.origin.settings.steps;
            match finished.origin.seeds[..] {
                [seed] => format!("A picture made from seed {seed}, in {steps} steps"),
                [first, .., last] => {
                    format!("Pictures made from seeds {first} to {last}, in {steps} steps")
                }
                [] => "No picture".into(),
            }
        }
        (None, Some(progress)) => format!(
            "Pictures forming, after evaluation {} of {}",
            progress.evaluation, progress.evaluations
        ),
        (None, None) => "No picture yet".into(),
    };
    view! {
        <section class="stage" aria-label="Pictures">
            <div class="frame" class:forming=move || *state.doing.read() == Doing::Generating>
                <img
                    src="./poster.png"
                    alt="Sixteen small emoji-like pictures made by this model earlier"
                    hidden=move || !empty()
                />
                <canvas node_ref=canvas role="img" aria-label=label hidden=empty data-testid="canvas"/>
            </div>
            <Status state/>
            <p class="how">
                "It begins with pure noise. In every step the model guesses the picture behind the noise, \
                 and the sampler moves a little towards that guess and lowers the noise level. What you \
                 see forming is the guess: first a blur of everything it could become, then one picture."
            </p>
        </section>
    }
}

/// Puts a frame on a canvas of its own size; the style sheet makes it large.
fn draw(canvas: &HtmlCanvasElement, frame: &Frame) {
    let (width, height) = (frame.width as u32, frame.height as u32);
    canvas.set_width(width);
    canvas.set_height(height);
    let context = canvas.get_context("2d").ok().flatten();
    let context = context.and_then(|context| context.dyn_into::<CanvasRenderingContext2d>().ok());
    let image = ImageData::new_with_u8_clamped_array_and_sh(Clamped(&frame.rgba), width, height);
    if let (Some(context), Ok(image)) = (context, image) {
        // It fails only for images without pixels.
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
}

/// What is going on, in a line and a bar.
#[component]
fn Status(state: State) -> impl IntoView {
    let text = move || match &*state.doing.read() {
        Doing::Starting => "Looking for a graphics processor …".into(),
        Doing::Loading(loaded, total) => {
            format!("Loading the model: {} of {} MB", megabytes(*loaded), megabytes(*total))
        }
        Doing::Checking => "Checking that this device computes correctly …".into(),
        Doing::Resting => match &*state.finished.read() {
            None if state.progress.read().is_some() => "Cancelled.".into(),
            None => "Ready. The pictures above were made earlier; make your own.".into(),
            Some(finished) => format!("Done in {}.", seconds(finished.milliseconds)),
        },
        Doing::Generating => state.progress.read().as_ref().map_or_else(
            || "Making noise …".into(),
            |p| {
                let left = p.milliseconds * (p.evaluations - p.evaluation) as f64;
                format!(
                    "Step {} of {}, noise level {:.2}, about {} left",
                    p.step + 1,
                    p.steps,
                    p.sigma,
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
            <p role="status" data-testid="status">{text}</p>
            <progress
                max="1"
                prop:value=move || part().unwrap_or(0.0)
                class:idle=move || part().is_none()
                aria-label="Progress"
            />
            <Show when=move || state.note.read().is_some()>
                <p class="note" data-testid="note">{move || state.note.get()}</p>
            </Show>
            <Show when=move || state.trouble.read().is_some()>
                <p class="trouble" role="alert" data-testid="trouble">{move || state.trouble.get()}</p>
            </Show>
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
