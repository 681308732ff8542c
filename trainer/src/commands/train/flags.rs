//! The flags of `trainer train` as options of the recipe.

use serde_json::{Value, json};

use crate::args::{MicroBatch, RecipeArgs};
use crate::run::launch::utf8;

/// Returns the size of a micro-batch as JSON: `null` if it is automatic.
fn micro_batch(size: MicroBatch) -> Value {
    match size {
        MicroBatch::Auto => Value::Null,
        MicroBatch::Size(size) => size.into(),
    }
}

/// Returns the options of Adam that are given as flags, as JSON.
fn adam(args: &RecipeArgs) -> Option<Value> {
    let values = [("lr", args.lr), ("weight_decay", args.weight_decay)];
    let given = values.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into())));
    let given: serde_json::Map<String, Value> = given.collect();
    (!given.is_empty()).then_some(Value::Object(given))
}

/// Returns the options of moving averages with power-function profiles that are given as flags, as
/// JSON.
fn ema_profiles(args: &RecipeArgs) -> Option<Value> {
    let stds = (!args.ema_profiles.is_empty()).then(|| json!(args.ema_profiles));
    let every = args.ema_snapshot_every.map(Value::from);
    let values = [("stds", stds), ("snapshot_every", every)];
    let given = values.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
    let given: serde_json::Map<String, Value> = given.collect();
    (!given.is_empty()).then_some(Value::Object(given))
}

/// Returns the options of the recipe that are given as flags, as JSON.
///
/// # Errors
///
/// If a path is not UTF-8.
pub fn recipe_json(args: &RecipeArgs) -> anyhow::Result<Value> {
    let data = args.data.as_deref().map(|path| utf8("--data", path)).transpose()?;
    let validation_data = args.validation_data.as_deref();
    let validation_data =
        validation_data.map(|path| utf8("--validation-data", path)).transpose()?;
    let validation = |images| match (images, validation_data) {
        (0, _) => Value::Null,
        (images, None) => json!({ "images": images }),
        (images, Some(path)) => json!({ "images": images, "data": path }),
    };
    let values = [
        ("data", data.map(Value::from)),
        ("resize", args.resize.map(Value::from)),
        ("skip_bad", args.skip_bad.map(Value::from)),
        ("batch", args.batch.map(Value::from)),
        ("micro_batch", args.micro_batch.map(micro_batch)),
        ("gradient_checkpointing", args.gradient_checkpointing.map(Value::from)),
        ("precision", args.precision.map(|precision| json!(precision))),
        ("clip", args.clip.map(Value::from)),
        ("augment", args.augment.map(Value::from)),
        ("label_dropout", args.label_dropout.map(Value::from)),
        ("class_vectors", args.class_vectors.map(|vectors| json!(vectors))),
        ("duration", args.duration.map(Value::from)),
        ("adam", adam(args)),
        ("lr_ramp", args.lr_ramp.map(Value::from)),
        ("lr_decay", args.lr_decay.map(Value::from)),
        ("lr_decay_shape", args.lr_decay_shape.map(|shape| json!(shape))),
        ("lr_inverse_sqrt", args.lr_inverse_sqrt.map(Value::from)),
        ("optimizer", args.optimizer.map(|optimizer| json!(optimizer))),
        ("muon_lr", args.muon_lr.map(Value::from)),
        ("immiscible", args.immiscible.map(Value::from)),
        ("ema_profiles", ema_profiles(args)),
        ("validation", args.validate.map(validation)),
        ("seed", args.seed.map(Value::from)),
    ];
    let given = values.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
    Ok(Value::Object(given.collect()))
}
