//! PNG files: single pictures, grids and animations, with the settings they were generated with
//! inside.

pub mod image;

use serde::{Deserialize, Serialize};

use crate::diffusion::settings::Settings;
use crate::picture::image::to_bytes;

/// Keyword of the text chunk that holds [`Origin`] as JSON.
pub const KEYWORD: &str = "diffit";

/// Maximum number of bytes of text that are read from a PNG file.
const MAX_TEXT: usize = 1 << 20;

/// Origin of a picture: everything needed to generate it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the model, from its card.
    pub model: String,
    /// SHA-256 of the weights file.
    pub weights_sha256: String,
    /// SHA-256 of the autoencoder's file, if pictures were decoded from latents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae_sha256: Option<String>,
    /// Seed of each picture, row after row.
    pub seeds: Vec<u64>,
    /// Sampling settings.
    pub settings: Settings,
    /// State of the web page, in the format of its links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// Error for a file without a usable [`Origin`].
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Not a PNG file, or a damaged one.
    #[error("this is not a PNG file, or it is damaged")]
    Damaged,
    /// A PNG file without settings.
    #[error("this PNG file holds no settings: it was made, or saved again, by another program")]
    Absent,
    /// Settings that cannot be used.
    #[error("the settings in this PNG file cannot be used: {0}")]
    Unusable(String),
}

impl Origin {
    /// Reads the origin that a PNG file holds, without decoding its picture.
    ///
    /// # Errors
    ///
    /// If it is not a PNG file, or does not hold valid settings.
    pub fn from_png(file: &[u8]) -> Result<Self, OriginError> {
        let limits = png::Limits { bytes: MAX_TEXT };
        let decoder = png::Decoder::new_with_limits(std::io::Cursor::new(file), limits);
        let reader = decoder.read_info().map_err(|_| OriginError::Damaged)?;
        let chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD);
        // A small chunk can decompress to gigabytes.
        let mut chunk = chunk.ok_or(OriginError::Absent)?.clone();
        chunk.decompress_text_with_limit(MAX_TEXT).map_err(|_| OriginError::Damaged)?;
        let text = chunk.get_text().map_err(|_| OriginError::Damaged)?;
        let unusable = |why: String| OriginError::Unusable(why);
        let origin: Self = serde_json::from_str(&text).map_err(|e| unusable(e.to_string()))?;
        origin.settings.validate().map_err(|e| unusable(e.to_string()))?;
        if origin.seeds.is_empty() {
            return Err(unusable("there is no seed".into()));
        }
        Ok(origin)
    }
}

/// Error for pictures with values that are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{pictures} of the pictures hold values that are not finite (the first is number {picture}): \
     the weights or the settings lead the model out of its range; try other settings (fewer noise \
     levels, no churn, guidance nearer to 1), 32-bit computation, or an earlier checkpoint"
)]
pub struct NotFinite {
    /// Number of the first such picture, counted from 0.
    pub picture: usize,
    /// Number of such pictures.
    pub pictures: usize,
}

