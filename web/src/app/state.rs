//! The state of the page.

use std::collections::HashMap;
use std::sync::Arc;

use leptos::prelude::*;
use model::picture::Rgb;
use web_sys::Element;
use web_time::Instant;

use crate::adapter::Backend;
use crate::brush::Mask;
use crate::manifest::Entry;
use crate::playground::track::Track;
use crate::plot::Attention;
use crate::protocol::{
    AutoencoderInfo, Decoding, Evaluated, GpuWork, Look, Order, Ready, Scan, Surveyed,
};
use crate::scene::{Scene, is_new, refused};
pub use crate::session::{Doing, Frame, Run};

/// Maximum duration of an evaluation, in milliseconds, for pictures to follow changes by themselves.
const FAST: f64 = 150.0;

/// The picture that sampling starts from, in the size of the model's pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Guide {
    /// The picture.
    pub picture: Rgb,
    /// The mask of what is to be painted anew.
    pub anew: Mask,
}

impl Guide {
    /// A picture with an empty mask.
    pub fn new(picture: Rgb) -> Self {
        let anew = Mask::new(picture.width, picture.height);
        Self { picture, anew }
    }

    /// Returns the bytes that are sent to the worker.
    pub fn bytes(&self) -> Vec<u8> {
        let keep = self.anew.bytes().iter().map(|&anew| 1 - anew.min(1));
        self.picture.bytes.iter().copied().chain(keep).collect()
    }
}

/// The state of the page. Every part of the page reads it; the comment of a field names the part that
/// writes it.
#[derive(Clone, Copy)]
pub struct State {
    /// The scene. Written by the controls.
    pub scene: RwSignal<Scene>,
    /// The activity. This and the fields down to `first` are written by the engine.
    pub doing: RwSignal<Doing>,
    /// The backend, and the name of the graphics processor.
    pub device: RwSignal<Option<(Backend, Option<String>)>>,
    /// A note on the device or the files.
    pub note: RwSignal<Option<String>>,
    /// The last error message.
    pub trouble: RwSignal<Option<String>>,
    /// Whether a worker for the graphics processor is ready to make the next pictures, in place of the
    /// one for the processor.
    pub waits: RwSignal<bool>,
    /// The shipped models.
    pub models: RwSignal<Vec<Entry>>,
    /// The model.
    pub ready: RwSignal<Option<Ready>>,
    /// The names of its classes.
    pub names: Memo<Vec<String>>,
    /// Whether the scene starts with some of the model's classes: after a visit without a link, or
    /// when the visitor chose the model.
    pub anew: RwSignal<bool>,
    /// Whether to make pictures as soon as the worker is idle: after a visit with a link, a new visit,
    /// or a change of model.
    pub draws: RwSignal<bool>,
    /// The autoencoder.
    pub autoencoder: RwSignal<Option<AutoencoderInfo>>,
    /// The progress of decoding latents.
    pub decoding: RwSignal<Option<Decoding>>,
    /// A number of pictures that may fit into memory, after a larger one did not.
    pub smaller: RwSignal<Option<usize>>,
    /// The progress of the pictures.
    pub progress: RwSignal<Option<Evaluated>>,
    /// The pictures.
    pub run: RwSignal<Option<Run>>,
    /// The pictures of the settings to compare with.
    pub beside: RwSignal<Option<Run>>,
    /// The attention of tokens, at steps of the pictures.
    pub attention: RwSignal<HashMap<Look, Arc<Attention>>>,
    /// The attention of all blocks, at steps of the pictures.
    pub surveyed: RwSignal<HashMap<Scan, Arc<Surveyed>>>,
    /// The last run whose attention is not available any more.
    pub gone: RwSignal<Option<u64>>,
    /// The estimated time of the first pictures in milliseconds, if they wait for a click.
    pub wait: RwSignal<Option<f64>>,
    /// The two panels of the playground.
    pub explored: RwSignal<Option<Arc<[Track; 2]>>>,
    /// Time from the first request to the first finished pictures.
    pub first: RwSignal<Option<f64>>,
    /// What the graphics processor was given to do for the last evaluation.
    pub work: RwSignal<Option<GpuWork>>,
    /// The message for screen readers.
    pub said: RwSignal<String>,
    /// The parts of the link for the playground that are not understood.
    pub refused: RwSignal<Option<String>>,
    /// The selected frame. Written by the timeline.
    pub at: RwSignal<usize>,
    /// The enlarged picture. Written by the stage.
    pub enlarged: RwSignal<Option<usize>>,
    /// The time at which pictures were last made because their classes had changed. Written by the
    /// controls.
    pub followed: StoredValue<Option<Instant>>,
    /// Whether the button was pressed and the frame that shows it is not on the screen yet. Written by
    /// the button.
    pub pressed: RwSignal<bool>,
    /// Whether each order draws a new seed. Written by the controls.
    pub rolls: RwSignal<bool>,
    /// Previous seeds, the last one first. Written by the controls.
    pub history: RwSignal<Vec<u64>>,
    /// The error message for the class that was typed. Written by the controls.
    pub class_problem: RwSignal<Option<String>>,
    /// The recording that the page shows until there are pictures: an element of `index.html`.
    pub record: StoredValue<Option<Element>, LocalStorage>,
    /// Whether the share of the time token is measured in all blocks. Written by the map.
    pub measures: RwSignal<bool>,
    /// Whether the strip of attention maps is open. Written by the attention view.
    pub strip: RwSignal<bool>,
    /// State of the survey: whether it is open. Written by the survey.
    pub survey: RwSignal<bool>,
    /// The picture that sampling starts from. Written by the painting.
    pub guide: RwSignal<Option<Guide>>,
}

