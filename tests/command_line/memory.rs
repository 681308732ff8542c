//! Memory use of training.
#![cfg(target_os = "linux")]

use std::fs;

use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

use crate::support::{only_run, run, small_options, text};

/// The peak memory of a thousand steps with grids and checkpoints is that of the first ones.
#[test]
fn memory_does_not_grow() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    run(&[
        "train",
        "--options",
        &options,
        "--duration",
        "8k",
        "--sample-every",
        "1k",
        "--save-every",
        "500",
        "--grid",
        "1",
        "--out",
        text(&out),
    ]);
    let text = fs::read_to_string(only_run(&out).join("stats.jsonl")).expect("a log");
    let peaks: Vec<f64> = text
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["peak_memory"].as_f64().expect("a number")
        })
        .collect();
    assert_eq!(peaks.len(), 8);
    assert!(peaks[7] < 1.1 * peaks[1], "{peaks:?}");
}

#[test]
fn gradient_checkpointing_takes_less_memory_and_learns_the_same() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    // Checkpointing keeps the activations of one block: with a single block it saves nothing.
    let more_blocks = fs::read_to_string(&options).expect("there").replace("[1]", "[6]");
    fs::write(&options, more_blocks).expect("written");
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out), "--json"];
        let said = run(&[&args[..], &["--batch", "512", "--duration", "1024"], more].concat());
        let first: Value =
            serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
        ["loss", "peak_memory"].map(|name| first[name].as_f64().expect("a number"))
    };
    let [loss, memory] = train("whole", &[]);
    let [same_loss, less_memory] = train("parts", &["--gradient-checkpointing"]);
    assert!((loss / same_loss - 1.0).abs() < 1e-3, "{loss} and {same_loss}");
    assert!(less_memory < 0.7 * memory, "{less_memory} of {memory}");
}

/// Runs the program with a limit of 1.2 GB on its address space.
pub fn limited(args: &[&str]) -> std::process::Output {
    let program = trainer().get_program().to_owned();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -v 1200000; exec \"$0\" \"$@\""]).arg(program).args(args);
    command.output().expect("it runs")
}

/// A batch that does not fit into memory is computed in parts, unless other parts were asked for.
#[test]
fn memory_that_does_not_suffice_is_told_before_training() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let [out, whole] = ["runs", "whole"].map(|name| folder.path().join(name));
    let args = ["train", "--options", &options, "--grid", "0", "--batch", "512"];
    let more = ["--lr-ramp", "0", "--duration", "512", "--out"];
    let start = [&args[..], &more].concat();
    let output = limited(&[&start[..], &[text(&out), "--micro-batch", "512"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("use --micro-batch auto, or one below 512")
            && said.contains(" MB are available"),
        "{said}"
    );
    assert!(!out.exists());

    let output = limited(&[&start[..], &[text(&out)]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("computing it in micro-batches of "), "{said}");
    let run_folder = only_run(&out);
    let micro_batch = || {
        let options = fs::read(run_folder.join("options.json")).expect("the recipe");
        let options: Value = serde_json::from_slice(&options).expect("JSON");
        options["micro_batch"].as_u64()
    };
    let chosen = micro_batch().expect("it was chosen");
    assert!(chosen < 512 && 512 % chosen == 0, "{chosen}");

    // The result is that of the whole batch, up to rounding.
    run(&[&start[..], &[text(&whole)]].concat());
    let whole = only_run(&whole);
    let whole_options = fs::read_to_string(whole.join("options.json")).expect("the recipe");
    assert!(!whole_options.contains("micro_batch"), "{whole_options}");
    let [found, want] = [&run_folder, &whole].map(|run| {
        let weights = tests::Tensors::open(&run.join("weights.safetensors"));
        weights.get("encoder.0.blocks.0.conv.weight").1
    });
    tests::assert_close("weights", &found, &want, 1e-3);

    // A run that is resumed where there is more memory keeps its micro-batch, unless told otherwise.
    let resume = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration"];
    run(&[&resume[..], &["1024"]].concat());
    assert_eq!(micro_batch(), Some(chosen));
    run(&[&resume[..], &["1536", "--micro-batch", "auto"]].concat());
    assert_eq!(micro_batch(), None);
}
