//! Samplers and image files.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tests::root;

use crate::support::{fails, largest_difference, png, run, text};

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
    // Another batch size changes the order of sums, and so the rounding.
    let off = largest_difference(&grid, &png(&again));
    assert!(off <= 1, "{off}");
    for (place, seed) in [0, 1, 2, 9].into_iter().enumerate() {
        let single = png(&separate.join(format!("{seed:06}.png")));
        let cut = image::imageops::crop_imm(&grid, place as u32 * 32, 0, 32, 32).to_image();
        assert_eq!(single, cut, "seed {seed}");
    }
    // The settings are stored in the file.
    let file = fs::read(separate.join("000009.png")).expect("there");
    let inside = String::from_utf8_lossy(&file);
    for part in ["diffit", "\"seeds\":[9]", "\"steps\":2", "\"method\":\"euler\""] {
        assert!(inside.contains(part), "{part} is not in the file");
    }
}

/// The samplers of discrete time, with a network that was trained for none.
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
    let off = largest_difference(&euler, &ddim);
    assert!(off <= 1, "with eta 0, ddim is euler up to rounding: {off}");
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

/// The multistep samplers converge to the result of Heun's method.
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
        assert_eq!(picture.dimensions(), heun.dimensions());
        let off: f64 =
            picture.iter().zip(heun.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        let off = off / heun.len() as f64;
        assert!(off < 3.0, "{sampler:?}: {off} levels off on average");
        assert_ne!(picture, heun, "{sampler:?}");
    }
}

#[test]
fn the_card_recommends_sampling_settings() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (shipped, bare, advised) = (
        root().join("www/weights/tiny-emoji.safetensors"),
        path("bare.safetensors"),
        path("advised.safetensors"),
    );
    let with_card = |card: &str, output: &Path| {
        fs::write(path("card.json"), card).expect("written");
        let flags = ["-o", text(output), "--precision", "f16", "--card"];
        run(&[&["export", text(&shipped)], &flags[..], &[text(&path("card.json"))]].concat());
    };
    with_card(r#"{"sampling": null}"#, &bare);
    with_card(
        r#"{"sampling": {"steps": 2, "method": "euler", "guidance":
            {"scale": 3.0, "course": {"kind": "constant"}, "channels": "all", "sigma_low": 1.0}}}"#,
        &advised,
    );
    let sample = |weights: &Path, flags: &[&str]| {
        let common = ["sample", "--seeds", "3,4", "--weights", text(weights), "--output"];
        let output = path("out.png");
        run(&[&common[..], &[text(&output)], flags].concat());
        png(&output)
    };

    // They are the settings of the flags, which apply if the recommended ones are not asked for.
    let classes = ["--classes", "otter"];
    let flags = ["--sampler", "euler", "--steps", "2", "--guidance", "3", "--guidance-power", "0"];
    let flags = [&flags[..], &["--guidance-channels", "all", "--guidance-min", "1"]].concat();
    let expected = sample(&bare, &[&classes[..], &flags].concat());
    let recommended = [&classes[..], &["--recommended"]].concat();
    assert!(sample(&advised, &recommended) == expected);
    assert!(sample(&advised, &[&classes[..], &["--steps", "2"]].concat()) != expected);
    // Without a class there is no guidance.
    let plain = sample(&bare, &["--sampler", "euler", "--steps", "2"]);
    assert!(sample(&advised, &["--recommended"]) == plain);

    let error = fails(&["sample", "--recommended", "--weights", text(&bare)]);
    assert!(error.contains("recommends no sampling settings"), "{error}");
    let error = fails(&["sample", "--recommended", "--steps", "3"]);
    assert!(error.contains("cannot be used with"), "{error}");
    // Settings that cannot be used are none.
    with_card(r#"{"sampling": {"steps": 0}}"#, &path("unusable.safetensors"));
    let unusable = path("unusable.safetensors");
    let error = fails(&["sample", "--recommended", "--weights", text(&unusable)]);
    assert!(error.contains("recommends no sampling settings"), "{error}");
}
