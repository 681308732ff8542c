//! Configuration errors and the checks that report them.

/// Error for an invalid configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration: {0}")]
pub struct ConfigError(pub(crate) String);

// Upper limits of sizes: larger values indicate a damaged or hostile file.
pub(crate) const MAX_CHANNELS: usize = 16_384;
pub(crate) const MAX_BLOCKS: usize = 1_024;
pub(crate) const MAX_CLASSES: usize = 1_000_000;
pub(crate) const MAX_RESOLUTION: usize = 4_096;
pub(crate) const MAX_TOKENS_PER_SIDE: usize = 128;
/// Largest side of an attention window: each head has side⁴ attention weights per window.
pub(crate) const MAX_WINDOW: usize = 64;

pub(crate) fn check(holds: bool, message: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError(message())) }
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

/// Returns the product of sizes, at most [`u64::MAX`].
pub(crate) fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(factor as u64))
}

/// Returns whether a field has its default. serde skips such a field, so that older programs can
/// read the file.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
