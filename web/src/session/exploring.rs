//! Requests of the playground. The worker answers them one at a time, also while it does something
//! else; of those that arrive meanwhile, only the last one is sent.

use super::{Attached, Effect, Session, Show};
use crate::playground::{Exploration, track::Track};
use crate::protocol::{Event, Request};

/// The queue.
#[derive(Clone, Debug, Default)]
pub struct Explorations {
    /// The request that was not sent yet.
    next: Option<Exploration>,
    /// The request that the worker is processing, and its number.
    sent: Option<(u64, Exploration)>,
}

impl Explorations {
    /// Adds a request.
    pub fn ask(&mut self, exploration: Exploration) {
        self.next = Some(exploration);
    }

    /// Returns whether the worker is processing the request with this number.
    pub fn is_sent(&self, number: u64) -> bool {
        self.sent.as_ref().is_some_and(|(sent, _)| *sent == number)
    }

    /// Takes note that the worker is gone. What it left undone is repeated.
    pub fn lose(&mut self) {
        let undone = self.sent.take().map(|(_, exploration)| exploration);
        self.next = self.next.take().or(undone);
    }
}

impl Session {
    /// Sends the next request, if the worker is not processing one.
    pub(super) fn explore_on(&mut self) {
        if !self.listens || self.explorations.sent.is_some() {
            return;
        }
        if let Some(next) = self.explorations.next.take() {
            let number = self.post(Request::Explore(next.clone()), Attached::Nothing);
            self.explorations.sent = Some((number, next));
        }
    }

    /// Takes note of a message about the request that was sent.
    pub(super) fn explores(&mut self, event: Event, bytes: &[u8]) {
        match event {
            Event::Explored(Ok(outcomes)) => {
                if let Some(tracks) = Track::both(outcomes, bytes) {
                    self.effects.push(Effect::Explored(tracks));
                }
            }
            Event::Explored(Err(message)) | Event::Failed { message, .. } => {
                self.show(Show::Trouble(Some(message)));
            }
            _ => return,
        }
        self.explorations.sent = None;
    }
}
