//! The page and its worker as a state machine: what the page is asked for, what the worker says, and
//! what follows from it. It has no browser: [`Session::step`] takes what has happened and returns what
//! is to be done, which `app/engine/` does.
//!
//! The worker has one task at a time (`Task`), and beside it at most one request for attention and
//! one of the playground. Every request has a number, and so has every worker; what is not about the
//! present task of the present worker is dropped.
//!
//! | Task | begins with | ends with |
//! |---|---|---|
//! | starting | a start, after a failure, "Try again" | the worker's first message: loading |
//! | loading | a worker that is running, another model | a model: next; a failure: next if the worker has a model, else broken |
//! | opening | a file in the queue | a model, an autoencoder, a refusal, a cancellation: next |
//! | drawing | an order in the queue | pictures, a cancellation, a failure: next |
//! | resting | an empty queue | the next order, file or model |
//! | broken | a failure that would only repeat itself | "Try again", another model |
//!
//! "Next" is, in this order: the files that the address names or that a worker had that is gone, the
//! orders, the files that the visitor has opened since, rest. A worker that ends in any task is replaced, and everything that it
//! was given is given to the next one, except what has ended two of them.

mod attention;
mod effect;
mod exploring;
mod files;
mod loading;
mod orders;
mod recovery;
mod run;
mod successor;
mod task;
#[cfg(test)]
mod tests;

use crate::adapter::Backend;
use crate::looks::Looks;
use crate::protocol::{Event, Message, Report, Request};
use crate::testing::Fault;

pub use effect::{Attached, Effect, Input, Show};
use exploring::Explorations;
use files::Files;
pub use orders::Wanted;
pub use run::{Frame, Run, pictures};
use successor::Graphics;
pub use task::Doing;
use task::Task;

/// Number of times the worker is started before the page gives up: a device can be lost, but not
/// every time.
const STARTS: usize = 3;

/// What does not change while the page is open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setup {
    /// The address of the page's folder.
    pub base: String,
    /// The backend that the page's address asks for.
    pub wish: Option<Backend>,
    /// The names of the files that the page's address asks for, in the folder of the shipped weights.
    pub files: Vec<String>,
    /// The fault that a test injects.
    pub fault: Option<Fault>,
    /// The memory limit of a test, in bytes.
    pub memory: Option<u64>,
    /// Whether a test takes a graphics processor that is emulated in software for a real one.
    pub software: bool,
}

/// What the page knows of the model in use.
#[derive(Clone, Debug, PartialEq)]
struct InUse {
    sha256: String,
    size: [usize; 2],
    /// The channels of its latents, if it makes latents.
    latent: Option<usize>,
}

/// The state of the page with regard to its worker.
#[derive(Clone, Debug)]
pub struct Session {
    setup: Setup,
    /// The effects of the present step.
    effects: Vec<Effect>,
    /// The activity that is shown.
    doing: Doing,
    task: Task,
    /// The number of the worker in use, if there is one.
    worker: Option<u64>,
    /// Whether the worker's program is running. Messages that are sent before are lost.
    listens: bool,
    /// The last number that was given to a worker, a request or a watch.
    number: u64,
    /// Starts since the last success.
    starts: usize,
    /// The number of the watch over a worker that must not be silent, if there is one.
    watch: Option<u64>,
    /// Whether the worker has said anything since the watch began.
    heard: bool,
    /// The orders that are not done yet, the next one last.
    orders: Vec<Wanted>,
    files: Files,
    /// The model in use.
    model: Option<InUse>,
    /// Whether the present worker has a model. While another worker is started, the page still shows
    /// the model that the one before had.
    loaded: bool,
    /// The name of the graphics processor.
    adapter: Option<String>,
    graphics: Graphics,
    /// Whether a worker for the graphics processor waits to be used, as it is shown.
    waits: bool,
    /// The number of the run whose pictures are shown, and the number of its frames.
    shown: Option<(u64, usize)>,
    looks: Looks,
    explorations: Explorations,
}

impl Session {
    /// A session without a worker. [`Input::Begin`] starts one.
    pub fn new(setup: Setup) -> Self {
        let files = Files::named(&setup.files);
        Self {
            setup,
            effects: Vec::new(),
            doing: Doing::Starting,
            task: Task::Broken,
            worker: None,
            listens: false,
            number: 0,
            starts: 0,
            watch: None,
            heard: false,
            orders: Vec::new(),
            files,
            model: None,
            loaded: false,
            adapter: None,
            graphics: Graphics::default(),
            waits: false,
            shown: None,
            looks: Looks::default(),
            explorations: Explorations::default(),
        }
    }