/// A picture of three bytes per pixel.
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
    /// Converts a batch of pictures, `[B, C, H, W]` with one or three channels.
    ///
    /// # Errors
    ///
    /// If a value is not finite.
    ///
    /// # Panics
    ///
    /// If there is another number of channels, or `values` does not hold whole pictures.
    pub fn from_values(
        values: &[f32],
        [c, height, width]: [usize; 3],
    ) -> Result<Vec<Rgb>, NotFinite> {
        assert!(c == 1 || c == 3, "pictures of {c} channels have no colours");
        let size = c * height * width;
        if let Some(i) = values.iter().position(|value| !value.is_finite()) {
            let bad = values.chunks_exact(size).filter(|v| v.iter().any(|v| !v.is_finite()));
            return Err(NotFinite { picture: i / size, pictures: bad.count() });
        }
        let pictures = values
            .chunks_exact(c * height * width)
            .map(|picture| {
                let mut bytes = to_bytes(picture, c);
                if c == 1 {
                    bytes = bytes.iter().flat_map(|&grey| [grey; 3]).collect();
                }
                Rgb { width, height, bytes }
            })
            .collect();
        Ok(pictures)
    }

    /// Arranges pictures of the same size in a grid of `columns` columns, from the top left. Unused
    /// cells are white.
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

    /// Returns the number of columns of a grid of `n` pictures that is about as wide as it is high.
    pub fn square(n: usize) -> usize {
        (n as f64).sqrt().ceil() as usize
    }

    /// Encodes the picture as a PNG file, with its origin inside.
    ///
    /// # Errors
    ///
    /// If it is empty or too large for PNG.
    pub fn to_png(&self, origin: Option<&Origin>) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let size = |n: usize| u32::try_from(n).unwrap_or(0);
        let mut png = png::Encoder::new(&mut file, size(self.width), size(self.height));
        png.set_color(png::ColorType::Rgb);
        embed_origin(&mut png, origin)?;
        png.write_header()?.write_image_data(&self.bytes)?;
        Ok(file)
    }

    /// Enlarges the picture by repeating each pixel `times` times in both directions.
    pub fn enlarged(&self, times: usize) -> Rgb {
        let mut bytes = Vec::with_capacity(self.bytes.len() * times * times);
        for line in self.bytes.chunks_exact(3 * self.width) {
            let line: Vec<u8> =
                line.chunks_exact(3).flat_map(|pixel| pixel.repeat(times)).collect();
            bytes.extend(line.repeat(times));
        }
        Rgb { width: times * self.width, height: times * self.height, bytes }
    }
}

/// Encodes pictures of the same size as an animated PNG file that repeats. Each picture is shown
/// for `milliseconds`, the last one for ten times that.
///
/// # Errors
///
/// If there are no pictures, or they are too large for PNG or of different sizes.
pub fn to_animation(
    pictures: &[Rgb],
    milliseconds: u16,
    origin: Option<&Origin>,
) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let size = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let (first, count) = (pictures.first(), size(Some(pictures.len())));
    let (width, height) = (size(first.map(|p| p.width)), size(first.map(|p| p.height)));
    let mut png = png::Encoder::new(&mut file, width, height);
    png.set_color(png::ColorType::Rgb);
    png.set_animated(count, 0)?;
    png.set_frame_delay(milliseconds, 1000)?;
    embed_origin(&mut png, origin)?;
    let mut writer = png.write_header()?;
    for (i, picture) in pictures.iter().enumerate() {
        if i + 1 == pictures.len() {
            writer.set_frame_delay(milliseconds.saturating_mul(10), 1000)?;
        }
        writer.write_image_data(&picture.bytes)?;
    }
    writer.finish()?;
    Ok(file)
}

