//! Files that the visitor opened or that the page's address names.

use std::collections::VecDeque;

/// Number of times that a worker may end because of a file, or while it is in use.
const ENDS: usize = 2;

/// A file of weights or of an autoencoder. Its contents are not in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The number under which the page keeps it; `None` for a file in the folder of the shipped
    /// weights, which the worker downloads.
    pub file: Option<u64>,
    /// Its name.
    pub name: String,
    /// Number of workers that have ended because of it, or while it was in use.
    ends: usize,
}

/// The files to be opened and those in use.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Files to be opened before anything else, the next one first: those that the address names, and
    /// those that a worker had which is gone.
    again: VecDeque<Own>,
    /// Files to be opened once the worker is idle, the next one first.
    waiting: VecDeque<Own>,
    /// The weights in use, unless they are shipped.
    pub weights: Option<Own>,
    /// The autoencoder in use.
    pub autoencoder: Option<Own>,
}

impl Files {
    /// The files that the page's address names.
    pub fn named(names: &[String]) -> Self {
        let own = |name: &String| Own { file: None, name: name.clone(), ends: 0 };
        Self { again: names.iter().map(own).collect(), ..Self::default() }
    }

    /// Adds a file to be opened.
    pub fn add(&mut self, file: u64, name: String) {
        self.waiting.push_back(Own { file: Some(file), name, ends: 0 });
    }

    /// Takes the next file to be opened before anything else.
    pub fn next_again(&mut self) -> Option<Own> {
        self.again.pop_front()
    }

    /// Takes the next file to be opened.
    pub fn next(&mut self) -> Option<Own> {
        self.waiting.pop_front()
    }

    /// Drops the files that are not open yet.
    pub fn forget_next(&mut self) {
        self.again.clear();
        self.waiting.clear();
    }

    /// Returns all files.
    pub fn all(&self) -> impl Iterator<Item = &Own> {
        let in_use = self.weights.iter().chain(&self.autoencoder);
        self.again.iter().chain(&self.waiting).chain(in_use)
    }

    /// Takes note that the worker made pictures with the files in use.
    pub fn succeed(&mut self) {
        for own in self.weights.iter_mut().chain(&mut self.autoencoder) {
            own.ends = 0;
        }
    }

    /// Takes note that the worker is gone: the next one opens all files again, the weights first, then
    /// those that came after them. If it ended by itself, the file that it was opening may be the
    /// cause, or else those in use. What may have been the cause twice is dropped; its names are
    /// returned.
    pub fn lose(&mut self, opening: Option<Own>, ended: bool) -> Vec<String> {
        let blames_opening = opening.is_some();
        let again = std::mem::take(&mut self.again);
        let in_use = [self.weights.take(), self.autoencoder.take()].into_iter().flatten();
        let in_use = in_use.map(|own| (own, !blames_opening));
        let opening = opening.into_iter().map(|own| (own, true));
        let mut dropped = Vec::new();
        for (mut own, blamed) in in_use.chain(opening) {
            own.ends += usize::from(blamed && ended);
            if own.ends < ENDS {
                self.again.push_back(own);
            } else {
                dropped.push(own.name);
            }
        }
        self.again.extend(again);
        dropped
    }
}
