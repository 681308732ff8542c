//! Flags of `trainer report`, `trainer plot` and `trainer verify`.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::compute::DeviceArgs;

/// Flags of `trainer report`.
#[derive(Args, Clone)]
pub struct ReportArgs {
    /// Run folder.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// HTML file to write.
    ///
    /// The default is report.html in the run folder.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Training data, if it was moved.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Number of samples for which the nearest training images are looked up; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub samples: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Flags of `trainer plot`.
#[derive(Args, Clone)]
pub struct PlotArgs {
    /// Run folders.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// SVG file to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Value to plot over the number of images seen: loss, lr, gradient-norm, speed, or a metric of
    /// --metric by its name in stats.jsonl, such as FID or KID-lite0.
    ///
    /// Upper and lower case are the same, and the beginning of a name suffices if it is of one only.
    #[arg(long, value_name = "VALUE", default_value = "loss", value_parser = plot_value)]
    pub value: PlotValue,
}

/// Flags of `trainer verify`.
#[derive(Args, Clone)]
pub struct VerifyArgs {
    /// Run folder, checkpoint or weights file.
    #[arg(value_name = "RUN|FILE")]
    pub path: PathBuf,
}

/// A value to plot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlotValue {
    /// A value that every log has.
    Known(Quantity),
    /// Another value, such as a metric, by its name or the beginning of its name.
    Named(String),
}

fn plot_value(text: &str) -> Result<PlotValue, String> {
    if text.is_empty() {
        return Err("the name is empty".into());
    }
    let known = Quantity::from_str(text, true).map(PlotValue::Known);
    Ok(known.unwrap_or_else(|_| PlotValue::Named(text.into())))
}

/// A value of the log that has a chart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Quantity {
    /// Training loss, and validation loss if there is one.
    #[default]
    Loss,
    /// Learning rate.
    Lr,
    /// Gradient norm.
    GradientNorm,
    /// Images per second.
    Speed,
}

impl Quantity {
    /// All values, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Loss, Self::Lr, Self::GradientNorm, Self::Speed];

    /// Names of values of the log that have a chart, or, as the last five, say much the same as one.
    pub const FIELDS: [&str; 10] = [
        "loss",
        "validation_loss",
        "lr",
        "gradient_norm",
        "images_per_second",
        "gflops_per_second",
        "data_wait",
        "forward_backward",
        "optimizer",
        "share_of_peak",
    ];

    /// Returns the name of the value in the log.
    pub fn field(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Lr => "lr",
            Self::GradientNorm => "gradient_norm",
            Self::Speed => "images_per_second",
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Lr => "learning rate",
            Self::GradientNorm => "gradient norm",
            Self::Speed => "images per second",
        })
    }
}
