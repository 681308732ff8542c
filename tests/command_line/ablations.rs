//! Every network that the paper compares, from the command line: it trains, resumes exactly,
//! exports and samples.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{fails, only_run, png, run, some_pictures, text, weights};

/// Returns options that make the network of a preset very small.
fn small(preset: &str) -> Value {
    let network = match preset {
        "t4-a" => json!({
            "resolution": 8, "channels": [16, 16, 16, 16], "blocks": [1, 1, 1, 1],
            "transformer": { "head_dim": 8 }, "decoder": { "width": 8, "head_width": 8 },
            "time": { "width": 16 },
        }),
        "t4-b" => json!({
            "resolution": 8, "channels": [16, 16], "blocks": [1, 1],
            "transformer": { "head_dim": 8 }, "decoder": { "width": 8, "head_width": 8 },
            "time": { "width": 16 },
        }),
        preset if preset.starts_with("dit-") => json!({
            "resolution": 8, "channels": 3, "width": 16, "depth": 2, "classes": 2,
            "transformer": { "head_dim": 8 },
        }),
        preset if preset.starts_with("t5-") => json!({
            "resolution": 8, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1,
            "attn_resolutions": [8],
        }),
        _ => json!({
            "resolution": 8, "channels": [16, 16], "blocks": [1, 1],
            "transformer": { "head_dim": 8 }, "time": { "width": 16 },
        }),
    };
    json!({ "batch": 2, "resize": true, "model": { "network": network } })
}

/// Returns the presets of tables and figures, and DiT.
fn presets() -> Vec<String> {
    let csv = run(&["table", "params", "all", "--format", "csv"]);
    let names = csv.lines().skip(1).filter_map(|line| line.split(',').next());
    let compared = |name: &&str| {
        ["t3-", "t4-", "t5-", "t6-", "t7-", "t8-", "f8-", "dit-"]
            .iter()
            .any(|p| name.starts_with(p))
    };
    names.filter(compared).map(String::from).collect()
}

/// 50 steps in one process and in two give the same weights, which are exported and sampled from.
fn goes_through(folder: &Path, data: &str, preset: &str) {
    let options = folder.join(format!("{preset}.json"));
    fs::write(&options, small(preset).to_string()).expect("written");
    let [whole, parts] = ["whole", "parts"].map(|part| folder.join(format!("{preset}-{part}")));
    let start = |out: &Path, images: &str| {
        let args = ["train", "--preset", preset, "--options", text(&options), "--data", data];
        let more = ["--grid", "0", "--quiet", "--out", text(out), "--duration", images];
        run(&[&args[..], &more].concat());
        only_run(out)
    };
    let whole = start(&whole, "100");
    let parts = start(&parts, "40");
    run(&["train", "--resume", text(&parts), "--duration", "100", "--quiet"]);
    let file = "weights.safetensors";
    let found = weights(&whole.join(file));
    assert!(!found.is_empty());
    assert!(found == weights(&parts.join(file)), "{preset}: resuming changes the weights");

    let exported = folder.join(format!("{preset}.safetensors"));
    run(&["export", text(&whole), "-o", text(&exported)]);
    let info = run(&["info", text(&exported), "--json"]);
    let info: Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(info["card"]["images_seen"], 100, "{preset}");

    let picture = folder.join(format!("{preset}.png"));
    let sample = ["sample", "--weights", text(&exported), "--steps", "3", "--seeds", "0-1"];
    run(&[&sample[..], &["-o", text(&picture)]].concat());
    let picture = png(&picture);
    let first = picture.get_pixel(0, 0);
    assert!(picture.pixels().any(|pixel| pixel != first), "{preset}: a picture of one colour");
}

#[test]
fn every_network_of_the_comparisons_trains_resumes_exports_and_samples() {
    let folder = TempDir::new().expect("a temporary folder");
    let data = some_pictures(folder.path(), 6);
    // DiT has classes.
    let labels: Vec<(String, u32)> = (0..6).map(|i| (format!("{i}.png"), i % 2)).collect();
    let file = Path::new(&data).join("dataset.json");
    fs::write(file, json!({ "labels": labels }).to_string()).expect("written");
    let presets = presets();
    assert_eq!(presets.len(), 26, "{presets:?}");
    for preset in presets {
        goes_through(folder.path(), &data, &preset);
    }
}

#[test]
fn images_of_other_sizes_are_resized_only_on_request() {
    let folder = TempDir::new().expect("a temporary folder");
    let data = some_pictures(folder.path(), 6);
    let options = folder.path().join("options.json");
    let mut values = small("t4-e");
    values.as_object_mut().expect("an object").remove("resize");
    fs::write(&options, values.to_string()).expect("written");
    let out = folder.path().join("out");
    let args = ["train", "--preset", "t4-e", "--options", text(&options), "--data", &data];
    let more = ["--grid", "0", "--out", text(&out), "--duration", "2"];
    let train = [&args[..], &more].concat();
    let error = fails(&train);
    assert!(error.contains("32x32 pixels, not 8x8") && error.contains("--resize"), "{error}");
    run(&[&train[..], &["--resize"]].concat());
    let recipe = fs::read(only_run(&out).join("options.json")).expect("a recipe");
    let recipe: Value = serde_json::from_slice(&recipe).expect("JSON");
    assert_eq!(recipe["resize"], true);
}
