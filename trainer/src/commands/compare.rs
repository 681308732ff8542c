//! `trainer compare`: trains the networks of a plan alike, and compares their losses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::println;
use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use crate::args::{CompareArgs, TrainArgs};
use crate::commands::train;
use crate::comparison::{Plan, PlannedNetwork, RunResult, Tables, Wiener, curve, plots, table};
use crate::config::TrainConfig;
use crate::data::dataset::{Dataset, Opening};
use crate::files::atomic::write;
use crate::files::lock::try_lock;
use crate::run::folder::RunFolder;
use crate::run::launch::{absolute, utf8};
use crate::run::report::print_message;
use crate::run::signals::{self, StopSignal};
use crate::validation::Validation;
use crate::weights::load::load;

/// A training run of the comparison.
struct Run<'a> {
    network: &'a PlannedNetwork,
    /// Flags with which it is started.
    args: TrainArgs,
    /// Recipe.
    config: TrainConfig,
    /// Folder that contains the run folder.
    folder: PathBuf,
    /// File of the result.
    result: PathBuf,
}

/// Runs the command.
///
/// # Errors
///
/// If the plan is invalid, or a run cannot be trained. Runs that are complete stay.
pub fn run(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let stop = StopSignal::listen().context("cannot install signal handlers")?;
    let plan = Plan::read(&args.plan)?;
    if args.dry_run {
        return dry_run(&plan, &args);
    }
    if !args.quiet {
        signals::announce(train::STOPPING).context("cannot install signal handlers")?;
    }
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create {}", args.out.display()))?;
    let _lock = lock(&args.out)?;
    for part in ["options", "runs", "results"] {
        let path = args.out.join(part);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let runs = runs(&plan, &args)?;
    let mut results = Vec::new();
    for run in &runs {
        results.extend(RunResult::read(&run.result, &run.config, plan.levels)?);
    }
    for (number, run) in runs.iter().enumerate() {
        let (name, seed) = (&run.network.name, run.config.seed);
        if results.iter().any(|r| r.network == *name && r.config.seed == seed) {
            continue;
        }
        if !args.quiet {
            print_message!("run {} of {}: {name}, seed {seed}", number + 1, runs.len());
        }
        let context = || format!("{name}, seed {seed}");
        let Some(weights) = trained(run, &stop).with_context(context)? else {
            print_message!("the comparison goes on where it stopped when it is started again");
            return Ok(stop.exit_code().unwrap_or(ExitCode::FAILURE));
        };
        let result = evaluate(run, &weights, &plan, &args).with_context(context)?;
        result.write(&run.result)?;
        if !args.quiet {
            print_message!("{name}, seed {seed}: loss {:.5}", result.loss());
        }
        results.push(result);
        write_tables(&plan, &results, None, &args.out)?;
    }
    let wiener = wiener(&runs[0].config, plan.levels, &args)?;
    write_tables(&plan, &results, wiener.as_deref(), &args.out)?;
    println!("{}", args.out.join(TABLES).display());
    Ok(ExitCode::SUCCESS)
}

/// Name of the file with the tables.
const TABLES: &str = "comparison.md";

/// Locks the folder of a comparison for this process.
fn lock(out: &Path) -> anyhow::Result<fs::File> {
    let path = out.join("lock");
    let context = || format!("cannot write {}", path.display());
    let file = fs::File::create(&path).with_context(context)?;
    ensure!(
        try_lock(&file).with_context(context)?,
        "{}: another process is running this comparison",
        out.display()
    );
    Ok(file)
}

/// Prints the networks with their sizes.
fn dry_run(plan: &Plan, args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    fs::create_dir(folder.path().join("options"))?;
    let args = CompareArgs { out: folder.path().to_owned(), ..args.clone() };
    let header = ["network", "preset", "parameters", "multiply-adds", "images per seed"];
    let header: Vec<String> = header.map(String::from).to_vec();
    let seeds = plan.seeds.len();
    let noun = if seeds == 1 { "seed" } else { "seeds" };
    let rows: Vec<Vec<String>> = runs(plan, &args)?
        .iter()
        .take(plan.networks.len())
        .map(|run| {
            let shape = model::weights::shape_of(&run.config.model);
            vec![
                run.network.name.clone(),
                run.network.preset.clone(),
                table::thousands(shape.parameter_count()),
                format!("{:.4} G", shape.macs().total() as f64 / 1e9),
                table::thousands(run.config.duration as usize),
            ]
        })
        .collect();
    println!("{}\n\n{}\neach with {seeds} {noun}", plan.title, table::table(&header, &rows));
    Ok(ExitCode::SUCCESS)
}

/// Returns the runs of a plan, with their recipes. All networks are trained with the first seed, then
/// all with the second, so that a comparison that is stopped has complete seeds.
fn runs<'a>(plan: &'a Plan, args: &CompareArgs) -> anyhow::Result<Vec<Run<'a>>> {
    let mut runs: Vec<Run> = Vec::new();
    for &seed in &plan.seeds {
        for network in &plan.networks {
            let context = || format!("network `{}`", network.name);
            let run = planned(plan, network, seed, args).with_context(context)?;
            runs.push(run);
        }
    }
    let first = &runs[0].config;
    ensure!(
        first.validation.is_some(),
        "the options of the plan have no `validation`: the networks are compared on validation \
         images, so use for example \"validation\": {{ \"images\": 1000 }}"
    );
    for run in &runs {
        let config = &run.config;
        ensure!(
            config.loss == first.loss
                && config.model.image_shape() == first.model.image_shape()
                && config.validation == first.validation
                && config.data == first.data,
            "network `{}`: its objective, resolution or data differ from those of `{}`, so that \
             their losses cannot be compared",
            run.network.name,
            runs[0].network.name
        );
    }
    Ok(runs)
}

