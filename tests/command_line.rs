//! The real program, run as a person would run it.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::Path;

use image::{ImageFormat, RgbImage};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Tensors, assert_close, cifar10, root, trainer};
use zip::write::SimpleFileOptions;

/// Standard output of a run that must succeed.
fn run(args: &[&str]) -> String {
    let assert = trainer().args(args).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).expect("text")
}

/// What a run that must fail says.
fn fails(args: &[&str]) -> String {
    let assert = trainer().args(args).assert().failure();
    let output = assert.get_output();
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn png(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8()
}

/// The only run folder in `out`.
fn only_run(out: &Path) -> std::path::PathBuf {
    let mut runs: Vec<_> =
        fs::read_dir(out).expect("a folder").map(|e| e.expect("entry").path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

/// The tensors of a weights file, by name.
fn weights(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(path).expect("a weights file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut tensors: Vec<_> =
        file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect();
    tensors.sort();
    tensors
}

fn view<'a>(dtype: Dtype, shape: &[usize], bytes: &'a [u8]) -> TensorView<'a> {
    TensorView::new(dtype, shape.to_vec(), bytes).expect("as many bytes as the shape asks for")
}

/// Trains a few steps on `data`, exports, samples and looks at what came out: a grid of that size,
/// and so many parameters.
fn train_export_sample(data: &str, size: (u32, u32), parameters: u64) {
    let folder = TempDir::new().expect("a temporary folder");
    let out = folder.path().join("runs");
    let said = run(&[
        "train",
        "--from",
        "scratch",
        "--data",
        data,
        "--duration",
        "64",
        "--batch",
        "16",
        "--grid",
        "1",
        "--out",
        text(&out),
    ]);
    assert!(said.contains("trainer -- sample --weights"), "{said}");
    let run_folder = only_run(&out);
    let grid = png(&run_folder.join("grids/000000064.png"));
    assert_eq!(grid.dimensions(), size);
    let options = fs::read(run_folder.join("options.json")).expect("the recipe");
    let options: Value = serde_json::from_slice(&options).expect("JSON");
    assert_eq!((&options["batch"], &options["duration"]), (&16.into(), &64.into()));

    // Both precisions, from the folder and from its checkpoint.
    let half = folder.path().join("half.safetensors");
    let card = folder.path().join("card.json");
    fs::write(&card, r#"{"licence": "CC0"}"#).expect("written");
    run(&[
        "export",
        text(&run_folder),
        "-o",
        text(&half),
        "--precision",
        "f16",
        "--card",
        text(&card),
    ]);
    let info: Value =
        serde_json::from_str(&run(&["info", text(&half), "--json"])).expect("one JSON object");
    assert_eq!(info["card"]["images_seen"], 64);
    assert_eq!(info["card"]["licence"], "CC0");
    assert_eq!(info["parameters"], parameters);
    let size = |path: &Path| fs::metadata(path).expect("there").len();
    let full = run_folder.join("weights.safetensors");
    assert!(size(&half) * 10 < size(&full) * 6);
    let again = fails(&["export", text(&run_folder), "-o", text(&half)]);
    assert!(again.contains("--overwrite"), "{again}");

    let picture = folder.path().join("a.png");
    run(&[
        "sample",
        "--weights",
        text(&half),
        "--seeds",
        "7",
        "--steps",
        "2",
        "-o",
        text(&picture),
    ]);
    let picture = png(&picture);
    assert_eq!(picture.dimensions(), (32, 32));
    let values: std::collections::HashSet<_> = picture.pixels().collect();
    assert!(values.len() > 16, "an even colour");
}

#[test]
fn trains_on_the_embedded_set_exports_and_samples() {
    // With names under the pictures.
    train_export_sample("emoji", (104, 132), 3394627);
}

#[test]
fn trains_on_cifar10_exports_and_samples() {
    match cifar10() {
        Some(path) => train_export_sample(text(&path), (32, 32), 3150019),
        None => eprintln!("no CIFAR-10 here: this test has shown nothing"),
    }
}

/// A network so small that a step takes no time, with dropout, for `--options`.
fn small_options(folder: &Path) -> String {
    let path = folder.join("small.json");
    let options = serde_json::json!({
        "batch": 8,
        "augment": 0.12,
        "model": {"network": {
            "channels": [32], "blocks": [1], "window": {"size": 8}, "dropout": 0.1,
            "time": {"channels": 8, "width": 8},
        }},
    });
    fs::write(&path, options.to_string()).expect("written");
    text(&path).to_string()
}

/// Classes of the emoji, from training to pictures.
#[test]
fn pictures_are_made_by_name() {
    let folder = TempDir::new().expect("a temporary folder");
    let out = folder.path().join("runs");
    let options = small_options(folder.path());
    let train = |more: &[&str]| {
        let usual = ["train", "--options", &options, "--data", "emoji", "--from", "scratch"];
        let sizes = ["--grid", "2", "--duration", "16", "--out", text(&out)];
        trainer().args(usual).args(sizes).args(more).assert().success()
    };
    train(&["--preset", "tiny-emoji"]);
    let weights_file = only_run(&out).join("weights.safetensors");
    let info: Value =
        serde_json::from_str(&run(&["info", text(&weights_file), "--json"])).expect("JSON");
    assert_eq!(info["card"]["classes"].as_array().map(Vec::len), Some(1911));
    assert_eq!(info["card"]["class_groups"].as_array().map(Vec::len), Some(10));

    // The head of the network has learned next to nothing, but what is asked for is told apart.
    let sample = |name: &str, classes: &str, more: &[&str]| {
        let path = folder.path().join(name);
        let mut args = vec!["sample", "--weights", text(&weights_file), "--steps", "2"];
        args.extend(["--seeds", "0-3", "-o", text(&path)]);
        if !classes.is_empty() {
            args.extend(["--class", classes]);
        }
        args.extend(more);
        run(&args);
        fs::read(&path).expect("a picture")
    };
    let origin = |png: &[u8]| {
        let origin = model::picture::Origin::from_png(png).expect("settings");
        serde_json::to_value(origin.settings.classes).expect("plain data")
    };
    let mixed = sample("mixed.png", "otter=0.6,pizza=0.4;rocket;red heart", &[]);
    let classes =
        [origin(&sample("otter.png", "otter", &[])), origin(&sample("p.png", "pizza", &[]))];
    assert_eq!(origin(&mixed)[0], serde_json::json!([[classes[0][0], 0.6], [classes[1][0], 0.4]]));
    assert_eq!(origin(&mixed).as_array().map(Vec::len), Some(3));
    // A model with classes makes pictures of none too.
    assert_eq!(origin(&sample("none.png", "", &[])), serde_json::json!([]));
    // Names stand below the pictures, which grow.
    sample("names.png", "otter,pizza", &["--labels"]);
    let names = png(&folder.path().join("names.png"));
    assert_eq!(names.dimensions(), (208, 264));
    let said = fails(&["sample", "--weights", text(&weights_file), "--class", "otter=x"]);
    assert!(said.contains("otter=x"), "{said}");

    // Weights for other classes are a start: all but the vectors of the classes is kept.
    fs::remove_dir_all(&out).expect("a folder");
    train(&["--preset", "tiny", "--lr", "1e-12"]);
    let started = only_run(&out).join("weights.safetensors");
    let plain = weights(&started);
    fs::rename(&started, folder.path().join("plain.safetensors")).expect("moved");
    fs::remove_dir_all(&out).expect("a folder");
    let from = folder.path().join("plain.safetensors");
    let usual = ["train", "--options", &options, "--data", "emoji", "--from", text(&from)];
    let more = ["--preset", "tiny-emoji", "--lr", "1e-12", "--grid", "0", "--duration", "16"];
    trainer().args(usual).args(more).args(["--out", text(&out)]).assert().success();
    let (mut kept, mut new) = (0, Vec::new());
    for (name, values) in weights(&only_run(&out).join("weights.safetensors")) {
        match plain.iter().find(|(known, _)| *known == name) {
            Some((_, before)) => {
                let floats = |bytes: &[u8]| -> Vec<f64> {
                    let four = bytes.chunks_exact(4);
                    four.map(|b| f32::from_le_bytes(b.try_into().expect("4")).into()).collect()
                };
                let (values, before) = (floats(&values), floats(before));
                // Steps of 1e-12, and biases that began at zero.
                let near = values.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-9);
                assert!(near && values.len() == before.len(), "{name}");
                kept += 1;
            }
            None => new.push(name),
        }
    }
    assert_eq!((kept, new), (plain.len(), vec!["time.class.weight".to_string()]));
}

/// The tensors of the latest checkpoint of a run: weights, moving average, optimizer.
fn latest(run_folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<_> = fs::read_dir(run_folder.join("checkpoints"))
        .expect("a folder")
        .map(|e| e.expect("entry").path())
        .collect();
    paths.sort();
    let bytes = fs::read(paths.pop().expect("a checkpoint")).expect("readable");
    // Behind the magic and the hash lies a safetensors file.
    let file = SafeTensors::deserialize(&bytes[40..]).expect("a safetensors file");
    let mut tensors = Vec::new();
    for (name, view) in file.iter() {
        match name {
            "optimizer" => tensors.extend(moments(view.data())),
            name => tensors.push((name.to_string(), view.data().to_vec())),
        }
    }
    tensors.sort();
    tensors
}

/// The tensors of Burn's optimizer record, which it writes in no fixed order: four bytes of
/// magic, two of version, four of length, a CBOR map that says where each tensor lies in the rest.
fn moments(record: &[u8]) -> Vec<(String, Vec<u8>)> {
    let length = u32::from_le_bytes(record[6..10].try_into().expect("four bytes")) as usize;
    let header: Value = ciborium::from_reader(&record[10..10 + length]).expect("CBOR");
    let tensors = header["tensors"].as_object().expect("tensors");
    let place = |tensor: &Value, end: usize| {
        tensor["data_offsets"][end].as_u64().expect("an offset") as usize
    };
    // The data come last, behind some padding.
    let size = tensors.values().map(|tensor| place(tensor, 1)).max().expect("some tensors");
    let data = &record[record.len() - size..];
    assert!(tensors.len() > 20 && size > 10_000);
    tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), data[place(tensor, 0)..place(tensor, 1)].to_vec()))
        .collect()
}

