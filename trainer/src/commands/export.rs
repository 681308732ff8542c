//! `trainer export`: writes a weights file from a checkpoint.

use anstream::println;
use anyhow::{Context, ensure};
use burn::tensor::Device;
use model::card::Card;

use crate::args::ExportArgs;
use crate::run::checkpoint::{self, Checkpoint, Part};
use crate::run::report::warn;
use crate::weights::card::card;
use crate::weights::save::save;

/// Runs the command.
///
/// # Errors
///
/// If the checkpoint cannot be read or the file cannot be written.
pub fn run(args: ExportArgs) -> anyhow::Result<()> {
    ensure!(
        args.overwrite || !args.output.exists(),
        "{} exists; use --overwrite to replace it",
        args.output.display()
    );
    let checkpoint = if args.run.is_dir() {
        checkpoint::find(&args.run, warn)?.2
    } else {
        Checkpoint::load(&args.run)?
    };
    let mut card = serde_json::to_value(card(&checkpoint.progress))?;
    if let Some(path) = &args.card {
        let context =
            || format!("{}: expected a JSON object with fields of the model card", path.display());
        let text = std::fs::read_to_string(path).with_context(context)?;
        let fields: serde_json::Map<_, _> = serde_json::from_str(&text).with_context(context)?;
        for (field, value) in fields {
            let place = card
                .get_mut(&field)
                .with_context(|| format!("{}: unknown field `{field}`", path.display()))?;
            *place = value;
        }
    }
    let card: Card = serde_json::from_value(card).context("the model card")?;
    let model = checkpoint.model(Part::Ema, &Device::flex());
    let bytes = save(&args.output, &model, &card, args.precision.into())?;
    println!(
        "{}: {} parameters, {:.1} MB, after {} images",
        args.output.display(),
        model.network.parameter_count(),
        bytes as f64 / 1e6,
        checkpoint.progress.images
    );
    Ok(())
}
