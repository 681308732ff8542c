//! `cargo xtask gpu-day`: everything that a rented GPU has to show, in steps of at most ten minutes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use crate::FEATURES;
use crate::shell::{cargo, line};

/// Time limit of a step in seconds. A command that runs longer is interrupted, as by Ctrl-C, which
/// makes training save its state.
const LIMIT: u32 = 590;

/// Number of lines of a step's output that are printed.
const SHOWN: usize = 12;

/// Folder of the logs and the training runs.
const FOLDER: &str = "target/gpu-day";

const USAGE: &str = "\
cargo xtask gpu-day [--rehearse] [--data PATH] [STEP...]

Runs steps on the GPU of this machine, all or those that are named, each for at most ten minutes, and
writes their output to target/gpu-day/. `train` continues where it stopped, so that it can be run as
often as there is time.

--rehearse   the same commands on the processor, with small sizes
--data PATH  CIFAR-10, for the steps that train on it [default: data/cifar-10-python.tar.gz]

Steps:
";

/// The sizes of a run: those of a GPU, or small ones for a rehearsal.
struct Sizes {
    /// Device of the trainer.
    device: &'static str,
    /// Preset of the long runs.
    preset: &'static str,
    /// Presets whose speed is measured.
    benched: &'static [&'static str],
    /// Batch size of training.
    batch: u32,
    /// Steps of the short runs.
    steps: u32,
    /// Steps of the runs whose losses are compared: enough for a line of the log.
    compared: u32,
    /// Number of images of the last run.
    duration: &'static str,
    /// Number formats of training.
    precisions: &'static [&'static str],
    /// Seconds for each measurement.
    seconds: u32,
}

const GPU: Sizes = Sizes {
    device: "cuda",
    preset: "cifar10",
    benched: &["tiny", "cifar10", "latent256"],
    batch: 512,
    steps: 500,
    compared: 150,
    duration: "200M",
    precisions: &["f32", "bf16"],
    seconds: 3,
};

const REHEARSAL: Sizes = Sizes {
    device: "flex",
    preset: "tiny",
    benched: &["tiny"],
    batch: 8,
    steps: 4,
    compared: 126,
    duration: "64",
    precisions: &["f32"],
    seconds: 0,
};

/// A step: its name, what it shows, and its commands, one after the other.
struct Step {
    name: &'static str,
    shows: &'static str,
    commands: Vec<Command>,
}

/// Runs the task.
///
/// # Errors
///
/// If the arguments are invalid or a step fails.
pub fn run(args: &[&str]) -> anyhow::Result<()> {
    let (mut rehearsal, mut data, mut names) = (false, None, Vec::new());
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        match arg {
            "--rehearse" => rehearsal = true,
            // The command of a step.
            "--compare-runs" => return compare_runs(),
            "--data" => data = Some(args.next().context("--data needs a path")?),
            "--help" | "-h" => {
                print!("{}", usage());
                return Ok(());
            }
            name => names.push(name),
        }
    }
    let sizes = if rehearsal { REHEARSAL } else { GPU };
    // The rehearsal needs no file: it trains on the embedded images.
    let data = data.copied().unwrap_or(match rehearsal {
        true => "emoji",
        false => "data/cifar-10-python.tar.gz",
    });
    let steps = steps(&sizes, data);
    for name in &names {
        ensure!(steps.iter().any(|step| step.name == *name), "no step `{name}`\n\n{}", usage());
    }
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot create {FOLDER}"))?;
    let mut failed = Vec::new();
    for step in steps.into_iter().filter(|step| names.is_empty() || names.contains(&step.name)) {
        let started = Instant::now();
        eprintln!("== {}: {}", step.name, step.shows);
        let log = Path::new(FOLDER).join(format!("{}.log", step.name));
        let result = logged(step.commands, &log);
        eprintln!("== {}: {:.0} s, {}", step.name, started.elapsed().as_secs_f64(), log.display());
        // The others do not depend on it, and time on the GPU is short.
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            failed.push(step.name);
        }
    }
    ensure!(failed.is_empty(), "failed steps: {}", failed.join(", "));
    Ok(())
}

/// Returns the description of the task with its steps.
fn usage() -> String {
    let mut text = USAGE.to_string();
    for step in steps(&GPU, "DATA") {
        writeln!(text, "  {:<14} {}", step.name, step.shows).expect("a string");
    }
    text
}

/// The features of a trainer with the network's own kernels for this kind of GPU.
pub fn with_kernels(kind: &str) -> String {
    format!("{kind}-plain,kernels")
}