/// Returns a run of a plan.
fn planned<'a>(
    plan: &Plan,
    network: &'a PlannedNetwork,
    seed: u64,
    args: &CompareArgs,
) -> anyhow::Result<Run<'a>> {
    let mut options = Value::Object(plan.options.clone());
    crate::config::options::merge(&mut options, &Value::Object(network.options.clone()));
    crate::config::options::merge(&mut options, &Value::Object(overrides(args)?));
    let file = args.out.join("options").join(format!("{}.json", network.name));
    write(&file, serde_json::to_string_pretty(&options)?.as_bytes())
        .with_context(|| format!("cannot write {}", file.display()))?;
    let name = format!("{}-seed{seed}", network.name);
    let folder = args.out.join("runs").join(&name);
    let mut train = TrainArgs { preset: Some(network.preset.clone()), ..TrainArgs::default() };
    (train.output.grid, train.output.keep) = (0, 1);
    train.options = Some(file);
    train.from = Some("scratch".into());
    train.recipe.seed = Some(seed);
    train.output.out.clone_from(&folder);
    train.output.quiet = args.quiet;
    train.output.no_result = true;
    train.output.validate_every = plan.validate_every;
    train.cluster.device = args.device.clone();
    let config = train::recipe(&train)?;
    let result = args.out.join("results").join(format!("{name}.json"));
    Ok(Run { network, args: train, config, folder, result })
}

/// Returns the options that flags override.
///
/// # Errors
///
/// If a path is not UTF-8.
fn overrides(args: &CompareArgs) -> anyhow::Result<Map<String, Value>> {
    let mut options = Map::new();
    if let Some(data) = &args.data {
        options.insert("data".into(), json!(utf8("--data", &absolute(data))?));
    }
    if let Some(data) = &args.validation_data {
        let data = absolute(data);
        let data = utf8("--validation-data", &data)?;
        options.insert("validation".into(), json!({ "data": data }));
    }
    if let Some(duration) = args.duration {
        options.insert("duration".into(), json!(duration));
    }
    Ok(options)
}