/// The lines of a run's log, without what depends on the machine.
fn log(run_folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run_folder.join("stats.jsonl")).expect("a log");
    text.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            let fields = line.as_object_mut().expect("an object");
            for of_the_machine in ["seconds", "images_per_second", "peak_memory"] {
                // What was measured on held-out pictures says less.
                let there = fields.remove(of_the_machine).is_some();
                assert!(there || fields.contains_key("validation_loss"), "{of_the_machine}");
            }
            line
        })
        .collect()
}

#[test]
fn going_on_gives_what_not_stopping_gives() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let train = |out: &Path, threads: &str, more: &[&str]| {
        let mut args = vec!["train", "--grid", "0"];
        let start = ["--options", &options, "--seed", "5", "--out", text(out)];
        if more[0] != "--resume" {
            args.extend(start);
        }
        args.extend(more);
        // Another number of threads makes the batches, and computes.
        trainer().args(&args).env("RAYON_NUM_THREADS", threads).assert().success();
    };
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    train(&whole, "2", &["--duration", "2400"]);
    // In the middle of a pass over the 1911 pictures, on to the middle of the next.
    train(&parts, "1", &["--duration", "1000"]);
    let run_folder = only_run(&parts);
    train(&parts, "3", &["--resume", text(&run_folder), "--duration", "2400"]);
    let whole = only_run(&whole);
    let (found, want) = (latest(&run_folder), latest(&whole));
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(&want) {
        assert!(found == want, "{} differs", found.0);
    }
    assert_eq!(log(&run_folder), log(&whole));
    let name = "weights.safetensors";
    assert_eq!(weights(&whole.join(name)), weights(&run_folder.join(name)));

    let done = fails(&["train", "--resume", text(&run_folder)]);
    assert!(done.contains("has seen its 2400 images"), "{done}");
    let nowhere = fails(&["train", "--resume", text(&folder.path().join("nowhere"))]);
    assert!(nowhere.contains("no such run"), "{nowhere}");
}

/// A folder of so many pictures, 32x32.
fn some_pictures(folder: &Path, count: usize) -> String {
    let path = folder.join("held out");
    fs::create_dir(&path).expect("made");
    for i in 0..count {
        fs::write(path.join(format!("{i}.png")), picture(32, ImageFormat::Png)).expect("written");
    }
    text(&path).to_string()
}

/// With Muon, a learning rate that falls, noise that is dealt out and pictures that are held out.
#[test]
fn every_recipe_goes_on_as_if_it_had_not_stopped() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let said = run(&[
        "train",
        "--options",
        &options,
        "--optimizer",
        "muon",
        "--muon-lr",
        "1e-3",
        "--lr-ramp",
        "500",
        "--lr-decay",
        "0.5",
        "--immiscible",
        "--validate",
        "16",
        "--validate-every",
        "400",
        "--save-every",
        "600",
        "--duration",
        "1200",
        "--grid",
        "0",
        "--json",
        "--out",
        text(&out),
    ]);
    let run_folder = only_run(&out);
    let (tensors, lines) = (latest(&run_folder), log(&run_folder));
    let weights_file = run_folder.join("weights.safetensors");
    let made = weights(&weights_file);

    // Whenever it was asked for, the last time at the end; and in all places that tell of it.
    let held_out: Vec<(u64, f64)> = lines
        .iter()
        .filter_map(|line| Some((line["images"].as_u64()?, line["validation_loss"].as_f64()?)))
        .collect();
    assert_eq!(held_out.iter().map(|of| of.0).collect::<Vec<_>>(), [400, 800, 1200]);
    assert!(held_out.iter().all(|of| of.1 > 0.0 && of.1 < 10.0), "{held_out:?}");
    assert!(held_out[2].1 < held_out[0].1, "nothing was learned: {held_out:?}");
    let last = held_out[2].1;
    let said: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(said.len(), lines.len() + 1);
    assert_eq!(said.last().expect("the result")["validation_loss"], last);
    for what in [&weights_file, &run_folder] {
        let info = run(&["info", text(what), "--json"]);
        let info: Value = serde_json::from_str(&info).expect("JSON");
        assert_eq!(info["card"]["validation_loss"], last);
    }
    let events = fs::read_dir(&run_folder).expect("there").map(|e| e.expect("entry").path());
    let mut events = events.filter(|path| text(path).contains("tfevents"));
    let events = fs::read(events.next().expect("a file")).expect("readable");
    let times = events.windows(15).filter(|name| name == b"validation_loss").count();
    assert_eq!(times, 3);
    // The learning rate of the step before the line.
    let rates: Vec<f64> = lines.iter().filter_map(|line| line["lr"].as_f64()).collect();
    let want = 5e-4 * 208.0 / 600.0;
    assert!(rates.len() == 1 && (rates[0] / want - 1.0).abs() < 1e-9, "{rates:?}, not {want}");

    let half = run_folder.join("checkpoints/000000600.ckpt");
    trainer()
        .args(["train", "--resume", text(&half), "--grid", "0", "--validate-every", "400"])
        .env("RAYON_NUM_THREADS", "3")
        .assert()
        .success();
    let found = latest(&run_folder);
    assert_eq!(found.len(), tensors.len());
    for (found, want) in found.iter().zip(&tensors) {
        assert!(found == want, "{} differs", found.0);
    }
    assert_eq!(log(&run_folder), lines);
    assert!(weights(&weights_file) == made, "the weights differ");

    // What was held out stays so; from elsewhere, anything may be taken.
    let resume = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration", "1208"];
    let error = fails(&[&resume[..], &["--validate", "17"]].concat());
    assert!(error.contains("--validate") && error.contains("--validation-data"), "{error}");
    for flag in ["--optimizer=adam", "--immiscible"] {
        let error = fails(&[&resume[..], &[flag]].concat());
        assert!(error.contains("cannot be used with"), "{error}");
    }
}

#[test]
fn pictures_to_measure_on_can_come_from_elsewhere() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let pictures = some_pictures(folder.path(), 3);
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = [
            "train",
            "--preset",
            "tiny",
            "--options",
            &options,
            "--grid",
            "0",
            "--out",
            text(&out),
        ];
        run(&[&args[..], &["--duration", "16"], more].concat());
        only_run(&out)
    };
    let plain = train("plain", &[]);
    let measured = train("measured", &["--validate", "2", "--validation-data", &pictures]);
    // Nothing else is changed by it: the same pictures are trained on.
    assert!(latest(&plain) == latest(&measured));
    let others = train("others", &["--validate", "1000"]);
    assert!(latest(&plain) != latest(&others));
    assert_eq!(log(&measured).len(), 1);
    // A run that was begun without may be measured from now on, and no longer.
    let resume = ["train", "--grid", "0", "--resume"];
    let from_there = ["--duration", "24", "--validate", "3", "--validation-data", &pictures];
    run(&[&resume[..], &[text(&plain)], &from_there].concat());
    assert!(log(&plain)[0]["validation_loss"].as_f64() > Some(0.0));
    run(&[&resume[..], &[text(&plain), "--duration", "32", "--validate", "0"]].concat());
    assert_eq!(log(&plain).len(), 1);

    let out = folder.path().join("none");
    let args = ["train", "--preset", "tiny", "--options", &options, "--out", text(&out)];
    for (more, message) in [
        (&["--validate", "1911"][..], "some have to be left to train on"),
        (&["--validate", "4", "--validation-data", &pictures], "has 3 pictures"),
        (&["--validation-data", &pictures], "--validate"),
        (&["--validate", "1", "--validation-data", "nowhere"], "nowhere"),
        (&["--muon-lr", "1"], "the optimizer is Adam"),
        (&["--lr-decay", "2"], "within 0 to 1"),
    ] {
        let error = fails(&[&args[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
    }
    assert!(!out.exists());
}

#[test]
fn parts_of_a_batch_make_the_whole() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = folder.path().join("options.json");
    // Dropout draws for each part anew, so without it.
    let text_of = fs::read_to_string(small_options(folder.path())).expect("there");
    fs::write(
        &options,
        text_of.replace("0.1}", "0.0}").replace("\"dropout\":0.1", "\"dropout\":0.0"),
    )
    .expect("written");
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--grid", "0", "--duration", "80", "--out", text(&out)];
        let options = ["--options", text(&options), "--lr-ramp", "0"];
        run(&[&args[..], &options, more].concat());
        let file = Tensors::open(&only_run(&out).join("weights.safetensors"));
        ["head.conv.bias", "encoder.0.blocks.0.conv.weight"].map(|name| file.get(name).1)
    };
    let whole = train("whole", &[]);
    let parts = train("parts", &["--micro-batch", "2"]);
    for (whole, parts) in whole.iter().zip(&parts) {
        assert_close("weights", parts, whole, 1e-3);
    }
    let other = train("other", &["--clip", "1e-3", "--lr", "1e-2"]);
    assert_ne!(whole, other);
}

