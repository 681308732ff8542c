//! Immiscible noise: each picture of a batch gets noise of the batch that is near to it.
//!
//! Li et al., "Immiscible Diffusion: Accelerating Diffusion Training with Noise Assignment"
//! (NeurIPS 2024). The noise of a batch is the same as ever, and so is how it is distributed over
//! all pictures; only which of it goes with which picture is decided by how far they lie apart.

use pathfinding::prelude::{Matrix, kuhn_munkres};
use rayon::prelude::*;

/// Which noise each picture gets, so that the sum of the squared distances is the least. All have
/// the same number of values.
pub fn assign(images: &[&[f32]], noise: &[&[f32]]) -> Vec<usize> {
    // |x - n|² is |x|² + |n|² - 2 x·n, and the first two add up to the same whatever goes with what.
    let products: Vec<i64> = images
        .par_iter()
        .flat_map_iter(|image| noise.iter().map(|noise| fixed(dot(image, noise))))
        .collect();
    let products = Matrix::from_vec(images.len(), noise.len(), products);
    kuhn_munkres(&products.expect("a product for each pair")).1
}

/// Products as whole numbers, so that sums of them are exact.
fn fixed(value: f32) -> i64 {
    const UNIT: f64 = 65_536.0;
    const MOST: f64 = (1u64 << 50) as f64;
    (f64::from(value) * UNIT).clamp(-MOST, MOST) as i64
}

/// Adds up in an order that is the same on every machine, several sums at a time.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const SUMS: usize = 16;
    let mut sums = [0.0f32; SUMS];
    let (a, b) = (a.chunks(SUMS), b.chunks(SUMS));
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::noise::{Random, Stream};

    fn vectors(n: usize, values: usize, stream: Stream) -> Vec<Vec<f32>> {
        let vector = |i| {
            let mut vector = vec![0.0; values];
            Random::new(1, stream, i).fill_normal(&mut vector);
            vector
        };
        (0..n as u64).map(vector).collect()
    }

    fn slices(vectors: &[Vec<f32>]) -> Vec<&[f32]> {
        vectors.iter().map(Vec::as_slice).collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    #[test]
    fn products_are_sums_of_products() {
        for n in [1, 15, 16, 17, 100] {
            let [a, b] = [Stream::Start, Stream::Churn].map(|stream| vectors(1, n, stream));
            let want: f64 =
                a[0].iter().zip(&b[0]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let found = f64::from(dot(&a[0], &b[0]));
            assert!((found - want).abs() < 1e-5, "{n}: {found}, not {want}");
        }
        assert_eq!([fixed(f32::INFINITY), fixed(-1.0)], [1 << 50, -65_536]);
    }

    /// Against every way there is.
    #[test]
    fn the_distances_are_the_least() {
        fn least(images: &[Vec<f32>], noise: &[Vec<f32>], used: &mut Vec<usize>) -> f64 {
            let i = used.len();
            if i == images.len() {
                return 0.0;
            }
            let mut found = f64::INFINITY;
            for j in 0..noise.len() {
                if !used.contains(&j) {
                    used.push(j);
                    let rest = least(images, noise, used);
                    found = found.min(distance(&images[i], &noise[j]) + rest);
                    used.pop();
                }
            }
            found
        }
        for values in [1, 3, 20] {
            let images = vectors(6, values, Stream::Start);
            let noise = vectors(6, values, Stream::Training);
            let assigned = assign(&slices(&images), &slices(&noise));
            let mut sorted = assigned.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
            let pairs = images.iter().zip(&assigned);
            let found: f64 = pairs.map(|(image, &j)| distance(image, &noise[j])).sum();
            let want = least(&images, &noise, &mut Vec::new());
            assert!((found - want).abs() < 1e-3, "{found}, not {want}");
        }
    }

    #[test]
    fn a_picture_finds_its_own_noise() {
        let noise = vectors(40, 50, Stream::Training);
        let images: Vec<Vec<f32>> = noise.iter().rev().cloned().collect();
        let assigned = assign(&slices(&images), &slices(&noise));
        assert_eq!(assigned, (0..40).rev().collect::<Vec<_>>());
    }
}
