//! `trainer export`: a weights file from a checkpoint.

use std::path::Path;

use anstream::println;
use anyhow::{Context, ensure};
use burn::tensor::Device;
use model::Model;
use model::card::Card;
use model::weights::{Precision, Weights, to_bytes};

use crate::args::ExportArgs;
use crate::checkpoint::{self, Checkpoint, Part, Progress};
use crate::report::warn;
use crate::run_folder::write_file;

/// The card of a run: what the run itself knows.
pub fn card(progress: &Progress) -> Card {
    let data = &progress.config.data;
    let data_name = data.file_name().unwrap_or(data.as_os_str()).to_string_lossy();
    Card {
        name: format!("DiffiT on {data_name}"),
        summary: String::new(),
        data: data_name.into_owned(),
        data_licence: String::new(),
        licence: String::new(),
        started_from: progress.started_from.clone(),
        images_seen: progress.images,
        loss: progress.loss,
        validation_loss: progress.validation_loss,
        hardware: hardware(),
        training_seconds: progress.seconds,
        made_with: format!("trainer {}", env!("CARGO_PKG_VERSION")),
        classes: progress.classes.clone(),
        class_groups: progress.class_groups.clone(),
    }
}

/// The processor of this machine, as far as the system tells.
fn hardware() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    format!("{cores} cores of {}", model.as_deref().unwrap_or(std::env::consts::ARCH))
}

/// Writes the moving average of a run as a weights file.
///
/// # Errors
///
/// If a value is not finite or the file system refuses.
pub fn write(
    path: &Path,
    model: &Model,
    card: &Card,
    precision: Precision,
) -> anyhow::Result<usize> {
    let parameters = || model.parameters();
    // The known answer is that of the weights as they are stored, which may be rounded.
    let rounded = to_bytes(&model.config, card, None, parameters(), precision)?;
    let device = Device::flex();
    let rounded = Model::from_weights(&Weights::parse(&rounded)?, &device);
    let answer = pollster::block_on(rounded.answer(&device)).context("the known answer")?;
    let bytes = to_bytes(&model.config, card, Some(&answer), parameters(), precision)?;
    write_file(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(bytes.len())
}

/// Runs the command.
///
/// # Errors
///
/// If the checkpoint cannot be read or the file not be written.
pub fn run(args: ExportArgs) -> anyhow::Result<()> {
    ensure!(
        args.overwrite || !args.output.exists(),
        "{} exists; --overwrite replaces it",
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
            || format!("{}: not a JSON object with fields of a model card", path.display());
        let text = std::fs::read_to_string(path).with_context(context)?;
        let fields: serde_json::Map<_, _> = serde_json::from_str(&text).with_context(context)?;
        for (field, value) in fields {
            let place = card
                .get_mut(&field)
                .with_context(|| format!("{}: no field `{field}`", path.display()))?;
            *place = value;
        }
    }
    let card: Card = serde_json::from_value(card).context("the model card")?;
    let model = checkpoint.model(Part::Ema, &Device::flex());
    let bytes = write(&args.output, &model, &card, args.precision.into())?;
    println!(
        "{}: {} parameters, {:.1} MB, after {} images",
        args.output.display(),
        model.network.parameter_count(),
        bytes as f64 / 1e6,
        checkpoint.progress.images
    );
    Ok(())
}