#[test]
fn other_processes_train_and_sample() {
    let folder = TempDir::new().expect("a temporary folder");
    for kind in ["vp", "ve"] {
        let path = small_options(folder.path());
        let mut options: Value =
            serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
        options["loss"] = serde_json::json!({"kind": kind});
        options["model"]["precond"] = serde_json::json!({"kind": kind});
        fs::write(&path, options.to_string()).expect("written");
        let out = folder.path().join(kind);
        run(&["train", "--options", &path, "--grid", "1", "--duration", "16", "--out", text(&out)]);
        let options = fs::read(only_run(&out).join("options.json")).expect("the recipe");
        let options: Value = serde_json::from_slice(&options).expect("JSON");
        assert_eq!(
            (&options["loss"]["kind"], &options["model"]["precond"]["kind"]),
            (&kind.into(), &kind.into())
        );
        let grid = png(&only_run(&out).join("grids/000000016.png"));
        let values: std::collections::HashSet<_> = grid.pixels().collect();
        assert!(values.len() > 16, "{kind}: an even colour");
    }
}

/// Killed again and again, at whatever it is doing: in the end the run has what a run has that was
/// left alone.
#[test]
fn being_killed_loses_nothing_but_time() {
    use std::process::{Command, Stdio};
    use std::time::Duration;
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let start = |out: &Path| -> Vec<String> {
        let args =
            ["train", "--options", &options, "--grid", "0", "--seed", "3", "--out", text(out)];
        args.map(String::from).to_vec()
    };
    let goal = ["--duration", "480", "--save-every", "16"].map(String::from);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    trainer().args(start(&whole)).args(&goal).assert().success();

    let program = trainer().get_program().to_owned();
    let mut kills = 0;
    for round in 0u64.. {
        let runs = fs::read_dir(&killed).map(|runs| runs.count()).unwrap_or(0);
        let saved = runs > 0
            && fs::read_dir(only_run(&killed).join("checkpoints")).is_ok_and(|c| {
                c.filter_map(Result::ok).any(|e| e.path().extension().is_some_and(|e| e == "ckpt"))
            });
        let args = if saved {
            vec![
                "train".into(),
                "--grid".into(),
                "0".into(),
                "--resume".into(),
                text(&only_run(&killed)).into(),
            ]
        } else {
            // Killed before its first checkpoint: there is nothing to go on from.
            let _ = fs::remove_dir_all(&killed);
            start(&killed)
        };
        let mut child = Command::new(&program)
            .args(args)
            .args(&goal)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        // Longer each time, so that it comes to an end on a slow machine too.
        let patience = Duration::from_millis(300 + 170 * round);
        let started = std::time::Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().expect("asked") {
                break Some(status);
            }
            if started.elapsed() > patience {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match ended {
            Some(status) => {
                assert!(status.success(), "round {round}: {status}");
                break;
            }
            None => {
                child.kill().expect("killed");
                child.wait().expect("ended");
                kills += 1;
            }
        }
    }
    assert!(kills > 1, "it was never killed");
    let (whole, killed) = (only_run(&whole), only_run(&killed));
    assert!(latest(&whole) == latest(&killed), "the checkpoints differ");
    assert_eq!(log(&whole), log(&killed));
}

/// A thousand steps, with grids and checkpoints in between, take no more memory than the first.
#[cfg(target_os = "linux")]
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
fn a_run_that_explodes_stops_and_says_how_to_go_back() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    run(&[&args[..], &["--duration", "16", "--lr", "1e-4"]].concat());
    let run_folder = only_run(&out);
    let before = latest(&run_folder);
    let error = fails(&[
        "train",
        "--resume",
        text(&run_folder),
        "--lr",
        "1e30",
        "--lr-ramp",
        "0",
        "--grid",
        "0",
        "--duration",
        "1k",
    ]);
    for part in ["10 steps in a row", "learning rate 1e30", "000000016.ckpt --lr 5e29"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    // Nothing that can no longer be used was saved over what can.
    assert_eq!(latest(&run_folder), before);
}

#[test]
fn a_dry_run_explains_every_value_and_writes_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let said =
        run(&["train", "--options", &options, "--lr", "0.25", "--out", text(&out), "--dry-run"]);
    let line = |name: &str| {
        let line = said.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{said:?} has no {name}")).to_string()
    };
    assert!(line("adam.lr").contains("0.25") && line("adam.lr").ends_with("flags"));
    assert!(line("batch").ends_with("small.json"));
    assert!(line("lr_ramp").ends_with("preset tiny-emoji"));
    for part in ["parameters", "multiply-adds", "memory", "run folder"] {
        assert!(said.contains(part), "{part}");
    }
    assert!(!out.exists());
    fs::write(&options, r#"{"bacth": 8}"#).expect("written");
    let error = fails(&["train", "--options", &options, "--dry-run"]);
    assert!(error.contains("bacth") && error.contains("small.json"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_loudly() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    run(&[&args[..], &["--duration", "24", "--save-every", "8"]].concat());
    let run_folder = only_run(&out);
    let newest = run_folder.join("checkpoints/000000024.ckpt");
    let bytes = fs::read(&newest).expect("there");
    fs::write(&newest, &bytes[..bytes.len() - 1]).expect("cut");
    let args = ["train", "--resume", text(&run_folder), "--grid", "0", "--duration", "32"];
    let assert = trainer().args(args).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("000000024.ckpt: this checkpoint is damaged"), "{said}");
    assert!(said.contains("going on after 16 images"), "{said}");
    // It is kept, under a name by which it is not taken for a step of this run.
    let aside = run_folder.join("checkpoints/000000024.ckpt.aside");
    assert_eq!(fs::read(&aside).expect("kept").len(), bytes.len() - 1);
    // One that was asked for by name is not replaced by another.
    fs::copy(&aside, &newest).expect("copied");
    let named = fails(&["train", "--resume", text(&newest), "--duration", "40"]);
    assert!(named.contains("000000024.ckpt: this checkpoint is damaged"), "{named}");
}

#[test]
fn going_back_to_an_earlier_checkpoint_leaves_the_later_ones_behind() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out), "--keep", "2"];
    run(&[&args[..], &["--duration", "32", "--save-every", "16"]].concat());
    let checkpoints = only_run(&out).join("checkpoints");
    let back = checkpoints.join("000000016.ckpt");
    let args = ["train", "--resume", text(&back), "--grid", "0", "--lr", "1e-5", "--keep", "1"];
    let assert = trainer().args(args).args(["--duration", "24"]).assert().success();
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(said.contains("000000032.ckpt.aside"), "{said}");
    let mut names: Vec<String> = fs::read_dir(&checkpoints)
        .expect("there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["000000024.ckpt", "000000032.ckpt.aside"]);
}

#[test]
fn two_workers_train_as_one_does() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out), "--json"];
        let said = run(&[&args[..], &["--duration", "2048"], more].concat());
        let first: Value =
            serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
        first["loss"].as_f64().expect("a number")
    };
    let one = train("one", &["--micro-batch", "4"]);
    let two = train("two", &["--micro-batch", "2", "--devices", "2"]);
    assert!((one / two - 1.0).abs() < 1e-3, "{one} and {two}");
    let out = folder.path().join("three");
    let error = fails(&["train", "--options", &options, "--devices", "3", "--out", text(&out)]);
    assert!(error.contains("3 devices cannot share a batch of 8"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn gradient_checkpointing_takes_less_memory_and_learns_the_same() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    // One block is all that is there at a time: with one, nothing would be saved.
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

/// A disk that is full, as far as a process can tell: no file may grow beyond a limit.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_does_not_fit_is_an_error_and_harms_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let args = ["train", "--options", &options, "--grid", "0", "--out", text(&out)];
    run(&[&args[..], &["--duration", "8"]].concat());
    let run_folder = only_run(&out);
    let saved = fs::read(run_folder.join("checkpoints/000000008.ckpt")).expect("saved");
    let blocks = saved.len() / 2 / 512;
    let program = trainer().get_program().to_owned();
    let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = std::process::Command::new("sh")
        .args(["-c", &limited])
        .arg(program)
        .args(["train", "--resume", text(&run_folder), "--duration", "16", "--grid", "0"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["000000016.ckpt", " MB", "earlier checkpoints are untouched", "large"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(fs::read(run_folder.join("checkpoints/000000008.ckpt")).expect("there"), saved);
    assert_eq!(fs::read_dir(run_folder.join("checkpoints")).expect("there").count(), 1);
    run(&["train", "--resume", text(&run_folder), "--duration", "16", "--grid", "0"]);
}

#[cfg(target_os = "linux")]
#[test]
fn folders_that_cannot_be_written_are_named() {
    let error = fails(&["train", "--duration", "8", "--out", "/proc/runs"]);
    assert!(error.contains("cannot make a run folder in /proc/runs"), "{error}");
    let error = fails(&["train", "--duration", "8", "--options", "/no/such.json"]);
    assert!(error.contains("/no/such.json"), "{error}");
}

/// What would not fit into memory is not begun.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_does_not_suffice_is_told_before_training() {
    let folder = TempDir::new().expect("a temporary folder");
    let out = folder.path().join("runs");
    let program = trainer().get_program().to_owned();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 4000000; exec \"$0\" \"$@\""])
        .arg(program)
        .args(["train", "--batch", "512", "--duration", "512", "--out", text(&out)])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--micro-batch below 512") && said.contains("MB"), "{said}");
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let folder = TempDir::new().expect("a temporary folder");
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let out = folder.path().join(signal);
        let command = trainer();
        let mut child = Command::new(command.get_program())
            .args([
                "train",
                "--from",
                "scratch",
                "--batch",
                "4",
                "--grid",
                "0",
                "--duration",
                "1M",
                "--out",
            ])
            .arg(&out)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let started = Instant::now();
        while !out.exists() || fs::read_dir(&out).expect("there").count() == 0 {
            assert!(started.elapsed() < Duration::from_secs(60), "no run folder appears");
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(1));
        let lock = File::open(only_run(&out).join("lock")).expect("a lock");
        assert!(lock.try_lock().is_err(), "the run is free while it is trained");
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
        let mut stderr = child.stderr.take().expect("piped");
        assert_eq!(child.wait().expect("ended").code(), Some(code));
        let mut said = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut said).expect("text");
        assert!(said.contains("trainer train --resume"), "{said}");
        let checkpoints = only_run(&out).join("checkpoints");
        assert_eq!(fs::read_dir(checkpoints).expect("there").count(), 1);
    }
}

