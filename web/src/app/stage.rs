//! The pictures as they form: the noisy ones beside what the denoiser makes of them.

use leptos::prelude::*;
use model::picture::Rgb;

use super::explain::Explain;
use super::picture::{Picture, composed};
use super::state::{Run, State};
use crate::explain;
use crate::protocol::Noise;
use crate::scene::{Game, View, list, name_of_method};

/// Both pictures, and a poster until there are any.
#[component]
pub fn Stage(state: State) -> impl IntoView {
    let empty = move || state.run.read().is_none();
    let comparing = move || state.beside.read().is_some() && compares(state);
    let of = move |pick: fn(&super::state::Frame) -> &Vec<Rgb>| {
        Signal::derive(move || {
            state.frame().and_then(|frame| composed(pick(&frame), state.enlarged.get()))
        })
    };
    let (noisy, guess) = (of(|frame| &frame.noisy), of(|frame| &frame.guess));
    let label = move |what: &str| {
        let place = state.frame().map_or(String::new(), |frame| level(frame.sigma));
        let made = state.run.read().as_ref().map_or("nothing yet".into(), described);
        format!("{what} {place}: {made}")
    };
    // The poster is of the first model.
    let first = move || match (&*state.ready.read(), state.models.read().first()) {
        (Some(ready), Some(first)) => ready.sha256 == first.sha256,
        _ => true,
    };
    let latent = move || state.frame().is_some_and(|frame| frame.latent);
    view! {
        <div class="poster" hidden=move || !empty()>
            <img
                src="./poster.png" width="128" height="128" hidden=move || !first()
                alt="Sixteen small emoji-like pictures made by this model earlier"
            />
            <p hidden=move || !first()>"Made by this model earlier. Press Generate to watch it make one for you."</p>
            <p hidden=first>"Press Generate to watch this model make a picture."</p>
        </div>
        <div class="pair" hidden=empty>
            <Show
                when=comparing
                fallback=move || view! {
                    <figure>
                        <div class="frame"><Picture picture=noisy label=Signal::derive(move || label("Noisy picture")) name="noisy"/></div>
                        <figcaption>
                            <h2>"Noisy picture"</h2>
                            <Explain topic=explain::NOISY/>
                        </figcaption>
                    </figure>
                }
            >
                <Beside state/>
            </Show>
            <figure>
                <div class="frame">
                    <Picture picture=guess label=Signal::derive(move || label("The denoiser's guess")) name="canvas"/>
                    <Enlarge state/>
                </div>
                <figcaption>
                    <h2>{move || if comparing() { settings_of(&state.run.read()) } else { "The model's guess".into() }}</h2>
                    <Show when=latent>
                        <p class="hint" data-testid="latent">{move || latent_hint(state)}</p>
                        <Explain topic=explain::LATENT/>
                    </Show>
                    <Show when=move || !comparing()><Explain topic=explain::GUESS/></Show>
                </figcaption>
            </figure>
        </div>
    }
}

/// What is said of latents.
fn latent_hint(state: State) -> String {
    let channels = state.latent().unwrap_or_default();
    let shown = format!("These are latents: three of their {channels} channels, as colours.");
    match state.picture_size() {
        Some([width, height]) => format!(
            "{shown} In the end, the autoencoder makes a picture of {width} × {height} pixels of each."
        ),
        None => format!(
            "{shown} To see pictures, open the file of their autoencoder too \
             (diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-ema)."
        ),
    }
}

/// Whether two settings are being compared.
fn compares(state: State) -> bool {
    let scene = state.scene.read();
    scene.view == View::Play && scene.game == Game::Compare
}

/// The pictures made for comparison, at about the same part of their way.
#[component]
fn Beside(state: State) -> impl IntoView {
    let picture = Signal::derive(move || {
        let (run, beside) = (state.run.read(), state.beside.read());
        let (run, beside) = (run.as_ref()?, beside.as_ref()?);
        let part = state.at.get() as f64 / run.order.settings.steps as f64;
        let at = (part * beside.order.settings.steps as f64).round() as usize;
        composed(&beside.frames.get(at).or(beside.frames.last())?.guess, None)
    });
    let label = move || match &*state.beside.read() {
        Some(run) => format!("For comparison: {}", described(run)),
        None => String::new(),
    };
    view! {
        <figure>
            <div class="frame"><Picture picture label=Signal::derive(label) name="beside"/></div>
            <figcaption><h2>{move || settings_of(&state.beside.read())}</h2></figcaption>
        </figure>
    }
}

/// A run's settings in a few words.
fn settings_of(run: &Option<Run>) -> String {
    let Some(run) = run else { return String::new() };
    let settings = &run.order.settings;
    let silent = if settings.silence_time { ", time silenced" } else { "" };
    format!("{} {}{silent}", settings.steps, name_of_method(settings.method))
}

/// What a run makes, in words.
fn described(run: &Run) -> String {
    let steps = run.order.settings.steps;
    let from = match run.order.noises[..] {
        [noise] => format!("a picture from seed {}", noise.seed()),
        [Noise::Between([a, b], _), ..] => format!("pictures between seeds {a} and {b}"),
        [Noise::Among([a, b, c, d], _), ..] => {
            format!("pictures among seeds {a}, {b}, {c} and {d}")
        }
        [first, .., last] => format!("pictures from seeds {} to {}", first.seed(), last.seed()),
        [] => "no picture".into(),
    };
    let guided = if run.order.guide.is_some() { ", made from another picture," } else { "" };
    let classes = match &run.order.settings.classes[..] {
        [] => String::new(),
        [label] => format!(" of class {label}"),
        labels => format!(" of classes {}", list(labels)),
    };
    format!("{from}{classes}{guided} in {steps} steps")
}

/// A noise level in words.
fn level(sigma: f64) -> String {
    if sigma == 0.0 { "without noise".into() } else { format!("at noise level {sigma:.2}") }
}

/// Over a grid, a button for each picture, which shows it large; over a large one, a button back.
#[component]
fn Enlarge(state: State) -> impl IntoView {
    let count = move || state.run.read().as_ref().map_or(0, |run| run.order.noises.len());
    let large = move || state.enlarged.get().is_some();
    let buttons = move || {
        let (count, columns) = (count(), Rgb::square(count()));
        let rows = count.div_ceil(columns.max(1));
        (0..count)
            .map(|i| {
                let percent = |part: usize, of: usize| format!("{}%", 100.0 * part as f64 / of as f64);
                view! {
                    <button
                        type="button" aria-label=format!("Enlarge picture {} of {count}", i + 1)
                        style:left=percent(i % columns, columns) style:top=percent(i / columns, rows)
                        style:width=percent(1, columns) style:height=percent(1, rows)
                        on:click=move |_| state.enlarged.set(Some(i))
                    />
                }
            })
            .collect_view()
    };
    view! {
        <Show when=move || { count() > 1 && !large() }>
            <div class="over" data-testid="enlarge">{buttons}</div>
        </Show>
        <Show when=large>
            <button type="button" class="back" data-testid="back" on:click=move |_| state.enlarged.set(None)>
                "Show all"
            </button>
        </Show>
    }
}
