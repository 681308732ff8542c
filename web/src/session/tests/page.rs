//! A page without a browser: a session, its workers, and what is shown, with checks of everything that
//! must hold at any time.

use std::collections::{HashMap, HashSet, VecDeque};

use model::settings::Settings;

use super::fake::{Fake, Machine, Mail, Mishap, STEPS};
use crate::looks::Question;
use crate::playground::{Exploration, PointSet};
use crate::protocol::{Event, Look, Message, Noise, Order, Report, Request};
use crate::session::task::Task;
use crate::session::{Attached, Doing, Effect, Input, Run, Session, Setup, Show, Wanted};

/// The page.
pub struct Page {
    pub session: Session,
    /// The worker in use.
    pub worker: Option<Fake>,
    /// The one that is to take its place.
    pub successor: Option<Fake>,
    /// What workers find here.
    pub machine: Machine,
    /// How often the page changed over.
    pub changes: usize,
    /// Whether the one before had the steps of the pictures that are shown.
    lost: bool,
    /// Whether the successor waits to be used, as it is shown.
    pub waits: bool,
    /// Workers that were ended, of which messages may still arrive.
    pub ghosts: Vec<Fake>,
    /// Messages on their way to the page.
    pub mail: VecDeque<(u64, Mail)>,
    /// Whether the next workers in use are silent.
    pub mute: bool,
    /// Whether the next successors are silent.
    pub mute_successor: bool,
    pub doing: Doing,
    pub trouble: Option<String>,
    pub note: Option<String>,
    pub smaller: Option<usize>,
    pub run: Option<Run>,
    pub beside: Option<Run>,
    pub rows: Vec<Look>,
    pub gone: u64,
    /// The seed of the last exploration that is shown.
    pub explored: Option<u64>,
    pub forgotten: usize,
    /// All requests that were sent.
    pub sent: Vec<Message>,
    watches: Vec<u64>,
    cancelled: HashSet<u64>,
    /// How many workers ended while they opened a file.
    ends: HashMap<u64, usize>,
    files: u64,
}

impl Page {
    /// A page whose address names these files.
    pub fn new(files: &[&str]) -> Self {
        let files = files.iter().map(|name| name.to_string()).collect();
        let mut page = Self {
            session: Session::new(Setup { files, ..Setup::default() }),
            worker: None,
            successor: None,
            machine: Machine::Plain,
            changes: 0,
            lost: false,
            waits: false,
            ghosts: Vec::new(),
            mail: VecDeque::new(),
            mute: false,
            mute_successor: false,
            doing: Doing::Starting,
            trouble: None,
            note: None,
            smaller: None,
            run: None,
            beside: None,
            rows: Vec::new(),
            gone: 0,
            explored: None,
            forgotten: 0,
            sent: Vec::new(),
            watches: Vec::new(),
            cancelled: HashSet::new(),
            ends: HashMap::new(),
            files: 0,
        };
        page.step(Input::Begin);
        page
    }

    /// A page that is ready.
    pub fn ready() -> Self {
        let mut page = Self::new(&[]);
        page.pump();
        assert_eq!(page.doing, Doing::Resting);
        page
    }

    /// A page on a machine with a graphics processor or one that is wrong, whose worker was started
    /// there.
    pub fn on(machine: Machine, files: &[&str]) -> Self {
        let mut page = Self::new(files);
        page.machine = machine;
        if let Some(worker) = page.worker.take() {
            page.worker = Some(Fake::new(worker.number, worker.processor, machine, worker.mute));
        }
        page
    }

    /// A page that shows pictures.
    pub fn with_pictures() -> Self {
        let mut page = Self::ready();
        page.generate(1);
        page.pump();
        page.shows_pictures();
        page
    }

    pub fn step(&mut self, input: Input) {
        let drawing = match self.session.task {
            Task::Drawing { number, .. } => Some(number),
            _ => None,
        };
        if matches!(input, Input::Cancel) {
            self.cancelled.extend(drawing);
        }
        let begins = matches!(input, Input::Generate(_) | Input::Open { .. } | Input::Choose);
        let rests = match &input {
            // The last message of a task brings the page to rest, and then it changes over.
            Input::Heard { .. } => true,
            _ => self.doing == Doing::Resting,
        };
        let (changes, model) = (self.changes, self.session.model.clone());
        let effects = self.session.step(input);
        assert!(effects.len() < 40, "endless: {effects:?}");
        for effect in effects {
            self.carry_out(effect);
        }
        if self.changes > changes {
            assert!(rests, "it changes over while something is done");
            assert!(begins || !self.lost, "steps of pictures are lost");
            if begins {
                assert_eq!(self.session.model, model, "another model");
            }
        }
        self.check();
    }

