//! Many images: folders, zips and npz files, interrupted, continued and shared by processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use image::RgbImage;
use model::noise::random_class;
use model::picture::Origin;
use tempfile::TempDir;
use tests::trainer;

#[cfg(unix)]
use crate::support::send;
use crate::support::{fails, largest_difference, png, run, text};

/// Number of classes of the shipped weights.
const CLASSES: u32 = 1911;

/// Flags of most tests: two evaluations, batches of three.
const USUAL: [[&str; 2]; 4] =
    [["--steps", "2"], ["--sampler", "euler"], ["--batch", "3"], ["--classes", "random"]];

/// Returns a command line with the usual flags, except those given otherwise.
fn arguments<'a>(seeds: &'a str, output: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["sample", "--seeds", seeds, "-o", text(output)];
    args.extend(USUAL.iter().filter(|[flag, _]| !more.contains(flag)).flatten());
    args.extend(more);
    args
}

fn sample(seeds: &str, output: &Path, more: &[&str]) -> String {
    run(&arguments(seeds, output, more))
}

fn sample_fails(seeds: &str, output: &Path, more: &[&str]) -> String {
    fails(&arguments(seeds, output, more))
}

/// Returns the content of all files below a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    // A process that writes to the folder may rename or remove a file meanwhile.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            let below = self::files(&path);
            files
                .extend(below.into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else if let Ok(bytes) = fs::read(&path)
            && !name.starts_with(".lock")
        {
            files.insert(name, bytes);
        }
    }
    files
}

/// Returns the entries of a zip, by name.
fn unzipped(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut zip = zip::ZipArchive::new(Cursor::new(fs::read(path).expect("there"))).expect("a zip");
    let count = zip.len();
    let entry = |i| {
        let mut entry = zip.by_index(i).expect("whole");
        let name = entry.name().expect("Unicode").into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("whole");
        (name, bytes)
    };
    (0..count).map(entry).collect()
}

