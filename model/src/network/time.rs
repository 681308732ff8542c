//! The time token `x_t`, which all blocks share, of the image-space network and of the latent
//! network.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::{LatentConfig, TimeConfig, TimeFrequencies};
use crate::diffusion::label::Label;
use crate::kernels::Activate;
use crate::network::layers::{Around, ClassEmbedding, Linear};
use crate::network::macs::Macs;
use crate::network::params::{Init, Params};

/// The time embedding of the networks for images: a sinusoid of the noise level, plus the
/// embeddings of class and augmentation labels, then an MLP with Swish.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    pub(crate) class: Option<ClassEmbedding>,
    pub(crate) augment: Option<Linear>,
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
    /// Angular frequencies of the sinusoid.
    #[module(skip)]
    pub(crate) angular: Vec<f64>,
}

impl TimeEmbedding {
    /// The embedding of a network with this number of classes.
    pub(crate) fn new(params: &Params, config: &TimeConfig, classes: usize) -> Self {
        let TimeConfig { channels, width, augment_labels, max_period, embedding } = *config;
        let n = channels / 2;
        let angular = match embedding {
            TimeFrequencies::Positional => positional_frequencies(n, max_period),
            TimeFrequencies::Fourier => fourier_frequencies(params, "frequencies", n, 16.0),
        };
        Self {
            class: (classes > 0)
                .then(|| ClassEmbedding::new(&params.enter("class"), classes, channels)),
            augment: (augment_labels > 0).then(|| {
                Linear::new(&params.enter("augment"), [augment_labels, channels], false, 1.0)
            }),
            fc1: Linear::new(&params.enter("fc1"), [channels, width], true, 1.0),
            fc2: Linear::new(&params.enter("fc2"), [width, width], true, 1.0),
            angular,
        }
    }

    /// Computes the time token.
    ///
    /// # Shapes
    ///
    /// - c_noise, labels: one per picture; augment: `[B, labels]`, zero where there is none
    /// - output: `[B, width]`
    pub fn forward(
        &self,
        c_noise: &[f64],
        labels: &[Label],
        augment: Option<Tensor<2>>,
        options: (&Device, DType),
    ) -> Tensor<2> {
        // The sines come first.
        let mut x = sinusoid(c_noise, &self.angular, [libm::sin, libm::cos], options);
        if let Some(class) = &self.class {
            x = x + class.forward(labels, options);
        }
        if let (Some(linear), Some(labels)) = (&self.augment, augment) {
            x = x + linear.forward(labels);
        }
        let swish = || Around { activation: Some(Activate::Swish), ..Around::default() };
        self.fc2.forward_with(self.fc1.forward_with(x, swish()), swish())
    }

    pub(crate) fn macs(&self) -> Macs {
        self.class.iter().map(ClassEmbedding::macs).sum::<Macs>()
            + self.augment.iter().map(|linear| linear.macs(1)).sum::<Macs>()
            + self.fc1.macs(1)
            + self.fc2.macs(1)
    }
}

/// Returns `n` frequencies that fall from 1 to `1 / max_period`: `f_i = max_period^(-i / (n - 1))`.
pub(crate) fn positional_frequencies(n: usize, max_period: f64) -> Vec<f64> {
    (0..n).map(|i| max_period.powf(-(i as f64) / (n - 1) as f64)).collect()
}

/// Returns `n` frequencies `2π f`, where the `f` are a stored tensor called `name`, drawn from
/// `N(0, std²)` and not trained.
pub(crate) fn fourier_frequencies(params: &Params, name: &str, n: usize, std: f64) -> Vec<f64> {
    let frequencies = params.buffer(name, n, Init::Normal { std });
    frequencies.into_iter().map(|f| core::f64::consts::TAU * f64::from(f)).collect()
}

/// The time token as a stage adds it to its map: `x + g (W x_t + b)`.
#[derive(Module, Debug)]
pub(crate) struct StageTime {
    map: Linear,
    scale: Param<Tensor<1>>,
}

impl StageTime {
    /// For maps of `channels` and a time token of `width`.
    pub(crate) fn new(params: &Params, width: usize, channels: usize) -> Self {
        Self {
            map: Linear::new(params, [width, channels], true, 1.0),
            scale: params.tensor("scale", [channels], Init::Ones),
        }
    }

    /// # Shapes
    ///
    /// - x, output: `[B, H, W, C]`; time: `[B, width]`
    pub(crate) fn forward(&self, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        let [b, .., c] = x.dims();
        let scale = self.scale.val().cast(x.dtype()).reshape([1, c]);
        x + (self.map.forward(time) * scale).reshape([b, 1, 1, c])
    }

    pub(crate) fn macs(&self) -> Macs {
        self.map.macs(1)
    }
}

/// The timestep embedding of the latent network: a sinusoid of the timestep, then an MLP with Swish
/// between its two maps.
#[derive(Module, Debug)]
pub struct TimestepEmbedding {
    fc1: Linear,
    fc2: Linear,
    channels: usize,
    max_period: f64,
}

impl TimestepEmbedding {
    pub(crate) fn new(params: &Params, config: &LatentConfig, init: Init) -> Self {
        let LatentConfig { time_channels, width, max_period, .. } = *config;
        let linear = |index: usize, d_in| {
            Linear::with_init(&params.enter("mlp").enter(index), [d_in, width], true, init)
        };
        // Indices as in a PyTorch `Sequential`, where the activation is number 1.
        Self {
            fc1: linear(0, time_channels),
            fc2: linear(2, width),
            channels: time_channels,
            max_period,
        }
    }

    /// Computes the embedding of timesteps.
    ///
    /// # Shapes
    ///
    /// - t: timesteps, one per picture
    /// - output: `[B, width]`
    pub fn forward(&self, t: &[f64], options: (&Device, DType)) -> Tensor<2> {
        // f_i = max_period^(-i / n), and the cosines come first.
        let n = self.channels / 2;
        let frequencies: Vec<f64> =
            (0..n).map(|i| self.max_period.powf(-(i as f64) / n as f64)).collect();
        let x = sinusoid(t, &frequencies, [libm::cos, libm::sin], options);
        let swish = Around { activation: Some(Activate::Swish), ..Around::default() };
        self.fc2.forward(self.fc1.forward_with(x, swish))
    }

    pub(crate) fn macs(&self) -> Macs {
        self.fc1.macs(1) + self.fc2.macs(1)
    }
}

/// Computes `[g(t f_0), .., g(t f_(n-1)), h(t f_0), ..]` for `n` frequencies and two `waves` g and h,
/// `[B, 2 n]`.
///
/// It is computed on the host in `f64`: a GPU's sine may be inaccurate for arguments as large as
/// 999.
fn sinusoid(
    t: &[f64],
    frequencies: &[f64],
    waves: [fn(f64) -> f64; 2],
    options: (&Device, DType),
) -> Tensor<2> {
    let n = frequencies.len();
    let mut values = Vec::with_capacity(t.len() * 2 * n);
    for t in t {
        for wave in waves {
            values.extend(frequencies.iter().map(|f| wave(t * f)));
        }
    }
    Tensor::from_data(TensorData::new(values, [t.len(), 2 * n]), options)
}
