//! What the page asks of its worker. The [session](crate::session) decides what follows from that and
//! from the worker's messages; the engine does it, with the browser's worker and the page's state.

mod browser;
mod effects;
mod settle;

use std::collections::HashMap;
use std::time::Duration;

use leptos::prelude::*;
use web_sys::{File, Worker};
use web_time::Instant;

use super::state::State;
use crate::adapter::Backend;
use crate::looks::Question;
use crate::manifest::named;
use crate::playground::Exploration;
use crate::protocol::Ready;
use crate::session::{Input, Session, Setup, Wanted};
use crate::testing::Faults;
pub use browser::{faults, start_worker};
use browser::{folder, query};

/// Time without a message after which a worker that has to send some is given up: enough for a
/// hundredth of its program over a very slow connection.
const SILENCE: Duration = Duration::from_secs(60);

/// The worker, as the page uses it.
#[derive(Clone, Copy)]
pub struct Engine {
    state: State,
    session: StoredValue<Session>,
    /// The worker in use, and one that is to take its place, by their numbers in the session.
    workers: StoredValue<HashMap<u64, Worker>, LocalStorage>,
    /// The files that the visitor opened, by their numbers in the session.
    files: StoredValue<HashMap<u64, File>, LocalStorage>,
    /// The number of the last file.
    count: StoredValue<u64>,
    /// The time of the last request for pictures.
    at: StoredValue<Option<Instant>>,
    /// The model that the scene was last adapted to.
    settled: StoredValue<Option<Ready>>,
}

impl Engine {
    /// Starts the worker, which finds a device and loads a model.
    pub fn start(state: State) -> Self {
        let query = query();
        let Faults { fault, memory, software, .. } = faults();
        let setup = Setup {
            base: folder(),
            wish: Backend::wish(&query),
            files: ["weights", "vae"].iter().filter_map(|word| named(&query, word)).collect(),
            fault,
            memory,
            software,
        };
        let engine = Self {
            state,
            session: StoredValue::new(Session::new(setup)),
            workers: StoredValue::new_local(HashMap::new()),
            files: StoredValue::new_local(HashMap::new()),
            count: StoredValue::new(0),
            at: StoredValue::new(None),
            settled: StoredValue::new(None),
        };
        engine.step(Input::Begin);
        engine
    }

    /// Makes the pictures of one order, or of several for a comparison. The worker keeps the steps of
    /// the last one.
    pub fn generate(self, orders: Vec<Wanted>) {
        self.at.set_value(Some(Instant::now()));
        self.step(Input::Generate(orders));
    }

    /// Cancels the orders, or opening a file. The worker stops after the current evaluation.
    pub fn cancel(self) {
        self.step(Input::Cancel);
    }

    /// Requests attention, unless the page has it already. Earlier requests that were not sent yet
    /// are dropped.
    pub fn ask(self, questions: Vec<Question>) {
        let (rows, surveyed) =
            (self.state.attention.read_untracked(), self.state.surveyed.read_untracked());
        let known = |question: &&Question| match question {
            Question::Token(look) => rows.contains_key(look),
            Question::Blocks(scan) => surveyed.contains_key(scan),
        };
        let known = questions.iter().filter(known).copied().collect();
        drop((rows, surveyed));
        self.step(Input::Ask { questions, known });
    }

    /// Opens a file: weights or an autoencoder.
    pub fn open(self, file: File) {
        self.count.update_value(|count| *count += 1);
        let (number, name) = (self.count.get_value(), file.name());
        self.files.update_value(|files| {
            files.insert(number, file);
        });
        self.step(Input::Open { file: number, name });
    }

    /// Selects one of the shipped models.
    pub fn choose(self, file: String) {
        let first = self.state.models.read_untracked().first().is_some_and(|e| e.file == file);
        self.state.scene.update(|scene| scene.model = if first { String::new() } else { file });
        self.step(Input::Choose);
    }

    /// Tries again after a failure.
    pub fn again(self) {
        self.step(Input::Again);
    }

    /// Computes the panels of the playground.
    pub fn explore(self, exploration: Exploration) {
        self.step(Input::Explore(Box::new(exploration)));
    }

    /// Does what follows from what has happened.
    fn step(self, input: Input) {
        let effects = self.session.try_update_value(|session| session.step(input));
        let mut missing = None;
        for effect in effects.unwrap_or_default() {
            missing = self.carry_out(effect).err().or(missing);
        }
        self.session.with_value(|session| {
            self.files.update_value(|files| files.retain(|&number, _| session.needs(number)));
        });
        if let Some(worker) = missing {
            self.step(Input::Unsupported { worker });
        }
    }
}
