//! Counter-based random numbers: pure functions of a seed, a stream and an index.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011). It has no state to save: block `i` of four 32-bit words is
//! `philox(counter = [i, stream, index low, index high], key = [seed low, seed high])`.
//! The numbers derived from the words are the same to the last bit on every platform too: see
//! [`Random::normal`].

use core::f64::consts::TAU;

/// Purpose of random numbers. Each purpose has its own stream for every seed and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Noise that sampling starts from; the index is 0.
    Start = 0,
    /// Noise added while sampling, by churn or by an ancestral step; the index is the step.
    Churn = 1,
    /// Initial values of parameters; the index is a hash of the name.
    Parameters = 2,
    /// Order of the training images; the index is the epoch.
    Order = 3,
    /// Noise level and noise of a training image; the index is the number of images before it.
    Training = 4,
    /// Augmentation of a training image; the index is the number of images before it.
    Augmentation = 5,
    /// Dropout of a training image; the index is the number of images before it.
    Dropout = 6,
    /// Sampling of a training image's latent; the index is the number of images before it.
    Latent = 7,
    /// Label dropout of a training image; the index is the number of images before it.
    Class = 8,
    /// Timestep of a training image, if a loss-aware timestep sampler draws it; the index is the
    /// number of images before it.
    Time = 9,
    /// Noise and latent of a held-out image, with the index of the image among those held out; and
    /// the choice of the held-out images, with the index `u64::MAX`.
    Validation = 10,
    /// Choice of subsets of samples for a metric; the index is the subset.
    Subset = 11,
    /// Class that is drawn for a generated picture; the index is 0.
    PictureClass = 12,
    /// Resampling of images for a bootstrap interval; the index is the resample.
    Bootstrap = 13,
}

/// Computes the four words of one Philox4x32-10 block.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let product = |m: u32, c: u32| u64::from(m) * u64::from(c);
        let (a, b) = (product(MULTIPLIERS[0], counter[0]), product(MULTIPLIERS[1], counter[2]));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A sequence of random numbers for one seed, stream and index.
#[derive(Clone, Debug)]
pub struct Random {
    key: [u32; 2],
    stream: u32,
    index: u64,
    block: u32,
    /// Unused words of the current block, last one first.
    words: Vec<u32>,
    /// The second value of a Box-Muller pair.
    spare: Option<f64>,
}

impl Random {
    /// Creates the sequence of `seed`, `stream` and `index`, at its beginning.
    pub fn new(seed: u64, stream: Stream, index: u64) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            stream: stream as u32,
            index,
            block: 0,
            words: Vec::with_capacity(4),
            spare: None,
        }
    }

    /// Returns the next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.words.is_empty() {
            let index = [self.index as u32, (self.index >> 32) as u32];
            let mut block = philox4x32([self.block, self.stream, index[0], index[1]], self.key);
            block.reverse();
            self.words.extend(block);
            self.block = self.block.wrapping_add(1);
        }
        self.words.pop().expect("a block was just made")
    }

    /// Returns a number uniform in the open interval (0, 1): `(bits + 1/2) / 2^32`.
    pub fn uniform(&mut self) -> f64 {
        (f64::from(self.bits()) + 0.5) / 4_294_967_296.0
    }

    /// Returns a number uniform over `0..n`.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "there is no number below 0");
        // Words past the last whole multiple of `n` are rejected, to avoid a bias.
        let limit = u32::MAX - (u32::MAX % n + 1) % n;
        loop {
            let bits = self.bits();
            if bits <= limit {
                return bits % n;
            }
        }
    }

    /// Returns a standard normal number, by Box-Muller in `f64`: from two uniform numbers `u`, `v`,
    /// first `sqrt(-2 ln u) cos(2 π v)`, then `sqrt(-2 ln u) sin(2 π v)`.
    ///
    /// Logarithm, sine and cosine are those of the `libm` crate, whose arithmetic is the same
    /// everywhere; a platform's own may differ in the last bit.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u, v) = (self.uniform(), self.uniform());
        let radius = libm::sqrt(-2.0 * libm::log(u));
        self.spare = Some(radius * libm::sin(TAU * v));
        radius * libm::cos(TAU * v)
    }

    /// Fills `values` with standard normals, rounded to `f32`.
    pub fn fill_normal(&mut self, values: &mut [f32]) {
        for value in values {
            *value = self.normal() as f32;
        }
    }

    /// Returns a random permutation of `0..n` (Fisher-Yates).
    ///
    /// # Panics
    ///
    /// If `n` exceeds `u32::MAX`.
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let n = u32::try_from(n).expect("at most 2^32 - 1 elements");
        let mut order: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i as usize, self.below(i + 1) as usize);
        }
        order
    }
}