    /// Takes note of what has happened. Returns what is to be done, in this order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Begin => self.start_worker(),
            Input::Generate(orders) => self.generate(orders),
            Input::Cancel => self.cancel(),
            Input::Ask { questions, known } => self.ask(questions, &known),
            Input::Open { file, name } => self.open(file, name),
            Input::Choose => self.choose(),
            Input::Again => self.again(),
            Input::Explore(exploration) => self.explorations.ask(*exploration),
            Input::Heard { worker, report, bytes } if self.worker == Some(worker) => {
                self.hear(report, &bytes);
            }
            Input::Ended { worker, message } if self.worker == Some(worker) => self.ended(message),
            Input::Heard { worker, report, .. } if self.is_successor(worker) => {
                self.hear_successor(report);
            }
            Input::Ended { worker, message } if self.is_successor(worker) => {
                self.ended_successor(&message);
            }
            Input::Unsupported { worker } if self.is_successor(worker) => {
                self.ended_successor("this browser starts no second worker");
            }
            Input::Unsupported { worker } if self.worker == Some(worker) => {
                self.give_up(
                    "This browser does not support web workers, which compute the pictures.",
                );
            }
            Input::Silence { watch } if self.watch == Some(watch) => self.silence(),
            Input::Silence { watch } if self.successor().is_some_and(|b| b.is_watched(watch)) => {
                self.silence_successor();
            }
            // Of a worker that is gone, or of a watch that is over.
            Input::Heard { .. }
            | Input::Ended { .. }
            | Input::Unsupported { .. }
            | Input::Silence { .. } => {}
        }
        self.go_on_successor();
        self.look_on();
        self.explore_on();
        self.keep_watch();
        let doing = self.task.doing();
        if self.doing != doing {
            self.doing = doing.clone();
            self.show(Show::Doing(doing));
        }
        std::mem::take(&mut self.effects)
    }

    /// Returns whether a file that the visitor opened is still needed.
    pub fn needs(&self, file: u64) -> bool {
        let own = match &self.task {
            Task::Opening { own, .. } => Some(own),
            _ => None,
        };
        self.files.all().chain(own).any(|own| own.file == Some(file))
    }

    /// Returns the requests for attention that are shown.
    pub fn looks(&self) -> &Looks {
        &self.looks
    }

    /// Takes note of a message of the worker.
    fn hear(&mut self, report: Report, bytes: &[u8]) {
        self.heard = true;
        match (report.answers, report.event) {
            (_, Event::Failed { message, fatal: true }) => self.restart(&message),
            (None, Event::Program { loaded, total }) => {
                if let Task::Starting(progress) = &mut self.task {
                    *progress = Some([loaded, total]);
                }
            }
            (None, Event::Hello { version }) => self.greet(&version),
            (None, _) => {}
            (Some(number), event) if self.task.number() == Some(number) => match self.task {
                Task::Loading { .. } => self.loads(event),
                Task::Opening { .. } => self.opens(event),
                _ => self.draws(event, bytes),
            },
            (Some(number), event) if self.looks.is_sent(number) => self.attends(event, bytes),
            (Some(number), event) if self.explorations.is_sent(number) => {
                self.explores(event, bytes);
            }
            // The answer to an earlier request.
            (Some(_), _) => {}
        }
    }

    /// Goes on with the queue after a task is done: first the files that the address names or the worker
    /// before had, since the orders use them; then the orders; then the files that were opened meanwhile.
    fn go_on(&mut self) {
        self.task = Task::Resting;
        if let Some(own) = self.files.next_again() {
            self.open_file(own);
            return;
        }
        self.effects.push(Effect::Settle);
        if !self.orders.is_empty() {
            self.send_order();
        } else if let Some(own) = self.files.next() {
            self.open_file(own);
        }
    }

    /// Returns the next number.
    fn count(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Sends a request to the worker in use. Returns its number.
    fn post(&mut self, request: Request, attached: Attached) -> u64 {
        // There is one, or there is nothing to ask for.
        self.post_to(self.worker.unwrap_or_default(), request, attached)
    }

    /// Sends a request to a worker. Returns its number.
    fn post_to(&mut self, worker: u64, request: Request, attached: Attached) -> u64 {
        let number = self.count();
        self.effects.push(Effect::Post { worker, message: Message { number, request }, attached });
        number
    }

    fn show(&mut self, what: Show) {
        self.effects.push(Effect::Show(what));
    }
}
