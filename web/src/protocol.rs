//! What the page and the worker tell each other: JSON, and bytes beside it where there are any.

use model::card::Card;
use model::generate::Settings;
use serde::{Deserialize, Serialize};

use crate::adapter::Backend;

/// From the page to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Find out what can be computed with, load the first model of the list, check it.
    Start {
        /// Address of the page, without its query.
        base: String,
        /// What the visitor wants to compute with.
        wish: Option<Backend>,
    },
    /// Make pictures.
    Generate {
        /// The seed of each.
        seeds: Vec<u64>,
        /// Everything else.
        settings: Settings,
    },
    /// Stop making pictures.
    Cancel,
}

/// From the worker to the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The worker runs and listens.
    Hello,
    /// What it will compute with.
    Chosen {
        /// The way taken.
        backend: Backend,
        /// The name of the graphics processor, if there is one.
        adapter: Option<String>,
        /// Why, where it is not what one would expect.
        note: Option<String>,
    },
    /// Weights are arriving.
    Loading {
        /// Bytes so far.
        loaded: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The model is on the device and its known answer is being computed.
    Checking,
    /// The model can be used.
    Ready(Box<Ready>),
    /// An evaluation is done. The denoised pictures follow as a grid of RGBA.
    Evaluated(Evaluated),
    /// The pictures are done. They follow as a grid of RGBA.
    Done {
        /// The size of the grid in pixels.
        size: [usize; 2],
        /// Time from the request to this message.
        milliseconds: f64,
        /// Evaluations of the network in that time.
        evaluations: usize,
    },
    /// Cancelled as asked.
    Cancelled,
    /// Something failed. What was asked for last did not happen.
    Failed {
        /// What, and what to do.
        message: String,
        /// Whether the worker can go on.
        fatal: bool,
    },
}

/// What is known once a model is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Its card.
    pub card: Card,
    /// Its file's SHA-256.
    pub sha256: String,
    /// Its file's size.
    pub bytes: u64,
    /// Its parameters.
    pub parameters: usize,
    /// Multiply-adds of one evaluation of one picture.
    pub macs: u64,
    /// By how much its known answer was missed, if it has one.
    pub deviation: Option<f32>,
    /// The way taken, which the check may have changed.
    pub backend: Backend,
    /// Why, where it is not what one would expect.
    pub note: Option<String>,
    /// Time from the start of the worker until now.
    pub milliseconds: f64,
}

/// How far a picture has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The step, from 0.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Evaluations done.
    pub evaluation: usize,
    /// Evaluations in all.
    pub evaluations: usize,
    /// The noise level.
    pub sigma: f64,
    /// Time of this evaluation.
    pub milliseconds: f64,
    /// The size of the grid in pixels.
    pub size: [usize; 2],
}
