//! Everything the page knows.

use std::collections::HashMap;
use std::sync::Arc;

use leptos::prelude::*;
use model::picture::{Origin, Rgb};
use web_time::Instant;

use crate::adapter::Backend;
use crate::manifest::Entry;
use crate::names::caption;
use crate::plot::Maps;
use crate::protocol::{AutoencoderInfo, Decoding, Evaluated, Look, Noise, Order, Ready};
use crate::scene::Scene;

/// What the page is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Doing {
    /// Waiting for the worker, which looks for a graphics processor.
    Starting,
    /// Downloading weights: bytes so far, bytes in all.
    Loading(u64, u64),
    /// Checking that the device computes what it should.
    Checking,
    /// Nothing; the model is there.
    Resting,
    /// Making pictures.
    Generating,
    /// Making pictures, until the evaluation that runs is done.
    Cancelling,
    /// Nothing, for good.
    Broken,
}

impl Doing {
    /// A word for tests and styles.
    pub fn word(&self) -> &'static str {
        match self {
            Doing::Starting => "starting",
            Doing::Loading(..) => "loading",
            Doing::Checking => "checking",
            Doing::Resting => "ready",
            Doing::Generating => "generating",
            Doing::Cancelling => "cancelling",
            Doing::Broken => "broken",
        }
    }
}

/// The pictures at one noise level.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The noise level.
    pub sigma: f64,
    /// The noisy pictures.
    pub noisy: Vec<Rgb>,
    /// What the denoiser made of them.
    pub guess: Vec<Rgb>,
    /// Whether they are latents, of which three channels are shown.
    pub latent: bool,
}

/// Pictures that were made or are being made, with the way they came.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What was asked for.
    pub order: Order,
    /// The page's state at that time, as a link has it.
    pub link: String,
    /// One for each step so far, and one more for the pictures in the end.
    pub frames: Vec<Arc<Frame>>,
    /// Time and evaluations in all, once it is finished.
    pub finished: Option<(f64, usize)>,
    /// SHA-256 of the autoencoder that made pictures of latents, if one did.
    pub autoencoder: Option<String>,
}

impl Run {
    /// How it came about.
    pub fn origin(&self, ready: &Ready) -> Origin {
        Origin {
            model: ready.card.name.clone(),
            weights_sha256: ready.sha256.clone(),
            vae_sha256: self.autoencoder.clone(),
            seeds: self.order.noises.iter().map(Noise::seed).collect(),
            settings: self.order.settings.clone(),
            page: Some(self.link.clone()),
        }
    }

    /// What each picture is of, with the names of the model's classes; nothing where there are
    /// none.
    pub fn captions(&self, names: &[String]) -> Vec<String> {
        let seeds: Vec<u64> = self.order.noises.iter().map(Noise::seed).collect();
        let labels = self.order.settings.labels_of(&seeds);
        labels.iter().map(|label| caption(names, label)).collect()
    }

    /// Its noise levels, those to come included.
    pub fn sigmas(&self) -> Vec<f64> {
        let most = self.order.guide.map_or(f64::MAX, |guide| guide.sigma);
        let settings = &self.order.settings;
        let sigmas = settings.schedule.sigmas_within(0.0..=most, settings.steps);
        // Settings that the worker refuses have no levels.
        let mut sigmas = sigmas.unwrap_or_default();
        for (sigma, frame) in sigmas.iter_mut().zip(&self.frames) {
            *sigma = frame.sigma;
        }
        sigmas
    }
}

/// A picture of the visitor's, in the model's size.
#[derive(Clone, Debug, PartialEq)]
pub struct Guide {
    /// The picture.
    pub picture: Rgb,
    /// A byte for each pixel, 1 where it is to be made anew.
    pub anew: Vec<u8>,
}

impl Guide {
    /// All of a picture stays.
    pub fn new(picture: Rgb) -> Self {
        let anew = vec![0; picture.width * picture.height];
        Self { picture, anew }
    }

    /// As the worker takes it.
    pub fn bytes(&self) -> Vec<u8> {
        let keep = self.anew.iter().map(|&anew| 1 - anew.min(1));
        self.picture.bytes.iter().copied().chain(keep).collect()
    }
}

