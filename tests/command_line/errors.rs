//! Error messages, completions and man pages.

use std::fs;

use tempfile::TempDir;

use crate::support::{fails, run, text};

#[cfg(target_os = "linux")]
#[test]
fn folders_that_cannot_be_written_are_named() {
    let error = fails(&["train", "--duration", "8", "--out", "/proc/runs"]);
    assert!(error.contains("cannot create a run folder in /proc/runs"), "{error}");
    let error = fails(&["train", "--duration", "8", "--options", "/no/such.json"]);
    assert!(error.contains("--options /no/such.json: No such file"), "{error}");
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
        (
            &["train", "--preset", "ffhq64", "--data", "emoji", "--out", "/nowhere/x"],
            "32x32 pixels, not 64x64",
        ),
        (
            &["train", "--preset", "ffhq64", "--out", "/nowhere/x"],
            "--preset ffhq64 needs --data: use --data with a folder or a zip of 64x64 images",
        ),
        (
            &["train", "--preset", "cifar10", "--out", "/nowhere/x"],
            "--preset cifar10 needs --data: `trainer data fetch cifar10` downloads CIFAR-10",
        ),
        (
            &["train", "--preset", "latent-tiny", "--out", "/nowhere/x"],
            "for a latent model, encode the images",
        ),
        (&["train", "--duration", "soon"], "such as 3000, 3k"),
        (&["train", "--lr", "-1"], "-1 is not above 0"),
        (&["train", "--durration", "3k"], "a similar argument exists: '--duration'"),
        (&["train", "--from", "no-such-file"], "--from no-such-file: No such file"),
        (
            &["train", "--preset", "cifar10", "--from", "shipped"],
            "of another model than that of preset cifar10",
        ),
        (&["sample", "--seeds", "5-1"], "the range `5-1` is reversed"),
        (&["sample", "--steps", "0"], "steps is 0"),
        (&["sample", "--sigma-max", "0.001"], "sigma_min 0.002 and sigma_max 0.001"),
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
        (&["sample", "--weights", "no-such-file"], "cannot read no-such-file: No such file"),
        (&["sample", "--device", "cuda"], "--features cuda"),
        (&["bench", "cifar11"], "cifar11: no such preset; the presets are tiny"),
    ] {
        let error = fails(args);
        assert!(error.contains(message), "{args:?}: {error:?} does not say {message:?}");
    }
}

#[test]
fn options_that_do_not_fit_the_model_are_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let (out, path) = (folder.path().join("runs"), folder.path().join("options.json"));
    let edm = serde_json::json!({"kind": "edm", "p_mean": 0.2, "p_std": 1.3, "sigma_data": 0.5});
    let labels = |n| serde_json::json!({"model": {"network": {"time": {"augment_labels": n}}}});
    for (preset, options, message) in [
        (
            "tiny",
            serde_json::json!({"loss": {"sigma_data": 0.4}}),
            "model.precond.sigma_data is 0.5",
        ),
        ("latent-tiny", serde_json::json!({"loss": edm}), "learned_variance is true"),
        (
            "latent-tiny",
            serde_json::json!({"loss": {"betas": {"last": 0.01}}}),
            "model.precond.betas is {\"steps\":1000,\"first\":0.0001,\"last\":0.02}",
        ),
        ("tiny", labels(12), "augment_labels is 12, but augmentation gives 9 labels"),
        ("tiny", labels(8), "augment_labels is 8, but augmentation gives 9 labels"),
    ] {
        fs::write(&path, options.to_string()).expect("written");
        let args = ["train", "--preset", preset, "--options", text(&path), "--out", text(&out)];
        let error = fails(&args);
        assert!(error.contains(message), "{options}: {error:?} does not say {message:?}");
        assert!(!out.exists());
    }
    // These fit the model: a step can be taken.
    for (preset, options) in [("tiny-emoji", serde_json::json!({"loss": edm})), ("tiny", labels(0))]
    {
        fs::write(&path, options.to_string()).expect("written");
        let args = ["train", "--preset", preset, "--options", text(&path), "--out", text(&out)];
        let recipe = ["--augment", "0.1", "--batch", "4", "--duration", "4", "--grid", "0"];
        run(&[&args[..], &recipe].concat());
        fs::remove_dir_all(&out).expect("a run folder");
    }
}
