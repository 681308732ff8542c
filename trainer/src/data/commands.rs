//! `trainer data check` and `trainer data fetch`.

use std::process::ExitCode;

use super::fetch::{DOWNLOADS, fetch as download};
use super::{DataError, Latents, Report, is_latents, read};
use crate::args::{CheckArgs, FetchArgs};
use anstream::println;

/// Reports what a data set holds. Ends with failure if any picture cannot be used.
///
/// # Errors
///
/// If the data set as a whole cannot be read.
pub fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    if is_latents(&args.path) {
        let latents = Latents::open(&args.path)?;
        let Latents { origin, shape: [c, h, w], labels, .. } = &latents;
        println!("{}", args.path.display());
        println!("  latents     {}, each with that of its mirror image", latents.len());
        println!("  {:<11} {c} channels, scale {}", format!("{w}x{h}"), origin.vae.scale);
        for (number, class) in origin.classes.iter().enumerate() {
            let count = labels.iter().filter(|label| **label as usize == number).count();
            println!("  {class:<24} {count}");
        }
        println!("  of pictures with SHA-256 {}", origin.pictures_sha256);
        println!("  by an autoencoder with SHA-256 {}", origin.vae_sha256);
        return Ok(ExitCode::SUCCESS);
    }
    let contents = read(&args.path)?;
    let report = Report::new(&contents);
    if contents.items.is_empty() {
        return Err(DataError::Empty(args.path).into());
    }
    println!("{}", args.path.display());
    println!("  pictures    {}", report.usable());
    for ((width, height), count) in &report.sizes {
        println!("  {:<11} {count}", format!("{width}x{height}"));
    }
    if report.classes.is_empty() {
        println!("  classes     none");
    }
    for (class, count) in &report.classes {
        println!("  {class:<24} {count}");
    }
    let list = |values: [f64; 3]| values.map(|value| format!("{value:.4}")).join(" ");
    println!("  mean        {}  (red, green, blue; 0 is black, 1 is white)", list(report.mean));
    println!("  deviation   {}", list(report.deviation));
    if report.bad.is_empty() {
        println!("  all of them can be used");
        return Ok(ExitCode::SUCCESS);
    }
    println!("  {} cannot be used:", report.bad.len());
    for (name, reason) in &report.bad {
        println!("    {name}: {reason}");
    }
    Ok(ExitCode::FAILURE)
}

/// Downloads a data set.
///
/// # Errors
///
/// If the network, the disk or the hash says no.
pub fn fetch(args: FetchArgs) -> anyhow::Result<()> {
    let known = DOWNLOADS.iter().find(|download| download.name == args.name);
    let known = known.expect("the command line allows only known names");
    let path = download(known, args.url.as_deref().unwrap_or(known.url), &args.to)?;
    println!("{} is there and has the right hash", path.display());
    Ok(())
}
