//! The autoencoder of latent models.

use std::path::Path;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use model::config::ModelConfig;
use model::vae::{Vae, VaeConfig};

use crate::args::VaeArgs;
use crate::files::hash::sha256;
use crate::files::mapped::map;

/// An autoencoder and its origin.
pub struct Autoencoder {
    /// Autoencoder on the requested device.
    pub vae: Vae,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Autoencoder {
    /// Loads the autoencoder of --vae, if the flag is given.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is invalid.
    pub fn from_args(args: &VaeArgs, device: &Device) -> anyhow::Result<Option<Self>> {
        let load = |path: &Path| Self::load(path, args.vae_config.as_deref(), device);
        args.vae.as_deref().map(load).transpose()
    }

    /// Loads an autoencoder. `config` is a JSON file with its configuration; by default, this is
    /// read from the metadata of the first file, or is that of Stable Diffusion.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is invalid.
    pub fn load(path: &Path, config: Option<&Path>, device: &Device) -> anyhow::Result<Self> {
        let config: Option<VaeConfig> = match config {
            Some(path) => {
                let context = || format!("cannot read {}", path.display());
                let text = std::fs::read_to_string(path).with_context(context)?;
                Some(serde_json::from_str(&text).with_context(context)?)
            }
            None => None,
        };
        let bytes = map(path).with_context(|| format!("cannot read {}", path.display()))?;
        let vae = Vae::from_safetensors(&bytes, config, device)
            .with_context(|| path.display().to_string())?;
        Ok(Self { vae, sha256: sha256(&bytes) })
    }

    /// Checks that the autoencoder decodes what a model generates.
    ///
    /// # Errors
    ///
    /// If the numbers of channels differ, or the images would be too large.
    pub fn check_fits(&self, model: &ModelConfig) -> anyhow::Result<()> {
        let [channels, side, _] = model.image_shape();
        let config = &self.vae.config;
        let (c, side) = (config.latent_channels, side * config.factor());
        ensure!(
            channels == c,
            "the autoencoder of --vae has latents of {c} channels, but this model generates \
             {channels} channels; omit --vae for a model that generates images"
        );
        ensure!(side <= 4096, "images of {side} pixels a side are too large");
        Ok(())
    }
}
