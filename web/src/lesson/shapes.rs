//! Pictures to start with, drawn from formulas.

use model::picture::Rgb;

use super::SIDE;

/// A colour, each part from 0 to 1.
type Colour = [f64; 3];

const WHITE: Colour = [1.0, 1.0, 1.0];
const INK: Colour = [0.13, 0.12, 0.2];
const RED: Colour = [0.89, 0.2, 0.24];
const GREEN: Colour = [0.16, 0.64, 0.4];
const BLUE: Colour = [0.18, 0.42, 0.87];
const YELLOW: Colour = [0.98, 0.79, 0.2];
const VIOLET: Colour = [0.49, 0.3, 0.8];
const ORANGE: Colour = [0.96, 0.5, 0.16];
const CYAN: Colour = [0.2, 0.72, 0.82];
const ROSE: Colour = [0.95, 0.45, 0.65];

/// The colour at a place, both coordinates from -1 to 1, downwards and to the right.
type Drawing = fn(f64, f64) -> Colour;

/// A set of pictures.
pub struct Set {
    /// The name in `data-testid`.
    pub name: &'static str,
    /// The label.
    pub label: &'static str,
    drawings: &'static [(&'static str, Drawing)],
}

/// The sets.
pub static SETS: [Set; 3] = [
    Set {
        name: "shapes",
        label: "Shapes",
        drawings: &[
            ("disc", |x, y| on(x.hypot(y) < 0.75, RED)),
            ("square", |x, y| on(x.abs().max(y.abs()) < 0.66, BLUE)),
            ("triangle", |x, y| on(y < 0.62 && y > 2.0 * x.abs() - 0.8, GREEN)),
            ("ring", |x, y| on((x.hypot(y) - 0.58).abs() < 0.2, ORANGE)),
            ("cross", |x, y| on(x.abs().min(y.abs()) < 0.22 && x.abs().max(y.abs()) < 0.8, VIOLET)),
            ("heart", |x, y| on(heart(x, y), ROSE)),
        ],
    },
    Set {
        name: "faces",
        label: "Faces",
        drawings: &[
            ("smile", |x, y| face(x, y, eyes(x, y) || arc(x, y, 0.05, 0.45, 1.0))),
            ("frown", |x, y| face(x, y, eyes(x, y) || arc(x, y, 0.75, 0.45, -1.0))),
            ("surprise", |x, y| face(x, y, eyes(x, y) || x.hypot(0.8 * (y - 0.4)) < 0.2)),
            ("wink", |x, y| face(x, y, wink(x, y) || arc(x, y, 0.05, 0.45, 1.0))),
        ],
    },
    Set {
        name: "flags",
        label: "Flags",
        drawings: &[
            ("upright", |x, _| stripes(x, [BLUE, WHITE, RED])),
            ("level", |_, y| stripes(y, [GREEN, YELLOW, RED])),
            ("sun", |x, y| on(x.hypot(y) < 0.55, RED)),
            ("nordic", |x, y| if (x + 0.2).abs() < 0.2 || y.abs() < 0.2 { YELLOW } else { BLUE }),
            ("halves", |_, y| if y < 0.0 { ORANGE } else { CYAN }),
            ("diamond", |x, y| if x.abs() + y.abs() < 0.85 { YELLOW } else { GREEN }),
        ],
    },
];

impl Set {
    /// Returns the pictures, with their names.
    pub fn pictures(&self) -> Vec<(String, Rgb)> {
        self.drawings.iter().map(|(name, drawing)| (name.to_string(), draw(*drawing))).collect()
    }
}

/// Draws a picture: the mean colour of each pixel at four by four places.
fn draw(drawing: Drawing) -> Rgb {
    const FINE: usize = 4;
    let place = |i: usize| (2.0 * (i as f64 + 0.5) / (SIDE * FINE) as f64) - 1.0;
    let mut bytes = Vec::with_capacity(3 * SIDE * SIDE);
    for pixel in 0..SIDE * SIDE {
        let mut sum = [0.0; 3];
        for fine in 0..FINE * FINE {
            let x = place(pixel % SIDE * FINE + fine % FINE);
            let y = place(pixel / SIDE * FINE + fine / FINE);
            let colour = drawing(x, y);
            sum.iter_mut().zip(colour).for_each(|(sum, part)| *sum += part);
        }
        let byte = |sum: f64| (255.0 * sum / (FINE * FINE) as f64).round() as u8;
        bytes.extend(sum.map(byte));
    }
    Rgb { width: SIDE, height: SIDE, bytes }
}

/// Returns a colour inside, white outside.
fn on(inside: bool, colour: Colour) -> Colour {
    if inside { colour } else { WHITE }
}

fn heart(x: f64, y: f64) -> bool {
    let (x, y) = (1.35 * x, -1.35 * y + 0.1);
    (x * x + y * y - 0.75).powi(3) < x * x * y.powi(3)
}

fn face(x: f64, y: f64, dark: bool) -> Colour {
    if dark { INK } else { on(x.hypot(y) < 0.9, YELLOW) }
}

fn eyes(x: f64, y: f64) -> bool {
    (x.abs() - 0.33).hypot(0.8 * (y + 0.25)) < 0.14
}

fn wink(x: f64, y: f64) -> bool {
    if x < 0.0 { eyes(x, y) } else { (x - 0.33).abs() < 0.2 && (y + 0.25).abs() < 0.07 }
}

/// Returns whether a place is on half of a circle around a point below or above the centre: the lower
/// half for 1, the upper one for -1.
fn arc(x: f64, y: f64, centre: f64, radius: f64, half: f64) -> bool {
    half * (y - centre) > 0.0 && (x.hypot(y - centre) - radius).abs() < 0.09
}

fn stripes(at: f64, [first, second, third]: [Colour; 3]) -> Colour {
    match at {
        at if at < -1.0 / 3.0 => first,
        at if at < 1.0 / 3.0 => second,
        _ => third,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lesson::MOST_PICTURES;

    #[test]
    fn every_set_is_of_different_pictures_in_the_size_of_the_network() {
        for set in &SETS {
            let pictures = set.pictures();
            assert!((2..=MOST_PICTURES).contains(&pictures.len()), "{}", set.name);
            for (i, (name, picture)) in pictures.iter().enumerate() {
                assert_eq!([picture.width, picture.height], [SIDE; 2]);
                assert_eq!(picture.bytes.len(), 3 * SIDE * SIDE);
                let differs = |other: &(String, Rgb)| other.0 != *name && other.1 != *picture;
                assert!(pictures[..i].iter().all(differs), "{name}");
            }
        }
    }

    /// Edges are smooth, corners are white, and the centre of the disc has its colour.
    #[test]
    fn a_disc_is_a_disc() {
        let disc = &SETS[0].pictures()[0].1;
        let pixel = |x: usize, y: usize| &disc.bytes[3 * (SIDE * y + x)..][..3];
        assert_eq!(pixel(0, 0), [255; 3]);
        assert_eq!(pixel(8, 8), [227, 51, 61]);
        let partly = (0..SIDE).filter(|&x| ![255, 51].contains(&pixel(x, 3)[1])).count();
        assert!(partly > 0);
    }
}
