//! The queue of requests for attention.
//!
//! The worker computes attention from the steps of one run, its last. A request therefore carries the
//! number of its run, and an answer counts only for that run.

use crate::protocol::{Look, Request, Scan};

/// A request for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The attention of a token.
    Token(Look),
    /// The attention of all blocks.
    Blocks(Scan),
}

impl Question {
    /// Returns the run that it is about.
    fn run(&self) -> u64 {
        match self {
            Question::Token(look) => look.run,
            Question::Blocks(scan) => scan.run,
        }
    }

    /// Returns the message to the worker.
    pub fn request(self) -> Request {
        match self {
            Question::Token(look) => Request::Attend(look),
            Question::Blocks(scan) => Request::Survey(scan),
        }
    }
}

/// The requests for attention: those that are shown, those that wait, and the one that the worker is
/// processing.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// All requests that are shown. The answers to others can be dropped.
    wanted: Vec<Question>,
    /// Requests that were not sent yet, the next one last.
    waiting: Vec<Question>,
    /// The request that the worker is processing.
    sent: Option<Question>,
    /// The last run whose steps the worker does not have any more, or for which a request failed.
    /// Without this, a failing request would be repeated endlessly.
    gone: Option<u64>,
}

impl Looks {
    /// Replaces the requests that are shown, the most urgent first. Those that are not `known` yet
    /// wait to be sent; earlier ones that were not sent are dropped.
    pub fn want(&mut self, looks: Vec<Question>, known: impl Fn(&Question) -> bool) {
        let asks = |look: &&Question| {
            Some(**look) != self.sent
                && !known(look)
                && self.gone.is_none_or(|gone| look.run() > gone)
        };
        let mut waiting: Vec<Question> = looks.iter().filter(asks).copied().collect();
        waiting.reverse();
        self.waiting = waiting;
        self.wanted = looks;
    }

    /// Returns the next request to be sent, unless the worker is processing one.
    pub fn take_next(&mut self) -> Option<Question> {
        if self.sent.is_some() {
            return None;
        }
        self.sent = self.waiting.pop();
        self.sent
    }

    /// Takes note that the request that the worker was processing failed. Returns its run, for which
    /// there will be no more requests.
    pub fn fail(&mut self) -> Option<u64> {
        let run = self.sent?.run();
        self.lose(run);
        Some(run)
    }

    /// Returns whether a request is shown.
    pub fn wants(&self, look: &Question) -> bool {
        self.wanted.contains(look)
    }

    /// Takes note of an answer. Returns whether it is for `run`, the one whose pictures are shown.
    pub fn answered(&mut self, look: &Question, run: Option<u64>) -> bool {
        if self.sent == Some(*look) {
            self.sent = None;
        }
        run == Some(look.run())
    }

    /// Drops the requests that were not sent.
    pub fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Takes note that there will be no more answers for a run and those before it.
    pub fn lose(&mut self, run: u64) {
        self.sent = None;
        self.waiting.clear();
        self.gone = self.gone.max(Some(run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Even steps are asked for a token, odd ones for all blocks.
    fn look(run: u64, step: usize) -> Question {
        match step % 2 {
            0 => Question::Token(Look { run, step, picture: 0, block: 0, token: [0, 0] }),
            _ => Question::Blocks(Scan { run, step, picture: 0 }),
        }
    }

    #[test]
    fn requests_are_sent_one_at_a_time_and_the_latest_ones_count() {
        let mut looks = Looks::default();
        looks.want(vec![look(1, 0), look(1, 1), look(1, 2)], |known| *known == look(1, 1));
        assert_eq!(looks.take_next(), Some(look(1, 0)));
        assert_eq!(looks.take_next(), None);
        // What is being processed is not asked for again.
        looks.want(vec![look(1, 0), look(1, 5)], |_| false);
        assert!(looks.answered(&look(1, 0), Some(1)));
        assert_eq!((looks.take_next(), looks.take_next()), (Some(look(1, 5)), None));
        assert!(looks.wants(&look(1, 0)) && !looks.wants(&look(1, 2)));
    }

    #[test]
    fn an_answer_for_another_run_is_dropped() {
        let mut looks = Looks::default();
        looks.want(vec![look(1, 0)], |_| false);
        assert_eq!(looks.take_next(), Some(look(1, 0)));
        // The pictures of run 2 have come in the meantime.
        assert!(!looks.answered(&look(1, 0), Some(2)));
        // The worker is free for requests of that run.
        looks.want(vec![look(2, 0)], |_| false);
        assert_eq!(looks.take_next(), Some(look(2, 0)));
        assert!(looks.answered(&look(2, 0), Some(2)));
        assert!(!looks.answered(&look(2, 0), None));
    }

    #[test]
    fn a_run_that_is_gone_is_not_asked_for_again() {
        let mut looks = Looks::default();
        looks.want(vec![look(3, 0), look(3, 1)], |_| false);
        looks.take_next();
        assert_eq!((looks.fail(), looks.fail()), (Some(3), None));
        assert_eq!(looks.take_next(), None);
        for step in 0..3 {
            looks.want(vec![look(3, step)], |_| false);
            assert_eq!(looks.take_next(), None);
        }
        // Earlier messages do not bring it back; the next run has its steps.
        looks.lose(2);
        looks.want(vec![look(3, 1), look(4, 0)], |_| false);
        assert_eq!((looks.take_next(), looks.waiting.len()), (Some(look(4, 0)), 0));
    }
}
