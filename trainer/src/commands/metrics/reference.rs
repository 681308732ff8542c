//! `trainer metrics reference`: computes reference statistics of a dataset.

use anstream::println;
use anyhow::{Context, ensure};
use metrics::reference::{Info, to_bytes};
use metrics::rows::{Rows, Selected};
use metrics::statistics::Statistics;
use serde_json::json;

use super::collect::Collector;
use super::load_network;
use crate::args::ReferenceArgs;
use crate::files::atomic::write;

/// Runs the command.
///
/// # Errors
///
/// If the network or the images cannot be used, or a file cannot be written.
pub fn run(args: ReferenceArgs) -> anyhow::Result<()> {
    let output = args.output.display();
    ensure!(
        args.overwrite || !args.output.is_file(),
        "{output} exists; use --overwrite to replace it"
    );
    let device = args.device.device.open()?;
    let network = load_network(&args.network, &device)?;
    let source = json!({ "images": args.data });
    let batch = args.batch as usize;
    let mut collector = Collector::new(&network, args.state.as_deref(), &source, batch, None)?;
    collector.add_all(&args.data)?;
    let store = collector.finish()?;

    let unusable = || format!("{}: cannot be a reference", args.data.display());
    let gaussian = |rows: &dyn Rows| Statistics::of(rows).and_then(|sums| sums.gaussian());
    let pooled = gaussian(&store.pooled()).with_context(unusable)?;
    let spatial = match network.spatial_dim() {
        0 => None,
        _ => Some(gaussian(&store.spatial()).with_context(unusable)?),
    };
    let (count, kept) = (store.len(), args.keep.min(store.len()));
    let numbers: Vec<usize> = (0..kept).map(|i| i * count / kept).collect();
    let features = Selected { rows: &store.pooled(), numbers: &numbers }.read(0..kept)?;
    let info = Info {
        network: network.identity.clone(),
        images: count,
        data: args.data.file_name().unwrap_or(args.data.as_os_str()).to_string_lossy().into(),
        made_with: format!("trainer {}", env!("CARGO_PKG_VERSION")),
    };
    to_bytes(&info, &pooled, spatial.as_ref(), &features)
        .and_then(|bytes| write(&args.output, &bytes))
        .with_context(|| format!("cannot write {output}"))?;
    println!("{output}: statistics of {count} images, and the features of {kept} of them");
    Ok(())
}
