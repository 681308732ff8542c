//! Batches: data order, augmentation, label dropout, noise levels and noise.
//!
//! A latent dataset stores a mean and a standard deviation per value; the loader samples from them.
//!
//! Training image `k` of a run is a pure function of the seed and `k`: its index in the dataset,
//! its augmentation, the sampled latent, label dropout, its noise level and its noise. So resuming
//! needs no random state, and batches do not depend on the number of threads. With immiscible
//! noise, the pairing of images and noise is a function of the batch, or of one machine's share of
//! it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use model::examples::{Order, draw_noise};
use model::noise::{Random, Stream};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use super::augment::{Affine, IDENTITY, Transform, mirror_y};
use super::dataset::{Dataset, Entry};
use super::error::DataError;
use super::held_out::held_out;
use super::immiscible::assign;
use crate::config::{AUGMENT_LABELS, TrainConfig};

/// A batch on the host.
#[derive(Default)]
pub struct Batch {
    /// Images with values from -1 to 1, or latents, `[B, C, H, W]`. Mirroring is applied.
    pub images: Vec<f32>,
    /// Classes, `[B]`.
    pub classes: Vec<Option<usize>>,
    /// Maps for resampling, `[B]`; empty without resampling.
    pub inverses: Vec<Affine>,
    /// Standard normal noise, `[B, C, H, W]`.
    pub noise: Vec<f32>,
    /// Noise levels, `[B]`.
    pub sigma: Vec<f64>,
    /// Weights of the losses, `[B]`.
    pub weight: Vec<f64>,
    /// Augmentation labels, `[B, labels]`.
    pub augment: Vec<f32>,
    /// Seeds of dropout, `[B]`.
    pub dropout: Vec<u32>,
}

impl Batch {
    /// Splits the batch into parts of `size` images of the given shape, in order.
    pub fn split(self, size: usize, shape: [usize; 3]) -> Vec<Self> {
        let b = self.sigma.len();
        if size >= b {
            return vec![self];
        }
        let values: usize = shape.iter().product();
        let labels = self.augment.len() / b;
        (0..b)
            .step_by(size)
            .map(|first| {
                let last = (first + size).min(b);
                let of = |values: &[f32], n: usize| values[first * n..last * n].to_vec();
                Self {
                    images: of(&self.images, values),
                    classes: self.classes[first..last].to_vec(),
                    inverses: self.inverses.get(first..last).unwrap_or_default().to_vec(),
                    noise: of(&self.noise, values),
                    sigma: self.sigma[first..last].to_vec(),
                    weight: self.weight[first..last].to_vec(),
                    augment: of(&self.augment, labels),
                    dropout: self.dropout[first..last].to_vec(),
                }
            })
            .collect()
    }
}

/// Makes the order of a dataset of `len` images, without `n` held-out ones.
fn order(seed: u64, len: usize, n: usize) -> Order {
    let mut skipped = held_out(len, n).peekable();
    Order::new(seed, (0..len).filter(|&i| skipped.next_if_eq(&i).is_none()).collect())
}

/// A training example.
struct Example {
    image: Vec<f32>,
    class: Option<usize>,
    inverse: Option<Affine>,
    noise: Vec<f32>,
    sigma: f64,
    augment: Vec<f32>,
    dropout: u32,
}

impl Example {
    /// Makes training image `k` from entry `index` of the dataset.
    ///
    /// # Errors
    ///
    /// If the entry cannot be read.
    fn new(config: &TrainConfig, data: &Dataset, k: u64, index: usize) -> Result<Self, DataError> {
        let side = data.shape[2];
        let mut random = Random::new(config.seed, Stream::Augmentation, k);
        let transform = Transform::draw(&mut random, config.flip, config.augment, side);
        let Entry { mut image, std, class } = data.entry(index, transform.mirror_x)?;
        if let Some(std) = std {
            let mut random = Random::new(config.seed, Stream::Latent, k);
            for (value, std) in image.iter_mut().zip(std) {
                *value += std * random.normal() as f32;
            }
        }
        if transform.mirror_y {
            mirror_y(&mut image, side);
        }
        let dropped = Random::new(config.seed, Stream::Class, k).uniform() < config.label_dropout;
        let class = class.filter(|_| !dropped);
        // Resumed runs of earlier versions may have a network with fewer labels, or none.
        let labels = config.model.augment_labels().min(AUGMENT_LABELS);
        let augment = transform.labels[..labels].to_vec();
        let (sigma, noise) = draw_noise(&config.loss, config.seed, k, image.len());
        let dropout = Random::new(config.seed, Stream::Dropout, k).bits();
        Ok(Self { image, class, inverse: transform.inverse, noise, sigma, augment, dropout })
    }
}

