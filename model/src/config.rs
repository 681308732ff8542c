//! What a model is made of: one serialisable struct, which the weights file carries.
//!
//! Every choice that the paper leaves open is a field here. The defaults are those of the preset
//! `cifar10`; [`crate::preset`] holds the named configurations.

use serde::{Deserialize, Serialize};

/// Everything that is needed to build a model around its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The network F.
    pub network: NetworkConfig,
    /// How F becomes the denoiser D.
    #[serde(default)]
    pub precond: PrecondConfig,
}

/// The network's kind and sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "space", rename_all = "kebab-case")]
pub enum NetworkConfig {
    /// The U-shaped network that works on pixels.
    Image(ImageConfig),
    /// The plain stack of blocks that works on the latents of an autoencoder.
    Latent(LatentConfig),
}

/// Preconditioning: how the network's output is combined with its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PrecondConfig {
    /// EDM (arXiv 2206.00364, table 1).
    Edm {
        /// Expected standard deviation of the data.
        sigma_data: f64,
    },
    /// Variance preserving, with the network predicting the noise (EDM, table 1, first column).
    Vp {
        /// The noise schedule.
        #[serde(default)]
        schedule: VpSchedule,
    },
    /// Variance exploding, with the network predicting the noise (EDM, table 1, second column).
    Ve {
        /// Lowest noise level.
        #[serde(default = "ve_sigma_min")]
        sigma_min: f64,
        /// Highest noise level.
        #[serde(default = "ve_sigma_max")]
        sigma_max: f64,
    },
    /// Variance preserving in discrete time, with the network predicting the noise from the number
    /// of the step and perhaps, in further channels, the variance (ADM, arXiv 2105.05233).
    Adm {
        /// The noise schedule.
        #[serde(default)]
        betas: LinearBetas,
    },
}

/// Lowest noise level of the variance exploding process.
pub(crate) fn ve_sigma_min() -> f64 {
    0.02
}

/// Highest noise level of the variance exploding process.
pub(crate) fn ve_sigma_max() -> f64 {
    100.0
}

/// The noise levels of the variance preserving process over time 0 to 1:
/// `σ(t) = sqrt(exp(beta_d t² / 2 + beta_min t) - 1)` (EDM, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VpSchedule {
    /// Rise of the rate of noise.
    pub beta_d: f64,
    /// Rate of noise at time 0.
    pub beta_min: f64,
    /// Earliest time that is used.
    pub epsilon_t: f64,
    /// Time steps of the discrete process whose numbers the network is told.
    pub steps: usize,
}

impl Default for VpSchedule {
    fn default() -> Self {
        Self { beta_d: 19.9, beta_min: 0.1, epsilon_t: 1e-5, steps: 1000 }
    }
}

impl VpSchedule {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        positive("schedule.beta_d", self.beta_d)?;
        positive("schedule.beta_min", self.beta_min)?;
        positive("schedule.epsilon_t", self.epsilon_t)?;
        check(self.epsilon_t < 1.0, || {
            format!("schedule.epsilon_t is {}, not below 1", self.epsilon_t)
        })?;
        within("schedule.steps", self.steps, 2, 1_000_000)
    }

    /// The noise level at time `t`.
    pub fn sigma(&self, t: f64) -> f64 {
        (0.5 * self.beta_d * t * t + self.beta_min * t).exp_m1().sqrt()
    }

    /// The time of noise level `sigma`.
    pub fn time(&self, sigma: f64) -> f64 {
        // The root of beta_d t² / 2 + beta_min t = ln(1 + σ²), without cancellation near 0.
        let log = (sigma * sigma).ln_1p();
        2.0 * log / (self.beta_min + (self.beta_min.powi(2) + 2.0 * self.beta_d * log).sqrt())
    }
}

/// Checks the noise levels of the variance exploding process.
pub(crate) fn validate_ve(sigma_min: f64, sigma_max: f64) -> Result<(), ConfigError> {
    positive("sigma_min", sigma_min)?;
    positive("sigma_max", sigma_max)?;
    check(sigma_min < sigma_max, || {
        format!("sigma_min {sigma_min} is not below sigma_max {sigma_max}")
    })
}

