//! The published files (`diffusion_pytorch_model.safetensors`), as they are.
//!
//! They carry no configuration, which is then that of Stable Diffusion's; a file of other sizes may
//! carry it in its metadata, as JSON under the key `diffit_vae`. The maps of attention have two sets of names, an older and a newer
//! one of the library diffusers; which of them a file has, its tensors tell.

use burn::tensor::Device;

use crate::network::params::{Source, TensorSpec};
use crate::vae::autoencoder::Vae;
use crate::vae::config::VaeConfig;
use crate::vae::names::Names;
use crate::vae::network::{Autoencoder, specs};
use crate::weights::check::{check, check_finite};
use crate::weights::error::WeightsError;
use crate::weights::tensor_file::TensorFile;

/// The metadata entry that holds the configuration of an autoencoder of other sizes than Stable
/// Diffusion's.
const KEY: &str = "diffit_vae";

impl Vae {
    /// An autoencoder with the weights of a published file, given whole. Without a configuration it
    /// is that of the file, or Stable Diffusion's if it carries none.
    ///
    /// # Errors
    ///
    /// What is wrong with the file or the configuration, in words for the person who has them.
    pub fn from_safetensors(
        bytes: &[u8],
        config: impl Into<Option<VaeConfig>>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let config = config.into();
        if let Some(config) = &config {
            config.validate()?;
        }
        Self::from_file(&TensorFile::parse(bytes)?, config, device)
    }

    /// The same of a file that has been opened.
    ///
    /// # Errors
    ///
    /// As [`Vae::from_safetensors`].
    pub fn from_file(
        tensors: &TensorFile,
        config: Option<VaeConfig>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let config = match config {
            Some(config) => config,
            None => stored_config(tensors)?,
        };
        config.validate()?;
        let old = tensors.names().iter().any(|name| name.ends_with(".query.weight"));
        let names = if old { Names::Old } else { Names::New };
        let specs = specs(&config, names);
        let (_, problems) = check(tensors, &specs, &[]);
        if !problems.is_empty() {
            return Err(WeightsError::Tensors(problems));
        }
        check_finite(tensors, &specs)?;
        let values = |spec: &TensorSpec| tensors.checked_values(&spec.name);
        let network = Autoencoder::new(&config, names, device, &Source::Stored(&values));
        tensors.intact()?;
        Ok(Self { config, network })
    }
}

/// The configuration that a file carries, or Stable Diffusion's.
fn stored_config(tensors: &TensorFile) -> Result<VaeConfig, WeightsError> {
    match tensors.metadata().and_then(|metadata| metadata.get(KEY)) {
        Some(text) => serde_json::from_str(text)
            .map_err(|error| WeightsError::Metadata(format!("`{KEY}`: {error}"))),
        None => Ok(VaeConfig::default()),
    }
}
