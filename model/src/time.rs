//! The time token `x_t`, which all blocks share.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use crate::config::TimeConfig;
use crate::layers::Linear;
use crate::macs::Macs;
use crate::ops::swish;
use crate::params::Params;

/// A sinusoid of the noise level, augmentation labels, and an MLP with Swish.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    augment: Option<Linear>,
    fc1: Linear,
    fc2: Linear,
    channels: usize,
    max_period: f64,
}

impl TimeEmbedding {
    pub(crate) fn new(params: &Params, config: &TimeConfig) -> Self {
        let TimeConfig { channels, width, augment_labels, max_period } = *config;
        Self {
            augment: (augment_labels > 0).then(|| {
                Linear::new(&params.enter("augment"), [augment_labels, channels], false, 1.0)
            }),
            fc1: Linear::new(&params.enter("fc1"), [channels, width], true, 1.0),
            fc2: Linear::new(&params.enter("fc2"), [width, width], true, 1.0),
            channels,
            max_period,
        }
    }

    /// # Shapes
    ///
    /// - c_noise: `[B]`, augment: `[B, labels]`, zero where there is none
    /// - output: `[B, width]`
    pub fn forward(&self, c_noise: Tensor<1>, augment: Option<Tensor<2>>) -> Tensor<2> {
        let mut x = sinusoid(c_noise, self.channels, self.max_period);
        if let (Some(linear), Some(labels)) = (&self.augment, augment) {
            x = x + linear.forward(labels);
        }
        swish(self.fc2.forward(swish(self.fc1.forward(x))))
    }

    pub(crate) fn macs(&self) -> Macs {
        self.augment.iter().map(|linear| linear.macs(1)).sum::<Macs>()
            + self.fc1.macs(1)
            + self.fc2.macs(1)
    }
}

/// `[sin(t f_0), .., cos(t f_0), ..]` with `f_i = max_period^(-i / (n - 1))`, `n = channels / 2`.
///
/// # Shapes
///
/// - t: `[B]`
/// - output: `[B, channels]`
fn sinusoid(t: Tensor<1>, channels: usize, max_period: f64) -> Tensor<2> {
    let n = channels / 2;
    let frequencies: Vec<f64> =
        (0..n).map(|i| max_period.powf(-(i as f64) / (n - 1) as f64)).collect();
    let frequencies = TensorData::new(frequencies, [n]);
    let frequencies = Tensor::<1>::from_data(frequencies, (&t.device(), t.dtype()));
    let angles = t.unsqueeze_dim::<2>(1) * frequencies.unsqueeze::<2>();
    Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1)
}
