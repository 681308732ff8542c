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
