//! What the worker computes: the steps of a run, samples, and the weights file.

use std::convert::Infallible;
use std::ops::ControlFlow;

use burn::optim::AdamConfig;
use burn::tensor::{Device, Tensor, TensorData};
use model::card::Card;
use model::ema;
use model::examples::{Examples, Order, draw_noise};
use model::generate::generate;
use model::image::from_bytes;
use model::loss::LossConfig;
use model::picture::Rgb;
use model::sampler::Evaluation;
use model::settings::Settings;
use model::state::{StepOptions, TrainState};
use model::weights::{Precision, Weights, to_bytes};
use model::{Conditioning, Model};

use super::{Lesson, MOST_PICTURES, SAMPLES, SIDE, config};

/// Pictures in a step.
const BATCH: usize = 8;
/// Learning rate.
const LR: f64 = 2e-3;
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
    /// If there are no pictures, too many, or a part of one.
    pub fn new(lesson: Lesson, bytes: &[u8]) -> Result<Self, String> {
        let size = 3 * SIDE * SIDE;
        let count = bytes.len() / size;
        if !bytes.len().is_multiple_of(size) || !(1..=MOST_PICTURES).contains(&count) {
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
        let state = TrainState::new(config(), lesson.seed, &adam, &device)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            order: Order::new(lesson.seed, (0..pictures.len()).collect()),
            lesson,
            loss: LossConfig::default(),
            state,
            device,
            pictures,
            step: 0,
            losses: Vec::new(),
        })
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
        let mut sigma = Vec::with_capacity(BATCH);
        for k in first..first + BATCH as u64 {
            let (level, values) = draw_noise(&self.loss, self.lesson.seed, k, size);
            images.extend(&self.pictures[self.order.index(k)]);
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
            conditioning: Conditioning::default(),
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
        let Ok(made) = generate(model, &settings, &seeds, &self.device, go_on).await;
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
        let count = self.pictures.len() / if self.lesson.mirror { 2 } else { 1 };
        let pictures = if count == 1 { "1 picture".into() } else { format!("{count} pictures") };
        let mirrored = if self.lesson.mirror { ", and their mirror images" } else { "" };
        let last = &self.losses[self.losses.len().saturating_sub(100)..];
        let mean = last.iter().sum::<f64>() / last.len().max(1) as f64;
        Card {
            name: format!("Trained in a browser tab on {pictures}"),
            summary: format!(
                "A very small network, trained for {} steps. It has memorised its training pictures: it \
                 makes them again, or mixtures of them.",
                self.step
            ),
            data: format!(
                "{pictures} of {SIDE}x{SIDE} pixels{mirrored}, chosen by a visitor of the page"
            ),
            images_seen: (self.step * BATCH) as u64,
            loss: (!last.is_empty()).then_some(mean),
            hardware: "a browser's WebAssembly, on one thread of a processor".into(),
            training_seconds: seconds,
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

    #[test]
    #[ignore]
    fn experiment() {
        let name = std::env::var("SET").unwrap_or("shapes".into());
        let set = SETS.iter().find(|set| set.name == name).expect("a set");
        let pictures: Vec<Rgb> = set.pictures().into_iter().map(|(_, p)| p).collect();
        let bytes: Vec<u8> = pictures.iter().flat_map(|p| p.bytes.clone()).collect();
        let lesson = Lesson { run: 1, seed: 0, steps: 0, mirror: false };
        let mut training = Training::new(lesson, &bytes).expect("pictures");
        println!(
            "{} parameters, {} macs",
            training.state.ema().network.parameter_count(),
            training.state.ema().network.macs().total()
        );
        let start = std::time::Instant::now();
        let mut rows = pictures.clone();
        while rows.len() < 8 {
            rows.push(Rgb { width: SIDE, height: SIDE, bytes: vec![255; 768] });
        }
        let mut sum = 0.0;
        let mut sampling = 0.0;
        let total: usize = std::env::var("N").map_or(800, |n| n.parse().unwrap());
        for i in 1..=total {
            sum += training.step().expect("finite");
            if i % 100 == 0 {
                let s = std::time::Instant::now();
                let samples = pollster::block_on(training.samples()).expect("finite");
                sampling += s.elapsed().as_secs_f64();
                rows.extend(samples.chunks_exact(768).map(|b| Rgb {
                    width: SIDE,
                    height: SIDE,
                    bytes: b.to_vec(),
                }));
                println!(
                    "{i}: {:.4}  {:.1} ms/step, samples {:.0} ms",
                    sum / 100.0,
                    (start.elapsed().as_secs_f64() - sampling) * 1e3 / i as f64,
                    sampling * 1e5 / i as f64
                );
                sum = 0.0;
            }
        }
        let out = std::env::var("OUT").unwrap_or("/work/exp/tab/out.png".into());
        std::fs::write(out, Rgb::grid(&rows, 8).enlarged(6).to_png(None).unwrap()).unwrap();
    }
}
