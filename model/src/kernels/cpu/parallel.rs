//! Parallel loops on rayon's threads, or sequential loops without the feature `rayon`
//! (WebAssembly).
//!
//! Kernels compute the same bits with any number of threads, by three rules:
//!
//! - The division into tasks depends on the sizes of the tensors alone.
//! - A task writes only to its own part of the output, and reads nothing that another one writes.
//! - Sums over tasks are written to one buffer per task first, and added in a fixed order
//!   afterwards ([`sum_rows`], [`sum_buffers`]).

/// Calls `work` for every item, in any order, on all cores. Results must not depend on the order.
#[cfg(feature = "rayon")]
pub(super) fn for_each<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(T) + Sync + Send) {
    for_each_with(items, || (), |(), item| work(item));
}

/// Calls `work` for every item.
#[cfg(not(feature = "rayon"))]
pub(super) fn for_each<T>(items: impl Iterator<Item = T>, work: impl Fn(T)) {
    items.for_each(work);
}

/// [`for_each`] with scratch memory: `init` makes it, and items that run one after the other share
/// it. An item must not read values that it did not write itself.
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

/// [`for_each`] with scratch memory.
#[cfg(not(feature = "rayon"))]
pub(super) fn for_each_with<T, S>(
    items: impl Iterator<Item = T>,
    init: impl Fn() -> S,
    work: impl Fn(&mut S, T),
) {
    let mut scratch = init();
    items.for_each(|item| work(&mut scratch, item));
}

/// A buffer for intermediate values that is reused by consecutive tasks. It is not cleared between
/// them: values must be written before they are read.
#[derive(Default)]
pub(super) struct Scratch(Vec<f32>);

impl Scratch {
    /// Disjoint slices of these lengths, with arbitrary values. Grows the buffer if it is too
    /// small.
    pub fn split<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
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

/// Returns the sum of the rows of a matrix `[rows, width]`. Blocks of rows are summed first, and
/// then the blocks in order, which keeps the rounding error of a long sum small.
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

/// Returns the sum of buffers of equal length, added in order.
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
