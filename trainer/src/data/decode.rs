//! Decoding of image files, which may be malicious.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ColorType, DynamicImage, ImageFormat, ImageReader, Limits, RgbImage};

/// Maximum height and width in pixels.
const MAX_SIDE: u32 = 8192;

/// Maximum memory for decoding an image, in bytes.
const MAX_MEMORY: u64 = 512 << 20;

/// A decoded image.
pub struct DecodedImage {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

impl DecodedImage {
    /// Decodes a PNG or JPEG file.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be used, as text to print after the file name and a colon.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("the file is empty".into());
        }
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|e| e.to_string())?;
        match reader.format() {
            Some(ImageFormat::Png | ImageFormat::Jpeg) => {}
            Some(other) => return Err(format!("{other:?}, not PNG or JPEG")),
            None => return Err("not a PNG or JPEG file".into()),
        }
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_MEMORY);
        reader.limits(limits);
        let image = reader.decode().map_err(|e| match e {
            image::ImageError::Limits(_) => {
                format!(
                    "larger than {MAX_SIDE}x{MAX_SIDE} pixels, or takes too much memory to decode"
                )
            }
            e => format!("damaged ({e})"),
        })?;
        let opaque = |image: &DynamicImage| image.to_rgba8().pixels().all(|p| p.0[3] == 255);
        match image.color() {
            ColorType::L8 | ColorType::Rgb8 => {}
            ColorType::La8 | ColorType::Rgba8 if opaque(&image) => {}
            ColorType::La8 | ColorType::Rgba8 => {
                return Err("has transparent pixels; composite it on a background first".into());
            }
            other => return Err(format!("{other:?}; only 8 bits per channel are supported")),
        }
        let rgb = image.into_rgb8();
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        Ok(Self { width, height, rgb: rgb.into_raw() })
    }

    /// Crops the largest centered square, and resizes it to `side` pixels a side with bicubic
    /// interpolation.
    ///
    /// # Errors
    ///
    /// If the image has no pixels.
    pub fn center_crop(self, side: usize) -> Result<Self, String> {
        if (self.width, self.height) == (side, side) {
            return Ok(self);
        }
        let (width, height) = (self.width as u32, self.height as u32);
        let image = RgbImage::from_raw(width, height, self.rgb)
            .ok_or("its size does not match its pixels")?;
        let short = width.min(height);
        if short == 0 {
            return Err("it has no pixels".into());
        }
        let (x, y) = ((width - short) / 2, (height - short) / 2);
        let square = imageops::crop_imm(&image, x, y, short, short).to_image();
        let resized = imageops::resize(&square, side as u32, side as u32, FilterType::CatmullRom);
        Ok(Self { width: side, height: side, rgb: resized.into_raw() })
    }

    /// Returns the values in the layout `[C, H, W]`.
    ///
    /// # Errors
    ///
    /// If the image has another size.
    pub fn channels_first(&self, [c, h, w]: [usize; 3]) -> Result<Vec<u8>, String> {
        if (self.width, self.height) != (w, h) {
            return Err(format!("{}x{} pixels, not {w}x{h}", self.width, self.height));
        }
        Ok((0..c).flat_map(|channel| self.rgb.iter().skip(channel).step_by(3).copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_center_cropped_and_resized() {
        // 8x4 pixels: white in the middle, black left and right.
        let white = |i: usize| if (2..6).contains(&(i % 8)) { 255 } else { 0 };
        let rgb: Vec<u8> = (0..32).flat_map(|i| [white(i); 3]).collect();
        let wide = || DecodedImage { width: 8, height: 4, rgb: rgb.clone() };
        for side in [2, 4, 12] {
            let square = wide().center_crop(side).expect("pixels");
            assert_eq!((square.width, square.height), (side, side));
            assert_eq!(square.rgb, vec![255; side * side * 3]);
        }
        let empty = DecodedImage { width: 0, height: 3, rgb: Vec::new() };
        assert!(empty.center_crop(2).is_err());
    }
}
