//! Loading the model, and opening files.

use super::files::Own;
use super::successor::Graphics;
use super::task::{Stage, Task};
use super::{Attached, Effect, InUse, STARTS, Session, Show};
use crate::adapter::Backend;
use crate::protocol::{AutoencoderInfo, Event, Ready, Request, Start, VERSION};
use crate::testing::Fault;

impl Session {
    /// Starts a worker.
    pub(super) fn start_worker(&mut self) {
        self.starts += 1;
        if self.starts >= STARTS && matches!(self.graphics, Graphics::InUse) {
            self.graphics = Graphics::Refused;
        }
        let worker = self.count();
        self.worker = Some(worker);
        self.listens = false;
        self.task = Task::Starting(None);
        let small = self.starts_small() && !matches!(self.graphics, Graphics::InUse);
        let processor = small || self.wish() == Some(Backend::Cpu);
        self.effects.push(Effect::Start { worker, processor });
    }

    /// Returns the backend that the page's address asks for. After the graphics processor was lost
    /// twice, the processor is used.
    fn wish(&self) -> Option<Backend> {
        if self.starts < STARTS { self.setup.wish } else { Some(Backend::Cpu) }
    }

    /// Takes note that the worker's program is running.
    pub(super) fn greet(&mut self, version: &str) {
        if !matches!(self.task, Task::Starting(_)) {
            return;
        }
        if version != VERSION {
            self.give_up(
                "This page and the program that computes are of different versions. Reload the page.",
            );
            return;
        }
        self.listens = true;
        self.load();
    }

    /// Loads the scene's model.
    pub(super) fn load(&mut self) {
        // A device is lost once only.
        let fault = self.setup.fault;
        let fault = fault.filter(|fault| self.starts == 1 || matches!(fault, Fault::Memory(_)));
        let start = Start {
            base: self.setup.base.clone(),
            model: None,
            wish: self.wish(),
            plain: self.starts > 1,
            fault,
            memory: self.setup.memory,
            software: self.setup.software,
        };
        let number = self.post(Request::Start(start), Attached::Nothing);
        self.task = Task::Loading { number, stage: Stage::Waiting };
    }

    /// Uses the scene's model instead of the visitor's own.
    pub(super) fn choose(&mut self) {
        if !matches!(self.task, Task::Resting | Task::Broken) {
            return;
        }
        self.change_over();
        self.files.weights = None;
        self.show(Show::Trouble(None));
        if self.listens {
            self.load();
        } else {
            self.starts = 0;
            self.start_worker();
        }
    }

    /// Takes note of a message about the model that is being loaded.
    pub(super) fn loads(&mut self, event: Event) {
        match event {
            Event::Chosen { backend, adapter, note, graphics } => {
                if graphics {
                    self.find_graphics();
                }
                self.adapter = adapter.clone();
                self.show(Show::Device(backend, adapter));
                // The note on a lost device stays visible.
                if note.is_some() || self.starts == 1 {
                    self.show(Show::Note(note));
                }
            }
            Event::Models(models) => self.show(Show::Models(models)),
            Event::Loading { .. } | Event::Checking => self.reach(&event),
            Event::Ready(ready) => {
                self.ready(*ready);
                self.go_on();
            }
            Event::Failed { message, .. } => {
                self.show(Show::Trouble(Some(message)));
                if self.loaded {
                    self.go_on();
                } else {
                    self.task = Task::Broken;
                }
            }
            _ => {}
        }
    }

    /// Takes note that a stage of loading was reached.
    fn reach(&mut self, event: &Event) {
        let (Task::Loading { stage, .. } | Task::Opening { stage, .. }) = &mut self.task else {
            return;
        };
        *stage = match event {
            Event::Loading { loaded, total } => Stage::Reading([*loaded, *total]),
            _ => Stage::Checking,
        };
    }

    /// Takes note that a model is ready.
    pub(super) fn ready(&mut self, ready: Ready) {
        self.show(Show::Device(ready.backend, self.adapter.clone()));
        if ready.note.is_some() {
            self.show(Show::Note(ready.note.clone()));
        }
        self.loaded = true;
        let before = self.model.replace(InUse {
            sha256: ready.sha256.clone(),
            size: ready.size,
            latent: ready.latent,
        });
        if before.is_some_and(|before| before.sha256 != ready.sha256) {
            // The steps of another model's pictures are gone.
            self.shown = None;
            self.looks.forget_all();
            self.effects.push(Effect::Forget);
        }
        self.show(Show::Ready(Box::new(ready)));
    }

    /// Opens a file once the worker is idle: weights or an autoencoder.
    pub(super) fn open(&mut self, file: u64, name: String) {
        self.change_over();
        self.files.add(file, name);
        if self.task == Task::Resting {
            self.go_on();
        }
    }

    /// Sends a file to the worker.
    pub(super) fn open_file(&mut self, own: Own) {
        let name = own.name.clone();
        let number = match own.file {
            Some(file) => self.post(Request::Open { name }, Attached::File(file)),
            None => {
                let base = self.setup.base.clone();
                self.post(Request::Fetch { base, name }, Attached::Nothing)
            }
        };
        self.task = Task::Opening { number, own, stage: Stage::Waiting, cancelled: false };
    }

    /// Takes note of a message about the file that is being opened.
    pub(super) fn opens(&mut self, event: Event) {
        let Task::Opening { own, .. } = &self.task else { return };
        let own = own.clone();
        match event {
            Event::Loading { .. } | Event::Checking => self.reach(&event),
            Event::Ready(ready) => {
                self.files.weights = Some(own);
                self.ready(*ready);
                self.go_on();
            }
            Event::Autoencoder(info) => {
                self.files.autoencoder = Some(own);
                self.autoencoder(info);
                self.go_on();
            }
            Event::Refused { message } | Event::Failed { message, .. } => {
                self.show(Show::Trouble(Some(format!("{}: {message}", own.name))));
                self.go_on();
            }
            Event::Cancelled => {
                self.show(Show::Said("Cancelled.".into()));
                self.go_on();
            }
            _ => {}
        }
    }

    /// Takes note that an autoencoder is ready.
    fn autoencoder(&mut self, info: AutoencoderInfo) {
        let latent = self.model.as_ref().and_then(|model| model.latent);
        let said = if latent == Some(info.channels) {
            "The autoencoder is ready: latents are decoded to pictures."
        } else {
            "The autoencoder is ready. It is used once a model that makes latents for it is open."
        };
        self.show(Show::Said(said.into()));
        // The note on a lost device stays visible.
        if self.starts == 1 {
            self.show(Show::Note(Some(said.into())));
        }
        self.show(Show::Autoencoder(Some(info)));
    }
}
