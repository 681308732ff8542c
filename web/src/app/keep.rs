//! Links and files: copying, saving, opening.

use js_sys::{Array, Reflect, Uint8Array};
use leptos::prelude::*;
use model::picture::{Origin, Rgb, to_animation};
use std::time::Duration;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Blob, BlobPropertyBag, DragEvent, FileList, HtmlAnchorElement, Url};

use super::engine::Engine;
use super::paint::read;
use super::picture::{composed, level};
use super::state::{Doing, Frame, Run, State};
use super::train::{self, Runner};
use crate::command::{arguments, embedding};
use crate::scene::{Game, Scene, View, keep_one};

/// Enlargement of small pictures in strips and animations.
const TIMES: usize = 8;
/// Minimum width of pictures that are not enlarged.
const LARGE: usize = 200;
/// Maximum number of steps in a strip.
const STRIP: usize = 9;
/// Duration of a frame in an animation.
const MILLISECONDS: u16 = 90;
/// Maximum size of a PNG file that is read, in bytes.
const MOST: f64 = 1e8;

/// A kind of file.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Picture,
    Strip,
    Animation,
}

/// The buttons for the link and for files.
#[component]
pub fn Keep(state: State, engine: Engine) -> impl IntoView {
    let none = move || state.run.read().as_ref().is_none_or(|run| run.finished.is_none());
    // The command that makes the same pictures, if there is one.
    let command = move || {
        let (run, ready) = (state.run.read(), state.ready.read());
        let (run, ready) = (run.as_ref()?, ready.as_ref()?);
        let shipped = state.models.read().iter().any(|entry| entry.file == ready.file);
        let folder = if shipped { "www/weights/" } else { "" };
        let file = format!("{folder}{}", ready.file);
        let mut args = arguments(&run.order, &file, &state.names.read())?;
        if ready.latent.is_some() {
            // The command line writes pictures only.
            run.autoencoder.as_ref()?;
            args.extend(["--vae".into(), state.autoencoder.read().as_ref()?.file.clone()]);
        }
        Some(crate::command::command(&args))
    };
    let embedded = move || {
        let _ = state.scene.read();
        Some(embedding(&document().location()?.href().ok()?))
    };
    let save = move |kind| move |_: leptos::ev::MouseEvent| save(state, kind);
    view! {
        <section class="card keep" aria-labelledby="keep">
            <h2 id="keep">"Save and share"</h2>
            <div class="buttons">
                <button type="button" class="plain small" data-testid="download" disabled=none on:click=save(Kind::Picture)>"Picture"</button>
                <button type="button" class="plain small" data-testid="strip" disabled=none on:click=save(Kind::Strip)>"Strip"</button>
                <button type="button" class="plain small" data-testid="animation" disabled=none on:click=save(Kind::Animation)>"Animation"</button>
                <CopyLink state/>
                <CopyText state name="embed" label="Copy for a web page" text=Signal::derive(embedded)/>
                <CopyText state name="command" label="Copy as command" text=Signal::derive(command)/>
                <label class="file plain small">
                    <span>"Open a file"</span>
                    <input
                        type="file" id="file" accept=".safetensors,image/*" multiple
                        on:change:target=move |e| {
                            take(e.target().files(), state, engine);
                            e.target().set_value("");
                        }
                    />
                </label>
            </div>
            <p class="hint">
                "Saved pictures include their settings: open one, or drop it on this page, to restore them. \
                 A photo becomes the picture to start from. You can also open the weights of a model or of an \
                 autoencoder. The address of this page is a link to what it shows."
            </p>
        </section>
    }
}

/// The button that copies the link.
#[component]
pub fn CopyLink(state: State) -> impl IntoView {
    let link =
        Signal::derive(move || document().location().and_then(|location| location.href().ok()));
    view! { <CopyText state name="link" label="Copy link" text=link/> }
}

