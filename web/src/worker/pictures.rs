//! Sampling.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::Poll;

use burn::tensor::{Tensor, TensorData};
use futures::future::{MaybeDone, maybe_done};
use model::generate::{Reference, Start, generate_from};
use model::image::from_bytes;
use model::noise::{between, start_noise};
use model::picture::Rgb;
use model::sampler::Evaluation;
use model::vae::Tiling;
use web_time::Instant;

use super::attention::Step;
use super::browser;
use super::files::Autoencoder;
use super::{Loaded, Reply, Trouble, Worker, is_latent, milliseconds, sentence};
use crate::adapter::Backend;
use crate::protocol::{Decoding, Evaluated, Event, Noise, Order};
use crate::testing::Fault;

/// Maximum number of pictures at a time: more could exceed the size limit of a browser's buffers.
const MOST_PICTURES: usize = 64;

impl Worker {
    /// Makes the pictures of an order.
    pub async fn generate(&self, reply: Reply, order: &Order, bytes: &[u8]) -> Result<(), Trouble> {
        let Some(loaded) = self.loaded.borrow().clone() else {
            return Err("No model is loaded yet.".into());
        };
        let Order { noises, settings, guide, previews } = order;
        settings.validate().map_err(sentence)?;
        settings.validate_for(&loaded.model.config).map_err(sentence)?;
        let pictures = noises.len();
        if pictures == 0 || pictures > MOST_PICTURES {
            return Err(format!("1 to {MOST_PICTURES} pictures can be made at a time."));
        }
        let autoencoder = self.decoder(&loaded)?;
        // Guidance evaluates each picture twice.
        let at_once = if settings.guidance.is_some() { 2 * pictures } else { pictures };
        if let Err(message) = self.has_room(&loaded, autoencoder.as_deref(), at_once) {
            reply.post(&Event::TooMuch { message }, None);
            return Ok(());
        }
        if let Some(Fault::Memory(most)) = self.fault.get()
            && pictures > most
        {
            take_all_memory();
        }
        let started = Instant::now();
        let mut before = started;
        let mut counted = browser::gpu_work();
        let mut work = None;
        let mut pending: Option<Pending> = None;
        let shape = loaded.model.config.image_shape();
        let size = shape.iter().product();
        let seeds: Vec<u64> = noises.iter().map(Noise::seed).collect();
        let guide = match guide {
            Some(guide) => Some(read_guide(&loaded, autoencoder.as_deref(), guide, bytes).await?),
            None => None,
        };
        let start = Start {
            noise: noises.iter().flat_map(|n| noise(n, size)).collect(),
            seeds: &seeds,
            guide,
        };
        let on_step = async |e: Evaluation<'_>| -> Result<ControlFlow<()>, Trouble> {
            self.fail_on_purpose(e.evaluation);
            let pictures: Reading = if *previews {
                // The noisy pictures are scaled to unit variance for display.
                let scale = 1.0 / e.sigma.hypot(1.0);
                let both = Tensor::cat(vec![e.x.clone() * scale, e.denoised.clone()], 0);
                Box::pin(async move { Ok(rgb(both).await?.0) })
            } else {
                Box::pin(async {
                    browser::gpu_is_done().await;
                    Ok(Vec::new())
                })
            };
            let now = Pending::start(pictures, &e).await;
            // Reading the pictures waits for the evaluation. Messages are handled meanwhile. A
            // graphics processor computes meanwhile too: it has been given this evaluation when
            // the pictures of the one before are read.
            let ready = match loaded.place.backend {
                Backend::Cpu => {
                    browser::next_task().await;
                    Some(now)
                }
                Backend::WebGpu => pending.replace(now),
            };
            let ready = match ready {
                Some(pending) => Some(pending.finish().await?),
                None => None,
            };
            if self.is_cancelled(reply) {
                return Ok(ControlFlow::Break(()));
            }
            let now = browser::gpu_work();
            work = now.zip(counted).map(|(now, earlier)| now.since(earlier));
            counted = now;
            // Until now, the page could ask for the attention of the previous run.
            if e.evaluation == 1 {
                self.forget();
                self.made.borrow_mut().run = reply.number;
            }
            let mut made = self.made.borrow_mut();
            if made.steps.len() == e.step {
                made.steps.push(Step {
                    x: e.x.clone(),
                    sigma: e.sigma,
                    labels: settings.labels_of(&seeds),
                    silence_time: settings.silence_time,
                });
            }
            if let Some(finished) = ready {
                finished.post(reply, &mut before);
            }
            Ok(ControlFlow::Continue(()))
        };
        let device = &loaded.place.device;
        let made = generate_from(&loaded.model, settings, start, device, on_step).await?;
        if let (Some(_), Some(pending)) = (&made, pending) {
            pending.finish().await?.post(reply, &mut before);
        }
        let made = match (made, &autoencoder) {
            (Some(latents), Some(autoencoder)) => self.decode(reply, autoencoder, latents).await?,
            (Some(pictures), None) => Some(rgb(pictures).await?),
            (None, _) => None,
        };
        match made {
            None => reply.post(&Event::Cancelled, None),
            Some((pictures, size)) => {
                let done = Event::Done {
                    milliseconds: milliseconds(started),
                    evaluations: settings.method.evaluations(settings.steps),
                    size,
                    autoencoder: autoencoder.map(|autoencoder| autoencoder.info.sha256.clone()),
                    work,
                };
                reply.post(&done, Some(&pictures));
            }
        }
        Ok(())
    }

    /// Decodes latents one at a time, since decoding takes far more memory than sampling. Latents of
    /// up to a tile, those of 256x256 pictures, give the same pictures as the command line. Returns
    /// `None` if the order was cancelled.
    async fn decode(
        &self,
        reply: Reply,
        autoencoder: &Autoencoder,
        latents: Tensor<4>,
    ) -> Result<Option<(Vec<u8>, [usize; 2])>, Trouble> {
        let tiling = Tiling::default();
        let n = latents.dims()[0];
        let (mut bytes, mut size) = (Vec::new(), [0; 2]);
        reply.post(&Event::Decoding(Decoding { done: 0, of: 1 }), None);
        // Messages are sent and received while this waits.
        browser::next_task().await;
        for (i, latent) in latents.split(1, 0).into_iter().enumerate() {
            let on_step = async |done, of| -> Result<_, Trouble> {
                reply.post(&Event::Decoding(Decoding { done: i * of + done, of: n * of }), None);
                browser::next_task().await;
                let stops = self.is_cancelled(reply);
                Ok(if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            };
            let picture = autoencoder.vae.decode_tiled(latent, &tiling, on_step).await?;
            let Some(picture) = picture else { return Ok(None) };
            let (picture, its_size) = rgb(picture).await?;
            bytes.extend(picture);
            size = its_size;
        }
        Ok(Some((bytes, size)))
    }

    /// Loses the device if a test injected that fault.
    fn fail_on_purpose(&self, evaluation: usize) {
        if self.fault.get() != Some(Fault::Device(evaluation)) {
            return;
        }
        self.lose_device();
    }

    /// Loses the device, once.
    pub fn lose_device(&self) {
        self.fault.set(None);
        if !browser::lose() {
            panic!("the device was lost on purpose");
        }
    }
}

