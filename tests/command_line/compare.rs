//! `trainer compare` and `trainer table`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{root, trainer};

use crate::support::{fails, run, text};

/// Writes a plan for two very small networks, seeds 0 and 1, and pictures of 8x8 pixels.
fn write_plan(folder: &Path, edit: impl FnOnce(&mut Value)) -> std::path::PathBuf {
    let mut plan = json!({
        "title": "Two networks",
        "description": "TMSA, and a network without time.",
        "options": {
            "data": "emoji", "resize": true, "batch": 8, "duration": 64, "lr_ramp": 16,
            "validation": { "images": 12 },
            "model": {"network": {
                "resolution": 8, "channels": [16], "blocks": [1], "dropout": 0.1,
                "transformer": { "head_dim": 8 },
                "time": { "channels": 8, "width": 8 },
            }},
        },
        "networks": [
            { "name": "H", "preset": "t4-e", "published": 1.95 },
            { "name": "none", "preset": "t6-none" },
        ],
        "reference": "H",
        "seeds": [0, 1],
        "levels": 4,
        "validate_every": 16,
        "published": "FID",
    });
    edit(&mut plan);
    let path = folder.join("plan.json");
    fs::write(&path, plan.to_string()).expect("written");
    path
}

/// Returns the results of a comparison by name, without times.
fn results(out: &Path) -> Vec<(String, Value)> {
    let mut results: Vec<_> = fs::read_dir(out.join("results"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let bytes = fs::read(&path).expect("a result");
            let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
            if let Some(fields) = value.as_object_mut() {
                fields.remove("seconds");
                for point in fields["curve"].as_array_mut().expect("a curve") {
                    point.as_object_mut().expect("a point").remove("seconds");
                }
            }
            (path.file_name().expect("a name").to_string_lossy().into_owned(), value)
        })
        .collect();
    results.sort_by(|a, b| a.0.cmp(&b.0));
    results
}

#[test]
fn networks_are_trained_alike_and_compared() {
    let folder = TempDir::new().expect("a temporary folder");
    let plan = write_plan(folder.path(), |_| ());
    let out = folder.path().join("out");
    let said = run(&["compare", text(&plan), "--out", text(&out), "--quiet"]);
    assert_eq!(said.trim(), text(&out.join("comparison.md")));

    let found = results(&out);
    let names: Vec<&str> = found.iter().map(|(name, _)| &**name).collect();
    let want =
        ["H-seed0.json", "H-seed1.json", "none-seed0.json", "none-seed1.json", "wiener.json"];
    assert_eq!(names, want);
    for (name, result) in &found[..4] {
        assert_eq!(result["images"], 64, "{name}");
        assert_eq!(result["curve"].as_array().expect("a curve").len(), 4, "{name}");
        let losses = result["losses"].as_array().expect("losses");
        assert_eq!(losses.len(), 4);
        for level in losses {
            let level = level.as_array().expect("images");
            assert_eq!(level.len(), 12);
            assert!(level.iter().all(|loss| loss.as_f64().is_some_and(|l| l > 0.0 && l < 100.0)));
        }
    }
    // Networks and seeds differ.
    assert_ne!(found[0].1["losses"], found[1].1["losses"]);
    assert_ne!(found[0].1["losses"], found[2].1["losses"]);
    // After 64 images the network does little more than its preconditioner, a linear denoiser that
    // does not know the images. The best linear denoiser is better at every level.
    let wiener: Vec<f64> = serde_json::from_value(found[4].1.clone()).expect("losses");
    let losses: Vec<Vec<f64>> =
        serde_json::from_value(found[0].1["losses"].clone()).expect("losses");
    for (wiener, network) in wiener.iter().zip(losses) {
        let network = network.iter().sum::<f64>() / network.len() as f64;
        assert!(*wiener > 0.0 && *wiener < network, "{wiener}, {network}");
    }

    let tables = fs::read_to_string(out.join("comparison.md")).expect("tables");
    for part in
        ["# Two networks", "without time.", "| H |", "| none |", "| Wiener filter |", "1.95"]
    {
        assert!(tables.contains(part), "{part}: {tables}");
    }
    let csv = fs::read_to_string(out.join("comparison.csv")).expect("a table");
    assert_eq!(csv.lines().count(), 1 + 2 * 2 * 4);
    for plot in ["levels.svg", "curves.svg"] {
        let plot = fs::read_to_string(out.join(plot)).expect("a plot");
        assert!(plot.contains("<svg") && plot.contains("none"), "{plot}");
    }

    // All is there: nothing is trained again, and the tables are the same.
    let before = fs::metadata(out.join("results/H-seed0.json")).expect("there").modified().ok();
    run(&["compare", text(&plan), "--out", text(&out), "--quiet"]);
    assert_eq!(fs::read_to_string(out.join("comparison.md")).expect("tables"), tables);
    let after = fs::metadata(out.join("results/H-seed0.json")).expect("there").modified().ok();
    assert_eq!(before, after);

    // Another plan in the same folder.
    let other = write_plan(folder.path(), |plan| plan["options"]["batch"] = json!(16));
    let error = fails(&["compare", text(&other), "--out", text(&out)]);
    assert!(error.contains("another plan") && error.contains("--out"), "{error}");
}

