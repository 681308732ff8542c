//! The autoencoder, on one or several devices.

use std::panic::resume_unwind;
use std::thread::ScopedJoinHandle;

use anyhow::Context;
use burn::tensor::{Device, Tensor, TensorData};
use model::vae::Vae;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::Square;
use crate::args::EncodeArgs;
use crate::data::augment::mirror_x;
use crate::weights::autoencoder::Autoencoder;

/// Loads the autoencoder on each device, and returns the SHA-256 of its file.
///
/// # Errors
///
/// If a file cannot be used.
pub fn load(args: &EncodeArgs, devices: Vec<Device>) -> anyhow::Result<(Vec<Encoder>, String)> {
    let (mut encoders, mut hash) = (Vec::new(), String::new());
    let several = devices.len() > 1;
    for device in devices {
        let Autoencoder { vae, sha256 } =
            Autoencoder::load(&args.vae, args.vae_config.as_deref(), &device)?;
        let thread = several.then(|| ThreadPoolBuilder::new().num_threads(1).build()).transpose();
        encoders.push(Encoder { vae, device, thread: thread.context("a thread for a device")? });
        hash = sha256;
    }
    Ok((encoders, hash))
}

/// An autoencoder on a device.
pub struct Encoder {
    /// The autoencoder.
    pub vae: Vae,
    device: Device,
    /// The thread that encodes, if there are several devices. It lasts: on a GPU, each new thread
    /// would get a queue and a pool of memory of its own.
    thread: Option<ThreadPool>,
}

impl Encoder {
    /// Returns the moments of batches of images, one for each encoder, one after the other.
    pub fn all_moments<'a>(
        encoders: &[Self],
        batches: impl Iterator<Item = &'a [Square]>,
        side: usize,
    ) -> Vec<f32> {
        if let [encoder] = encoders {
            return batches.flat_map(|batch| encoder.moments(batch, side)).collect();
        }
        std::thread::scope(|scope| {
            let started: Vec<_> = encoders
                .iter()
                .zip(batches)
                .map(|(encoder, batch)| {
                    scope.spawn(move || {
                        let encode = || encoder.moments(batch, side);
                        encoder.thread.as_ref().map_or_else(encode, |thread| thread.install(encode))
                    })
                })
                .collect();
            let join =
                |thread: ScopedJoinHandle<_>| thread.join().unwrap_or_else(|e| resume_unwind(e));
            started.into_iter().map(join).collect::<Vec<_>>().concat()
        })
    }

    /// Returns `[B, 2, 2, C, H, W]`: mean and standard deviation of the latents of each image and of
    /// its mirror image.
    fn moments(&self, images: &[Square], side: usize) -> Vec<f32> {
        let c = self.vae.config.image_channels;
        let mut all = Vec::with_capacity(2 * images.len() * c * side * side);
        for (_, image) in images {
            let mut values = vec![0.0; image.len()];
            model::image::from_bytes(image, &mut values);
            let mut mirrored = values.clone();
            mirror_x(&mut mirrored, side);
            all.extend(values);
            all.extend(mirrored);
        }
        let data = TensorData::new(all, [2 * images.len(), c, side, side]);
        let encoded = self.vae.encode(Tensor::from_data(data, &self.device));
        let moments = Tensor::stack::<5>(vec![encoded.mean, encoded.std], 1);
        moments.into_data().try_into_vec().expect("moments are f32")
    }
}
