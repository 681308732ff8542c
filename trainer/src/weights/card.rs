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
        quality: None,
        sampling: None,
        hardware: progress.hardware.clone(),
        training_seconds: progress.seconds,
        made_with: format!("trainer {}", env!("CARGO_PKG_VERSION")),
        classes: progress.classes.clone(),
        class_groups: progress.class_groups.clone(),
    }
}
