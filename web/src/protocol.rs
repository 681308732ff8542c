//! What the page and the worker tell each other: JSON, and bytes beside it where there are any.

use model::card::Card;
use model::config::ModelConfig;
use model::settings::Settings;
use serde::{Deserialize, Serialize};

use crate::adapter::{Backend, Numbers};
use crate::manifest::Entry;

/// From the page to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Find out what can be computed with, load a model of the list, check it.
    Start(Start),
    /// Take up the file that follows, weights or an autoencoder, and check it.
    Open {
        /// What to call it.
        name: String,
    },
    /// The same of a file that lies beside the shipped weights.
    Fetch {
        /// Address of the page, without its query.
        base: String,
        /// The file's name.
        name: String,
    },
    /// Make pictures. Where there is a guide, its picture follows: red, green and blue of each
    /// pixel, then a byte for each pixel, which is 1 where the picture is to stay.
    Generate(Order),
    /// Show what a block attends to.
    Attend(Look),
    /// Stop making pictures.
    Cancel,
}

/// How to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Address of the page, without its query.
    pub base: String,
    /// The model's file, if it is not the first of the list.
    pub model: Option<String>,
    /// What the visitor wants to compute with.
    pub wish: Option<Backend>,
    /// Whether 16-bit numbers are not to be tried: they may be what ended the worker before.
    pub plain: bool,
    /// For tests: what is to go wrong.
    pub fault: Option<Fault>,
    /// For tests: bytes of memory that are taken to be there.
    pub memory: Option<u64>,
}

/// What is to go wrong, for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The device is lost before this evaluation, counted from 1.
    Device(usize),
    /// Memory runs out where more than so many pictures are made.
    Memory(usize),
}

impl Fault {
    /// Reads the fault out of a page's query: `?fault=3` loses the device, `?fault=memory4` lets
    /// memory run out.
    pub fn wish(query: &str) -> Option<Self> {
        let mut pairs = query.trim_start_matches('?').split('&');
        let value = pairs.find_map(|pair| pair.strip_prefix("fault="))?;
        match value.strip_prefix("memory") {
            Some(pictures) => pictures.parse().ok().map(Fault::Memory),
            None => value.parse().ok().map(Fault::Device),
        }
    }
}

/// Pictures to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The noise that each starts from.
    pub noises: Vec<Noise>,
    /// How they are made.
    pub settings: Settings,
    /// A picture that they are made from.
    pub guide: Option<Guide>,
}

/// Noise to start from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Noise {
    /// That of a seed.
    Seed(u64),
    /// Between those of two seeds: 0 the first, 1 the second.
    Between([u64; 2], f64),
    /// Between those of four seeds in the corners, row after row: how far right, how far down.
    Among([u64; 4], [f64; 2]),
}

impl Noise {
    /// The seed, or the first of them.
    pub fn seed(&self) -> u64 {
        match *self {
            Noise::Seed(seed) => seed,
            Noise::Between(seeds, _) => seeds[0],
            Noise::Among(seeds, _) => seeds[0],
        }
    }
}

/// How a picture guides those that are made from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guide {
    /// The noise level that is added to it.
    pub sigma: f64,
    /// Whether parts of it stay.
    pub keep: bool,
}

/// A look into the model at one step of what was made last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Look {
    /// The step, from 0.
    pub step: usize,
    /// Which of the pictures.
    pub picture: usize,
    /// Which of the blocks, in the order of execution.
    pub block: usize,
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
    /// The models there are beside the page.
    Models(Vec<Entry>),
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
    /// An evaluation is done. The pictures follow as RGB, one after the other: the noisy ones,
    /// scaled to unit variance, then the denoised ones.
    Evaluated(Evaluated),
    /// Latents become pictures.
    Decoding(Decoding),
    /// The pictures are done. They follow as RGB, one after the other.
    Done {
        /// Time from the request to this message.
        milliseconds: f64,
        /// Evaluations of the network in that time.
        evaluations: usize,
        /// Width and height of a picture.
        size: [usize; 2],
        /// SHA-256 of the autoencoder that made pictures of latents, if one did.
        autoencoder: Option<String>,
    },
    /// What was looked at. Attention weights `[windows, heads, N, N]` and the relative position
    /// bias `[heads, N, N]` follow as `f32`, little-endian.
    Attended(Attended),
    /// Cancelled as asked.
    Cancelled,
    /// An autoencoder can be used.
    Autoencoder(AutoencoderInfo),
    /// There is no room for so many pictures at a time. Nothing was done.
    TooMuch {
        /// Why.
        message: String,
    },
    /// A file cannot be used. What was there before still can.
    Refused {
        /// Why.
        message: String,
    },
    /// Something failed. What was asked for last did not happen.
    Failed {
        /// What, and what to do.
        message: String,
        /// Whether the worker has ended, or has lost its device.
        fatal: bool,
    },
}

