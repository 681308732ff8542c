//! The messages between the page and its workers: JSON, and bytes for some of them.

use model::card::Card;
use model::config::ModelConfig;
use model::settings::Settings;
use serde::{Deserialize, Serialize};

use crate::adapter::{Backend, Numbers};
use crate::lesson::{Learned, Lesson};
use crate::manifest::Entry;
use crate::playground::{Exploration, Outcome};
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
    Generate {
        /// The number of the run, which requests for its attention carry.
        run: u64,
        /// The order.
        order: Order,
    },
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
    /// Stops making pictures, or training.
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
    Hello,
    /// The backend was chosen.
    Chosen {
        /// The backend.
        backend: Backend,
        /// The name of the graphics processor, if there is one.
        adapter: Option<String>,
        /// The reason, if it is not the expected one.
        note: Option<String>,
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
    /// An evaluation is done. The pictures are attached as RGB: the noisy ones, scaled to unit
    /// variance, then the denoised ones.
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
    /// The order was cancelled.
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

/// The usual sampling settings of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// The initial settings, which take few evaluations.
    pub first: Settings,
    /// The paper's settings.
    pub paper: Settings,
}

impl Usual {
    /// Returns the usual settings of a model: those that its card recommends, if any.
    pub fn of(config: &ModelConfig, card: &Card) -> Self {
        let recommended = card.sampling_for(config).cloned();
        let first = recommended.unwrap_or_else(|| Settings::first_for(config));
        Self { first, paper: Settings::paper_for(config) }
    }
}

impl Default for Usual {
    /// The usual settings of a model with EDM's preconditioning, as the shipped ones have.
    fn default() -> Self {
        Self { first: Settings::quick(), paper: Settings::default() }
    }
}

/// A model that is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The file.
    pub file: String,
    /// The card.
    pub card: Card,
    /// The file's SHA-256.
    pub sha256: String,
    /// The file's size.
    pub bytes: u64,
    /// Number of parameters.
    pub parameters: usize,
    /// Multiply-adds of one evaluation of one picture.
    pub macs: u64,
    /// Width and height of the pictures, or of the latents.
    pub size: [usize; 2],
    /// The channels of the latents, if the model makes latents.
    pub latent: Option<usize>,
    /// Number of classes.
    pub classes: usize,
    /// The usual sampling settings.
    pub usual: Usual,
    /// The blocks, in the order of execution.
    pub blocks: Vec<Block>,
    /// The deviation from the known answer, if the model has one.
    pub deviation: Option<f32>,
    /// The backend, which the self-check may have changed.
    pub backend: Backend,
    /// The precision.
    pub numbers: Numbers,
    /// The reason for backend or precision, if they are not the expected ones.
    pub note: Option<String>,
    /// Time of an evaluation in the self-check, of about four pictures, in milliseconds.
    pub check: f64,
    /// Time from the start of the worker, or from opening the file, until now.
    pub milliseconds: f64,
    /// Memory of the worker in bytes.
    pub memory: u64,
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

/// The place of a block in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// `encoder`, `decoder` or `stack`.
    pub part: String,
    /// Tokens a side of the map.
    pub side: usize,
    /// Tokens a side of an attention window.
    pub window: usize,
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

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::{ImageConfig, NetworkConfig, PrecondConfig};

    #[test]
    fn a_card_recommends_the_first_settings() {
        let network = NetworkConfig::Image(ImageConfig::default());
        let config = ModelConfig { network, precond: PrecondConfig::default() };
        let usual = |sampling| Usual::of(&config, &Card { sampling, ..Card::default() });
        assert_eq!(usual(None), Usual::default());
        let six = Settings { steps: 6, ..Settings::default() };
        assert_eq!(usual(Some(six.clone())), Usual { first: six.clone(), ..Usual::default() });
        // What cannot be used is left out.
        for steps in [0, Settings::MAX_STEPS + 1] {
            assert_eq!(usual(Some(Settings { steps, ..six.clone() })), Usual::default());
        }
        let classes = vec![model::label::Label::NONE];
        assert_eq!(usual(Some(Settings { classes, ..six })), Usual::default());
    }

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

/// Messages as arrays of JavaScript: the JSON text, and the bytes or the file that are attached.
#[cfg(target_arch = "wasm32")]
pub mod carry {
    use js_sys::{Array, Uint8Array};
    use serde::{Serialize, de::DeserializeOwned};
    use wasm_bindgen::{JsCast, JsValue};
    use web_sys::Blob;

    /// Packs a message and its bytes. Also returns the list of the buffers to transfer.
    pub fn pack(message: &impl Serialize, bytes: Option<&[u8]>) -> (Array, Array) {
        let text = serde_json::to_string(message).expect("messages are plain data");
        let (message, moved) = (Array::of1(&text.into()), Array::new());
        if let Some(bytes) = bytes {
            let bytes = Uint8Array::from(bytes);
            moved.push(&bytes.buffer());
            message.push(&bytes);
        }
        (message, moved)
    }

    /// Packs a message and a file. The contents of the file are not copied.
    pub fn pack_file(message: &impl Serialize, file: &Blob) -> Array {
        let (message, _) = pack(message, None);
        message.push(file);
        message
    }

    /// Returns the file of a message, if one is attached.
    pub fn file(data: &JsValue) -> Option<Blob> {
        data.dyn_ref::<Array>()?.get(1).dyn_into().ok()
    }

    /// Unpacks a message and its bytes; `None` if it has another form.
    pub fn unpack<T: DeserializeOwned>(data: JsValue) -> Option<(T, Vec<u8>)> {
        let parts: Array = data.dyn_into().ok()?;
        let message = serde_json::from_str(&parts.get(0).as_string()?).ok()?;
        let bytes = parts.get(1).dyn_into::<Uint8Array>().map(|b| b.to_vec()).unwrap_or_default();
        Some((message, bytes))
    }
}