/// Makes the batch of training images `numbers`.
///
/// # Errors
///
/// If an image cannot be read.
fn batch(
    config: &TrainConfig,
    data: &Dataset,
    order: &mut Order,
    numbers: Range<u64>,
) -> Result<Batch, DataError> {
    let indices: Vec<(u64, usize)> = numbers.map(|k| (k, order.index(k))).collect();
    let examples = indices.into_par_iter().map(|(k, index)| Example::new(config, data, k, index));
    let examples: Vec<Example> = examples.collect::<Result<_, _>>()?;
    let noise_of: Vec<usize> = if config.immiscible {
        let all = |field: fn(&Example) -> &[f32]| examples.iter().map(field).collect::<Vec<_>>();
        assign(&all(|example| &example.image), &all(|example| &example.noise))
    } else {
        (0..examples.len()).collect()
    };
    let join = |field: fn(&Example) -> &[f32]| examples.iter().flat_map(field).copied().collect();
    // All images are resampled or none: resampling with the identity changes an image slightly, and
    // no image should depend on others of the batch.
    let resampled = config.augment > 0.0;
    let inverse = |example: &Example| example.inverse.unwrap_or(IDENTITY);
    Ok(Batch {
        inverses: if resampled { examples.iter().map(inverse).collect() } else { Vec::new() },
        images: join(|example| &example.image),
        classes: examples.iter().map(|example| example.class).collect(),
        noise: noise_of.iter().flat_map(|&i| &examples[i].noise).copied().collect(),
        sigma: examples.iter().map(|example| example.sigma).collect(),
        weight: vec![1.0; examples.len()],
        augment: join(|example| &example.augment),
        dropout: examples.iter().map(|example| example.dropout).collect(),
    })
}

/// A thread that prepares batches ahead of the training loop.
pub struct Loader {
    batches: Receiver<Result<Batch, DataError>>,
    seed: u64,
    /// Number of images of the dataset.
    len: usize,
    /// Number of images that are held out.
    held_out: usize,
}

impl Loader {
    /// Starts at training image `first`, with the given share of each batch.
    pub fn new(config: &TrainConfig, data: Arc<Dataset>, first: u64, share: Range<usize>) -> Self {
        let (sender, batches) = sync_channel(2);
        let (seed, len, held_out) = (config.seed, data.len(), config.held_out());
        let config = config.clone();
        thread::spawn(move || {
            let mut order = order(seed, len, held_out);
            let step = config.batch as u64;
            let mut next = first;
            // Threads that wait for files are not those that compute.
            let threads = data.is_on_demand().then(|| ThreadPoolBuilder::new().build().ok());
            let threads = threads.flatten();
            loop {
                let numbers = next + share.start as u64..next + share.end as u64;
                let mut make = || batch(&config, &data, &mut order, numbers.clone());
                let batch = match &threads {
                    Some(threads) => threads.install(make),
                    None => make(),
                };
                // The loop ends when the receiver is dropped.
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
                next += step;
            }
        });
        Self { batches, seed, len, held_out }
    }

    /// Returns the indices in the dataset of training images `numbers`.
    pub fn indices(&self, numbers: Range<u64>) -> Vec<usize> {
        let mut order = order(self.seed, self.len, self.held_out);
        numbers.map(|k| order.index(k)).collect()
    }

