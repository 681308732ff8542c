//! The worker that trains, and the state of its run.

use leptos::prelude::*;
use model::picture::Rgb;
use web_sys::{ErrorEvent, MessageEvent, Worker};

use crate::app::engine::{faults, start_worker};
use crate::lesson::curve::Curve;
use crate::lesson::{Learned, Lesson, MOST_PICTURES, SIDE, STEPS, class_name};
use crate::memory::is_shortage;
use crate::protocol::{Event, Message, Report, Request, VERSION, carry};
use crate::session::pictures;

/// The activity of the worker that trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// There is no run.
    Idle,
    /// Loading the program: the part that is there.
    Loading(f64),
    /// Training.
    Running,
    /// Training until the current step is done.
    Stopping,
    /// The run can go on.
    Paused,
}

/// What happens to the weights file once it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Use {
    /// The browser saves it.
    Save,
    /// The worker of the page opens it.
    Open,
}

/// A training picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The name, which is a class of the model.
    pub name: String,
    /// The picture.
    pub picture: Rgb,
}

/// The worker that trains, the choice of its pictures, and its run. It is not that of the page, so that
/// the rest of the page can be used meanwhile.
#[derive(Clone, Copy)]
pub struct Runner {
    worker: StoredValue<Option<Worker>, LocalStorage>,
    /// The number of the worker. Messages of earlier workers are ignored.
    generation: StoredValue<usize>,
    /// The number of the run. Messages about earlier runs are ignored.
    run: StoredValue<u64>,
    /// The number of the last request, and of the last one to train.
    number: StoredValue<u64>,
    training: StoredValue<u64>,
    /// The bytes of the training pictures and the options, once the worker is there.
    waiting: StoredValue<Option<(Lesson, Vec<u8>)>>,
    /// What to do with the weights file.
    wanted: StoredValue<Option<Use>>,
    /// The chosen pictures. This and the next two are written by the controls.
    pub examples: RwSignal<Vec<Example>>,
    /// Whether mirrored pictures are used too.
    pub mirror: RwSignal<bool>,
    /// Number of steps of a run, and of its continuation.
    pub steps: RwSignal<usize>,
    /// The activity.
    pub phase: RwSignal<Phase>,
    /// The pictures of the run.
    pub trained: RwSignal<Vec<Example>>,
    /// The step after which the run stops.
    pub target: RwSignal<usize>,
    /// The losses.
    pub curve: RwSignal<Curve>,
    /// The last progress.
    pub learned: RwSignal<Option<Learned>>,
    /// The last samples, and the step that they were made after.
    pub samples: RwSignal<(usize, Vec<Rgb>)>,
    /// The last error message.
    pub trouble: RwSignal<Option<String>>,
    /// The message for screen readers.
    pub said: RwSignal<String>,
    /// The last weights file and its name, for the page to use.
    pub file: RwSignal<Option<(Use, String, Vec<u8>)>>,
}

impl Runner {
    /// A runner without a worker.
    pub fn new() -> Self {
        Self {
            worker: StoredValue::new_local(None),
            generation: StoredValue::new(0),
            run: StoredValue::new(0),
            number: StoredValue::new(0),
            training: StoredValue::new(0),
            waiting: StoredValue::new(None),
            wanted: StoredValue::new(None),
            examples: RwSignal::new(Vec::new()),
            mirror: RwSignal::new(false),
            steps: RwSignal::new(STEPS[1]),
            phase: RwSignal::new(Phase::Idle),
            trained: RwSignal::new(Vec::new()),
            target: RwSignal::new(0),
            curve: RwSignal::new(Curve::default()),
            learned: RwSignal::new(None),
            samples: RwSignal::new((0, Vec::new())),
            trouble: RwSignal::new(None),
            said: RwSignal::new(String::new()),
            file: RwSignal::new(None),
        }
    }

    /// Replaces the training pictures.
    pub fn take(self, pictures: Vec<(String, Rgb)>) {
        self.trouble.set(None);
        self.examples.set(Vec::new());
        for (name, picture) in pictures.into_iter().take(MOST_PICTURES) {
            self.add(&name, picture);
        }
    }

    /// Adds a training picture, if there is space for one more.
    pub fn add(self, name: &str, picture: Rgb) {
        self.trouble.set(None);
        if self.examples.read_untracked().len() >= MOST_PICTURES {
            self.trouble.set(Some(format!(
                "There are {MOST_PICTURES} training pictures already. Remove one first."
            )));
            return;
        }
        self.examples.update(|examples| {
            let known: Vec<String> = examples.iter().map(|example| example.name.clone()).collect();
            let name = class_name(&known, name);
            self.said.set(format!("Added: {name}."));
            examples.push(Example { name, picture });
        });
    }

    /// Returns whether the worker is busy with a run.
    pub fn busy(self) -> bool {
        matches!(self.phase.get(), Phase::Loading(_) | Phase::Running | Phase::Stopping)
    }

    /// Begins a run on the chosen pictures.
    pub fn begin(self) {
        let examples = self.examples.get_untracked();
        if examples.is_empty() || untrack(|| self.busy()) {
            return;
        }
        self.run.update_value(|run| *run += 1);
        let lesson = Lesson {
            run: self.run.get_value(),
            seed: 0,
            steps: self.steps.get_untracked(),
            mirror: self.mirror.get_untracked(),
            names: examples.iter().map(|example| example.name.clone()).collect(),
        };
        let bytes = examples.iter().flat_map(|example| example.picture.bytes.clone()).collect();
        self.trained.set(examples);
        self.target.set(lesson.steps);
        self.curve.set(Curve::default());
        self.learned.set(None);
        self.samples.set((0, Vec::new()));
        self.trouble.set(None);
        self.file.set(None);
        self.waiting.set_value(Some((lesson, bytes)));
        if self.worker.with_value(Option::is_some) {
            self.send_lesson();
        } else {
            self.phase.set(Phase::Loading(0.0));
            self.start_worker();
        }
    }

