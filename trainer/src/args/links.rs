//! Flags whose paths may be links to the Hugging Face Hub.

use std::path::PathBuf;

#[cfg(feature = "metrics")]
use super::MetricsCommand;
use super::{Command, DataCommand};
use crate::hub::resolve;

impl Command {
    /// Replaces the links among the paths of files that are read by paths of files in the cache.
    ///
    /// # Errors
    ///
    /// If a link is invalid, or its file cannot be had.
    pub fn resolve_links(&mut self) -> anyhow::Result<()> {
        let mut paths: Vec<&mut PathBuf> = Vec::new();
        match self {
            Self::Train(args) => {
                if let Some(from) = &mut args.from
                    && let Some(path) = resolve(from.as_ref())?
                {
                    *from = path.to_string_lossy().into_owned();
                }
                paths.extend(&mut args.options);
                paths.extend(&mut args.recipe.data);
                paths.extend(&mut args.recipe.validation_data);
                paths.extend(&mut args.quality.reference);
                paths.extend(&mut args.quality.network.network);
                paths.extend(args.output.vae.paths());
            }
            Self::Sample(args) => {
                paths.extend(&mut args.weights);
                paths.extend(args.vae.paths());
            }
            Self::Denoise(args) => paths.extend(&mut args.weights),
            Self::Info(args) => paths.extend(&mut args.model),
            Self::Export(args) => paths.push(&mut args.run),
            Self::Report(args) => paths.extend(&mut args.data),
            Self::Compare(args) => {
                paths.extend(&mut args.data);
                paths.extend(&mut args.validation_data);
            }
            Self::Data(DataCommand::Check(args)) => paths.push(&mut args.path),
            Self::Data(DataCommand::Encode(args)) => {
                paths.extend([&mut args.data, &mut args.vae]);
                paths.extend(&mut args.vae_config);
            }
            #[cfg(feature = "metrics")]
            Self::Evaluate(args) => {
                paths.push(&mut args.reference);
                paths.extend(&mut args.network.network);
                paths.extend(&mut args.weights);
                paths.extend(&mut args.images);
                paths.extend(args.vae.paths());
            }
            #[cfg(feature = "metrics")]
            Self::Metrics(MetricsCommand::Reference(args)) => {
                paths.push(&mut args.data);
                paths.extend(&mut args.network.network);
            }
            _ => {}
        }
        for path in paths {
            if let Some(found) = resolve(path)? {
                *path = found;
            }
        }
        Ok(())
    }
}
