//! `trainer sample`: generates images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::println;
use anyhow::{Context, bail, ensure};
use model::classes::list;
use model::generate::Settings;
use model::picture::{Origin, Rgb};

use crate::args::{SampleArgs, Shard, seeds};
use crate::run::report::print_message;
use crate::run::signals::StopSignal;
use crate::samples::captions;
use crate::samples::generate::{images, save};
use crate::samples::labels::Labels;
use crate::samples::progress::Meter;
use crate::samples::record::{Record, seeds_text};
use crate::samples::stream::{Form, Generator, Job, Outcome, check_unique};
use crate::weights::autoencoder::Autoencoder;
use crate::weights::load::load;

/// Runs the command.
///
/// # Errors
///
/// If the flags are invalid, the weights cannot be loaded, or a file cannot be written.
pub fn run(args: SampleArgs) -> anyhow::Result<ExitCode> {
    let form = Form::of(&args.output, args.separate);
    check_flags(&args, form)?;
    let all_settings = args.settings()?;
    let seeds = seeds(&args.seeds)?;
    let mut source = Source::load(&args)?;
    let labels = Labels::from_args(&args.guidance, &source.class_names)?;
    let all_settings = match &source.recommended {
        Some(settings) if args.recommended => {
            // Guidance towards no class has no effect.
            let guidance = settings.guidance.filter(|_| args.guidance.classes.is_some());
            vec![Settings { guidance, ..settings.clone() }]
        }
        None if args.recommended => bail!(
            "--recommended: the card of {} recommends no sampling settings; leave the flag out",
            source.model
        ),
        _ => all_settings,
    };
    let validated = |mut settings: Settings| {
        let config = &source.generators[0].model.config;
        settings.use_process_of(config);
        settings.classes = labels.examples();
        settings.validate()?;
        settings.validate_for(config)?;
        anyhow::Ok(settings)
    };
    let all_settings =
        all_settings.into_iter().map(validated).collect::<anyhow::Result<Vec<_>>>()?;
    let several = all_settings.len() > 1;
    let outputs = all_settings.into_iter().map(|settings| {
        let output = match settings.guidance {
            Some(guidance) if several => with_scale(&args.output, guidance.scale),
            _ => args.output.clone(),
        };
        (settings, output)
    });
    let Some(form) = form else {
        source.generators.truncate(1);
        return grids(&args, &source, &labels, outputs.collect(), &seeds);
    };
    check_unique(&seeds)?;
    let stop = StopSignal::listen().context("cannot handle signals")?;
    for (settings, output) in outputs {
        let job = source.job(&args, form, &output, &labels, settings, &seeds);
        let outcome = job.run(&source.generators, &stop)?;
        if let Some(code) = describe(&outcome, &output, seeds.len(), args.shard) {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks flags that are for one form of the output only.
fn check_flags(args: &SampleArgs, form: Option<Form>) -> anyhow::Result<()> {
    let output = args.output.display();
    if form.is_some() {
        ensure!(
            !args.labels && args.columns.is_none(),
            "--labels and --columns are for grids, but --output {output} is not one"
        );
    } else {
        for (given, flag) in [
            (args.shard.is_some(), "--shard"),
            (args.subdirs, "--subdirs"),
            (args.devices > 1, "--devices"),
        ] {
            ensure!(
                !given,
                "{flag} is not for grids, as --output {output}: use --separate for a folder, or a name \
                 that ends in .zip or .npz"
            );
        }
    }
    Ok(())
}

/// The model, its origin, and the autoencoder.
struct Source {
    /// One per device.
    generators: Vec<Generator>,
    /// Name of the model.
    model: String,
    weights_sha256: String,
    vae_sha256: Option<String>,
    /// Names of the classes.
    class_names: Vec<String>,
    /// Sampling settings that the model card recommends.
    recommended: Option<Settings>,
}

impl Source {
    fn load(args: &SampleArgs) -> anyhow::Result<Self> {
        let devices = args.device.device.open_all(args.devices.into())?;
        let mut source = Self {
            generators: Vec::new(),
            model: String::new(),
            weights_sha256: String::new(),
            vae_sha256: None,
            class_names: Vec::new(),
            recommended: None,
        };
        for device in devices {
            let loaded = load(args.weights.as_deref(), &device)?;
            let config = &loaded.model.config;
            let autoencoder = Autoencoder::from_args(&args.vae, &device)?;
            let c = match &autoencoder {
                Some(autoencoder) => {
                    autoencoder.check_fits(config)?;
                    autoencoder.vae.config.image_channels
                }
                None => config.image_shape()[0],
            };
            ensure!(
                c == 1 || c == 3,
                "images of {c} channels cannot be written as PNG: for a latent model, give its \
                 autoencoder with --vae (diffusion_pytorch_model.safetensors of \
                 stabilityai/sd-vae-ft-ema)"
            );
            source.class_names = loaded.card.class_names(config.classes());
            source.recommended = loaded.card.sampling_for(config).cloned();
            source.model = loaded.card.name;
            source.weights_sha256 = loaded.sha256;
            let (vae, sha256) = autoencoder.map(|a| (a.vae, a.sha256)).unzip();
            source.vae_sha256 = sha256;
            source.generators.push(Generator { model: loaded.model, vae, device });
        }
        Ok(source)
    }

    /// Returns the generation of many pictures with these settings.
    fn job<'a>(
        &'a self,
        args: &SampleArgs,
        form: Form,
        output: &'a Path,
        labels: &'a Labels,
        mut settings: Settings,
        seeds: &'a [u64],
    ) -> Job<'a> {
        settings.classes = labels.listed();
        let record = Record {
            version: Record::VERSION,
            model: self.model.clone(),
            weights_sha256: self.weights_sha256.clone(),
            vae_sha256: self.vae_sha256.clone(),
            settings,
            random_classes: labels.random_classes(),
            batch: args.batch,
            subfolders: args.subdirs,
            seeds: matches!(form, Form::File(_)).then(|| seeds_text(seeds)),
        };
        let shard = args.shard.unwrap_or(Shard { number: 1, count: 1 });
        Job { form, output, record, labels, class_names: &self.class_names, seeds, shard }
    }
}

/// Writes a grid for each of the settings.
fn grids(
    args: &SampleArgs,
    source: &Source,
    labels: &Labels,
    outputs: Vec<(Settings, PathBuf)>,
    seeds: &[u64],
) -> anyhow::Result<ExitCode> {
    let Generator { model, vae, device } = &source.generators[0];
    let classes = labels.listed_for(seeds).context(
        "--classes random: these seeds are too far apart for a grid; use --separate, or seeds in a row",
    )?;
    for (mut settings, output) in outputs {
        settings.classes.clone_from(&classes);
        let meter = Meter::new(seeds.len(), settings.method.evaluations(settings.steps));
        let batch = args.batch as usize;
        let evaluated = |n| meter.evaluated(n);
        let images = images(model, vae.as_ref(), &settings, seeds, batch, device, evaluated);
        meter.clear();
        let images = images?;
        let grid = grid(args, &images, &settings, seeds, &source.class_names);
        let origin = Origin {
            model: source.model.clone(),
            weights_sha256: source.weights_sha256.clone(),
            vae_sha256: source.vae_sha256.clone(),
            seeds: seeds.to_vec(),
            settings,
            page: None,
        };
        save(&grid, &output, Some(&origin))?;
        println!("{} images of seeds {} in {}", images.len(), seeds_text(seeds), output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a grid of all images, with the classes below if --labels is given.
fn grid(
    args: &SampleArgs,
    images: &[Rgb],
    settings: &Settings,
    seeds: &[u64],
    names: &[String],
) -> Rgb {
    let columns = args.columns.map_or_else(|| Rgb::square(images.len()), |c| c as usize);
    if !args.labels {
        return Rgb::grid(images, columns);
    }
    let labels = settings.labels_of(seeds);
    let captions: Vec<String> = labels.into_iter().map(|label| list(names, &[label])).collect();
    captions::grid(images, &captions, columns)
}

/// Prints how the generation of many pictures ended. Returns the exit code if a signal stopped it.
fn describe(
    outcome: &Outcome,
    output: &Path,
    count: usize,
    shard: Option<Shard>,
) -> Option<ExitCode> {
    let output = output.display();
    let part = shard.map_or("all images".into(), |shard| format!("the images of shard {shard}"));
    match outcome {
        Outcome::Complete => println!("{count} images in {output}"),
        Outcome::Unchanged => println!("{count} images are in {output} already"),
        Outcome::Waiting(None) => {
            println!("{part} are done; a process that is still at work completes {output}");
        }
        Outcome::Waiting(Some(missing)) => println!(
            "{part} are done; {missing} of {count} are missing: the last shard completes {output}, and \
             so does this command without --shard"
        ),
        Outcome::Stopped(code, done) => {
            print_message!("stopped after {done} images; the same command continues");
            return Some(*code);
        }
    }
    None
}

/// Adds a guidance scale to a path: `samples.png` becomes `samples-guidance4.4.png`.
fn with_scale(output: &Path, scale: f64) -> PathBuf {
    let mut name = output.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-guidance{scale}"));
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}
