//! Tests of what a run prints, how it is repeated exactly, how it ends at once, and what saving costs.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

#[cfg(target_os = "linux")]
use crate::support::peak_kib;
use crate::support::{file_names, latest, only_run, png, run, send, small_options, text, weights};

/// A process of the program whose messages are read while it runs.
struct Process {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// The messages so far.
    said: String,
}

impl Process {
    /// Starts the program in `folder`.
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(trainer().get_program());
        command.args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("NO_COLOR", "1").env("RUST_LOG", "trainer=debug");
        let mut child = command.spawn().expect("started");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, stderr, said: String::new() }
    }

    /// Waits for the next message that contains a text.
    fn wait_for(&mut self, text: &str) {
        let before = self.said.len();
        let mut line = before;
        while !self.said[line..].contains(text) {
            line = self.said.len();
            let read = self.stderr.read_line(&mut self.said).expect("text");
            assert!(read > 0, "it ended without {text:?}: {}", &self.said[before..]);
        }
    }

    /// Sends the signal of Ctrl-C.
    fn interrupt(&self) {
        send("-INT", &self.child);
    }

    /// Sends it twice, the second one as soon as the first one is answered.
    fn interrupt_twice(&mut self) {
        self.interrupt();
        self.wait_for("a second signal ends at once");
        self.interrupt();
    }

    /// Waits for the end, and returns the exit code, the messages, and standard output.
    fn end(mut self) -> (Option<i32>, String, String) {
        let mut output = String::new();
        self.stderr.read_to_string(&mut self.said).expect("text");
        let stdout = self.child.stdout.as_mut().expect("piped");
        stdout.read_to_string(&mut output).expect("text");
        let status = self.child.wait().expect("ended");
        (status.code(), std::mem::take(&mut self.said), output)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first command that anybody types.
#[test]
fn without_arguments_the_shipped_model_is_trained_further() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut process = Process::start(folder.path(), &[]);
    // The first grid follows, which takes much longer than to interrupt it.
    process.wait_for("writing to ");
    process.interrupt_twice();
    let (code, said, output) = process.end();
    assert_eq!((code, &output[..]), (Some(130), ""), "{said}");
    let mut rest = &said[..];
    for part in [
        "reading the data: emoji\n",
        "3.4 M parameters, 1911 images from emoji, batch size ",
        ", seed 0\n",
        "The model learns to remove noise from 32x32x3 images of 1911 classes such as \"",
        "starting from the weights \"",
        "\"; use --from scratch for random weights\n",
        "writing to runs/00000-tiny-emoji-emoji-batch",
        ": grids, and 3 checkpoints of 54 MB\n",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{said:?} does not say {part:?}"));
        rest = &rest[at + part.len()..];
    }
    let options = only_run(&folder.path().join("runs")).join("options.json");
    let options: Value =
        serde_json::from_slice(&fs::read(options).expect("the recipe")).expect("JSON");
    assert_eq!(options["data"], "emoji");
    assert_eq!(options["from_sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn a_second_signal_ends_a_run_at_once_and_it_can_be_resumed() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    run(&[&args[..], &["--duration", "8"]].concat());
    let run_folder = only_run(&out);
    // Before its first step, this process draws a grid that takes long.
    let resume = ["train", "--resume", text(&run_folder), "--grid"];
    let mut process =
        Process::start(folder.path(), &[&resume[..], &["1024", "--duration", "1M"]].concat());
    process.wait_for("writing to ");
    process.interrupt_twice();
    let (code, said, _) = process.end();
    assert_eq!(code, Some(130), "{said}");
    // It neither finished the grid nor took the step and saved.
    assert!(!said.contains("stopped after") && !said.contains("to resume:"), "{said}");
    assert_eq!(file_names(&run_folder.join("grids")), [""; 0]);
    let checkpoints = run_folder.join("checkpoints");
    assert_eq!(file_names(&checkpoints), ["000000008.ckpt"]);

    run(&[&resume[..], &["0", "--duration", "16"]].concat());
    assert_eq!(file_names(&checkpoints), ["000000008.ckpt", "000000016.ckpt"]);
    weights(&run_folder.join("weights.safetensors"));
}

#[test]
fn bench_measures_images_per_second() {
    let short = ["bench", "tiny", "--time", "0", "--only"];
    let said = run(&[&short[..], &["forward", "--batch", "2"]].concat());
    let lines: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert_eq!(lines[0], ["preset", "ms", "images/s", "GFLOP/s", "memory,", "MB"]);
    let [preset, what, milliseconds, rate, gflops, _] = lines[1][..] else { panic!("{said}") };
    assert_eq!([preset, what], ["tiny", "forward"]);
    let [milliseconds, rate, gflops] =
        [milliseconds, rate, gflops].map(|number| number.parse::<f64>().expect("a number"));
    assert!((milliseconds * rate / 2e3 - 1.0).abs() < 0.05 && gflops > 0.0, "{said}");

    let said = run(&[&short[..], &["training", "--batch", "1", "--json"]].concat());
    let measured: Value = serde_json::from_str(&said).expect("a JSON object");
    assert_eq!((&measured["preset"], &measured["batch"]), (&"tiny".into(), &1.into()));
    let number = |name: &str| measured[name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
    let product = number("milliseconds") * number("images_per_second");
    assert!((product / 1e3 - 1.0).abs() < 1e-6, "{said}");
}

/// Runs the program on a terminal of 30 columns, and returns what it shows. `None` where there is no
/// `script` of util-linux, which makes the terminal.
fn on_terminal(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Option<String> {
    let version = Command::new("script").arg("--version").output();
    let known = version.is_ok_and(|of| String::from_utf8_lossy(&of.stdout).contains("util-linux"));
    if !known {
        eprintln!("there is no `script` of util-linux: nothing was tested on a terminal");
        return None;
    }
    let program = trainer().get_program().to_string_lossy().into_owned();
    let words = std::iter::once(program).chain(args.iter().map(ToString::to_string));
    let words: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    let line = format!("stty cols 30 rows 24; exec {}", words.join(" "));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(folder).stdin(Stdio::null());
    plain_environment(&mut command).envs(environment.iter().copied());
    let output = command.output().expect("it runs");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes what changes the use of colours from the environment of a command.
fn plain_environment(command: &mut Command) -> &mut Command {
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm")
}

/// Returns whether a text has escape sequences that set colours or the weight of letters.
fn has_colours(text: &str) -> bool {
    let is_of_colours = |rest: &str| {
        rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m')
    };
    text.split("\x1b[").skip(1).any(is_of_colours)
}

#[test]
fn colours_are_for_terminals_and_no_color_disables_them() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let common = ["train", "--options", &options, "--grid", "0", "--duration", "16", "--out"];
    let train = |out: &'static str| [&common[..], &[out]].concat();
    let (mistake, log) = (["train", "--durration", "3"], ("RUST_LOG", "trainer=info"));
    let no_color = ("NO_COLOR", "1");

    // Neither colours nor other sequences where there is no terminal.
    for args in [&mistake[..], &train("piped")] {
        let mut command = Command::new(trainer().get_program());
        command.args(args).current_dir(folder.path());
        let output = plain_environment(&mut command).envs([log]).output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.is_empty() && !said.contains('\x1b'), "{args:?}: {said:?}");
    }

    let show = |args: &[&str], environment: &[_]| on_terminal(folder.path(), args, environment);
    let Some(said) = show(&mistake, &[]) else { return };
    assert!(has_colours(&said) && said.contains("--durration"), "{said:?}");
    let said = show(&mistake, &[no_color]).expect("a terminal");
    assert!(!said.contains('\x1b') && said.contains("--durration"), "{said:?}");

    let said = show(&train("colours"), &[log]).expect("a terminal");
    assert!(has_colours(&said) && said.contains("checkpoint written"), "{said:?}");
    // The status line moves the cursor, and is shown without colours anyway.
    let said = show(&train("plain"), &[log, no_color]).expect("a terminal");
    assert!(!has_colours(&said) && said.contains("checkpoint written"), "{said:?}");
    assert!(said.contains("\x1b[2K") && said.contains("16 of 16 images  "), "{said:?}");
    assert!(said.contains("trained on 16 images; weights: plain/"), "{said:?}");
}

#[test]
fn a_quiet_run_prints_its_result_only() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let common = ["train", "--options", &options, "--grid", "0", "--duration", "16", "--quiet"];
    let check = |said: &str, out: &Path| {
        let lines: Vec<&str> = said.lines().collect();
        let [trained, sample] = lines[..] else { panic!("{said:?}") };
        let weights = only_run(out).join("weights.safetensors");
        assert_eq!(trained, format!("trained on 16 images; weights: {}", weights.display()));
        let end = format!(" sample --weights {}", weights.display());
        assert!(sample.starts_with("to sample: ") && sample.ends_with(&end), "{said:?}");
    };
    let out = folder.path().join("piped");
    let assert = trainer().args(common).arg("--out").arg(&out).assert().success();
    let output = assert.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    check(&String::from_utf8_lossy(&output.stdout), &out);

    let out = folder.path().join("shown");
    let args = [&common[..], &["--out", text(&out)]].concat();
    if let Some(said) = on_terminal(folder.path(), &args, &[]) {
        check(&said, &out);
    }
}

/// The pictures of two grids differ by what was learned in between, not by their noise.
#[test]
fn every_grid_is_of_the_same_seeds() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--preset", "tiny", "--options", &options, "--out", text(&out)];
    let more = ["--grid", "4", "--sample-every", "8", "--save-every", "8", "--duration", "16"];
    run(&[&args[..], &more, &["--seed", "3"]].concat());
    let run_folder = only_run(&out);
    for images in ["000000008", "000000016"] {
        let checkpoint = run_folder.join("checkpoints").join(format!("{images}.ckpt"));
        let sample = |seeds: &str| {
            let path = folder.path().join("sample.png");
            let args = ["sample", "--weights", text(&checkpoint), "--seeds", seeds];
            run(&[&args[..], &["--output", text(&path)]].concat());
            png(&path)
        };
        let grid = png(&run_folder.join("grids").join(format!("{images}.png")));
        assert!(grid == sample("0-3"), "the grid after {images} images has other seeds");
        assert!(grid != sample("1-4"), "the seeds do not matter");
    }
}

#[test]
fn the_options_of_a_run_repeat_it_bit_for_bit() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let train = |name: &str, options: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--options", options, "--grid", "0", "--out", text(&out)];
        run(&[&args[..], more].concat());
        only_run(&out)
    };
    let recipe = ["--seed", "7", "--duration", "24", "--lr", "1e-3", "--lr-ramp", "8"];
    let first = train("first", &options, &recipe);
    let stored = first.join("options.json");
    let again = train("again", text(&stored), &[]);
    assert!(latest(&first) == latest(&again), "weights, averages or moments differ");
    let [first_weights, again_weights] =
        [&first, &again].map(|run| weights(&run.join("weights.safetensors")));
    assert!(first_weights == again_weights, "the weights differ");
    let read = |path: &Path| fs::read_to_string(path).expect("the recipe");
    assert_eq!(read(&stored), read(&again.join("options.json")));
    // The seed is one of the options, and makes a difference.
    let other = train("other", text(&stored), &["--seed", "8"]);
    assert!(latest(&first) != latest(&other), "the seed does not matter");
}

