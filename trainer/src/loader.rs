//! Batches: which pictures, mirrored or not, with what noise.
//!
//! Training image number `k` of a run is a pure function of the seed and `k`: its place in the
//! data, its augmentation, its noise level and its noise. So nothing has to be saved to go on
//! exactly, and any number of threads gives the same batches.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use model::noise::{Random, Stream};
use rayon::prelude::*;

use crate::augment::{Affine, IDENTITY, LABELS, Transform};
use crate::config::TrainConfig;
use crate::data::Dataset;

/// The examples of one step, on the host.
pub struct Batch {
    /// Pictures, `[B, C, H, W]`, of values -1 to 1, mirrored already.
    pub images: Vec<f32>,
    /// How they are to be resampled; empty if pictures are not.
    pub inverses: Vec<Affine>,
    /// Unit noise, `[B, C, H, W]`.
    pub noise: Vec<f32>,
    /// Noise levels, `[B]`.
    pub sigma: Vec<f64>,
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
                    inverses: self.inverses.get(first..last).unwrap_or_default().to_vec(),
                    noise: of(&self.noise, values),
                    sigma: self.sigma[first..last].to_vec(),
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
    len: usize,
    pass: u64,
    permutation: Vec<u32>,
}

impl Order {
    fn new(seed: u64, len: usize) -> Self {
        Self { seed, len, pass: u64::MAX, permutation: Vec::new() }
    }

    /// Which picture training image number `k` is.
    fn picture(&mut self, k: u64) -> usize {
        let (pass, place) = (k / self.len as u64, k % self.len as u64);
        if pass != self.pass {
            self.permutation = Random::new(self.seed, Stream::Order, pass).permutation(self.len);
            self.pass = pass;
        }
        self.permutation[place as usize] as usize
    }
}

/// One training example.
struct Example {
    image: Vec<f32>,
    inverse: Option<Affine>,
    noise: Vec<f32>,
    sigma: f64,
    augment: Vec<f32>,
    dropout: u32,
}

impl Example {
    /// Training image number `k`, which is `picture` of the data.
    fn new(config: &TrainConfig, data: &Dataset, k: u64, picture: usize) -> Self {
        let size: usize = data.shape.iter().product();
        let mut image = vec![0.0; size];
        model::image::from_bytes(data.picture(picture), &mut image);
        let side = data.shape[2];
        let mut random = Random::new(config.seed, Stream::Augmentation, k);
        let transform = Transform::draw(&mut random, config.flip, config.augment, side);
        transform.mirror(&mut image, side);
        // A network without labels is not told; one with others than these does not exist.
        let labels = config.model.augment_labels().min(LABELS);
        let augment = transform.labels[..labels].to_vec();
        let mut random = Random::new(config.seed, Stream::Training, k);
        let sigma = config.loss.sigma(&mut random);
        let mut noise = vec![0.0; size];
        random.fill_normal(&mut noise);
        let dropout = Random::new(config.seed, Stream::Dropout, k).bits();
        Self { image, inverse: transform.inverse, noise, sigma, augment, dropout }
    }
}

/// Makes the batch of training images `numbers`.
fn batch(config: &TrainConfig, data: &Dataset, order: &mut Order, numbers: Range<u64>) -> Batch {
    let pictures: Vec<(u64, usize)> = numbers.map(|k| (k, order.picture(k))).collect();
    let examples: Vec<Example> = pictures
        .into_par_iter()
        .map(|(k, picture)| Example::new(config, data, k, picture))
        .collect();
    let join = |field: fn(&Example) -> &[f32]| examples.iter().flat_map(field).copied().collect();
    // All pictures or none: resampling changes a picture a little even where it moves nothing, and
    // no picture should depend on its neighbours.
    let resampled = config.augment > 0.0;
    let inverse = |example: &Example| example.inverse.unwrap_or(IDENTITY);
    Batch {
        inverses: if resampled { examples.iter().map(inverse).collect() } else { Vec::new() },
        images: join(|example| &example.image),
        noise: join(|example| &example.noise),
        sigma: examples.iter().map(|example| example.sigma).collect(),
        augment: join(|example| &example.augment),
        dropout: examples.iter().map(|example| example.dropout).collect(),
    }
}

/// Batches from a thread of their own, a few ahead of the training loop.
pub struct Loader {
    batches: Receiver<Batch>,
}

impl Loader {
    /// Starts with training image number `first`.
    pub fn new(config: &TrainConfig, data: Arc<Dataset>, first: u64) -> Self {
        let (sender, batches) = sync_channel(2);
        let config = config.clone();
        thread::spawn(move || {
            let mut order = Order::new(config.seed, data.len());
            let step = config.batch as u64;
            let mut next = first;
            // Ends when the training loop has dropped the receiver.
            while sender.send(batch(&config, &data, &mut order, next..next + step)).is_ok() {
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
    use std::path::Path;

    fn set_up(flip: bool) -> (TrainConfig, Arc<Dataset>) {
        let preset = TrainConfig::preset("tiny").expect("a preset");
        let config = TrainConfig { flip, batch: 7, ..preset };
        let data = Dataset::open(Path::new("emoji"), [3, 32, 32]).expect("embedded");
        (config, Arc::new(data))
    }

    #[test]
    fn every_pass_holds_every_picture_once_in_another_order() {
        let mut order = Order::new(3, 100);
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
    fn starting_in_the_middle_gives_the_same_batches() {
        let (mut config, data) = set_up(true);
        config.augment = 0.12;
        // Past the end of the first pass, 1911 images, and not at a batch's border.
        let whole = Loader::new(&config, data.clone(), 1900);
        let _ = whole.next();
        let late = Loader::new(&config, data, 1907);
        for _ in 0..3 {
            let (a, b) = (whole.next(), late.next());
            assert_eq!(
                (a.images, a.inverses, a.noise, a.sigma, a.augment),
                (b.images, b.inverses, b.noise, b.sigma, b.augment)
            );
        }
    }

    #[test]
    fn half_of_the_pictures_are_mirrored_and_say_so() {
        let (config, data) = set_up(true);
        let mut mirrored = 0;
        for k in 0..400 {
            let example = Example::new(&config, &data, k, k as usize);
            let mut plain = vec![0.0; 3072];
            model::image::from_bytes(data.picture(k as usize), &mut plain);
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
