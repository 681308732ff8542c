//! Immiscible diffusion: the noise of a batch is assigned to its images by distance.
//!
//! Li et al., "Immiscible Diffusion: Accelerating Diffusion Training with Noise Assignment"
//! (NeurIPS 2024). The noise and its distribution over all images are unchanged; only the pairing
//! within a batch is.

use pathfinding::prelude::{Matrix, kuhn_munkres};
use rayon::prelude::*;

/// Returns the index of the noise for each image, so that the sum of squared distances is smallest.
/// All images and noises have the same number of values.
pub fn assign(images: &[&[f32]], noise: &[&[f32]]) -> Vec<usize> {
    // |x - n|² = |x|² + |n|² - 2 x·n. The sums of the first two terms do not depend on the pairing.
    let products: Vec<i64> = images
        .par_iter()
        .flat_map_iter(|image| noise.iter().map(|noise| fixed_point(dot(image, noise))))
        .collect();
    let products = Matrix::from_vec(images.len(), noise.len(), products);
    kuhn_munkres(&products.expect("a product for each pair")).1
}

/// Returns a dot product in fixed-point format, in which sums are exact.
fn fixed_point(value: f32) -> i64 {
    const UNIT: f64 = 65_536.0;
    const MAX: f64 = (1u64 << 50) as f64;
    (f64::from(value) * UNIT).clamp(-MAX, MAX) as i64
}

/// Returns the dot product, summed in an order that is the same on every machine.
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
    fn dot_products_are_correct() {
        for n in [1, 15, 16, 17, 100] {
            let [a, b] = [Stream::Start, Stream::Churn].map(|stream| vectors(1, n, stream));
            let want: f64 =
                a[0].iter().zip(&b[0]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let found = f64::from(dot(&a[0], &b[0]));
            assert!((found - want).abs() < 1e-5, "{n}: {found}, not {want}");
        }
        assert_eq!([fixed_point(f32::INFINITY), fixed_point(-1.0)], [1 << 50, -65_536]);
    }

    /// Compared with all permutations.
    #[test]
    fn the_sum_of_distances_is_smallest() {
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
    fn equal_images_and_noise_are_paired() {
        let noise = vectors(40, 50, Stream::Training);
        let images: Vec<Vec<f32>> = noise.iter().rev().cloned().collect();
        let assigned = assign(&slices(&images), &slices(&noise));
        assert_eq!(assigned, (0..40).rev().collect::<Vec<_>>());
    }
}
