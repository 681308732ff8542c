//! Commands in messages, which can be typed as they are.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

/// Returns the command that runs this program with the given arguments, quoted for a shell.
pub fn command<'a>(args: impl IntoIterator<Item = Cow<'a, str>>) -> String {
    let mut command = program();
    command.extend(args.into_iter().map(|arg| quote(&arg)));
    command.join(" ")
}

/// Returns the command that resumes a run or a checkpoint, with more arguments.
pub fn resume<'a>(path: &'a Path, more: impl IntoIterator<Item = Cow<'a, str>>) -> String {
    command(["train".into(), "--resume".into(), argument(path)].into_iter().chain(more))
}

/// Returns a path as an argument, which does not start with a hyphen. Paths of a run are UTF-8, which is
/// checked at its start ([`utf8`](crate::run::launch::utf8)).
pub fn argument(path: &Path) -> Cow<'_, str> {
    let text = path.to_string_lossy();
    if text.starts_with('-') { format!("./{text}").into() } else { text }
}

/// Returns the beginning of the command: the program as it was started, or `cargo run`.
fn program() -> Vec<String> {
    // Cargo sets these variables for the programs that it runs.
    let started_by_cargo = std::env::var_os("CARGO").is_some()
        && std::env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"));
    if started_by_cargo {
        return cargo_run(&std::env::current_exe().unwrap_or_default());
    }
    let started = std::env::args_os().next().and_then(|name| name.into_string().ok());
    vec![quote(started.as_deref().unwrap_or("trainer"))]
}

/// Returns the `cargo run` command of an executable, with its profile and features.
fn cargo_run(executable: &Path) -> Vec<String> {
    let mut command = vec!["cargo".to_string(), "run".into()];
    match executable.parent().and_then(Path::file_name).and_then(OsStr::to_str) {
        Some("debug") | None => (),
        Some("release") => command.push("--release".into()),
        Some(profile) => command.extend(["--profile".into(), quote(profile)]),
    }
    command.extend(["-p", env!("CARGO_PKG_NAME")].map(String::from));
    let features = features();
    if !features.is_empty() {
        command.extend(["--features".into(), features.join(",")]);
    }
    command.push("--".into());
    command
}

/// The cargo features of this crate, and whether a build like this one has to name them: it has them, and
/// no other feature that it has includes them.
const FEATURES: [(&str, bool); 11] = [
    ("wgpu", cfg!(feature = "wgpu")),
    ("wgpu-plain", cfg!(all(feature = "wgpu-plain", not(feature = "wgpu")))),
    ("vulkan", cfg!(feature = "vulkan")),
    ("vulkan-plain", cfg!(all(feature = "vulkan-plain", not(feature = "vulkan")))),
    ("cuda", cfg!(feature = "cuda")),
    ("cuda-plain", cfg!(all(feature = "cuda-plain", not(feature = "cuda")))),
    (
        "fused",
        cfg!(all(
            feature = "fused",
            not(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))
        )),
    ),
    ("kernels", cfg!(feature = "kernels")),
    ("metrics", cfg!(feature = "metrics")),
    ("hub", cfg!(feature = "hub")),
    ("fuzzing", cfg!(feature = "fuzzing")),
];

/// Returns the cargo features of this program.
fn features() -> Vec<&'static str> {
    FEATURES.iter().filter(|of| of.1).map(|of| of.0).collect()
}

/// Returns the command of this process, for a program with the feature `metrics`.
#[cfg(not(feature = "metrics"))]
pub fn with_metrics() -> String {
    let features = [&features()[..], &["metrics"]].concat().join(",");
    let args = std::env::args_os().skip(1).map(|arg| quote(&arg.to_string_lossy()));
    let args: Vec<String> = args.collect();
    let package = env!("CARGO_PKG_NAME");
    format!("cargo run --release -p {package} --features {features} -- {}", args.join(" "))
}

/// Quotes an argument for a shell, if necessary.
fn quote(arg: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    if !arg.is_empty() && arg.chars().all(|c| plain(c) || (cfg!(windows) && c == '\\')) {
        arg.to_string()
    } else if cfg!(windows) {
        format!("\"{arg}\"")
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_arguments_as_they_are() {
        for arg in ["runs/00000-x", "with space", "it's", "$HOME `x` \"y\" \\", "", "*", "é=1"] {
            let script = format!("printf %s {}", quote(arg));
            let output = std::process::Command::new("sh").args(["-c", &script]).output();
            let output = output.expect("a shell").stdout;
            assert_eq!(String::from_utf8_lossy(&output), arg);
        }
        assert_eq!(quote("runs/00000-x"), "runs/00000-x");
        assert_eq!(argument(Path::new("-x")), "./-x");
    }

    #[test]
    fn cargo_runs_the_same_profile() {
        let command = |path| cargo_run(Path::new(path)).join(" ");
        assert!(command("target/debug/trainer").starts_with("cargo run -p trainer"));
        assert!(command("target/release/trainer").starts_with("cargo run --release -p trainer"));
        assert!(command("target/fast/trainer").starts_with("cargo run --profile fast -p trainer"));
    }

    #[test]
    fn every_cargo_feature_is_known() {
        let manifest = include_str!("../../../Cargo.toml");
        let (_, features) = manifest.split_once("[features]\n").expect("features");
        let (features, _) = features.split_once("\n[").expect("the next table");
        let lines = features.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<&str> =
            lines.filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
        let mut known = FEATURES.map(|of| of.0);
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }
}
