//! `trainer report` and `trainer plot`: what a run has learned, as a page and as a chart.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anstream::println;
use anyhow::{Context, bail};
use burn::tensor::Device;
use indicatif::{HumanCount, HumanDuration};
use model::classes::list;
use model::generate::Settings;
use model::label::Label;
use model::picture::Rgb;
use model::weights::shape_of;

use crate::args::{PlotArgs, PlotValue, Quantity, ReportArgs};
use crate::commands::train::grid::classes_to_show;
use crate::config::{EMBEDDED_DATA, TrainConfig};
use crate::data::dataset::{Dataset, Opening};
use crate::data::source::is_latents;
use crate::files::atomic::write;
use crate::plot;
use crate::run::checkpoint::{self, Checkpoint, Part};
use crate::run::folder::RunFolder;
use crate::run::history::History;
use crate::run::progress::Progress;
use crate::run::report::{print_message, warn};
use crate::samples::generate::images;
use crate::summary::charts;
use crate::summary::html::{Nearest, Report, render};
use crate::summary::nearest::{Neighbour, Query, median, median_between_images, nearest};

/// Maximum number of grids in the report.
const GRIDS: usize = 12;

/// Number of training images beside a sample.
const NEIGHBOURS: usize = 3;

/// Batch size of sampling.
const BATCH: usize = 16;

