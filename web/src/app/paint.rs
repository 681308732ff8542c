//! The picture that sampling starts from, and the mask of an inpainting.

use leptos::ev::{KeyboardEvent, PointerEvent};
use leptos::prelude::*;
use model::picture::Rgb;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{CanvasRenderingContext2d, Element, File, HtmlCanvasElement, ImageBitmap};

use super::picture::Picture;
use super::state::{Frame, Guide, State};
use crate::brush::Mask;

/// The choice of the picture, and with `paints` the mask to be painted.
#[component]
pub fn GuidePicture(state: State, paints: bool) -> impl IntoView {
    let shown = move |_| {
        let picture = untrack(|| {
            let frame = state.frame()?;
            frame.guess.get(state.picture()).cloned()
        });
        if let Some(picture) = picture {
            state.guide.set(Some(Guide::new(picture)));
        }
    };
    // Sampling cannot start from the picture of a latent.
    let none = move || state.frame().is_none_or(|frame| frame.latent || !fits(&frame, state));
    let picture = Signal::derive(move || {
        let guide = state.guide.read();
        let guide = guide.as_ref()?;
        Some(if paints { covered(guide) } else { guide.picture.clone() })
    });
    view! {
        <div class="guide">
            <div class="buttons">
                <button type="button" class="plain small" data-testid="take-shown" disabled=none on:click=shown>"Use the current picture"</button>
                <label class="file plain small">
                    <span>"Choose a file"</span>
                    <input
                        type="file" id="guide-file" accept="image/*"
                        on:change:target=move |e| {
                            if let Some(file) = e.target().files().and_then(|files| files.get(0)) {
                                read(file, state);
                            }
                            e.target().set_value("");
                        }
                    />
                </label>
            </div>
            <Show when=move || state.guide.read().is_some()>
                {if paints {
                    view! { <Canvas state picture/> }.into_any()
                } else {
                    view! { <div class="frame tiny"><Picture picture label="The picture to start from" name="guide"/></div> }.into_any()
                }}
            </Show>
        </div>
    }
}

/// Returns whether the pictures of a frame have the size of the model's pictures.
pub fn fits(frame: &Frame, state: State) -> bool {
    let size = frame.guess.first().map(|picture| [picture.width, picture.height]);
    size.is_some() && size == state.picture_size()
}

/// Draws a pattern over the mask.
fn covered(guide: &Guide) -> Rgb {
    let mut picture = guide.picture.clone();
    for (i, pixel) in picture.bytes.chunks_exact_mut(3).enumerate() {
        if guide.anew.bytes()[i] == 1 {
            let dark = (i % picture.width + i / picture.width).is_multiple_of(2);
            pixel.copy_from_slice(if dark { &[81, 64, 201] } else { &[169, 156, 255] });
        }
    }
    picture
}