#[test]
fn seeds_and_sizes_of_files_are_printed() {
    const MB: f64 = 1e6;
    let folder = TempDir::new().expect("a temporary folder");
    let size = |path: &Path| fs::metadata(path).expect("there").len() as f64;
    let out = folder.path().join("runs");
    let args = ["train", "--from", "scratch", "--batch", "2", "--duration", "2", "--grid", "0"];
    let plan = run(&[&args[..], &["--dry-run"]].concat());
    let assert = trainer().args(args).arg("--out").arg(&out).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains(", batch size 2, seed 0\n"), "{said}");
    // The size of a checkpoint is announced before there is one.
    let run_folder = only_run(&out);
    let checkpoint = size(&run_folder.join("checkpoints/000000002.ckpt"));
    let number_after = |text: &str, start: &str| -> f64 {
        let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("{text:?}: no {start:?}"));
        let number = rest.trim_start().split(' ').next().expect("a word");
        number.parse::<f64>().unwrap_or_else(|e| panic!("{number:?}: {e}"))
    };
    let of_run = number_after(&said, "grids, and 3 checkpoints of ");
    let of_plan = number_after(&plan, "\ncheckpoints ");
    for announced in [of_run, of_plan] {
        assert!((checkpoint / MB - announced).abs() < 2.0, "{announced} MB, not {checkpoint}");
    }

    for (precision, bytes) in [("f16", 2.0), ("f32", 4.0)] {
        let path = folder.path().join(precision);
        let said = run(&["export", text(&run_folder), "--precision", precision, "-o", text(&path)]);
        let size = size(&path) / MB;
        let want = format!("3394627 parameters, {size:.1} MB, after 2 images\n");
        assert_eq!(said, format!("{}: {want}", path.display()));
        assert!((size / 3.394627 / bytes - 1.0).abs() < 0.1, "{said}");
    }

    // Without --seeds, and with it.
    let path = folder.path().join("samples.png");
    let sample = ["sample", "--steps", "1", "--sampler", "euler", "-o", text(&path)];
    let said = run(&sample);
    assert_eq!(said, format!("16 images of seeds 0-15 in {}\n", path.display()));
    let said = run(&[&sample[..], &["--seeds", "9,3-5"]].concat());
    assert_eq!(said, format!("4 images of seeds 9,3-5 in {}\n", path.display()));
}

