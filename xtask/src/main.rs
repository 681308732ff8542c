//! Chores of this repository. `cargo xtask` lists them.

#![forbid(unsafe_code)]

mod emoji;
mod shell;
mod site;
mod tools;

use std::path::Path;
use std::process::{Command, ExitCode};

use shell::{cargo, run};

const USAGE: &str = "\
cargo xtask test       set up what is missing, then run every check and every test
cargo xtask setup      install, or name, what the page and its tests need
cargo xtask site       build the page into dist/; --optimise makes it smaller, with wasm-opt
cargo xtask device D   hold a GPU (D: cuda, vulkan or wgpu) against the processor
cargo xtask bench      measure the built page in a browser: sizes, start, pictures
cargo xtask manifest   write www/weights/manifest.json for the files beside it
cargo xtask emoji      fetch and pack the embedded data set";

fn main() -> ExitCode {
    match chore() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for, in the root of the repository.
fn chore() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root");
    std::env::set_current_dir(root)?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["test"] => test(),
        ["setup"] => tools::set_up().map(|_| ()),
        ["site"] => site::build(&tools::set_up()?, false),
        ["site", "--optimise"] => site::build(&tools::set_up()?, true),
        ["bench"] => bench(),
        ["device", kind @ ("cuda" | "vulkan" | "wgpu")] => device(kind),
        ["manifest"] => run(cargo().env("DIFFIT_UPDATE", "1").args([
            "test",
            "--workspace",
            "--lib",
            "the_manifest_is_that_of_the_files",
        ])),
        ["emoji"] => emoji::pack(root),
        _ => {
            println!("{USAGE}");
            Ok(())
        }
    }
}

/// The tests that need a GPU.
fn device(kind: &str) -> anyhow::Result<()> {
    let mut test = cargo();
    test.env("DIFFIT_DEVICE", kind).args(["test", "--package", "trainer", "--features", kind]);
    run(test.args(["--locked", "--test", "device", "--", "--ignored", "--test-threads=1"]))
}

/// How fast the page in `dist/` is.
fn bench() -> anyhow::Result<()> {
    // The whole workspace, for the same features as everything else, and so without building twice.
    run(cargo().args(["build", "--workspace", "--examples", "--locked"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    run(&mut Command::new(Path::new(&target).join("debug/examples/page_speed")))
}

/// Everything that has to hold, cheapest first.
fn test() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    // One set of features for all of it, so that nothing is built twice.
    run(cargo().args(["build", "--workspace", "--locked"]))?;
    run(cargo().args(["test", "--workspace", "--locked"]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    // What runs on GPUs is type-checked; the variable keeps a build script from downloading LLVM.
    let features = ["check", "--package", "trainer", "--features", "wgpu,vulkan,cuda", "--locked"];
    run(cargo().env("DOCS_RS", "1").args(features))?;
    let mut doc = cargo();
    doc.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--locked"]);
    run(&mut doc)?;
    let wasm = tools::set_up()?;
    site::lint(&wasm)?;
    site::build(&wasm, false)?;
    run(cargo().args(["test", "--workspace", "--test", "browser", "--locked"]).args([
        "--",
        "--ignored",
        "--test-threads=1",
    ]))
}
