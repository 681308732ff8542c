//! A run that is disturbed again and again, in random ways at random moments, ends as one that is not.
//!
//! `cargo xtask soak MINUTES` takes longer than the ordinary tests do.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use model::noise::{Random, Stream};
use serde_json::Value;
use tempfile::TempDir;
use tests::trainer;

use crate::support::{
    latest, log, only_run, peak_kib, run, run_folder, saved, send, small_options, text, weights,
};

/// Size of the small disk in MiB: enough for the checkpoints that are kept, and the log.
const DISK: u32 = 24;

/// Disturbance of a process that trains. Each ends by being killed, unless it says otherwise.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// Nothing else.
    Kill,
    /// It is told to stop.
    Stop,
    /// The files of the run are from the future.
    Future,
    /// Another process wants to go on with the run.
    Second,
    /// No file may be as large as a checkpoint.
    Limit,
    /// The folder of the checkpoints cannot be written for a while.
    ReadOnly,
    /// The disk is full for a while.
    Full,
    /// The disk is full from the start.
    FullAtStart,
}

use Disturbance::{Full, FullAtStart, Future, Kill, Limit, ReadOnly, Second, Stop};

const DISTURBANCES: [Disturbance; 8] =
    [Kill, Stop, Future, Second, Limit, ReadOnly, Full, FullAtStart];

/// A file system in memory, where this process may mount one. It is there until this is dropped.
struct Mount(PathBuf);

