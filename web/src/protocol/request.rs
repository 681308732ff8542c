//! The messages from the page to a worker.

use model::settings::Settings;
use serde::{Deserialize, Serialize};

use crate::adapter::Backend;
use crate::lesson::Lesson;
use crate::playground::Exploration;
use crate::testing::Fault;

/// A message from the page to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Finds a device, loads a model of the list and checks it.
    Start(Start),
    /// Opens the file that is attached, weights or an autoencoder, and checks it.
    Open {
        /// The file's name.
        name: String,
    },
    /// Opens a file in the folder of the shipped weights.
    Fetch {
        /// The page's address, without its query.
        base: String,
        /// The file's name.
        name: String,
    },
    /// Makes pictures. If the order has a guide, its picture is attached: RGB for each pixel, then a
    /// byte for each pixel, which is 1 where the picture is kept.
    Generate(Order),
    /// Computes the attention of a token.
    Attend(Look),
    /// Summarises the attention of all blocks at a step, with the time token and without.
    Survey(Scan),
    /// Computes the panels of the playground. It needs no model.
    Explore(Exploration),
    /// Trains a new model. The training pictures are attached as RGB, one after the other. This and the
    /// next two are for the program of processors, in a worker of its own.
    Train {
        /// The options of the run.
        lesson: Lesson,
        /// The fault that a test injects.
        fault: Option<Fault>,
    },
    /// Goes on with a training run.
    GoOn {
        /// The number of the run.
        run: u64,
        /// The step after which it stops.
        steps: usize,
    },
    /// Writes the weights file of a training run.
    Weights {
        /// The number of the run.
        run: u64,
    },
    /// Stops making pictures, opening a file, or training: what has the number of this message.
    Cancel,
}

/// The arguments of [`Request::Start`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The page's address, without its query.
    pub base: String,
    /// The model's file, if it is not the first of the list.
    pub model: Option<String>,
    /// The backend that the page's address asks for.
    pub wish: Option<Backend>,
    /// Whether to compute in 32 bits without trying 16, which may be why the last worker ended.
    pub plain: bool,
    /// The fault that a test injects.
    pub fault: Option<Fault>,
    /// The memory limit of a test, in bytes.
    pub memory: Option<u64>,
    /// Whether a test takes a graphics processor that is emulated in software for a real one.
    pub software: bool,
}

/// An order for pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The initial noise of each picture.
    pub noises: Vec<Noise>,
    /// The sampling settings.
    pub settings: Settings,
    /// The picture that sampling starts from.
    pub guide: Option<Guide>,
    /// Whether the pictures of every evaluation are sent, besides the finished ones. They do not change
    /// the finished ones. A graphics processor waits for each to be read.
    pub previews: bool,
}

/// Initial noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Noise {
    /// The noise of a seed.
    Seed(u64),
    /// An interpolation between two seeds, at a position from 0 to 1.
    Between([u64; 2], f64),
    /// An interpolation between four seeds, the corners of a square in row order, at a horizontal and
    /// a vertical position from 0 to 1.
    Among([u64; 4], [f64; 2]),
}

impl Noise {
    /// Returns the seed, or the first of several.
    pub fn seed(&self) -> u64 {
        match *self {
            Noise::Seed(seed) => seed,
            Noise::Between(seeds, _) => seeds[0],
            Noise::Among(seeds, _) => seeds[0],
        }
    }
}

/// Sampling that starts from a picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guide {
    /// The noise level that is added to the picture.
    pub sigma: f64,
    /// Whether the mask applies: the picture is kept where it is 1.
    pub keep: bool,
}

/// A request for the attention of a token at a step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Look {
    /// The number of the run.
    pub run: u64,
    /// The step, from 0.
    pub step: usize,
    /// The picture, from 0.
    pub picture: usize,
    /// The block, from 0, in the order of execution.
    pub block: usize,
    /// Row and column of the token in the block's map, from 0.
    pub token: [usize; 2],
}

impl Look {
    /// Returns the window of the token and the token's row in the attention map of that window, for
    /// a map and windows of `side` and `window` tokens a side. Returns `None` if there is no such
    /// token, or the windows do not fill the map.
    pub fn row(&self, side: usize, window: usize) -> Option<[usize; 2]> {
        let [y, x] = self.token;
        if window == 0 || !side.is_multiple_of(window) || y >= side || x >= side {
            return None;
        }
        Some([y / window * (side / window) + x / window, y % window * window + x % window])
    }
}

/// A request for the attention of all blocks at a step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scan {
    /// The number of the run.
    pub run: u64,
    /// The step, from 0.
    pub step: usize,
    /// The picture, from 0.
    pub picture: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_row_in_the_map_of_its_window() {
        let row = |token, side, window| {
            Look { run: 1, step: 0, picture: 0, block: 0, token }.row(side, window)
        };
        assert_eq!(row([0, 0], 4, 2), Some([0, 0]));
        assert_eq!(row([3, 0], 4, 2), Some([2, 2]));
        assert_eq!(row([2, 3], 4, 2), Some([3, 1]));
        assert_eq!(row([3, 2], 4, 4), Some([0, 14]));
        for (token, side, window) in
            [([4, 0], 4, 2), ([0, 4], 4, 2), ([0, 0], 4, 3), ([0, 0], 4, 0)]
        {
            assert_eq!(row(token, side, window), None);
        }
    }
}
