//! Flags of `trainer compare` and `trainer table`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::compute::DeviceArgs;

/// Flags of `trainer compare`.
#[derive(Args, Clone)]
pub struct CompareArgs {
    /// Plan: a JSON file that names networks, options and seeds, such as those in docs/experiments.
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Folder for the runs, their results, and the tables and plots.
    ///
    /// An interrupted comparison goes on where it stopped.
    #[arg(long, short, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Training data, in place of those of the plan.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Dataset to take the validation images from, in place of that of the plan.
    #[arg(long, value_name = "PATH")]
    pub validation_data: Option<PathBuf>,
    /// Number of images that each network is trained on, in place of that of the plan.
    #[arg(long, value_name = "IMAGES", value_parser = super::parse::images)]
    pub duration: Option<u64>,
    /// Print the networks with their sizes, then exit.
    #[arg(long)]
    pub dry_run: bool,
    /// Print only warnings and the result.
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Subcommand)]
pub enum TableCommand {
    /// Print parameters and multiply-adds of networks, by both ways of counting.
    ///
    /// Without presets, prints Table 9 of the paper, recomputed.
    Params(ParamsArgs),
}

/// Flags of `trainer table params`.
#[derive(Args, Clone)]
pub struct ParamsArgs {
    /// Presets to list; `all` lists every preset.
    #[arg(value_name = "PRESET")]
    pub presets: Vec<String>,
    /// Format of the table.
    #[arg(long, value_enum, default_value_t)]
    pub format: TableFormat,
}

/// Format of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Markdown.
    #[default]
    Markdown,
    /// Comma-separated values.
    Csv,
}
