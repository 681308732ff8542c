//! Loading of published files (`diffusion_pytorch_model.safetensors`) without conversion.
//!
//! Published files contain no configuration and have Stable Diffusion's. A file of other sizes may
//! have its configuration in its metadata, as JSON under the key `diffit_vae`. The tensors of
//! attention have older or newer names, depending on the version of the library diffusers; the
//! loader accepts both.

use burn::tensor::Device;

use crate::network::params::{Source, TensorSpec};
use crate::vae::autoencoder::Vae;
use crate::vae::config::VaeConfig;
use crate::vae::names::Names;
use crate::vae::network::{Autoencoder, specs};
use crate::weights::check::{check, check_finite};
use crate::weights::error::WeightsError;
use crate::weights::tensor_file::TensorFile;

/// The metadata key of the configuration, for autoencoders of other sizes than Stable Diffusion's.
const KEY: &str = "diffit_vae";

impl Vae {
    /// Loads an autoencoder from the bytes of a published file. Without a configuration, that of
    /// the file is used, or Stable Diffusion's if the file has none.
    ///
    /// # Errors
    ///
    /// If the file or the configuration is not valid. The message is meant for the user.
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

    /// [`Vae::from_safetensors`] for a file that is already open.
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
            None => VaeConfig::of_file(tensors)?,
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

impl VaeConfig {
    /// The configuration in a file's metadata, or Stable Diffusion's if there is none.
    ///
    /// # Errors
    ///
    /// If the configuration is damaged or not valid.
    pub fn of_file(tensors: &TensorFile) -> Result<Self, WeightsError> {
        let config: Self = match tensors.metadata().and_then(|metadata| metadata.get(KEY)) {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| WeightsError::Metadata(format!("`{KEY}`: {error}")))?,
            None => Self::default(),
        };
        config.validate()?;
        Ok(config)
    }

    /// Number of parameters of an autoencoder with this configuration, which has to be valid.
    pub fn parameters(&self) -> usize {
        specs(self, Names::New).iter().map(TensorSpec::len).sum()
    }
}
