//! Records how the shipped model makes the first pictures of the page. `cargo xtask record` runs it.
//!
//! `www/record.jpg` is for `www/index.html`, which plays it until the program is loaded. It has a row
//! for each step and one for the result, and in each row the noisy pictures, then the guesses.
//!
//! `www/share.png` is what other sites show beside a link to the page: a row for each picture, from
//! noise to the result.

use std::convert::Infallible;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::overlay;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use model::Model;
use model::classes::find_all;
use model::generate::{Settings, generate};
use model::picture::Rgb;
use model::weights::Weights;
use tests::{RECORDED, root};
use web::protocol::Usual;

/// Quality of the JPEG file. At 82, no block is to be seen on pictures enlarged as the page does it.
const QUALITY: u8 = 82;

/// Size in pixels that other sites show without cropping.
const SHARED: [u32; 2] = [1200, 630];
/// Pictures and steps of the shared picture; the last is the result.
const SHARED_ROWS: [usize; 3] = [0, 1, 2];
const SHARED_STEPS: [usize; 6] = [0, 5, 6, 7, 8, 12];
/// Size of a pixel of a picture, and distance of the pictures.
const ENLARGED: usize = 5;
const GAP: u32 = 24;
/// Colour between the pictures.
const GROUND: [u8; 3] = [0xf7, 0xf6, 0xfb];

/// Lays the pictures of `steps`, which have a row of noisy pictures each, out for `www/share.png`.
fn share(steps: &[&[Rgb]]) -> RgbImage {
    let [width, height] = SHARED;
    let mut canvas = RgbImage::from_pixel(width, height, GROUND.into());
    let side = (steps[0][0].width * ENLARGED) as u32;
    let margin = |all: u32, count: usize| {
        let count = count as u32;
        (all - count * side - (count - 1) * GAP) / 2
    };
    let left = margin(width, SHARED_STEPS.len());
    let top = margin(height, SHARED_ROWS.len());
    for (y, &picture) in (0..).zip(&SHARED_ROWS) {
        for (x, &step) in (0..).zip(&SHARED_STEPS) {
            let Rgb { width, height, bytes } = steps[step][picture].enlarged(ENLARGED);
            let tile = RgbImage::from_raw(width as u32, height as u32, bytes).expect("its size");
            let at = |start: u32, i: u32| i64::from(start + i * (side + GAP));
            overlay(&mut canvas, &tile, at(left, x), at(top, y));
        }
    }
    canvas
}

fn main() {
    let bytes = std::fs::read(root().join("www/weights/tiny-emoji.safetensors"));
    let bytes = bytes.expect("the shipped weights");
    let weights = Weights::parse(&bytes).expect("a weights file");
    let device = Device::flex();
    let model = Model::from_weights(&weights, &device);
    let names = weights.card().class_names(model.config.classes());
    let classes = find_all(&names, RECORDED.1).expect("classes of the model");
    let settings = Settings { classes, ..Usual::of(&model.config, weights.card()).first };
    let seeds: Vec<u64> = RECORDED.0.collect();

    let shape = model.config.image_shape();
    let read = |pictures: Tensor<4>| {
        let values = pictures.into_data().try_into_vec::<f32>().expect("pictures are f32");
        Rgb::from_values(&values, shape).expect("finite values")
    };
    let mut tiles = Vec::new();
    let on_step = async |e: model::sampler::Evaluation<'_>| -> Result<_, Infallible> {
        // As the page shows them: scaled to unit variance.
        tiles.extend(read(e.x.clone() * (1.0 / e.sigma.hypot(1.0))));
        tiles.extend(read(e.denoised.clone()));
        Ok(ControlFlow::Continue(()))
    };
    let made = pollster::block_on(generate(&model, &settings, &seeds, &device, on_step));
    let made = read(made.unwrap_or_else(|never| match never {}).expect("nobody cancels"));
    tiles.extend(made.iter().cloned().chain(made.iter().cloned()));

    let Rgb { width, height, bytes } = Rgb::grid(&tiles, 2 * seeds.len());
    let mut file = Vec::new();
    let (wide, high) = (width as u32, height as u32);
    JpegEncoder::new_with_quality(&mut file, QUALITY)
        .write_image(&bytes, wide, high, ExtendedColorType::Rgb8)
        .expect("in memory");
    let path = root().join("www/record.jpg");
    std::fs::write(&path, &file).expect("written");
    println!("{}: {width} x {height} pixels, {} bytes", path.display(), file.len());

    let rows: Vec<&[Rgb]> = tiles.chunks(2 * seeds.len()).collect();
    let path = root().join("www/share.png");
    share(&rows).save(&path).expect("written");
    println!("{}: {} bytes", path.display(), path.metadata().expect("there").len());
}
