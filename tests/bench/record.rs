//! Records how the shipped model makes the first pictures of the page, for `www/index.html`, which
//! plays the recording until the program is loaded. `cargo xtask record` runs it.
//!
//! The picture has a row for each step and one for the result, and in each row the noisy pictures,
//! then the guesses.

use std::convert::Infallible;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use model::Model;
use model::classes::find_all;
use model::generate::{Settings, generate};
use model::picture::Rgb;
use model::weights::Weights;
use tests::{RECORDED, root};
use web::protocol::Usual;

/// Quality of the JPEG file. At 82, no block is to be seen on pictures enlarged as the page does it.
const QUALITY: u8 = 82;

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
}
