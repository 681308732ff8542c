//! `trainer data fetch`: downloads a dataset.

use anstream::println;

use crate::args::FetchArgs;
use crate::data::fetch::{DOWNLOADS, fetch};

/// Runs the command.
///
/// # Errors
///
/// If the download fails, the file cannot be written, or its hash is wrong.
pub fn run(args: FetchArgs) -> anyhow::Result<()> {
    let download = DOWNLOADS.iter().find(|download| download.name == args.name);
    let download = download.expect("the command line allows only known names");
    let path = fetch(download, args.url.as_deref().unwrap_or(download.url), &args.to)?;
    println!("{}: downloaded and verified", path.display());
    Ok(())
}