/// The process of discrete time whose betas rise evenly. What follows from them is in
/// [`crate::discrete`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearBetas {
    /// Number of steps.
    pub steps: usize,
    /// Beta of the first step.
    pub first: f64,
    /// Beta of the last step.
    pub last: f64,
}

impl Default for LinearBetas {
    fn default() -> Self {
        Self { steps: 1000, first: 1e-4, last: 0.02 }
    }
}

impl LinearBetas {
    /// Checks that they make a process.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("betas.steps", self.steps, 2, 10_000)?;
        for (field, beta) in [("betas.first", self.first), ("betas.last", self.last)] {
            check(beta > 0.0 && beta < 1.0, || format!("{field} is {beta}, not between 0 and 1"))?;
        }
        let end = self.sigmas()[self.steps - 1];
        check(end.is_finite(), || {
            format!("{} betas up to {} leave nothing of a picture", self.steps, self.last)
        })
    }
}

impl Default for PrecondConfig {
    fn default() -> Self {
        Self::Edm { sigma_data: 0.5 }
    }
}

/// The image-space network: tokenizer, encoder stages, decoder stages, head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// Height and width of the pictures, in pixels.
    pub resolution: usize,
    /// Colour channels of the pictures.
    pub image_channels: usize,
    /// Channels of each stage, from the finest to the coarsest. Each stage after the first works
    /// at half the resolution of the one before.
    pub channels: Vec<usize>,
    /// DiffiT ResBlocks of each stage: L of the paper. The coarsest stage is the bottleneck and
    /// is there once; the others are there in the encoder and in the decoder.
    pub blocks: Vec<usize>,
    /// Classes that can be asked for; 0 for an unconditional network.
    #[serde(skip_serializing_if = "is_zero")]
    pub classes: usize,
    /// The time token.
    pub time: TimeConfig,
    /// The DiffiT transformer block.
    pub transformer: TransformerConfig,
    /// Attention window.
    pub window: Window,
    /// Where encoder features enter the decoder.
    pub skip: Skip,
    /// How resolution changes between stages.
    pub resample: Resample,
    /// The outer residual of Eq (10).
    pub residual: Residual,
    /// Group normalisation before each convolution.
    pub group_norm: GroupNormConfig,
    /// Probability of dropout between Swish and the convolution of Eq (9).
    pub dropout: f64,
    /// Factor on the initial weights of whatever ends a residual branch, and of the head.
    pub branch_init: f64,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            resolution: 32,
            image_channels: 3,
            channels: vec![128, 256, 256],
            blocks: vec![4, 4, 4],
            classes: 0,
            time: TimeConfig::default(),
            transformer: TransformerConfig::default(),
            window: Window::Size(4),
            skip: Skip::Stage,
            resample: Resample::Convolution,
            residual: Residual::Projection,
            group_norm: GroupNormConfig::default(),
            dropout: 0.13,
            branch_init: 1e-5,
        }
    }
}

/// The time token: a sinusoid of the noise level, then an MLP with Swish (EDM's mapping network).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeConfig {
    /// Values of the sinusoid: half sines, half cosines.
    pub channels: usize,
    /// The frequencies fall from 1 to `1 / max_period`, the last included.
    pub max_period: f64,
    /// Width of the MLP and of the time token.
    pub width: usize,
    /// Augmentation labels that are added to the sinusoid by a bias-free linear map; 0 for none.
    pub augment_labels: usize,
}

impl Default for TimeConfig {
    fn default() -> Self {
        Self { channels: 128, max_period: 10_000.0, width: 512, augment_labels: 9 }
    }
}

/// The latent network: patches, a stack of DiffiT transformer blocks, a linear map back. The
/// defaults are those of the preset `latent256`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatentConfig {
    /// Height and width of a latent: an eighth of those of the picture.
    pub resolution: usize,
    /// Channels of a latent.
    pub channels: usize,
    /// Height and width of a patch. Each becomes a token.
    pub patch: usize,
    /// Channels of a token, and width of the embeddings of time and class.
    pub width: usize,
    /// Transformer blocks.
    pub depth: usize,
    /// Classes that can be asked for; 0 for a network that knows of none.
    pub classes: usize,
    /// Values of the sinusoid of the time step: half cosines, half sines.
    pub time_channels: usize,
    /// The frequencies fall from 1 towards `1 / max_period`, the last not included.
    pub max_period: f64,
    /// The DiffiT transformer block.
    pub transformer: TransformerConfig,
    /// Attention window.
    pub window: Window,
    /// Whether the network also says where between its bounds the variance of a step lies, in as
    /// many channels again.
    pub learned_variance: bool,
}

