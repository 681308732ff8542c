//! The pictures of an order.

use std::sync::Arc;

use model::picture::{Origin, Rgb};

use crate::names::caption;
use crate::protocol::{Noise, Order, Ready};

/// The pictures at one noise level. Without previews, there are none before the finished ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The noise level.
    pub sigma: f64,
    /// The noisy pictures.
    pub noisy: Vec<Rgb>,
    /// The denoised pictures.
    pub guess: Vec<Rgb>,
    /// Whether the pictures show three channels of latents.
    pub latent: bool,
}

impl Frame {
    /// Returns whether there are pictures.
    pub fn has_pictures(&self) -> bool {
        !self.guess.is_empty()
    }
}

/// The pictures of an order, at every step so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The number of the run, by which the worker knows its steps.
    pub number: u64,
    /// The order.
    pub order: Order,
    /// The link to the scene at the time of the order.
    pub link: String,
    /// A frame for each step so far, and one for the final pictures.
    pub frames: Vec<Arc<Frame>>,
    /// Total time in milliseconds and evaluations, once the order is done.
    pub finished: Option<(f64, usize)>,
    /// SHA-256 of the autoencoder that decoded latents, if one did.
    pub autoencoder: Option<String>,
}

impl Run {
    /// Returns the settings that are saved with the pictures.
    pub fn origin(&self, ready: &Ready) -> Origin {
        Origin {
            model: ready.card.name.clone(),
            weights_sha256: ready.sha256.clone(),
            vae_sha256: self.autoencoder.clone(),
            seeds: self.order.noises.iter().map(Noise::seed).collect(),
            settings: self.order.settings.clone(),
            page: Some(self.link.clone()),
        }
    }

    /// Returns the denoised picture of a step to show something on, such as attention: the finished one
    /// if there was no preview.
    pub fn background(&self, step: usize, picture: usize) -> Option<&Rgb> {
        let frame = self.frames.get(step).filter(|frame| frame.has_pictures());
        frame.or(self.frames.last())?.guess.get(picture)
    }

    /// Returns the frames that have pictures.
    pub fn pictured(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().map(|frame| &**frame).filter(|frame| frame.has_pictures())
    }

    /// Returns the caption of each picture, from the names of the model's classes; nothing if the
    /// pictures have no class.
    pub fn captions(&self, names: &[String]) -> Vec<String> {
        let seeds: Vec<u64> = self.order.noises.iter().map(Noise::seed).collect();
        let labels = self.order.settings.labels_of(&seeds);
        labels.iter().map(|label| caption(names, label)).collect()
    }

    /// Returns the noise levels of all steps, including those to come.
    pub fn sigmas(&self) -> Vec<f64> {
        let most = self.order.guide.map_or(f64::MAX, |guide| guide.sigma);
        let settings = &self.order.settings;
        let sigmas = settings.schedule.sigmas_within(0.0..=most, settings.steps);
        // Settings that the worker refuses have no levels.
        let mut sigmas = sigmas.unwrap_or_default();
        for (sigma, frame) in sigmas.iter_mut().zip(&self.frames) {
            *sigma = frame.sigma;
        }
        sigmas
    }
}

/// Splits bytes into pictures.
pub fn pictures(bytes: &[u8], [width, height]: [usize; 2]) -> Vec<Rgb> {
    if width * height == 0 {
        return Vec::new();
    }
    let pictures = bytes.chunks_exact(3 * width * height);
    pictures.map(|bytes| Rgb { width, height, bytes: bytes.to_vec() }).collect()
}
