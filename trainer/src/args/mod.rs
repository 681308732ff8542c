//! The command line.

mod compare;
mod compute;
mod data;
mod defaults;
mod links;
#[cfg(feature = "metrics")]
mod metrics;
mod parse;
mod quality;
mod runs;
mod sampling;
mod tools;
mod train;
mod weights;
#[cfg(not(feature = "metrics"))]
mod without_metrics;

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Id, Parser, Subcommand};

pub use compare::{CompareArgs, ParamsArgs, TableCommand, TableFormat};
pub use data::{CheckArgs, DataCommand, EncodeArgs, FetchArgs};
#[cfg(feature = "metrics")]
pub use metrics::{EvaluateArgs, FetchNetworkArgs, MetricsCommand, ReferenceArgs};
pub use parse::{MicroBatch, Shard, seeds};
#[cfg(feature = "metrics")]
pub use quality::NetworkArgs;
pub use quality::{FeaturesKind, MetricKind, QualityArgs};
pub use runs::{PlotArgs, PlotValue, Quantity, ReportArgs, VerifyArgs};
pub use sampling::{GuidanceArgs, SampleArgs, VaeArgs};
pub use tools::{BenchArgs, CompletionsArgs, ManArgs, Measure};
pub use train::{OutputArgs, RecipeArgs, TrainArgs};
pub use weights::{DenoiseArgs, EmaArgs, ExportArgs, InfoArgs};
#[cfg(not(feature = "metrics"))]
pub use without_metrics::NotBuiltArgs;

/// Train DiffiT models and sample from them.
///
/// Without a command, trains the preset `tiny-emoji` on the embedded emoji dataset for a few
/// minutes, starting from the shipped weights.
#[derive(Parser)]
#[command(version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 invalid arguments, 129 ended by a closed \
terminal (SIGHUP), 130 interrupted by Ctrl-C, 143 terminated by SIGTERM. An interrupted run is saved.";

// There is one value of it per process.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
pub enum Command {
    /// Train a model, or resume a run.
    Train(TrainArgs),
    /// Generate images.
    Sample(SampleArgs),
    /// Write the weights of a run or a checkpoint to a weights file.
    Export(ExportArgs),
    /// Reconstruct a moving average of any length from the snapshots of a run, after training.
    Ema(EmaArgs),
    /// Run the denoiser on tensors from a file, for comparison with other implementations.
    Denoise(DenoiseArgs),
    /// Print the configuration, the sizes and the model card of a model.
    Info(InfoArgs),
    /// Write a report of a run: an HTML file with its charts, samples and settings.
    Report(ReportArgs),
    /// Plot the log of one or more runs to an SVG file.
    Plot(PlotArgs),
    /// Check the files of a run against their hashes.
    Verify(VerifyArgs),
    /// Check, download or encode a dataset.
    #[command(subcommand)]
    Data(DataCommand),
    /// Train the networks of a plan alike, and compare their losses.
    Compare(CompareArgs),
    /// Print a table about the networks.
    #[command(subcommand)]
    Table(TableCommand),
    /// Measure the quality of generated images: FID, sFID, Inception Score, precision, recall, KID.
    #[cfg(feature = "metrics")]
    Evaluate(EvaluateArgs),
    /// Measure the quality of generated images (needs the crate feature `metrics`).
    #[cfg(not(feature = "metrics"))]
    Evaluate(NotBuiltArgs),
    /// Download the feature network of FID, or compute reference statistics.
    #[cfg(feature = "metrics")]
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// Prepare the measurement of image quality (needs the crate feature `metrics`).
    #[cfg(not(feature = "metrics"))]
    Metrics(NotBuiltArgs),
    /// Measure speed and memory use.
    Bench(BenchArgs),
    /// Print shell completions.
    Completions(CompletionsArgs),
    /// Write man pages.
    Man(ManArgs),
}

impl Args {
    /// Returns the command line, with the defaults of the recipe in the help of `trainer train`.
    pub fn full_command() -> clap::Command {
        defaults::shown(Self::command())
    }

    /// Parses a command line, and exits if it is invalid.
    pub fn read<I, T>(command_line: I) -> Self
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Self::full_command().get_matches_from(command_line);
        let mut args = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let (Some(Command::Train(train)), Some((_, flags))) =
            (&mut args.command, matches.subcommand())
        {
            let given =
                |id: &&Id| flags.value_source(id.as_str()) == Some(ValueSource::CommandLine);
            train.given = flags.ids().filter(given).map(ToString::to_string).collect();
        }
        args
    }
}

impl Default for Command {
    /// `trainer train` with every flag at its default.
    fn default() -> Self {
        Self::Train(TrainArgs::default())
    }
}

impl Default for TrainArgs {
    /// Every flag at its default.
    fn default() -> Self {
        match Args::parse_from(["trainer", "train"]).command {
            Some(Command::Train(args)) => args,
            _ => unreachable!("the command is `train`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
