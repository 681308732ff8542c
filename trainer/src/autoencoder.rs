//! The autoencoder between pictures and latents, for the commands that need it.

use std::path::Path;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use model::config::ModelConfig;
use model::vae::{Vae, VaeConfig};
use sha2::{Digest, Sha256};

use crate::args::VaeArgs;
use crate::mapped::map;
use crate::weights_file::hex;

/// An autoencoder, and which one it is.
pub struct Autoencoder {
    /// Ready to compute.
    pub vae: Vae,
    /// SHA-256 of the file it came from.
    pub sha256: String,
}

impl Autoencoder {
    /// The one that the flags name, if they name one.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is not what it should be.
    pub fn asked_for(args: &VaeArgs, device: &Device) -> anyhow::Result<Option<Self>> {
        let load = |path: &Path| Self::load(path, args.vae_config.as_deref(), device);
        args.vae.as_deref().map(load).transpose()
    }

    /// Reads one from its file. `config` is a file with its sizes, if they are neither in the first
    /// nor Stable Diffusion's.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is not what it should be.
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
        Ok(Self { vae, sha256: hex(&Sha256::digest(&bytes)) })
    }

    /// Checks that it makes pictures of what a model makes.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn fits(&self, model: &ModelConfig) -> anyhow::Result<()> {
        let [made, side, _] = model.image_shape();
        let config = &self.vae.config;
        let (c, side) = (config.latent_channels, side * config.factor());
        ensure!(
            made == c,
            "the autoencoder of --vae has latents of {c} channels, and what this model makes has \
             {made}: leave --vae out for a model that makes pictures"
        );
        ensure!(side <= 4096, "pictures of {side} pixels a side are too large");
        Ok(())
    }
}