    /// The page has changed over: the other worker has all that the one before had.
    fn changed(&mut self) {
        self.changes += 1;
        self.lost = self.run.as_ref().is_some_and(|run| run.number > self.gone);
        let (old, new) = (self.ghosts.last(), self.worker.as_ref());
        let (old, new) = (old.expect("one before"), new.expect("one after"));
        assert!(old.processor && !new.processor);
        assert_eq!(old.model, new.model);
        // One that the visitor's files have taken the place of may be there still.
        if old.autoencoder.is_some() {
            assert_eq!(old.autoencoder, new.autoencoder);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let shown = self.run.as_ref().map(|run| run.number);
        match effect {
            Effect::Start { worker, processor } if self.session.is_successor(worker) => {
                assert!(self.successor.is_none() && self.worker.is_some(), "three workers");
                let successor = Fake::new(worker, processor, self.machine, self.mute_successor);
                self.successor = Some(successor);
            }
            Effect::Start { worker, processor } => {
                assert!(self.worker.is_none(), "two workers");
                self.worker = Some(Fake::new(worker, processor, self.machine, self.mute));
            }
            Effect::Stop { worker } => {
                if self.successor.as_ref().is_some_and(|other| other.number == worker) {
                    self.ghosts.extend(self.successor.take());
                    return;
                }
                assert_eq!(self.worker.as_ref().map(|other| other.number), Some(worker));
                self.ghosts.extend(self.worker.take());
                let next = self.successor.take();
                if next.as_ref().map(|next| next.number) == self.session.worker && next.is_some() {
                    self.worker = next;
                    self.changed();
                } else {
                    self.successor = next;
                }
            }
            Effect::Post { worker, message, attached } => {
                if let Attached::File(file) = attached {
                    assert!(self.ends.get(&file).is_none_or(|&ends| ends < 2), "a third time");
                    assert!(self.session.needs(file), "the file is let go");
                }
                let successor = self.successor.as_mut().filter(|other| other.number == worker);
                if let Some(successor) = successor {
                    successor.take(message, &attached);
                    return;
                }
                self.sent.push(message.clone());
                let used = self.worker.as_mut().expect("a worker");
                assert_eq!(used.number, worker);
                used.take(message, &attached);
            }
            Effect::Watch(watch) => self.watches.push(watch),
            Effect::Show(show) => match show {
                Show::Doing(doing) => self.doing = doing,
                Show::Trouble(trouble) => self.trouble = trouble,
                Show::Note(note) => self.note = note,
                Show::Smaller(smaller) => self.smaller = smaller,
                Show::NothingBeside => self.beside = None,
                Show::Waits(waits) => self.waits = waits,
                Show::Gone(run) => {
                    assert!(run >= self.gone);
                    self.gone = run;
                }
                _ => {}
            },
            Effect::Settle => {}
            Effect::Forget => {
                self.run = None;
                self.rows.clear();
                self.forgotten += 1;
            }
            Effect::Begin(run) => {
                assert!(!self.cancelled.contains(&run.number), "begins after it was cancelled");
                self.rows.clear();
                self.run = Some(run);
            }
            Effect::Frame { run, step, frame } => {
                assert_eq!(Some(run), shown, "a frame of another run");
                assert!(!self.cancelled.contains(&run), "a frame after the cancellation");
                let frames = &mut self.run.as_mut().expect("a run").frames;
                assert_eq!(frames.len(), step);
                frames.push(frame.into());
            }
            Effect::Finish { run, last, milliseconds, evaluations, .. } => {
                assert_eq!(Some(run), shown);
                let run = self.run.as_mut().expect("a run");
                run.finished = Some((milliseconds, evaluations));
                if !last {
                    self.beside = Some(run.clone());
                }
            }
            Effect::Row(look, _) => {
                assert_eq!(Some(look.run), shown, "attention of another run");
                self.rows.push(look);
            }
            Effect::Survey(surveyed) => assert_eq!(Some(surveyed.scan.run), shown),
            Effect::Explored([a, _]) => self.explored = Some(a.outcome.evaluations as u64),
        }
    }

    /// Checks that what is shown, the task and the queue agree.
    fn check(&self) {
        let Session { task, orders, listens, loaded, worker, .. } = &self.session;
        assert_eq!(self.doing, task.doing());
        assert_eq!(*worker, self.worker.as_ref().map(|worker| worker.number));
        let successor = self.session.successor().map(|successor| successor.worker);
        assert_eq!(successor, self.successor.as_ref().map(|worker| worker.number));
        assert!(*task != Task::Broken || successor.is_none(), "a second worker for nothing");
        assert_eq!(task.must_be_heard(), self.session.watch.is_some());
        match task {
            Task::Broken => assert!(self.trouble.is_some(), "broken for no reason"),
            Task::Starting(_) => assert!(worker.is_some() && !listens),
            Task::Loading { .. } => assert!(listens),
            Task::Opening { .. } => assert!(listens & loaded),
            Task::Resting => {
                assert!(listens & loaded && orders.is_empty());
                let waits = format!("{:?}", self.session.files);
                assert!(waits.contains("again: [], waiting: []"), "{waits}");
            }
            Task::Drawing { .. } => assert!(listens & loaded && !orders.is_empty()),
        }
    }

    /// Delivers the next message.
    pub fn deliver(&mut self) {
        let Some((worker, mail)) = self.mail.pop_front() else { return };
        let input = match mail {
            Mail::Report(report, bytes) => Input::Heard { worker, report, bytes },
            Mail::Error(message) => Input::Ended { worker, message },
        };
        let ends = match &input {
            Input::Heard { report: Report { event, .. }, .. } => {
                matches!(event, Event::Failed { fatal: true, .. })
            }
            _ => true,
        };
        if ends
            && self.session.worker == Some(worker)
            && let Task::Opening { own, cancelled: false, .. } = &self.session.task
            && let Some(file) = own.file
        {
            *self.ends.entry(file).or_default() += 1;
        }
        self.step(input);
    }

    /// The worker sends its next message about one of its requests.
    pub fn work(&mut self, which: usize) {
        if let Some(worker) = &mut self.worker {
            worker.go_on(which, &mut self.mail);
        }
    }

    /// The successor sends its next message about one of its requests.
    pub fn work_successor(&mut self, which: usize) {
        if let Some(successor) = &mut self.successor {
            successor.go_on(which, &mut self.mail);
        }
    }

    /// Something goes wrong in the successor.
    pub fn suffer_successor(&mut self, mishap: Mishap, which: usize) {
        if let Some(successor) = &mut self.successor {
            successor.suffer(mishap, which, &mut self.mail);
        }
    }

    /// Something goes wrong in the worker.
    pub fn suffer(&mut self, mishap: Mishap, which: usize) {
        if let Some(worker) = &mut self.worker {
            worker.suffer(mishap, which, &mut self.mail);
        }
    }

    /// The time of all watches is over.
    pub fn wait(&mut self) {
        for watch in std::mem::take(&mut self.watches) {
            self.step(Input::Silence { watch });
        }
    }

    /// Lets the workers and the time go on until nothing happens any more.
    pub fn pump(&mut self) {
        for _ in 0..10_000 {
            self.work(0);
            self.work_successor(0);
            let idles = |worker: &Option<Fake>| worker.as_ref().is_none_or(Fake::idles);
            if !self.mail.is_empty() {
                self.deliver();
            } else if idles(&self.worker) && idles(&self.successor) {
                // The second time, nothing was heard in between.
                if self.watches.is_empty() {
                    return;
                }
                self.wait();
            }
        }
        panic!("it does not come to rest: {:?}", self.session);
    }

    /// Lets the worker go on until a condition holds.
    pub fn pump_until(&mut self, condition: impl Fn(&Self) -> bool) {
        for _ in 0..100 {
            if condition(self) {
                return;
            }
            self.work(0);
            self.deliver();
        }
        panic!("it does not come to that");
    }

    pub fn generate(&mut self, orders: usize) {
        self.step(Input::Generate((0..orders).map(wanted).collect()));
    }

    pub fn open(&mut self, name: &str) -> u64 {
        self.files += 1;
        self.step(Input::Open { file: self.files, name: name.into() });
        self.files
    }

    /// Asks for the attention of the pictures that are shown.
    pub fn ask(&mut self, block: usize) {
        let Some(run) = &self.run else { return };
        let look = Look { run: run.number, step: 0, picture: 0, block, token: [0, 0] };
        let questions = vec![Question::Token(look)];
        let known = self.rows.iter().map(|&look| Question::Token(look)).collect();
        self.step(Input::Ask { questions, known });
    }

    pub fn explore(&mut self, seed: u64) {
        let panels = [0, 1].map(|_| Settings::default());
        let points = PointSet::ALL[0].0;
        self.step(Input::Explore(Box::new(Exploration { points, seed, panels })));
    }

    /// Checks that the pictures of the last order are there.
    pub fn shows_pictures(&self) {
        assert_eq!((&self.doing, &self.trouble), (&Doing::Resting, &None));
        let run = self.run.as_ref().expect("a run");
        assert_eq!((run.frames.len(), run.finished.is_some()), (STEPS + 1, true));
        let last = self.sent.iter().rev().find(|m| matches!(m.request, Request::Generate(_)));
        assert_eq!(Some(run.number), last.map(|message| message.number));
    }

    /// Returns how often a file was sent to a worker.
    pub fn times_opened(&self, wanted: &str) -> usize {
        let is = |message: &&Message| match &message.request {
            Request::Open { name } | Request::Fetch { name, .. } => name == wanted,
            _ => false,
        };
        self.sent.iter().filter(is).count()
    }
}

/// The order with this number.
pub fn wanted(i: usize) -> Wanted {
    let settings = Settings { steps: STEPS, ..Settings::default() };
    let order =
        Order { noises: vec![Noise::Seed(i as u64); 4], settings, guide: None, previews: true };
    Wanted { order, bytes: Vec::new(), link: String::new() }
}