impl State {
    /// The state of a page that was opened with a link and shows this recording.
    pub fn new(link: &str, record: Option<Element>) -> Self {
        let scene = Scene::decode(link);
        let ready = RwSignal::new(None::<Ready>);
        let names = move |_: Option<&Vec<String>>| {
            let ready = ready.read();
            ready.as_ref().map_or(Vec::new(), |ready| ready.card.class_names(ready.classes))
        };
        Self {
            // A link is followed for its pictures.
            draws: RwSignal::new(Scene { tour: 0, ..scene.clone() } != Scene::default()),
            scene: RwSignal::new(scene),
            doing: RwSignal::new(Doing::Starting),
            device: RwSignal::new(None),
            note: RwSignal::new(None),
            trouble: RwSignal::new(None),
            waits: RwSignal::new(false),
            models: RwSignal::new(Vec::new()),
            ready,
            names: Memo::new(names),
            anew: RwSignal::new(is_new(link)),
            autoencoder: RwSignal::new(None),
            decoding: RwSignal::new(None),
            smaller: RwSignal::new(None),
            progress: RwSignal::new(None),
            run: RwSignal::new(None),
            beside: RwSignal::new(None),
            attention: RwSignal::new(HashMap::new()),
            surveyed: RwSignal::new(HashMap::new()),
            gone: RwSignal::new(None),
            wait: RwSignal::new(None),
            explored: RwSignal::new(None),
            first: RwSignal::new(None),
            work: RwSignal::new(None),
            refused: RwSignal::new(refused(link)),
            said: RwSignal::new(String::new()),
            at: RwSignal::new(0),
            enlarged: RwSignal::new(None),
            followed: StoredValue::new(None),
            pressed: RwSignal::new(false),
            rolls: RwSignal::new(false),
            history: RwSignal::new(Vec::new()),
            class_problem: RwSignal::new(None),
            record: StoredValue::new_local(record),
            measures: RwSignal::new(false),
            strip: RwSignal::new(false),
            survey: RwSignal::new(false),
            guide: RwSignal::new(None),
        }
    }