/// A button that copies a text, if there is one.
#[component]
pub fn CopyText(
    state: State,
    /// The value of `data-testid`.
    name: &'static str,
    label: &'static str,
    text: Signal<Option<String>>,
) -> impl IntoView {
    let copied = RwSignal::new(false);
    let copy = move |_| {
        let text = text.get_untracked().unwrap_or_default();
        spawn_local(async move {
            copied.set(write_text(&text).await);
            let said = match copied.get_untracked() {
                true => "Copied.".into(),
                false => format!("This browser does not let the page copy: {text}"),
            };
            state.said.set(said);
        });
    };
    view! {
        <button
            type="button" class="plain small" data-testid=name on:click=copy
            disabled=Signal::derive(move || text.read().is_none())
        >
            {move || if copied.get() { "Copied" } else { label }}
        </button>
    }
}

/// Writes a text to the clipboard, which browsers offer on secure addresses only.
async fn write_text(text: &str) -> bool {
    let navigator = window().navigator();
    is_there(&navigator, "clipboard")
        && JsFuture::from(navigator.clipboard().write_text(text)).await.is_ok()
}

/// Returns whether an object has a property. Browsers have some on secure addresses only.
pub fn is_there(object: &JsValue, name: &str) -> bool {
    Reflect::get(object, &name.into()).is_ok_and(|value| !value.is_undefined())
}

/// Accepts files that are dropped anywhere on the page.
pub fn accept_drops(state: State, engine: Engine, runner: Runner) {
    let over =
        window_event_listener(leptos::ev::dragover, |event: DragEvent| event.prevent_default());
    let drop = window_event_listener(leptos::ev::drop, move |event: DragEvent| {
        event.prevent_default();
        let files = event.data_transfer().and_then(|transfer| transfer.files());
        if state.scene.read_untracked().view == View::Train {
            train::take(files, runner);
        } else {
            take(files, state, engine);
        }
    });
    on_cleanup(move || {
        over.remove();
        drop.remove();
    });
}

/// Opens files: weights, autoencoders, and pictures, whose settings are restored.
fn take(files: Option<FileList>, state: State, engine: Engine) {
    let Some(files) = files.filter(|files| files.length() > 0) else { return };
    state.trouble.set(None);
    if untrack(|| state.busy()) || *state.doing.read_untracked() != Doing::Resting {
        state.trouble.set(Some("Files can be opened once the page is idle.".into()));
        return;
    }
    for file in (0..files.length()).filter_map(|i| files.get(i)) {
        spawn_local(async move {
            let name = file.name();
            let first = file.slice_with_i32_and_i32(0, 12);
            let first = match first {
                Ok(first) => bytes_of(&first).await,
                Err(_) => None,
            };
            match first {
                None => state.trouble.set(Some(format!("{name} could not be read."))),
                Some(first) if is_photo(&first) => {
                    read(file, state);
                    state.scene.update(|scene| {
                        (scene.view, scene.game) = (View::Play, Game::From);
                    });
                }
                Some(first) if !first.starts_with(b"\x89PNG") => engine.open(file),
                Some(_) if file.size() > MOST => {
                    let message =
                        format!("{name} is larger than 100 MB, the maximum for pictures.");
                    state.trouble.set(Some(message));
                }
                Some(_) => match Origin::from_png(&bytes_of(&file).await.unwrap_or_default()) {
                    Ok(origin) => restore(&origin, state, engine),
                    Err(error) => state.trouble.set(Some(format!("{name}: {error}."))),
                },
            }
        });
    }
}

/// Returns whether a file with these first twelve bytes is a picture in a format without settings: JPEG,
/// GIF or WebP.
fn is_photo(first: &[u8]) -> bool {
    let webp = first.starts_with(b"RIFF") && first.ends_with(b"WEBP");
    first.starts_with(b"\xff\xd8\xff") || first.starts_with(b"GIF8") || webp
}

/// Reads a file, or a part of one.
async fn bytes_of(file: &Blob) -> Option<Vec<u8>> {
    let buffer = JsFuture::from(file.array_buffer()).await.ok()?;
    Some(Uint8Array::new(&buffer).to_vec())
}

