//! Tasks on a thread of their own, one at a time.

use std::thread::{Builder, JoinHandle};

use anyhow::{Context, anyhow};

/// A place for one task, whose result is a `T`.
pub struct Background<T> {
    task: Option<JoinHandle<anyhow::Result<T>>>,
}

impl<T> Default for Background<T> {
    fn default() -> Self {
        Self { task: None }
    }
}

impl<T: Send + 'static> Background<T> {
    /// Returns whether there is a task whose result was not taken yet.
    pub fn is_busy(&self) -> bool {
        self.task.is_some()
    }

    /// Starts a task, after the one before, whose result is lost if it was not taken.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn start(
        &mut self,
        task: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<()> {
        self.wait();
        let thread = Builder::new().name("saving".into()).spawn(task);
        self.task = Some(thread.context("no thread to save a checkpoint on")?);
        Ok(())
    }

    /// Returns the result of the task if it has ended.
    pub fn ended(&mut self) -> Option<anyhow::Result<T>> {
        self.task.take_if(|task| task.is_finished()).map(join)
    }

    /// Waits for the task, if there is one, and returns its result.
    pub fn wait(&mut self) -> Option<anyhow::Result<T>> {
        self.task.take().map(join)
    }
}

/// Waits for the task, which the end of the process would otherwise end halfway.
impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            let _ = task.join();
        }
    }
}

fn join<T>(task: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    // The message of a panic was printed.
    task.join().unwrap_or_else(|_| Err(anyhow!("the thread that saves has failed")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn one_task_runs_at_a_time_and_its_result_is_taken_once() {
        let mut background = Background::default();
        let (go, wait) = channel();
        background.start(move || Ok(wait.recv().map(|()| 1)?)).expect("a thread");
        assert!(background.is_busy() && background.ended().is_none());
        go.send(()).expect("it waits");
        assert_eq!(background.wait().expect("a task").expect("it works"), 1);
        assert!(!background.is_busy() && background.wait().is_none());

        background.start(|| Ok(2)).expect("a thread");
        let found = loop {
            if let Some(found) = background.ended() {
                break found.expect("it works");
            }
        };
        assert_eq!(found, 2);
        assert!(background.ended().is_none());
    }

    #[test]
    fn errors_and_panics_are_results() {
        let mut background = Background::<()>::default();
        background.start(|| Err(anyhow!("full"))).expect("a thread");
        assert_eq!(background.wait().expect("a task").expect_err("full").to_string(), "full");
        background.start(|| panic!("on purpose")).expect("a thread");
        let error = background.wait().expect("a task").expect_err("a panic").to_string();
        assert!(error.contains("failed"), "{error}");
    }

    #[test]
    fn a_task_is_finished_before_the_next_and_before_the_end() {
        let (done, results) = channel();
        let task = |number: u64| {
            let done = done.clone();
            move || {
                std::thread::sleep(std::time::Duration::from_millis(20 / number));
                done.send(number)?;
                Ok(())
            }
        };
        let mut background = Background::default();
        background.start(task(1)).expect("a thread");
        background.start(task(2)).expect("a thread");
        drop(background);
        assert_eq!(results.try_iter().collect::<Vec<_>>(), [1, 2]);
    }
}