/// How a model's pictures are made as long as nobody wants them otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// At first: soon.
    pub first: Settings,
    /// By the paper.
    pub paper: Settings,
}

impl Usual {
    /// Of a model.
    pub fn of(config: &ModelConfig) -> Self {
        Self { first: Settings::first_for(config), paper: Settings::paper_for(config) }
    }
}

impl Default for Usual {
    /// Of a model of EDM's preconditioning, as the page's own are.
    fn default() -> Self {
        Self { first: Settings::quick(), paper: Settings::default() }
    }
}

/// What is known of a model that can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Its file.
    pub file: String,
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
    /// Width and height of its pictures.
    pub size: [usize; 2],
    /// The channels of its latents, if it makes latents and not pictures.
    pub latent: Option<usize>,
    /// How many classes it has.
    pub classes: usize,
    /// How pictures are made at first, and by the paper.
    pub usual: Usual,
    /// Its blocks, in the order of execution.
    pub blocks: Vec<Block>,
    /// By how much its known answer was missed, if it has one.
    pub deviation: Option<f32>,
    /// The way taken, which the check may have changed.
    pub backend: Backend,
    /// What it is computed in.
    pub numbers: Numbers,
    /// Why, where it is not what one would expect.
    pub note: Option<String>,
    /// Time from the start of the worker, or from the file's arrival, until now.
    pub milliseconds: f64,
    /// Memory of the worker in bytes.
    pub memory: u64,
}

/// What is known of an autoencoder that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoencoderInfo {
    /// Its file.
    pub file: String,
    /// Its file's SHA-256.
    pub sha256: String,
    /// Its file's size.
    pub bytes: u64,
    /// Its parameters.
    pub parameters: usize,
    /// Channels of its latents.
    pub channels: usize,
    /// How many times wider and higher a picture is than its latent.
    pub factor: usize,
}

/// How far latents have become pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoding {
    /// Layers done, of all pictures and all their tiles.
    pub done: usize,
    /// Layers in all.
    pub of: usize,
}

/// Where a block stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// `encoder` or `decoder`.
    pub part: String,
    /// Tokens a side of its map.
    pub side: usize,
    /// Tokens a side of its attention window.
    pub window: usize,
}

/// How far pictures have come.
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
}

/// What a block attended to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attended {
    /// What was asked for.
    pub look: Look,
    /// Attention heads.
    pub heads: usize,
    /// Tokens a side of the block's map.
    pub side: usize,
    /// Tokens a side of a window.
    pub window: usize,
    /// Lengths of queries, keys and values: the parts from the spatial tokens, then those from
    /// the time token.
    pub lengths: [[f32; 3]; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_the_query() {
        assert_eq!(Fault::wish("?backend=cpu&fault=3"), Some(Fault::Device(3)));
        assert_eq!(Fault::wish("?fault=memory4"), Some(Fault::Memory(4)));
        for query in ["", "?fault=", "?fault=memory", "?fault=x", "?default=3"] {
            assert_eq!(Fault::wish(query), None, "{query}");
        }
    }
}

/// Messages as a browser carries them: the text, and bytes where there are any.
#[cfg(target_arch = "wasm32")]
pub mod carry {
    use js_sys::{Array, Uint8Array};
    use serde::{Serialize, de::DeserializeOwned};
    use wasm_bindgen::{JsCast, JsValue};
    use web_sys::Blob;

    /// The message, and what of it is moved rather than copied.
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

    /// The message with a file, which is not copied.
    pub fn pack_file(message: &impl Serialize, file: &Blob) -> Array {
        let (message, _) = pack(message, None);
        message.push(file);
        message
    }

    /// The file of a message, if it has one.
    pub fn file(data: &JsValue) -> Option<Blob> {
        data.dyn_ref::<Array>()?.get(1).dyn_into().ok()
    }

    /// A message taken apart; `None` if it is none of ours.
    pub fn unpack<T: DeserializeOwned>(data: JsValue) -> Option<(T, Vec<u8>)> {
        let parts: Array = data.dyn_into().ok()?;
        let message = serde_json::from_str(&parts.get(0).as_string()?).ok()?;
        let bytes = parts.get(1).dyn_into::<Uint8Array>().map(|b| b.to_vec()).unwrap_or_default();
        Some((message, bytes))
    }
}
