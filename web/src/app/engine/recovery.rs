//! Recovery after failures of the worker.

use leptos::prelude::*;

use super::{Engine, STARTS};
use crate::app::state::Doing;
use crate::memory::{is_shortage, smaller};
use crate::protocol::Noise;

impl Engine {
    /// Reports that there is not enough memory for the order, and offers fewer pictures.
    pub(super) fn offer_fewer(self, why: &str) {
        let state = self.state;
        let order = self.asked.try_update_value(|asked| std::mem::take(&mut asked.orders).pop());
        let Some((order, ..)) = order.flatten() else { return };
        let count = order.noises.len();
        let of_seeds = order.noises.iter().all(|noise| matches!(noise, Noise::Seed(_)));
        let fewer = smaller(count);
        let what = match count {
            1 => "There is not enough memory for a picture of this model.".into(),
            _ if of_seeds => format!("There is not enough memory for {count} pictures at a time."),
            _ => format!(
                "There is not enough memory for these {count} pictures. In the view \"Generate\", you can \
                 make fewer."
            ),
        };
        state.trouble.set(Some(format!("{what} {why}")));
        state.smaller.set(fewer.filter(|_| of_seeds));
    }

    /// Takes note that the worker does not have the steps of a run and those before it.
    pub(super) fn lose(self, run: u64) {
        self.asked.update_value(|asked| asked.looks.lose(run));
        self.state.gone.set(Some(run));
    }

    /// Starts another worker after the previous one ended. It continues with the queue, unless the
    /// previous one ran out of memory.
    pub(super) fn restart(self, message: String) {
        self.worker.update_value(|worker| {
            if let Some(worker) = worker.take() {
                worker.terminate();
            }
        });
        self.explores(false);
        let state = self.state;
        let (short, opening) =
            (is_shortage(&message), self.asked.with_value(|a| a.opening.clone()));
        let busy = self.asked.with_value(|asked| !asked.orders.is_empty());
        if let Some(own) = opening.filter(|_| short) {
            let name = own.name();
            state.trouble.set(Some(format!("{name} takes more memory than there is here.")));
            self.asked.update_value(|asked| asked.opening = None);
            self.starts.set_value(0);
        } else if short && busy {
            self.offer_fewer(&message);
            self.starts.set_value(0);
        }
        if self.starts.get_value() >= STARTS {
            self.broken(&message);
            return;
        }
        self.lose(self.asked.with_value(|asked| asked.run));
        self.asked.update_value(|asked| {
            // All files are opened again: the weights first, then those that came after them. At the
            // second failure they are dropped, since one of them may be the cause.
            let files = std::mem::take(&mut asked.files);
            let again = [asked.weights.take(), asked.autoencoder.take(), asked.opening.take()];
            if self.starts.get_value() <= 1 {
                asked.files = again.into_iter().flatten().chain(files).collect();
            }
        });
        state.autoencoder.set(None);
        let goes_on =
            if short { "It was started again." } else { "It was started again and continues." };
        state.note.set(Some(format!("{message} {goes_on}")));
        state.progress.set(None);
        state.decoding.set(None);
        state.doing.set(Doing::Starting);
        self.start_worker();
    }
}
