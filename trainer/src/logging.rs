//! Diagnostics on standard error, as `RUST_LOG` asks for: those of the training loop, and those of the
//! libraries below it, such as the drivers of a GPU.

use anstream::eprintln;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Name of the environment variable.
const VARIABLE: &str = "RUST_LOG";

/// Starts to print diagnostics. Without `RUST_LOG`, those are errors alone.
pub fn start() {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(filter(&text).unwrap_or_else(|message| {
            eprintln!("{message}");
            errors()
        }))
        .with_writer(anstream::stderr)
        .init();
}

/// Returns the filter of a value of `RUST_LOG`.
///
/// # Errors
///
/// A warning for the user, if the value is not valid.
fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::ERROR.into())
        .parse(text)
        .map_err(|error| format!("warning: {VARIABLE}={text} is ignored: {error}"))
}

fn errors() -> EnvFilter {
    EnvFilter::default().add_directive(LevelFilter::ERROR.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_the_default() {
        for text in ["", "trainer=debug", "info", "wgpu_core=warn,trainer=trace"] {
            assert!(filter(text).is_ok(), "{text}");
        }
        assert_eq!(filter("").expect("valid").max_level_hint(), Some(LevelFilter::ERROR));
        assert_eq!(
            filter("trainer=debug").expect("valid").max_level_hint(),
            Some(LevelFilter::DEBUG)
        );
        let warning = filter("trainer=loud").expect_err("no such level");
        assert!(warning.contains("RUST_LOG=trainer=loud"), "{warning}");
        assert_eq!(errors().max_level_hint(), Some(LevelFilter::ERROR));
    }
}
