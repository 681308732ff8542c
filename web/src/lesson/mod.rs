//! Training in the browser: a very small network, a few pictures, a few hundred steps.
//!
//! The worker trains with the steps of the model crate (`run.rs`); the page shows what it sends
//! ([`curve`]) and has pictures to start with ([`shapes`]).

pub mod curve;
#[cfg(any(test, all(target_arch = "wasm32", feature = "learn")))]
pub mod run;
pub mod shapes;

use model::config::{
    ImageConfig, ModelConfig, NetworkConfig, PrecondConfig, TimeConfig, TransformerConfig, Window,
};
use model::picture::Rgb;
use serde::{Deserialize, Serialize};

/// Side of the pictures in pixels.
pub const SIDE: usize = 16;

/// Maximum number of training pictures.
pub const MOST_PICTURES: usize = 8;

/// Number of samples that are shown while training. Their seeds are 0 and the following ones.
pub const SAMPLES: usize = 8;

/// Numbers of steps that can be chosen.
pub const STEPS: [usize; 4] = [200, 600, 1200, 2400];

/// Maximum number of steps of a run, continuations included.
pub const MOST_STEPS: usize = 100_000;

/// A request to train: the options of a run. The pictures are attached as RGB, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// The number of the run, which its messages carry.
    pub run: u64,
    /// Seed of the initial weights, the order of the pictures and the noise.
    pub seed: u64,
    /// Number of steps.
    pub steps: usize,
    /// Whether the mirrored pictures are training pictures too.
    pub mirror: bool,
    /// The names of the pictures, which are classes of the model.
    pub names: Vec<String>,
}

/// The progress of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// The number of the run.
    pub run: u64,
    /// Steps done.
    pub step: usize,
    /// The losses of the steps since the last message.
    pub losses: Vec<f64>,
    /// Time spent on training and samples so far, in milliseconds.
    pub milliseconds: f64,
}

/// Describes the progress of a run of `steps` steps. `duration` formats milliseconds.
pub fn progress(
    learned: &Learned,
    steps: usize,
    running: bool,
    duration: impl Fn(f64) -> String,
) -> String {
    let done = learned.step;
    let each = learned.milliseconds / done.max(1) as f64;
    let mut text = format!("Step {done} of {steps}");
    if done > 0 && each > 0.0 {
        text += &format!(", {:.1} steps a second", 1e3 / each);
        text += &match running {
            true => format!(", about {} left", duration(each * steps.saturating_sub(done) as f64)),
            false => format!(", {} in all", duration(learned.milliseconds)),
        };
    }
    text + "."
}

/// Returns a picture in the size of the network's: each pixel is the mean of a square of pixels.
/// Returns `None` unless the picture is a square of a multiple of that size.
pub fn shrunk(picture: &Rgb) -> Option<Rgb> {
    let times = picture.width / SIDE;
    let fits = picture.width == picture.height && picture.width == times * SIDE && times > 0;
    if !fits || picture.bytes.len() != 3 * picture.width * picture.height {
        return None;
    }
    let mean = |i: usize| {
        let (pixel, c) = (i / 3, i % 3);
        let (top, left) = (pixel / SIDE * times, pixel % SIDE * times);
        let row = |y: usize| {
            let start = 3 * ((top + y) * picture.width + left) + c;
            picture.bytes[start..].iter().step_by(3).take(times)
        };
        let sum: usize = (0..times).flat_map(row).map(|&byte| usize::from(byte)).sum();
        ((sum + times * times / 2) / (times * times)) as u8
    };
    let bytes = (0..3 * SIDE * SIDE).map(mean).collect();
    Some(Rgb { width: SIDE, height: SIDE, bytes })
}

/// Maximum number of letters of a name.
const LETTERS: usize = 24;