/// Returns the noise that the picture of seed `seed` starts from: `values` numbers, in `[C, H, W]`
/// order.
pub fn start_noise(seed: u64, values: usize) -> Vec<f32> {
    let mut noise = vec![0.0; values];
    Random::new(seed, Stream::Start, 0).fill_normal(&mut noise);
    noise
}

/// Returns the noise added to the picture of seed `seed` in step `step`.
pub fn churn_noise(seed: u64, step: usize, values: usize) -> Vec<f32> {
    let mut noise = vec![0.0; values];
    Random::new(seed, Stream::Churn, step as u64).fill_normal(&mut noise);
    noise
}

/// Returns the class that is drawn for the picture of seed `seed` among `classes` equally likely ones.
///
/// # Panics
///
/// If there are no classes.
pub fn random_class(seed: u64, classes: u32) -> usize {
    Random::new(seed, Stream::PictureClass, 0).below(classes) as usize
}

/// Interpolates between two noises of the same length, from `a` at 0 to `b` at 1, on the arc
/// between them (slerp). Linear interpolation would lower the variance.
pub fn between(a: &[f32], b: &[f32], at: f64) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let cosine = dot(a, b) / libm::sqrt(dot(a, a) * dot(b, b));
    let angle = libm::acos(cosine.clamp(-1.0, 1.0));
    let sine = libm::sin(angle);
    let (first, second) = if sine > 1e-6 {
        (libm::sin((1.0 - at) * angle) / sine, libm::sin(at * angle) / sine)
    } else {
        // The two are parallel, or nearly so.
        (1.0 - at, at)
    };
    let mix = |(&a, &b): (&f32, &f32)| (first * f64::from(a) + second * f64::from(b)) as f32;
    a.iter().zip(b).map(mix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Test vectors published with the generator (Random123, `kat_vectors`).
    #[test]
    fn philox_gives_the_published_values() {
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox4x32(counter, key), want);
        }
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let mut values = vec![0.0; 400_000];
        Random::new(7, Stream::Start, 3).fill_normal(&mut values);
        let moment = |p: i32| {
            values.iter().map(|&x| f64::from(x).powi(p)).sum::<f64>() / values.len() as f64
        };
        assert!(moment(1).abs() < 0.01);
        assert!((moment(2) - 1.0).abs() < 0.01);
        assert!(moment(3).abs() < 0.02);
        assert!((moment(4) - 3.0).abs() < 0.05);
    }

    #[test]
    fn seeds_streams_and_indices_give_different_numbers() {
        let first = |seed, stream: Stream, index| Random::new(seed, stream, index).bits();
        let all = [
            first(0, Stream::Start, 0),
            first(1, Stream::Start, 0),
            first(1 << 32, Stream::Start, 0),
            first(0, Stream::Churn, 0),
            first(0, Stream::Start, 1),
            first(0, Stream::Start, 1 << 32),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn random_classes_are_equally_likely() {
        let mut counts = [0; 10];
        (0..10_000).for_each(|seed| counts[random_class(seed, 10)] += 1);
        // A standard deviation is 30.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(random_class(3, 1), 0);
    }

    #[test]
    fn interpolated_noise_has_unit_variance() {
        let (a, b) = (start_noise(1, 3072), start_noise(2, 3072));
        assert_eq!(between(&a, &b, 0.0), a);
        assert_eq!(between(&a, &b, 1.0), b);
        assert_eq!(between(&a, &a, 0.3), a);
        let middle = between(&a, &b, 0.5);
        let square = middle.iter().map(|x| x * x).sum::<f32>() / 3072.0;
        assert!((square - 1.0).abs() < 0.05, "a variance of {square}");
        // Equally far from both.
        let distance = |b: &[f32]| middle.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
        assert!((distance(&a) / distance(&b) - 1.0).abs() < 0.05);
    }

    proptest! {
        #[test]
        fn below_stays_below(seed: u64, n in 1u32..) {
            let mut random = Random::new(seed, Stream::Start, 0);
            for _ in 0..20 {
                prop_assert!(random.below(n) < n);
            }
        }

        #[test]
        fn a_permutation_contains_every_number_once(seed: u64, n in 0usize..300) {
            let mut order = Random::new(seed, Stream::Order, 0).permutation(n);
            order.sort_unstable();
            prop_assert_eq!(order, (0..n as u32).collect::<Vec<_>>());
        }
    }
}
