//! `trainer train`: trains a model.

mod change;
mod flags;
pub mod grid;
mod invocation;
mod log;
mod messages;
mod plan;
#[cfg(feature = "metrics")]
mod quality;
#[cfg(not(feature = "metrics"))]
#[path = "without_quality.rs"]
mod quality;
mod saves;
mod session;
mod setup;

use std::process::ExitCode;

use anyhow::Context;

use self::session::Session;
use crate::args::TrainArgs;
use crate::config::TrainConfig;
use crate::run::launch;
use crate::run::signals::{self, StopSignal};

/// Message when a signal arrives. A step of a large batch can take minutes.
pub const STOPPING: &str = "stopping after this step, then saving a checkpoint; a second signal ends at once, without saving";

/// Returns the recipe of a run.
///
/// # Errors
///
/// If the flags contradict each other, or a file cannot be used.
pub fn recipe(args: &TrainArgs) -> anyhow::Result<TrainConfig> {
    Ok(plan::Plan::new(args)?.config)
}

/// Runs the command.
///
/// # Errors
///
/// If training cannot start or continue. Saved checkpoints are unaffected.
pub fn run(mut args: TrainArgs) -> anyhow::Result<ExitCode> {
    let context = "cannot install signal handlers";
    let stop = StopSignal::listen().context(context)?;
    if !(args.output.quiet || args.output.json || args.dry_run) {
        signals::announce(STOPPING).context(context)?;
    }
    launch::complete(&mut args)?;
    train(&args, &stop)
}

/// Trains until the run is complete, its time is over, or a signal stops it. Returns the exit code of
/// the program.
///
/// # Errors
///
/// As [`run`].
pub fn train(args: &TrainArgs, stop: &StopSignal) -> anyhow::Result<ExitCode> {
    let Some(mut session) = setup::open(args)? else { return Ok(ExitCode::SUCCESS) };
    session.sample();
    if session.has_missed_a_measurement() {
        session.measure(stop);
    }
    let stopped = train_until_the_end(&mut session, stop);
    if stopped.is_err() {
        session.finish_saving();
    }
    session.finish(stopped?)
}

/// Trains until the run is complete, its time is over, or a signal stops it. Returns the exit code of
/// the signal.
fn train_until_the_end(
    session: &mut Session,
    stop: &StopSignal,
) -> anyhow::Result<Option<ExitCode>> {
    // An earlier process may have ended between the last checkpoint and the weights file.
    if session.is_complete() {
        return Ok(None);
    }
    loop {
        let step = session.step(stop.exit_code().is_some())?;
        session.log(&step)?;
        session.look_after_saves();
        let stopped = stop.exit_code();
        let last = session.is_last(stopped.is_some());
        let complete = last && stopped.is_none();
        if complete || session.is_due(session.intervals.validate) {
            session.validate();
        }
        if complete || session.is_due(session.intervals.sample) {
            session.sample();
        }
        if session.must_measure(last) {
            session.measure(stop);
        }
        if complete || session.intervals.snapshot.is_some_and(|every| session.is_due(every)) {
            session.write_snapshots();
        }
        if last {
            session.save_now()?;
            return Ok(stopped);
        }
        if session.must_save() {
            session.save();
        }
    }
}