/// Returns a name for a class: the letters, digits and dashes of a text such as a file's name without
/// its ending, with a number if there is such a name already.
pub fn class_name(known: &[String], text: &str) -> String {
    let stem = text.rsplit_once('.').map_or(text, |(stem, _)| stem);
    let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { ' ' };
    let words: String = stem.chars().map(plain).collect();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let name: String = words.chars().take(LETTERS).collect();
    // A number would be read as that of a class.
    let name = match name.trim() {
        digits if digits.chars().all(|c| c.is_ascii_digit()) => format!("picture {digits}"),
        name => name.to_string(),
    };
    let name = name.trim_end();
    let mut names = std::iter::once(name.to_string()).chain((2..).map(|i| format!("{name} {i}")));
    names.find(|name| !known.contains(name)).unwrap_or_default()
}

/// Returns the configuration of the network: two stages, 16x16 pictures in colour, and this many
/// classes.
pub fn config(classes: usize) -> ModelConfig {
    let image = ImageConfig {
        resolution: SIDE,
        classes,
        channels: vec![16, 64],
        blocks: vec![1, 1],
        // A head for all channels of the first stage.
        transformer: TransformerConfig { head_dim: 16, ..TransformerConfig::default() },
        time: TimeConfig { channels: 64, width: 128, augment_labels: 0, ..TimeConfig::default() },
        window: Window::Size(8),
        dropout: 0.0,
        // EDM's is nearly 0, which trains slowly at first.
        branch_init: 1.0,
        ..ImageConfig::default()
    };
    ModelConfig { network: NetworkConfig::Image(image), precond: PrecondConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_has_speed_and_time() {
        let learned = |step, milliseconds| Learned { run: 1, step, losses: vec![], milliseconds };
        let text = |learned: &Learned, running| {
            progress(learned, 400, running, |ms| format!("{:.0} s", ms / 1e3))
        };
        let some = learned(100, 5000.0);
        assert_eq!(text(&some, true), "Step 100 of 400, 20.0 steps a second, about 15 s left.");
        assert_eq!(text(&some, false), "Step 100 of 400, 20.0 steps a second, 5 s in all.");
        assert_eq!(text(&learned(0, 3.0), true), "Step 0 of 400.");
        assert_eq!(text(&learned(3, 0.0), true), "Step 3 of 400.");
    }

    #[test]
    fn pictures_are_shrunk_to_means() {
        let side = 2 * SIDE;
        let byte = |i: usize| match (i / 3 % side % 2, i / 3 / side % 2, i % 3) {
            (0, 0, 0) => 255,
            (_, _, 1) => 7,
            _ => 1,
        };
        let bytes = (0..3 * side * side).map(byte).collect();
        let small = shrunk(&Rgb { width: side, height: side, bytes }).expect("a square");
        assert!(small.bytes.chunks_exact(3).all(|pixel| pixel == [65, 7, 1]));
        assert_eq!(shrunk(&small), Some(small.clone()));
        for (width, height) in [(SIDE, side), (side, SIDE), (SIDE + 1, SIDE + 1), (0, 0), (8, 8)] {
            let bytes = vec![0; 3 * width * height];
            assert_eq!(shrunk(&Rgb { width, height, bytes }), None);
        }
    }

    #[test]
    fn every_picture_has_a_name_of_its_own() {
        let mut names = Vec::new();
        for (text, want) in [
            ("cat.png", "cat"),
            ("cat.jpg", "cat 2"),
            ("my_cat, 3: a=b.png", "my cat 3 a b"),
            ("", "picture"),
            (".png", "picture 2"),
            ("cat", "cat 3"),
            ("7.png", "picture 7"),
            ("äöüäöüäöüäöüäöüäöüäöüäöüäöüäöü", "äöüäöüäöüäöüäöüäöüäöüäöü"),
        ] {
            let name = class_name(&names, text);
            assert_eq!(name, want);
            names.push(name);
        }
        // The command line finds them.
        for (i, name) in names.iter().enumerate() {
            assert_eq!(model::classes::find(&names, name), Ok(i), "{name}");
        }
    }

    #[test]
    fn the_network_fits_the_pictures() {
        let config = config(3);
        config.validate().expect("a valid configuration");
        assert_eq!(config.image_shape(), [3, SIDE, SIDE]);
        assert_eq!(config.classes(), 3);
    }
}
