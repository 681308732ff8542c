//! Decoding of image files, which may be malicious.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};

/// Maximum height and width in pixels.
const MAX_SIDE: u32 = 8192;

/// Maximum size of an image file in bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// Checks the size of an image file in bytes.
///
/// # Errors
///
/// If it is larger than [`MAX_FILE`].
pub fn check_file(size: u64) -> Result<(), String> {
    if size <= MAX_FILE {
        return Ok(());
    }
    Err(format!("{size} bytes, more than the limit of {MAX_FILE}"))
}

/// Number of bytes at the start of a file that mostly suffice to find the size of its image.
const START: u64 = 16 << 10;

/// Maximum memory for decoding an image, in bytes.
const MAX_MEMORY: u64 = 512 << 20;

/// A decoded image.
#[derive(Clone)]
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
        let reader = reader(bytes)?;
        if reader.format() == Some(ImageFormat::Jpeg) && is_cut_short(bytes) {
            return Err("damaged (it is cut short)".into());
        }
        let image = reader.decode().map_err(reason)?;
        let opaque = |image: &DynamicImage| image.to_rgba8().pixels().all(|p| p.0[3] == 255);
        match image.color() {
            ColorType::L8 | ColorType::Rgb8 => {}
            ColorType::La8 | ColorType::Rgba8 if opaque(&image) => {}
            ColorType::La8 | ColorType::Rgba8 => {
                return Err("has transparent pixels; composite it on a background first".into());
            }
            other => return Err(unsupported(other)),
        }
        let rgb = image.into_rgb8();
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        Ok(Self { width, height, rgb: rgb.into_raw() })
    }

    /// Returns the width and height of the image in a file, of which `read` reads the first bytes, up
    /// to a limit. As a rule, the file is not read as a whole.
    ///
    /// # Errors
    ///
    /// The reason why the file cannot be used, as far as that is known without decoding it.
    pub fn size(read: impl Fn(u64) -> Result<Vec<u8>, String>) -> Result<[usize; 2], String> {
        let start = read(START)?;
        match header(&start) {
            Err(_) if start.len() as u64 >= START => header(&read(MAX_FILE)?),
            found => found,
        }
    }

    /// Crops the largest centered square, and resizes it to `side` pixels a side. As in ADM and DiT,
    /// it is halved by averages of 2x2 pixels while it is at least twice as large, then resized with
    /// bicubic interpolation.
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
        let mut square = imageops::crop_imm(&image, x, y, short, short).to_image();
        let side_u32 = side as u32;
        while square.width() >= 2 * side_u32 && square.width().is_multiple_of(2) {
            square = halve(&square);
        }
        let resized = if square.width() == side_u32 {
            square
        } else {
            imageops::resize(&square, side_u32, side_u32, FilterType::CatmullRom)
        };
        Ok(Self { width: side, height: side, rgb: resized.into_raw() })
    }

    /// Returns the values in the layout `[C, H, W]`.
    ///
    /// # Errors
    ///
    /// If the image has another size.
    pub fn channels_first(&self, [c, h, w]: [usize; 3]) -> Result<Vec<u8>, String> {
        check_size([self.width, self.height], [w, h])?;
        Ok((0..c).flat_map(|channel| self.rgb.iter().skip(channel).step_by(3).copied()).collect())
    }
}

/// Checks that an image has the width and height that it should have.
///
/// # Errors
///
/// If it has others.
pub fn check_size([width, height]: [usize; 2], [w, h]: [usize; 2]) -> Result<(), String> {
    if [width, height] == [w, h] {
        return Ok(());
    }
    Err(format!("{width}x{height} pixels, not {w}x{h}; --resize crops and resizes images"))
}

/// Returns a reader of a PNG or JPEG file.
fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    match reader.format() {
        // The decoder would convert them to RGB without their profile, to other colours.
        Some(ImageFormat::Jpeg) if components(bytes) == Some(4) => {
            return Err("its colours are CMYK; convert it to RGB first".into());
        }
        Some(ImageFormat::Png | ImageFormat::Jpeg) => {}
        Some(other) => return Err(format!("{other:?}, not PNG or JPEG")),
        None => return Err("not a PNG or JPEG file".into()),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    Ok(reader)
}

/// Marker of a JPEG file before a scan, in which pixels are stored.
const SCAN: u8 = 0xda;

/// Returns the segments of a JPEG file: the marker of each, and the file from there on. After the first
/// scan, there may be no more of them.
fn segments(jpeg: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = jpeg.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        // Any number of bytes 0xff may precede a marker.
        while let [0xff, 0xff, ..] = rest {
            rest = &rest[1..];
        }
        let [0xff, marker, high, low, ..] = *rest else { return None };
        let segment = rest;
        let end = 2 + usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(end..).unwrap_or_default();
        Some((marker, segment))
    })
}

/// Returns the number of colour components of a JPEG file. `None` if it has no frame, or not in these
/// bytes.
fn components(jpeg: &[u8]) -> Option<u8> {
    // All of SOF0 to SOF15: the markers between them are of tables and extensions.
    let is_frame =
        |marker: u8| matches!(marker, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf);
    let (_, frame) = segments(jpeg).find(|(marker, _)| is_frame(*marker))?;
    // After marker, length, precision, height and width.
    frame.get(9).copied()
}

