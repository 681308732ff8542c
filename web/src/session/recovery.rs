//! Recovery after failures of the worker.

use super::task::Task;
use super::{Effect, STARTS, Session, Show};
use crate::memory::is_shortage;

impl Session {
    /// Starts another worker after the previous one has ended. It continues with the queue, unless the
    /// previous one ran out of memory.
    pub(super) fn restart(&mut self, message: &str) {
        let task = self.stop();
        let short = is_shortage(message);
        let opening = match task {
            Task::Opening { cancelled: true, .. } => None,
            Task::Opening { own, .. } if short => {
                let name = own.name;
                let trouble = format!("{name} takes more memory than is available.");
                self.show(Show::Trouble(Some(trouble)));
                self.starts = 0;
                None
            }
            Task::Opening { own, .. } => Some(own),
            Task::Drawing { cancelled: true, .. } => {
                self.orders.clear();
                None
            }
            _ if short && !self.orders.is_empty() => {
                self.offer_fewer(message);
                self.starts = 0;
                None
            }
            _ => None,
        };
        let dropped = self.files.lose(opening, !short);
        if !dropped.is_empty() {
            let names = dropped.join(", ");
            self.show(Show::Trouble(Some(format!(
                "The computation has stopped twice with {names}, which is not opened again."
            ))));
        }
        if self.starts >= STARTS {
            self.broken(message);
            return;
        }
        let goes_on =
            if short { "It was started again." } else { "It was started again and continues." };
        self.show(Show::Note(Some(format!("{message} {goes_on}"))));
        self.start_worker();
    }

    /// Takes note that the worker has ended with an error that it could not send.
    pub(super) fn ended(&mut self, message: String) {
        if matches!(self.task, Task::Starting(_)) {
            self.give_up("The worker of this page could not be loaded. Reload the page.");
        } else {
            self.restart(&format!("The computation stopped ({message})."));
        }
    }

    /// Tries again after a failure; with a worker that does not answer any more, too.
    pub(super) fn again(&mut self) {
        self.show(Show::Trouble(None));
        if self.listens && matches!(self.task, Task::Broken | Task::Resting) {
            self.load();
            return;
        }
        self.set_aside();
        self.starts = 0;
        self.start_worker();
    }

    /// Ends the worker and reports a failure that another one would not do anything about.
    pub(super) fn give_up(&mut self, why: &str) {
        self.set_aside();
        self.broken(why);
    }

    /// Ends the worker, and puts what it had back into the queue.
    fn set_aside(&mut self) {
        let opening = match self.stop() {
            Task::Opening { own, cancelled: false, .. } => Some(own),
            Task::Drawing { cancelled: true, .. } => {
                self.orders.clear();
                None
            }
            _ => None,
        };
        self.files.lose(opening, false);
    }

    /// Ends the worker. Returns what it was doing.
    fn stop(&mut self) -> Task {
        if let Some(worker) = self.worker.take() {
            self.effects.push(Effect::Stop { worker });
        }
        (self.listens, self.loaded) = (false, false);
        self.explorations.lose();
        // Numbers of runs are numbers of requests.
        self.lose_steps(self.number);
        self.show(Show::Autoencoder(None));
        self.show(Show::Progress(None));
        self.show(Show::Decoding(None));
        std::mem::replace(&mut self.task, Task::Broken)
    }

    /// Reports a failure that the page does not recover from by itself.
    fn broken(&mut self, why: &str) {
        self.task = Task::Broken;
        self.show(Show::Trouble(Some(why.into())));
    }

    /// Begins to watch a worker that must not be silent, or ends it. The end of a watch is reported by
    /// [`Session::silence`].
    pub(super) fn keep_watch(&mut self) {
        match (self.task.must_be_heard(), self.watch) {
            (true, None) => {
                let watch = self.count();
                self.watch = Some(watch);
                self.heard = false;
                self.effects.push(Effect::Watch(watch));
            }
            (false, Some(_)) => self.watch = None,
            _ => {}
        }
    }

    /// Takes note that the time of the watch is over: the worker must have said something.
    pub(super) fn silence(&mut self) {
        self.watch = None;
        if self.heard {
            return;
        }
        let why = match self.task {
            Task::Starting(_) => {
                "The program that computes does not answer. Reload the page; if that does not help, \
                 close all tabs of this page and open it again."
            }
            _ => "Nothing has arrived for a minute. Check the network connection, then try again.",
        };
        self.give_up(why);
    }
}