/// The bytes of pictures that are being read; none without previews, once the evaluation is done.
type Reading = Pin<Box<dyn Future<Output = Result<Vec<u8>, Trouble>>>>;

/// An evaluation that the device was given, and its pictures, which are being read.
struct Pending {
    evaluated: Evaluated,
    pictures: Pin<Box<MaybeDone<Reading>>>,
}

impl Pending {
    /// Starts to read pictures: what was asked of the device before is done first, and what is asked
    /// of it later does not delay them.
    async fn start(pictures: Reading, e: &Evaluation<'_>) -> Self {
        let mut pictures = Box::pin(maybe_done(pictures));
        poll_fn(|context| {
            let _ = pictures.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        let evaluated = Evaluated {
            step: e.step,
            steps: e.steps,
            evaluation: e.evaluation,
            evaluations: e.evaluations,
            sigma: e.sigma,
            milliseconds: 0.0,
        };
        Self { evaluated, pictures }
    }

    /// Waits for the pictures.
    async fn finish(mut self) -> Result<Finished, Trouble> {
        self.pictures.as_mut().await;
        let pictures = self.pictures.as_mut().take_output().expect("taken once")?;
        Ok(Finished { evaluated: self.evaluated, pictures })
    }
}

/// An evaluation that is done, and its pictures.
struct Finished {
    evaluated: Evaluated,
    pictures: Vec<u8>,
}

impl Finished {
    /// Sends them to the page, with the time since the ones `before`.
    fn post(mut self, reply: Reply, before: &mut Instant) {
        self.evaluated.milliseconds = milliseconds(*before);
        *before = Instant::now();
        reply.post(&Event::Evaluated(self.evaluated), Some(&self.pictures));
    }
}

/// Allocates memory until the program ends, for a test of how the page recovers.
fn take_all_memory() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(Vec::with_capacity(64 << 20));
        std::hint::black_box(&all);
    }
}

