//! Image quality while training, in a program without the feature `metrics`: nothing is measured, and
//! asking for it is an error.

use anyhow::bail;
use burn::tensor::Device;
use model::config::ModelConfig;
use model::vae::Vae;

use super::invocation;
use super::session::Session;
use crate::args::QualityArgs;
use crate::run::folder::RunFolder;
use crate::run::progress::Measured;
use crate::run::signals::StopSignal;

/// The files and flags of a measurement: there is no value of it.
pub enum Checked {}

/// The measurement of image quality: there is no value of it.
pub enum Quality {}

impl Checked {
    /// Fails if something is to be measured.
    ///
    /// # Errors
    ///
    /// If something is to be measured.
    pub fn open(
        args: &QualityArgs,
        _: &ModelConfig,
        _: Option<&Vae>,
        _: &Device,
    ) -> anyhow::Result<Option<Self>> {
        if args.metric.is_empty() || args.metric_every == Some(0) {
            return Ok(None);
        }
        let flags: Vec<String> = args.metric.iter().map(|metric| metric.flag()).collect();
        bail!(
            "--metric {}: this program was built without metrics; build it with them and run the \
             command again:\n  {}\nor use --metric-every 0 to train without measuring",
            flags.join(","),
            invocation::with_metrics()
        );
    }

    /// Is never called.
    pub fn prepare(self) -> anyhow::Result<Quality> {
        match self {}
    }
}

impl Quality {
    /// Is never called.
    pub fn describe(&self) -> String {
        match *self {}
    }

    /// Is never called.
    pub fn find_best(&mut self, _: &RunFolder) -> anyhow::Result<()> {
        match *self {}
    }
}

impl Session {
    /// Does nothing.
    pub fn measure(&mut self, _: &StopSignal) {}

    /// Returns `None`.
    pub fn best(&self) -> Option<&Measured> {
        None
    }
}
