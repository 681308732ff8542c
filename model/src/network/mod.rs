//! The network F, whatever its kind.

pub(crate) mod block;
pub(crate) mod io;
pub(crate) mod latent;
pub(crate) mod layers;
pub mod macs;
mod mla;
pub(crate) mod params;
mod stage;
mod time;
pub(crate) mod tmsa;
mod unet;
pub mod window;

use burn::module::Module;
use burn::tensor::Device;

use crate::config::NetworkConfig;
use crate::network::latent::LatentNetwork;
use crate::network::macs::Macs;
use crate::network::params::{Params, Source, TensorSpec};
use crate::network::unet::UNet;

pub use io::{
    AttentionMaps, BlockInfo, Conditioning, Inspection, NetworkInput, NetworkOptions,
    NetworkOutput, TrainingOptions,
};

/// A network and the list of its tensors.
#[derive(Module, Debug)]
pub struct Network {
    kind: Kind,
    #[module(skip)]
    specs: Vec<TensorSpec>,
}

/// The networks there are.
// There is one of them at a time, and it is not moved about.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
enum Kind {
    Image(UNet),
    Latent(LatentNetwork),
}

impl Network {
    /// Builds the network of a valid configuration.
    pub(crate) fn new(config: &NetworkConfig, device: &Device, source: &Source) -> Self {
        let params = Params::new(device, source);
        let kind = match config {
            NetworkConfig::Image(image) => Kind::Image(UNet::new(&params, image)),
            NetworkConfig::Latent(latent) => Kind::Latent(LatentNetwork::new(&params, latent)),
        };
        Self { kind, specs: params.specs() }
    }

    /// Its tensors, as the weights file names and shapes them.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The number of its parameters: what is stored but not trained is none.
    pub fn parameter_count(&self) -> usize {
        self.specs.iter().filter(|spec| spec.trained).map(TensorSpec::len).sum()
    }

    /// F(x; c_noise).
    ///
    /// # Panics
    ///
    /// If the shapes are not those of the configuration.
    pub fn forward(&self, input: NetworkInput) -> NetworkOutput {
        match &self.kind {
            Kind::Image(unet) => unet.forward(input),
            Kind::Latent(network) => network.forward(input),
        }
    }

    /// Multiply-adds of a forward pass for one picture.
    pub fn macs(&self) -> Macs {
        match &self.kind {
            Kind::Image(unet) => unet.macs(),
            Kind::Latent(network) => network.macs(),
        }
    }

    /// Its blocks, in the order of execution.
    pub fn blocks(&self) -> Vec<BlockInfo> {
        match &self.kind {
            Kind::Image(unet) => unet.blocks(),
            Kind::Latent(network) => network.blocks(),
        }
    }
}
