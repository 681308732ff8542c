//! `trainer data check`: reports the contents of a dataset.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anstream::println;
use model::weights::Precision;

use crate::args::CheckArgs;
use crate::data::error::DataError;
use crate::data::latents::Latents;
use crate::data::source::{self, LISTED, is_latents};
use crate::data::statistics::Statistics;

/// Runs the command. The exit code is a failure if any image cannot be used, or, with --skip-bad, if
/// none can.
///
/// # Errors
///
/// If the dataset as a whole cannot be read.
pub fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    if is_latents(&args.path) {
        check_latents(&args.path)?;
        return Ok(ExitCode::SUCCESS);
    }
    let source = source::open(&args.path, true)?;
    let mut statistics = Statistics::default();
    source::visit_all(&*source, Some("reading"), &mut |item| {
        statistics.add(item);
        ControlFlow::Continue(())
    });
    if statistics.total == 0 {
        return Err(DataError::Empty(args.path).into());
    }
    println!("{}", args.path.display());
    println!("  images      {}", statistics.usable());
    if let Some(note) = &source.index().note {
        println!("  read        {note}");
    }
    for ((width, height), count) in &statistics.sizes {
        println!("  {:<11} {count}", format!("{width}x{height}"));
    }
    let classes = &source.index().classes.names;
    if classes.is_empty() {
        println!("  classes     none");
    }
    for (number, class) in classes.iter().enumerate() {
        println!("  {class:<24} {}", statistics.of_class(number));
    }
    let list = |values: [f64; 3]| values.map(|value| format!("{value:.4}")).join(" ");
    println!(
        "  mean        {}  (red, green, blue; 0 is black, 1 is white)",
        list(statistics.mean())
    );
    println!("  deviation   {}", list(statistics.deviation()));
    if statistics.bad.is_empty() {
        println!("  all images can be used");
        return Ok(ExitCode::SUCCESS);
    }
    let bad = &statistics.bad;
    let (what, listed) =
        if args.skip_bad { (" and are left out", LISTED) } else { ("", bad.len()) };
    println!("  {} cannot be used{what}:", bad.len());
    for (name, reason) in bad.iter().take(listed) {
        println!("    {name}: {reason}");
    }
    if let more @ 1.. = bad.len().saturating_sub(listed) {
        println!("    and {more} more");
    }
    let some_are_left = statistics.usable() > 0;
    if some_are_left && !args.skip_bad {
        println!("  (`train --skip-bad` leaves them out)");
    }
    Ok(if some_are_left && args.skip_bad { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reports the contents of a latent dataset.
fn check_latents(path: &Path) -> anyhow::Result<()> {
    let latents = Latents::open(path)?;
    let Latents { origin, shape: [c, h, w], labels, .. } = &latents;
    println!("{}", path.display());
    println!("  latents     {}, and as many of mirror images", latents.len());
    println!("  {:<11} {c} channels, scale {}", format!("{w}x{h}"), origin.vae.scale);
    if latents.precision == Precision::F16 {
        println!("  precision   f16");
    }
    for (number, class) in origin.classes.iter().enumerate() {
        let count = labels.iter().filter(|label| **label as usize == number).count();
        println!("  {class:<24} {count}");
    }
    println!("  SHA-256 of the images       {}", origin.pictures_sha256);
    println!("  SHA-256 of the autoencoder  {}", origin.vae_sha256);
    Ok(())
}