#[test]
fn a_seed_is_a_picture_however_it_is_asked_for() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (grid, again, separate) = (path("grid.png"), path("again.png"), path("separate"));
    let common = ["sample", "--steps", "2", "--sampler", "euler", "--seeds", "0-2,9"];
    let sample = |more: &[&str]| run(&[&common[..], more].concat());
    sample(&["-o", text(&grid), "--columns", "4"]);
    sample(&["-o", text(&again), "--columns", "4", "--batch", "3"]);
    sample(&["-o", text(&separate), "--separate"]);
    let grid = png(&grid);
    assert_eq!(grid.dimensions(), (128, 32));
    // Another batch size orders sums differently, which may change the last of 256 steps.
    let off = grid.iter().zip(png(&again).iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{off:?}");
    for (place, seed) in [0, 1, 2, 9].into_iter().enumerate() {
        let single = png(&separate.join(format!("{seed:06}.png")));
        let cut = image::imageops::crop_imm(&grid, place as u32 * 32, 0, 32, 32).to_image();
        assert_eq!(single, cut, "seed {seed}");
    }
    // The settings travel inside.
    let file = fs::read(separate.join("000009.png")).expect("there");
    let inside = String::from_utf8_lossy(&file);
    for part in ["diffit", "\"seeds\":[9]", "\"steps\":2", "\"method\":\"euler\""] {
        assert!(inside.contains(part), "{part} is not in the file");
    }
}

/// The samplers of discrete time, with a network that was trained for none of them.
#[test]
fn samplers_of_discrete_time_draw_pictures() {
    let folder = TempDir::new().expect("a temporary folder");
    let draw = |name: &str, more: &[&str]| {
        let path = folder.path().join(name);
        run(&[&["sample", "--seeds", "9", "-o", text(&path)], more].concat());
        (png(&path), String::from_utf8_lossy(&fs::read(&path).expect("there")).into_owned())
    };
    let (euler, _) = draw("euler.png", &["--respacing", "6", "--sampler", "euler"]);
    let (ddim, inside) = draw("ddim.png", &["--respacing", "6", "--sampler", "ddim"]);
    let off = euler.iter().zip(ddim.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "without fresh noise ddim is euler, up to rounding: {off:?}");
    for part in ["\"ddim\":{\"eta\":0.0}", "\"kind\":\"adm\"", "\"steps\":6"] {
        assert!(inside.contains(part), "{part} is not in the file");
    }
    let ddpm =
        ["--respacing", "2,4", "--sampler", "ddpm", "--variance", "small", "--clip-denoised"];
    let (ancestral, inside) = draw("ddpm.png", &ddpm);
    assert!(inside.contains("\"sections\":[2,4]") && inside.contains("\"clip_denoised\":true"));
    assert_eq!(ancestral, draw("again.png", &ddpm).0);
    assert_ne!(ancestral, ddim);
}

