//! Grids of images with captions.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_6X10;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Alignment, Baseline, Text};
use model::picture::Rgb;

/// Minimum width of an image in pixels. Smaller images are enlarged by an integer factor, to make
/// room for the caption.
const MIN_WIDTH: usize = 96;
/// Width and height of a character.
const CHARACTER: [usize; 2] = [6, 10];
/// Margin around text and images.
const MARGIN: usize = 4;
/// Maximum number of lines of a caption.
const LINES: usize = 2;

/// Returns a grid of images of one size, each with its caption below.
pub fn grid(images: &[Rgb], captions: &[String], columns: usize) -> Rgb {
    let cells: Vec<Rgb> =
        images.iter().zip(captions).map(|(image, caption)| cell(image, caption)).collect();
    Rgb::grid(&cells, columns)
}

/// Returns the size in pixels of the image, enlarged, in a cell of the given size.
pub fn image_size([width, height]: [usize; 2]) -> [usize; 2] {
    let text = LINES * (CHARACTER[1] + 2);
    [width.saturating_sub(2 * MARGIN), height.saturating_sub(3 * MARGIN + text)]
}

/// Returns an image on white with its caption below.
fn cell(image: &Rgb, caption: &str) -> Rgb {
    let scale = MIN_WIDTH.div_ceil(image.width.max(1)).max(1);
    let (w, h) = (image.width * scale, image.height * scale);
    let line = CHARACTER[1] + 2;
    let (width, height) = (w + 2 * MARGIN, h + 3 * MARGIN + LINES * line);
    let mut canvas = Canvas(Rgb { width, height, bytes: vec![255; 3 * width * height] });
    for y in 0..h {
        for x in 0..w {
            let from = 3 * (y / scale * image.width + x / scale);
            let to = 3 * ((y + MARGIN) * width + x + MARGIN);
            canvas.0.bytes[to..to + 3].copy_from_slice(&image.bytes[from..from + 3]);
        }
    }
    let style = MonoTextStyle::new(&FONT_6X10, Rgb888::BLACK);
    for (i, line_text) in wrap(caption, w / CHARACTER[0], LINES).iter().enumerate() {
        let place = Point::new((width / 2) as i32, (h + 2 * MARGIN + i * line) as i32);
        let mut text = Text::with_baseline(line_text, place, style, Baseline::Top);
        text.text_style.alignment = Alignment::Center;
        let Ok(_) = text.draw(&mut canvas);
    }
    canvas.0
}

/// Breaks text between words into at most `lines` lines of at most `width` characters, and
/// truncates the rest.
fn wrap(text: &str, width: usize, lines: usize) -> Vec<String> {
    let mut wrapped: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match wrapped.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => wrapped.push(word.into()),
        }
    }
    let cut = wrapped.len() > lines;
    wrapped.truncate(lines);
    for line in &mut wrapped {
        *line = line.chars().take(width).collect();
    }
    if let Some(last) = wrapped.last_mut().filter(|_| cut) {
        *last = last.chars().take(width.saturating_sub(2)).chain("..".chars()).collect();
    }
    wrapped
}

/// An image to draw text on.
struct Canvas(Rgb);

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width as u32, self.0.height as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { continue };
            if x < self.0.width && y < self.0.height {
                let at = 3 * (y * self.0.width + x);
                self.0.bytes[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn black(width: usize, height: usize) -> Rgb {
        Rgb { width, height, bytes: vec![0; 3 * width * height] }
    }

    /// Number of pixels below the image that are not white.
    fn ink(cell: &Rgb, image_height: usize) -> usize {
        let below = &cell.bytes[3 * cell.width * (image_height + MARGIN)..];
        below.chunks(3).filter(|pixel| **pixel != [255; 3]).count()
    }

    #[test]
    fn captions_are_below_their_images() {
        let none = cell(&black(32, 32), "");
        let otter = cell(&black(32, 32), "otter");
        assert_eq!((none.width, none.height), (otter.width, otter.height));
        assert_eq!(ink(&none, 96), 0);
        assert!(ink(&otter, 96) > 20);
        // Above the caption is the enlarged image.
        let above = 3 * otter.width * (96 + MARGIN);
        assert_eq!(none.bytes[..above], otter.bytes[..above]);
        assert_eq!(image_size([otter.width, otter.height]), [96, 96]);
        // Captions of any characters and length are accepted.
        for text in ["São Tomé & Príncipe Flag", "日本", &"word ".repeat(90), &"x".repeat(500)]
        {
            assert_eq!(cell(&black(32, 32), text).width, none.width);
        }
        assert_eq!(
            grid(&[black(32, 32), black(32, 32)], &["a".into(), "b".into()], 2).width,
            2 * none.width
        );
    }

    #[test]
    fn captions_are_wrapped_between_words() {
        assert_eq!(wrap("red heart", 16, 2), ["red heart"]);
        assert_eq!(wrap("face with tears of joy", 16, 2), ["face with tears", "of joy"]);
        assert_eq!(wrap("one two three four", 5, 2), ["one", "two.."]);
        assert_eq!(wrap("extraordinarily", 5, 2), ["extra"]);
        assert!(wrap("", 5, 2).is_empty());
    }
}
