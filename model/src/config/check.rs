//! Configuration errors and the checks that report them.

/// Why a configuration cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model configuration cannot be built: {0}")]
pub struct ConfigError(pub(crate) String);

/// Sizes above these are taken for a damaged or hostile file.
pub(crate) const MAX_CHANNELS: usize = 16_384;
pub(crate) const MAX_BLOCKS: usize = 1_024;
pub(crate) const MAX_CLASSES: usize = 1_000_000;
pub(crate) const MAX_RESOLUTION: usize = 4_096;
pub(crate) const MAX_TOKENS_PER_SIDE: usize = 128;
/// Attention has as many weights as the fourth power of it, for every head.
pub(crate) const MAX_WINDOW: usize = 64;

pub(crate) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError(otherwise())) }
}

pub(crate) fn within(
    field: &str,
    value: usize,
    low: usize,
    high: usize,
) -> Result<(), ConfigError> {
    check((low..=high).contains(&value), || {
        format!("{field} is {value}, not within {low} to {high}")
    })
}

pub(crate) fn positive(field: &str, value: f64) -> Result<(), ConfigError> {
    check(value.is_finite() && value > 0.0, || {
        format!("{field} is {value}, which is not a positive number")
    })
}

/// Whether `n` is 0: serde leaves such a field out, so that older programs read the file.
pub(crate) fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Whether a field has its default, and is left out for the same reason.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