impl Default for LatentConfig {
    fn default() -> Self {
        Self {
            resolution: 32,
            channels: 4,
            patch: 2,
            width: 1152,
            depth: 28,
            classes: 1000,
            time_channels: 256,
            max_period: 10_000.0,
            transformer: TransformerConfig {
                head_dim: 72,
                layer_norm_affine: false,
                ..TransformerConfig::default()
            },
            window: Window::Global,
            learned_variance: true,
        }
    }
}

/// The DiffiT transformer block, Eq (3)-(8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerConfig {
    /// Channels of an attention head.
    pub head_dim: usize,
    /// Width of the MLP's hidden layer, in channels of the block.
    pub mlp_ratio: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Whether layer normalisation has a scale and a shift.
    pub layer_norm_affine: bool,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// Whether the maps to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Relative position bias.
    pub position: Position,
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
        }
    }
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

/// How attention knows positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Position {
    /// A learned bias per head and offset, B of Eq (6).
    Relative {
        /// Standard deviation of the initial table.
        init_std: f64,
    },
    /// No bias.
    None,
}

/// Attention window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// Square windows of this many tokens a side. It divides the map of every stage.
    Size(usize),
    /// One window: the whole map.
    Global,
}

impl Window {
    /// Tokens a side of a window on a map of `side` tokens a side.
    pub fn on(self, side: usize) -> usize {
        match self {
            Window::Size(size) => size,
            Window::Global => side,
        }
    }
}

/// Where encoder features enter the decoder. They are concatenated to the decoder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The output of a stage, at the first block of the decoder stage of the same resolution.
    Stage,
    /// The output of every block, at the mirrored block of the decoder (as EDM has it).
    Block,
}

/// How resolution changes between stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resample {
    /// Down: a 3x3 convolution of stride 2. Up: nearest neighbour x2, then a 3x3 convolution.
    Convolution,
    /// Bilinear interpolation without weights.
    Bilinear,
}

/// The outer residual of Eq (10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Residual {
    /// The block's input, through a 1x1 convolution where the channels change.
    Projection,
    /// None: the block is Eq (9) and the transformer alone.
    None,
}

/// Group normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupNormConfig {
    /// Groups at the most.
    pub max_groups: usize,
    /// Channels of a group at the least.
    pub min_group_channels: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl Default for GroupNormConfig {
    fn default() -> Self {
        Self { max_groups: 32, min_group_channels: 4, eps: 1e-6 }
    }
}

impl GroupNormConfig {
    /// The number of groups for `channels`.
    pub fn groups(&self, channels: usize) -> usize {
        self.max_groups.min(channels / self.min_group_channels).max(1)
    }
}

/// Why a configuration cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model configuration cannot be built: {0}")]
pub struct ConfigError(String);

/// Sizes above these are taken for a damaged or hostile file.
const MAX_CHANNELS: usize = 16_384;
const MAX_BLOCKS: usize = 1_024;
const MAX_CLASSES: usize = 1_000_000;
const MAX_RESOLUTION: usize = 4_096;
const MAX_TOKENS_A_SIDE: usize = 128;
/// Attention has as many weights as the fourth power of it, for every head.
const MAX_WINDOW: usize = 64;