/// Trains a run, or the rest of it, and returns its weights file. `None` if a signal stopped it.
fn trained(run: &Run, stop: &StopSignal) -> anyhow::Result<Option<PathBuf>> {
    let mut args = run.args.clone();
    if let Ok(newest) = RunFolder::newest(&run.folder) {
        let options = newest.join("options.json");
        let text = fs::read(&options).with_context(|| options.display().to_string())?;
        let known: TrainConfig =
            serde_json::from_slice(&text).with_context(|| options.display().to_string())?;
        // Training can choose a micro-batch, which does not change what is learned.
        let micro_batch = known.micro_batch.filter(|_| run.config.micro_batch.is_some());
        ensure!(
            TrainConfig { micro_batch, ..known } == run.config,
            "{}: a run of another plan; use another --out, or remove this folder",
            newest.display()
        );
        // Written when the run is complete.
        let weights = newest.join("weights.safetensors");
        if weights.exists() {
            return Ok(Some(weights));
        }
        // Without a checkpoint, the run starts again.
        if RunFolder::find(&newest).is_ok() {
            args.resume = Some(newest);
            (args.preset, args.options, args.from, args.recipe.seed) = (None, None, None, None);
        }
    }
    train::train(&args, stop)?;
    if stop.exit_code().is_some() {
        return Ok(None);
    }
    Ok(Some(RunFolder::newest(&run.folder)?.join("weights.safetensors")))
}

/// Evaluates a complete run.
fn evaluate(
    run: &Run,
    weights: &Path,
    plan: &Plan,
    args: &CompareArgs,
) -> anyhow::Result<RunResult> {
    let device = args.device.device.open()?;
    let (_, validation) = data(&run.config)?;
    let loaded = load(Some(weights), &device)?;
    let name = &run.network.name;
    let (config, n) = (&run.config, plan.levels);
    let result = RunResult::evaluate(name, &loaded.model, config, &validation, n, &device)?;
    Ok(RunResult {
        images: loaded.card.images_seen,
        seconds: loaded.card.training_seconds,
        curve: curve(&weights.with_file_name("stats.jsonl"))?,
        ..result
    })
}

/// Opens the training data and the validation images of a recipe.
fn data(config: &TrainConfig) -> anyhow::Result<(std::sync::Arc<Dataset>, Validation)> {
    let opening = Opening { skip_bad: config.skip_bad, ..Opening::default() };
    let data = Dataset::open_with(&config.data, &config.model, config.resize, opening)?;
    let data = std::sync::Arc::new(data);
    let validation =
        Validation::open(config, &data, opening)?.context("the plan has validation images")?;
    Ok((data, validation))
}

/// Returns the losses of the Wiener filter, which are computed once and then read from a file. `None`
/// if there is no filter for these data.
fn wiener(
    config: &TrainConfig,
    levels: usize,
    args: &CompareArgs,
) -> anyhow::Result<Option<Vec<f64>>> {
    let path = args.out.join("results").join("wiener.json");
    if let Ok(bytes) = fs::read(&path) {
        return serde_json::from_slice(&bytes).with_context(|| path.display().to_string());
    }
    let (data, validation) = data(config)?;
    let filter = Wiener::fit(&data, config)?;
    let losses = filter.map(|filter| filter.losses(config, &validation, levels)).transpose()?;
    write(&path, serde_json::to_string(&losses)?.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(losses)
}

/// Writes the tables and plots of the results so far.
fn write_tables(
    plan: &Plan,
    results: &[RunResult],
    wiener: Option<&[f64]>,
    out: &Path,
) -> anyhow::Result<()> {
    let tables = Tables::new(plan, results, wiener);
    let mut text = tables.markdown();
    let mut files = vec![("comparison.csv", tables.csv())];
    for (name, title, plot) in [
        ("levels.svg", "Loss at each noise level", plots::levels(&tables)),
        ("curves.svg", "Validation loss while training", plots::curves(&tables)),
    ] {
        if let Some(plot) = plot {
            text += &format!("\n![{title}]({name})\n");
            files.push((name, plot));
        }
    }
    files.push((TABLES, text));
    for (name, text) in files {
        let path = out.join(name);
        write(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
