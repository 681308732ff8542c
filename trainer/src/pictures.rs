//! PNG files: single pictures and grids, with the settings they were made with inside.

use std::path::Path;

use anyhow::Context;
use model::generate::Settings;
use serde::{Deserialize, Serialize};

use crate::run_folder::write_file;

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

/// A picture of bytes, `[H, W, C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb {
    pub width: usize,
    pub height: usize,
    pub bytes: Vec<u8>,
}

impl Rgb {
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
    /// If it is too large for PNG.
    pub fn to_png(&self, origin: Option<&Origin>) -> anyhow::Result<Vec<u8>> {
        let mut file = Vec::new();
        let size = |n: usize| u32::try_from(n).context("too many pixels for a PNG file");
        let mut png = png::Encoder::new(&mut file, size(self.width)?, size(self.height)?);
        png.set_color(png::ColorType::Rgb);
        if let Some(origin) = origin {
            png.add_itxt_chunk(KEYWORD.into(), serde_json::to_string(origin)?)?;
        }
        png.write_header()?.write_image_data(&self.bytes)?;
        Ok(file)
    }

    /// Writes the picture as a PNG file.
    ///
    /// # Errors
    ///
    /// If the file system refuses.
    pub fn save(&self, path: &Path, origin: Option<&Origin>) -> anyhow::Result<()> {
        write_file(path, &self.to_png(origin)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: u8) -> Rgb {
        Rgb { width: 2, height: 1, bytes: vec![value; 6] }
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
