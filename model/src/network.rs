//! The network F, whatever its kind.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::NetworkConfig;
use crate::latent::LatentNetwork;
use crate::macs::Macs;
use crate::model::Conditioning;
use crate::params::{Params, Source, TensorSpec};
use crate::unet::UNet;

/// What a network computes from. It computes in the type of `x`: parameters are brought to that
/// type where they meet it, while normalisation and softmax are computed in `f32`.
#[derive(Clone, Debug)]
pub struct NetworkInput {
    /// Noisy pictures, scaled by the preconditioner, `[B, C, H, W]`.
    pub x: Tensor<4>,
    /// Their noise levels, as the preconditioner expresses them, one a picture.
    pub c_noise: Vec<f64>,
    /// What else they are computed under.
    pub conditioning: Conditioning,
}

/// What a network computes.
#[derive(Clone, Debug)]
pub struct NetworkOutput {
    /// `[B, C, H, W]`; with a learned variance, `[B, 2 C, H, W]`: the prediction, then the place of
    /// the variance between its bounds, -1 to 1.
    pub x: Tensor<4>,
    /// Attention maps of the block that was asked for.
    pub attention: Option<AttentionMaps>,
}

/// What the tokens of a block attend to, and why.
#[derive(Clone, Debug)]
pub struct AttentionMaps {
    /// `[B, windows, heads, N, N]`: row `i` holds the weights with which token `i` of a window
    /// takes up the values of the others, and sums to 1. Windows are counted row after row, and
    /// so are the tokens inside one.
    pub weights: Tensor<5>,
    /// B of Eq (6), which knows no noise level, `[heads, N, N]`.
    pub bias: Tensor<3>,
    /// Lengths of the two parts of queries, keys and values (Eq 3-5), `[B, 2, 3]`: of the spatial
    /// token, as the mean over the map, and of the time token.
    pub lengths: Tensor<3>,
    /// Tokens a side of a window.
    pub window: usize,
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// `encoder` or `decoder`; `stack` in the latent network, which has one part.
    pub part: &'static str,
    /// Tokens a side of its map.
    pub side: usize,
    /// Channels of a token.
    pub channels: usize,
    /// Tokens a side of its attention window.
    pub window: usize,
}

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

    /// The number of its parameters.
    pub fn parameter_count(&self) -> usize {
        self.specs.iter().map(TensorSpec::len).sum()
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