/// Returns the steps.
fn steps(sizes: &Sizes, data: &str) -> Vec<Step> {
    let &Sizes { device, preset, benched, batch, steps, compared, duration, precisions, seconds } =
        sizes;
    let (batch_text, seconds) = (batch.to_string(), format!("{seconds}s"));
    let gpu = device != "flex";
    // A rehearsal takes the program of the tests, which need not be built again.
    let build = |features: &str| {
        let mut build = cargo();
        match gpu {
            true => build.args(["build", "--release", "--package", "trainer", "--locked"]),
            false => build.args(["build", "--workspace", "--locked"]),
        };
        build.args(["--features", features]);
        build
    };
    let program = |args: &[&str]| {
        let mut program = Command::new(trainer(gpu));
        program.args(args);
        program
    };
    let bench = |batch: &str, more: &[&str]| {
        let mut bench = program(&["bench"]);
        bench.args(benched).args(["--device", device, "--batch", batch, "--time", &seconds]);
        bench.args(more);
        bench
    };
    let train = |precision: &str, out: &str, duration: &str| {
        let mut train =
            program(&["train", "--preset", preset, "--data", data, "--from", "scratch"]);
        train.args(["--device", device, "--precision", precision, "--batch", &batch_text]);
        train.args(["--duration", duration, "--out"]).arg(Path::new(FOLDER).join(out));
        train
    };
    let mut list = vec![Step {
        name: "build",
        shows: "the trainer with fused kernels",
        commands: vec![build(if gpu { device } else { FEATURES[1] })],
    }];
    let xtask = |args: &[&str]| {
        let mut xtask = Command::new(std::env::current_exe().unwrap_or_else(|_| "xtask".into()));
        xtask.args(args);
        xtask
    };
    if gpu {
        list.push(Step {
            name: "device",
            shows: "forward pass, gradients, training and samples beside those of the CPU",
            commands: vec![xtask(&["device", device, "fused"])],
        });
        list.push(Step {
            name: "device-kernels",
            shows: "the same with the network's own kernels",
            commands: vec![xtask(&["device", device, "kernels"])],
        });
    }
    list.push(Step {
        name: "bench",
        shows: "speed and memory of the presets, in f32 and bf16",
        commands: vec![
            bench(if gpu { "64" } else { "2" }, &[]),
            bench(if gpu { "64" } else { "2" }, &["--precision", "bf16"]),
        ],
    });
    let pytorch = |precision| {
        let mut pytorch = Command::new("python3");
        pytorch.args(["tests/bench/pytorch.py", "--device", if gpu { "cuda" } else { "cpu" }]);
        pytorch.args(["--precision", precision, "--trainer"]).arg(trainer(gpu));
        match gpu {
            true => pytorch.args(["--batch", "64"]),
            false => {
                let few = ["--batch", "2", "--rounds", "1", "--seconds", "0.1", "--no-compile"];
                pytorch.args(few)
            }
        };
        pytorch
    };
    list.push(Step {
        name: "pytorch",
        shows: "speed beside PyTorch, eager and compiled, on the same network",
        commands: vec![pytorch("f32"), pytorch("bf16")],
    });
    for precision in precisions {
        let duration = (steps * batch).to_string();
        list.push(Step {
            name: if *precision == "f32" { "steps-f32" } else { "steps-bf16" },
            shows: "some hundred training steps: images/s and peak memory in stats.jsonl",
            commands: vec![train(precision, &format!("steps-{precision}"), &duration)],
        });
    }
    // The last one is what the other steps use.
    let (plain, own, fused) = (format!("{device}-plain"), with_kernels(device), device.to_string());
    let builds = [
        ("plain", "training without fusion and autotuning, and its speed; `fused` after it", plain),
        (
            "kernels",
            "training with the network's own kernels, and its speed; `fused` after it",
            own,
        ),
        (
            "fused",
            "training with fused operations, and its speed, with what the other steps use",
            fused,
        ),
    ];
    for (name, shows, features) in builds {
        let built = build(if gpu { &features } else { FEATURES[1] });
        let measured = bench(if gpu { "64" } else { "2" }, &["--only", "training"]);
        let trained = train("f32", &compared_run(name), &(compared * batch).to_string());
        list.push(Step { name, shows, commands: vec![built, measured, trained] });
    }
    list.push(Step {
        name: "agreement",
        shows: "the losses and images/s of the last three beside each other",
        commands: vec![xtask(&["gpu-day", "--compare-runs"])],
    });
    let out = Path::new(FOLDER).join("runs");
    let begun = fs::read_dir(&out).is_ok_and(|mut runs| runs.next().is_some());
    let train = if begun {
        let mut train = program(&["train", "--resume", "latest", "--out"]);
        train.arg(out);
        train
    } else {
        train(precisions[precisions.len() - 1], "runs", duration)
    };
    list.push(Step {
        name: "train",
        shows: "training on CIFAR-10; run it as often as there is time",
        commands: vec![train],
    });
    list
}

