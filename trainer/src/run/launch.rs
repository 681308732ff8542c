//! Launch settings: the flags of `trainer train` that are not part of the recipe.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::folder::RunFolder;
use super::report::warn;
use crate::args::{FeaturesKind, MetricKind, QualityArgs, TrainArgs};
use crate::device::DeviceKind;
use crate::files::atomic::write;

/// Value of --resume for the newest run.
const LATEST: &str = "latest";

/// Value of --nodes for a single machine.
const NO_NODES: &str = "none";

/// Launch settings of a run, its `launch.json`. A resumed run uses them unless flags are given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    device: Option<String>,
    devices: Option<u16>,
    nodes: Vec<String>,
    node: Option<usize>,
    data_memory: Option<u64>,
    vae: Option<PathBuf>,
    vae_config: Option<PathBuf>,
    grid: Option<u32>,
    sample_every: Option<u64>,
    validate_every: Option<u64>,
    save_every: Option<u64>,
    keep: Option<u32>,
    keep_every: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
}

/// Launch settings of the measurement of image quality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Quality {
    metrics: Vec<String>,
    every: Option<u64>,
    samples: u64,
    reference: Option<PathBuf>,
    features: String,
    network: Option<PathBuf>,
    allow_unknown_network: bool,
}

impl Quality {
    /// Returns the settings among the flags, with absolute paths. `None` if nothing is measured.
    ///
    /// # Errors
    ///
    /// If a path is not UTF-8.
    fn of(args: &QualityArgs) -> anyhow::Result<Option<Self>> {
        if args.metric.is_empty() {
            return Ok(None);
        }
        let features = args.network.features.to_possible_value();
        Ok(Some(Self {
            metrics: args.metric.iter().map(|metric| metric.flag()).collect(),
            every: args.metric_every,
            samples: args.metric_samples,
            reference: stored("--reference", args.reference.as_deref())?,
            features: features.map_or_else(String::new, |value| value.get_name().to_string()),
            network: stored("--network", args.network.network.as_deref())?,
            allow_unknown_network: args.network.allow_unknown_network,
        }))
    }

    /// Sets the flags that are not given on the command line.
    fn apply(self, args: &mut QualityArgs, free: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        if free("metric") {
            let metric = |name: &String| MetricKind::from_str(name, false);
            let metrics: Result<_, String> = self.metrics.iter().map(metric).collect();
            args.metric = metrics.map_err(|error| anyhow::anyhow!("metrics: {error}"))?;
        }
        if free("metric_every") {
            args.metric_every = self.every;
        }
        if free("metric_samples") {
            args.metric_samples = self.samples;
        }
        if free("reference") {
            args.reference = self.reference;
        }
        // A file of weights is that of one network.
        if free("features") && free("network") && free("allow_unknown_network") {
            let features = FeaturesKind::from_str(&self.features, false);
            args.network.features =
                features.map_err(|error| anyhow::anyhow!("features: {error}"))?;
            args.network.network = self.network;
            args.network.allow_unknown_network = self.allow_unknown_network;
        }
        Ok(())
    }
}

impl Launch {
    /// Returns the launch settings among the flags, with absolute paths.
    ///
    /// # Errors
    ///
    /// If a path is not UTF-8.
    pub fn of(args: &TrainArgs) -> anyhow::Result<Self> {
        let (cluster, output) = (&args.cluster, &args.output);
        let device = cluster.device.device.to_possible_value();
        Ok(Self {
            device: device.map(|device| device.get_name().to_string()),
            devices: Some(cluster.devices),
            nodes: cluster.nodes.clone(),
            node: cluster.node,
            data_memory: args.data_memory,
            vae: stored("--vae", output.vae.vae.as_deref())?,
            vae_config: stored("--vae-config", output.vae.vae_config.as_deref())?,
            grid: Some(output.grid),
            sample_every: output.sample_every,
            validate_every: output.validate_every,
            save_every: output.save_every,
            keep: Some(output.keep),
            keep_every: output.keep_every,
            quality: Quality::of(&args.quality)?,
        })
    }

    /// Sets the flags that are not given on the command line.
    fn apply(self, args: &mut TrainArgs) -> anyhow::Result<()> {
        let given = args.given.clone();
        let free = |name: &str| !given.contains(name);
        let (cluster, output) = (&mut args.cluster, &mut args.output);
        if let Some(device) = self.device.filter(|_| free("device")) {
            let kind = DeviceKind::from_str(&device, false);
            cluster.device.device = kind.map_err(|error| anyhow::anyhow!("device: {error}"))?;
        }
        if free("devices") {
            cluster.devices = self.devices.unwrap_or(cluster.devices);
        }
        if free("nodes") && free("node") && !self.nodes.is_empty() {
            warn(&format!(
                "waiting for the machines of this run, {}; use `--nodes {NO_NODES}` for one machine",
                self.nodes.join(",")
            ));
            (cluster.nodes, cluster.node) = (self.nodes, self.node);
        }
        if free("vae") && free("vae_config") {
            let paths = [self.vae, self.vae_config];
            if let Some(path) = paths.iter().flatten().find(|path| !path.exists()) {
                warn(&format!("--vae: {} no longer exists", path.display()));
            } else {
                [output.vae.vae, output.vae.vae_config] = paths;
            }
        }
        if free("grid") {
            output.grid = self.grid.unwrap_or(output.grid);
        }
        if free("keep") {
            output.keep = self.keep.unwrap_or(output.keep);
        }
        for (name, flag, value) in [
            ("data_memory", &mut args.data_memory, self.data_memory),
            ("sample_every", &mut output.sample_every, self.sample_every),
            ("validate_every", &mut output.validate_every, self.validate_every),
            ("save_every", &mut output.save_every, self.save_every),
            ("keep_every", &mut output.keep_every, self.keep_every),
        ] {
            if free(name) {
                *flag = value;
            }
        }
        self.quality.map_or(Ok(()), |quality| quality.apply(&mut args.quality, free))
    }

