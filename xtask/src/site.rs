//! The page.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::shell::{cargo, find, output, run};
use crate::tools::Wasm;

const TARGET: &str = "wasm32-unknown-unknown";

/// Where WebAssembly is built: apart from the rest, since the compiler may be another one.
fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from).join("web")
}

/// Builds it into `dist/`.
pub fn build(wasm: &Wasm, optimise: bool) -> anyhow::Result<()> {
    let mut trunk = Command::new("trunk");
    trunk.args(["build", "--release"]);
    trunk.env("TRUNK_OFFLINE", "true").env("TRUNK_SKIP_VERSION_CHECK", "true");
    trunk.env("CARGO_TARGET_DIR", std::path::absolute(target_folder())?);
    // Trunk reads this as a flag of its own and knows only true and false.
    trunk.env_remove("NO_COLOR");
    trunk.envs(wasm.iter().map(|(name, value)| (name, value)));
    run(&mut trunk)?;
    if optimise {
        for file in ["worker_bg.wasm", "app"] {
            self::optimise(Path::new("dist"), file)?;
        }
    }
    Ok(())
}

/// Makes the WebAssembly files smaller. The page's own file is left as trunk signed it.
fn optimise(dist: &Path, file: &str) -> anyhow::Result<()> {
    if file == "app" {
        return Ok(());
    }
    ensure!(
        find("wasm-opt").is_some(),
        "wasm-opt is missing; `npm install --global binaryen` brings one (Debian's is too old)"
    );
    let version = output("wasm-opt", &["--version"]).unwrap_or_default();
    eprintln!("{}", version.trim());
    let path = dist.join(file);
    let before = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    run(Command::new("wasm-opt").args(["-O2", "--strip-debug", "-o"]).arg(&path).arg(&path))?;
    println!("{file}: {before} bytes before, {} after", std::fs::metadata(&path)?.len());
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
    clippy.args(["--", "-D", "warnings"]).env("CARGO_TARGET_DIR", target_folder());
    run(&mut clippy)
}