/// Writes the report of a run.
///
/// # Errors
///
/// If the folder is not that of a run, or the file cannot be written.
pub fn run(args: ReportArgs) -> anyhow::Result<()> {
    let folder = RunFolder::open(&args.run)?;
    let config = folder.read_options()?;
    let history = History::read(&folder)?;
    let found = match folder.checkpoints() {
        Ok(checkpoints) if !checkpoints.is_empty() => checkpoint::find(folder.path(), warn),
        _ => Err(anyhow::anyhow!("the run has no checkpoint yet")),
    };
    let nearest = match &found {
        Ok((_, _, checkpoint)) if args.samples > 0 => nearest_images(&args, &config, checkpoint),
        Ok(_) => Ok(Nearest { text: "Not looked up (--samples 0).".into(), rows: Vec::new() }),
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    let explain = |error: anyhow::Error| Nearest {
        text: format!("Not looked up: {error:#}."),
        rows: Vec::new(),
    };
    let progress = found.as_ref().ok().map(|(_, _, checkpoint)| &checkpoint.progress);
    let run = [(folder.name(), history.clone())];
    let report = Report {
        name: folder.name(),
        subtitle: subtitle(&config, progress),
        notices: notices(&history, &config),
        numbers: numbers(&history, &config, progress),
        charts: learning_curves(&run),
        metrics: history
            .names_except(&Quantity::FIELDS)
            .filter_map(|name| charts::named(name, &run))
            .collect(),
        grids: grids(&folder)?,
        nearest: nearest.unwrap_or_else(explain),
        settings: settings(&config),
        files: files(&folder),
        origin: format!(
            "Written by trainer {} from {}.",
            env!("CARGO_PKG_VERSION"),
            folder.path().display()
        ),
    };
    let output = args.output.unwrap_or_else(|| folder.path().join("report.html"));
    write(&output, render(&report).as_bytes())
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("{}", output.display());
    Ok(())
}

/// Writes a chart of one or more runs.
///
/// # Errors
///
/// If a folder is not that of a run, no run has logged the value, or the file cannot be written.
pub fn plot(args: PlotArgs) -> anyhow::Result<()> {
    let read = |path: &std::path::PathBuf| {
        let folder = RunFolder::open(path)?;
        Ok((folder.name(), History::read(&folder)?))
    };
    let runs = args.runs.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let chart = match args.value {
        PlotValue::Known(quantity) => charts::chart(quantity, &runs)
            .with_context(|| format!("no values of {quantity} have been logged yet"))?,
        PlotValue::Named(start) => {
            let name = name_of_value(&start, &runs)?;
            charts::named(&name, &runs)
                .with_context(|| format!("no values of {name} can be drawn"))?
        }
    };
    let output = args.output;
    write(&output, plot::file(&chart).as_bytes())
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("{}", output.display());
    Ok(())
}

/// Returns the name of the value in the logs that is, or starts with, the given text.
///
/// # Errors
///
/// If there is none, or several.
fn name_of_value(start: &str, runs: &[(String, History)]) -> anyhow::Result<String> {
    let names = runs.iter().flat_map(|(_, history)| history.names_except(&Quantity::FIELDS));
    let names: BTreeSet<&str> = names.collect();
    let lower = start.to_lowercase();
    if let Some(name) = names.iter().find(|name| name.to_lowercase() == lower) {
        return Ok((*name).into());
    }
    let starting = |name: &&&str| name.to_lowercase().starts_with(&lower);
    let found: Vec<&str> = names.iter().filter(starting).copied().collect();
    if let [name] = found[..] {
        return Ok(name.into());
    }
    let all: Vec<&str> =
        ["loss", "lr", "gradient-norm", "speed"].into_iter().chain(names).collect();
    let problem =
        if found.is_empty() { "no value has this name" } else { "several have this name" };
    bail!("--value {start}: {problem}; there are {}", all.join(", "))
}

fn subtitle(config: &TrainConfig, progress: Option<&Progress>) -> String {
    let [c, h, w] = config.model.image_shape();
    let parameters = shape_of(&config.model).parameter_count() as f64 / 1e6;
    let classes = match progress.map_or(0, |progress| progress.classes.len()) {
        0 => String::new(),
        count => format!(" of {} classes", HumanCount(count as u64)),
    };
    let data = match config.data.as_os_str() {
        name if name == EMBEDDED_DATA => "the embedded emoji dataset".into(),
        path => Path::new(path).display().to_string(),
    };
    format!("{parameters:.1} M parameters, {w}x{h}x{c}, trained on {data}{classes}")
}

fn notices(history: &History, config: &TrainConfig) -> Vec<String> {
    let mut notices = Vec::new();
    let images = history.images();
    if images < config.duration as f64 {
        notices.push(format!(
            "The run has seen {} of its {} images.",
            HumanCount(images as u64),
            HumanCount(config.duration)
        ));
    }
    if history.skipped_steps > 0 {
        notices.push(format!(
            "Steps that were skipped, since their loss or gradient was not finite: {}.",
            history.skipped_steps
        ));
    }
    if history.damaged_lines > 0 {
        notices
            .push(format!("Lines of stats.jsonl that cannot be read: {}.", history.damaged_lines));
    }
    notices
}

fn numbers(
    history: &History,
    config: &TrainConfig,
    progress: Option<&Progress>,
) -> Vec<[String; 3]> {
    let mut numbers = Vec::new();
    let mut add = |what: &str, number: Option<String>, more: String| {
        numbers.extend(number.map(|number| [what.to_string(), number, more]));
    };
    let images = progress.map_or(history.images() as u64, |progress| progress.images);
    add(
        "images seen",
        Some(HumanCount(images).to_string()),
        format!("of {}", HumanCount(config.duration)),
    );
    let seconds =
        progress.map_or(history.seconds, |progress| progress.seconds.max(history.seconds));
    let rate = history.last("images_per_second");
    add(
        "training time",
        Some(HumanDuration(Duration::from_secs_f64(seconds.clamp(0.0, 1e12))).to_string()),
        rate.map_or(String::new(), |rate| format!("{rate:.1} images per second at the end")),
    );
    for (what, field) in [("loss", "loss"), ("validation loss", "validation_loss")] {
        let values = history.get(field);
        let finite = values.iter().filter(|(_, value)| value.is_finite());
        let lowest = finite.min_by(|a, b| a.1.total_cmp(&b.1));
        let more = lowest.map_or(String::new(), |(images, lowest)| {
            format!("lowest {lowest:.4} after {}", HumanCount(*images as u64))
        });
        add(what, values.last().map(|(_, value)| format!("{value:.4}")), more);
    }
    let peak = (history.peak_memory > 0).then(|| size(history.peak_memory));
    add("peak memory", peak, "of a process".into());
    numbers
}

/// Returns a size in bytes as text.
fn size(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn learning_curves(run: &[(String, History)]) -> Vec<plot::Chart> {
    Quantity::ALL.into_iter().filter_map(|quantity| charts::chart(quantity, run)).collect()
}

/// Returns evenly spaced grids of the run, with the first and the last.
fn grids(folder: &RunFolder) -> anyhow::Result<Vec<(Vec<u8>, String)>> {
    let all = folder.grids();
    let shown = all.len().min(GRIDS);
    let index = |i: usize| if shown > 1 { i * (all.len() - 1) / (shown - 1) } else { 0 };
    let read = |i: usize| {
        let (images, path) = &all[index(i)];
        let png = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((png, format!("after {} images", HumanCount(*images))))
    };
    (0..shown).map(read).collect()
}

/// Samples from a checkpoint, and looks up the nearest training images.
///
/// # Errors
///
/// If the data is not there, cannot be compared with samples, or is not the data of the run.
fn nearest_images(
    args: &ReportArgs,
    config: &TrainConfig,
    checkpoint: &Checkpoint,
) -> anyhow::Result<Nearest> {
    let device = args.device.device.open()?;
    let path = args.data.as_deref().unwrap_or(&config.data);
    if path != Path::new(EMBEDDED_DATA) && !path.exists() {
        bail!("the data is not at {}; --data gives its new path", path.display());
    }
    if is_latents(path) {
        bail!("the model was trained on latents, and pixels are compared");
    }
    let opening = Opening { skip_bad: config.skip_bad, ..Opening::default() };
    let data = Dataset::open_with(path, &config.model, config.resize, opening)?;
    let progress = &checkpoint.progress;
    let differs = |known| data.fingerprint().is_some_and(|found| found.difference(known).is_some());
    if progress.fingerprint.as_ref().is_some_and(differs) {
        bail!("the data at {} is not that of the run", path.display());
    }
    print_message!("sampling {} images, comparing each with {} images", args.samples, data.len());
    let samples = Samples::generate(config, checkpoint, args.samples, &device)?;
    let [c, _, _] = data.shape;
    let query = |image: &Rgb| Query { values: values(image, c), except: None };
    let queries: Vec<Query> = samples.images.iter().map(query).collect();
    let found = nearest(&data, &queries, NEIGHBOURS, config.flip)?;
    let typical = median(found.iter().filter_map(|found| Some(found.first()?.distance)).collect());
    let between = median_between_images(&data, config.flip)?;
    let mut text = format!(
        "For each sample, the nearest of {} training images{}, by the root mean square of the \
         differences of all values, in levels of 255.",
        HumanCount(data.len() as u64),
        if config.flip { " and their mirror images" } else { "" }
    );
    if let (Some(typical), Some(between)) = (typical, between) {
        text += &format!(
            " The median distance is {typical:.1}; that between a training image and the nearest \
             other one is {between:.1}. A sample that is much nearer than that is a copy."
        );
    }
    let rows = samples.images.into_iter().zip(samples.captions).zip(found);
    let rows = rows.map(|((image, caption), found)| {
        let mut row = vec![(image, caption)];
        for neighbour in found {
            row.push(training_image(&data, neighbour)?);
        }
        Ok(row)
    });
    Ok(Nearest { text, rows: rows.collect::<anyhow::Result<_>>()? })
}

/// Returns a training image with its caption.
fn training_image(data: &Dataset, neighbour: Neighbour) -> anyhow::Result<(Rgb, String)> {
    let entry = data.entry(neighbour.index, neighbour.mirrored)?;
    let images = Rgb::from_values(&entry.image, data.shape);
    let image = images.ok().and_then(|mut images| images.pop()).unwrap_or_else(blank);
    let name = entry.class.and_then(|class| data.class_names.names.get(class).cloned());
    let mirrored = if neighbour.mirrored { ", mirrored" } else { "" };
    let name = name.unwrap_or_else(|| format!("number {}", neighbour.index));
    Ok((image, format!("{:.1}, {name}{mirrored}", neighbour.distance)))
}

/// Returns a white pixel.
fn blank() -> Rgb {
    Rgb { width: 1, height: 1, bytes: vec![255; 3] }
}

/// Returns the values of an image from -1 to 1, `[C, H, W]`.
fn values(image: &Rgb, channels: usize) -> Vec<f32> {
    let bytes: Vec<u8> = (0..channels)
        .flat_map(|channel| image.bytes.iter().skip(channel).step_by(3).copied())
        .collect();
    let mut values = vec![0.0; bytes.len()];
    model::image::from_bytes(&bytes, &mut values);
    values
}

/// Samples with captions.
struct Samples {
    images: Vec<Rgb>,
    captions: Vec<String>,
}

impl Samples {
    /// Generates the samples of the seeds 0 to `n - 1`, with the classes and settings of the grids.
    fn generate(
        config: &TrainConfig,
        checkpoint: &Checkpoint,
        n: u32,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let names = &checkpoint.progress.classes;
        let seeds: Vec<u64> = (0..u64::from(n)).collect();
        let classes = classes_to_show(names, config.model.classes(), n as usize);
        let labels: Vec<Label> = classes.into_iter().map(Label::from).collect();
        let settings = Settings { classes: labels, ..Settings::default() };
        let model = checkpoint.model(Part::Ema, device);
        let images = images(&model, None, &settings, &seeds, BATCH, device, |_| {})?;
        let labels = settings.labels_of(&seeds);
        let caption = |seed: &u64| match labels.get(*seed as usize) {
            Some(label) if !names.is_empty() => {
                format!("sample: {}", list(names, std::slice::from_ref(label)))
            }
            _ => format!("sample, seed {seed}"),
        };
        let captions = seeds.iter().map(caption).collect();
        Ok(Self { images, captions })
    }
}

fn settings(config: &TrainConfig) -> Vec<[String; 2]> {
    let mut settings = Vec::new();
    let mut add = |name: &str, value: String| settings.push([name.to_string(), value]);
    add("data", config.data.display().to_string());
    add("batch size", config.batch.to_string());
    add("duration", format!("{} images", HumanCount(config.duration)));
    let optimizer = format!("{:?}", config.optimizer).to_lowercase();
    add("optimizer", format!("{optimizer}, learning rate {:e}", config.adam.lr));
    let decay = match config.lr_decay {
        0.0 => String::new(),
        part => format!(", decay over the last {:.0} %", 100.0 * part),
    };
    add("schedule", format!("warm-up over {} images{decay}", HumanCount(config.lr_ramp)));
    add(
        "moving average",
        format!(
            "half-life {} images, at most {:.0} % of those seen",
            HumanCount(config.ema.half_life),
            100.0 * config.ema.ramp
        ),
    );
    let mirrored = if config.flip { "mirroring" } else { "none" };
    add(
        "augmentation",
        match config.augment {
            0.0 => mirrored.into(),
            p => format!("{mirrored}, others with probability {p}"),
        },
    );
    add("precision", format!("{:?}", config.precision).to_lowercase());
    add("seed", config.seed.to_string());
    settings
}

/// Returns the files of the run that describe it.
fn files(folder: &RunFolder) -> Vec<[String; 2]> {
    let read = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).ok()?;
        Some([name.to_string(), text])
    };
    ["options.json", "launch.json"].into_iter().filter_map(read).collect()
}
