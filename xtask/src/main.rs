//! Tasks of this repository. `cargo xtask` lists them.

#![forbid(unsafe_code)]

mod emoji;
mod fuzz;
mod gpu_day;
mod shell;
mod site;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use shell::{cargo, output, run};
use site::Options;

/// The features of all builds of the workspace, so that nothing is built twice: the trainer with
/// image quality metrics and links to the Hugging Face Hub.
const FEATURES: [&str; 2] = ["--features", "trainer/metrics,trainer/hub"];

const USAGE: &str = "\
cargo xtask check      the fast checks: formatting, clippy, unit tests, documentation
cargo xtask test       set up what is missing, then run every check and every test
cargo xtask setup      install, or name, what the checks, the page and its tests need
cargo xtask site       build the page into dist/; --optimise makes it smaller, with wasm-opt,
                       --address A says where it will be, for the picture beside links to it
cargo xtask device D   compare a GPU (D: cuda, vulkan or wgpu) with the CPU; `fused` or `kernels` after
                       it chooses one of the two ways to build the trainer
cargo xtask gpu-day    all measurements of a GPU, in steps of ten minutes; --help lists them
cargo xtask soak [M]   disturb a training run for M minutes (10): kill it, fill its disk, and so on
cargo xtask fuzz [T] [S]  damage files in search of panics, with the fuzz target T or all, for S seconds
                       each (60)
cargo xtask bench      measure the built page in a browser: sizes, start, sampling
cargo xtask firefox    use the built page in Firefox; needs firefox-esr, Node.js and npm
cargo xtask manifest   write www/weights/manifest.json for the files beside it
cargo xtask record     write www/record.jpg, which the page plays while it loads
cargo xtask emoji      download and pack the embedded dataset";

fn main() -> ExitCode {
    match task() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the given task in the root of the repository.
fn task() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root");
    std::env::set_current_dir(root)?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["check"] => check(),
        ["test"] => test(),
        ["setup"] => set_up(),
        ["site", ref args @ ..] => site::build(&tools::set_up()?, &Options::read(args)?),
        ["gpu-day", ref args @ ..] => gpu_day::run(args),
        ["bench"] => example("page_speed"),
        ["firefox"] => firefox(),
        ["soak"] => soak("10"),
        ["soak", minutes] => soak(minutes),
        ["fuzz", ref args @ ..] => fuzz::fuzz(args),
        ["device", kind @ ("cuda" | "vulkan" | "wgpu")] => {
            device(kind, Build::Fused)?;
            device(kind, Build::Kernels)
        }
        ["device", kind @ ("cuda" | "vulkan" | "wgpu"), "fused"] => device(kind, Build::Fused),
        ["device", kind @ ("cuda" | "vulkan" | "wgpu"), "kernels"] => device(kind, Build::Kernels),
        ["manifest"] => run(workspace("test")
            .env("DIFFIT_UPDATE", "1")
            .args(["--lib", "the_manifest_is_that_of_the_files"])),
        ["record"] => example("record"),
        ["emoji"] => emoji::pack(root),
        _ => {
            println!("{USAGE}");
            Ok(())
        }
    }
}

/// Returns a cargo command for the whole workspace.
fn workspace(command: &str) -> Command {
    let mut cargo = cargo();
    cargo.args([command, "--workspace"]).args(FEATURES);
    cargo
}

/// Uses the built page in Firefox. It is not a part of the long test, which needs one browser only.
fn firefox() -> anyhow::Result<()> {
    run(workspace("build").arg("--locked"))?;
    let packages = ["puppeteer-core@24.43.1", "pngjs@7.0.0"];
    run(Command::new("npm")
        .args(["install", "--silent", "--prefix", "target/bench"])
        .args(packages))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let mut node = Command::new("node");
    run(node.arg("tests/browser/firefox.mjs").arg("--trainer").arg(target.join("debug/trainer")))
}

/// Disturbs a training run for a while, which the ordinary tests do for less than a minute.
fn soak(minutes: &str) -> anyhow::Result<()> {
    let known = minutes.parse::<f64>().is_ok_and(|minutes| minutes > 0.0 && minutes.is_finite());
    anyhow::ensure!(known, "soak {minutes}: expected a number of minutes");
    run(workspace("build").arg("--locked"))?;
    let test = ["--locked", "--test", "command_line", "soak::", "--", "--nocapture"];
    run(workspace("test").env("DIFFIT_SOAK_MINUTES", minutes).args(test))
}

/// A way to build the trainer for a GPU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    /// With tensor operations that are fused at run time.
    Fused,
    /// With the network's own kernels.
    Kernels,
}

/// Runs the tests that need a GPU.
fn device(kind: &str, build: Build) -> anyhow::Result<()> {
    let features = match build {
        Build::Fused => kind.to_string(),
        Build::Kernels => gpu_day::with_kernels(kind),
    };
    if kind == "wgpu" && build == Build::Kernels {
        kernels()?;
    }
    let mut test = cargo();
    test.env("DIFFIT_DEVICE", kind).args(["test", "--package", "trainer", "--features", &features]);
    run(test.args(["--locked", "--test", "device", "--", "--ignored", "--test-threads=1"]))
}

