//! What happens to a session, and what is to be done about it.

use super::{Doing, Frame, Run, Wanted};
use crate::adapter::Backend;
use crate::looks::Question;
use crate::manifest::Entry;
use crate::playground::{Exploration, track::Track};
use crate::plot::Attention;
use crate::protocol::{
    AutoencoderInfo, Decoding, Evaluated, GpuWork, Look, Message, Ready, Report, Surveyed,
};

/// What has happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The page was opened.
    Begin,
    /// The pictures of one order are wanted, or of several for a comparison. The worker keeps the
    /// steps of the last one.
    Generate(Vec<Wanted>),
    /// Making pictures, or opening a file, is to be stopped.
    Cancel,
    /// Attention is to be shown, the most urgent first. What is `known` need not be requested.
    Ask {
        /// All requests that are shown.
        questions: Vec<Question>,
        /// Those whose answers are there.
        known: Vec<Question>,
    },
    /// The visitor has opened a file, weights or an autoencoder, which the page keeps under a number.
    Open {
        /// The number.
        file: u64,
        /// The file's name.
        name: String,
    },
    /// The scene's model is to be used, instead of the visitor's own.
    Choose,
    /// The visitor wants to try again after a failure.
    Again,
    /// The panels of the playground are to be computed.
    Explore(Box<Exploration>),
    /// A worker has sent a message.
    Heard {
        /// The number of the worker.
        worker: u64,
        /// The message.
        report: Report,
        /// The attached bytes.
        bytes: Vec<u8>,
    },
    /// A worker has ended with an error.
    Ended {
        /// The number of the worker.
        worker: u64,
        /// The browser's message.
        message: String,
    },
    /// A worker cannot be started, since the browser has none.
    Unsupported {
        /// The number of the worker.
        worker: u64,
    },
    /// The time of a watch is over.
    Silence {
        /// The number of the watch.
        watch: u64,
    },
}

/// What is attached to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Nothing.
    Nothing,
    /// Bytes.
    Bytes(Vec<u8>),
    /// The file that the page keeps under this number.
    File(u64),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a worker.
    Start {
        /// Its number, for what it sends.
        worker: u64,
        /// Whether it is the one for processors.
        processor: bool,
    },
    /// End a worker.
    Stop {
        /// Its number.
        worker: u64,
    },
    /// Send a message to a worker. The page adds the scene's model to a request to start.
    Post {
        /// The number of the worker.
        worker: u64,
        /// The message.
        message: Message,
        /// What is attached.
        attached: Attached,
    },
    /// Say after a while that the time of this watch is over.
    Watch(u64),
    /// Show something.
    Show(Show),
    /// Adapt the scene to the settings and classes of the model.
    Settle,
    /// Drop everything about the pictures that are shown, which are of another model.
    Forget,
    /// Show the pictures of a new run in place of those before.
    Begin(Run),
    /// Add a frame to the run that is shown.
    Frame {
        /// The number of the run.
        run: u64,
        /// The number of the frame: its step, or the number of steps for the final pictures.
        step: usize,
        /// The frame.
        frame: Frame,
    },
    /// Take note that the run that is shown is done.
    Finish {
        /// The number of the run.
        run: u64,
        /// Time in milliseconds.
        milliseconds: f64,
        /// Evaluations of the network in that time.
        evaluations: usize,
        /// SHA-256 of the autoencoder that decoded latents, if one did.
        autoencoder: Option<String>,
        /// Whether it was the last of its orders. If it was not, it is shown beside the next.
        last: bool,
    },
    /// Keep the attention of a token.
    Row(Look, Attention),
    /// Keep the attention of all blocks.
    Survey(Surveyed),
    /// Show the panels of the playground.
    Explored([Track; 2]),
}

/// A part of what is shown, as the page's state names it.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the page's state describes them")]
pub enum Show {
    Doing(Doing),
    Device(Backend, Option<String>),
    Note(Option<String>),
    Trouble(Option<String>),
    Said(String),
    Models(Vec<Entry>),
    Ready(Box<Ready>),
    Autoencoder(Option<AutoencoderInfo>),
    Progress(Option<Evaluated>),
    Decoding(Option<Decoding>),
    Smaller(Option<usize>),
    /// There is nothing to compare with.
    NothingBeside,
    Work(Option<GpuWork>),
    Gone(u64),
    Waits(bool),
}
