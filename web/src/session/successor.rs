//! The worker for graphics processors, which takes the place of the one for processors.
//!
//! A visit starts with the program for processors, which is small. If it finds a graphics processor, the
//! other program is started beside it once there is a model, opens what is in use, and waits. The page
//! changes over at rest: with the next order, file or model, or at once if the worker in use has no steps
//! of pictures that are shown, for which attention could be requested.

use super::task::Task;
use super::{Attached, Effect, Session, Show};
use crate::adapter::Backend;
use crate::protocol::{Event, Ready, Report, Request, Start, VERSION};

/// Number of times that the worker begins anew because another model was chosen meanwhile.
const ANEW: usize = 3;

/// What is known about a graphics processor that could be used.
#[derive(Clone, Debug, Default)]
pub enum Graphics {
    /// Nothing.
    #[default]
    Unknown,
    /// The worker in use has found one, which its own program cannot use.
    Found,
    /// A worker for it was started, which is to take the place of the one in use.
    Tried(Box<Successor>),
    /// The worker for it is in use.
    InUse,
    /// It could not be used, and is not tried again.
    Refused,
}

/// A worker that is to take the place of the one in use.
#[derive(Clone, Debug)]
pub struct Successor {
    /// Its number.
    pub worker: u64,
    /// Whether its program is running.
    listens: bool,
    /// The request that it is processing, and what that opens.
    request: Option<(u64, Part)>,
    /// Whether it is computing, or reading a file of the visitor's, which may take any time.
    computes: bool,
    /// What it has opened so far.
    opened: Vec<Part>,
    /// The model that it has.
    ready: Option<Ready>,
    /// The name of the graphics processor.
    adapter: Option<String>,
    /// Number of times that it began anew.
    anew: usize,
    /// The number of the watch over it, if it must not be silent.
    watch: Option<u64>,
    /// Whether it has said anything since the watch began.
    heard: bool,
}

/// A part of what is in use, in the order in which a worker opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The scene's model.
    Shipped,
    /// A file that the visitor opened.
    File(u64),
}

impl Successor {
    fn new(worker: u64) -> Self {
        Self {
            worker,
            listens: false,
            request: None,
            computes: false,
            opened: Vec::new(),
            ready: None,
            adapter: None,
            anew: 0,
            watch: None,
            heard: false,
        }
    }

    /// Returns whether this is the number of the watch over it.
    pub fn is_watched(&self, watch: u64) -> bool {
        self.watch == Some(watch)
    }

    /// Returns whether it has to be heard from every now and then.
    fn must_be_heard(&self) -> bool {
        !self.listens || (self.request.is_some() && !self.computes)
    }
}

impl Session {
    /// Returns whether a visit starts with the program for processors. What the address names is not
    /// opened twice.
    pub(super) fn starts_small(&self) -> bool {
        self.setup.wish.is_none() && self.setup.files.is_empty()
    }

    /// Returns the successor, if there is one.
    pub(super) fn successor(&self) -> Option<&Successor> {
        match &self.graphics {
            Graphics::Tried(successor) => Some(successor),
            _ => None,
        }
    }

    fn successor_mut(&mut self) -> Option<&mut Successor> {
        match &mut self.graphics {
            Graphics::Tried(successor) => Some(successor),
            _ => None,
        }
    }

    /// Returns whether this is the number of the successor.
    pub(super) fn is_successor(&self, worker: u64) -> bool {
        self.successor().is_some_and(|successor| successor.worker == worker)
    }

    /// Takes note that the worker in use has found a graphics processor.
    pub(super) fn find_graphics(&mut self) {
        if self.starts_small() && matches!(self.graphics, Graphics::Unknown) {
            self.graphics = Graphics::Found;
        }
    }

    /// Goes on with the successor: starts it, has it open the next part of what is in use, or changes
    /// over to it.
    pub(super) fn go_on_successor(&mut self) {
        if self.task == Task::Broken && self.successor().is_some() {
            self.stop_successor(Graphics::Unknown);
        }
        // Otherwise, what is in use may be about to change.
        if matches!(self.task, Task::Resting | Task::Drawing { .. }) {
            if matches!(self.graphics, Graphics::Found) {
                let worker = self.count();
                self.effects.push(Effect::Start { worker, processor: false });
                self.graphics = Graphics::Tried(Box::new(Successor::new(worker)));
            }
            self.open_successor();
            if !self.has_steps() {
                self.change_over();
            }
        }
        let waits = self.successor_has_all();
        if self.waits != waits {
            self.waits = waits;
            self.show(Show::Waits(waits));
        }
        self.watch_successor();
    }

    /// Returns what is in use, in the order in which a worker opens it.
    fn parts(&self) -> Vec<Part> {
        let files = [&self.files.weights, &self.files.autoencoder].into_iter().flatten();
        let files = files.filter_map(|own| own.file).map(Part::File);
        std::iter::once(Part::Shipped).chain(files).collect()
    }

    /// Returns whether the successor has opened all that is in use.
    fn successor_has_all(&self) -> bool {
        let Some(successor) = self.successor() else { return false };
        let models = successor.ready.as_ref().zip(self.model.as_ref());
        successor.request.is_none()
            && successor.opened == self.parts()
            && models.is_some_and(|(ready, model)| ready.sha256 == model.sha256)
    }

