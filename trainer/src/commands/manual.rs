//! `trainer completions` and `trainer man`: shell completions and man pages.

use std::io::Write;

use anyhow::Context;

use crate::args::{Args, CompletionsArgs, ManArgs};

/// Runs `trainer completions`.
///
/// # Errors
///
/// If standard output cannot be written to.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Args::full_command(), "trainer", &mut text);
    std::io::stdout().write_all(&text).context("cannot write the completions")
}

/// Runs `trainer man`.
///
/// # Errors
///
/// If the folder cannot be written to.
pub fn pages(args: &ManArgs) -> anyhow::Result<()> {
    let context = || format!("cannot write man pages to {}", args.folder.display());
    std::fs::create_dir_all(&args.folder).with_context(context)?;
    clap_mangen::generate_to(Args::full_command(), &args.folder).with_context(context)
}
