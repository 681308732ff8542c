//! What the worker computes: the steps of a run, samples, and the weights file.

use std::convert::Infallible;
use std::ops::ControlFlow;

use burn::optim::AdamConfig;
use burn::tensor::{Device, Tensor, TensorData};
use model::card::Card;
use model::ema;
use model::examples::{Examples, Order, draw_noise};
use model::generate::generate_labelled;
use model::image::from_bytes;
use model::label::Label;
use model::loss::LossConfig;
use model::noise::{Random, Stream};
use model::picture::Rgb;
use model::sampler::Evaluation;
use model::settings::Settings;
use model::state::{StepOptions, TrainState};
use model::weights::{Precision, Weights, to_bytes};
use model::{Conditioning, Model};

use super::{Lesson, MOST_PICTURES, SAMPLES, SIDE, config};

/// Pictures in a step.
const BATCH: usize = 8;
/// Probability that an example is given no class, so that guidance can be used.
const LABEL_DROPOUT: f64 = 0.1;
/// The loss: EDM's, with more noise than for photographs, whose details matter more.
const LOSS: LossConfig = LossConfig::Edm { p_mean: 0.3, p_std: 1.4, sigma_data: 0.5 };
/// Learning rate.
const LR: f64 = 4e-3;
/// Steps over which the learning rate rises from 0.
const LR_RAMP: usize = 20;
/// Limit of the norm of the gradient.
const CLIP: f64 = 1.0;
/// Half-life of the moving average: a part of the images seen, up to a number of images.
const EMA: (u64, f64) = (1000, 0.1);

/// A run.
pub struct Training {
    lesson: Lesson,
    loss: LossConfig,
    state: TrainState,
    device: Device,
    /// The training pictures, `[C, H, W]`.
    pictures: Vec<Vec<f32>>,
    order: Order,
    step: usize,
    /// The last losses, of which the card has the mean.
    losses: Vec<f64>,
}

