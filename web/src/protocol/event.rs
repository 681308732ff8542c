//! The messages from a worker to the page.

use serde::{Deserialize, Serialize};

use super::{Look, Ready, Scan};
use crate::adapter::Backend;
use crate::lesson::Learned;
use crate::manifest::Entry;
use crate::playground::Outcome;

/// A message from a worker to the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The progress of loading the worker's program. `compute.js` sends it.
    Program {
        /// Bytes so far.
        loaded: u64,
        /// Total bytes.
        total: u64,
    },
    /// The worker is running.
    Hello {
        /// Its version.
        version: String,
    },
    /// The backend was chosen.
    Chosen {
        /// The backend.
        backend: Backend,
        /// The name of the graphics processor, if there is one.
        adapter: Option<String>,
        /// The reason, if it is not the expected one.
        note: Option<String>,
        /// Whether there is a graphics processor that the program for them can use, which this one is
        /// not.
        graphics: bool,
    },
    /// The list of the shipped models.
    Models(Vec<Entry>),
    /// The progress of a download.
    Loading {
        /// Bytes so far.
        loaded: u64,
        /// Total bytes.
        total: u64,
    },
    /// The self-check has started: the model computes its known answer.
    Checking,
    /// The model is ready.
    Ready(Box<Ready>),
    /// An evaluation is done. With previews, the pictures are attached as RGB: the noisy ones, scaled to
    /// unit variance, then the denoised ones.
    Evaluated(Evaluated),
    /// The progress of decoding latents.
    Decoding(Decoding),
    /// The pictures are done. They are attached as RGB.
    Done {
        /// Time from the request to this message.
        milliseconds: f64,
        /// Evaluations of the network in that time.
        evaluations: usize,
        /// Width and height of a picture.
        size: [usize; 2],
        /// SHA-256 of the autoencoder that decoded latents, if one did.
        autoencoder: Option<String>,
        /// The work of the last evaluation, if a graphics processor did it.
        work: Option<GpuWork>,
    },
    /// The attention of a token. For its row, the attention weights `[heads, N]` and the relative
    /// position bias `[heads, N]` are attached as `f32`, little-endian; `N` is the number of tokens in
    /// a window. The whole map would be `N` times larger.
    Attended(Attended),
    /// The attention of all blocks at a step.
    Surveyed(Surveyed),
    /// The steps of a run are not there any more, so there is no attention for it.
    Gone {
        /// The number of the run.
        run: u64,
    },
    /// The panels of the playground, with the positions of their particles attached, or why they could
    /// not be computed.
    Explored(Result<[Outcome; 2], String>),
    /// The request was cancelled.
    Cancelled,
    /// The progress of a training run.
    Learned(Learned),
    /// Samples of a training run. They are attached as RGB, one after the other.
    Sampled {
        /// The number of the run.
        run: u64,
        /// Steps done.
        step: usize,
    },
    /// A training run has reached its steps, or was stopped.
    Paused {
        /// The number of the run.
        run: u64,
    },
    /// The weights file of a training run, which is attached.
    Weights {
        /// The number of the run.
        run: u64,
        /// Steps done.
        step: usize,
    },
    /// An autoencoder is ready.
    Autoencoder(AutoencoderInfo),
    /// There is not enough memory for that many pictures at a time. Nothing was done.
    TooMuch {
        /// The reason.
        message: String,
    },
    /// A file cannot be used. The previous one is still in use.
    Refused {
        /// The reason.
        message: String,
    },
    /// The last request failed.
    Failed {
        /// The error, and what to do about it.
        message: String,
        /// Whether the worker has ended or has lost its device.
        fatal: bool,
    },
}

/// What a graphics processor is given to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuWork {
    /// Kernels that are started.
    pub dispatches: u32,
    /// Writes to its memory.
    pub writes: u32,
    /// Reads from its memory, each of which waits for it.
    pub reads: u32,
    /// Lists of commands.
    pub submissions: u32,
}

impl GpuWork {
    /// Returns what was added since an earlier count.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            dispatches: self.dispatches - earlier.dispatches,
            writes: self.writes - earlier.writes,
            reads: self.reads - earlier.reads,
            submissions: self.submissions - earlier.submissions,
        }
    }
}

/// An autoencoder that is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoencoderInfo {
    /// The file.
    pub file: String,
    /// The file's SHA-256.
    pub sha256: String,
    /// The file's size.
    pub bytes: u64,
    /// Number of parameters.
    pub parameters: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// Side of a picture relative to that of its latent.
    pub factor: usize,
}

/// The progress of decoding latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoding {
    /// Layers done, over all pictures and all their tiles.
    pub done: usize,
    /// Total layers.
    pub of: usize,
}

/// The progress of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The step, from 0.
    pub step: usize,
    /// Total steps.
    pub steps: usize,
    /// Evaluations done.
    pub evaluation: usize,
    /// Total evaluations.
    pub evaluations: usize,
    /// The noise level.
    pub sigma: f64,
    /// Time of this evaluation.
    pub milliseconds: f64,
}

/// The answer to a [`Look`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attended {
    /// The request.
    pub look: Look,
    /// Number of attention heads.
    pub heads: usize,
    /// Tokens a side of the block's map.
    pub side: usize,
    /// Tokens a side of a window.
    pub window: usize,
    /// Vector norms of the parts of queries, keys and values: first those from the spatial token,
    /// then those from the time token.
    pub lengths: [[f32; 3]; 2],
}

/// The answer to a [`Scan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surveyed {
    /// The request.
    pub scan: Scan,
    /// For each block, in the order of execution, its attention with the time token and without;
    /// `None` if it has no attention.
    pub blocks: Vec<Option<[Reading; 2]>>,
}

/// A summary of the attention of a block.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// As [`Attended::lengths`].
    pub lengths: [[f32; 3]; 2],
    /// Entropy of the attention weights as a fraction of its maximum, the mean over tokens and heads.
    pub evenness: f32,
    /// Distance between a token and those that it attends to, in tokens, weighted by attention.
    pub distance: f32,
}