/// Compares the GPU kernels with the plain operations. Where there is no GPU, a Vulkan driver that
/// computes on the processor takes its place.
fn kernels() -> anyhow::Result<()> {
    tools::vulkan()?;
    let mut test = cargo();
    test.args(["test", "--profile", "kernels", "--package", "model", "--features", "cube,train"]);
    run(test.args(["--locked", "--lib", "--", "--ignored", "--test-threads=1", "kernels::cube"]))
}

/// Runs an example of the tests.
fn example(name: &str) -> anyhow::Result<()> {
    // The whole workspace, for the same features as everything else, and so without building twice.
    run(workspace("build").args(["--examples", "--locked"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    run(&mut Command::new(Path::new(&target).join("debug/examples").join(name)))
}

/// Installs everything that `cargo xtask test` needs, so that it can run without a network later.
fn set_up() -> anyhow::Result<()> {
    tools::typos()?;
    tools::cargo_deny()?;
    tools::set_up().map(|_| ())
}

/// Runs the checks for use while editing. They need nothing but cargo.
fn check() -> anyhow::Result<()> {
    format()?;
    lint()?;
    run(workspace("test").args(["--lib", "--locked"]))?;
    document()
}

/// Runs every check and every test, cheapest first, and prints how long each part took.
fn test() -> anyhow::Result<()> {
    let mut times = Times::default();
    times.part("formatting", format)?;
    times.part("spelling", spelling)?;
    times.part("dependencies", dependencies)?;
    // One set of features for all of it, so that nothing is built twice.
    times.part("build", || run(workspace("build").arg("--locked")))?;
    times.part("build of the tests", || run(workspace("test").args(["--locked", "--no-run"])))?;
    // All of them, so that one run on another machine shows every failure.
    times.part("tests", || run(workspace("test").args(["--locked", "--no-fail-fast"])))?;
    times.part("GPU kernels", kernels)?;
    times.part("clippy", lint)?;
    times.part("GPU features", check_gpu_features)?;
    times.part("documentation", document)?;
    let wasm = times.part("set-up of the page", tools::set_up)?;
    times.part("clippy of the page", || site::lint(&wasm))?;
    times.part("page", || site::build(&wasm, &Options::default()))?;
    times.part("browser tests", || {
        let browser = ["--test", "browser", "--locked", "--", "--ignored", "--test-threads=1"];
        run(workspace("test").args(browser))
    })?;
    times.print();
    Ok(())
}

/// The wall-clock time of each part of a task.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    /// Runs a part and notes its time.
    fn part<T>(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        let result = run().with_context(|| format!("failed part: {name}"))?;
        self.0.push((name, start.elapsed()));
        Ok(result)
    }

    /// Prints a line for each part, and the total.
    fn print(&self) {
        for (name, time) in &self.0 {
            println!("{name:<20} {:>6.0} s", time.as_secs_f64());
        }
        let total: Duration = self.0.iter().map(|(_, time)| *time).sum();
        println!("{:<20} {:>6.0} s", "total", total.as_secs_f64());
    }
}

/// Type-checks the GPU features. The variable stops a build script from downloading LLVM.
fn check_gpu_features() -> anyhow::Result<()> {
    for features in ["wgpu,vulkan,cuda", "wgpu-plain,vulkan-plain,cuda-plain,kernels"] {
        let check = ["check", "--package", "trainer", "--features", features, "--locked"];
        run(cargo().env("DOCS_RS", "1").args(check))?;
    }
    Ok(())
}

/// Checks formatting.
fn format() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    // A workspace of its own.
    run(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
}

/// Checks spelling, as configured in `_typos.toml`.
fn spelling() -> anyhow::Result<()> {
    run(&mut Command::new(tools::typos()?))
}

/// Checks licences, sources and advisories of dependencies, as configured in `deny.toml`.
fn dependencies() -> anyhow::Result<()> {
    let deny = tools::cargo_deny()?;
    let check = ["--locked", "check", "--hide-inclusion-graph"];
    run(Command::new(&deny).args(check).args(["bans", "licenses", "sources"]))?;
    // The database of advisories is a repository on GitHub, which not every network reaches.
    if output(&deny, &["fetch", "db"]).is_none() {
        eprintln!("warning: advisories are not checked: their database cannot be fetched");
        return Ok(());
    }
    run(Command::new(&deny).args(check).arg("advisories"))
}

/// Runs clippy on everything that is built for this machine.
fn lint() -> anyhow::Result<()> {
    run(workspace("clippy").args(["--all-targets", "--locked", "--", "-D", "warnings"]))
}

/// Builds the documentation, without warnings.
fn document() -> anyhow::Result<()> {
    run(workspace("doc").env("RUSTDOCFLAGS", "-D warnings").args(["--no-deps", "--locked"]))
}
