//! The queue of requests for attention.
//!
//! The worker computes attention from the steps of one run, its last. A request therefore carries the
//! number of its run, and an answer counts only for that run. The [session](crate::session) sends the
//! requests.

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
    pub fn run(&self) -> u64 {
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
    /// The request that the worker is processing, and the number of its message.
    sent: Option<(u64, Question)>,
    /// The last run whose steps the worker does not have any more, or for which a request failed.
    /// Without this, a failing request would be repeated endlessly.
    gone: Option<u64>,
}

impl Looks {
    /// Replaces the requests that are shown, the most urgent first. Those that are not `known` yet
    /// wait to be sent; earlier ones that were not sent are dropped.
    pub fn want(&mut self, looks: Vec<Question>, known: impl Fn(&Question) -> bool) {
        let asks = |look: &&Question| {
            Some(**look) != self.sent() && !known(look) && !self.is_gone(look.run())
        };
        let mut waiting: Vec<Question> = looks.iter().filter(asks).copied().collect();
        waiting.reverse();
        self.waiting = waiting;
        self.wanted = looks;
    }

    /// Takes the next request to be sent, unless the worker is processing one.
    pub fn take_next(&mut self) -> Option<Question> {
        if self.sent.is_some() { None } else { self.waiting.pop() }
    }

    /// Takes note that a request was sent under this number.
    pub fn send(&mut self, number: u64, look: Question) {
        self.sent = Some((number, look));
    }

    /// Returns the request that the worker is processing.
    pub fn sent(&self) -> Option<Question> {
        self.sent.map(|(_, look)| look)
    }

    /// Returns whether the worker is processing the request with this number.
    pub fn is_sent(&self, number: u64) -> bool {
        self.sent.is_some_and(|(sent, _)| sent == number)
    }

    /// Takes note that the request that was sent is answered.
    pub fn answered(&mut self) {
        self.sent = None;
    }

    /// Returns whether there will be no more answers for a run.
    pub fn is_gone(&self, run: u64) -> bool {
        self.gone.is_some_and(|gone| run <= gone)
    }

    /// Returns whether a request is shown.
    pub fn wants(&self, look: &Question) -> bool {
        self.wanted.contains(look)
    }

    /// Drops the requests that were not sent.
    pub fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Drops all requests, which are about pictures that are not shown any more.
    pub fn forget_all(&mut self) {
        self.waiting.clear();
        self.wanted.clear();
        self.sent = None;
    }

    /// Takes note that there will be no more answers for a run and those before it. Returns the last
    /// run that this applies to.
    pub fn lose(&mut self, run: u64) -> u64 {
        self.sent = None;
        self.waiting.clear();
        let gone = self.gone.map_or(run, |gone| gone.max(run));
        self.gone = Some(gone);
        gone
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
        looks.send(7, look(1, 0));
        assert_eq!(looks.take_next(), None);
        assert!(looks.is_sent(7) && !looks.is_sent(6));
        // What is being processed is not asked for again.
        looks.want(vec![look(1, 0), look(1, 5)], |_| false);
        looks.answered();
        assert!(!looks.is_sent(7));
        assert_eq!((looks.take_next(), looks.take_next()), (Some(look(1, 5)), None));
        assert!(looks.wants(&look(1, 0)) && !looks.wants(&look(1, 2)));
    }

    #[test]
    fn a_run_that_is_gone_is_not_asked_for_again() {
        let mut looks = Looks::default();
        looks.want(vec![look(3, 0), look(3, 1)], |_| false);
        assert_eq!(looks.take_next(), Some(look(3, 0)));
        looks.send(4, look(3, 0));
        assert_eq!(looks.lose(3), 3);
        assert_eq!((looks.sent(), looks.take_next()), (None, None));
        for step in 0..3 {
            looks.want(vec![look(3, step)], |_| false);
            assert_eq!(looks.take_next(), None);
        }
        // Earlier messages do not bring it back; the next run has its steps.
        assert_eq!(looks.lose(2), 3);
        looks.want(vec![look(3, 1), look(4, 0)], |_| false);
        assert_eq!((looks.take_next(), looks.take_next()), (Some(look(4, 0)), None));
    }
}
