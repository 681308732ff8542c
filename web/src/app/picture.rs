//! A picture on a canvas.

use leptos::html::Canvas;
use leptos::prelude::*;
use model::picture::Rgb;
use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ImageData};

/// A canvas in the size of the picture, which the style sheet enlarges. It keeps the last picture
/// while there is none.
#[component]
pub fn Picture(
    /// The picture.
    #[prop(into)]
    picture: Signal<Option<Rgb>>,
    /// The description for screen readers.
    #[prop(into)]
    label: Signal<String>,
    /// The value of `data-testid`.
    name: &'static str,
) -> impl IntoView {
    let canvas = NodeRef::<Canvas>::new();
    Effect::new(move || {
        if let (Some(picture), Some(canvas)) = (&*picture.read(), canvas.get()) {
            draw(&canvas, picture);
        }
    });
    view! { <canvas node_ref=canvas class="picture" role="img" aria-label=label data-testid=name width="32" height="32"/> }
}

/// Draws a picture on a canvas, which gets its size.
fn draw(canvas: &HtmlCanvasElement, picture: &Rgb) {
    let (width, height) = (picture.width as u32, picture.height as u32);
    if (canvas.width(), canvas.height()) != (width, height) {
        canvas.set_width(width);
        canvas.set_height(height);
    }
    let rgba: Vec<u8> =
        picture.bytes.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
    let context = canvas.get_context("2d").ok().flatten();
    let context = context.and_then(|context| context.dyn_into::<CanvasRenderingContext2d>().ok());
    let image = ImageData::new_with_u8_clamped_array_and_sh(Clamped(&rgba), width, height);
    if let (Some(context), Ok(image)) = (context, image) {
        // It fails only for empty images.
        let _ = context.put_image_data(&image, 0.0, 0.0);
    }
}

/// Enlarges pictures to the size of the largest: latents are smaller than the pictures decoded from
/// them, by a power of two.
pub fn level(pictures: Vec<Rgb>) -> Vec<Rgb> {
    let widest = pictures.iter().map(|picture| picture.width).max().unwrap_or(0);
    let enlarge = |picture: Rgb| match widest / picture.width.max(1) {
        0 | 1 => picture,
        times => picture.enlarged(times),
    };
    pictures.into_iter().map(enlarge).collect()
}

/// Returns the pictures as a grid, or only the enlarged one.
pub fn composed(pictures: &[Rgb], enlarged: Option<usize>) -> Option<Rgb> {
    match enlarged.and_then(|i| pictures.get(i)) {
        Some(picture) => Some(picture.clone()),
        None if pictures.is_empty() => None,
        None => Some(Rgb::grid(pictures, Rgb::square(pictures.len()))),
    }
}
