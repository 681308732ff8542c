//! `trainer ema`: reconstructs a moving average from the snapshots of a run.

use std::collections::HashMap;

use anstream::println;
use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use model::card::Card;
use model::config::ModelConfig;
use model::weights::Weights;
use model::{Model, TensorSpec};

use crate::args::EmaArgs;
use crate::averages::{Profile, Reconstruction, STD_RANGE, reconstruct};
use crate::files::mapped::map;
use crate::run::folder::RunFolder;
use crate::run::report::warn;
use crate::run::snapshots::Snapshot;
use crate::weights::save::save;

/// Residual of the profile above which the average is not what was asked for.
const LARGE_RESIDUAL: f64 = 0.1;

/// Runs the command.
///
/// # Errors
///
/// If the run has no snapshots, they cannot be read, or the file cannot be written.
pub fn run(args: EmaArgs) -> anyhow::Result<()> {
    let output = args.output.display();
    ensure!(
        args.overwrite || !args.output.is_file(),
        "{output} exists; use --overwrite to replace it"
    );
    let profile = Profile::of_std(args.std).with_context(|| {
        format!("--std {} is not within {} to {}", args.std, STD_RANGE.start(), STD_RANGE.end())
    })?;
    let folder = RunFolder::open(&args.run)?;
    let mut snapshots = folder.snapshots()?;
    let at = end(&snapshots, args.at).with_context(|| args.run.display().to_string())?;
    snapshots.retain(|snapshot| snapshot.images <= at);
    let mut stored = Vec::new();
    for Snapshot { images, std, path } in &snapshots {
        let profile = Profile::of_std(*std)
            .with_context(|| format!("{}: no snapshot has this name", path.display()))?;
        stored.push((profile, *images));
    }
    let Reconstruction { weights, residual } = reconstruct(&stored, (profile, at))
        .context("the profiles of these snapshots are not independent")?;
    let sum = sum(&snapshots, &weights)?;
    let card = Card {
        summary: format!(
            "Moving average with a relative standard deviation of {} after {at} images, \
             reconstructed from {} snapshots.",
            args.std,
            snapshots.len()
        ),
        ..sum.card
    };
    let values = |spec: &TensorSpec| sum.values[&spec.name].clone();
    let model = Model::from_values(sum.config, &values, &Device::flex());
    let bytes = save(&args.output, &model, &card, args.precision.into())?;
    println!(
        "{output}: moving average with relative standard deviation {} after {at} images, from {} \
         snapshots, {:.1} MB; its profile is within {:.2} % of that asked for",
        args.std,
        snapshots.len(),
        bytes as f64 / 1e6,
        100.0 * residual
    );
    if residual > LARGE_RESIDUAL {
        warn(
            "the profile differs much from that asked for: these snapshots are too few or their \
             profiles too different; a --std nearer to theirs, a later --at, or a training with a \
             smaller --ema-snapshot-every is more exact",
        );
    }
    Ok(())
}

/// Returns the number of images at which the average ends: `at`, or that of the last snapshot.
///
/// # Errors
///
/// If there is no snapshot, or none ends there.
fn end(snapshots: &[Snapshot], at: Option<u64>) -> anyhow::Result<u64> {
    let Some(last) = snapshots.last() else {
        bail!(
            "this run has no snapshots of moving averages; train with --ema-profiles 0.05,0.1 to \
             have some"
        );
    };
    let Some(at) = at else { return Ok(last.images) };
    let images = || snapshots.iter().map(|snapshot| snapshot.images);
    if images().any(|images| images == at) {
        return Ok(at);
    }
    let nearest = images().min_by_key(|images| images.abs_diff(at)).unwrap_or_default();
    bail!(
        "--at {at}: no snapshot was taken after {at} images; the nearest was after {nearest}, the \
         last after {}",
        last.images
    )
}

/// The combination of snapshots.
struct Sum {
    config: ModelConfig,
    card: Card,
    /// Values by the name of their tensor.
    values: HashMap<String, Vec<f32>>,
}

/// Adds up snapshots with the given weights, in double precision, one file at a time.
///
/// # Errors
///
/// If a file cannot be read, or is not a snapshot of this run.
fn sum(snapshots: &[Snapshot], weights: &[f64]) -> anyhow::Result<Sum> {
    let mut sums: HashMap<String, Vec<f64>> = HashMap::new();
    let mut known: Option<(ModelConfig, Card)> = None;
    for (Snapshot { images, path, .. }, weight) in snapshots.iter().zip(weights) {
        let name = || path.display().to_string();
        let bytes = map(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = Weights::parse(&bytes).with_context(name)?;
        let (config, card) = (file.config(), file.card());
        ensure!(
            card.images_seen == *images,
            "{}: these are weights after {} images, which is not what the name says",
            path.display(),
            card.images_seen
        );
        ensure!(
            known.as_ref().is_none_or(|(known, _)| known == config),
            "{}: of another model than the other snapshots",
            path.display()
        );
        for spec in file.specs() {
            let values = file.values(spec);
            let sum = sums.entry(spec.name.clone()).or_insert_with(|| vec![0.0; values.len()]);
            if spec.buffer {
                // Constants of the network.
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum = value.into());
            } else {
                let add = |(sum, value): (&mut f64, f32)| *sum += weight * f64::from(value);
                sum.iter_mut().zip(values).for_each(add);
            }
        }
        known = Some((config.clone(), card.clone()));
    }
    let (config, card) = known.context("there are no snapshots")?;
    let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    let values = sums.into_iter().map(|(name, values)| (name, single(values))).collect();
    Ok(Sum { config, card, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_ends_at_a_snapshot() {
        let snapshot = |images| Snapshot { images, std: 0.05, path: "x".into() };
        let snapshots = [100, 200, 400].map(snapshot);
        assert_eq!(end(&snapshots, None).expect("the last"), 400);
        assert_eq!(end(&snapshots, Some(200)).expect("there"), 200);
        let error = end(&snapshots, Some(290)).expect_err("none there").to_string();
        assert!(error.contains("the nearest was after 200, the last after 400"), "{error}");
        let error = end(&[], None).expect_err("none").to_string();
        assert!(error.contains("--ema-profiles 0.05,0.1"), "{error}");
    }
}