/// Adds the origin to a PNG file that is being written.
fn embed_origin<W: std::io::Write>(
    png: &mut png::Encoder<W>,
    origin: Option<&Origin>,
) -> Result<(), png::EncodingError> {
    let Some(origin) = origin else { return Ok(()) };
    let text = serde_json::to_string(origin).expect("it is plain data");
    png.add_itxt_chunk(KEYWORD.into(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: u8) -> Rgb {
        Rgb { width: 2, height: 1, bytes: vec![value; 6] }
    }

    #[test]
    fn grey_pictures_get_three_equal_channels() {
        let pictures = Rgb::from_values(&[-1.0, 1.0, 0.0, 0.0], [1, 1, 2]).expect("finite");
        assert_eq!(pictures[0].bytes, [0, 0, 0, 255, 255, 255]);
        assert_eq!(pictures[1].bytes, [128; 6]);
    }

    #[test]
    fn grids_are_filled_row_by_row() {
        let grid = Rgb::grid(&[plain(1), plain(2), plain(3)], 2);
        assert_eq!((grid.width, grid.height), (4, 2));
        let want = [[1; 6], [2; 6], [3; 6], [255; 6]].concat();
        assert_eq!(grid.bytes, want);
        assert_eq!(Rgb::grid(&[plain(1)], 9).width, 2);
        assert_eq!([1, 4, 5, 64].map(Rgb::square), [1, 2, 3, 8]);
    }

    #[test]
    fn values_that_are_not_finite_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY] {
            let error = Rgb::from_values(&[0.0, 0.0, 0.5, bad, 1.0, bad], [1, 1, 2]);
            assert_eq!(error, Err(NotFinite { picture: 1, pictures: 2 }));
        }
    }

    /// A small compressed chunk whose text is larger than the limit.
    #[test]
    fn compressed_text_is_bounded() {
        let mut file = Vec::new();
        let png = png::Encoder::new(&mut file, 1, 1);
        let mut chunk = png::text_metadata::ITXtChunk::new(KEYWORD, " ".repeat(2 * MAX_TEXT));
        chunk.compressed = true;
        chunk.compress_text().expect("plain text");
        let mut writer = png.write_header().expect("a small picture");
        writer.write_text_chunk(&chunk).expect("a small chunk");
        writer.write_image_data(&[0]).expect("one pixel");
        writer.finish().expect("in memory");
        assert!(file.len() < MAX_TEXT, "{}", file.len());
        assert!(matches!(Origin::from_png(&file), Err(OriginError::Damaged)));
    }

    fn origin() -> Origin {
        Origin {
            model: "µ-model".into(),
            weights_sha256: "00".into(),
            vae_sha256: Some("11".into()),
            seeds: vec![3],
            settings: Settings::default(),
            page: Some("v=play".into()),
        }
    }

    #[test]
    fn an_animation_holds_every_picture_and_the_settings() {
        let pictures = [plain(1), plain(2), plain(3)];
        let file = to_animation(&pictures, 80, Some(&origin())).expect("small pictures");
        assert_eq!(Origin::from_png(&file).expect("its own"), origin());
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
        assert_eq!(
            reader.info().animation_control.map(|a| (a.num_frames, a.num_plays)),
            Some((3, 0))
        );
        for value in 1..4 {
            let mut bytes = vec![0; 6];
            reader.next_frame(&mut bytes).expect("pixels");
            assert_eq!(bytes, [value; 6]);
        }
        assert!(to_animation(&[], 80, None).is_err());
    }

    #[test]
    fn enlarged_pixels_are_squares() {
        let picture = Rgb { width: 2, height: 1, bytes: vec![1, 1, 1, 2, 2, 2] };
        let large = picture.enlarged(2);
        assert_eq!((large.width, large.height), (4, 2));
        assert_eq!(large.bytes, [[1; 6], [2; 6], [1; 6], [2; 6]].concat());
    }

    proptest::proptest! {
        /// Reading a damaged file gives valid settings or an error.
        #[test]
        fn damaged_files_lead_to_an_error(
            changes in proptest::collection::vec((0usize..2000, 0u8..), 0..6), length in 0usize..2000,
        ) {
            let mut file = plain(7).to_png(Some(&origin())).expect("a small picture");
            for (index, byte) in changes {
                let index = index % file.len();
                file[index] = byte;
            }
            file.truncate(length);
            if let Ok(origin) = Origin::from_png(&file) {
                assert!(origin.settings.validate().is_ok());
            }
        }
    }

    #[test]
    fn files_without_valid_settings_are_rejected() {
        let error = |file: &[u8]| Origin::from_png(file).expect_err("not ours").to_string();
        assert!(error(b"<!DOCTYPE html>").contains("not a PNG file"));
        assert!(error(&plain(7).to_png(None).expect("a PNG")).contains("no settings"));
        let mut wrong = origin();
        wrong.settings.steps = 0;
        let file = plain(7).to_png(Some(&wrong)).expect("a PNG");
        assert!(error(&file).contains("steps is 0"), "{}", error(&file));
    }

    #[test]
    fn settings_are_stored_in_the_file() {
        let origin = origin();
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
