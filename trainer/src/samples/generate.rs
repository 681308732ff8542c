//! Images from seeds.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use model::Model;
use model::generate::{Settings, generate};
use model::picture::{NotFinite, Origin, Rgb};
use model::vae::Vae;

use crate::files::atomic::write;

/// Generates one image per seed, `batch` at a time. `vae` decodes latents; without it, their first
/// three channels are shown. `progress` receives the batch size after each evaluation of the model.
///
/// # Errors
///
/// If a sample is not finite.
pub fn images(
    model: &Model,
    vae: Option<&Vae>,
    settings: &Settings,
    seeds: &[u64],
    batch: usize,
    device: &Device,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Rgb>, NotFinite> {
    let mut all = Vec::with_capacity(seeds.len());
    for seeds in seeds.chunks(batch) {
        let images = pollster::block_on(generate(model, settings, seeds, device, async |_| {
            progress(seeds.len());
            Ok::<_, Infallible>(ControlFlow::Continue(()))
        }));
        let Ok(Some(images)) = images else { unreachable!("it neither fails nor is cancelled") };
        let images = match vae {
            // One at a time: decoding takes far more memory than sampling.
            Some(vae) => images.split(1, 0).into_iter().map(|latent| vae.decode(latent)).collect(),
            None => vec![images],
        };
        for images in images {
            let [_, c, h, w] = images.dims();
            let c = if c < 3 { 1 } else { 3 };
            let images = images.narrow(1, 0, c);
            let values = images.into_data().try_into_vec::<f32>().expect("images are f32");
            all.extend(Rgb::from_values(&values, [c, h, w])?);
        }
    }
    Ok(all)
}

/// Writes an image as a PNG file.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save(image: &Rgb, path: &Path, origin: Option<&Origin>) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let png = image.to_png(origin).with_context(context)?;
    write(path, &png).with_context(context)
}
