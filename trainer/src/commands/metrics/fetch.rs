//! `trainer metrics fetch`: downloads the weights of the feature network.

use anstream::println;
use metrics::network::inception::{PUBLISHED, SIZE, URL};

use crate::args::FetchNetworkArgs;
use crate::data::fetch::{Download, fetch};

/// Runs the command.
///
/// # Errors
///
/// If the download fails, the file cannot be written, or its hash is wrong.
pub fn run(args: FetchNetworkArgs) -> anyhow::Result<()> {
    let (file, sha256) = (PUBLISHED.file, PUBLISHED.sha256[0]);
    let download = Download { name: "inception", url: URL, file, sha256, size: SIZE };
    let path = fetch(&download, args.url.as_deref().unwrap_or(URL), &args.to)?;
    println!("{}: downloaded and verified", path.display());
    Ok(())
}
