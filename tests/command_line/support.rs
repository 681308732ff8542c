//! Helpers that the modules share.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, RgbImage};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tests::{root, trainer};

/// Runs the program, which must succeed, and returns its standard output.
pub fn run(args: &[&str]) -> String {
    let assert = trainer().args(args).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).expect("text")
}

/// Runs the program, which must fail, and returns its standard error.
pub fn fails(args: &[&str]) -> String {
    let assert = trainer().args(args).assert().failure();
    let output = assert.get_output();
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Runs the program, which must succeed, and returns its peak memory in MB.
#[cfg(target_os = "linux")]
pub fn peak(args: &[&str]) -> u64 {
    let mut command = std::process::Command::new(trainer().get_program());
    command.args(args).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("started");
    let mut peak = 0;
    loop {
        peak = peak.max(peak_kib(&child).unwrap_or_default() / 1000);
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "{args:?}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
}

/// Returns the peak memory of a process so far in KiB, if it is still there.
#[cfg(target_os = "linux")]
pub fn peak_kib(process: &std::process::Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix(" kB")?.parse().ok()
}

/// Sends a signal to a process: a flag of `kill`, such as `-INT`.
#[cfg(unix)]
pub fn send(signal: &str, process: &std::process::Child) {
    let id = process.id().to_string();
    let status = std::process::Command::new("kill").args([signal, &id]).status();
    assert!(status.expect("kill").success(), "{signal}");
}

/// Returns the names of the files in a folder, sorted.
pub fn file_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("text");
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort();
    names
}

/// Returns the run folder in `out`, if there is one.
#[cfg(target_os = "linux")]
pub fn run_folder(out: &Path) -> Option<std::path::PathBuf> {
    Some(fs::read_dir(out).ok()?.find_map(Result::ok)?.path())
}

/// Returns the number of images of the latest checkpoint of the run in `out`, while it is trained.
#[cfg(target_os = "linux")]
pub fn saved(out: &Path) -> Option<u64> {
    let names = fs::read_dir(run_folder(out)?.join("checkpoints")).ok()?;
    let images = |entry: fs::DirEntry| {
        entry.file_name().to_str()?.strip_suffix(".ckpt")?.parse::<u64>().ok()
    };
    names.filter_map(Result::ok).filter_map(images).max()
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

pub fn png(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8()
}

/// Returns the only run folder in `out`.
pub fn only_run(out: &Path) -> std::path::PathBuf {
    let mut runs: Vec<_> =
        fs::read_dir(out).expect("a folder").map(|e| e.expect("entry").path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

/// Returns the tensors of a weights file, sorted by name.
pub fn weights(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(path).expect("a weights file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut tensors: Vec<_> =
        file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect();
    tensors.sort();
    tensors
}

pub fn view<'a>(dtype: Dtype, shape: &[usize], bytes: &'a [u8]) -> TensorView<'a> {
    TensorView::new(dtype, shape.to_vec(), bytes).expect("as many bytes as the shape asks for")
}

/// Writes an `--options` file of a very small network with dropout.
pub fn small_options(folder: &Path) -> String {
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

/// Returns the tensors of the latest checkpoint of a run: weights, moving average, optimizer.
pub fn latest(run_folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<_> = fs::read_dir(run_folder.join("checkpoints"))
        .expect("a folder")
        .map(|e| e.expect("entry").path())
        .collect();
    paths.sort();
    let bytes = fs::read(paths.pop().expect("a checkpoint")).expect("readable");
    // A safetensors file follows the magic and the hash.
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

/// Returns the tensors of Burn's optimizer record, whose order is not fixed. The record has four
/// bytes of magic, two of version, four of length, a CBOR map with the offset of each tensor, and
/// the data.
pub fn moments(record: &[u8]) -> Vec<(String, Vec<u8>)> {
    let length = u32::from_le_bytes(record[6..10].try_into().expect("four bytes")) as usize;
    let header: Value = ciborium::from_reader(&record[10..10 + length]).expect("CBOR");
    let tensors = header["tensors"].as_object().expect("tensors");
    let place = |tensor: &Value, end: usize| {
        tensor["data_offsets"][end].as_u64().expect("an offset") as usize
    };
    // The data are at the end, after padding.
    let size = tensors.values().map(|tensor| place(tensor, 1)).max().expect("some tensors");
    let data = &record[record.len() - size..];
    assert!(tensors.len() > 20 && size > 10_000);
    tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), data[place(tensor, 0)..place(tensor, 1)].to_vec()))
        .collect()
}

/// Returns the lines of a run's log without fields that depend on the machine.
pub fn log(run_folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run_folder.join("stats.jsonl")).expect("a log");
    text.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            let fields = line.as_object_mut().expect("an object");
            for of_the_machine in [
                "seconds",
                "images_per_second",
                "gflops_per_second",
                "data_wait",
                "forward_backward",
                "optimizer",
                "peak_memory",
            ] {
                // Lines with the validation loss or image quality have fewer fields.
                let there = fields.remove(of_the_machine).is_some();
                let fewer = ["validation_loss", "metric_samples"];
                assert!(
                    there || fewer.iter().any(|of| fields.contains_key(*of)),
                    "{of_the_machine}"
                );
            }
            line
        })
        .collect()
}

/// Writes a folder of `count` images of 32x32.
pub fn some_pictures(folder: &Path, count: usize) -> String {
    let path = folder.join("held out");
    fs::create_dir(&path).expect("made");
    for i in 0..count {
        fs::write(path.join(format!("{i}.png")), picture(32, ImageFormat::Png)).expect("written");
    }
    text(&path).to_string()
}

/// Writes a small autoencoder, its configuration, and 24 images of two classes and two sizes.
pub fn small_autoencoder_and_pictures(folder: &Path) -> [std::path::PathBuf; 3] {
    let [vae, sizes, pictures] = ["vae", "vae.json", "pictures"].map(|name| folder.join(name));
    let bytes = fs::read(root().join("tests/golden/vae.safetensors")).expect("there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    // With the golden bias, some standard deviations would be e^10.
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

/// Writes an `--options` file of a very small latent network.
pub fn small_latent_options(folder: &Path) -> String {
    let path = folder.join("latent.json");
    let options = serde_json::json!({
        "batch": 8,
        // A short half-life, so that the moving average follows within few steps.
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

/// Writes the input of `denoise`: noisy images and their noise levels.
pub fn write_noisy(path: &Path, (shape, x): (&[usize], &[f32]), sigma: &[f32]) {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (x, levels) = (bytes(x), bytes(sigma));
    let tensors =
        [("x", view(Dtype::F32, shape, &x)), ("sigma", view(Dtype::F32, &[sigma.len()], &levels))];
    fs::write(path, safetensors::serialize(tensors, None).expect("fits")).expect("written");
}

pub fn picture(side: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(side, side, |x, y| image::Rgb([x as u8, y as u8, 7]))
        .write_to(&mut bytes, format)
        .expect("encoded");
    bytes.into_inner()
}

/// Returns unused addresses on this machine, separated by commas.
pub fn free_addresses(count: usize) -> String {
    let listeners: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let addresses: Vec<String> =
        listeners.iter().map(|l| l.local_addr().expect("bound").to_string()).collect();
    addresses.join(",")
}

/// Returns the largest difference of two images of one size, in levels of 255.
pub fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().expect("there are pixels")
}
