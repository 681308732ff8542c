//! `trainer`: trains DiffiT, samples from it, exports its weights.

#![deny(unsafe_code)]

mod args;
mod augment;
mod autoencoder;
mod bench;
mod checkpoint;
mod class_vectors;
mod config;
mod data;
mod denoise;
mod device;
mod ema;
mod export;
mod gradients;
mod info;
mod labelled;
mod learner;
mod loader;
mod manual;
mod mapped;
mod memory;
mod nodes;
mod options;
mod plan;
mod report;
mod run_folder;
mod sample;
mod shipped;
mod signals;
mod tensorboard;
mod train;
mod weights_file;

use std::process::ExitCode;

use anstream::eprintln;
use args::{Args, Command, DataCommand};
use clap::Parser;

fn main() -> ExitCode {
    memory::keep();
    memory::advise();
    let result = match Args::parse().command.unwrap_or_default() {
        Command::Train(args) => train::run(args),
        Command::Sample(args) => sample::run(args).map(|()| ExitCode::SUCCESS),
        Command::Export(args) => export::run(args).map(|()| ExitCode::SUCCESS),
        Command::Denoise(args) => denoise::run(args).map(|()| ExitCode::SUCCESS),
        Command::Info(args) => info::run(args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(args).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => manual::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => manual::pages(&args).map(|()| ExitCode::SUCCESS),
        Command::Data(DataCommand::Check(args)) => data::commands::check(args),
        Command::Data(DataCommand::Encode(args)) => data::encode(args).map(|()| ExitCode::SUCCESS),
        Command::Data(DataCommand::Fetch(args)) => {
            data::commands::fetch(args).map(|()| ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
