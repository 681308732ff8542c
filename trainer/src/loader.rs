//! Batches: which pictures, mirrored or not, of what class, with what noise.
//!
//! A latent is a picture that is known only up to a normal distribution. It is drawn here, and
//! nothing after that tells the two apart.
//!
//! Training image number `k` of a run is a pure function of the seed and `k`: its place in the
//! data, its augmentation, the latent that is drawn, whether it is shown without its class, its
//! noise level and its noise. So nothing has to be saved to go on
//! exactly, and any number of threads gives the same batches. Where noise is immiscible, which of a
//! batch's noise goes with which of its pictures is a function of the batch, or of the share of it
//! that one machine has.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use model::noise::{Random, Stream};
use rayon::prelude::*;

use crate::augment::{Affine, IDENTITY, LABELS, Transform, mirror_y};
use crate::config::TrainConfig;
use crate::data::{Dataset, Entry};
use crate::immiscible::assign;
use crate::validation::spread;

/// The examples of one step, on the host.
#[derive(Default)]
pub struct Batch {
    /// Pictures of values -1 to 1, or latents, `[B, C, H, W]`, mirrored already.
    pub images: Vec<f32>,
    /// Their classes, `[B]`.
    pub classes: Vec<Option<usize>>,
    /// How they are to be resampled; empty if pictures are not.
    pub inverses: Vec<Affine>,
    /// Unit noise, `[B, C, H, W]`.
    pub noise: Vec<f32>,
    /// Noise levels, `[B]`.
    pub sigma: Vec<f64>,
    /// What the losses are multiplied with, `[B]`.
    pub weight: Vec<f64>,
    /// Augmentation labels, `[B, labels]`.
    pub augment: Vec<f32>,
    /// Keys of dropout, `[B]`.
    pub dropout: Vec<u32>,
}

impl Batch {
    /// The batch in parts of `size` pictures of `shape`, in order.
    pub fn parts(self, size: usize, shape: [usize; 3]) -> Vec<Self> {
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

/// The order of the data: every pass is a permutation of its own.
struct Order {
    seed: u64,
    /// The pictures that are trained on.
    pictures: Vec<usize>,
    pass: u64,
    permutation: Vec<u32>,
}

impl Order {
    /// Of `len` pictures, of which some are held out.
    fn new(seed: u64, len: usize, held_out: usize) -> Self {
        let mut held_out = spread(len, held_out).peekable();
        let pictures = (0..len).filter(|&i| held_out.next_if_eq(&i).is_none()).collect();
        Self { seed, pictures, pass: u64::MAX, permutation: Vec::new() }
    }

    /// Which picture training image number `k` is.
    fn picture(&mut self, k: u64) -> usize {
        let len = self.pictures.len();
        let (pass, place) = (k / len as u64, k % len as u64);
        if pass != self.pass {
            self.permutation = Random::new(self.seed, Stream::Order, pass).permutation(len);
            self.pass = pass;
        }
        self.pictures[self.permutation[place as usize] as usize]
    }
}

/// One training example.
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
    /// Training image number `k`, which is `picture` of the data.
    fn new(config: &TrainConfig, data: &Dataset, k: u64, picture: usize) -> Self {
        let side = data.shape[2];
        let mut random = Random::new(config.seed, Stream::Augmentation, k);
        let transform = Transform::draw(&mut random, config.flip, config.augment, side);
        let Entry { mut image, std, class } = data.entry(picture, transform.mirror_x);
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
        // A network without labels is not told; one with others than these does not exist.
        let labels = config.model.augment_labels().min(LABELS);
        let augment = transform.labels[..labels].to_vec();
        let mut random = Random::new(config.seed, Stream::Training, k);
        let sigma = config.loss.sigma(&mut random);
        let mut noise = vec![0.0; image.len()];
        random.fill_normal(&mut noise);
        let dropout = Random::new(config.seed, Stream::Dropout, k).bits();
        Self { image, class, inverse: transform.inverse, noise, sigma, augment, dropout }
    }
}

/// Makes the batch of training images `numbers`.
fn batch(config: &TrainConfig, data: &Dataset, order: &mut Order, numbers: Range<u64>) -> Batch {
    let pictures: Vec<(u64, usize)> = numbers.map(|k| (k, order.picture(k))).collect();
    let examples: Vec<Example> = pictures
        .into_par_iter()
        .map(|(k, picture)| Example::new(config, data, k, picture))
        .collect();
    // Noise stays with the picture that it was drawn for, or goes to the one that it is near to.
    let noise_of: Vec<usize> = if config.immiscible {
        let all = |field: fn(&Example) -> &[f32]| examples.iter().map(field).collect::<Vec<_>>();
        assign(&all(|example| &example.image), &all(|example| &example.noise))
    } else {
        (0..examples.len()).collect()
    };
    let join = |field: fn(&Example) -> &[f32]| examples.iter().flat_map(field).copied().collect();
    // All pictures or none: resampling changes a picture a little even where it moves nothing, and
    // no picture should depend on its neighbours.
    let resampled = config.augment > 0.0;
    let inverse = |example: &Example| example.inverse.unwrap_or(IDENTITY);
    Batch {
        inverses: if resampled { examples.iter().map(inverse).collect() } else { Vec::new() },
        images: join(|example| &example.image),
        classes: examples.iter().map(|example| example.class).collect(),
        noise: noise_of.iter().flat_map(|&i| &examples[i].noise).copied().collect(),
        sigma: examples.iter().map(|example| example.sigma).collect(),
        weight: vec![1.0; examples.len()],
        augment: join(|example| &example.augment),
        dropout: examples.iter().map(|example| example.dropout).collect(),
    }
}

/// Batches from a thread of their own, a few ahead of the training loop.
pub struct Loader {
    batches: Receiver<Batch>,
}

impl Loader {
    /// Starts with training image number `first`, and makes the `share` of each batch.
    pub fn new(config: &TrainConfig, data: Arc<Dataset>, first: u64, share: Range<usize>) -> Self {
        let (sender, batches) = sync_channel(2);
        let config = config.clone();
        thread::spawn(move || {
            let mut order = Order::new(config.seed, data.len(), config.held_out());
            let step = config.batch as u64;
            let mut next = first;
            loop {
                let numbers = next + share.start as u64..next + share.end as u64;
                // Ends when the training loop has dropped the receiver.
                if sender.send(batch(&config, &data, &mut order, numbers)).is_err() {
                    break;
                }
                next += step;
            }
        });
        Self { batches }
    }