impl ModelConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    ///
    /// The first thing that does not, with the field and its value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let precond = match self.precond {
            PrecondConfig::Edm { sigma_data } => positive("sigma_data", sigma_data),
            PrecondConfig::Vp { schedule } => schedule.validate(),
            PrecondConfig::Ve { sigma_min, sigma_max } => validate_ve(sigma_min, sigma_max),
            PrecondConfig::Adm { betas } => betas.validate(),
        };
        precond.map_err(|ConfigError(reason)| ConfigError(format!("precond: {reason}")))?;
        match &self.network {
            NetworkConfig::Image(image) => image.validate(),
            NetworkConfig::Latent(latent) => latent.validate(),
        }
    }

    /// The shape of one picture, or of one latent, `[C, H, W]`.
    pub fn image_shape(&self) -> [usize; 3] {
        match &self.network {
            NetworkConfig::Image(image) => {
                [image.image_channels, image.resolution, image.resolution]
            }
            NetworkConfig::Latent(latent) => {
                [latent.channels, latent.resolution, latent.resolution]
            }
        }
    }

    /// How many classes can be asked for; 0 if the network knows of none.
    pub fn classes(&self) -> usize {
        match &self.network {
            NetworkConfig::Image(image) => image.classes,
            NetworkConfig::Latent(latent) => latent.classes,
        }
    }

    /// This configuration with another number of classes.
    pub fn with_classes(mut self, classes: usize) -> Self {
        match &mut self.network {
            NetworkConfig::Image(image) => image.classes = classes,
            NetworkConfig::Latent(latent) => latent.classes = classes,
        }
        self
    }

    /// Values of the largest result on the way from one picture to its denoised one: that of an
    /// MLP's hidden layer, of queries, keys and values together, or of attention.
    pub fn largest_map(&self) -> usize {
        let of = |transformer: &TransformerConfig, side: usize, channels: usize, window: usize| {
            let tokens = side * side;
            let features = tokens * channels * transformer.mlp_ratio.max(3);
            let heads = channels / transformer.head_dim.max(1);
            features.max(heads * tokens * window * window)
        };
        match &self.network {
            NetworkConfig::Image(image) => {
                let stage = |(i, &channels): (usize, &usize)| {
                    let side = image.side(i);
                    of(&image.transformer, side, channels, image.window.on(side))
                };
                image.channels.iter().enumerate().map(stage).max().unwrap_or(0)
            }
            NetworkConfig::Latent(latent) => {
                let side = latent.side();
                of(&latent.transformer, side, latent.width, latent.window.on(side))
            }
        }
    }

    /// How many augmentation labels the network takes; 0 if it takes none.
    pub fn augment_labels(&self) -> usize {
        match &self.network {
            NetworkConfig::Image(image) => image.time.augment_labels,
            NetworkConfig::Latent(_) => 0,
        }
    }
}

impl ImageConfig {
    /// Height and width of the map at `stage`.
    pub fn side(&self, stage: usize) -> usize {
        self.resolution >> stage
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let stages = self.channels.len();
        check(stages > 0 && stages <= 8, || format!("channels lists {stages} stages, not 1 to 8"))?;
        check(self.blocks.len() == stages, || {
            format!("blocks lists {} stages and channels {stages}", self.blocks.len())
        })?;
        within("resolution", self.resolution, 1, MAX_RESOLUTION)?;
        within("image_channels", self.image_channels, 1, 64)?;
        within("classes", self.classes, 0, MAX_CLASSES)?;
        check(self.resolution.is_multiple_of(1 << (stages - 1)), || {
            format!("resolution {} cannot be halved {} times", self.resolution, stages - 1)
        })?;
        within("time.width", self.time.width, 1, MAX_CHANNELS)?;
        within("time.channels", self.time.channels, 4, MAX_CHANNELS)?;
        within("time.augment_labels", self.time.augment_labels, 0, 1_024)?;
        check(self.time.channels.is_multiple_of(2), || {
            format!("time.channels is {}, which is odd", self.time.channels)
        })?;
        check(self.time.max_period.is_finite() && self.time.max_period >= 1.0, || {
            format!("time.max_period is {}, which is below 1", self.time.max_period)
        })?;
        self.transformer.validate()?;
        within("group_norm.max_groups", self.group_norm.max_groups, 1, MAX_CHANNELS)?;
        within(
            "group_norm.min_group_channels",
            self.group_norm.min_group_channels,
            1,
            MAX_CHANNELS,
        )?;
        positive("group_norm.eps", self.group_norm.eps)?;
        check((0.0..1.0).contains(&self.dropout), || {
            format!("dropout is {}, not within 0 to 1", self.dropout)
        })?;
        check((0.0..=1.0).contains(&self.branch_init), || {
            format!("branch_init is {}, not within 0 to 1", self.branch_init)
        })?;
        for stage in 0..stages {
            let (c, blocks) = (self.channels[stage], self.blocks[stage]);
            within(&format!("channels[{stage}]"), c, 1, MAX_CHANNELS)?;
            within(&format!("blocks[{stage}]"), blocks, 1, MAX_BLOCKS)?;
            self.transformer.divides(&format!("channels[{stage}]"), c)?;
            self.window.divides(self.side(stage), &format!("map of stage {stage}"))?;
        }
        for c in self.normalised_channels() {
            let groups = self.group_norm.groups(c);
            check(c.is_multiple_of(groups), || {
                format!("{groups} groups of group_norm do not divide {c} channels")
            })?;
        }
        Ok(())
    }

