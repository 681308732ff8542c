//! `trainer export`: writes a weights file from a checkpoint or another weights file.

use anstream::println;
use anyhow::{Context, ensure};
use burn::tensor::Device;
use model::card::Card;

use crate::args::ExportArgs;
use crate::weights::load::load;
use crate::weights::save::save;

/// Runs the command.
///
/// # Errors
///
/// If the weights cannot be read or the file cannot be written.
pub fn run(args: ExportArgs) -> anyhow::Result<()> {
    ensure!(
        args.overwrite || !args.output.is_file(),
        "{} exists; use --overwrite to replace it",
        args.output.display()
    );
    let loaded = load(Some(&args.run), &Device::flex())?;
    // It was measured on the weights as they were rounded before.
    let mut card = serde_json::to_value(Card { quality: None, ..loaded.card })?;
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
    let bytes = save(&args.output, &loaded.model, &card, args.precision.into())?;
    println!(
        "{}: {} parameters, {:.1} MB, after {} images",
        args.output.display(),
        loaded.model.network.parameter_count(),
        bytes as f64 / 1e6,
        card.images_seen
    );
    Ok(())
}
