//! PNG files: single pictures and grids, with the settings they were made with inside.

use serde::{Deserialize, Serialize};

use crate::generate::Settings;
use crate::image::to_bytes;

/// Keyword of the text chunk that holds [`Origin`] as JSON.
pub const KEYWORD: &str = "diffit";

/// How a picture came about: enough to make it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the model, from its card.
    pub model: String,
    /// SHA-256 of the weights file.
    pub weights_sha256: String,
    /// The seed of each picture, row after row.
    pub seeds: Vec<u64>,
    /// All other settings.
    pub settings: Settings,
}

/// A picture of bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Red, green and blue of each pixel, row after row.
    pub bytes: Vec<u8>,
}

impl Rgb {
    /// Takes apart a batch of pictures, `[B, C, H, W]` with one or three channels.
    ///
    /// # Panics
    ///
    /// If there are other channels, or `values` does not hold whole pictures.
    pub fn from_values(values: &[f32], [c, height, width]: [usize; 3]) -> Vec<Rgb> {
        assert!(c == 1 || c == 3, "pictures of {c} channels have no colours");
        values
            .chunks_exact(c * height * width)
            .map(|picture| {
                let mut bytes = to_bytes(picture, c);
                if c == 1 {
                    bytes = bytes.iter().flat_map(|&grey| [grey; 3]).collect();
                }
                Rgb { width, height, bytes }
            })
            .collect()
    }

    /// Puts pictures of one size side by side, `columns` to a row, from the top left. Places
    /// that are left over stay white.
    pub fn grid(pictures: &[Rgb], columns: usize) -> Rgb {
        let Some(first) = pictures.first() else {
            return Rgb { width: 0, height: 0, bytes: Vec::new() };
        };
        let columns = columns.clamp(1, pictures.len());
        let (width, height) = (first.width, first.height);
        let row = columns * width * 3;
        let mut bytes = vec![255; pictures.len().div_ceil(columns) * height * row];
        for (i, picture) in pictures.iter().enumerate() {
            let corner = i / columns * height * row + i % columns * width * 3;
            for (y, line) in picture.bytes.chunks_exact(width * 3).enumerate() {
                bytes[corner + y * row..][..line.len()].copy_from_slice(line);
            }
        }
        Rgb { width: columns * width, height: bytes.len() / row, bytes }
    }

    /// Columns of a grid of `n` pictures that is about as wide as high.
    pub fn square(n: usize) -> usize {
        (n as f64).sqrt().ceil() as usize
    }

    /// The picture as a PNG file.
    ///
    /// # Errors
    ///
    /// If it is empty or too large for PNG.
    pub fn to_png(&self, origin: Option<&Origin>) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let size = |n: usize| u32::try_from(n).unwrap_or(0);
        let mut png = png::Encoder::new(&mut file, size(self.width), size(self.height));
        png.set_color(png::ColorType::Rgb);
        if let Some(origin) = origin {
            let text = serde_json::to_string(origin).expect("it is plain data");
            png.add_itxt_chunk(KEYWORD.into(), text)?;
        }
        png.write_header()?.write_image_data(&self.bytes)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: u8) -> Rgb {
        Rgb { width: 2, height: 1, bytes: vec![value; 6] }
    }

    #[test]
    fn grey_pictures_get_three_equal_channels() {
        let pictures = Rgb::from_values(&[-1.0, 1.0, 0.0, 0.0], [1, 1, 2]);
        assert_eq!(pictures[0].bytes, [0, 0, 0, 255, 255, 255]);
        assert_eq!(pictures[1].bytes, [128; 6]);
    }

    #[test]
    fn a_grid_goes_row_after_row() {
        let grid = Rgb::grid(&[plain(1), plain(2), plain(3)], 2);
        assert_eq!((grid.width, grid.height), (4, 2));
        let want = [[1; 6], [2; 6], [3; 6], [255; 6]].concat();
        assert_eq!(grid.bytes, want);
        assert_eq!(Rgb::grid(&[plain(1)], 9).width, 2);
        assert_eq!([1, 4, 5, 64].map(Rgb::square), [1, 2, 3, 8]);
    }

    #[test]
    fn the_settings_travel_inside() {
        let origin = Origin {
            model: "µ-model".into(),
            weights_sha256: "00".into(),
            seeds: vec![3],
            settings: Settings::default(),
        };
        let file = plain(7).to_png(Some(&origin)).expect("a small picture");
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        let text = reader.info().utf8_text[0].get_text().expect("text");
        assert_eq!(reader.info().utf8_text[0].keyword, KEYWORD);
        assert_eq!(serde_json::from_str::<Origin>(&text).expect("JSON"), origin);
        let mut bytes = vec![0; 6];
        reader.next_frame(&mut bytes).expect("pixels");
        assert_eq!(bytes, [7; 6]);
    }
}
