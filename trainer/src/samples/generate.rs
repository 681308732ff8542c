//! Images from seeds.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use model::Model;
use model::generate::{Settings, generate_labelled};
use model::label::Label;
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
        let labels = settings.labels_of(seeds);
        let images = one_batch(model, vae, settings, seeds, labels, device, || {
            progress(seeds.len());
            ControlFlow::Continue(())
        })?;
        all.extend(images.into_iter().flatten());
    }
    Ok(all)
}

/// Generates one image per seed in a single batch, with the given labels, which are empty if no image
/// has a class. `on_evaluation` is called after each evaluation of the model. Returns `None` if it
/// breaks.
///
/// # Errors
///
/// If a sample is not finite.
pub fn one_batch(
    model: &Model,
    vae: Option<&Vae>,
    settings: &Settings,
    seeds: &[u64],
    labels: Vec<Label>,
    device: &Device,
    mut on_evaluation: impl FnMut() -> ControlFlow<()>,
) -> Result<Option<Vec<Rgb>>, NotFinite> {
    let on_step = async |_: model::sampler::Evaluation<'_>| Ok::<_, Infallible>(on_evaluation());
    let images = generate_labelled(model, settings, seeds, labels, device, on_step);
    let Ok(images) = pollster::block_on(images);
    let Some(images) = images else { return Ok(None) };
    let images = match vae {
        // One at a time: decoding takes far more memory than sampling.
        Some(vae) => images.split(1, 0).into_iter().map(|latent| vae.decode(latent)).collect(),
        None => vec![images],
    };
    let mut all = Vec::with_capacity(seeds.len());
    for images in images {
        let [_, c, h, w] = images.dims();
        let c = if c < 3 { 1 } else { 3 };
        let images = images.narrow(1, 0, c);
        let values = images.into_data().try_into_vec::<f32>().expect("images are f32");
        all.extend(Rgb::from_values(&values, [c, h, w])?);
    }
    Ok(Some(all))
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