    /// The next batch.
    ///
    /// # Panics
    ///
    /// If the thread that makes them has panicked.
    pub fn next(&self) -> Batch {
        self.batches.recv().expect("the loader thread runs as long as the loader")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ValidationConfig;
    use crate::data::{Origin, latents};
    use model::config::NetworkConfig;
    use model::vae::VaeConfig;
    use std::path::Path;

    fn set_up(flip: bool) -> (TrainConfig, Arc<Dataset>) {
        let preset = TrainConfig::preset("tiny").expect("a preset");
        let config = TrainConfig { flip, batch: 7, ..preset };
        let data = Dataset::open(Path::new("emoji"), &config.model).expect("embedded");
        (config, Arc::new(data))
    }

    #[test]
    fn every_pass_holds_every_picture_once_in_another_order() {
        let mut order = Order::new(3, 100, 0);
        let pass = |order: &mut Order, pass: u64| -> Vec<usize> {
            (pass * 100..(pass + 1) * 100).map(|k| order.picture(k)).collect()
        };
        let (first, second) = (pass(&mut order, 0), pass(&mut order, 1));
        assert_ne!(first, second);
        assert_eq!(pass(&mut order, 0), first);
        for mut pass in [first, second] {
            pass.sort_unstable();
            assert_eq!(pass, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_held_out_is_not_trained_on() {
        let mut order = Order::new(3, 100, 7);
        let mut seen: Vec<usize> = (0..93).map(|k| order.picture(k)).collect();
        assert!(!seen.is_sorted());
        seen.extend(spread(100, 7));
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        // Of other data, nothing is missing, and all is as it is without.
        let (mut config, data) = set_up(true);
        let plain = Loader::new(&config, data.clone(), 0, 0..7).next();
        let others = ValidationConfig { images: 7, data: Some("emoji".into()) };
        config.validation = Some(others);
        assert_eq!(Loader::new(&config, data, 0, 0..7).next().images, plain.images);
    }

    /// The same noise at the same levels, only with other pictures, which are nearer to it.
    #[test]
    fn immiscible_noise_is_dealt_out_within_the_batch() {
        let (config, data) = set_up(true);
        let immiscible = TrainConfig { immiscible: true, ..config.clone() };
        let load = |config, share| Loader::new(config, data.clone(), 70, share).next();
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
        // A share deals out its own.
        let (plain, found) = (load(&config, 2..6), load(&immiscible, 2..6));
        assert_eq!(sorted(&plain), sorted(&found));
    }

    #[test]
    fn starting_in_the_middle_gives_the_same_batches() {
        let (mut config, data) = set_up(true);
        (config.augment, config.immiscible) = (0.12, true);
        // Past the end of the first pass, 1911 images, and not at a batch's border.
        let whole = Loader::new(&config, data.clone(), 1900, 0..7);
        let _ = whole.next();
        let late = Loader::new(&config, data, 1907, 0..7);
        for _ in 0..3 {
            let (a, b) = (whole.next(), late.next());
            assert_eq!(
                (a.images, a.inverses, a.noise, a.sigma, a.augment),
                (b.images, b.inverses, b.noise, b.sigma, b.augment)
            );
        }
    }

    /// Two latents of two values, 8 apart; of the first, one value is certain, and so are both of
    /// its mirror image.
    fn latents(label_dropout: f64) -> (TrainConfig, Dataset) {
        let origin = Origin {
            pictures_sha256: String::new(),
            vae: VaeConfig { latent_channels: 2, ..VaeConfig::default() },
            vae_sha256: String::new(),
            classes: vec!["a".into(), "b".into()],
        };
        let mut file = latents::head(&origin, &[1, 0], 2, [2, 1, 1]);
        let values = [1.0f32, 2.0, 0.0, 0.5, -1.0, -2.0, 0.0, 0.0];
        let other = values.map(|value| value + 8.0);
        file.extend(values.into_iter().chain(other).flat_map(f32::to_le_bytes));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("latents");
        std::fs::write(&path, file).expect("written");
        let mut config = TrainConfig::preset("latent-tiny").expect("a preset");
        let NetworkConfig::Latent(latent) = &mut config.model.network else { unreachable!() };
        (latent.channels, latent.resolution, latent.patch) = (2, 1, 1);
        let data = Dataset::open(&path, &config.model).expect("whole");
        (TrainConfig { label_dropout, ..config }, data)
    }

    #[test]
    fn latents_are_drawn_anew_each_time_and_mirrored_ones_are_their_own() {
        let (config, data) = latents(0.0);
        let (mut sum, mut squares, mut n) = (0.0, 0.0, 0);
        for k in 0..2000 {
            let example = Example::new(&config, &data, k, 0);
            assert_eq!(example.image, Example::new(&config, &data, k, 0).image);
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
        let drawn = |config, k| Example::new(config, &data, k, 0).image[1];
        assert_ne!(drawn(&config, 7), drawn(&other, 7));
        // The noise that is added is not that by which the latent was drawn.
        let example = Example::new(&config, &data, 7, 0);
        assert_ne!(2.0 + 0.5 * example.noise[1], example.image[1]);
    }

    #[test]
    fn classes_are_left_out_as_often_as_asked() {
        let class = |(config, data): &(TrainConfig, Dataset), k| {
            Example::new(config, data, k, k as usize % 2).class
        };
        let all = latents(0.0);
        assert!((0..100).all(|k| class(&all, k) == Some(1 - k as usize % 2)));
        let none = latents(1.0);
        assert!((0..100).all(|k| class(&none, k).is_none()));
        let some = latents(0.1);
        let left_out: Vec<u64> = (0..10_000).filter(|&k| class(&some, k).is_none()).collect();
        assert!((900..1100).contains(&left_out.len()), "{} of 10000", left_out.len());
        assert!(left_out.iter().all(|&k| class(&some, k).is_none()));
        // Which ones does not depend on how many: those of a lower probability are among them.
        let fewer = latents(0.05);
        assert!((0..10_000).all(|k| class(&fewer, k).is_some() || left_out.contains(&k)));
    }

    #[test]
    fn half_of_the_pictures_are_mirrored_and_say_so() {
        let (config, data) = set_up(true);
        let mut mirrored = 0;
        for k in 0..400 {
            let example = Example::new(&config, &data, k, k as usize);
            let mut plain = data.entry(k as usize, false).image;
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
        assert!((0..50).all(|k| Example::new(&config, &data, k, 0).augment[0] == 0.0));
    }
}