    /// Returns the name of the activity in `data-state`. That of a pressed button begins at once.
    pub fn word(self) -> &'static str {
        if self.pressed.get() { Doing::Generating.word() } else { self.doing.read().word() }
    }

    /// Returns whether pictures are being made, or a file is being opened.
    pub fn busy(self) -> bool {
        let doing = self.doing.read();
        doing.can_be_cancelled() || *doing == Doing::Cancelling
    }

    /// Returns the selected frame, if there is one.
    pub fn frame(self) -> Option<Arc<Frame>> {
        let run = self.run.read();
        let frames = &run.as_ref()?.frames;
        frames.get(self.at.get().min(frames.len().saturating_sub(1))).cloned()
    }

    /// Returns the picture that attention and other details are shown for.
    pub fn picture(self) -> usize {
        self.enlarged.get().unwrap_or(0)
    }

    /// Returns the channels of the model's latents, if it makes latents.
    pub fn latent(self) -> Option<usize> {
        self.ready.read().as_ref().and_then(|ready| ready.latent)
    }

    /// Returns width and height of the final pictures; for latents, only if there is an autoencoder
    /// that decodes them.
    pub fn picture_size(self) -> Option<[usize; 2]> {
        let size = self.ready.read().as_ref()?.size;
        let Some(channels) = self.latent() else { return Some(size) };
        let autoencoder = self.autoencoder.read();
        let factor = autoencoder.as_ref().filter(|a| a.channels == channels)?.factor;
        Some(size.map(|side| side * factor))
    }

    /// Returns the model's number of classes.
    pub fn classes(self) -> usize {
        self.ready.read().as_ref().map_or(0, |ready| ready.classes)
    }

    /// Returns the caption of each picture; nothing if there are no classes.
    pub fn captions(self) -> Vec<String> {
        let run = self.run.read();
        run.as_ref().map_or(Vec::new(), |run| run.captions(&self.names.read()))
    }

    /// Returns whether the pictures are not those of the scene any more.
    pub fn outdated(self) -> bool {
        let order = self.scene.read().order(self.classes());
        let run = self.run.read();
        run.as_ref().is_some_and(|run| run.order != Order { previews: run.order.previews, ..order })
    }

    /// Returns whether the attention of the pictures is not available, since the worker was started
    /// again or could not compute it.
    pub fn is_gone(self) -> bool {
        let run = self.run.read();
        run.as_ref().is_some_and(|run| self.gone.get().is_some_and(|gone| gone >= run.number))
    }

    /// Returns whether pictures follow changes by themselves: an evaluation takes a short time.
    pub fn is_fast(self) -> bool {
        let finished = self.run.read().as_ref().is_some_and(|run| run.finished.is_some());
        finished && self.progress.read().as_ref().is_some_and(|p| p.milliseconds <= FAST)
    }

    /// Returns the number of the block that the scene selects.
    pub fn block(self) -> usize {
        let last = self.ready.read().as_ref().map_or(0, |r| r.blocks.len().saturating_sub(1));
        self.scene.read().block.min(last)
    }

    /// Returns the attention that the scene selects; `None` if its block has none.
    pub fn look(self) -> Option<Look> {
        self.look_at(self.block())
    }

    /// Returns the attention that the scene selects, in another block.
    pub fn look_at(self, block: usize) -> Option<Look> {
        let run = self.run.read();
        let run = run.as_ref()?;
        let ready = self.ready.read();
        let side = ready.as_ref()?.blocks.get(block).filter(|block| block.window > 0)?.side;
        let last = run.frames.len().min(run.order.settings.steps).checked_sub(1)?;
        Some(Look {
            run: run.number,
            step: self.at.get().min(last),
            picture: self.picture(),
            block,
            token: self.scene.read().token.map(|place| usize::from(place) * side / 256),
        })
    }

    /// Returns the share of the time token in queries, keys and values of a block, at the selected
    /// step of the selected picture, if it was measured: the mean of the three.
    pub fn time_share(self, block: usize) -> Option<f32> {
        let Look { run, step, picture, .. } = self.look_at(block)?;
        let same = |look: &Look| {
            (look.run, look.step, look.picture, look.block) == (run, step, picture, block)
        };
        // It is the same for all tokens.
        let rows = self.attention.read();
        let (_, row) = rows.iter().find(|(look, _)| same(look))?;
        Some(row.time_share().iter().sum::<f32>() / 3.0)
    }
}
