//! The commands of `trainer metrics`, and `trainer evaluate`.

pub mod collect;
pub mod evaluate;
pub mod fetch;
pub mod reference;
pub mod report;
pub mod scores;

use std::path::{Path, PathBuf};

use anyhow::ensure;
use burn::tensor::Device;
use metrics::network::{FeatureNetwork, Kind};

use crate::args::NetworkArgs;

/// Loads the feature network.
///
/// # Errors
///
/// If its weights cannot be used.
pub fn load_network(args: &NetworkArgs, device: &Device) -> anyhow::Result<FeatureNetwork> {
    let kind = Kind::from(args.features);
    let path = match &args.network {
        Some(path) => path.clone(),
        None => {
            let path = Path::new("data").join(kind.published().file);
            ensure!(
                path.exists(),
                "there are no weights of the feature network, {}: {}, --network names another file",
                path.display(),
                kind.how_to_get()
            );
            path
        }
    };
    Ok(FeatureNetwork::load(kind, &path, args.allow_unknown_network, device)?)
}

/// Returns the path of the state file of the reference's images.
fn state_of_reference(state: &Path) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(".reference");
    path.into()
}
