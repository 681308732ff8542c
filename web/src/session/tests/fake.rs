//! A worker that computes nothing. Each of its steps sends one message; the tests choose which request
//! it goes on with, and when something goes wrong.

use std::collections::VecDeque;

use model::card::Card;

use crate::adapter::{Backend, Numbers};
use crate::playground::{Outcome, PARTICLES};
use crate::protocol::{
    Attended, AutoencoderInfo, Evaluated, Event, Message, Ready, Report, Request, Surveyed, Usual,
    VERSION,
};
use crate::session::Attached;

/// Evaluations of an order.
pub const STEPS: usize = 3;

/// A request that the worker has.
#[derive(Clone, Debug)]
struct Job {
    number: u64,
    request: Request,
    /// Messages sent about it.
    sent: usize,
    cancelled: bool,
}

impl Job {
    /// Returns whether it is one of those that the worker has one of at a time.
    fn is_main(&self) -> bool {
        !matches!(self.request, Request::Attend(_) | Request::Survey(_) | Request::Explore(_))
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The worker ends with a message.
    Panic,
    /// The worker ends for lack of memory.
    Shortage,
    /// The worker ends without a message: the browser reports an error.
    Error,
    /// The request fails.
    Failure,
    /// The request fails for lack of memory.
    NoRoom,
    /// The request is never answered.
    Silence,
}

/// A message on its way to the page.
#[derive(Clone, Debug)]
pub enum Mail {
    Report(Report, Vec<u8>),
    Error(String),
}

/// What a worker finds on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// No graphics processor.
    Plain,
    /// A graphics processor.
    Graphics,
    /// A graphics processor that computes wrong results.
    Wrong,
}

/// The worker.
#[derive(Clone, Debug)]
pub struct Fake {
    pub number: u64,
    /// Whether its program never runs.
    pub mute: bool,
    /// Whether its program is the one for processors.
    pub processor: bool,
    machine: Machine,
    said: usize,
    dead: bool,
    /// The names of the model and the autoencoder that it has.
    pub model: Option<String>,
    pub autoencoder: Option<String>,
    /// The run whose steps it has.
    made: u64,
    jobs: Vec<Job>,
    /// The numbers of main requests that are never answered.
    pub swallowed: Vec<u64>,
}

impl Fake {
    pub fn new(number: u64, processor: bool, machine: Machine, mute: bool) -> Self {
        Self {
            number,
            mute,
            processor,
            machine,
            said: 0,
            dead: false,
            model: None,
            autoencoder: None,
            made: 0,
            jobs: Vec::new(),
            swallowed: Vec::new(),
        }
    }

    /// Takes a request.
    pub fn take(&mut self, message: Message, attached: &Attached) {
        assert!(self.said == 2 || self.dead, "a message to a worker that does not listen");
        let Message { number, request } = message;
        if request == Request::Cancel {
            for job in self.jobs.iter_mut().filter(|job| job.number == number) {
                job.cancelled = true;
            }
            return;
        }
        let attaches = matches!(request, Request::Open { .. });
        assert_eq!(attaches, matches!(attached, Attached::File(_)), "{request:?}");
        let job = Job { number, request, sent: 0, cancelled: false };
        let busy = self.jobs.iter().any(Job::is_main) || !self.swallowed.is_empty();
        assert!(!(job.is_main() && busy), "two orders at once: {job:?}, {:?}", self.jobs);
        self.jobs.push(job);
    }

    /// Returns whether there is nothing to do.
    pub fn idles(&self) -> bool {
        self.dead || self.mute || (self.said == 2 && self.jobs.is_empty())
    }