/// Stopped by a signal in the middle of a run, then started again.
#[cfg(unix)]
#[test]
fn an_interrupted_comparison_goes_on_to_the_same_result() {
    let folder = TempDir::new().expect("a temporary folder");
    let plan = write_plan(folder.path(), |plan| {
        plan["seeds"] = json!([3]);
        plan["options"]["duration"] = json!(3_000);
        plan["validate_every"] = json!(1_000);
    });
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    run(&["compare", text(&plan), "--out", text(&whole), "--quiet"]);

    let args = ["compare", text(&plan), "--out", text(&parts), "--quiet"];
    let mut child = Command::new(trainer().get_program())
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // In the second run.
    let second = parts.join("runs/none-seed3");
    let start = Instant::now();
    while !second.exists() && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    Command::new("kill").args(["-INT", &id]).status().expect("kill is there");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    assert_eq!(results(&parts).len(), 1);

    run(&args);
    assert_eq!(results(&parts), results(&whole));
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let folder = TempDir::new().expect("a temporary folder");
    let out = folder.path().join("out");
    type Edit = fn(&mut Value);
    let cases: [(Edit, &[&str]); 6] = [
        (|plan| plan["networks"][1]["preset"] = json!("t9"), &["network `none`", "t9"]),
        (|plan| plan["options"]["bacth"] = json!(3), &["bacth"]),
        (|plan| plan["options"]["validation"] = Value::Null, &["validation"]),
        (
            |plan| {
                let other = json!({ "loss": { "p_mean": -1.0 } });
                plan["networks"][1]["options"] = other;
            },
            &["network `none`", "cannot be compared"],
        ),
        (|plan| plan["seeds"] = json!([]), &["plan.json", "seeds"]),
        (|plan| plan["options"]["data"] = json!("/nowhere.zip"), &["nowhere.zip"]),
    ];
    for (edit, parts) in cases {
        let plan = write_plan(folder.path(), edit);
        let error = fails(&["compare", text(&plan), "--out", text(&out)]);
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(fs::read_dir(out.join("results")).map_or(0, Iterator::count), 0);
    }
    let error = fails(&["compare", "/nowhere.json", "--out", text(&out)]);
    assert!(error.contains("/nowhere.json"), "{error}");
}

/// The plans of docs/experiments are valid, and name their networks and sizes.
#[test]
fn the_published_plans_can_be_run() {
    let folder = root().join("docs/experiments");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("plans") {
        let plan = entry.expect("an entry").path();
        if plan.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let said = run(&["compare", text(&plan), "--out", "unused", "--dry-run"]);
        assert!(said.contains("| network | preset | parameters |"), "{said}");
        count += 1;
    }
    assert_eq!(count, 17);
    // The small networks have the sizes that they were designed for.
    let sizes = |name: &str| {
        let plan = root().join("docs/experiments").join(name);
        run(&["compare", text(&plan), "--out", "unused", "--dry-run"])
    };
    let t4 = sizes("t4-small.json");
    for size in ["1,389,539", "631,245", "640,499", "987,155", "1,278,195", "992,003", "949,491"] {
        assert!(t4.contains(size), "{size}: {t4}");
    }
    let t6 = sizes("t6-small.json");
    for size in ["1,278,195", "1,084,931", "1,409,779", "949,491", "883,443"] {
        assert!(t6.contains(size), "{size}: {t6}");
    }
    // Without the fixed position embedding of 64 x 128 values.
    let f7b = sizes("f7b-small.json");
    for size in ["1,868,044", "1,543,204", "1,791,400"] {
        assert!(f7b.contains(size), "{size}: {f7b}");
    }
}

#[test]
fn tables_of_sizes_are_printed() {
    let table_9 = run(&["table", "params"]);
    assert!(table_9.contains("| DiffiT | latent256 | 561,035,232 | 114.279 G | 118.507 G |"));
    let csv = run(&["table", "params", "tiny", "cifar10", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.contains("cifar10,28702339,7.303 G,7.356 G"), "{csv}");
    let error = fails(&["table", "params", "nothing"]);
    assert!(error.contains("nothing: the presets are tiny"), "{error}");
}
