//! One loop for both worlds: threads where there are any, a plain loop in WebAssembly.

/// Calls `work` for every item, in any order, on all cores.
///
/// Results must not depend on the order: each item writes to memory of its own, and sums over
/// items are taken afterwards in a fixed order, so that any number of threads gives the same bits.
#[cfg(feature = "rayon")]
pub(super) fn for_each<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(T) + Sync + Send) {
    for_each_with(items, || (), |(), item| work(item));
}

/// Calls `work` for every item.
#[cfg(not(feature = "rayon"))]
pub(super) fn for_each<T>(items: impl Iterator<Item = T>, work: impl Fn(T)) {
    items.for_each(work);
}

/// [`for_each`] with room for intermediate values, which `init` makes and which items use one after
/// the other. Nothing may be read from it that was not written for the same item.
#[cfg(feature = "rayon")]
pub(super) fn for_each_with<T: Send, S>(
    items: impl Iterator<Item = T>,
    init: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, T) + Sync + Send,
) {
    use rayon::prelude::*;
    let items: Vec<T> = items.collect();
    if items.len() < 2 {
        items.into_iter().for_each(|item| work(&mut init(), item));
    } else {
        items.into_par_iter().for_each_init(init, work);
    }
}

/// [`for_each`] with room for intermediate values.
#[cfg(not(feature = "rayon"))]
pub(super) fn for_each_with<T, S>(
    items: impl Iterator<Item = T>,
    init: impl Fn() -> S,
    work: impl Fn(&mut S, T),
) {
    let mut room = init();
    items.for_each(|item| work(&mut room, item));
}

/// Room for values that are written before they are read, kept from one use to the next.
#[derive(Default)]
pub(super) struct Room(Vec<f32>);

impl Room {
    /// Slices of these lengths, with any values in them.
    pub fn parts<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
        let total = lengths.iter().sum();
        if self.0.len() < total {
            self.0 = vec![0.0; total];
        }
        let mut rest = self.0.as_mut_slice();
        lengths.map(|length| {
            let (part, others) = core::mem::take(&mut rest).split_at_mut(length);
            rest = others;
            part
        })
    }
}

/// Adds up the rows of a `[rows, width]` matrix: first in blocks, then the blocks in order, which
/// keeps the rounding error of a long sum small.
pub(super) fn sum_rows(rows: &[f32], width: usize) -> Vec<f32> {
    const BLOCK: usize = 256;
    fn add(sum: &mut [f32], rows: &[f32]) {
        for row in rows.chunks_exact(sum.len()) {
            for (s, x) in sum.iter_mut().zip(row) {
                *s += x;
            }
        }
    }
    let blocks = rows.len().div_ceil(BLOCK * width);
    let mut sums = vec![0.0; blocks * width];
    let tasks = sums.chunks_exact_mut(width).zip(rows.chunks(BLOCK * width));
    for_each(tasks, |(sum, rows)| add(sum, rows));
    let mut total = vec![0.0; width];
    add(&mut total, &sums);
    total
}

/// Adds up buffers of one length, in order.
pub(super) fn sum_buffers(buffers: Vec<Vec<f32>>) -> Vec<f32> {
    const CHUNK: usize = 1 << 13;
    let mut buffers = buffers.into_iter();
    let mut total = buffers.next().unwrap_or_default();
    let others: Vec<Vec<f32>> = buffers.collect();
    for_each(total.chunks_mut(CHUNK).enumerate(), |(i, total)| {
        for other in &others {
            for (sum, x) in total.iter_mut().zip(&other[i * CHUNK..]) {
                *sum += x;
            }
        }
    });
    total
}