    /// Sends the options and pictures of the run to the worker.
    fn send_lesson(self) {
        let Some((lesson, bytes)) = self.waiting.try_update_value(Option::take).flatten() else {
            return;
        };
        self.phase.set(Phase::Running);
        self.said.set("Training has started.".into());
        self.send(Request::Train { lesson, fault: faults().fault }, Some(&bytes));
    }

    /// Stops after the current step.
    pub fn stop(self) {
        self.phase.set(Phase::Stopping);
        self.post(&Message { number: self.training.get_value(), request: Request::Cancel }, None);
    }

    /// Goes on with the run.
    pub fn go_on(self) {
        let done = self.curve.read_untracked().steps();
        // A run that was stopped is finished first.
        let target = match self.target.get_untracked() {
            target if target > done => target,
            target => target + self.steps.get_untracked(),
        };
        self.target.set(target);
        self.trouble.set(None);
        self.phase.set(Phase::Running);
        self.said.set("Training goes on.".into());
        self.send(Request::GoOn { run: self.run.get_value(), steps: target }, None);
    }

    /// Requests the weights file of the run.
    pub fn write(self, wanted: Use) {
        self.wanted.set_value(Some(wanted));
        self.send(Request::Weights { run: self.run.get_value() }, None);
    }

    fn start_worker(self) {
        let runner = self;
        self.generation.update_value(|generation| *generation += 1);
        let generation = self.generation.get_value();
        let current = move || runner.generation.get_value() == generation;
        let on_message = move |message: MessageEvent| {
            let message = carry::unpack::<Report>(message.data());
            if let Some((report, bytes)) = message.filter(|_| current()) {
                runner.heard(report.event, &bytes);
            }
        };
        let on_error = move |event: ErrorEvent| {
            event.prevent_default();
            if current() {
                let loading = matches!(runner.phase.get_untracked(), Phase::Loading(_));
                runner.fail(if loading {
                    "The program that trains could not be loaded. Check the network connection, then \
                     start again."
                        .into()
                } else {
                    ended(&event.message())
                });
            }
        };
        let worker = start_worker("cpu", None, on_message, on_error);
        if worker.is_none() {
            self.fail("This browser does not support web workers, which train.".into());
        }
        self.worker.set_value(worker);
    }

    /// Handles a message of the worker.
    fn heard(self, event: Event, bytes: &[u8]) {
        let current = |run: u64| run == self.run.get_value();
        match event {
            Event::Program { loaded, total } => {
                self.phase.set(Phase::Loading(loaded as f64 / total.max(1) as f64));
            }
            Event::Hello { version } if version != VERSION => self.fail(
                "This page and the program that trains are of different versions. Reload the page."
                    .into(),
            ),
            Event::Hello { .. } => self.send_lesson(),
            Event::Learned(learned) if current(learned.run) => {
                self.curve.update(|curve| {
                    learned.losses.iter().for_each(|loss| curve.push(*loss));
                });
                self.learned.set(Some(learned));
            }
            Event::Sampled { run, step } if current(run) => {
                self.samples.set((step, pictures(bytes, [SIDE; 2])));
            }
            Event::Paused { run } if current(run) => {
                let done = self.curve.read_untracked().steps();
                self.said.set(format!("Training has stopped after {done} steps."));
                self.phase.set(Phase::Paused);
            }
            Event::Weights { run, step } if current(run) => {
                if let Some(wanted) = self.wanted.try_update_value(Option::take).flatten() {
                    let name = format!("trained-in-a-tab-{step}.safetensors");
                    self.file.set(Some((wanted, name, bytes.to_vec())));
                }
            }
            Event::Failed { message, fatal } => {
                let message = if fatal { ended(&message) } else { message };
                self.fail(message);
            }
            _ => {}
        }
    }

    /// Reports a failure, which ends the run and its worker.
    fn fail(self, message: String) {
        self.worker.update_value(|worker| {
            if let Some(worker) = worker.take() {
                worker.terminate();
            }
        });
        self.generation.update_value(|generation| *generation += 1);
        self.wanted.set_value(None);
        self.phase.set(Phase::Idle);
        self.trouble.set(Some(message));
    }

    fn send(self, request: Request, bytes: Option<&[u8]>) {
        self.number.update_value(|number| *number += 1);
        if !matches!(request, Request::Weights { .. }) {
            self.training.set_value(self.number.get_value());
        }
        self.post(&Message { number: self.number.get_value(), request }, bytes);
    }

    fn post(self, message: &Message, bytes: Option<&[u8]>) {
        let (message, moved) = carry::pack(message, bytes);
        self.worker.with_value(|worker| {
            if let Some(worker) = worker {
                // It fails only for values that cannot be cloned; text and bytes can.
                let _ = worker.post_message_with_transfer(&message, &moved);
            }
        });
    }
}

/// Returns the message about a worker that has ended.
fn ended(why: &str) -> String {
    if is_shortage(why) {
        return "There is not enough memory for training. Close other tabs, then start again."
            .into();
    }
    format!("Training ended ({}). You can start again.", why.trim_end_matches('.'))
}
