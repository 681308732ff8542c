//! One loop for both worlds: threads where there are any, a plain loop in WebAssembly.

/// Calls `work` for every item, in any order, on all cores.
///
/// Results must not depend on the order: each item writes to memory of its own, and sums over
/// items are taken afterwards in a fixed order, so that any number of threads gives the same bits.
#[cfg(feature = "rayon")]
pub(super) fn for_each<T: Send>(items: impl Iterator<Item = T>, work: impl Fn(T) + Sync + Send) {
    use rayon::prelude::*;
    let items: Vec<T> = items.collect();
    if items.len() < 2 {
        items.into_iter().for_each(work);
    } else {
        items.into_par_iter().for_each(work);
    }
}

/// Calls `work` for every item.
#[cfg(not(feature = "rayon"))]
pub(super) fn for_each<T>(items: impl Iterator<Item = T>, work: impl Fn(T)) {
    items.for_each(work);
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
