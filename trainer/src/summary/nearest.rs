//! The training images that are nearest to given pictures.

use rayon::prelude::*;

use crate::data::dataset::Dataset;
use crate::data::error::DataError;

/// A training image near a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Index of the image in the dataset.
    pub index: usize,
    /// Whether its mirror image is meant.
    pub mirrored: bool,
    /// Root mean square of the differences of all values, in levels of 255.
    pub distance: f64,
}

/// A picture to look up.
pub struct Query {
    /// Values from -1 to 1, `[C, H, W]`.
    pub values: Vec<f32>,
    /// Index of an image of the dataset to leave out.
    pub except: Option<usize>,
}

/// Returns the `count` nearest images of a dataset for each picture, nearest first; with `mirrored`,
/// also among the mirror images.
///
/// # Errors
///
/// If an image of the dataset cannot be read.
pub fn nearest(
    data: &Dataset,
    queries: &[Query],
    count: usize,
    mirrored: bool,
) -> Result<Vec<Vec<Neighbour>>, DataError> {
    let start = || vec![Vec::new(); queries.len()];
    (0..data.len())
        .into_par_iter()
        .try_fold(start, |mut found, index| {
            for mirrored in [false, true].into_iter().take(1 + usize::from(mirrored)) {
                let image = data.entry(index, mirrored)?.image;
                for (query, found) in queries.iter().zip(&mut found) {
                    if query.except != Some(index) {
                        let distance = distance(&query.values, &image);
                        insert(found, Neighbour { index, mirrored, distance }, count);
                    }
                }
            }
            Ok(found)
        })
        .try_reduce(start, |mut found, others| {
            for (found, others) in found.iter_mut().zip(others) {
                others.into_iter().for_each(|other| insert(found, other, count));
            }
            Ok(found)
        })
}

/// Adds a neighbour to a sorted list of at most `count`. Of an image and its mirror image, only the
/// nearer one is kept.
fn insert(found: &mut Vec<Neighbour>, new: Neighbour, count: usize) {
    let key = |neighbour: &Neighbour| (neighbour.distance, neighbour.index, neighbour.mirrored);
    let before = |a: &Neighbour| key(a) < key(&new);
    if let Some(same) = found.iter().position(|known| known.index == new.index) {
        if before(&found[same]) {
            return;
        }
        found.remove(same);
    }
    let place = found.partition_point(before);
    found.insert(place, new);
    found.truncate(count);
}

/// Returns the root mean square of the differences, in levels of 255.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    // In parts: a sum of many `f32` loses digits.
    let part = |(a, b): (&[f32], &[f32])| {
        f64::from(a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>())
    };
    let sum: f64 = a.chunks(256).zip(b.chunks(256)).map(part).sum();
    127.5 * (sum / a.len().max(1) as f64).sqrt()
}

/// Returns the median distance of some training images, evenly spaced, to the nearest other one. `None`
/// if there is only one.
///
/// # Errors
///
/// If an image cannot be read.
pub fn median_between_images(data: &Dataset, mirrored: bool) -> Result<Option<f64>, DataError> {
    let n = data.len().min(48);
    let indices = (0..n).map(|i| i * data.len() / n);
    let query = |index| Ok(Query { values: data.entry(index, false)?.image, except: Some(index) });
    let queries: Vec<Query> = indices.map(query).collect::<Result<_, DataError>>()?;
    let found = nearest(data, &queries, 1, mirrored)?;
    Ok(median(found.into_iter().flatten().map(|neighbour| neighbour.distance).collect()))
}

/// Returns the median; `None` of no values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;

    fn emoji() -> Dataset {
        let config = TrainConfig::preset("tiny").expect("a preset");
        Dataset::open(&config.data, &config.model, false).expect("embedded")
    }

    #[test]
    fn an_altered_training_image_is_found_again() {
        let data = emoji();
        let altered = |index: usize, mirrored| {
            let mut values = data.entry(index, mirrored).expect("read").image;
            // Ten levels more in one value of each three.
            values.iter_mut().step_by(3).for_each(|value| *value -= 10.0 / 127.5);
            Query { values, except: None }
        };
        let queries = [altered(100, false), altered(1500, true)];
        let found = nearest(&data, &queries, 3, true).expect("read");
        for (found, (index, mirrored)) in found.iter().zip([(100, false), (1500, true)]) {
            assert_eq!((found.len(), found[0].index, found[0].mirrored), (3, index, mirrored));
            let want = 10.0 / 3f64.sqrt();
            assert!((found[0].distance - want).abs() < 1e-3, "{} {want}", found[0].distance);
            assert!(found.is_sorted_by_key(|neighbour| neighbour.distance));
            assert!(found.iter().skip(1).all(|neighbour| neighbour.index != index));
        }
        // Without mirror images, the second one is not found at this distance.
        let plain = nearest(&data, &queries[1..], 1, false).expect("read");
        assert!(!plain[0][0].mirrored);
        // Without the image itself, the next one is the nearest.
        let except = [Query { except: Some(100), ..altered(100, false) }];
        assert_eq!(nearest(&data, &except, 1, true).expect("read")[0][0], found[0][1]);
    }

    #[test]
    fn every_image_is_compared() {
        let data = emoji();
        let query = [Query { values: vec![0.25; 3072], except: None }];
        let found = nearest(&data, &query, 1, false).expect("read");
        let all = (0..data.len()).map(|index| {
            let image = data.entry(index, false).expect("read").image;
            let squares = image.iter().map(|v| f64::from(0.25 - v).powi(2));
            127.5 * (squares.sum::<f64>() / 3072.0).sqrt()
        });
        let want = all.fold(f64::INFINITY, f64::min);
        assert!((found[0][0].distance - want).abs() < 1e-3, "{} {want}", found[0][0].distance);
    }

    #[test]
    fn training_images_differ_from_each_other() {
        let between = median_between_images(&emoji(), false).expect("read").expect("many images");
        assert!((5.0..80.0).contains(&between), "{between}");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
