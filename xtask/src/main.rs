//! Chores of this repository.

#![forbid(unsafe_code)]

mod emoji;

use std::path::Path;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root");
    match std::env::args().nth(1).as_deref() {
        Some("emoji") => emoji::pack(root),
        _ => bail!("cargo xtask emoji"),
    }
}