    /// Returns the next batch.
    ///
    /// # Errors
    ///
    /// If an image cannot be read. There is no batch after that.
    ///
    /// # Panics
    ///
    /// If the thread has panicked, or after an error.
    pub fn next(&self) -> Result<Batch, DataError> {
        self.batches.recv().expect("the loader thread runs as long as the loader")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ValidationConfig;
    use crate::data::latents::{self, Origin};
    use model::config::NetworkConfig;
    use model::vae::VaeConfig;
    use model::weights::Precision;
    use std::path::Path;

    fn set_up(flip: bool) -> (TrainConfig, Arc<Dataset>) {
        let preset = TrainConfig::preset("tiny").expect("a preset");
        let config = TrainConfig { flip, batch: 7, ..preset };
        let data = Dataset::open(Path::new("emoji"), &config.model, false).expect("embedded");
        (config, Arc::new(data))
    }

    #[test]
    fn held_out_images_are_not_trained_on() {
        let mut order = order(3, 100, 7);
        let mut seen: Vec<usize> = (0..93).map(|k| order.index(k)).collect();
        assert!(!seen.is_sorted());
        seen.extend(held_out(100, 7));
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        // A validation dataset of its own changes nothing.
        let (mut config, data) = set_up(true);
        let plain = Loader::new(&config, data.clone(), 0, 0..7).next().expect("read");
        let others = ValidationConfig { images: 7, data: Some("emoji".into()) };
        config.validation = Some(others);
        assert_eq!(Loader::new(&config, data, 0, 0..7).next().expect("read").images, plain.images);
    }

    /// The same noise at the same levels, paired with closer images.
    #[test]
    fn immiscible_noise_is_assigned_within_the_batch() {
        let (config, data) = set_up(true);
        let immiscible = TrainConfig { immiscible: true, ..config.clone() };
        let load =
            |config, share| Loader::new(config, data.clone(), 70, share).next().expect("read");
        let (plain, found) = (load(&config, 0..7), load(&immiscible, 0..7));
        assert_eq!((&plain.images, &plain.sigma), (&found.images, &found.sigma));
        let sorted = |batch: &Batch| {
            let mut noise: Vec<Vec<f32>> = batch.noise.chunks(3072).map(<[f32]>::to_vec).collect();
            noise.sort_by(|a, b| a[0].total_cmp(&b[0]));
            noise
        };
        assert_ne!(plain.noise, found.noise);
        assert_eq!(sorted(&plain), sorted(&found));
        let distance = |batch: &Batch| -> f64 {
            let pairs = batch.images.iter().zip(&batch.noise);
            pairs.map(|(image, noise)| f64::from(image - noise).powi(2)).sum()
        };
        assert!(distance(&found) < distance(&plain));
        // A share is assigned on its own.
        let (plain, found) = (load(&config, 2..6), load(&immiscible, 2..6));
        assert_eq!(sorted(&plain), sorted(&found));
    }

    #[test]
    fn resuming_gives_the_same_batches() {
        let (mut config, data) = set_up(true);
        (config.augment, config.immiscible) = (0.12, true);
        // Across the end of the first epoch of 1911 images, not at a multiple of the batch size.
        let whole = Loader::new(&config, data.clone(), 1900, 0..7);
        let _ = whole.next().expect("read");
        let late = Loader::new(&config, data, 1907, 0..7);
        for _ in 0..3 {
            let (a, b) = (whole.next().expect("read"), late.next().expect("read"));
            assert_eq!(
                (a.images, a.inverses, a.noise, a.sigma, a.augment),
                (b.images, b.inverses, b.noise, b.sigma, b.augment)
            );
        }
    }

    /// Two latents of two values. Those of the second are larger by 8. In the first, one standard
    /// deviation is 0, and in its mirror image both are.
    fn latents(label_dropout: f64) -> (TrainConfig, Dataset) {
        let origin = Origin {
            pictures_sha256: String::new(),
            vae: VaeConfig { latent_channels: 2, ..VaeConfig::default() },
            vae_sha256: String::new(),
            classes: vec!["a".into(), "b".into()],
        };
        let part = latents::Part { number: 1, count: 1, images: 2 };
        let mut file = latents::header(&origin, &[1, 0], part, [2, 1, 1], Precision::F32);
        let values = [1.0f32, 2.0, 0.0, 0.5, -1.0, -2.0, 0.0, 0.0];
        let other = values.map(|value| value + 8.0);
        file.extend(values.into_iter().chain(other).flat_map(f32::to_le_bytes));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("latents");
        std::fs::write(&path, file).expect("written");
        let mut config = TrainConfig::preset("latent-tiny").expect("a preset");
        let NetworkConfig::Latent(latent) = &mut config.model.network else { unreachable!() };
        (latent.channels, latent.resolution, latent.patch) = (2, 1, 1);
        let data = Dataset::open(&path, &config.model, false).expect("whole");
        (TrainConfig { label_dropout, ..config }, data)
    }

    #[test]
    fn latents_are_sampled_each_time_also_those_of_mirror_images() {
        let (config, data) = latents(0.0);
        let (mut sum, mut squares, mut n) = (0.0, 0.0, 0);
        for k in 0..2000 {
            let example = Example::new(&config, &data, k, 0).expect("read");
            let again = Example::new(&config, &data, k, 0).expect("read");
            assert_eq!(example.image, again.image);
            let [certain, drawn] = example.image[..] else { panic!("two values") };
            match certain {
                -1.0 => assert_eq!(drawn, -2.0),
                certain => {
                    assert_eq!(certain, 1.0);
                    let off = f64::from(drawn) - 2.0;
                    (sum, squares, n) = (sum + off, squares + off * off, n + 1);
                }
            }
        }
        assert!((900..1100).contains(&n), "{n} of 2000 are not mirrored");
        let n = f64::from(n);
        assert!((sum / n).abs() < 0.06 && ((squares / n).sqrt() - 0.5).abs() < 0.05);
        let other = TrainConfig { seed: 1, flip: false, ..config.clone() };
        let config = TrainConfig { flip: false, ..config };
        let drawn = |config, k| Example::new(config, &data, k, 0).expect("read").image[1];
        assert_ne!(drawn(&config, 7), drawn(&other, 7));
        // The noise is independent of that of the latent.
        let example = Example::new(&config, &data, 7, 0).expect("read");
        assert_ne!(2.0 + 0.5 * example.noise[1], example.image[1]);
    }

    #[test]
    fn classes_are_dropped_with_the_given_probability() {
        let class = |(config, data): &(TrainConfig, Dataset), k| {
            Example::new(config, data, k, k as usize % 2).expect("read").class
        };
        let all = latents(0.0);
        assert!((0..100).all(|k| class(&all, k) == Some(1 - k as usize % 2)));
        let none = latents(1.0);
        assert!((0..100).all(|k| class(&none, k).is_none()));
        let some = latents(0.1);
        let left_out: Vec<u64> = (0..10_000).filter(|&k| class(&some, k).is_none()).collect();
        assert!((900..1100).contains(&left_out.len()), "{} of 10000", left_out.len());
        assert!(left_out.iter().all(|&k| class(&some, k).is_none()));
        // A lower probability drops a subset.
        let fewer = latents(0.05);
        assert!((0..10_000).all(|k| class(&fewer, k).is_some() || left_out.contains(&k)));
    }

    #[test]
    fn half_of_the_images_are_mirrored_and_labelled() {
        let (config, data) = set_up(true);
        let mut mirrored = 0;
        for k in 0..400 {
            let example = Example::new(&config, &data, k, k as usize).expect("read");
            let mut plain = data.entry(k as usize, false).expect("read").image;
            assert_eq!(example.augment.len(), 9);
            assert!(example.augment[1..].iter().all(|label| *label == 0.0));
            if example.augment[0] == 1.0 {
                mirrored += 1;
                plain.chunks_exact_mut(32).for_each(<[f32]>::reverse);
            }
            assert_eq!(example.image, plain);
        }
        assert!((160..240).contains(&mirrored), "{mirrored} of 400");
        let (config, data) = set_up(false);
        let augment = |k| Example::new(&config, &data, k, 0).expect("read").augment[0];
        assert!((0..50).all(|k| augment(k) == 0.0));
    }
}
