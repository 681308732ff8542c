//! The published files (`diffusion_pytorch_model.safetensors`), as they are.
//!
//! They carry no configuration. The maps of attention have two sets of names, an older and a newer
//! one of the library diffusers; which of them a file has, its tensors tell.

use burn::tensor::Device;

use super::network::{Autoencoder, specs};
use super::{Vae, VaeConfig};
use crate::params::{Source, TensorSpec};
use crate::weights::{WeightsError, check, float_values, open};

/// What the maps of attention are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Old,
    New,
}

impl Names {
    /// The maps to queries, keys and values, and that of the result.
    pub fn of_attention(self) -> [&'static str; 4] {
        match self {
            Names::Old => ["query", "key", "value", "proj_attn"],
            Names::New => ["to_q", "to_k", "to_v", "to_out.0"],
        }
    }
}

impl Vae {
    /// An autoencoder with the weights of a published file, given whole.
    ///
    /// # Errors
    ///
    /// What is wrong with the file or the configuration, in words for the person who has them.
    pub fn from_safetensors(
        bytes: &[u8],
        config: VaeConfig,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        config.validate()?;
        let (_, tensors) = open(bytes)?;
        let old = tensors.names().iter().any(|name| name.ends_with(".query.weight"));
        let names = if old { Names::Old } else { Names::New };
        let specs = specs(&config, names);
        let (_, problems) = check(&tensors, &specs, &[]);
        if !problems.is_empty() {
            return Err(WeightsError::Tensors(problems));
        }
        let values = |spec: &TensorSpec| {
            let view = tensors.tensor(&spec.name).expect("its presence was checked");
            float_values(&view).expect("its type was checked")
        };
        for spec in &specs {
            if values(spec).iter().any(|value| !value.is_finite()) {
                return Err(WeightsError::NotFinite(spec.name.clone(), ""));
            }
        }
        let network = Autoencoder::new(&config, names, device, &Source::Stored(&values));
        Ok(Self { config, network })
    }
}