/// A square to paint on with a pointer, and with keys that move a rectangle.
#[component]
pub fn Surface(
    /// The picture.
    picture: Signal<Option<Rgb>>,
    /// The label and the name of the picture.
    shown: [&'static str; 2],
    /// The name of the square.
    name: &'static str,
    /// The label of the square.
    label: Signal<String>,
    /// The number of pixels of a side.
    side: Signal<usize>,
    /// The rectangle: left, top, width, height.
    #[prop(into)]
    area: Signal<[usize; 4]>,
    /// Paints a stroke between two pixels.
    stroke: impl Fn([usize; 2], [usize; 2]) + Copy + 'static,
    /// Takes a key.
    press: impl Fn(KeyboardEvent) + 'static,
) -> impl IntoView {
    // The last pixel of the current stroke.
    let last = StoredValue::new(None::<[usize; 2]>);
    let point = move |event: &PointerEvent| {
        let Some(square) = event.current_target().and_then(|t| t.dyn_into::<Element>().ok()) else {
            return;
        };
        let place = square.get_bounding_client_rect();
        let side = side.get_untracked();
        let pixel = |at: f64, start: f64, size: f64| {
            (((at - start) / size).clamp(0.0, 0.999) * side as f64) as usize
        };
        let x = pixel(f64::from(event.client_x()), place.x(), place.width());
        let y = pixel(f64::from(event.client_y()), place.y(), place.height());
        stroke(last.get_value().unwrap_or([x, y]), [x, y]);
        last.set_value(Some([x, y]));
    };
    let percent = move |i: usize| {
        Signal::derive(move || format!("{}%", 100.0 * area.get()[i] as f64 / side.get() as f64))
    };
    let [picture_label, picture_name] = shown;
    view! {
        <div class="frame tiny">
            <div
                class="token-area paint" role="application" tabindex="0" aria-label=label data-testid=name
                on:pointerdown=move |event| {
                    last.set_value(None);
                    point(&event);
                }
                on:pointermove=move |event| if last.get_value().is_some() { point(&event) }
                on:pointerup=move |_| last.set_value(None)
                on:pointerleave=move |_| last.set_value(None)
                on:keydown=press
            >
                <Picture picture label=picture_label name=picture_name/>
                <span
                    class="area" aria-hidden="true" style:left=percent(0) style:top=percent(1)
                    style:width=percent(2) style:height=percent(3)
                />
            </div>
        </div>
    }
}

/// The picture with its mask, which is painted with a pointer, or with a rectangle that the arrow
/// keys move.
#[component]
fn Canvas(state: State, picture: Signal<Option<Rgb>>) -> impl IntoView {
    let side = move || state.guide.read().as_ref().map_or(1, |guide| guide.picture.width);
    // The rectangle: left, top, width, height.
    let area = RwSignal::new([side() / 4, side() / 4, side() / 2, side() / 2]);
    // The step of the arrow keys and the size of the brush are those for pictures of 32 pixels, times
    // this.
    let scale = untrack(move || side() / 32).max(1);
    let (erases, brush) = (RwSignal::new(false), RwSignal::new(4 * scale));
    let edit = move |edit: &dyn Fn(&mut Mask, u8)| {
        let anew = u8::from(!erases.get_untracked());
        state.guide.update(|guide| {
            if let Some(guide) = guide {
                edit(&mut guide.anew, anew);
            }
        });
    };
    let stroke = move |from: [usize; 2], to: [usize; 2]| {
        let brush = brush.get_untracked();
        edit(&|mask, anew| mask.stroke(from, to, brush, anew));
    };
    let press = move |event: KeyboardEvent| {
        let side = untrack(side);
        let [mut left, mut top, mut width, mut height] = area.get_untracked();
        match (event.key().as_str(), event.shift_key()) {
            ("ArrowLeft", false) => left = left.saturating_sub(scale),
            ("ArrowRight", false) => left = (left + scale).min(side - width),
            ("ArrowUp", false) => top = top.saturating_sub(scale),
            ("ArrowDown", false) => top = (top + scale).min(side - height),
            ("ArrowLeft", true) => width = width.saturating_sub(scale).max(1),
            ("ArrowRight", true) => width = (width + scale).min(side - left),
            ("ArrowUp", true) => height = height.saturating_sub(scale).max(1),
            ("ArrowDown", true) => height = (height + scale).min(side - top),
            ("Enter" | " ", _) => {
                let area = area.get_untracked();
                edit(&|mask, anew| mask.fill(area, anew));
            }
            _ => return,
        }
        event.prevent_default();
        area.set([left, top, width, height]);
    };
    let painted = move || {
        let guide = state.guide.read();
        guide.as_ref().map_or(0, |guide| guide.anew.count())
    };
    let label = move || {
        let [left, top, width, height] = area.get();
        format!(
            "Rectangle of {width} by {height} at column {}, row {}: arrow keys move it, with Shift they \
             change its size, Enter paints",
            left + 1,
            top + 1
        )
    };
    view! {
        <Surface
            picture shown=["The picture, with the mask over it", "guide"] name="paint"
            label=Signal::derive(label) side=Signal::derive(side) area stroke press
        />
        <div class="field">
            <label for="brush">{Signal::derive(move || format!("Brush: {} pixels", brush.get()))}</label>
            <input
                type="range" id="brush" min="1" max=(16 * scale).to_string() prop:value=Signal::derive(move || brush.get().to_string())
                on:input:target=move |e| brush.set(e.target().value().parse().unwrap_or(4))
            />
        </div>
        <div class="buttons">
            <label class="check">
                <input type="checkbox" prop:checked=Signal::derive(move || erases.get()) on:change:target=move |e| erases.set(e.target().checked())/>
                <span>"Erase"</span>
            </label>
            <button type="button" class="plain small" on:click=move |_| state.guide.update(|guide| {
                if let Some(guide) = guide {
                    guide.anew.clear();
                }
            })>"Clear"</button>
        </div>
        <p class="hint" data-testid="painted">{Signal::derive(move || format!("{} pixels will be painted anew.", painted()))}</p>
    }
}

/// Reads a picture file. The browser crops it to a square and scales it to the size of the model's
/// pictures.
pub fn read(file: File, state: State) {
    let size = untrack(|| state.picture_size());
    spawn_local(async move {
        let name = file.name();
        match size {
            Some(size) => match scaled(file, size).await {
                Some(picture) => state.guide.set(Some(Guide::new(picture))),
                None => state
                    .trouble
                    .set(Some(format!("{name} is not a picture that this browser can read."))),
            },
            None => state.trouble.set(Some("The model is not loaded yet.".into())),
        }
    });
}

/// Returns the centre square of a picture file, scaled.
pub async fn scaled(file: File, [width, height]: [usize; 2]) -> Option<Rgb> {
    let bitmap = window().create_image_bitmap_with_blob(&file).ok()?;
    let bitmap: ImageBitmap = JsFuture::from(bitmap).await.ok()?.dyn_into().ok()?;
    let canvas: HtmlCanvasElement = document().create_element("canvas").ok()?.dyn_into().ok()?;
    canvas.set_width(width as u32);
    canvas.set_height(height as u32);
    let context: CanvasRenderingContext2d = canvas.get_context("2d").ok()??.dyn_into().ok()?;
    let side = f64::from(bitmap.width().min(bitmap.height()));
    let left = (f64::from(bitmap.width()) - side) / 2.0;
    let top = (f64::from(bitmap.height()) - side) / 2.0;
    // Transparent places become white, as in the training pictures.
    context.set_fill_style_str("white");
    context.fill_rect(0.0, 0.0, width as f64, height as f64);
    context
        .draw_image_with_image_bitmap_and_sw_and_sh_and_dx_and_dy_and_dw_and_dh(
            &bitmap,
            left,
            top,
            side,
            side,
            0.0,
            0.0,
            width as f64,
            height as f64,
        )
        .ok()?;
    let data = context.get_image_data(0.0, 0.0, width as f64, height as f64).ok()?.data();
    let bytes = data.0.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    Some(Rgb { width, height, bytes })
}