/// Returns whether a JPEG file has no end. The decoder makes pixels that are missing grey.
fn is_cut_short(jpeg: &[u8]) -> bool {
    // A thumbnail before the first scan has an end, too. In a scan, 0 follows each 0xff that is no marker.
    let scan = segments(jpeg).find(|(marker, _)| *marker == SCAN);
    let pixels = scan.map_or(jpeg, |(_, scan)| scan);
    !pixels.windows(2).rev().any(|two| two == [0xff, 0xd9])
}

/// Returns why an image cannot be decoded.
fn reason(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => {
            format!("larger than {MAX_SIDE}x{MAX_SIDE} pixels, or takes too much memory to decode")
        }
        error => format!("damaged ({error})"),
    }
}

/// Returns why images of a colour type cannot be used.
fn unsupported(colour: ColorType) -> String {
    format!("{colour:?}; only 8 bits per channel are supported")
}

/// Returns the width and height of the image in the first bytes of a file.
fn header(bytes: &[u8]) -> Result<[usize; 2], String> {
    let decoder = reader(bytes)?.into_decoder().map_err(reason)?;
    match decoder.color_type() {
        ColorType::L8 | ColorType::Rgb8 | ColorType::La8 | ColorType::Rgba8 => {}
        other => return Err(unsupported(other)),
    }
    let (width, height) = decoder.dimensions();
    Ok([width as usize, height as usize])
}

/// Returns an image of half the width and height, both of which are even: each pixel is the rounded
/// mean of 2x2 pixels.
fn halve(image: &RgbImage) -> RgbImage {
    RgbImage::from_fn(image.width() / 2, image.height() / 2, |x, y| {
        let pixels = [(0, 0), (1, 0), (0, 1), (1, 1)];
        let pixels = pixels.map(|(dx, dy)| image.get_pixel(2 * x + dx, 2 * y + dy).0);
        let mean = |c: usize| pixels.iter().map(|pixel| u16::from(pixel[c])).sum::<u16>() + 2;
        image::Rgb([0, 1, 2].map(|c| (mean(c) / 4) as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_twice_the_size_are_averaged() {
        // 4x4 pixels with values 0, 10, 20, ... in red.
        let rgb: Vec<u8> = (0..16).flat_map(|i| [10 * i, 7, 255]).collect();
        let image = DecodedImage { width: 4, height: 4, rgb };
        let halved = image.center_crop(2).expect("pixels");
        // (0 + 10 + 40 + 50) / 4, and so on.
        let red: Vec<u8> = halved.rgb.iter().step_by(3).copied().collect();
        assert_eq!(red, [25, 45, 105, 125]);
        assert!(halved.rgb.chunks(3).all(|pixel| pixel[1..] == [7, 255]));
    }

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

    #[test]
    fn jpeg_files_without_an_end_are_damaged() {
        let picture = RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * y) as u8, x as u8, 9]));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Jpeg).expect("encoded");
        let mut whole = bytes.into_inner();
        // What may be a thumbnail has an end of its own, and bytes may follow the end of the picture.
        whole.splice(2..2, [0xff, 0xff, 0xef, 0, 6, 0, 0, 0xff, 0xd9]);
        let end = whole.len();
        whole.extend([7; 20]);
        assert!(DecodedImage::decode(&whole).is_ok());
        assert!(DecodedImage::decode(&whole[..end]).is_ok());
        for length in [end - 1, end - 2, end - 60] {
            let reason = DecodedImage::decode(&whole[..length]).err();
            assert_eq!(reason.as_deref(), Some("damaged (it is cut short)"), "{length}");
        }
    }

    #[test]
    fn sizes_are_read_from_headers() {
        let picture = RgbImage::from_fn(300, 200, |x, y| {
            image::Rgb([(x * x + 31 * y * x) as u8, (x * y * 7 + y * y) as u8, (x ^ y) as u8])
        });
        let encoded = |image: DynamicImage, format| {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).expect("encoded");
            bytes.into_inner()
        };
        // Returns the size, and the number of bytes that were read.
        let size = |bytes: &[u8]| {
            let read = std::cell::Cell::new(0);
            let size = DecodedImage::size(|limit| {
                let part = &bytes[..bytes.len().min(limit as usize)];
                read.set(read.get() + part.len());
                Ok(part.to_vec())
            });
            (size, read.get())
        };
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let bytes = encoded(picture.clone().into(), format);
            assert!(bytes.len() > START as usize);
            assert_eq!(size(&bytes), (Ok([300, 200]), START as usize), "{format:?}");
        }
        // With metadata before the size.
        let mut bytes = encoded(picture.clone().into(), ImageFormat::Jpeg);
        let metadata = [&[0xff, 0xef, 0xff, 0xff][..], &[7; 65_533]].concat();
        bytes.splice(2..2, metadata);
        assert_eq!(size(&bytes), (Ok([300, 200]), START as usize + bytes.len()));
        let deep = encoded(DynamicImage::from(picture).into_rgb16().into(), ImageFormat::Png);
        let reason = size(&deep).0.expect_err("16 bits per channel");
        assert!(reason.contains("only 8 bits per channel"), "{reason}");
        assert_eq!(size(b"").0, Err("the file is empty".into()));
    }
}