/// The samplers with a history come close to many steps of Heun in few.
#[test]
fn samplers_of_higher_order_draw_the_same_pictures() {
    let folder = TempDir::new().expect("a temporary folder");
    let draw = |name: &str, more: &[&str]| {
        let path = folder.path().join(name);
        run(&[&["sample", "--seeds", "9", "-o", text(&path)], more].concat());
        (png(&path), String::from_utf8_lossy(&fs::read(&path).expect("there")).into_owned())
    };
    let (heun, _) = draw("heun.png", &["--steps", "30"]);
    for (sampler, inside) in [
        (&["--sampler", "ipndm"][..], &["\"ipndm\":{\"order\":4}", "\"kind\":\"edm\""][..]),
        (&["--sampler", "ipndm", "--order", "2"], &["\"ipndm\":{\"order\":2}"]),
        (
            &["--sampler", "dpmpp", "--levels", "log-snr"],
            &["\"dpmpp\":{\"order\":3}", "\"kind\":\"log-snr\"", "\"sigma_max\":80.0"],
        ),
        (&["--sampler", "dpmpp", "--order", "2"], &["\"dpmpp\":{\"order\":2}"]),
    ] {
        let (picture, file) = draw("other.png", &[&["--steps", "30"], sampler].concat());
        for part in inside {
            assert!(file.contains(part), "{sampler:?}: {part} is not in the file");
        }
        let off: f64 =
            picture.iter().zip(heun.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        let off = off / heun.len() as f64;
        assert!(off < 3.0, "{sampler:?}: {off} levels off on the mean");
        assert_ne!(picture, heun, "{sampler:?}");
    }
}

/// Addresses on this machine that nothing listens on.
fn free_addresses(count: usize) -> String {
    let listeners: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let addresses: Vec<String> =
        listeners.iter().map(|l| l.local_addr().expect("bound").to_string()).collect();
    addresses.join(",")
}

/// Two processes take the place of two machines.
#[cfg(unix)]
#[test]
fn machines_train_together() {
    use std::process::{Child, Command, Stdio};
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let latents = folder.path().join("pictures.latents");
    let encode =
        ["data", "encode", "--data", text(&pictures), "--size", "32", "-o", text(&latents)];
    run(&[&encode[..], &["--vae", text(&vae), "--vae-config", text(&sizes)]].concat());
    let options = small_latent_options(folder.path());
    let recipe = ["--preset", "latent-tiny", "--options", &options, "--data", text(&latents)];
    let start = |args: &[&str]| -> Child {
        let program = trainer();
        let mut command = Command::new(program.get_program());
        command.args(["train", "--grid", "0"]).args(args);
        command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts")
    };
    let ended = |child: Child| -> (Option<i32>, String) {
        let output = child.wait_with_output().expect("it ends");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let out = |name: &str| folder.path().join(name);

    // One machine, with two workers.
    let one = ["--devices", "2", "--duration", "160", "--out"];
    run(&[&["train", "--grid", "0"], &recipe[..], &one, &[text(&out("one"))]].concat());
    let one = latest(&only_run(&out("one")));
    // Two machines, stopped half way, and gone on.
    let together = |args: [Vec<&str>; 2]| {
        let nodes = free_addresses(2);
        let start = |own: usize| {
            start(&[&["--nodes", &nodes, "--node", ["0", "1"][own]], &args[own][..]].concat())
        };
        [start(0), start(1)].map(ended)
    };
    let outs = ["first", "second"].map(out);
    let begin = |out: &'_ Path| {
        let more = ["--duration", "80", "--out"].map(String::from);
        let args = recipe.map(String::from).into_iter().chain(more);
        args.chain([text(out).to_string()]).collect::<Vec<String>>()
    };
    let begins = outs.each_ref().map(|out| begin(out));
    let borrowed = begins.each_ref().map(|args| args.iter().map(String::as_str).collect());
    let ends = together(borrowed);
    assert!(ends.iter().all(|(code, _)| *code == Some(0)), "{ends:?}");
    let folders = outs.each_ref().map(|out| only_run(out));
    let go_on = |folder: &'_ Path| {
        vec!["--resume".to_string(), text(folder).into(), "--duration".into(), "160".into()]
    };
    let go_ons = folders.each_ref().map(|folder| go_on(folder));
    let borrowed = go_ons.each_ref().map(|args| args.iter().map(String::as_str).collect());
    let ends = together(borrowed);
    assert!(ends.iter().all(|(code, _)| *code == Some(0)), "{ends:?}");
    let [first, second] = folders.each_ref().map(|folder| latest(folder));
    assert!(first == second, "the machines have come apart");
    assert!(first == one, "two machines learn something else than one with two workers");

    // Whoever does something else does not begin.
    let seeds = ["1", "2"].map(|seed| [&recipe[..], &["--seed", seed, "--out"]].concat());
    let never = out("never");
    let other = seeds.map(|args| [args, vec![text(&never)]].concat());
    for (code, said) in together(other) {
        assert!(code == Some(1) && said.contains("do not train the same"), "{code:?}: {said}");
    }
    assert!(!never.exists());

    // One that is stopped stops all; one that is killed is missed.
    for (signal, codes, message) in
        [("-INT", [Some(0), Some(130)], "to go on"), ("-KILL", [Some(1), None], "is gone")]
    {
        let nodes = free_addresses(2);
        let outs = ["0", "1"].map(|own| out(signal).join(own));
        let [stays, goes] = ["0", "1"].map(|own| {
            let out = &outs[usize::from(own == "1")];
            let more = ["--duration", "100M", "--out", text(out), "--save-every", "8"];
            start(&[&["--nodes", &nodes, "--node", own], &recipe[..], &more].concat())
        });
        let saved = |out: &Path| {
            let mut runs = fs::read_dir(out).into_iter().flatten().flatten();
            runs.any(|run| {
                let checkpoints = fs::read_dir(run.path().join("checkpoints"));
                checkpoints.is_ok_and(|mut found| found.next().is_some())
            })
        };
        let started = std::time::Instant::now();
        while !outs.iter().all(|out| saved(out)) {
            assert!(started.elapsed().as_secs() < 60, "nothing is saved");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let id = goes.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
        let [stayed, gone] = [stays, goes].map(ended);
        assert_eq!([stayed.0, gone.0], codes, "{stayed:?} {gone:?}");
        assert!(stayed.1.contains(message), "{}", stayed.1);
        assert!(!stayed.1.contains("panicked"), "{}", stayed.1);
    }
    for (args, message) in [
        (&["--nodes", "a:1,b:1"][..], "--node"),
        (&["--nodes", "a:1", "--node", "0"], "one machine alone"),
        (&["--nodes", "a:1,b:1", "--node", "2"], "from 0 to 1"),
        (&["--nodes", "a:1,b:1,c:1", "--node", "0"], "3 devices cannot share"),
    ] {
        let error = fails(&[&["train", "--grid", "0"], args].concat());
        assert!(error.contains(message), "{args:?}: {error:?} does not say {message:?}");
    }
}

/// From noise to latents with classes and guidance, and from latents to pictures.
#[test]
fn latents_become_pictures() {
    use model::config::{LinearBetas, PrecondConfig};
    let config = tests::small_latent(PrecondConfig::Adm { betas: LinearBetas::default() });
    let model = model::Model::new(config, 0, &burn::tensor::Device::flex()).expect("it fits");
    let card = model::card::Card::default();
    let file = model::weights::to_bytes(
        &model.config,
        &card,
        None,
        model.parameters(),
        model::weights::Precision::F32,
    );
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (weights, sizes, output) = (path("latent.safetensors"), path("vae.json"), path("a.png"));
    fs::write(&weights, file.expect("finite")).expect("written");
    let text_of_sizes = r#"{"channels": [8, 16, 16], "layers": 1, "groups": 4}"#;
    fs::write(&sizes, text_of_sizes).expect("written");
    let vae = root().join("tests/golden/vae.safetensors");
    let common = ["sample", "--weights", text(&weights), "--seeds", "0-2", "-o", text(&output)];
    let latents = ["--vae", text(&vae), "--vae-config", text(&sizes)];
    let steps = ["--sampler", "ddpm", "--respacing", "3", "--separate"];
    let guided = ["--classes", "1,4", "--guidance", "4.4"];
    run(&[&common[..], &latents, &steps, &guided].concat());
    // An eighth is for the real autoencoder; this one has a quarter.
    let picture = png(&output.join("000002.png"));
    assert_eq!(picture.dimensions(), (32, 32));
    let inside = fs::read(output.join("000002.png")).expect("there");
    let inside = String::from_utf8_lossy(&inside);
    assert!(inside.contains("\"classes\":[1,4]") && inside.contains("\"scale\":4.4"), "{inside}");
    assert!(inside.contains("\"vae_sha256\":\""), "{inside}");

    // An autoencoder's file can say its sizes itself.
    let bytes = fs::read(&vae).expect("there");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file").tensors();
    let metadata = [("diffit_vae".to_string(), text_of_sizes.to_string())].into();
    let own = path("own.safetensors");
    fs::write(&own, safetensors::serialize(tensors, Some(metadata)).expect("fits"))
        .expect("written");
    run(&[&common[..], &["--vae", text(&own)], &steps, &guided].concat());
    assert_eq!(png(&output.join("000002.png")), picture);

    for (more, message) in [
        (&["--steps", "2"][..], "--vae"),
        (&["--vae", text(&vae)], "norm1.weight` is [8], not [128]"),
        (&["--vae", text(&weights)], "is missing"),
        (&["--classes", "7"], "class 7: this model has 5"),
        (&["--classes", "some"], "no class is called `some`"),
        (&["--guidance", "2"], "--classes"),
    ] {
        let error = fails(&[&common[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
    }
    let shipped = fails(&[&["sample", "--steps", "2"], &latents[..]].concat());
    assert!(shipped.contains("leave --vae out"), "{shipped}");
}

/// A small autoencoder, its sizes, and 24 pictures of two classes, not all of one size.
fn small_autoencoder_and_pictures(folder: &Path) -> [std::path::PathBuf; 3] {
    let [vae, sizes, pictures] = ["vae", "vae.json", "pictures"].map(|name| folder.join(name));
    let bytes = fs::read(root().join("tests/golden/vae.safetensors")).expect("there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    // As it is there, some deviations are e^10.
    let zeros = vec![0; 32];
    let tensors = file.iter().map(|(name, tensor)| match name {
        "quant_conv.bias" => (name, view(Dtype::F32, &[8], &zeros)),
        name => (name, tensor),
    });
    fs::write(&vae, safetensors::serialize(tensors, None).expect("fits")).expect("written");
    fs::write(&sizes, r#"{"channels": [8, 16, 16], "layers": 1, "groups": 4}"#).expect("written");
    for (number, class) in ["cats", "dogs"].into_iter().enumerate() {
        fs::create_dir_all(pictures.join(class)).expect("made");
        for i in 0..12u32 {
            let side = if i == 5 { (48, 40) } else { (32, 32) };
            let picture = RgbImage::from_fn(side.0, side.1, |x, y| {
                let light = if number == 0 { x * 8 } else { y * 8 };
                image::Rgb([light as u8, (i * 20) as u8, (x * y / 5) as u8])
            });
            picture.save(pictures.join(class).join(format!("{i:02}.png"))).expect("written");
        }
    }
    [vae, sizes, pictures]
}

/// A latent network so small that a step takes no time, for `--options`.
fn small_latent_options(folder: &Path) -> String {
    let path = folder.join("latent.json");
    let options = serde_json::json!({
        "batch": 8,
        // In so few steps, an average that forgets slowly has learned nothing.
        "ema": {"half_life": 20},
        "adam": {"lr": 2e-3},
        "model": {"network": {
            "resolution": 8, "width": 24, "depth": 2, "classes": 2, "time_channels": 16,
            "transformer": {"head_dim": 8},
        }},
    });
    fs::write(&path, options.to_string()).expect("written");
    text(&path).to_string()
}

#[test]
fn pictures_are_encoded_once_and_stopping_changes_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let path = |name: &str| folder.path().join(name);
    let (whole, parts) = (path("whole.latents"), path("parts.latents"));
    let encode = |output: &Path, more: &[&str]| {
        let data = ["data", "encode", "--data", text(&pictures), "--vae", text(&vae)];
        let sizes = ["--vae-config", text(&sizes), "-o", text(output)];
        let size: &[&str] = if more.contains(&"--size") { &[] } else { &["--size", "32"] };
        let output = trainer().args([&data[..], &sizes, size, more].concat()).output();
        let output = output.expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let works = |output: &Path, more: &[&str]| {
        let (code, said) = encode(output, more);
        assert_eq!(code, Some(0), "{said}");
        said
    };
    let refuses = |output: &Path, more: &[&str]| {
        let (code, said) = encode(output, more);
        assert_eq!(code, Some(1), "{said}");
        said
    };
    works(&whole, &[]);
    let bytes = fs::read(&whole).expect("there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let moments = file.tensor("moments").expect("there");
    assert_eq!(moments.shape(), [24, 2, 2, 4, 8, 8]);
    let values: std::collections::HashSet<_> = moments.data().chunks_exact(4).collect();
    assert!(values.len() > 10_000, "{} values", values.len());
    let labels = file.tensor("labels").expect("there").data().to_vec();
    assert_eq!(
        labels,
        [[0, 0, 0, 0]; 12]
            .concat()
            .into_iter()
            .chain([[1, 0, 0, 0]; 12].concat())
            .collect::<Vec<u8>>()
    );

    // The moments are those of the model's autoencoder.
    let device = burn::tensor::Device::flex();
    let config = model::vae::VaeConfig {
        channels: vec![8, 16, 16],
        layers: 1,
        groups: 4,
        ..Default::default()
    };
    let model = model::vae::Vae::from_safetensors(&fs::read(&vae).expect("there"), config, &device);
    let picture = png(&pictures.join("cats/03.png"));
    let values: Vec<f32> = (0..3)
        .flat_map(|c| picture.pixels().map(move |p| f32::from(p.0[c]) / 127.5 - 1.0))
        .collect();
    let values = burn::tensor::TensorData::new(values, [1, 3, 32, 32]);
    let image = burn::tensor::Tensor::<4>::from_data(values, &device);
    let model = model.expect("as published");
    for (mirrored, image) in [image.clone(), image.flip([3])].into_iter().enumerate() {
        let encoded = model.encode(image);
        for (moment, want) in [encoded.mean, encoded.std].into_iter().enumerate() {
            let want: Vec<f64> = want.into_data().iter::<f64>().collect();
            let size = 4 * want.len();
            let found = &moments.data()[(3 * 4 + 2 * mirrored + moment) * size..][..size];
            let found =
                found.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four")));
            assert_close("moments", &found.map(f64::from).collect::<Vec<_>>(), &want, 1e-5);
        }
    }

    // Stopped in the middle of the 21st picture.
    let record = moments.data().len() / 24;
    let partial = path("parts.latents.partial");
    fs::write(&partial, &bytes[..bytes.len() - 3 * record - record / 2]).expect("written");
    assert!(works(&parts, &[]).contains("going on after 16 pictures"));
    assert!(fs::read(&parts).expect("there") == bytes, "what is gone on with differs");
    assert!(!partial.exists());

    // What is there already is not made again; what would be another is refused.
    assert!(works(&whole, &[]).contains("already"));
    assert!(refuses(&whole, &["--size", "16"]).contains("--overwrite replaces it"));
    let other = path("other.latents");
    fs::write(path("other.latents.partial"), &bytes[..bytes.len() - record]).expect("written");
    let error = refuses(&other, &["--size", "16"]);
    assert!(error.contains("begun with other pictures, another --size"), "{error}");
    works(&other, &["--size", "16", "--overwrite"]);
    assert!(fs::metadata(&other).expect("there").len() < bytes.len() as u64 / 3);
    let error = refuses(&other, &["--size", "30", "--overwrite"]);
    assert!(error.contains("30 is not a multiple") && error.contains("4 times smaller"), "{error}");

    let report = run(&["data", "check", text(&whole)]);
    for part in
        ["latents     24", "8x8         4 channels, scale 0.18215", "dogs                     12"]
    {
        assert!(report.contains(part), "{report:?} does not say {part:?}");
    }
    fs::write(pictures.join("dogs/empty.png"), b"").expect("written");
    let error = refuses(&path("never.latents"), &[]);
    assert!(error.contains("dogs/empty.png: the file is empty"), "{error}");
    assert!(!path("never.latents").exists() && !path("never.latents.partial").exists());
}

#[test]
fn latents_are_trained_on_and_sampled_with_guidance() {
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let latents = folder.path().join("pictures.latents");
    let decoder = ["--vae", text(&vae), "--vae-config", text(&sizes)];
    let encode =
        ["data", "encode", "--data", text(&pictures), "--size", "32", "-o", text(&latents)];
    run(&[&encode[..], &decoder].concat());

    let options = small_latent_options(folder.path());
    let from = ["--preset", "latent-tiny", "--options", &options, "--data", text(&latents)];
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        run(&[&["train", "--out", text(&out)], &from[..], more].concat());
        only_run(&out)
    };
    let whole = train("whole", &["--grid", "2", "--duration", "160"]);
    let parts = train("parts", &["--grid", "0", "--duration", "80"]);
    run(&["train", "--resume", text(&parts), "--grid", "0", "--duration", "160"]);
    assert!(latest(&parts) == latest(&whole), "going on gives something else");
    // Without the autoencoder, channels of latents are shown; with it, pictures.
    // Both are enlarged, with names below.
    assert_eq!(png(&whole.join("grids/000000160.png")).dimensions(), (208, 132));
    let shown = ["--grid", "2", "--duration", "8"];
    let shown = train("shown", &[&shown[..], &decoder].concat());
    assert_eq!(png(&shown.join("grids/000000008.png")).dimensions(), (208, 132));
    let start = |run: &Path| fs::read(run.join("grids/000000000.png")).expect("a grid");
    assert_ne!(start(&whole), start(&shown));

    // Classes are learned from: without them, something else comes out.
    let blind = ["--grid", "0", "--duration", "160", "--label-dropout", "1"];
    assert!(latest(&train("blind", &blind)) != latest(&whole));
    // Which steps of time are trained on may go by their losses: that too goes on as it was.
    let importance = folder.path().join("importance.json");
    let mut recipe: Value =
        serde_json::from_str(&fs::read_to_string(&options).expect("there")).expect("JSON");
    let times = serde_json::json!({"kind": "importance", "history": 2, "uniform": 0.1});
    recipe["loss"] = serde_json::json!({"kind": "adm", "betas": {"steps": 6}, "times": times});
    fs::write(&importance, recipe.to_string()).expect("written");
    let train_by = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--preset", "latent-tiny", "--grid", "0", "--data", text(&latents)];
        let recipe = ["--options", text(&importance), "--out", text(&out)];
        run(&[&args[..], &recipe, more].concat());
        only_run(&out)
    };
    let by_loss = train_by("by-loss", &["--duration", "160"]);
    let halves = train_by("halves", &["--duration", "80"]);
    run(&["train", "--resume", text(&halves), "--grid", "0", "--duration", "160"]);
    assert!(latest(&halves) == latest(&by_loss), "going on gives something else");
    recipe["loss"]["times"] = serde_json::json!({"kind": "uniform"});
    fs::write(&importance, recipe.to_string()).expect("written");
    assert!(latest(&train_by("alike", &["--duration", "160"])) != latest(&by_loss));
    recipe["loss"]["times"] = serde_json::json!({"kind": "importance", "history": 0});
    fs::write(&importance, recipe.to_string()).expect("written");
    let never = folder.path().join("none");
    let args = ["train", "--preset", "latent-tiny", "--options", text(&importance)];
    let error = fails(&[&args[..], &["--out", text(&never)]].concat());
    assert!(error.contains("importance.history is 0"), "{error}");

    // Whatever spares memory or shares work does so here too.
    let first_loss = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--grid", "0", "--duration", "1000", "--json", "--out", text(&out)];
        let said = run(&[&args[..], &from, more].concat());
        let first: Value =
            serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
        first["loss"].as_f64().expect("a number")
    };
    let one = first_loss("one", &[]);
    let shared = ["--micro-batch", "2", "--devices", "2", "--gradient-checkpointing"];
    let two = first_loss("two", &shared);
    assert!((one / two - 1.0).abs() < 1e-3, "{one} and {two}");
    let rounded = first_loss("rounded", &["--precision", "bf16"]);
    assert!((one / rounded - 1.0).abs() < 0.05 && one != rounded, "{one} and {rounded}");

    // One grid for each scale, from the same seeds.
    let output = folder.path().join("a.png");
    let sample = ["sample", "--weights", text(&whole), "--seeds", "0-1", "-o", text(&output)];
    let guided =
        ["--classes", "1", "--steps", "3", "--guidance", "1,22.5,0", "--guidance-power", "0"];
    let grids = |guided: &[&str]| {
        run(&[&sample[..], guided, &decoder].concat());
        ["1", "22.5", "0"].map(|scale| folder.path().join(format!("a-guidance{scale}.png")))
    };
    let [plain, more, none] = grids(&guided).map(|path| png(&path));
    assert_eq!(plain.dimensions(), (64, 32));
    assert!(plain != more && plain != none);
    assert!(!output.exists());
    // The weights know the names of their classes.
    run(&[&sample[..], &["--class", "Dog", "--steps", "3"], &decoder].concat());
    let off = png(&output).iter().zip(plain.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "a scale of 1 is no guidance, up to rounding: {off:?}");

    // The denoiser is guided as the sampler is: beyond the class, from no class.
    let noisy = folder.path().join("noisy");
    write_noisy(&noisy, (&[2, 4, 8, 8], &model::noise::start_noise(1, 512)), &[1.0, 3.0]);
    let denoised = |more: &[&str]| -> Vec<f64> {
        let output = folder.path().join("denoised");
        let files = ["--weights", text(&whole), "--input", text(&noisy), "--output", text(&output)];
        run(&[&["denoise"], &files[..], more].concat());
        Tensors::open(&output).get("denoised").1
    };
    let (class, null) = (denoised(&["--class", "dog,cat"]), denoised(&[]));
    assert!(class != null && class != denoised(&["--class", "cat,dog"]));
    let want: Vec<f64> = class.iter().zip(&null).map(|(c, n)| n + 3.0 * (c - n)).collect();
    let scale = ["--class", "1,0", "--guidance", "3", "--guidance-power", "0"];
    let all = [&scale[..], &["--guidance-channels", "all"]].concat();
    assert_close("guided", &denoised(&all), &want, 1e-5);
    // The second is too noisy to be guided, the first not noisy enough.
    let within = |bounds: &[&str]| denoised(&[&all[..], bounds].concat());
    let found = within(&["--guidance-max", "2"]);
    assert_close("guided", &found, &[&want[..256], &class[256..]].concat(), 1e-5);
    let found = within(&["--guidance-min", "2"]);
    assert_close("guided", &found, &[&class[..256], &want[256..]].concat(), 1e-5);
    let denoise = ["denoise", "--weights", text(&whole), "--input", text(&noisy), "--output", "x"];
    for (more, message) in [
        (&["--class", "bird"][..], "no class is called `bird`"),
        (&["--class", "dog", "--guidance", "1,2"], "one scale"),
        (&["--class", "dog", "--guidance", "2", "--guidance-min", "-1"], "do not rise"),
    ] {
        let error = fails(&[&denoise[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
    }

    // What does not fit is refused before a run folder is made.
    let out = folder.path().join("never");
    let refused = |more: &[&str], message: &str| {
        let args = ["train", "--out", text(&out), "--preset", "latent-tiny", "--grid", "0"];
        let error = fails(&[&args[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
        assert!(!out.exists());
    };
    let data = ["--data", text(&latents)];
    refused(&data, "[4, 8, 8], and the model works on [4, 16, 16]");
    refused(&[&data[..], &["--options", &options, "--augment", "0.1"]].concat(), "only mirrored");
    let fewer = folder.path().join("fewer.json");
    fs::write(
        &fewer,
        fs::read_to_string(&options).expect("there").replace("\"classes\":2", "\"classes\":1"),
    )
    .expect("written");
    refused(
        &[&data[..], &["--options", text(&fewer)]].concat(),
        "has 2 classes, and the model has 1",
    );
    let scaled = folder.path().join("scaled.json");
    let edited = fs::read_to_string(&sizes).expect("there").replace("{", "{\"scale\": 1.5, ");
    fs::write(&scaled, edited).expect("written");
    let fits = [&from[2..], &["--vae", text(&vae), "--vae-config"]].concat();
    refused(
        &[&fits[..], &[text(&scaled)]].concat(),
        "scale 0.18215, and the autoencoder of --vae 1.5",
    );
    let other = root().join("tests/golden/vae.safetensors");
    let other = ["--vae", text(&other), "--vae-config", text(&sizes)];
    refused(&[&from[2..], &other].concat(), "of another autoencoder");
    fs::remove_file(pictures.join("cats/00.png")).expect("there");
    run(&[&encode[..], &decoder, &["--overwrite"]].concat());
    let error = fails(&["train", "--resume", text(&whole), "--duration", "200"]);
    assert!(error.contains("latents of other pictures"), "{error}");
    let bytes = fs::read(&latents).expect("there");
    fs::write(&latents, &bytes[..bytes.len() - 7]).expect("cut");
    refused(&from[2..], "cut short");
}

/// Writes noisy pictures and their noise levels as `denoise` reads them.
fn write_noisy(path: &Path, (shape, x): (&[usize], &[f32]), sigma: &[f32]) {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (x, levels) = (bytes(x), bytes(sigma));
    let tensors =
        [("x", view(Dtype::F32, shape, &x)), ("sigma", view(Dtype::F32, &[sigma.len()], &levels))];
    fs::write(path, safetensors::serialize(tensors, None).expect("fits")).expect("written");
}

#[test]
fn denoise_is_the_door_for_other_implementations() {
    let folder = TempDir::new().expect("a temporary folder");
    let (input, output) = (folder.path().join("in"), folder.path().join("out"));
    let weights = root().join("tests/golden/network.weights.safetensors");
    let golden = Tensors::golden("network.expected.safetensors");
    let values =
        |name: &str| -> Vec<f32> { golden.get(name).1.iter().map(|value| *value as f32).collect() };
    let (x, sigma) = (values("x"), values("sigma"));
    let write = |x_shape: &[usize], sigma: &[f32]| write_noisy(&input, (x_shape, &x), sigma);
    let args = [
        "denoise",
        "--weights",
        text(&weights),
        "--input",
        text(&input),
        "--output",
        text(&output),
        "--batch",
        "3",
    ];
    write(&[4, 3, 8, 8], &sigma);
    run(&args);
    let found = Tensors::open(&output);
    for name in ["denoised", "raw"] {
        assert_eq!(found.get(name).0, [4, 3, 8, 8]);
        assert_close(name, &found.get(name).1, &golden.get(name).1, 1e-5);
    }
    write(&[4, 3, 4, 16], &sigma);
    assert!(fails(&args).contains("takes [B, 3, 8, 8] and [B]"));
    write(&[4, 3, 8, 8], &[0.0, 1.0, 1.0, 1.0]);
    assert!(fails(&args).contains("a noise level of 0"));
    fs::write(&input, b"nonsense").expect("written");
    assert!(fails(&args).contains("in"));
}

#[test]
fn info_counts_presets_and_lists_tensors() {
    for preset in [
        "tiny",
        "cifar10",
        "cifar10-i",
        "cifar10-256",
        "ffhq64",
        "ffhq64-i",
        "latent256",
        "latent512",
        "latent-tiny",
        "t4-a",
        "t4-c",
        "t7-token",
    ] {
        let info: Value =
            serde_json::from_str(&run(&["info", preset, "--json", "--tensors"])).expect("JSON");
        let listed: u64 = info["tensors"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|t| {
                t[1].as_array()
                    .expect("a shape")
                    .iter()
                    .map(|n| n.as_u64().expect("a number"))
                    .product::<u64>()
            })
            .sum();
        assert_eq!(info["parameters"], listed, "{preset}");
    }
    assert!(run(&["info", "cifar10"]).contains("28702339"));
    let latent = run(&["info", "latent256"]);
    assert!(latent.contains("561035232") && latent.contains("blocks 0-27"), "{latent}");
    assert!(run(&["info", "tiny"]).contains("blocks 0-1 "));
    assert!(run(&["info"]).contains("shipped"));
    let error = fails(&["info", "cifar11"]);
    assert!(error.contains("no such file") && error.contains("cifar10-256"), "{error}");
}

/// A file in the layout of the official release, of a size that has a preset: nothing but zeros,
/// and what is computed.
fn official_file() -> Vec<u8> {
    let config = model::preset::by_name("latent-tiny").expect("a preset");
    let specs = model::weights::specs(&config);
    let learned = specs.into_iter().map(|s| {
        let bytes = vec![0; 2 * s.len()];
        (s.name, Dtype::BF16, s.shape, bytes)
    });
    // Tokens of 192 values: 48 sines and 48 cosines of the column, and as many of the row.
    let (side, n) = (8, 48);
    let angle = |place: usize, i: usize| place as f64 / 1e4f64.powf(i as f64 / n as f64);
    let wave = |place| {
        let sines = (0..n).map(move |i| angle(place, i).sin());
        sines.chain((0..n).map(move |i| angle(place, i).cos()))
    };
    let positions = (0..side * side).flat_map(|token| wave(token % side).chain(wave(token / side)));
    let positions = positions.flat_map(|value| (value as f32).to_le_bytes()).collect();
    let mut tensors = vec![("pos_embed".to_string(), Dtype::F32, vec![1, 64, 192], positions)];
    tensors.extend(learned);
    for block in 0..8 {
        let index = model::window::relative_position_index(side);
        let bytes = index.into_iter().flat_map(|i| (i as i64).to_le_bytes()).collect();
        let name = format!("blocks.{block}.attn.relative_position_index");
        tensors.push((name, Dtype::I64, vec![64, 64], bytes));
    }
    let views =
        tensors.iter().map(|(name, dtype, shape, bytes)| (name, view(*dtype, shape, bytes)));
    safetensors::serialize(views, None).expect("it fits")
}

#[test]
fn an_official_file_is_read_as_it_is() {
    let folder = TempDir::new().expect("a temporary folder");
    let [weights, input, output] =
        ["diffit.safetensors", "input", "output"].map(|name| folder.path().join(name));
    fs::write(&weights, official_file()).expect("written");
    let info: Value =
        serde_json::from_str(&run(&["info", text(&weights), "--json"])).expect("one JSON object");
    assert_eq!(info["precision"], "bf16");
    assert_eq!(info["parameters"], 4_550_864);
    assert_eq!(info["config"]["network"]["space"], "latent");
    assert!(run(&["info", text(&weights)]).contains("official layout"));

    // All weights are zero, and so is the predicted noise: the latent stays as it is.
    let x: Vec<f32> = (0..2 * 4 * 16 * 16).map(|i| i as f32 * 0.01).collect();
    write_noisy(&input, (&[2, 4, 16, 16], &x), &[0.5, 10.0]);
    run(&[
        "denoise",
        "--weights",
        text(&weights),
        "--input",
        text(&input),
        "--output",
        text(&output),
    ]);
    let found = Tensors::open(&output);
    assert_eq!(found.get("denoised").1, Tensors::open(&input).get("x").1);
    assert_eq!(found.get("raw"), (vec![2, 8, 16, 16], vec![0.0; 2 * 8 * 16 * 16]));

    let error = fails(&["sample", "--weights", text(&weights)]);
    assert!(error.contains("4 channels"), "{error}");
}

#[test]
fn what_is_wrong_with_a_weights_file_is_said() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("w.safetensors");
    let good = fs::read(root().join("tests/golden/network.weights.safetensors")).expect("there");
    let says = |bytes: &[u8], message: &str| {
        fs::write(&path, bytes).expect("written");
        let error = fails(&["info", text(&path)]);
        assert!(error.contains(message), "{error:?} does not say {message:?}");
        assert!(error.contains("w.safetensors"), "{error:?} does not name the file");
    };
    let official = root().join("tests/golden/latent.official.safetensors");
    says(
        &fs::read(official).expect("there"),
        "like those of the official release, but its `pos_embed` is [1, 16, 24]",
    );
    says(b"", "only 0 bytes");
    says(b"PK\x03\x04whatever", "PyTorch or pickle");
    says(b"\x80\x02}q\x01.", "PyTorch or pickle");
    says(b"<!DOCTYPE html><html>", "a web page");
    says(&good[..good.len() - 10], "cut short");
    says(&[&good[..], b"more"].concat(), "another number of bytes");
    says(&u64::MAX.to_le_bytes(), "no sensible length");
    // One tensor more, one less, one of another shape, one type too many, none finite.
    let file = SafeTensors::deserialize(&good).expect("good");
    let (_, header) = SafeTensors::read_metadata(&good).expect("good");
    let edited = |edit: &dyn Fn(&mut Vec<(String, TensorView)>)| {
        let mut tensors: Vec<_> =
            file.iter().map(|(name, view)| (name.to_string(), view.clone())).collect();
        edit(&mut tensors);
        safetensors::serialize(tensors, header.metadata().clone()).expect("fits")
    };
    let zeros: &'static [u8] = &[0; 4096];
    says(
        &edited(&|t| t.push(("extra".into(), view(Dtype::F32, &[2], &zeros[..8])))),
        "`extra` is not part",
    );
    says(
        &edited(&|t| t.retain(|(name, _)| name != "time.fc1.bias")),
        "`time.fc1.bias` [12] is missing",
    );
    let replace = |name: &'static str, new: TensorView<'static>| {
        move |t: &mut Vec<(String, TensorView)>| {
            t.iter_mut().filter(|(n, _)| n == name).for_each(|(_, view)| *view = new.clone());
        }
    };
    let wrong = view(Dtype::F32, &[13], &zeros[..52]);
    says(&edited(&replace("time.fc1.bias", wrong)), "`time.fc1.bias` is [13], not [12]");
    let wrong = view(Dtype::I64, &[12], &zeros[..96]);
    says(&edited(&replace("time.fc1.bias", wrong)), "`time.fc1.bias` is I64");
    let nan: &'static [u8] = &[0xff; 48];
    let wrong = view(Dtype::F32, &[12], nan);
    says(
        &edited(&replace("time.fc1.bias", wrong)),
        "`time.fc1.bias` holds values that are not finite",
    );
    let metadata = |text: &str| {
        let metadata = std::collections::HashMap::from([("diffit".to_string(), text.to_string())]);
        let tensors: Vec<_> =
            file.iter().map(|(name, view)| (name.to_string(), view.clone())).collect();
        safetensors::serialize(tensors, Some(metadata)).expect("fits")
    };
    says(&metadata("{"), "metadata of this weights file is damaged");
    says(&metadata(r#"{"version": 2}"#), "format version 2");
    says(
        &metadata(r#"{"version": 1, "config": {"network": {"space": "image", "resolution": 31}}}"#),
        "cannot be halved",
    );
    let tensors: Vec<_> =
        file.iter().map(|(name, view)| (name.to_string(), view.clone())).collect();
    says(&safetensors::serialize(tensors, None).expect("fits"), "no DiffiT configuration");
}

fn picture(side: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(side, side, |x, y| image::Rgb([x as u8, y as u8, 7]))
        .write_to(&mut bytes, format)
        .expect("encoded");
    bytes.into_inner()
}

/// A PNG that claims 60,000 x 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = picture(32, ImageFormat::Png);
    bytes[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    // The checksum of the header, over its name and contents.
    let mut crc = u32::MAX;
    for byte in &bytes[12..29] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn bad_pictures_are_listed_with_their_reasons() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    };
    let good = picture(32, ImageFormat::Png);
    write("cats/good.png", &good);
    write("cats/good.jpg", &picture(32, ImageFormat::Jpeg));
    write("dogs/good.png", &good);
    let said = run(&["data", "check", text(folder.path())]);
    for part in [
        "pictures    3",
        "32x32       3",
        "cats                     2",
        "dogs                     1",
        "all of them",
    ] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }

    write("dogs/empty.png", b"");
    write("dogs/cut.png", &good[..good.len() / 2]);
    write("dogs/html.png", b"<html>");
    write("dogs/bomb.png", &bomb());
    write("dogs/large.png", &picture(48, ImageFormat::Png));
    write("dogs/notes.txt", b"not a picture, and not taken for one");
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("dogs/loop")).expect("linked");
    let assert = trainer().args(["data", "check", text(folder.path())]).assert().code(1);
    let said = String::from_utf8(assert.get_output().stdout.clone()).expect("text");
    for part in [
        "dogs/empty.png: the file is empty",
        "dogs/cut.png: damaged",
        "dogs/html.png: not a PNG or JPEG file",
        "dogs/bomb.png: larger than 8192x8192",
        "48x48       1",
        #[cfg(unix)]
        "dogs/loop: a link back to",
    ] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }

    // Training does not start, and leaves nothing behind.
    let out = folder.path().join("runs");
    let error = fails(&["train", "--data", text(folder.path()), "--out", text(&out)]);
    assert!(error.contains("cannot be used") && error.contains("empty.png"), "{error}");
    assert!(!out.exists());
    let only = folder.path().join("dogs/large.png");
    fs::create_dir(folder.path().join("large")).expect("made");
    fs::rename(only, folder.path().join("large/large.png")).expect("moved");
    let error =
        fails(&["train", "--data", text(&folder.path().join("large")), "--out", text(&out)]);
    assert!(error.contains("large.png: 48x48 pixels, not 32x32"), "{error}");
}

#[test]
fn hostile_archives_are_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("data.zip");
    let zip = |entries: &[(&str, Vec<u8>)]| {
        let mut zip = zip::ZipWriter::new(File::create(&path).expect("made"));
        for (name, bytes) in entries {
            zip.start_file(*name, SimpleFileOptions::default()).expect("started");
            zip.write_all(bytes).expect("written");
        }
        zip.finish().expect("finished");
    };
    let says = |message: &str| {
        let error = fails(&["data", "check", text(&path)]);
        assert!(error.contains(message) && error.contains("data.zip"), "{error:?}: no {message:?}");
    };
    let good = picture(32, ImageFormat::Png);
    zip(&[("../../evil.png", good.clone())]);
    says("`../../evil.png` leads out of the archive");
    zip(&[("a.png", good.clone()), ("dataset.json", br#"{"labels": [["../a.png", 0]]}"#.to_vec())]);
    says("`../a.png` leads out of the archive");
    zip(&[("a.png", good.clone()), ("dataset.json", br#"{"labels": [["b.png", 0]]}"#.to_vec())]);
    says("gives no class for a.png");
    zip(&[("a.png", good.clone()), ("dataset.json", b"[]".to_vec())]);
    says("dataset.json");
    zip(&[
        ("a.png", good.clone()),
        ("dataset.json", br#"{"labels": [["a.png", 3]], "classes": ["x"]}"#.to_vec()),
    ]);
    says("names 1 classes and uses 4");
    zip(&[("readme.txt", b"nothing".to_vec())]);
    says("no PNG or JPEG");
    zip(&[("a.png", good)]);
    let bytes = fs::read(&path).expect("there");
    fs::write(&path, &bytes[..bytes.len() - 30]).expect("cut");
    says("data.zip");
    fs::write(&path, b"plain text").expect("written");
    says("not a data set that can be read");
    assert!(fails(&["data", "check", "no-such-file"]).contains("no-such-file"));
}

#[test]
fn programs_can_read_what_a_run_says() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let out = folder.path().join("runs");
    let assert = trainer()
        .args(["train", "--options", &options, "--grid", "1", "--duration", "2400", "--json"])
        .args(["--out", text(&out)])
        .assert()
        .success();
    let output = assert.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON in every line"))
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[..2].iter().all(|line| line["loss"].as_f64() > Some(0.0)));
    assert_eq!(lines[2]["images"], 2400);
    assert!(Path::new(lines[2]["weights"].as_str().expect("a path")).exists());
}

#[test]
fn completions_and_man_pages_are_those_of_this_program() {
    let folder = TempDir::new().expect("a temporary folder");
    assert!(run(&["completions", "bash"]).contains("--micro-batch"));
    run(&["man", text(folder.path())]);
    let page = fs::read_to_string(folder.path().join("trainer-train.1")).expect("a page");
    assert!(page.contains("micro\\-batch"), "{page}");
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    for (args, message) in [
        (&["train", "--preset", "cifar11"][..], "the presets are tiny"),
        (&["train", "--preset", "ffhq64", "--out", "/nowhere/x"], "32x32 pixels, not 64x64"),
        (&["train", "--preset", "latent-tiny", "--out", "/nowhere/x"], "latents of an autoencoder"),
        (&["train", "--duration", "soon"], "such as 3000, 3k"),
        (&["train", "--lr", "-1"], "above 0"),
        (&["train", "--durration", "3k"], "--duration"),
        (&["train", "--from", "no-such-file"], "no-such-file"),
        (&["train", "--preset", "cifar10", "--from", "shipped"], "another model"),
        (&["sample", "--seeds", "5-1"], "runs backwards"),
        (&["sample", "--steps", "0"], "steps is 0"),
        (&["sample", "--sigma-max", "0.001"], "sigma_min"),
        (&["sample", "--respacing", "ddim300"], "no whole stride takes exactly 300"),
        (&["sample", "--respacing", "some"], "ddim50"),
        (&["sample", "--respacing", "10", "--steps", "10"], "cannot be used with"),
        (&["sample", "--sampler", "ddim", "--eta", "2"], "eta is 2"),
        (&["sample", "--sampler", "ddpm", "--churn", "1"], "churn is for euler and heun"),
        (&["sample", "--sampler", "dpmpp", "--churn", "1"], "churn is for euler and heun"),
        (&["sample", "--sampler", "ipndm", "--order", "5"], "order is 5, not within 1 to 4"),
        (&["sample", "--sampler", "dpmpp", "--order", "1"], "order is 1, not within 2 to 3"),
        (&["sample", "--order", "2"], "--order is for the samplers ipndm and dpmpp"),
        (&["sample", "--respacing", "10", "--levels", "log-snr"], "cannot be used with"),
        (&["sample", "--weights", "no-such-file"], "no-such-file"),
        (&["sample", "--device", "cuda"], "--features cuda"),
        (&["bench", "cifar11"], "no such preset"),
    ] {
        let error = fails(args);
        assert!(error.contains(message), "{args:?}: {error:?} does not say {message:?}");
    }
}
