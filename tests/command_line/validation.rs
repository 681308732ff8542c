//! Validation loss.

use tempfile::TempDir;

use crate::support::{fails, latest, log, only_run, run, small_options, some_pictures, text};

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
    // Validation data change nothing else: the training images are the same.
    assert!(latest(&plain) == latest(&measured));
    let others = train("others", &["--validate", "1000"]);
    assert!(latest(&plain) != latest(&others));
    assert_eq!(log(&measured).len(), 1);
    // Validation can be enabled and disabled when a run is resumed.
    let resume = ["train", "--grid", "0", "--resume"];
    let from_there = ["--duration", "24", "--validate", "3", "--validation-data", &pictures];
    run(&[&resume[..], &[text(&plain)], &from_there].concat());
    assert!(log(&plain)[0]["validation_loss"].as_f64() > Some(0.0));
    let levels = log(&plain)[0]["validation_levels"].as_array().expect("levels").clone();
    // Each image has one of the levels.
    assert_eq!(levels.len(), 3);
    for pair in levels.windows(2) {
        assert!(pair[0][0].as_f64() < pair[1][0].as_f64(), "{levels:?}");
    }
    assert!(levels.iter().all(|level| level[1].as_f64() > Some(0.0)), "{levels:?}");
    run(&[&resume[..], &[text(&plain), "--duration", "32", "--validate", "0"]].concat());
    assert_eq!(log(&plain).len(), 1);

    let out = folder.path().join("none");
    let args = ["train", "--preset", "tiny", "--options", &options, "--out", text(&out)];
    for (more, message) in [
        (&["--validate", "1911"][..], "some must remain for training"),
        (&["--validate", "4", "--validation-data", &pictures], "has 3 images"),
        (&["--validation-data", &pictures], "--validate <N>"),
        (&["--validate", "1", "--validation-data", "nowhere"], "nowhere: No such file"),
        (&["--muon-lr", "1"], "the optimizer is Adam"),
        (&["--lr-decay", "2"], "within 0 to 1"),
    ] {
        let error = fails(&[&args[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
    }
    assert!(!out.exists());
}
