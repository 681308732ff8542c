//! Statistics of a dataset of images, for `trainer data check`.

use std::collections::BTreeMap;

use super::item::Item;

/// Statistics of a dataset of images.
#[derive(Default)]
pub struct Statistics {
    /// Number of images, usable or not.
    pub total: usize,
    /// Number of usable images by width and height.
    pub sizes: BTreeMap<(usize, usize), usize>,
    /// Unusable images with their reasons.
    pub bad: Vec<(String, String)>,
    of_class: BTreeMap<usize, usize>,
    pixels: f64,
    sum: [f64; 3],
    squares: [f64; 3],
}

impl Statistics {
    /// Adds an image, or the reason why it cannot be used.
    pub fn add(&mut self, Item { name, image, class }: Item) {
        self.total += 1;
        let image = match image {
            Ok(image) => image,
            Err(reason) => {
                self.bad.push((name, reason));
                return;
            }
        };
        *self.sizes.entry((image.width, image.height)).or_default() += 1;
        if let Some(class) = class {
            *self.of_class.entry(class as usize).or_default() += 1;
        }
        self.pixels += (image.width * image.height) as f64;
        for pixel in image.rgb.chunks_exact(3) {
            for (channel, byte) in pixel.iter().enumerate() {
                let value = f64::from(*byte) / 255.0;
                self.sum[channel] += value;
                self.squares[channel] += value * value;
            }
        }
    }

    /// Returns the mean value per channel, with 0 for black and 1 for white.
    pub fn mean(&self) -> [f64; 3] {
        self.sum.map(|sum| sum / self.pixels.max(1.0))
    }

    /// Returns the standard deviation per channel.
    pub fn deviation(&self) -> [f64; 3] {
        let mean = self.mean();
        std::array::from_fn(|channel| {
            let variance = self.squares[channel] / self.pixels.max(1.0) - mean[channel].powi(2);
            variance.max(0.0).sqrt()
        })
    }

    /// Returns the number of images of a class.
    pub fn of_class(&self, class: usize) -> usize {
        self.of_class.get(&class).copied().unwrap_or_default()
    }

    /// Returns the number of usable images.
    pub fn usable(&self) -> usize {
        self.sizes.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode::DecodedImage;

    /// Returns an image of one row of pixels.
    fn row(pixels: &[[u8; 3]], class: Option<u32>) -> Item {
        let image = DecodedImage { width: pixels.len(), height: 1, rgb: pixels.concat() };
        Item { name: "good".into(), image: Ok(image), class }
    }

    #[test]
    fn pixels_of_all_images_count_alike() {
        let mut statistics = Statistics::default();
        statistics.add(row(&[[0, 51, 0], [255, 51, 0], [255, 51, 0]], Some(2)));
        statistics.add(row(&[[255, 51, 255]], Some(0)));
        let deviation = 0.1875f64.sqrt();
        for (found, want) in [
            (statistics.mean(), [0.75, 0.2, 0.25]),
            (statistics.deviation(), [deviation, 0.0, deviation]),
        ] {
            let near = found.iter().zip(want).all(|(found, want)| (found - want).abs() < 1e-7);
            assert!(near, "{found:?}, not {want:?}");
        }
        assert_eq!([0, 1, 2, 3].map(|class| statistics.of_class(class)), [1, 0, 1, 0]);
    }

    #[test]
    fn unusable_images_are_counted_and_have_no_pixels() {
        let mut statistics = Statistics::default();
        assert_eq!((statistics.mean(), statistics.deviation()), ([0.0; 3], [0.0; 3]));
        statistics.add(row(&[[255, 0, 255]; 2], None));
        let image = Err("cut".into());
        statistics.add(Item { name: "bad".into(), image, class: Some(1) });
        statistics.add(row(&[[255, 0, 255]; 2], None));
        assert_eq!((statistics.total, statistics.usable()), (3, 2));
        assert_eq!(statistics.sizes, BTreeMap::from([((2, 1), 2)]));
        assert_eq!(statistics.bad, [("bad".to_string(), "cut".to_string())]);
        assert_eq!(statistics.of_class(1), 0);
        assert_eq!((statistics.mean(), statistics.deviation()), ([1.0, 0.0, 1.0], [0.0; 3]));
    }
}