    /// Every number of channels that group normalisation meets.
    fn normalised_channels(&self) -> impl Iterator<Item = usize> + '_ {
        let c = &self.channels;
        let same = c.iter().copied();
        let deeper = c.windows(2).flat_map(|w| [w[0], w[1] + w[0], 2 * w[0]]);
        same.chain(deeper)
    }
}

impl LatentConfig {
    /// Tokens a side of the map.
    pub fn side(&self) -> usize {
        self.resolution / self.patch
    }

    /// Channels of the output: the prediction's, then those of the variance.
    pub fn channels_out(&self) -> usize {
        if self.learned_variance { 2 * self.channels } else { self.channels }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        within("resolution", self.resolution, 1, MAX_RESOLUTION)?;
        within("channels", self.channels, 1, 64)?;
        within("patch", self.patch, 1, 64)?;
        check(self.resolution.is_multiple_of(self.patch), || {
            format!("patch {} does not divide resolution {}", self.patch, self.resolution)
        })?;
        within("resolution / patch", self.side(), 1, MAX_TOKENS_A_SIDE)?;
        within("width", self.width, 4, MAX_CHANNELS)?;
        check(self.width.is_multiple_of(4), || {
            format!(
                "width is {}, which 4 does not divide: the position embedding has 4 parts",
                self.width
            )
        })?;
        within("depth", self.depth, 1, MAX_BLOCKS)?;
        within("classes", self.classes, 0, MAX_CLASSES)?;
        within("time_channels", self.time_channels, 2, MAX_CHANNELS)?;
        check(self.time_channels.is_multiple_of(2), || {
            format!("time_channels is {}, which is odd", self.time_channels)
        })?;
        check(self.max_period.is_finite() && self.max_period >= 1.0, || {
            format!("max_period is {}, which is below 1", self.max_period)
        })?;
        self.transformer.validate()?;
        self.transformer.divides("width", self.width)?;
        self.window.divides(self.side(), "map of tokens")
    }
}

impl TransformerConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        within("transformer.head_dim", self.head_dim, 1, MAX_CHANNELS)?;
        within("transformer.mlp_ratio", self.mlp_ratio, 1, 64)?;
        positive("transformer.layer_norm_eps", self.layer_norm_eps)?;
        if let Position::Relative { init_std } = self.position {
            check((0.0..=1.0).contains(&init_std), || {
                format!("transformer.position.init_std is {init_std}, not within 0 to 1")
            })?;
        }
        Ok(())
    }

    /// Checks that `channels` can be shared out among heads.
    fn divides(&self, field: &str, channels: usize) -> Result<(), ConfigError> {
        check(channels.is_multiple_of(self.head_dim), || {
            format!("transformer.head_dim {} does not divide {field} = {channels}", self.head_dim)
        })
    }
}

impl Window {
    /// Checks that whole windows cover a map.
    fn divides(self, side: usize, map: &str) -> Result<(), ConfigError> {
        let window = self.on(side);
        check(window > 0 && side.is_multiple_of(window), || {
            format!("a window of {window} does not divide the {side}x{side} {map}")
        })?;
        within("window", window, 1, MAX_WINDOW)
    }
}

/// Whether `n` is 0: serde leaves such a field out, so that older programs read the file.
fn is_zero(n: &usize) -> bool {
    *n == 0
}

pub(crate) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError(otherwise())) }
}

pub(crate) fn within(
    field: &str,
    value: usize,
    low: usize,
    high: usize,
) -> Result<(), ConfigError> {
    check((low..=high).contains(&value), || {
        format!("{field} is {value}, not within {low} to {high}")
    })
}