/// The runs that differ in how the trainer was built.
const COMPARED: [&str; 3] = ["plain", "kernels", "fused"];

/// The name of such a run's folder.
fn compared_run(name: &str) -> String {
    format!("losses-{name}")
}

/// The last line of a training run's log.
struct Logged {
    loss: f64,
    images_per_second: f64,
}

/// Reads the last line of the log of the newest run in a folder.
fn last_line(folder: &Path) -> anyhow::Result<Logged> {
    let context = || format!("cannot read {}", folder.display());
    let runs = fs::read_dir(folder).with_context(context)?;
    let runs = runs.map(|run| Ok(run?.path())).collect::<std::io::Result<Vec<_>>>();
    let run = runs.with_context(context)?.into_iter().max();
    let path = run.with_context(|| format!("{}: no run", folder.display()))?.join("stats.jsonl");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let read = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let images_per_second = line["images_per_second"].as_f64()?;
        Some(Logged { loss: line["loss"].as_f64()?, images_per_second })
    };
    text.lines().rev().find_map(read).with_context(|| format!("{}: no loss", path.display()))
}

/// Prints the losses and the speeds of the runs that differ in how the trainer was built. They see the
/// same images and noise in the same order.
fn compare_runs() -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for name in COMPARED {
        runs.push((name, last_line(&Path::new(FOLDER).join(compared_run(name)))?));
    }
    println!("{:<10} {:>10} {:>12} {:>10}", "", "images/s", "loss", "off by");
    let expected = runs[0].1.loss;
    for (name, Logged { loss, images_per_second }) in &runs {
        let off = 100.0 * (loss / expected - 1.0).abs();
        println!("{name:<10} {images_per_second:>10.1} {loss:>12.6} {off:>9.3}%");
    }
    let agrees = |(_, run): &(_, Logged)| (run.loss / expected - 1.0).abs() < 0.02;
    ensure!(runs.iter().all(agrees), "the losses differ by 2 % or more");
    Ok(())
}

/// Returns the path of the trainer's program.
fn trainer(release: bool) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    target.join(if release { "release" } else { "debug" }).join("trainer")
}

/// Runs commands one after the other, with a time limit for all of them and their output in a file, and
/// prints the end of it.
fn logged(commands: Vec<Command>, log: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", log.display());
    File::create(log).with_context(context)?;
    let started = Instant::now();
    for command in commands {
        let text = line(&command);
        eprintln!("$ {text}");
        let left = u64::from(LIMIT).saturating_sub(started.elapsed().as_secs());
        ensure!(left > 0, "no time is left for `{text}`");
        let mut limited = Command::new("timeout");
        limited.args(["--foreground", "--signal=INT", "--kill-after=30", &format!("{left}s")]);
        limited.arg(command.get_program()).args(command.get_args());
        for (name, _) in command.get_envs().filter(|(_, value)| value.is_none()) {
            limited.env_remove(name);
        }
        let file = || File::options().append(true).open(log).with_context(context);
        let status = limited.stdout(file()?).stderr(file()?).status();
        let status = status.with_context(|| format!("cannot start `{text}`"))?;
        let output = fs::read(log).with_context(context)?;
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].iter().for_each(|line| eprintln!("{line}"));
        match status.code() {
            Some(0) => {}
            // The exit status of `timeout`; training has saved its state.
            Some(124) => eprintln!("stopped after {left} s"),
            _ => bail!("`{text}` ended with {status}; see {}", log.display()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_log_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(last_line(folder.path()).is_err());
        for (run, text) in [
            ("00000-a", "{\"loss\": 9, \"images_per_second\": 9}\n"),
            (
                "00001-b",
                "{\"loss\": 2, \"images_per_second\": 3}\n\
                 {\"loss\": 0.5, \"images_per_second\": 4}\n{\"validation_loss\": 1}\n",
            ),
        ] {
            fs::create_dir(folder.path().join(run)).expect("created");
            fs::write(folder.path().join(run).join("stats.jsonl"), text).expect("written");
        }
        let found = last_line(folder.path()).expect("a line");
        assert_eq!([found.loss, found.images_per_second], [0.5, 4.0]);
    }

    #[test]
    fn steps_have_names_of_their_own() {
        for sizes in [GPU, REHEARSAL] {
            let steps = steps(&sizes, "data.zip");
            let mut names: Vec<_> = steps.iter().map(|step| step.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
            assert!(steps.iter().all(|step| !step.commands.is_empty()));
        }
        let text = usage();
        assert!(steps(&GPU, "x").iter().all(|step| text.contains(step.name)));
        assert!(run(&["no-such-step"]).unwrap_err().to_string().contains("no step `no-such-step`"));
    }
}
