//! The pictures of the selected step: noisy and denoised.

use leptos::html::Div;
use leptos::prelude::*;
use model::picture::Rgb;

use super::explain::Explain;
use super::picture::{Picture, composed};
use super::state::{Frame, Run, State};
use crate::explain;
use crate::protocol::Noise;
use crate::scene::{Game, View, differences, name_of_method};

/// The noisy and the denoised pictures, or the recording before the first run.
#[component]
pub fn Stage(state: State) -> impl IntoView {
    let empty = move || state.run.read().is_none();
    let comparing = move || state.beside.read().is_some() && compares(state);
    // The recording shows pictures of the first model.
    let first = move || match (&*state.ready.read(), state.models.read().first()) {
        (Some(ready), Some(first)) => ready.sha256 == first.sha256,
        _ => true,
    };
    let latent = move || state.frame().is_some_and(|frame| frame.latent);
    view! {
        <div class="poster" hidden=Signal::derive(move || !empty())>
            <div hidden=Signal::derive(move || !first())><Recording state/></div>
            <p hidden=first>"Press Generate to make a picture with this model."</p>
        </div>
        <div class="pair" class:forming=Signal::derive(move || !comparing()) hidden=empty>
            <Show
                when=comparing
                fallback=move || view! {
                    <figure>
                        <Tiles state noisy=true/>
                        <figcaption>
                            <h2>"The noisy picture"</h2>
                            <Explain topic=explain::NOISY/>
                        </figcaption>
                    </figure>
                }
            >
                <Beside state/>
            </Show>
            <figure>
                <Tiles state/>
                <figcaption>
                    <h2>{Signal::derive(move || if comparing() { settings_of(&state.run.read(), &state.beside.read()) } else { "The model's guess".into() })}</h2>
                    <Show when=latent>
                        <p class="hint" data-testid="latent">{Signal::derive(move || latent_hint(state))}</p>
                        <Explain topic=explain::LATENT/>
                    </Show>
                    <Show when=move || !comparing()><Explain topic=explain::GUESS/></Show>
                </figcaption>
            </figure>
        </div>
    }
}

/// The recording of `index.html`, as the element that the page was opened with.
#[component]
fn Recording(state: State) -> impl IntoView {
    let place = NodeRef::<Div>::new();
    Effect::new(move || {
        let Some(place) = place.get() else { return };
        state.record.with_value(|record| {
            if let Some(record) = record {
                // It fails only for an element that contains its new parent.
                let _ = place.append_child(record);
            }
        });
    });
    view! { <div node_ref=place/> }
}

/// Returns the hint on latents.
fn latent_hint(state: State) -> String {
    let channels = state.latent().unwrap_or_default();
    let shown =
        format!("These are latents: three of their {channels} channels are shown as colours.");
    match state.picture_size() {
        Some([width, height]) => format!(
            "{shown} After the last step, the autoencoder decodes each to {width} × {height} pixels."
        ),
        None => format!(
            "{shown} To see pictures, open the file of their autoencoder too \
             (diffusion_pytorch_model.safetensors of stabilityai/sd-vae-ft-ema)."
        ),
    }
}

/// Returns whether two settings are compared.
fn compares(state: State) -> bool {
    let scene = state.scene.read();
    scene.view == View::Play && scene.game == Game::Compare
}

/// The pictures of the settings to compare with, at about the same fraction of their steps.
#[component]
fn Beside(state: State) -> impl IntoView {
    let picture = Signal::derive(move || {
        let (run, beside) = (state.run.read(), state.beside.read());
        let (run, beside) = (run.as_ref()?, beside.as_ref()?);
        let part = state.at.get() as f64 / run.order.settings.steps as f64;
        let at = (part * beside.order.settings.steps as f64).round() as usize;
        // Without previews, it is finished before the other begins.
        let frame = beside.frames.get(at).filter(|frame| frame.has_pictures());
        composed(&frame.or(beside.frames.last())?.guess, None)
    });
    let label = move || match &*state.beside.read() {
        Some(run) => {
            format!("For comparison: {}", described(run, 0, &run.captions(&state.names.read())))
        }
        None => String::new(),
    };
    view! {
        <figure>
            <div class="frame"><Picture picture label=Signal::derive(label) name="beside"/></div>
            <figcaption><h2>{Signal::derive(move || settings_of(&state.beside.read(), &state.run.read()))}</h2></figcaption>
        </figure>
    }
}

