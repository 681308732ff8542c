//! Start of a training process: checks, then everything that the loop needs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use model::vae::Vae;

use super::log::Log;
use super::messages;
use super::plan::Plan;
use super::quality::Checked;
use super::saves::Saves;
use super::session::{Intervals, Session};
use crate::args::{TrainArgs, VaeArgs};
use crate::config::TrainConfig;
use crate::data::dataset::{Dataset, Difference, Opening};
use crate::data::loader::Loader;
use crate::learner::nodes::Nodes;
use crate::learner::step::Learner;
use crate::memory;
use crate::run::launch::Launch;
use crate::run::progress::Progress;
use crate::run::report::{print_message, warn};
use crate::validation::Validation;
use crate::weights::autoencoder::Autoencoder;

/// Prepares a training process. Returns `None` after a dry run.
///
/// # Errors
///
/// If the flags, the data or the weights cannot be used. No run folder is created then.
pub fn open(args: &TrainArgs) -> anyhow::Result<Option<Session>> {
    let output = &args.output;
    let (device, count) = (args.cluster.device.device, usize::from(args.cluster.devices));
    device.check(count)?;
    let mut plan = Plan::new(args)?;
    let launch = Launch::of(args)?;
    let mut config = plan.config.clone();
    let workers = args.cluster.workers();
    config.validate_for(workers)?;
    ensure!(
        !plan.is_finished(),
        "this run has already seen its {} images; use a larger --duration to continue",
        config.duration
    );
    if !(output.quiet || output.json) {
        messages::changed(&plan.changes()?);
    }
    if args.dry_run {
        plan.print(args)?;
    }
    if let Some(message) = plan.missing_data() {
        ensure!(args.dry_run, "{message}");
        warn(&message);
        return Ok(None);
    }
    if !(output.quiet || output.json) {
        messages::reading(&config.data);
    }
    let data = Arc::new(open_data(&plan, args)?);
    if let Some(left_out) = &data.left_out {
        warn(left_out);
    }
    if data.is_on_demand() && !(output.quiet || output.json) {
        messages::on_demand(&data);
    }
    let validation = Validation::open(&config, &data, opening(&config, args))?;
    // After the data: their errors need not wait for a GPU to be opened.
    let devices = device.open_all(count)?;
    let vae = decoder(&args.output.vae, &config, &data, &devices[0])?;
    let quality = Checked::open(&args.quality, &config.model, vae.as_ref(), &devices[0])?;
    check_quality_flags(args)?;
    if let Some(chosen) = memory::check(&config, &devices, workers, data.memory_to_come())? {
        if !(output.quiet || output.json) {
            messages::micro_batch(&chosen, config.batch);
        }
        config.micro_batch = Some(chosen.size);
        plan.config = config.clone();
    }
    if args.dry_run {
        return Ok(None);
    }
    let mut quality = quality.map(Checked::prepare).transpose()?;
    let nodes = args.cluster.node.map(|node| Nodes::join(&args.cluster.nodes, node)).transpose()?;
    let (mut progress, mut learner) = plan.build(&data, &devices, nodes)?;
    progress.add_hardware(&device.hardware(count));
    describe_data(&mut progress, &data, args.recipe.data.is_some())?;
    check_nodes_agree(&progress, &mut learner, &data)?;

    let (folder, lock) = plan.folder(args)?;
    folder.write_options(&progress.config)?;
    launch.write(&folder)?;
    folder.set_aside_later(progress.images, warn)?;
    if let Some(quality) = &mut quality {
        quality.find_best(&folder)?;
    }
    let intervals = Intervals::new(output, &config);
    let measure_every = args.quality.metric_every.unwrap_or(intervals.sample).max(1);
    if !(output.quiet || output.json) {
        let parameters = learner.model().network.parameter_count();
        messages::introduction(&progress, &data, &folder, parameters, output);
        if let Some(quality) = &quality {
            print_message!("measuring {} every {measure_every} images", quality.describe());
        }
        if let Some(message) = messages::compiling(device) {
            print_message!("{message}");
        }
    }
    let share = learner.share(config.batch);
    Ok(Some(Session {
        args: output.clone(),
        max_time: args.max_time,
        intervals,
        loader: Loader::new(&config, data, progress.images, share),
        log: Log::open(&folder, &progress, output)?,
        seconds_before: progress.seconds,
        saves: Saves::new(progress.images),
        started: Instant::now(),
        waited: Duration::ZERO,
        // Two for each multiply-add; the backward pass takes twice as many as the forward pass.
        flops: 6.0 * learner.model().network.macs().total() as f64,
        peak: device.peak(config.precision).map(|peak| peak * workers as f64),
        device: devices[0].clone(),
        progress,
        learner,
        validation,
        quality,
        measure_every,
        vae,
        folder,
        _lock: lock,
    }))
}

