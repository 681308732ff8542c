//! Requests for attention, which are sent while the worker is idle.

use super::task::Task;
use super::{Attached, Effect, Session, Show};
use crate::looks::Question;
use crate::plot::Attention;
use crate::protocol::Event;

impl Session {
    /// Takes note of the attention that is shown. Earlier requests that were not sent yet are dropped.
    pub(super) fn ask(&mut self, questions: Vec<Question>, known: &[Question]) {
        let shown = self.shown.map(|(run, _)| run);
        let questions = questions.into_iter().filter(|q| Some(q.run()) == shown).collect();
        self.looks.want(questions, |question| known.contains(question));
    }

    /// Sends the next request, if the worker is idle.
    pub(super) fn look_on(&mut self) {
        if self.task != Task::Resting {
            return;
        }
        if let Some(question) = self.looks.take_next() {
            let number = self.post(question.request(), Attached::Nothing);
            self.looks.send(number, question);
        }
    }

    /// Takes note of a message about the request that was sent.
    pub(super) fn attends(&mut self, event: Event, bytes: &[u8]) {
        let Some(question) = self.looks.sent() else { return };
        let shown = self.shown.is_some_and(|(run, _)| run == question.run());
        match (question, event) {
            (Question::Token(look), Event::Attended(attended)) if attended.look == look => {
                self.looks.answered();
                if let Some(row) = Attention::new(attended, bytes).filter(|_| shown) {
                    self.effects.push(Effect::Row(look, row));
                }
            }
            (Question::Blocks(scan), Event::Surveyed(surveyed)) if surveyed.scan == scan => {
                self.looks.answered();
                if shown {
                    self.effects.push(Effect::Survey(surveyed));
                }
            }
            (_, Event::Gone { run }) => self.lose_steps(run),
            (_, Event::Failed { message, .. }) => {
                self.lose_steps(question.run());
                if shown {
                    self.show(Show::Trouble(Some(message)));
                }
            }
            _ => {}
        }
    }

    /// Takes note that the worker does not have the steps of a run and those before it.
    pub(super) fn lose_steps(&mut self, run: u64) {
        let gone = self.looks.lose(run);
        self.show(Show::Gone(gone));
    }
}