    /// Reads the launch settings of a run. Runs of earlier versions have none.
    fn read(folder: &RunFolder) -> anyhow::Result<Self> {
        match std::fs::read(folder.launch()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the launch settings of a run.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, folder: &RunFolder) -> anyhow::Result<()> {
        let path = folder.launch();
        write(&path, serde_json::to_string_pretty(self)?.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Completes the flags of a resumed run: finds the newest run, and adds the launch settings of the
/// run.
///
/// # Errors
///
/// If there is no such run, or flags contradict each other.
pub fn complete(args: &mut TrainArgs) -> anyhow::Result<()> {
    if let Some(path) = &mut args.resume {
        if path == Path::new(LATEST) {
            *path = RunFolder::newest(&args.output.out)?;
        } else if args.given.contains("out") {
            bail!("--out cannot be used with --resume, unless it is `--resume {LATEST}`");
        }
        let folder = RunFolder::find(path)?.0;
        let applied = Launch::read(&folder).and_then(|launch| launch.apply(args));
        if let Err(error) = applied {
            warn(&format!("{}: {error:#}; ignored", folder.launch().display()));
        }
    }
    let cluster = &mut args.cluster;
    if cluster.nodes == [NO_NODES] {
        (cluster.nodes, cluster.node) = (Vec::new(), None);
    }
    ensure!(
        cluster.nodes.is_empty() || cluster.node.is_some(),
        "--nodes requires --node <N>, the index of this machine"
    );
    Ok(())
}

/// Returns an absolute path, or the path itself if the current folder is unknown.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns a path as text, as it is stored with a run and printed in commands. `flag` is the flag that
/// gives the path.
///
/// # Errors
///
/// If it is not UTF-8.
pub fn utf8<'a>(flag: &str, path: &'a Path) -> anyhow::Result<&'a str> {
    path.to_str().with_context(|| {
        format!(
            "{flag} {}: this path is not UTF-8, and a run stores its paths as text: rename it, or use a \
             symbolic link with another name",
            path.display()
        )
    })
}

/// Returns the absolute path of a flag, as it is stored.
///
/// # Errors
///
/// If it is not UTF-8.
fn stored(flag: &str, path: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = path.map(absolute) else { return Ok(None) };
    utf8(flag, &path)?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};

    fn flags(flags: &[&str]) -> TrainArgs {
        let args = Args::read([&["trainer", "train"], flags].concat());
        let Some(Command::Train(args)) = args.command else { panic!("trainer train") };
        args
    }

    #[test]
    fn flags_override_stored_settings() {
        let first = [
            ["--devices", "2"],
            ["--nodes", "a:1,b:1"],
            ["--node", "1"],
            ["--data-memory", "3MB"],
            ["--grid", "4"],
            ["--save-every", "100"],
            ["--keep", "7"],
            ["--keep-every", "1k"],
            ["--metric", "kid,fid"],
            ["--metric-samples", "3k"],
            ["--reference", "/r.npz"],
            ["--features", "lite0"],
            ["--network", "/w.safetensors"],
        ];
        let of = |args: &TrainArgs| Launch::of(args).expect("plain paths");
        let stored = of(&flags(&first.concat()));
        let text = serde_json::to_string(&stored).expect("plain data");
        assert_eq!(serde_json::from_str::<Launch>(&text).expect("its own"), stored);
        let mut resumed = flags(&["--resume", "x"]);
        stored.clone().apply(&mut resumed).expect("valid");
        assert_eq!(of(&resumed), stored);

        // A flag with the value of its default is given, too.
        let again =
            [["--grid", "16"], ["--keep-every", "0"], ["--nodes", "none"], ["--metric-every", "0"]];
        let mut resumed = flags(&again.concat());
        stored.clone().apply(&mut resumed).expect("valid");
        complete(&mut resumed).expect("one machine");
        let want = Launch {
            grid: Some(16),
            keep_every: Some(0),
            nodes: Vec::new(),
            node: None,
            quality: stored.quality.clone().map(|of| Quality { every: Some(0), ..of }),
            ..stored.clone()
        };
        assert_eq!(of(&resumed), want);

        // Runs of earlier versions have no settings.
        let mut resumed = flags(&["--resume", "x", "--devices", "3"]);
        Launch::default().apply(&mut resumed).expect("valid");
        let want = of(&flags(&["--devices", "3"]));
        assert_eq!(of(&resumed), want);
    }
}
