//! The model card of a run.

use model::card::Card;

use crate::run::progress::Progress;

/// Returns the model card of a run. Fields that the run does not know are empty.
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

/// Returns the CPU of this machine, or its architecture if the model is unknown.
fn hardware() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    format!("{cores} cores of {}", model.as_deref().unwrap_or(std::env::consts::ARCH))
}