    /// Sends the next message about one of the requests.
    pub fn go_on(&mut self, which: usize, mail: &mut VecDeque<(u64, Mail)>) {
        if self.idles() {
            return;
        }
        if self.said < 2 {
            self.said += 1;
            let event = match self.said {
                1 => Event::Program { loaded: 1, total: 2 },
                _ => Event::Hello { version: VERSION.into() },
            };
            mail.push_back((self.number, Mail::Report(Report { answers: None, event }, vec![])));
            return;
        }
        let which = which % self.jobs.len();
        let mut job = self.jobs.remove(which);
        let (event, bytes, last) = self.answer(&job);
        job.sent += 1;
        let (answers, number) = (Some(job.number), self.number);
        if !last {
            self.jobs.insert(which, job);
        }
        if let Event::Failed { fatal: true, message } = event {
            self.die(message, mail);
            return;
        }
        mail.push_back((number, Mail::Report(Report { answers, event }, bytes)));
    }

    /// Returns the next message about a request, and whether it is the last one.
    fn answer(&mut self, job: &Job) -> (Event, Vec<u8>, bool) {
        let failed = |message: &str| Event::Failed { message: message.into(), fatal: false };
        let backend = match (self.processor, self.machine) {
            (false, Machine::Graphics) => Backend::WebGpu,
            _ => Backend::Cpu,
        };
        match &job.request {
            Request::Start(_) => {
                let there = self.machine != Machine::Plain;
                let wrong = !self.processor && self.machine == Machine::Wrong;
                let note = wrong.then(|| "wrong results".to_string());
                let event = match job.sent {
                    0 => Event::Chosen {
                        backend: if self.processor || !there {
                            Backend::Cpu
                        } else {
                            Backend::WebGpu
                        },
                        adapter: there.then(|| "adapter".into()),
                        note: None,
                        graphics: self.processor && there,
                    },
                    1 => Event::Models(Vec::new()),
                    2 => Event::Loading { loaded: 1, total: 2 },
                    3 => Event::Checking,
                    _ => {
                        (self.model, self.made) = (Some("shipped".into()), 0);
                        Event::Ready(Box::new(Ready { backend, note, ..ready("shipped") }))
                    }
                };
                (event, Vec::new(), job.sent == 4)
            }
            Request::Open { name } | Request::Fetch { name, .. } => {
                assert!(self.model.is_some(), "the file is opened beside a model");
                let event = match job.sent {
                    _ if job.cancelled => Event::Cancelled,
                    0 => Event::Loading { loaded: 1, total: 2 },
                    1 => Event::Checking,
                    _ if name.starts_with("model") => {
                        (self.model, self.made) = (Some(name.clone()), 0);
                        Event::Ready(Box::new(Ready { backend, ..ready(name) }))
                    }
                    _ if name.starts_with("latent") => {
                        (self.model, self.made) = (Some(name.clone()), 0);
                        Event::Ready(Box::new(Ready { backend, latent: Some(4), ..ready(name) }))
                    }
                    _ if name.starts_with("vae") => {
                        self.autoencoder = Some(name.clone());
                        Event::Autoencoder(autoencoder(name))
                    }
                    _ if name.starts_with("kill") => {
                        Event::Failed { message: "killed".into(), fatal: true }
                    }
                    _ => Event::Refused { message: "not a file of tensors.".into() },
                };
                (event, Vec::new(), job.cancelled || job.sent == 2)
            }
            Request::Generate(order) => {
                if self.model.is_none() {
                    return (failed("No model is loaded yet."), Vec::new(), true);
                }
                if job.cancelled {
                    return (Event::Cancelled, Vec::new(), true);
                }
                let n = order.noises.len();
                if job.sent == STEPS {
                    let done = Event::Done {
                        milliseconds: 1.0,
                        evaluations: STEPS,
                        size: [1, 1],
                        autoencoder: None,
                        work: None,
                    };
                    return (done, vec![0; 3 * n], true);
                }
                self.made = job.number;
                let evaluated = Evaluated {
                    step: job.sent,
                    steps: STEPS,
                    evaluation: job.sent + 1,
                    evaluations: STEPS,
                    sigma: 1.0,
                    milliseconds: 1.0,
                };
                let pictures = if order.previews { n } else { 0 };
                (Event::Evaluated(evaluated), vec![0; 6 * pictures], false)
            }
            Request::Attend(look) if look.run != self.made => {
                (Event::Gone { run: look.run }, Vec::new(), true)
            }
            Request::Attend(look) => {
                let (look, lengths) = (*look, [[1.0; 3]; 2]);
                let attended = Attended { look, heads: 1, side: 1, window: 1, lengths };
                (Event::Attended(attended), vec![0; 8], true)
            }
            Request::Survey(scan) if scan.run != self.made => {
                (Event::Gone { run: scan.run }, Vec::new(), true)
            }
            Request::Survey(scan) => {
                let surveyed = Surveyed { scan: *scan, blocks: Vec::new() };
                (Event::Surveyed(surveyed), Vec::new(), true)
            }
            Request::Explore(exploration) => {
                let outcome = Outcome {
                    sigmas: vec![1.0],
                    evaluations: exploration.seed as usize,
                    distance: 0.0,
                    off: 0.0,
                    random: false,
                };
                let bytes = vec![0; 4 * 8 * PARTICLES];
                (Event::Explored(Ok([outcome.clone(), outcome])), bytes, true)
            }
            other => unreachable!("the page does not send {other:?}"),
        }
    }

