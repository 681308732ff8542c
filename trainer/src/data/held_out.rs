//! Choice of the validation images.

use model::noise::{Random, Stream};

/// Chooses `n` of `len` images, in order: one at a random position in each of `n` intervals of
/// equal length. The choice is always the same. The positions are random because datasets can be
/// ordered by class in a period, of which a constant stride would see only some classes.
pub fn held_out(len: usize, n: usize) -> impl Iterator<Item = usize> {
    let mut random = Random::new(0, Stream::Validation, u64::MAX);
    let start = move |i| (i as u64 * len as u64 / n as u64) as usize;
    (0..n).map(move |i| {
        let length = u32::try_from(start(i + 1) - start(i)).expect("below 2^32 images");
        start(i) + random.below(length) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_images_are_spread_and_favour_no_class() {
        assert_eq!(held_out(4, 4).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(held_out(7, 0).count(), 0);
        for (len, n) in [(10, 3), (1911, 100), (10_000, 1_000)] {
            for (i, place) in held_out(len, n).enumerate() {
                assert!((i * len / n..(i + 1) * len / n).contains(&place), "{place} of {len}");
            }
        }
        // CIFAR-10 as a zip for EDM is ordered by class with a period of ten.
        let mut counts = [0usize; 10];
        held_out(10_000, 1_000).for_each(|place| counts[place % 10] += 1);
        assert!(counts.iter().all(|count| count.abs_diff(100) < 40), "{counts:?}");
    }
}