/// Checks that no flag about image quality is given in vain.
///
/// # Errors
///
/// If there is no --metric.
fn check_quality_flags(args: &TrainArgs) -> anyhow::Result<()> {
    let flags = [
        ("metric_every", "--metric-every"),
        ("metric_samples", "--metric-samples"),
        ("reference", "--reference"),
        ("features", "--features"),
        ("network", "--network"),
        ("allow_unknown_network", "--allow-unknown-network"),
    ];
    let given = flags.iter().find(|(name, _)| args.given.contains(*name));
    match given {
        Some((_, flag)) if args.quality.metric.is_empty() => {
            bail!("{flag} is for the measurement of image quality, which --metric asks for")
        }
        _ => Ok(()),
    }
}

/// Returns how datasets are opened.
fn opening(config: &TrainConfig, args: &TrainArgs) -> Opening {
    let memory = args.data_memory.unwrap_or_else(memory::for_images);
    let bar = !(args.output.quiet || args.output.json);
    Opening { memory, bar, skip_bad: config.skip_bad }
}

/// Opens the training data.
///
/// # Errors
///
/// If they cannot be used, or a new run of a class-conditional model has data without classes.
fn open_data(plan: &Plan, args: &TrainArgs) -> anyhow::Result<Dataset> {
    let config = &plan.config;
    let opening = opening(config, args);
    let data = Dataset::open_with(&config.data, &config.model, config.resize, opening);
    if plan.images() > 0 && args.recipe.data.is_none() {
        return data.context("cannot open the data of this run; if they were moved, use --data");
    }
    let (data, classes) = (data?, config.model.classes());
    ensure!(
        plan.images() > 0 || classes == 0 || !data.class_names.names.is_empty(),
        "{}: no image has a class, but the model has {classes} classes: use a preset without classes, such \
         as tiny, or set {{\"model\": {{\"network\": {{\"classes\": 0}}}}}} with --options, or put the images \
         of each class into a folder of its own",
        config.data.display()
    );
    Ok(data)
}

/// Stores the classes, the origin and the fingerprint of the data in the progress of the run.
///
/// # Errors
///
/// If a resumed run was trained on other data. `moved` is whether --data gives another path.
fn describe_data(progress: &mut Progress, data: &Dataset, moved: bool) -> anyhow::Result<()> {
    let latents_of = data.latents_hashes();
    ensure!(
        progress.images == 0 || progress.latents_of == latents_of,
        "{}: not the data that this run was trained on so far: the latents are of other images, of \
         another autoencoder, or of another precision",
        progress.config.data.display()
    );
    let fingerprint = data.fingerprint();
    if let (Some(found), Some(known)) = (&fingerprint, &progress.fingerprint)
        && let Some(difference) = found.difference(known)
    {
        let difference = match difference {
            Difference::Count => format!("they are {} images, not {}", found.images, known.images),
            Difference::Values => "images, their order or their classes differ".into(),
            Difference::Names => {
                "the names of the images, their order or their classes differ".into()
            }
            Difference::Stored => {
                "images were replaced: the sizes or checksums of their files differ".into()
            }
        };
        bail!(
            "{}: not the data that this run was trained on so far: {difference}; start a new run, or \
             use --data with the original data",
            progress.config.data.display()
        );
    }
    if moved && progress.images > 0 && fingerprint.is_some() && progress.fingerprint.is_none() {
        warn("--data is not checked: the checkpoint is of a version without fingerprints of data");
    }
    progress.fingerprint = fingerprint.map(|found| found.or(progress.fingerprint.as_ref()));
    progress.latents_of = latents_of;
    progress.classes.clone_from(&data.class_names.names);
    progress.class_groups.clone_from(&data.class_names.groups);
    Ok(())
}

/// Checks that all machines train the same model on as many images.
fn check_nodes_agree(
    progress: &Progress,
    learner: &mut Learner,
    data: &Dataset,
) -> anyhow::Result<()> {
    if learner.nodes().is_none() {
        return Ok(());
    }
    let mut bytes = progress.identity()?.into_bytes();
    bytes.extend(data.len().to_le_bytes());
    let values = learner.model().parameters().into_iter().flat_map(|(_, values)| values);
    bytes.extend(values.flat_map(f32::to_le_bytes));
    learner.nodes().map_or(Ok(()), |nodes| nodes.check_same(&bytes))
}

/// Loads the autoencoder that decodes the samples of grids, if --vae is given.
///
/// # Errors
///
/// If it cannot be loaded, or does not fit the model or the data.
fn decoder(
    args: &VaeArgs,
    config: &TrainConfig,
    data: &Dataset,
    device: &Device,
) -> anyhow::Result<Option<Vae>> {
    let Some(autoencoder) = Autoencoder::from_args(args, device)? else { return Ok(None) };
    autoencoder.check_fits(&config.model)?;
    let Autoencoder { vae, sha256 } = autoencoder;
    if let Some(origin) = data.latents_of() {
        let (found, known) = (vae.config.scale, origin.vae.scale);
        ensure!(
            found == known,
            "{}: the latents have scale {known}, but the autoencoder of --vae has scale {found}",
            config.data.display()
        );
        ensure!(
            sha256 == origin.vae_sha256,
            "{}: the latents are of the autoencoder with SHA-256 {}, not of that of --vae ({sha256})",
            config.data.display(),
            origin.vae_sha256
        );
    }
    Ok(Some(vae))
}
