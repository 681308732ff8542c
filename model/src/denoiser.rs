//! A denoiser `D(x; σ)`: a model with the settings that stay fixed during sampling.

use burn::tensor::{Tensor, TensorData};

use crate::diffusion::guidance::{Guidance, GuidedChannels};
use crate::diffusion::label::Label;
use crate::diffusion::settings::Settings;
use crate::model::{Denoised, Model};
use crate::network::io::{AttentionMaps, Conditioning, Inspection, NetworkOptions};

/// A model with conditioning, guidance, clipping and a kept region.
///
/// Samplers, `trainer denoise` and the page's attention view all evaluate this type; training
/// evaluates [`Model::denoise`], which has neither guidance nor clipping.
#[derive(Clone, Debug)]
pub struct Denoiser<'a> {
    /// The model.
    pub model: &'a Model,
    /// Label of each picture of a batch; empty if no picture has a class.
    pub labels: Vec<Label>,
    /// Classifier-free guidance towards the labels.
    pub guidance: Option<Guidance>,
    /// Whether the denoised picture is clipped to -1 to 1.
    pub clip: bool,
    /// Region in which the denoised picture is replaced by a given one.
    pub kept: Option<KeptRegion>,
    /// Whether the time token is replaced by zeros.
    pub silence_time: bool,
}

/// A region whose values are kept from a given picture.
#[derive(Clone, Debug)]
pub struct KeptRegion {
    /// The picture, `[1, C, H, W]`.
    pub picture: Tensor<4>,
    /// 1 where its values are kept and 0 elsewhere, `[1, 1, H, W]`.
    pub mask: Tensor<4>,
}

impl<'a> Denoiser<'a> {
    /// The unconditional denoiser of a model.
    pub fn new(model: &'a Model) -> Self {
        Self {
            model,
            labels: Vec::new(),
            guidance: None,
            clip: false,
            kept: None,
            silence_time: false,
        }
    }

    /// The denoiser of these settings, for the pictures of these seeds.
    pub fn of_settings(model: &'a Model, settings: &Settings, seeds: &[u64]) -> Self {
        Self {
            model,
            labels: settings.labels_of(seeds),
            guidance: settings.guidance,
            clip: settings.clip_denoised,
            kept: None,
            silence_time: settings.silence_time,
        }
    }

    /// Computes `D(x; σ)` with guidance, clipping and the kept region.
    ///
    /// With guidance the model runs once, on a batch of twice the size, unless the scale is 1 at
    /// all of the noise levels. In the result, `raw` is guided in the channels of the prediction
    /// but not in those of the variance; clipping and the kept region do not apply to it.
    ///
    /// # Shapes
    ///
    /// - x: `[B, C, H, W]`; sigma: one noise level per picture
    ///
    /// # Panics
    ///
    /// As [`Model::denoise`].
    pub fn denoise(&self, x: Tensor<4>, sigma: &[f64]) -> Denoised {
        self.evaluate(x, sigma, self.inspection())
    }

    /// Returns the attention maps of one block, numbered in the order of execution, if there is
    /// such a block. With guidance they are those of the conditional half of the batch.
    pub fn attention(&self, x: Tensor<4>, sigma: &[f64], block: usize) -> Option<AttentionMaps> {
        let inspection = Inspection { attention_of: Some(block), ..self.inspection() };
        self.evaluate(x, sigma, inspection).attention
    }

    /// Returns a summary of the attention of each block, from one forward pass: `[B, 8]`, see
    /// [`AttentionMaps::summary`], or `None` for a block without attention. With guidance they are
    /// those of the conditional half of the batch.
    pub fn summaries(&self, x: Tensor<4>, sigma: &[f64]) -> Vec<Option<Tensor<2>>> {
        let inspection = Inspection { summaries: true, ..self.inspection() };
        self.evaluate(x, sigma, inspection).summaries
    }

    /// The inspection of an ordinary forward pass.
    fn inspection(&self) -> Inspection {
        Inspection { silence_time: self.silence_time, ..Inspection::default() }
    }

    /// Computes the denoised picture, and what the inspection asks for.
    fn evaluate(&self, x: Tensor<4>, sigma: &[f64], inspection: Inspection) -> Denoised {
        let mut output = self.guided(x, sigma, inspection);
        if self.clip {
            output.denoised = output.denoised.clamp(-1.0, 1.0);
        }
        if let Some(KeptRegion { picture, mask }) = &self.kept {
            let denoised = output.denoised;
            output.denoised = denoised.clone() + mask.clone() * (picture.clone() - denoised);
        }
        output
    }

    /// Computes classifier-free guidance, `D = D_class + (s - 1) (D_class - D_null)`. In this form,
    /// a scale of 1 gives the conditional model bit for bit.
    fn guided(&self, x: Tensor<4>, sigma: &[f64], inspection: Inspection) -> Denoised {
        let Self { model, labels, .. } = self;
        let options = |labels| NetworkOptions {
            conditioning: Conditioning { labels, augment: None },
            inspection,
            ..NetworkOptions::default()
        };
        let conditional = |x| model.denoise(x, sigma, options(labels.clone()));
        let Some(guidance) = &self.guidance else { return conditional(x) };
        let precond = &model.config.precond;
        let excess: Vec<f64> =
            sigma.iter().map(|&sigma| guidance.scale_at(precond, sigma) - 1.0).collect();
        if labels.iter().all(Label::is_none) || excess.iter().all(|&excess| excess == 0.0) {
            return conditional(x);
        }
        let [b, c, ..] = x.dims();
        let guided = match guidance.channels {
            GuidedChannels::Three => c.min(3),
            GuidedChannels::All => c,
        };
        let excess = TensorData::new(excess, [b, 1, 1, 1]);
        let excess = Tensor::<4>::from_data(excess, (&x.device(), x.dtype()));

        // The conditional half comes first.
        let both = labels.iter().cloned().chain((0..b).map(|_| Label::NONE)).collect();
        let x = Tensor::cat(vec![x.clone(), x], 0);
        let Denoised { denoised, raw, attention, summaries } =
            model.denoise(x, &sigma.repeat(2), options(both));
        let guide = |both: Tensor<4>| {
            let [_, channels, ..] = both.dims();
            let of =
                |half: usize, first, n| both.clone().narrow(0, half * b, b).narrow(1, first, n);
            let (class, null) = (of(0, 0, guided), of(1, 0, guided));
            let moved = class.clone() + (class - null) * excess.clone();
            match channels - guided {
                0 => moved,
                rest => Tensor::cat(vec![moved, of(0, guided, rest)], 1),
            }
        };
        Denoised {
            denoised: guide(denoised),
            raw: guide(raw),
            attention: attention.map(|maps| AttentionMaps {
                weights: maps.weights.narrow(0, 0, b),
                lengths: maps.lengths.narrow(0, 0, b),
                bias: match maps.bias.dims()[0] {
                    1 => maps.bias,
                    _ => maps.bias.narrow(0, 0, b),
                },
                ..maps
            }),
            summaries: summaries.into_iter().map(|s| s.map(|s| s.narrow(0, 0, b))).collect(),
        }
    }
}
