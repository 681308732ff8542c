//! Training on several machines, each a process.
#![cfg(unix)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tests::trainer;

use crate::support::{
    fails, free_addresses, latest, only_run, run, send, small_autoencoder_and_pictures,
    small_latent_options, text,
};

/// Two processes stand for two machines.
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
    // Two machines, stopped half way and resumed.
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
    assert!(first == second, "the machines have different weights");
    assert!(first == one, "two machines differ from one machine with two workers");

    // Machines with different flags do not start.
    let seeds = ["1", "2"].map(|seed| [&recipe[..], &["--seed", seed, "--out"]].concat());
    let never = out("never");
    let other = seeds.map(|args| [args, vec![text(&never)]].concat());
    for (code, said) in together(other) {
        assert!(code == Some(1) && said.contains("the machines differ"), "{code:?}: {said}");
    }
    assert!(!never.exists());

    // A signal to one machine stops all. If one is killed, the others report it.
    for (signal, codes, message) in [
        ("-INT", [Some(0), Some(130)], "to resume"),
        ("-KILL", [Some(1), None], "lost the connection"),
    ] {
        let nodes = free_addresses(2);
        let outs = ["0", "1"].map(|own| out(signal).join(own));
        let [stays, goes] = ["0", "1"].map(|own| {
            let out = &outs[usize::from(own == "1")];
            let more = ["--duration", "100M", "--out", text(out), "--save-every", "56"];
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
        send(signal, &goes);
        let [stayed, gone] = [stays, goes].map(ended);
        assert_eq!([stayed.0, gone.0], codes, "{stayed:?} {gone:?}");
        assert!(stayed.1.contains(message), "{}", stayed.1);
        assert!(!stayed.1.contains("panicked"), "{}", stayed.1);
        // The state of the machine that stays is saved, whether that was due or not.
        let mut words = stayed.1.split_whitespace();
        if signal == "-KILL" {
            words.find(|word| *word == "--resume,").expect("what can be done");
            words.find(|word| *word == "after").expect("the number of images");
            let images: u64 = words.next().and_then(|word| word.parse().ok()).expect("a number");
            let checkpoints = fs::read_dir(only_run(&outs[0]).join("checkpoints")).expect("there");
            let names = checkpoints.map(|entry| entry.expect("an entry").file_name());
            assert_eq!(names.max().expect("saved"), *format!("{images:09}.ckpt"));
        }
    }
    for (args, message) in [
        (&["--nodes", "a:1,b:1"][..], "--node <N>"),
        (&["--nodes", "a:1", "--node", "0"], "at least two machines"),
        (&["--nodes", "a:1,b:1", "--node", "2"], "lists 2 machines, 0 to 1"),
        (&["--nodes", "a:1,b:1,c:1", "--node", "0"], "cannot be split evenly across 3 devices"),
    ] {
        let error = fails(&[&["train", "--grid", "0"], args].concat());
        assert!(error.contains(message), "{args:?}: {error:?} does not say {message:?}");
    }
}