    /// Has the successor open the next part, if it is idle and has not all.
    fn open_successor(&mut self) {
        let (parts, complete) = (self.parts(), self.successor_has_all());
        let Some(successor) = self.successor_mut() else { return };
        if complete || !successor.listens || successor.request.is_some() {
            return;
        }
        if !parts.starts_with(&successor.opened) || successor.opened.len() == parts.len() {
            // Another model or another file is in use now.
            successor.anew += 1;
            successor.opened.clear();
            if successor.anew > ANEW {
                self.refuse_graphics("It could not open the model in use.");
                return;
            }
        }
        let (worker, part) = (successor.worker, parts[successor.opened.len()]);
        let name = |own: &super::files::Own| own.name.clone();
        let (request, attached) = match part {
            Part::Shipped => {
                let start = Start {
                    base: self.setup.base.clone(),
                    model: None,
                    wish: None,
                    plain: false,
                    fault: None,
                    memory: self.setup.memory,
                    software: self.setup.software,
                };
                (Request::Start(start), Attached::Nothing)
            }
            Part::File(file) => {
                let own = self.files.all().find(|own| own.file == Some(file));
                (Request::Open { name: own.map(name).unwrap_or_default() }, Attached::File(file))
            }
        };
        let number = self.post_to(worker, request, attached);
        if let Some(successor) = self.successor_mut() {
            (successor.request, successor.computes) = (Some((number, part)), part != Part::Shipped);
        }
    }

    /// Takes note of a message of the successor.
    pub(super) fn hear_successor(&mut self, report: Report) {
        let Some(successor) = self.successor_mut() else { return };
        successor.heard = true;
        let answers = successor.request.filter(|(number, _)| report.answers == Some(*number));
        match (answers, report.event) {
            (_, Event::Failed { message, fatal: true }) => self.refuse_graphics(&message),
            (None, Event::Hello { version }) if version == VERSION => successor.listens = true,
            (None, Event::Hello { .. }) => {
                self.refuse_graphics("Its program is of another version. Reload the page.");
            }
            (Some((_, part)), event) => self.opens_successor(part, event),
            _ => {}
        }
    }

    /// Takes note of a message about the part that the successor opens.
    fn opens_successor(&mut self, part: Part, event: Event) {
        let Some(successor) = self.successor_mut() else { return };
        match event {
            Event::Chosen { backend: Backend::WebGpu, adapter, .. } => successor.adapter = adapter,
            Event::Loading { .. } => successor.computes = part != Part::Shipped,
            Event::Checking => successor.computes = true,
            Event::Ready(ready) if ready.backend == Backend::WebGpu => {
                (successor.ready, successor.request) = (Some(*ready), None);
                successor.opened.push(part);
            }
            Event::Autoencoder(_) => {
                successor.request = None;
                successor.opened.push(part);
            }
            // Its program computes on the processor, too, and has a note about why.
            Event::Chosen { note, .. } => self.refuse_graphics_as(note),
            Event::Ready(ready) => self.refuse_graphics_as(ready.note),
            Event::Refused { message }
            | Event::TooMuch { message }
            | Event::Failed { message, .. } => self.refuse_graphics(&message),
            Event::Cancelled => self.refuse_graphics("It could not open the model in use."),
            _ => {}
        }
    }

    /// Takes note that the successor has ended with an error that it could not send.
    pub(super) fn ended_successor(&mut self, message: &str) {
        let runs = self.successor().is_some_and(|successor| successor.listens);
        let what = if runs { "Its program has ended" } else { "Its program could not be loaded" };
        self.refuse_graphics(&format!("{what} ({message})."));
    }

    /// Changes over to the successor, if it has all that is in use and nothing is being done.
    pub(super) fn change_over(&mut self) {
        if self.task != Task::Resting || !self.successor_has_all() {
            return;
        }
        let Graphics::Tried(successor) = std::mem::replace(&mut self.graphics, Graphics::InUse)
        else {
            return;
        };
        if let Some(worker) = self.worker.replace(successor.worker) {
            self.effects.push(Effect::Stop { worker });
        }
        self.explorations.lose();
        // Numbers of runs are numbers of requests.
        self.lose_steps(self.number);
        self.adapter = successor.adapter;
        self.starts = 1;
        if let Some(ready) = successor.ready {
            self.ready(ready);
        }
        self.effects.push(Effect::Settle);
    }

    /// Gives up the graphics processor, and says why.
    fn refuse_graphics(&mut self, why: &str) {
        self.refuse_graphics_as(Some(format!(
            "Your graphics processor is not used. {why} The pictures are computed on your processor."
        )));
    }

    fn refuse_graphics_as(&mut self, note: Option<String>) {
        self.stop_successor(Graphics::Refused);
        if note.is_some() {
            self.show(Show::Note(note));
        }
    }

    fn stop_successor(&mut self, then: Graphics) {
        if let Graphics::Tried(successor) = std::mem::replace(&mut self.graphics, then) {
            self.effects.push(Effect::Stop { worker: successor.worker });
        }
    }

    /// Begins to watch the successor while it must not be silent, or ends it.
    fn watch_successor(&mut self) {
        let Some(successor) = self.successor() else { return };
        let watch = match (successor.must_be_heard(), successor.watch) {
            (true, None) => {
                let watch = self.count();
                self.effects.push(Effect::Watch(watch));
                Some(watch)
            }
            (true, watch) => watch,
            (false, _) => None,
        };
        if let Some(successor) = self.successor_mut()
            && successor.watch != watch
        {
            (successor.watch, successor.heard) = (watch, false);
        }
    }

    /// Takes note that the time of the watch over the successor is over.
    pub(super) fn silence_successor(&mut self) {
        let Some(successor) = self.successor_mut() else { return };
        successor.watch = None;
        if !successor.heard {
            self.refuse_graphics("Its program does not answer.");
        }
    }

    /// Returns whether the worker in use has the steps of the pictures that are shown.
    fn has_steps(&self) -> bool {
        self.shown.is_some_and(|(run, _)| !self.looks.is_gone(run))
    }
}