    /// Has something go wrong.
    pub fn suffer(&mut self, mishap: Mishap, which: usize, mail: &mut VecDeque<(u64, Mail)>) {
        if self.dead || self.mute {
            return;
        }
        let ends = match mishap {
            Mishap::Panic => Some("The computation stopped unexpectedly (panicked at a.rs)."),
            Mishap::Shortage => Some("memory allocation of 9 bytes failed"),
            _ => None,
        };
        if let Some(message) = ends {
            self.die(message.into(), mail);
            return;
        }
        if mishap == Mishap::Error {
            self.dead = true;
            mail.push_back((self.number, Mail::Error("a script error".into())));
            return;
        }
        if self.jobs.is_empty() {
            return;
        }
        let job = self.jobs.remove(which % self.jobs.len());
        let opens = matches!(job.request, Request::Open { .. } | Request::Fetch { .. });
        let draws = matches!(job.request, Request::Generate(_));
        let event = match mishap {
            Mishap::Silence if job.is_main() => {
                self.swallowed.push(job.number);
                return;
            }
            // The worker does not leave these unanswered.
            Mishap::Silence => {
                self.jobs.push(job);
                return;
            }
            Mishap::NoRoom if draws => Event::TooMuch { message: "This takes much.".into() },
            Mishap::NoRoom if opens => Event::Refused { message: "It is too large.".into() },
            Mishap::NoRoom => Event::Failed { message: "out of memory".into(), fatal: false },
            _ => Event::Failed { message: "It went wrong.".into(), fatal: false },
        };
        let report = Report { answers: Some(job.number), event };
        mail.push_back((self.number, Mail::Report(report, Vec::new())));
    }

    fn die(&mut self, message: String, mail: &mut VecDeque<(u64, Mail)>) {
        self.dead = true;
        let report = Report { answers: None, event: Event::Failed { message, fatal: true } };
        mail.push_back((self.number, Mail::Report(report, Vec::new())));
    }
}

/// A model of pictures of one pixel.
pub fn ready(name: &str) -> Ready {
    Ready {
        file: name.into(),
        card: Card::default(),
        sha256: name.into(),
        bytes: 1,
        parameters: 1,
        macs: 1,
        size: [1, 1],
        latent: None,
        classes: 0,
        usual: Usual::default(),
        blocks: Vec::new(),
        deviation: None,
        backend: Backend::Cpu,
        numbers: Numbers::F32,
        note: None,
        check: 1.0,
        milliseconds: 1.0,
        memory: 1,
    }
}

fn autoencoder(name: &str) -> AutoencoderInfo {
    AutoencoderInfo {
        file: name.into(),
        sha256: name.into(),
        bytes: 1,
        parameters: 1,
        channels: 4,
        factor: 8,
    }
}