pub(crate) fn positive(field: &str, value: f64) -> Result<(), ConfigError> {
    check(value.is_finite() && value > 0.0, || {
        format!("{field} is {value}, which is not a positive number")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edit: impl FnOnce(&mut ImageConfig)) -> Result<(), String> {
        let mut image = ImageConfig::default();
        edit(&mut image);
        let network = NetworkConfig::Image(image);
        let config = ModelConfig { network, precond: PrecondConfig::default() };
        config.validate().map_err(|e| e.to_string())
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        assert_eq!(edited(|_| {}), Ok(()));
        let cases: [(fn(&mut ImageConfig), &str); 10] = [
            (|c| c.resolution = 30, "resolution 30 cannot be halved 2 times"),
            (
                |c| c.window = Window::Size(5),
                "a window of 5 does not divide the 32x32 map of stage 0",
            ),
            (|c| c.window = Window::Size(0), "a window of 0"),
            (|c| (c.resolution, c.window) = (512, Window::Global), "window is 512"),
            (|c| c.blocks = vec![4, 4], "blocks lists 2 stages and channels 3"),
            (|c| c.channels = vec![], "channels lists 0 stages"),
            (|c| c.transformer.head_dim = 48, "head_dim 48 does not divide channels[0] = 128"),
            (|c| c.channels[1] = 1 << 40, "channels[1] is 1099511627776"),
            (|c| c.dropout = f64::NAN, "dropout is NaN"),
            (|c| c.group_norm.eps = 0.0, "group_norm.eps is 0"),
        ];
        for (edit, message) in cases {
            let error = edited(edit).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn what_does_not_fit_into_a_latent_network_is_named() {
        let cases: [(fn(&mut LatentConfig), &str); 7] = [
            (|c| c.patch = 5, "patch 5 does not divide resolution 32"),
            (|c| c.patch = 0, "patch is 0"),
            (|c| c.resolution = 4096, "resolution / patch is 2048"),
            (|c| c.width = 1150, "width is 1150, which 4 does not divide"),
            (|c| c.transformer.head_dim = 64 + 1, "head_dim 65 does not divide width = 1152"),
            (|c| c.window = Window::Size(3), "a window of 3 does not divide the 16x16 map"),
            (|c| c.depth = 1 << 40, "depth is 1099511627776"),
        ];
        for (edit, message) in cases {
            let mut latent = LatentConfig::default();
            edit(&mut latent);
            let network = NetworkConfig::Latent(latent);
            let config = ModelConfig { network, precond: PrecondConfig::default() };
            let error = config.validate().expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn the_largest_maps_are_those_of_mlps_and_of_attention() {
        let latent = |resolution| ModelConfig {
            network: NetworkConfig::Latent(LatentConfig { resolution, ..LatentConfig::default() }),
            precond: PrecondConfig::default(),
        };
        // 256 tokens of 4 x 1152 hidden values; 16 heads over 1024 x 1024 tokens.
        assert_eq!([32, 64].map(|side| latent(side).largest_map()), [256 * 4608, 16 << 20]);
        let network = NetworkConfig::Image(ImageConfig {
            resolution: 32,
            channels: vec![32, 64],
            ..ImageConfig::default()
        });
        let image = ModelConfig { network, precond: PrecondConfig::default() };
        assert_eq!(image.largest_map(), 32 * 32 * 32 * 4);
    }

    #[test]
    fn missing_fields_take_the_default_and_unknown_ones_are_refused() {
        let config: ModelConfig = serde_json::from_str(r#"{"network": {"space": "image"}}"#)
            .expect("all fields have defaults");
        assert_eq!(config.network, NetworkConfig::Image(ImageConfig::default()));
        let config: ModelConfig = serde_json::from_str(r#"{"network": {"space": "latent"}}"#)
            .expect("all fields have defaults");
        assert_eq!(config.network, NetworkConfig::Latent(LatentConfig::default()));
        let text = r#"{"network": {"space": "image", "widnow": "global"}}"#;
        let error = serde_json::from_str::<ModelConfig>(text).expect_err("a typing error");
        assert!(error.to_string().contains("widnow"));
    }

    #[test]
    fn a_configuration_survives_its_json() {
        for (_, config) in crate::preset::all() {
            let text = serde_json::to_string(&config).expect("a configuration is plain data");
            assert_eq!(serde_json::from_str::<ModelConfig>(&text).expect("its own JSON"), config);
        }
    }
}