/// The state that is saved has 16 bytes for each parameter: the weights, their average and two moments.
/// Training goes on meanwhile with a state of its own, and the optimizer's part is serialised at once.
#[cfg(target_os = "linux")]
#[test]
fn saving_takes_less_than_forty_bytes_for_each_parameter() {
    const PARAMETERS: f64 = 3_394_627.0;
    let folder = TempDir::new().expect("a temporary folder");
    let args = ["train", "--from", "scratch", "--batch", "1", "--grid", "0", "--duration", "1M"];
    let more = ["--save-every", "4", "--keep", "1"];
    let mut process = Process::start(folder.path(), &[&args[..], &more].concat());
    process.wait_for("step images=3 ");
    let before = peak_kib(&process.child).expect("it runs");
    for _ in 0..3 {
        process.wait_for("checkpoint written");
    }
    let after = peak_kib(&process.child).expect("it runs");
    let more = (after - before) as f64 * 1024.0 / PARAMETERS;
    assert!(more < 40.0, "{more} bytes for each parameter");
}

/// The estimate of the memory is larger than any number.
#[test]
fn options_at_their_limits_are_an_error() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("options.json");
    let network = serde_json::json!({"resolution": 4096, "channels": [16384], "blocks": [16]});
    let options = serde_json::json!({"batch": 65536, "model": {"network": network}});
    fs::write(&path, options.to_string()).expect("written");
    let assert = trainer().args(["train", "--options", text(&path), "--dry-run"]).assert().code(1);
    let plan = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    let line = format!("\nmemory          about {} MB per device\n", u64::MAX / 1_000_000);
    assert!(plan.contains(&line), "{plan}");
}
