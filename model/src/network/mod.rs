//! The network F: the image-space U-Net, the latent network, or DDPM++ and NCSN++, behind one type.

mod attention;
pub(crate) mod block;
mod dit;
pub(crate) mod io;
pub(crate) mod latent;
pub(crate) mod layers;
pub mod macs;
mod mla;
pub(crate) mod params;
pub(crate) mod song;
mod stage;
mod time;
pub(crate) mod tmsa;
mod unet;
mod walk;
pub mod window;

use burn::module::Module;
use burn::tensor::Device;

use crate::config::NetworkConfig;
use crate::network::latent::LatentNetwork;
use crate::network::macs::Macs;
use crate::network::params::{Params, Source, TensorSpec};
use crate::network::song::SongNetwork;
use crate::network::unet::UNet;

pub use io::{
    AttentionMaps, BlockInfo, Conditioning, Inspection, NetworkInput, NetworkOptions,
    NetworkOutput, TrainingOptions,
};

/// The network F and the list of its tensors.
#[derive(Module, Debug)]
pub struct Network {
    kind: Kind,
    #[module(skip)]
    specs: Vec<TensorSpec>,
    /// Values of the tensors that are not trained.
    #[module(skip)]
    buffers: Vec<(TensorSpec, Vec<f32>)>,
}

/// The kinds of networks.
// Few values of this type exist and they are rarely moved, so the size difference is harmless.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
enum Kind {
    Image(UNet),
    Latent(LatentNetwork),
    Song(SongNetwork),
}

impl Network {
    /// Builds the network of a valid configuration.
    pub(crate) fn new(config: &NetworkConfig, device: &Device, source: &Source) -> Self {
        let params = Params::new(device, source);
        let kind = match config {
            NetworkConfig::Image(image) => Kind::Image(UNet::new(&params, image)),
            NetworkConfig::Latent(latent) => Kind::Latent(LatentNetwork::new(&params, latent)),
            NetworkConfig::Song(song) => Kind::Song(SongNetwork::new(&params, song)),
        };
        Self { kind, specs: params.specs(), buffers: params.buffers() }
    }

    /// The network's tensors, with the names and shapes of the weights file.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        self.specs.iter().filter(|spec| !spec.buffer).map(TensorSpec::len).sum()
    }

    /// The tensors that are not trained, with their values in the order of the weights file.
    pub(crate) fn buffers(&self) -> &[(TensorSpec, Vec<f32>)] {
        &self.buffers
    }

    /// Computes F(x; c_noise).
    ///
    /// # Panics
    ///
    /// If the shapes do not match the configuration.
    pub fn forward(&self, input: NetworkInput) -> NetworkOutput {
        match &self.kind {
            Kind::Image(unet) => unet.forward(input),
            Kind::Latent(network) => network.forward(input),
            Kind::Song(network) => network.forward(input),
        }
    }

    /// Multiply-adds of a forward pass for one picture.
    pub fn macs(&self) -> Macs {
        match &self.kind {
            Kind::Image(unet) => unet.macs(),
            Kind::Latent(network) => network.macs(),
            Kind::Song(network) => network.macs(),
        }
    }

    /// The network's blocks, in the order of execution.
    pub fn blocks(&self) -> Vec<BlockInfo> {
        match &self.kind {
            Kind::Image(unet) => unet.blocks(),
            Kind::Latent(network) => network.blocks(),
            Kind::Song(network) => network.blocks(),
        }
    }
}