/// Describes the settings of a run that is compared with another.
fn settings_of(run: &Option<Run>, other: &Option<Run>) -> String {
    let Some(run) = run else { return String::new() };
    let settings = &run.order.settings;
    let mut parts = vec![format!("{} {}", settings.steps, name_of_method(settings.method))];
    if let Some(other) = other {
        parts.extend(differences(settings, &other.order.settings));
    }
    parts.join(", ")
}

/// Describes a picture of a run.
fn described(run: &Run, picture: usize, captions: &[String]) -> String {
    let steps = run.order.settings.steps;
    let from = match run.order.noises.get(picture) {
        Some(Noise::Seed(seed)) => format!("from seed {seed}"),
        Some(Noise::Between([a, b], _)) => format!("between seeds {a} and {b}"),
        Some(Noise::Among([a, b, c, d], _)) => format!("among seeds {a}, {b}, {c} and {d}"),
        None => "none".into(),
    };
    let name = match captions.get(picture).map_or("", |name| name) {
        "" => String::new(),
        name => format!("{name}, "),
    };
    let guided = if run.order.guide.is_some() { ", made from another picture," } else { "" };
    format!("{name}{from}{guided} in {steps} steps")
}

/// Describes a noise level.
fn level(sigma: f64) -> String {
    if sigma == 0.0 { "without noise".into() } else { format!("at noise level {sigma:.2}") }
}

/// The pictures with their captions, or only the enlarged one: the noisy ones, or the denoised ones,
/// which can be enlarged.
#[component]
fn Tiles(
    state: State,
    /// Whether to show the noisy pictures.
    #[prop(optional)]
    noisy: bool,
) -> impl IntoView {
    let count =
        Memo::new(move |_| state.run.read().as_ref().map_or(0, |run| run.order.noises.len()));
    let large = Memo::new(move |_| state.enlarged.get().filter(|&i| i < count.get()));
    let captions = Memo::new(move |_| state.captions());
    let (what, name) =
        if noisy { ("Noisy picture", "noisy") } else { ("The denoiser's guess", "canvas") };
    let columns =
        Signal::derive(
            move || if large.get().is_some() { 1 } else { Rgb::square(count.get()).max(1) },
        );
    let template = Signal::derive(move || format!("repeat({}, minmax(0, 1fr))", columns.get()));
    let tile = move |i: usize| {
        let pick = move |frame: &Frame| {
            let pictures = if noisy { &frame.noisy } else { &frame.guess };
            pictures.get(i).cloned()
        };
        let picture = Signal::derive(move || state.frame().and_then(|frame| pick(&frame)));
        let caption = Signal::derive(move || captions.read().get(i).cloned().unwrap_or_default());
        let nameless = Signal::derive(move || captions.read().is_empty());
        // All tiles are built again when their number changes.
        let of = match count.get_untracked() {
            1 => String::new(),
            count => format!(" {} of {count}", i + 1),
        };
        let enlarge = format!("Enlarge picture{of}");
        // Before the first frame, the pictures of the run before stay.
        let unseen = Memo::new(move |_| state.frame().is_some_and(|frame| !frame.has_pictures()));
        let label = Signal::derive(move || {
            let place = state.frame().map_or(String::new(), |frame| level(frame.sigma));
            let run = state.run.read();
            let made = run.as_ref().map(|run| described(run, i, &captions.read()));
            let unseen = if unseen.get() { " (not shown: previews are off)" } else { "" };
            format!("{what}{of} {place}{unseen}: {}", made.unwrap_or_default())
        });
        let enlarge = Signal::derive(move || match caption.read().as_str() {
            "" => enlarge.clone(),
            name => format!("{enlarge}: {name}"),
        });
        let alone = large.get_untracked().is_some();
        let over = (!noisy && !alone && count.get_untracked() > 1).then(|| view! {
            <button type="button" class="over" aria-label=enlarge on:click=move |_| state.enlarged.set(Some(i))/>
        });
        let back = (!noisy && alone).then(|| view! {
            <button type="button" class="back" data-testid="back" on:click=move |_| state.enlarged.set(None)>
                "Show all"
            </button>
        });
        view! {
            <div class="tile">
                <div class="frame" class:unseen=unseen><Picture picture label name/>{over}{back}</div>
                // The captions of the noisy pictures are invisible. They align both sides.
                <p class="name" aria-hidden=noisy.then_some("true") title=caption hidden=nameless>{caption}</p>
            </div>
        }
    };
    let tiles = move || match large.get() {
        Some(i) => vec![tile(i)],
        None => (0..count.get()).map(tile).collect(),
    };
    view! {
        <div
            class="tiles" data-testid=if noisy { "noises" } else { "pictures" } data-columns=columns
            style:grid-template-columns=template
        >{tiles}</div>
    }
}