/// Returns the header of a NumPy array and its values.
fn array(file: &[u8]) -> (String, &[u8]) {
    assert_eq!(file[..8], *b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    assert!(end.is_multiple_of(64) && file[end - 1] == b'\n');
    (String::from_utf8(file[10..end].to_vec()).expect("text"), &file[end..])
}

#[test]
fn a_zip_has_the_layout_of_edm_and_is_read_as_a_dataset() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("many.zip");
    let said = sample("998-1001", &path, &["--subdirs"]);
    assert!(said.contains(&format!("4 images in {}", path.display())), "{said}");
    let entries = unzipped(&path);
    let names =
        ["000000/000998.png", "000000/000999.png", "001000/001000.png", "001000/001001.png"];
    assert_eq!(entries.keys().collect::<Vec<_>>(), [&names[..], &["dataset.json"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&entries["dataset.json"]).expect("JSON");
    for (i, name) in names.into_iter().enumerate() {
        let class = random_class(998 + i as u64, CLASSES);
        assert_eq!(json["labels"][i], serde_json::json!([name, class]));
        // The picture can be made again from what is inside, also by a program that does not know
        // random classes.
        let origin = Origin::from_png(&entries[name]).expect("settings");
        assert_eq!(
            (origin.seeds[0], origin.settings.classes),
            (998 + i as u64, vec![class.into()])
        );
    }
    assert_eq!(json["classes"].as_array().map(Vec::len), Some(CLASSES as usize));
    let report = run(&["data", "check", text(&path)]);
    assert!(
        report.contains("images      4\n") && report.contains("all images can be used"),
        "{report}"
    );
    // Only the record stays beside the file.
    assert_eq!(files(folder.path()).into_keys().collect::<Vec<_>>(), ["many.zip", "many.zip.json"]);
    let said = sample("998-1001", &path, &["--subdirs"]);
    assert!(said.contains("already"), "{said}");
}

#[test]
fn an_npz_holds_the_pictures_and_their_classes() {
    let folder = TempDir::new().expect("a temporary folder");
    let [npz, single] = ["many.npz", "single"].map(|name| folder.path().join(name));
    // In this order.
    sample("7,3-5,0", &npz, &[]);
    sample("7,3-5,0", &single, &["--separate"]);
    let entries = unzipped(&npz);
    assert_eq!(entries.keys().collect::<Vec<_>>(), ["arr_0.npy", "arr_1.npy"]);
    let (header, pixels) = array(&entries["arr_0.npy"]);
    let want = "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 32, 32, 3), }";
    assert_eq!(header.trim_end(), want);
    let (header, classes) = array(&entries["arr_1.npy"]);
    assert_eq!(header.trim_end(), "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }");
    for (i, seed) in [7, 3, 4, 5, 0].into_iter().enumerate() {
        let picture = png(&single.join(format!("{seed:06}.png")));
        assert_eq!(pixels[i * 3072..][..3072], picture.into_raw(), "seed {seed}");
        let class = i64::from_le_bytes(classes[8 * i..][..8].try_into().expect("8 bytes"));
        assert_eq!(class, random_class(seed, CLASSES) as i64);
    }
    assert_eq!((pixels.len(), classes.len()), (5 * 3072, 5 * 8));
    // Without classes, there is no second array.
    let plain = folder.path().join("plain.npz");
    run(&["sample", "--steps", "1", "--seeds", "0-1", "-o", text(&plain)]);
    assert_eq!(unzipped(&plain).keys().collect::<Vec<_>>(), ["arr_0.npy"]);
}

/// Kills the program again and again, and compares what it ends with.
#[cfg(unix)]
#[test]
fn an_interrupted_command_continues_to_the_same_bytes() {
    use std::process::{Command, Stdio};
    use std::time::Duration;
    let folder = TempDir::new().expect("a temporary folder");
    for (ending, more) in [("zip", &["--subdirs"][..]), ("npz", &[])] {
        let [whole, killed] =
            ["whole", "killed"].map(|name| folder.path().join(format!("{name}.{ending}")));
        sample("0-44", &whole, more);
        let parts = folder.path().join(format!("killed.{ending}.parts"));
        let pictures = || match parts.exists() {
            true => files(&parts).keys().filter(|name| name.ends_with(".png")).count(),
            false => 0,
        };
        let mut kills = 0;
        while !killed.exists() {
            let mut command = Command::new(trainer().get_program());
            command.args(arguments("0-44", &killed, more));
            let mut child =
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            // At another moment each time: after so many pictures, or in the middle of a batch.
            let goal = pictures() + 1 + 4 * (kills % 3);
            loop {
                if let Some(status) = child.try_wait().expect("a child") {
                    assert!(status.success());
                    break;
                }
                if pictures() >= goal && kills < 6 {
                    std::thread::sleep(Duration::from_millis(7 * (kills as u64 % 4)));
                    child.kill().expect("killed");
                    child.wait().expect("gone");
                    kills += 1;
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        assert!(kills > 1, "it was never killed");
        let [whole, killed] = [whole, killed].map(|path| fs::read(path).expect("written"));
        assert!(whole == killed, "the {ending} files differ");
        assert!(!parts.exists());
    }
}

/// Ctrl-C ends the command within a batch and says how to go on.
#[cfg(unix)]
#[test]
fn a_signal_stops_and_the_same_command_continues() {
    use std::process::{Command, Stdio};
    let folder = TempDir::new().expect("a temporary folder");
    let out = folder.path().join("out");
    let args = ["sample", "--separate", "--seeds", "0-39", "--batch", "2", "-o", text(&out)];
    let args = [&args[..], &["--steps", "6"]].concat();
    let mut command = Command::new(trainer().get_program());
    let child = command.args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("it starts");
    while !out.join("000001.png").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    send("-TERM", &child);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(said.contains("images; the same command continues"), "{said}");
    let first = fs::read(out.join("000001.png")).expect("there");
    let output = trainer().args(&args).assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("continuing after"), "{said}");
    assert_eq!(files(&out).len(), 41);
    assert_eq!(fs::read(out.join("000001.png")).expect("there"), first);
}

#[test]
fn shards_and_devices_generate_what_one_process_does() {
    let folder = TempDir::new().expect("a temporary folder");
    let [one, shards, devices] = ["one", "shards", "devices"].map(|name| folder.path().join(name));
    let separate = ["--separate", "--subdirs"];
    sample("0-19", &one, &separate);
    let want = files(&one);
    assert_eq!(want.len(), 22, "{:?}", want.keys());
    sample("0-19", &devices, &[&separate[..], &["--devices", "2"]].concat());
    assert!(files(&devices) == want, "two devices differ from one");

    // Two at the same time, then the last.
    let shard = |part: &str, output: &Path, more: &[&str]| {
        sample("0-19", output, &[&["--shard", part], more].concat())
    };
    std::thread::scope(|scope| {
        let (shard, shards, separate) = (&shard, &shards, &separate);
        let start = |part| scope.spawn(move || shard(part, shards, separate));
        for process in ["1/3", "3/3"].map(start) {
            let said = process.join().expect("it succeeds");
            assert!(said.contains("are missing") || said.contains("still at work"), "{said}");
        }
    });
    assert!(!shards.join("dataset.json").exists());
    shard("2/3", &shards, &separate);
    assert!(files(&shards) == want, "three processes differ from one");

    // A file: the parts are put together by the last process, or by one without --shard.
    let npz = folder.path().join("one.npz");
    sample("0-19", &npz, &[]);
    for (name, last) in [("last.npz", Some("2/2")), ("whole.npz", None)] {
        let path = folder.path().join(name);
        shard("1/2", &path, &[]);
        assert!(!path.exists());
        match last {
            Some(part) => shard(part, &path, &[]),
            None => sample("0-19", &path, &[]),
        };
        assert!(fs::read(&path).expect("written") == fs::read(&npz).expect("written"), "{name}");
    }
}

#[test]
fn the_batch_size_affects_rounding_only() {
    let folder = TempDir::new().expect("a temporary folder");
    let pictures = |batch: &str| -> Vec<RgbImage> {
        let out = folder.path().join(batch);
        sample("3-11", &out, &["--separate", "--batch", batch]);
        (3..12).map(|seed| png(&out.join(format!("{seed:06}.png")))).collect()
    };
    let whole = pictures("9");
    for batch in ["1", "4"] {
        for (a, b) in pictures(batch).iter().zip(&whole) {
            let off = largest_difference(a, b);
            assert!(off <= 1, "batches of {batch}: {off}");
        }
    }
}

#[test]
fn a_folder_is_extended_and_repaired() {
    let folder = TempDir::new().expect("a temporary folder");
    let [whole, out] = ["whole", "out"].map(|name| folder.path().join(name));
    sample("0-11", &whole, &["--separate"]);
    sample("0-5", &out, &["--separate"]);
    // Cut short, as after a power failure, and missing.
    let picture = fs::read(out.join("000002.png")).expect("there");
    fs::write(out.join("000002.png"), &picture[..picture.len() - 5]).expect("written");
    fs::remove_file(out.join("000004.png")).expect("there");
    sample("0-11", &out, &["--separate"]);
    assert!(files(&out) == files(&whole), "the folders differ");

    // Damage in the middle is found when the pictures are read again.
    let zip = folder.path().join("many.zip");
    sample("0-5", &zip, &["--shard", "1/2"]);
    let damaged = folder.path().join("many.zip.parts/000001.png");
    let mut bytes = fs::read(&damaged).expect("there");
    let middle = bytes.len() - 30;
    bytes[middle] ^= 0xff;
    fs::write(&damaged, bytes).expect("written");
    let error = sample_fails("0-5", &zip, &[]);
    assert!(error.contains("000001.png") && error.contains("generates it again"), "{error}");
    sample("0-5", &zip, &[]);
    assert_eq!(unzipped(&zip).len(), 7);
}

#[test]
fn images_of_other_settings_are_not_mixed() {
    let folder = TempDir::new().expect("a temporary folder");
    let [out, zip, npz] = ["out", "many.zip", "many.npz"].map(|name| folder.path().join(name));
    let separate = ["--separate"];
    sample("0-2", &out, &separate);
    let before = files(&out);
    for (more, difference) in [
        (&["--steps", "3"][..], "settings.steps: 2 there, 3 here"),
        (&["--classes", "otter"], "random_classes: 1911 there, none here"),
        (&["--batch", "2"], "batch: 3 there, 2 here"),
        (&["--subdirs"], "subfolders: false there, true here"),
    ] {
        let error = sample_fails("0-2", &out, &[&separate[..], more].concat());
        for part in ["has images already", "another --output", difference] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
    assert!(files(&out) == before, "a refused command changed the folder");
    fs::remove_file(out.join("sampling.json")).expect("there");
    let error = sample_fails("0-2", &out, &separate);
    assert!(error.contains("without") && error.contains("sampling.json"), "{error}");

    sample("0-2", &zip, &[]);
    let error = sample_fails("0-3", &zip, &[]);
    assert!(error.contains("exists already") && error.contains("seeds: \"0-2\" there"), "{error}");
    fs::write(&npz, "mine").expect("written");
    let error = sample_fails("0-3", &npz, &[]);
    assert!(error.contains("exists already") && error.contains("many.npz.json"), "{error}");
    assert_eq!(fs::read(&npz).expect("there"), b"mine");

    // Settings that no image depends on yet are replaced.
    let new = folder.path().join("new");
    fs::create_dir(&new).expect("made");
    fs::copy(folder.path().join("many.zip.json"), new.join("sampling.json")).expect("copied");
    sample("0-2", &new, &separate);
}

#[test]
fn random_classes_are_a_function_of_the_seed() {
    let folder = TempDir::new().expect("a temporary folder");
    let [grid, again] = ["grid.png", "again.png"].map(|name| folder.path().join(name));
    sample("5-8", &grid, &[]);
    let origin = Origin::from_png(&fs::read(&grid).expect("there")).expect("settings");
    let want: Vec<_> = (5..9).map(|seed| random_class(seed, CLASSES).into()).collect();
    assert_eq!(origin.settings.labels_of(&origin.seeds), want);
    // The same pictures, by the numbers of their classes. Seed 8 is the first of four: 8 mod 4 is 0.
    let classes: Vec<String> =
        [8, 5, 6, 7].map(|seed| random_class(seed, CLASSES).to_string()).into();
    let args = ["sample", "--steps", "2", "--sampler", "euler", "--batch", "3", "--seeds", "5-8"];
    run(&[&args[..], &["--classes", &classes.join(","), "-o", text(&again)]].concat());
    assert_eq!(png(&grid), png(&again));
    let named = folder.path().join("named.png");
    sample("5-8", &named, &["--labels"]);
    assert!(png(&named).width() > png(&grid).width());
}

#[test]
fn flags_for_many_images_are_checked() {
    let folder = TempDir::new().expect("a temporary folder");
    let [out, zip] = ["out", "many.zip"].map(|name| folder.path().join(name));
    let (out, zip) = (text(&out), text(&zip));
    for (args, message) in [
        (&["--shard", "1/2"][..], "--shard is not for grids"),
        (&["--devices", "2"], "--devices is not for grids"),
        (&["--subdirs"], "--subdirs is not for grids"),
        (&["--shard", "9/8", "-o", zip], "such as 3/8"),
        (&["--shard", "0/8", "-o", zip], "such as 3/8"),
        (&["--columns", "3", "-o", zip], "--labels and --columns are for grids"),
        (&["--seeds", "0-5,3", "-o", zip], "3 is there twice"),
        (&["--seeds", "0-5,3", "--separate", "-o", out], "3 is there twice"),
        (&["--separate", "-o", "/proc/nothing"], "cannot write to /proc/nothing"),
        (&["-o", "/proc/nothing.npz"], "cannot write to /proc/nothing.npz.parts"),
        (&["--guidance", "2", "--separate", "-o", out], "--classes"),
    ] {
        let error = fails(&[&["sample", "--steps", "1"], args].concat());
        assert!(error.contains(message), "{args:?}: {error:?} does not say {message:?}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    // A model without classes has none to draw.
    let options = crate::support::small_options(folder.path());
    let runs = folder.path().join("runs");
    let train = ["train", "--preset", "tiny", "--options", &options, "--duration", "8"];
    run(&[&train[..], &["--from", "scratch", "--grid", "0", "--out", text(&runs)]].concat());
    let weights = crate::support::only_run(&runs).join("weights.safetensors");
    let error = fails(&["sample", "--weights", text(&weights), "--classes", "random"]);
    assert!(error.contains("this model has no classes"), "{error}");
}
