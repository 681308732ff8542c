//! `trainer train`: trains a model.

pub mod grid;
mod invocation;
mod log;
mod messages;
mod plan;
mod saves;
mod session;
mod setup;

use std::process::ExitCode;

use anyhow::Context;

use crate::args::TrainArgs;
use crate::run::launch;
use crate::run::signals::StopSignal;

/// Runs the command.
///
/// # Errors
///
/// If training cannot start or continue. Saved checkpoints are unaffected.
pub fn run(mut args: TrainArgs) -> anyhow::Result<ExitCode> {
    let stop = StopSignal::listen().context("cannot install signal handlers")?;
    launch::complete(&mut args)?;
    let Some(mut session) = setup::open(&args)? else { return Ok(ExitCode::SUCCESS) };
    session.sample();
    let stopped = loop {
        let step = session.step()?;
        session.log(&step)?;
        let stopped = stop.exit_code();
        let last = session.is_last(stopped.is_some())?;
        let complete = last && stopped.is_none();
        if complete || session.is_due(session.intervals.validate) {
            session.validate();
        }
        if complete || session.is_due(session.intervals.sample) {
            session.sample();
        }
        if last || session.must_save() {
            session.save()?;
        }
        if last {
            break stopped;
        }
    };
    session.finish(stopped)
}
