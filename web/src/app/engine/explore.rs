//! Requests of the playground. The worker answers them one at a time; of those that arrive meanwhile,
//! only the last one is sent.

use leptos::prelude::*;
use std::sync::Arc;

use super::Engine;
use crate::playground::{Exploration, Outcome, track::Track};
use crate::protocol::Request;

/// The queue.
#[derive(Default)]
pub(super) struct Explorations {
    /// Whether the worker is running. Messages that are sent before are lost.
    listening: bool,
    /// The request that was not sent yet.
    next: Option<Exploration>,
    /// The request that the worker is processing.
    current: Option<Exploration>,
}

impl Engine {
    /// Computes the panels of the playground.
    pub fn explore(self, exploration: Exploration) {
        self.explorations.update_value(|queue| queue.next = Some(exploration));
        self.explore_on();
    }

    /// Sends the next request, if the worker is not processing one.
    fn explore_on(self) {
        let next = self.explorations.try_update_value(|queue| {
            if !queue.listening || queue.current.is_some() {
                return None;
            }
            queue.current = queue.next.take();
            queue.current.clone()
        });
        if let Some(exploration) = next.flatten() {
            self.send(&Request::Explore(exploration), None);
        }
    }

    /// Notes that the worker is running, or has ended, and repeats the request that it left undone.
    pub(super) fn explores(self, listening: bool) {
        self.explorations.update_value(|queue| {
            queue.listening = listening;
            let undone = queue.current.take();
            queue.next = queue.next.take().or(undone);
        });
        self.explore_on();
    }

    /// Handles the answer of the worker.
    pub(super) fn explored(self, answer: Result<[Outcome; 2], String>, bytes: &[u8]) {
        match answer {
            Ok(outcomes) => {
                if let Some(tracks) = Track::both(outcomes, bytes) {
                    self.state.explored.set(Some(Arc::new(tracks)));
                }
            }
            Err(message) => self.state.trouble.set(Some(message)),
        }
        self.explorations.update_value(|queue| queue.current = None);
        self.explore_on();
    }
}
