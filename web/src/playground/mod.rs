//! The playground: the samplers in the plane, on distributions whose denoiser is known exactly.
//!
//! The worker computes with the same `sample` function that makes pictures (`run.rs`); the page draws
//! what it sends ([`track`], [`draw`]).

pub mod draw;
pub mod points;
pub mod preset;
#[cfg(any(test, all(target_arch = "wasm32", feature = "compute")))]
pub mod run;
pub mod track;

use model::settings::Settings;
use serde::{Deserialize, Serialize};

pub use points::PointSet;
pub use preset::{PRESETS, Preset};

/// Number of particles of a panel.
pub const PARTICLES: usize = 240;

/// Half of the side of the plane that is shown.
pub const EXTENT: f64 = 2.6;

/// The part of the scene that the playground shows, besides the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Playground {
    /// The data distribution.
    pub points: PointSet,
    /// The settings of the two panels.
    pub panels: [Settings; 2],
}

impl Default for Playground {
    /// The first preset.
    fn default() -> Self {
        PRESETS[0].playground()
    }
}

/// A request to the worker: what both panels show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exploration {
    /// The data distribution.
    pub points: PointSet,
    /// The seed of the noise, which both panels share.
    pub seed: u64,
    /// The settings of the two panels.
    pub panels: [Settings; 2],
}

/// The result of one panel. The positions of the particles are attached as `f32`, little-endian, two
/// for each particle: at every knot, then the exact end points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The noise level of each knot: those of the schedule, down to 0, and after a level at which
    /// churn added noise, the raised one.
    pub sigmas: Vec<f64>,
    /// Evaluations of the denoiser.
    pub evaluations: usize,
    /// Mean distance of the end points to the exact ones, which many steps of Heun reach from the
    /// same noise.
    pub distance: f64,
    /// Share of the end points that are off the data: farther than three standard deviations from
    /// every point of the set.
    pub off: f64,
    /// Whether the sampler added fresh noise, so that it does not lead to the exact end points.
    pub random: bool,
}
