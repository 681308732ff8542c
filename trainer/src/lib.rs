//! `trainer`: trains DiffiT models and samples from them.
//!
//! A library for the program of this name and for the fuzz targets, which read files with it.

#![deny(unsafe_code)]

mod args;
mod averages;
mod commands;
mod comparison;
mod config;
mod data;
mod device;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod formats;
mod hub;
mod learner;
mod logging;
mod memory;
#[cfg(test)]
mod mutations;
mod plot;
mod run;
mod samples;
mod summary;
mod validation;
mod weights;

use std::process::ExitCode;

#[cfg(feature = "metrics")]
use crate::args::MetricsCommand;
use crate::args::{Args, Command, DataCommand, TableCommand};
#[cfg(feature = "metrics")]
use crate::commands::metrics as quality;
use crate::commands::{
    bench, compare, data as datasets, denoise, ema, export, info, manual, report, sample, table,
    train, verify,
};
use crate::run::report::print_message;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    memory::keep_freed_memory();
    memory::explain_out_of_memory();
    logging::start();
    let command = Args::read(std::env::args_os()).command.unwrap_or_default();
    run(command).unwrap_or_else(|error| {
        // The terminal may be closed.
        print_message!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs a command.
fn run(mut command: Command) -> anyhow::Result<ExitCode> {
    command.resolve_links()?;
    match command {
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Export(args) => export::run(args).map(|()| ExitCode::SUCCESS),
        Command::Ema(args) => ema::run(args).map(|()| ExitCode::SUCCESS),
        Command::Denoise(args) => denoise::run(args).map(|()| ExitCode::SUCCESS),
        Command::Info(args) => info::run(args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare::run(args),
        Command::Table(TableCommand::Params(args)) => {
            table::params(&args).map(|()| ExitCode::SUCCESS)
        }
        #[cfg(feature = "metrics")]
        Command::Evaluate(args) => quality::evaluate::run(args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "metrics")]
        Command::Metrics(MetricsCommand::Fetch(args)) => {
            quality::fetch::run(args).map(|()| ExitCode::SUCCESS)
        }
        #[cfg(feature = "metrics")]
        Command::Metrics(MetricsCommand::Reference(args)) => {
            quality::reference::run(args).map(|()| ExitCode::SUCCESS)
        }
        #[cfg(not(feature = "metrics"))]
        Command::Evaluate(args) => Err(args.error("evaluate")),
        #[cfg(not(feature = "metrics"))]
        Command::Metrics(args) => Err(args.error("metrics")),
        Command::Report(args) => report::run(args).map(|()| ExitCode::SUCCESS),
        Command::Plot(args) => report::plot(args).map(|()| ExitCode::SUCCESS),
        Command::Verify(args) => verify::run(args),
        Command::Bench(args) => bench::run(args).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => manual::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => manual::pages(&args).map(|()| ExitCode::SUCCESS),
        Command::Data(DataCommand::Check(args)) => datasets::check::run(args),
        Command::Data(DataCommand::Encode(args)) => {
            datasets::encode::run(args).map(|()| ExitCode::SUCCESS)
        }
        Command::Data(DataCommand::Fetch(args)) => {
            datasets::fetch::run(args).map(|()| ExitCode::SUCCESS)
        }
    }
}