/// Returns the values of initial noise.
fn noise(noise: &Noise, size: usize) -> Vec<f32> {
    let of = |seed| start_noise(seed, size);
    let mix = |[a, b]: [u64; 2], at| between(&of(a), &of(b), at);
    match *noise {
        Noise::Seed(seed) => of(seed),
        Noise::Between(seeds, at) => mix(seeds, at),
        Noise::Among([a, b, c, d], [right, down]) => {
            between(&mix([a, b], right), &mix([c, d], right), down)
        }
    }
}

/// Reads the bytes of a guide. For a latent model, the picture is encoded.
async fn read_guide(
    loaded: &Loaded,
    autoencoder: Option<&Autoencoder>,
    guide: &crate::protocol::Guide,
    bytes: &[u8],
) -> Result<Reference, Trouble> {
    let config = &loaded.model.config;
    let [channels, h, w] = config.image_shape();
    let factor = match (is_latent(config), autoencoder) {
        (true, None) => {
            return Err(
                "To start from a picture, this model needs its autoencoder: open its file \
                 too."
                    .into(),
            );
        }
        (_, autoencoder) => autoencoder.map_or(1, |autoencoder| autoencoder.info.factor),
    };
    let (height, width) = (factor * h, factor * w);
    let pixels = height * width;
    let colours = autoencoder.map_or(channels, |a| a.vae.config.image_channels);
    if colours != 3 || bytes.len() != 4 * pixels {
        return Err(format!(
            "The picture to start from is not an RGB picture of {width} x {height} pixels."
        ));
    }
    if !(guide.sigma.is_finite() && guide.sigma > 0.0) {
        return Err("The noise level to start from is not a positive number.".into());
    }
    let (rgb, keep) = bytes.split_at(3 * pixels);
    let mut values = vec![0.0; 3 * pixels];
    from_bytes(rgb, &mut values);
    // (h w, c) -> (c, h w)
    let mut picture: Vec<f32> =
        (0..3 * pixels).map(|i| values[i % pixels * 3 + i / pixels]).collect();
    if let Some(autoencoder) = autoencoder {
        let data = TensorData::new(picture, [1, 3, height, width]);
        let image = Tensor::<4>::from_data(data, &loaded.place.device);
        picture = read(autoencoder.vae.encode(image).mean).await?;
    }
    // A value of a latent is kept if all of its pixels are.
    let stays = |i: usize| {
        let (top, left) = (i / w * factor, i % w * factor);
        let row = |y| &keep[(top + y) * width + left..][..factor];
        f32::from(u8::from((0..factor).all(|y| row(y).iter().all(|&keep| keep > 0))))
    };
    let keep = guide.keep.then(|| (0..h * w).map(stays).collect());
    Ok(Reference { picture, sigma: guide.sigma, keep })
}

/// Returns a batch of pictures as RGB, and their width and height. Latents are shown by their first
/// three channels.
async fn rgb(pictures: Tensor<4>) -> Result<(Vec<u8>, [usize; 2]), Trouble> {
    let [_, c, h, w] = pictures.dims();
    let c = if c < 3 { 1 } else { 3 };
    let values = read(pictures.narrow(1, 0, c)).await?;
    let pictures = Rgb::from_values(&values, [c, h, w]).map_err(super::sentence)?;
    Ok((pictures.into_iter().flat_map(|picture| picture.bytes).collect(), [w, h]))
}

/// Reads the values of a tensor.
pub async fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Trouble> {
    let failed = |error: &dyn std::fmt::Display| format!("The device failed: {error}");
    let data = tensor.into_data_async().await.map_err(|error| failed(&error))?;
    data.try_into_vec::<f32>().map_err(|error| failed(&error))
}