impl Mount {
    /// Mounts something at a folder: `args` are those of `mount`.
    fn new(folder: &Path, args: &[&str]) -> Option<Self> {
        let mut command = Command::new("mount");
        let status = command.args(args).arg(folder).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then(|| Self(folder.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Returns the peak memory of a process so far in bytes, if it is still there.
fn peak_memory(process: &Child) -> Option<f64> {
    peak_kib(process).map(|kib| kib as f64 * 1024.0)
}

/// Run of the same recipe in one process that nothing disturbs. It pauses where it is ahead, so that both runs
/// come to their end together.
struct Calm {
    out: PathBuf,
    process: Child,
}

impl Calm {
    /// Lead over the disturbed run, in images, at which this one pauses.
    const LEAD: u64 = 1_000;

    /// Starts the run.
    fn start(out: PathBuf, args: &[String]) -> Self {
        let mut command = Command::new(trainer().get_program());
        let process = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { out, process: process.expect("started") }
    }

    /// Pauses or goes on, given how far the disturbed run is.
    fn pace(&self, disturbed: Option<u64>) {
        let ahead = saved(&self.out) > Some(disturbed.unwrap_or_default() + Self::LEAD);
        send(if ahead { "-STOP" } else { "-CONT" }, &self.process);
    }

    /// Ends the process as soon as this run is as far as the disturbed one. Returns how far it is, and
    /// the peak memory of the process in bytes.
    fn stop(&mut self, disturbed: Option<u64>) -> (u64, f64) {
        send("-CONT", &self.process);
        while saved(&self.out) < disturbed {
            assert!(self.process.try_wait().expect("asked").is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        let peak = peak_memory(&self.process).expect("it trains");
        send("-INT", &self.process);
        assert_eq!(self.process.wait().expect("ended").code(), Some(130));
        (saved(&self.out).expect("a checkpoint"), peak)
    }
}

impl Drop for Calm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The run that is disturbed.
struct Soak {
    /// Folder of the run folder.
    out: PathBuf,
    disk: Option<Mount>,
    /// The arguments of a new run.
    start: Vec<String>,
    /// File of what the processes say.
    said: PathBuf,
    random: Random,
    /// Number of processes.
    rounds: u32,
    /// Peak memory of each process in bytes.
    peaks: Vec<f64>,
}

impl Soak {
    /// Returns the run folder, if there is one.
    fn run_folder(&self) -> Option<PathBuf> {
        run_folder(&self.out)
    }

    /// Returns the number of images of the latest checkpoint.
    fn saved(&self) -> Option<u64> {
        saved(&self.out)
    }

    /// Waits for a random time.
    fn wait(&mut self, longest: u32) {
        std::thread::sleep(Duration::from_millis(self.random.below(longest).into()));
    }

    /// Waits until a process has saved a checkpoint: it can end early if it cannot write at its start.
    fn wait_for_a_save(&self, before: Option<u64>) -> bool {
        let started = Instant::now();
        while self.saved() <= before {
            if started.elapsed() > Duration::from_secs(60) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Returns the command that starts the run or goes on with it.
    fn command(&self, limit: Option<u64>) -> Command {
        let program = trainer().get_program().to_owned();
        let mut command = match limit {
            None => Command::new(program),
            Some(blocks) => {
                let mut shell = Command::new("sh");
                let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
                shell.args(["-c", &line]).arg(program);
                shell
            }
        };
        match self.saved().and(self.run_folder()) {
            Some(run_folder) => {
                command.args(["train", "--resume", text(&run_folder)]);
            }
            None => {
                // Ended before the first checkpoint: there is nothing to resume.
                if let Some(run_folder) = self.run_folder() {
                    fs::remove_dir_all(run_folder).expect("removed");
                }
                command.args(&self.start);
            }
        }
        let said = File::options().append(true).create(true).open(&self.said).expect("opened");
        command.env("NO_COLOR", "1").stdout(Stdio::null()).stderr(said);
        command
    }

    /// Ends a process, if it has not ended.
    fn kill(&mut self, mut child: Child) -> ExitStatus {
        self.peaks.extend(peak_memory(&child));
        let _ = child.kill();
        child.wait().expect("ended")
    }

    /// Fills the disk, and returns the file to remove.
    fn fill(&self) -> PathBuf {
        let ballast = self.out.join("../ballast");
        let mut file = File::create(&ballast).expect("made");
        while file.write_all(&[1; 4096]).is_ok() {}
        ballast
    }

    /// Starts a process, disturbs it, and ends it.
    fn disturb(&mut self, kind: Disturbance) {
        let ballast = matches!(kind, FullAtStart).then(|| self.fill());
        if let (Future, Some(folder)) = (kind, self.run_folder()) {
            let later = SystemTime::now() + Duration::from_secs(3600 * 24 * 3650);
            let folders = [folder.clone(), folder.join("checkpoints")];
            for entry in folders.iter().flat_map(|folder| fs::read_dir(folder).expect("there")) {
                let path = entry.expect("readable").path();
                if path.is_file() {
                    let file = File::options().write(true).open(path).expect("opened");
                    file.set_modified(later).expect("set");
                }
            }
        }
        // A checkpoint of this network has 280 kB.
        let limit = matches!(kind, Limit).then_some(200);
        let before = self.saved();
        let mut child = self.command(limit).spawn().expect("started");
        self.rounds += 1;
        // Longer each time until there is a checkpoint, for slow machines.
        self.wait(5_000 + if self.saved().is_none() { 1_000 * self.rounds } else { 0 });
        match kind {
            Kill | Future | Limit => (),
            Stop => {
                send("-INT", &child);
                let status = child.wait().expect("ended");
                // Without a code: it came before the program listened.
                assert!(status.code().is_none_or(|code| code == 130), "{status}");
            }
            Second => {
                // Only then the first one has the lock for certain.
                if self.wait_for_a_save(before) {
                    let second = self.command(None).output().expect("it runs");
                    assert_eq!(second.status.code(), Some(1));
                }
            }
            ReadOnly => {
                if self.wait_for_a_save(before)
                    && let Some(folder) = self.run_folder().map(|folder| folder.join("checkpoints"))
                    && let Some(mount) = Mount::new(&folder, &["--bind", text(&folder)])
                {
                    let remount = ["-o", "remount,bind,ro", text(&folder)];
                    // It fails if a checkpoint is being written.
                    let _ = Command::new("mount").args(remount).stderr(Stdio::null()).status();
                    self.wait(3_000);
                    drop(mount);
                    self.wait(2_000);
                    assert!(child.try_wait().expect("asked").is_none(), "it ended");
                }
            }
            Full => {
                let trains = self.wait_for_a_save(before);
                let ballast = self.fill();
                self.wait(3_000);
                if self.random.below(2) == 0 {
                    fs::remove_file(&ballast).expect("removed");
                    self.wait(2_000);
                    let ended = child.try_wait().expect("asked");
                    assert!(ended.is_none() || !trains, "it ended: {ended:?}");
                }
                let _ = fs::remove_file(&ballast);
            }
            FullAtStart => {
                // It cannot write the options, or it cannot save.
                let ended = child.try_wait().expect("asked");
                assert!(ended.is_none_or(|status| status.code() == Some(1)), "{ended:?}");
            }
        }
        self.kill(child);
        if let Some(ballast) = ballast {
            fs::remove_file(ballast).expect("removed");
        }
    }
}

/// Returns the peak memory at each line of a log up to a number of images, in bytes.
fn peaks(run_folder: &Path, images: u64) -> Vec<f64> {
    let text = fs::read_to_string(run_folder.join("stats.jsonl")).expect("a log");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let lines = lines.filter(|line| line["images"].as_u64() <= Some(images));
    lines.filter_map(|line| line["peak_memory"].as_f64()).collect()
}

#[test]
fn a_disturbed_run_ends_as_an_undisturbed_one() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<f64>().ok());
    let minutes = number("DIFFIT_SOAK_MINUTES").unwrap_or(0.7);
    let seed = number("DIFFIT_SOAK_SEED").unwrap_or(0.0) as u64;
    let folder = TempDir::new().expect("a temporary folder");
    let options = small_options(folder.path());
    let place = folder.path().join("disk");
    fs::create_dir(&place).expect("made");
    let size = format!("size={DISK}m");
    let disk = Mount::new(&place, &["-t", "tmpfs", "-o", &size, "tmpfs"]);
    if disk.is_none() {
        eprintln!("without a full disk and read-only folders: this process may not mount any");
    }
    let start = |out: &Path| -> Vec<String> {
        let args = ["train", "--options", &options, "--grid", "0", "--seed", "3"];
        let more = ["--save-every", "40", "--keep", "2", "--duration", "100M"];
        [&args[..], &more, &["--out", text(out)]].concat().into_iter().map(String::from).collect()
    };
    let out = place.join("runs");
    fs::create_dir(&out).expect("made");
    let mut soak = Soak {
        start: start(&out),
        out,
        disk,
        said: folder.path().join("said"),
        random: Random::new(seed, Stream::Order, 0),
        rounds: 0,
        peaks: Vec::new(),
    };

    let calm = folder.path().join("calm");
    let mut calm = Calm::start(calm.clone(), &start(&calm));

    let started = Instant::now();
    let mut saved = None;
    let mut counts = [0; DISTURBANCES.len()];
    while started.elapsed().as_secs_f64() < 60.0 * minutes || soak.rounds < 6 || saved.is_none() {
        let kind = soak.random.below(DISTURBANCES.len() as u32) as usize;
        let needs_disk = matches!(DISTURBANCES[kind], Full | FullAtStart | ReadOnly);
        if needs_disk && soak.disk.is_none() {
            continue;
        }
        soak.disturb(DISTURBANCES[kind]);
        counts[kind] += 1;
        let now = soak.saved();
        eprintln!("{:?}: saved after {now:?} images", DISTURBANCES[kind]);
        assert!(now >= saved, "{:?}: it went back from {saved:?} to {now:?}", DISTURBANCES[kind]);
        saved = now;
        calm.pace(saved);
        let said = fs::read_to_string(&soak.said).expect("text");
        assert!(!said.contains("panicked") && !said.contains("is damaged"), "{said}");
    }
    // Both to the same end.
    let (stopped, peak) = calm.stop(saved);
    let duration = (stopped.max(saved.unwrap_or_default()) + 200).to_string();
    let disturbed = soak.run_folder().expect("a run");
    let calm = only_run(&calm.out);
    for run_folder in [&disturbed, &calm] {
        run(&["train", "--resume", text(run_folder), "--duration", &duration]);
    }
    assert!(latest(&disturbed) == latest(&calm), "weights, averages or moments differ");
    let name = "weights.safetensors";
    assert!(weights(&disturbed.join(name)) == weights(&calm.join(name)), "the weights differ");
    // Lines that could not be written are missing, if training went on without them.
    let (found, mut want) = (log(&disturbed), log(&calm).into_iter());
    let lost = want.len() - found.len();
    for line in &found {
        assert!(want.any(|want| want == *line), "{line} is repeated, or another");
    }
    let said = fs::read_to_string(&soak.said).expect("text");
    assert!(lost <= said.matches("cannot write stats.jsonl").count(), "{lost} lines are missing");

    // Memory: that of a long process does not grow, and none took more.
    let of_calm = peaks(&calm, stopped);
    let early = of_calm.get(of_calm.len() / 4).copied().unwrap_or(peak);
    assert!(peak <= 1.1 * early, "{early} bytes of memory, then {peak}");
    let most = soak.peaks.iter().copied().fold(0.0, f64::max);
    assert!(most <= 1.25 * peak, "a process took {most} bytes, and {peak} without disturbance");
    let kinds: Vec<String> =
        counts.iter().zip(DISTURBANCES).map(|(n, kind)| format!("{n} {kind:?}")).collect();
    let errors = ["No space left", "Read-only file system", "File too large"];
    let errors = errors.map(|error| format!("{} x {error}", said.matches(error).count()));
    eprintln!(
        "{} rounds ({}), messages: {}; {duration} images, {} log lines, {lost} lost; peak memory \
         {:.0} MB disturbed, {:.0} MB undisturbed, {:.0} MB at a quarter of it",
        soak.rounds,
        kinds.join(", "),
        errors.join(", "),
        found.len(),
        most / 1e6,
        peak / 1e6,
        early / 1e6
    );
}
