//! What the worker was given to do.

use super::files::Own;

/// What the worker was given to do. The numbers are those of the requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// There is no worker, or it has no model. The page has said why.
    Broken,
    /// Loading its program: bytes so far and in total, once they are known.
    Starting(Option<[u64; 2]>),
    /// Finding a device, and loading and checking a model.
    Loading { number: u64, stage: Stage },
    /// Opening a file.
    Opening { number: u64, own: Own, stage: Stage, cancelled: bool },
    /// Nothing.
    Resting,
    /// Making the pictures of the next order. Its pictures have taken the place of those before once
    /// it has `begun`.
    Drawing { number: u64, begun: bool, cancelled: bool },
}

/// A stage of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is known yet.
    Waiting,
    /// Reading a file: bytes so far and in total.
    Reading([u64; 2]),
    /// Checking what was read.
    Checking,
}

impl Task {
    /// Returns the number of the request.
    pub fn number(&self) -> Option<u64> {
        match self {
            Task::Broken | Task::Starting(_) | Task::Resting => None,
            Task::Loading { number, .. }
            | Task::Opening { number, .. }
            | Task::Drawing { number, .. } => Some(*number),
        }
    }

    /// Returns whether the worker has to be heard from every now and then. Computing may take any
    /// time, and so may reading a file of the visitor's.
    pub fn must_be_heard(&self) -> bool {
        match self {
            Task::Starting(_) => true,
            Task::Loading { stage, .. } => *stage != Stage::Checking,
            Task::Opening { own, stage, .. } => own.file.is_none() && *stage != Stage::Checking,
            Task::Broken | Task::Resting | Task::Drawing { .. } => false,
        }
    }

    /// Returns what is shown of it.
    pub fn doing(&self) -> Doing {
        match self {
            Task::Broken => Doing::Broken,
            Task::Starting(None) | Task::Loading { stage: Stage::Waiting, .. } => Doing::Starting,
            Task::Starting(Some([loaded, total])) => Doing::Fetching(*loaded, *total),
            Task::Loading { stage: Stage::Reading([loaded, total]), .. } => {
                Doing::Loading(*loaded, *total)
            }
            Task::Loading { stage: Stage::Checking, .. } => Doing::Checking,
            Task::Opening { cancelled: true, .. } | Task::Drawing { cancelled: true, .. } => {
                Doing::Cancelling
            }
            Task::Opening { stage: Stage::Reading([loaded, total]), .. } => {
                Doing::Opening(Some((*loaded, *total)))
            }
            Task::Opening { .. } => Doing::Opening(None),
            Task::Resting => Doing::Resting,
            Task::Drawing { .. } => Doing::Generating,
        }
    }
}

/// The activity of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Loading the worker's program: bytes so far, total bytes.
    Fetching(u64, u64),
    /// Waiting for the worker, which is looking for a graphics processor.
    Starting,
    /// Downloading weights: bytes so far, total bytes.
    Loading(u64, u64),
    /// Running the self-check.
    Checking,
    /// Reading a file that was opened, with bytes so far and total bytes, or checking it.
    Opening(Option<(u64, u64)>),
    /// Idle; the model is ready.
    Resting,
    /// Making pictures.
    Generating,
    /// Making pictures, or opening a file, until the current step is done.
    Cancelling,
    /// Stopped by a failure.
    Broken,
}

impl Doing {
    /// Returns the name in `data-state`, for tests and styles.
    pub fn word(&self) -> &'static str {
        match self {
            Doing::Starting | Doing::Fetching(..) => "starting",
            Doing::Loading(..) | Doing::Opening(Some(_)) => "loading",
            Doing::Checking | Doing::Opening(None) => "checking",
            Doing::Resting => "ready",
            Doing::Generating => "generating",
            Doing::Cancelling => "cancelling",
            Doing::Broken => "broken",
        }
    }

    /// Returns whether it is something that can be cancelled.
    pub fn can_be_cancelled(&self) -> bool {
        matches!(self, Doing::Generating | Doing::Opening(_))
    }
}
