//! Grids of samples during training.

use burn::tensor::Device;
use model::Model;
use model::generate::Settings;
use model::label::Label;
use model::picture::{NotFinite, Rgb};
use model::vae::Vae;

use crate::samples::captions;
use crate::samples::generate::images;

/// Batch size of sampling.
const BATCH: usize = 16;

/// Classes of the embedded emoji that are shown first: familiar and different from each other.
const PREFERRED_CLASSES: [&str; 16] = [
    "grinning",
    "red heart",
    "otter",
    "pizza",
    "rocket",
    "sunflower",
    "Japan Flag",
    "dog",
    "strawberry",
    "soccer",
    "house",
    "snowman",
    "rainbow",
    "apple",
    "octopus",
    "green apple",
];

/// Returns a grid of `n` samples from the seeds 0 to `n - 1`, with the name of the class below each
/// image if the model has classes.
///
/// # Errors
///
/// If a sample is not finite.
pub fn sample_grid(
    model: &Model,
    vae: Option<&Vae>,
    names: &[String],
    n: u32,
    device: &Device,
) -> Result<Rgb, NotFinite> {
    let seeds: Vec<u64> = (0..u64::from(n)).collect();
    let classes = classes_to_show(names, model.config.classes(), n as usize);
    let labels = classes.iter().copied().map(Label::from).collect();
    let settings = Settings { classes: labels, ..Settings::default() };
    let images = images(model, vae, &settings, &seeds, BATCH, device, |_| {})?;
    let columns = Rgb::square(images.len());
    match captions(names, model.config.classes(), images.len()) {
        None => Ok(Rgb::grid(&images, columns)),
        Some(captions) => Ok(captions::grid(&images, &captions, columns)),
    }
}

/// Returns the captions of the `n` samples of a grid of a model with `count` classes: names of their
/// classes, or class indices where there is no name. `None` for a model without classes.
pub fn captions(names: &[String], count: usize, n: usize) -> Option<Vec<String>> {
    let classes = classes_to_show(names, count, n);
    let name = |i: usize| {
        let class = classes[i % classes.len()];
        names.get(class).cloned().unwrap_or_else(|| class.to_string())
    };
    (!classes.is_empty()).then(|| (0..n).map(name).collect())
}

/// Returns the classes of `n` samples among `count` classes: the preferred ones if they exist,
/// otherwise evenly spaced ones.
pub fn classes_to_show(names: &[String], count: usize, n: usize) -> Vec<usize> {
    let preferred: Vec<usize> = PREFERRED_CLASSES
        .iter()
        .filter_map(|preferred| names.iter().position(|name| name == preferred))
        .take(n)
        .collect();
    if preferred.len() == n.min(PREFERRED_CLASSES.len()) {
        return preferred;
    }
    let n = n.min(count);
    (0..n).map(|i| i * count / n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferred_classes_come_first_and_others_are_spaced_evenly() {
        let names: Vec<String> = PREFERRED_CLASSES.iter().rev().map(ToString::to_string).collect();
        assert_eq!(classes_to_show(&names, 16, 3), [15, 14, 13]);
        assert_eq!(classes_to_show(&names, 16, 20), (0..16).rev().collect::<Vec<_>>());
        // One of them is missing, and all are needed.
        assert_eq!(classes_to_show(&names[..15], 15, 16), (0..15).collect::<Vec<_>>());
        assert_eq!(classes_to_show(&[], 10, 4), [0, 2, 5, 7]);
        assert_eq!(classes_to_show(&[], 2, 4), [0, 1]);
        assert!(classes_to_show(&[], 0, 4).is_empty());
    }

    #[test]
    fn samples_of_classes_have_captions() {
        assert_eq!(captions(&[], 0, 4), None);
        let names = ["cat", "dog"].map(String::from);
        let want = |captions: &[&str]| Some(captions.iter().map(ToString::to_string).collect());
        assert_eq!(captions(&names, 2, 5), want(&["cat", "dog", "cat", "dog", "cat"]));
        // Classes of the network that the dataset does not have.
        assert_eq!(captions(&names, 4, 4), want(&["cat", "dog", "2", "3"]));
        assert_eq!(captions(&[], 10, 2), want(&["0", "5"]));
    }
}