/// Everything the page knows. All parts of it read this; each is written by the part that its
/// comment names.
#[derive(Clone, Copy)]
pub struct State {
    /// What decides what is shown: the controls.
    pub scene: RwSignal<Scene>,
    /// The engine, as all down to `first`.
    pub doing: RwSignal<Doing>,
    /// What is computed with, and the graphics processor's name.
    pub device: RwSignal<Option<(Backend, Option<String>)>>,
    /// Something the visitor should know of the device.
    pub note: RwSignal<Option<String>>,
    /// What went wrong last.
    pub trouble: RwSignal<Option<String>>,
    /// The models there are beside the page.
    pub models: RwSignal<Vec<Entry>>,
    /// The model.
    pub ready: RwSignal<Option<Ready>>,
    /// What its classes are called.
    pub names: Memo<Vec<String>>,
    /// Whether nobody asked for pictures without names: a visit without a link, and a model that
    /// was chosen, begin with some of the model's.
    pub anew: RwSignal<bool>,
    /// Whether pictures are to be made as soon as there is nothing else to do: for whoever followed
    /// a link, came anew, or chose another model.
    pub draws: RwSignal<bool>,
    /// The autoencoder that was opened.
    pub autoencoder: RwSignal<Option<AutoencoderInfo>>,
    /// How far latents have become pictures.
    pub decoding: RwSignal<Option<Decoding>>,
    /// As many pictures as may fit into memory, after more of them did not.
    pub smaller: RwSignal<Option<usize>>,
    /// How far the pictures have come.
    pub progress: RwSignal<Option<Evaluated>>,
    /// The pictures.
    pub run: RwSignal<Option<Run>>,
    /// Those made for comparison.
    pub beside: RwSignal<Option<Run>>,
    /// Looks into the pictures' model.
    pub maps: RwSignal<HashMap<Look, Arc<Maps>>>,
    /// Time from the first request to the first finished pictures.
    pub first: RwSignal<Option<f64>>,
    /// What a screen reader is told.
    pub said: RwSignal<String>,
    /// The frame shown: the timeline.
    pub at: RwSignal<usize>,
    /// The picture that is shown large: the stage.
    pub enlarged: RwSignal<Option<usize>>,
    /// When pictures were last made without being asked for, because their names had changed: the
    /// controls.
    pub followed: StoredValue<Option<Instant>>,
    /// Whether each generation rolls the dice first: the controls.
    pub rolls: RwSignal<bool>,
    /// Seeds used before, the last one first: the controls.
    pub history: RwSignal<Vec<u64>>,
    /// Why the class that was typed cannot be used: the controls.
    pub class_problem: RwSignal<Option<String>>,
    /// Whether maps along the noise levels are wanted: the attention view.
    pub strip: RwSignal<bool>,
    /// The picture to start from: the painting.
    pub guide: RwSignal<Option<Guide>>,
}

impl State {
    /// That of a page just opened, with a link.
    pub fn new(link: &str) -> Self {
        let scene = Scene::decode(link);
        let ready = RwSignal::new(None::<Ready>);
        let names = move |_: Option<&Vec<String>>| {
            let ready = ready.read();
            ready.as_ref().map_or(Vec::new(), |ready| ready.card.class_names(ready.classes))
        };
        Self {
            // Whoever follows a link came for its pictures.
            draws: RwSignal::new(scene != Scene::default()),
            scene: RwSignal::new(scene),
            doing: RwSignal::new(Doing::Starting),
            device: RwSignal::new(None),
            note: RwSignal::new(None),
            trouble: RwSignal::new(None),
            models: RwSignal::new(Vec::new()),
            ready,
            names: Memo::new(names),
            anew: RwSignal::new(link.trim_start_matches('#').is_empty()),
            autoencoder: RwSignal::new(None),
            decoding: RwSignal::new(None),
            smaller: RwSignal::new(None),
            progress: RwSignal::new(None),
            run: RwSignal::new(None),
            beside: RwSignal::new(None),
            maps: RwSignal::new(HashMap::new()),
            first: RwSignal::new(None),
            said: RwSignal::new(String::new()),
            at: RwSignal::new(0),
            enlarged: RwSignal::new(None),
            followed: StoredValue::new(None),
            rolls: RwSignal::new(false),
            history: RwSignal::new(Vec::new()),
            class_problem: RwSignal::new(None),
            strip: RwSignal::new(false),
            guide: RwSignal::new(None),
        }
    }

    /// Whether pictures are being made.
    pub fn busy(self) -> bool {
        matches!(*self.doing.read(), Doing::Generating | Doing::Cancelling)
    }

    /// The frame shown, if there is any.
    pub fn frame(self) -> Option<Arc<Frame>> {
        let run = self.run.read();
        let frames = &run.as_ref()?.frames;
        frames.get(self.at.get().min(frames.len().saturating_sub(1))).cloned()
    }

    /// The picture that single things are shown of.
    pub fn picture(self) -> usize {
        self.enlarged.get().unwrap_or(0)
    }

    /// The channels of the model's latents, if it makes latents.
    pub fn latent(self) -> Option<usize> {
        self.ready.read().as_ref().and_then(|ready| ready.latent)
    }

    /// Width and height of the pictures in the end; of latents, only where there is an autoencoder
    /// that makes pictures of them.
    pub fn picture_size(self) -> Option<[usize; 2]> {
        let size = self.ready.read().as_ref()?.size;
        let Some(channels) = self.latent() else { return Some(size) };
        let autoencoder = self.autoencoder.read();
        let factor = autoencoder.as_ref().filter(|a| a.channels == channels)?.factor;
        Some(size.map(|side| side * factor))
    }

    /// How many classes the model has.
    pub fn classes(self) -> usize {
        self.ready.read().as_ref().map_or(0, |ready| ready.classes)
    }

    /// What each picture of the run is of; nothing where there are no classes.
    pub fn captions(self) -> Vec<String> {
        let run = self.run.read();
        run.as_ref().map_or(Vec::new(), |run| run.captions(&self.names.read()))
    }

    /// Whether what is shown is no longer what is asked for.
    pub fn outdated(self) -> bool {
        let order = self.scene.read().order(self.classes());
        self.run.read().as_ref().is_some_and(|run| run.order != order)
    }

    /// The look into the model that the scene asks for.
    pub fn look(self) -> Option<Look> {
        let run = self.run.read();
        let run = run.as_ref()?;
        let blocks = self.ready.read().as_ref().map_or(0, |ready| ready.blocks.len());
        let last = run.frames.len().min(run.order.settings.steps).checked_sub(1)?;
        Some(Look {
            step: self.at.get().min(last),
            picture: self.picture(),
            block: self.scene.read().block.min(blocks.checked_sub(1)?),
        })
    }
}