impl Training {
    /// Prepares a run on pictures in RGB, one after the other.
    ///
    /// # Errors
    ///
    /// If there are no pictures, too many, a part of one, or other names.
    pub fn new(lesson: Lesson, bytes: &[u8]) -> Result<Self, String> {
        let size = 3 * SIDE * SIDE;
        let count = bytes.len() / size;
        let fits = bytes.len().is_multiple_of(size) && count == lesson.names.len();
        if !fits || !(1..=MOST_PICTURES).contains(&count) {
            return Err(format!(
                "Training takes 1 to {MOST_PICTURES} pictures of {SIDE} by {SIDE} pixels."
            ));
        }
        let mut pictures: Vec<Vec<f32>> = bytes.chunks_exact(size).map(values).collect();
        if lesson.mirror {
            let mirrored: Vec<Vec<f32>> =
                pictures.iter().map(|picture| mirrored(picture)).collect();
            pictures.extend(mirrored);
        }
        let device = Device::flex();
        let adam = AdamConfig::new().with_epsilon(1e-8);
        let state = TrainState::new(config(lesson.names.len()), lesson.seed, &adam, &device)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            order: Order::new(lesson.seed, (0..pictures.len()).collect()),
            lesson,
            loss: LOSS,
            state,
            device,
            pictures,
            step: 0,
            losses: Vec::new(),
        })
    }

    /// Returns the label of a picture: each is a class of its own, together with its mirror image.
    fn label(&self, index: usize) -> Label {
        Label::from(index % self.lesson.names.len())
    }

    /// Returns the number of steps done.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Takes a step, and returns its loss.
    ///
    /// # Errors
    ///
    /// If the loss is not finite.
    pub fn step(&mut self) -> Result<f64, String> {
        let size = 3 * SIDE * SIDE;
        let first = (self.step * BATCH) as u64;
        let (mut images, mut noise) = (Vec::new(), Vec::new());
        let (mut sigma, mut labels) = (Vec::new(), Vec::new());
        for k in first..first + BATCH as u64 {
            let (level, values) = draw_noise(&self.loss, self.lesson.seed, k, size);
            let index = self.order.index(k);
            images.extend(&self.pictures[index]);
            let dropped = Random::new(self.lesson.seed, Stream::Class, k).uniform() < LABEL_DROPOUT;
            labels.push(if dropped { Label::NONE } else { self.label(index) });
            noise.extend(values);
            sigma.push(level);
        }
        let tensor = |values| {
            let data = TensorData::new(values, [BATCH, 3, SIDE, SIDE]);
            Tensor::<4>::from_data(data, &self.device.clone().autodiff())
        };
        let examples = Examples {
            images: tensor(images),
            noise: tensor(noise),
            sigma,
            conditioning: Conditioning { labels, augment: None },
            dropout: vec![0; BATCH],
        };
        let ramp = ((self.step + 1) as f64 / LR_RAMP as f64).min(1.0);
        let options = StepOptions {
            lr: LR * ramp,
            clip: Some(CLIP),
            ema_beta: ema::beta(EMA.0, EMA.1, BATCH, first),
        };
        let step = self.state.step(&self.loss, examples, options);
        if !step.taken {
            return Err(format!(
                "The loss of step {} is not a number, so the run was stopped.",
                self.step + 1
            ));
        }
        self.step += 1;
        self.losses.push(step.loss);
        Ok(step.loss)
    }

    /// Makes samples with the moving average, and returns them as RGB, one after the other.
    ///
    /// # Errors
    ///
    /// If a value is not finite, or the device fails.
    pub async fn samples(&self) -> Result<Vec<u8>, String> {
        let model = self.state.ema();
        let seeds: Vec<u64> = (0..SAMPLES as u64).collect();
        let settings = Settings::first_for(&model.config);
        let go_on = async |_: Evaluation<'_>| Ok::<_, Infallible>(ControlFlow::Continue(()));
        let labels = (0..SAMPLES).map(|i| self.label(i)).collect();
        let Ok(made) =
            generate_labelled(model, &settings, &seeds, labels, &self.device, go_on).await;
        let made = made.ok_or("The samples were cancelled.")?;
        let values = made.into_data_async().await.map_err(|error| error.to_string())?;
        let values = values.try_into_vec::<f32>().map_err(|error| error.to_string())?;
        let pictures =
            Rgb::from_values(&values, [3, SIDE, SIDE]).map_err(|error| error.to_string())?;
        Ok(pictures.into_iter().flat_map(|picture| picture.bytes).collect())
    }

    /// Returns the weights file of the moving average, after `seconds` of training.
    ///
    /// # Errors
    ///
    /// If a value is not finite, or the device fails.
    pub async fn file(&self, seconds: f64) -> Result<Vec<u8>, String> {
        let model = self.state.ema();
        let card = self.card(seconds);
        let bytes = |answer| {
            let parameters = model.parameters();
            to_bytes(&model.config, &card, answer, parameters, Precision::F32)
                .map_err(|error| error.to_string())
        };
        let stored = bytes(None)?;
        let weights = Weights::parse(&stored).map_err(|error| error.to_string())?;
        let stored = Model::from_weights(&weights, &self.device);
        let answer = stored.answer(&self.device).await.map_err(|error| error.to_string())?;
        bytes(Some(&answer))
    }

    /// Returns the model card.
    fn card(&self, seconds: f64) -> Card {
        let count = self.lesson.names.len();
        let pictures = if count == 1 { "1 picture".into() } else { format!("{count} pictures") };
        let mirrored = if self.lesson.mirror { ", and their mirror images" } else { "" };
        let last = &self.losses[self.losses.len().saturating_sub(100)..];
        let mean = last.iter().sum::<f64>() / last.len().max(1) as f64;
        Card {
            name: format!("Trained in a browser tab on {pictures}"),
            summary: format!(
                "A very small network, trained for {} steps of {BATCH} examples. It has memorised its \
                 training pictures: it makes them again, or mixtures of them.",
                self.step
            ),
            data: format!(
                "{pictures} of {SIDE}x{SIDE} pixels{mirrored}, chosen by a visitor of the page"
            ),
            images_seen: (self.step * BATCH) as u64,
            loss: (!last.is_empty()).then_some(mean),
            hardware: "a browser's WebAssembly, on one thread of a processor".into(),
            training_seconds: seconds,
            classes: self.lesson.names.clone(),
            made_with: format!("the web page of DiffiT {}", env!("CARGO_PKG_VERSION")),
            ..Card::default()
        }
    }
}

