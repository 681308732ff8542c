//! Statistics of a dataset of images, for `trainer data check`.

use std::collections::BTreeMap;

use super::item::Contents;

/// Statistics of a dataset of images.
#[derive(Default)]
pub struct Statistics {
    /// Number of usable images by width and height.
    pub sizes: BTreeMap<(usize, usize), usize>,
    /// Name and number of images of each class.
    pub classes: Vec<(String, usize)>,
    /// Mean value per channel, with 0 for black and 1 for white.
    pub mean: [f64; 3],
    /// Standard deviation per channel.
    pub deviation: [f64; 3],
    /// Unusable images with their reasons.
    pub bad: Vec<(String, String)>,
}

impl Statistics {
    /// Computes the statistics of a dataset.
    pub fn new(contents: &Contents) -> Self {
        let mut statistics = Self::default();
        let mut of_class = vec![0; contents.classes.names.len()];
        let (mut sum, mut squares, mut pixels) = ([0.0; 3], [0.0; 3], 0.0);
        for item in &contents.items {
            let image = match &item.image {
                Ok(image) => image,
                Err(reason) => {
                    statistics.bad.push((item.name.clone(), reason.clone()));
                    continue;
                }
            };
            *statistics.sizes.entry((image.width, image.height)).or_default() += 1;
            if let Some(count) = item.class.and_then(|class| of_class.get_mut(class as usize)) {
                *count += 1;
            }
            pixels += (image.width * image.height) as f64;
            for pixel in image.rgb.chunks_exact(3) {
                for (channel, byte) in pixel.iter().enumerate() {
                    let value = f64::from(*byte) / 255.0;
                    sum[channel] += value;
                    squares[channel] += value * value;
                }
            }
        }
        if pixels > 0.0 {
            statistics.mean = sum.map(|sum| sum / pixels);
            statistics.deviation = std::array::from_fn(|channel| {
                let variance = squares[channel] / pixels - statistics.mean[channel].powi(2);
                variance.max(0.0).sqrt()
            });
        }
        statistics.classes = contents.classes.names.iter().cloned().zip(of_class).collect();
        statistics
    }

    /// Returns the number of usable images.
    pub fn usable(&self) -> usize {
        self.sizes.values().sum()
    }
}
