//! Samplers and image files.

use std::fs;

use tempfile::TempDir;

use crate::support::{largest_difference, png, run, text};

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