/// Restores the settings of a picture, and makes it again.
fn restore(origin: &Origin, state: State, engine: Engine) {
    let scene = Scene::from_origin(origin);
    let same =
        state.ready.read_untracked().as_ref().is_some_and(|r| r.sha256 == origin.weights_sha256);
    if !same {
        state.note.set(Some(format!(
            "That picture was made by another model, {}. The model in use makes a different one with the \
             same settings.",
            origin.model
        )));
    }
    let autoencoder = state.autoencoder.read_untracked().as_ref().map(|a| a.sha256.clone());
    if same && origin.vae_sha256.is_some() && origin.vae_sha256 != autoencoder {
        state.note.set(Some(
            "The latent of that picture was decoded by an autoencoder that is not open here."
                .into(),
        ));
    }
    state.scene.set(scene);
    state.said.set("The settings of the picture are restored.".into());
    if untrack(|| state.scene.read().order(0).guide.is_none()) {
        super::make::generate(state, engine);
    }
}

/// Saves a file of the pictures.
fn save(state: State, kind: Kind) {
    let (run, ready) = (state.run.get_untracked(), state.ready.get_untracked());
    let (Some(run), Some(ready)) = (run, ready) else { return };
    let enlarged = state.enlarged.get_untracked();
    let mut origin = run.origin(&ready);
    let file = match kind {
        Kind::Picture => {
            if let Some(picture) = enlarged.filter(|_| run.order.guide.is_none()) {
                keep_one(&mut origin, picture);
            }
            let last = run.frames.last().and_then(|frame| composed(&frame.guess, enlarged));
            last.and_then(|picture| picture.to_png(Some(&origin)).ok())
        }
        Kind::Strip => strip(&run, enlarged.unwrap_or(0)).to_png(Some(&origin)).ok(),
        Kind::Animation => {
            let frames = run.pictured().filter_map(|frame| composed(&frame.guess, enlarged));
            let frames = level(frames.collect());
            let times = times(&frames, TIMES);
            let frames: Vec<Rgb> = frames.iter().map(|picture| picture.enlarged(times)).collect();
            to_animation(&frames, MILLISECONDS, Some(&origin)).ok()
        }
    };
    let seed = origin.seeds.first().copied().unwrap_or_default();
    let name = match kind {
        Kind::Picture => format!("diffit-{seed}.png"),
        Kind::Strip => format!("diffit-{seed}-strip.png"),
        Kind::Animation => format!("diffit-{seed}-animation.png"),
    };
    match file {
        Some(file) => hand_over(&file, &name, "image/png"),
        None => state.trouble.set(Some("The file could not be created.".into())),
    }
}

/// Returns the steps of one picture side by side, as far as there are previews: noisy above, denoised
/// below.
fn strip(run: &Run, picture: usize) -> Rgb {
    let all: Vec<&Frame> = run.pictured().collect();
    let count = STRIP.min(all.len());
    let places = (0..count).map(|i| i * (all.len() - 1) / (count - 1).max(1));
    let frames: Vec<&Frame> = places.map(|place| all[place]).collect();
    let row = |pick: fn(&Frame) -> &Vec<Rgb>| {
        frames.iter().filter_map(move |frame| pick(frame).get(picture).cloned())
    };
    let pictures = row(|frame| &frame.noisy).chain(row(|frame| &frame.guess)).collect();
    let pictures = level(pictures);
    Rgb::grid(&pictures, count).enlarged(times(&pictures, TIMES / 2))
}

/// Returns the enlargement of pictures, which is 1 for large ones.
fn times(pictures: &[Rgb], times: usize) -> usize {
    if pictures.iter().all(|picture| picture.width < LARGE) { times } else { 1 }
}

/// Makes the browser save a file of this media type.
pub fn hand_over(file: &[u8], name: &str, media: &str) {
    let options = BlobPropertyBag::new();
    options.set_type(media);
    let parts = Array::of1(&Uint8Array::from(file));
    let link =
        document().create_element("a").ok().and_then(|a| a.dyn_into::<HtmlAnchorElement>().ok());
    let blob = Blob::new_with_u8_array_sequence_and_options(&parts, &options);
    if let (Some(link), Ok(blob)) = (link, blob)
        && let Ok(url) = Url::create_object_url_with_blob(&blob)
    {
        link.set_href(&url);
        link.set_download(name);
        link.click();
        // Safari reads the file later. Revoking fails only for invalid addresses.
        set_timeout(move || drop(Url::revoke_object_url(&url)), Duration::from_secs(60));
    }
}
