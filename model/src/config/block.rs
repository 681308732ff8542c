//! Configuration of the DiffiT transformer block, which the image network and the latent network are
//! made of.

use serde::{Deserialize, Serialize};

use crate::config::check::{
    ConfigError, MAX_CHANNELS, MAX_WINDOW, check, is_default, positive, within,
};

/// Configuration of the DiffiT transformer block, Eq (3)-(8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerConfig {
    /// Channels of an attention head.
    pub head_dim: usize,
    /// Width of the MLP's hidden layer, as a multiple of the block's channels.
    pub mlp_ratio: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Learned scale and shift of layer normalisation: whether they exist.
    pub layer_norm_affine: bool,
    /// Epsilon added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// Biases of the query, key and value projections: whether they exist.
    pub qkv_bias: bool,
    /// Relative position bias.
    pub position: Position,
    /// Place at which the time token enters.
    #[serde(skip_serializing_if = "is_default")]
    pub time_entry: TimeEntry,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            head_dim: 32,
            mlp_ratio: 4,
            activation: Activation::GeluTanh,
            layer_norm_affine: true,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            position: Position::Relative { init_std: 0.02 },
            time_entry: TimeEntry::default(),
        }
    }
}

/// Place at which the time token `x_t` enters a transformer block: TMSA, and the alternatives that the
/// paper compares it with in tables 6 and 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeEntry {
    /// Added to queries, keys and values: TMSA, Eq (3)-(5).
    #[default]
    Qkv,
    /// Added to the table of the relative position bias, which each picture has for itself.
    Bias,
    /// Added to the hidden layer of the MLP, before its activation.
    Mlp,
    /// Added to the input of the MLP.
    MlpInput,
    /// Nowhere.
    None,
    /// One more token in every window, with queries, keys and values of its own.
    Token,
    /// Added to the output of attention, before its last linear map: the self-attention of a
    /// single token is its value.
    Additive,
}

/// Activation of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU in its tanh form.
    GeluTanh,
    /// GELU by the error function.
    Gelu,
}

/// Position encoding of attention.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Position {
    /// A learned bias per head and offset, B of Eq (6).
    Relative {
        /// Standard deviation of the table's initial values.
        init_std: f64,
    },
    /// No bias.
    None,
}

/// Attention window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// Square windows with this many tokens per side, or of the whole map if the map is smaller. They
    /// must divide the side of every stage's map.
    Size(usize),
    /// A single window that covers the whole map.
    Global,
}

impl Window {
    /// Returns the tokens per side of a window on a map with `side` tokens per side.
    pub fn on(self, side: usize) -> usize {
        match self {
            Window::Size(size) => size.min(side),
            Window::Global => side,
        }
    }
}

impl TransformerConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        within("transformer.head_dim", self.head_dim, 1, MAX_CHANNELS)?;
        within("transformer.mlp_ratio", self.mlp_ratio, 1, 64)?;
        positive("transformer.layer_norm_eps", self.layer_norm_eps)?;
        if let Position::Relative { init_std } = self.position {
            check((0.0..=1.0).contains(&init_std), || {
                format!("transformer.position.init_std is {init_std}, not within 0 to 1")
            })?;
        }
        let has_bias = self.position != Position::None;
        check(self.time_entry != TimeEntry::Bias || has_bias, || {
            "transformer.time_entry is bias, and transformer.position is none".into()
        })
    }

    /// Checks that `channels` is a multiple of the channels of a head.
    pub(crate) fn divides(&self, field: &str, channels: usize) -> Result<(), ConfigError> {
        check(channels.is_multiple_of(self.head_dim), || {
            format!("transformer.head_dim {} does not divide {field} = {channels}", self.head_dim)
        })
    }
}

impl Window {
    /// Checks that the window's side divides the map's side.
    pub(crate) fn divides(self, side: usize, map: &str) -> Result<(), ConfigError> {
        let window = self.on(side);
        check(window > 0 && side.is_multiple_of(window), || {
            format!("a window of {window} does not divide the {side}x{side} {map}")
        })?;
        within("window", window, 1, MAX_WINDOW)
    }
}