/// Returns the values of a picture in RGB: `(h w, c)` to `(c, h w)`.
fn values(bytes: &[u8]) -> Vec<f32> {
    let pixels = bytes.len() / 3;
    let mut values = vec![0.0; bytes.len()];
    from_bytes(bytes, &mut values);
    (0..bytes.len()).map(|i| values[i % pixels * 3 + i / pixels]).collect()
}

/// Returns a picture `[C, H, W]` mirrored left to right.
fn mirrored(picture: &[f32]) -> Vec<f32> {
    picture.chunks_exact(SIDE).flat_map(|row| row.iter().rev().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lesson::shapes::SETS;

    fn lesson(count: usize, mirror: bool) -> (Lesson, Vec<u8>) {
        let pictures = SETS[0].pictures().into_iter().take(count);
        let (names, pictures): (Vec<String>, Vec<Rgb>) = pictures.unzip();
        let bytes = pictures.into_iter().flat_map(|picture| picture.bytes).collect();
        (Lesson { run: 1, seed: 0, steps: 0, mirror, names }, bytes)
    }

    fn trained(count: usize, mirror: bool, steps: usize) -> (Training, Vec<f64>) {
        let (lesson, bytes) = lesson(count, mirror);
        let mut training = Training::new(lesson, &bytes).expect("pictures");
        let losses = (0..steps).map(|_| training.step().expect("finite")).collect();
        (training, losses)
    }

    /// One picture is learned in a few steps: the loss falls, and samples are that picture.
    #[test]
    fn one_picture_is_memorised() {
        let (training, losses) = trained(1, false, 150);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (before, after) = (mean(&losses[..5]), mean(&losses[130..]));
        assert!(after < 0.1 * before, "{before}, then {after}");
        let samples = pollster::block_on(training.samples()).expect("finite");
        assert_eq!(samples.len(), SAMPLES * 3 * SIDE * SIDE);
        let (_, picture) = lesson(1, false);
        for sample in samples.chunks_exact(picture.len()) {
            let off = sample.iter().zip(&picture).map(|(a, b)| f64::from(a.abs_diff(*b)));
            let off = off.sum::<f64>() / picture.len() as f64;
            assert!(off < 25.0, "off by {off} of 255");
        }
    }

    #[test]
    fn a_run_is_a_function_of_its_options() {
        let file = |mirror| {
            let (training, losses) = trained(2, mirror, 3);
            (losses, pollster::block_on(training.file(1.5)).expect("finite"))
        };
        let (losses, bytes) = file(true);
        assert_eq!((losses.clone(), bytes.clone()), file(true));
        assert_ne!(losses, file(false).0);
        let weights = Weights::parse(&bytes).expect("a weights file");
        assert_eq!(weights.config(), &config(2));
        let card = weights.card();
        assert_eq!(card.classes, ["disc", "square"]);
        assert_eq!((card.images_seen, card.training_seconds), (24, 1.5));
        assert!(card.data.contains("2 pictures") && card.data.contains("mirror images"));
        assert!(card.summary.contains("memorised") && card.loss.is_some_and(f64::is_finite));
        // The known answer is that of the file.
        let answer = weights.answer().expect("a known answer");
        let model = Model::from_weights(&weights, &Device::flex());
        let found = pollster::block_on(model.answer(&Device::flex())).expect("the CPU backend");
        assert_eq!(answer.deviation(&found), 0.0);
    }

    #[test]
    fn pictures_that_do_not_fit_are_refused() {
        let (lesson, bytes) = lesson(2, false);
        for bytes in [&[][..], &bytes[1..], &bytes[..bytes.len() / 2], &bytes.repeat(5)] {
            assert!(Training::new(lesson.clone(), bytes).is_err(), "{} bytes", bytes.len());
        }
        let none = Lesson { names: Vec::new(), ..lesson };
        assert!(Training::new(none, &[]).is_err());
    }

    #[test]
    fn mirrored_pictures_are_mirrored() {
        let picture: Vec<f32> = (0..2 * SIDE).map(|i| i as f32).collect();
        let found = mirrored(&picture);
        assert_eq!((found[0], found[SIDE - 1], found[SIDE]), (15.0, 0.0, 31.0));
        assert_eq!(mirrored(&found), picture);
        // (h w, c) -> (c, h w)
        assert_eq!(values(&[0, 255, 0, 255, 255, 0]), [-1.0, 1.0, 1.0, 1.0, -1.0, -1.0]);
    }
}
