//! The page.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::shell::{cargo, find, run};
use crate::tools::Wasm;

const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's compiler builds in a folder of its own, so as not to undo what the other one built.
fn folder(wasm: &Wasm) -> anyhow::Result<Option<PathBuf>> {
    if wasm.is_empty() {
        return Ok(None);
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(Some(std::path::absolute(target.join("debian"))?))
}

/// Builds it into `dist/`.
pub fn build(wasm: &Wasm, optimise: bool) -> anyhow::Result<()> {
    let mut trunk = Command::new("trunk");
    trunk.args(["build", "--release"]);
    trunk.env("TRUNK_OFFLINE", "true").env("TRUNK_SKIP_VERSION_CHECK", "true");
    if let Some(folder) = folder(wasm)? {
        trunk.env("CARGO_TARGET_DIR", folder);
    }
    // Trunk reads this as a flag of its own and knows only true and false.
    trunk.env_remove("NO_COLOR");
    trunk.envs(wasm.iter().map(|(name, value)| (name, value)));
    run(&mut trunk)?;
    if optimise {
        self::optimise(Path::new("dist/worker_bg.wasm"))?;
    }
    Ok(())
}

/// Makes a WebAssembly file smaller. Only for the worker's: the page's own is signed in index.html.
fn optimise(path: &Path) -> anyhow::Result<()> {
    ensure!(
        find("wasm-opt").is_some(),
        "wasm-opt is missing; `npm install --global binaryen` brings one (Debian's is too old)"
    );
    let size = || {
        let file = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        anyhow::Ok(file.len())
    };
    let before = size()?;
    run(Command::new("wasm-opt").args(["-O2", "--strip-debug", "-o"]).arg(path).arg(path))?;
    println!("{}: {before} bytes before, {} after", path.display(), size()?);
    Ok(())
}

/// Lints what is only built for WebAssembly, as far as the compiler has a linter.
pub fn lint(wasm: &Wasm) -> anyhow::Result<()> {
    if !wasm.is_empty() {
        // Debian's compiler comes without clippy: the build itself has to do.
        return Ok(());
    }
    let mut clippy = cargo();
    clippy.args(["clippy", "--package", "web", "--target", TARGET, "--release", "--locked"]);
    clippy.args(["--", "-D", "warnings"]);
    run(&mut clippy)
}
