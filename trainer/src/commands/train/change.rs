//! The change between the first and the last grid of a run.

use std::path::{Path, PathBuf};

use anyhow::Context;
use model::picture::Rgb;

use super::grid;
use crate::files::atomic::write;
use crate::run::folder::RunFolder;
use crate::run::history::History;
use crate::run::progress::Progress;
use crate::samples::captions;

/// Name of the picture of both grids.
const FILE: &str = "first-and-last.png";

/// The difference of two grids.
pub struct Change {
    /// Picture of the first and the last grid, side by side.
    pub path: PathBuf,
    /// Description in one sentence.
    pub sentence: String,
}

/// Compares the first and the last grid of a run, of `samples` images each, and writes both side by
/// side. Returns `None` if there are no two grids of the same size.
///
/// # Errors
///
/// If a grid cannot be read, or the picture cannot be written.
pub fn between_grids(
    folder: &RunFolder,
    progress: &Progress,
    samples: usize,
) -> anyhow::Result<Option<Change>> {
    let grids = folder.grids();
    let [(first_images, first), .., (last_images, last)] = &grids[..] else { return Ok(None) };
    let (first, last) = (read(first)?, read(last)?);
    if (first.width, first.height) != (last.width, last.height) || samples == 0 {
        return Ok(None);
    }
    let path = folder.path().join(FILE);
    let names = [first_images, last_images].map(|images| format!("after {images} images"));
    let png = captions::grid(&[first.clone(), last.clone()], &names, 2).to_png(None)?;
    write(&path, &png).with_context(|| format!("cannot write {}", path.display()))?;
    let classes = progress.config.model.classes();
    let captions = grid::captions(&progress.classes, classes, samples);
    let differences = differences(&first, &last, samples, captions.is_some());
    let history = History::read(folder)?;
    let losses: Vec<f64> = history.get("loss").iter().map(|(_, loss)| *loss).collect();
    let sentence = format!(
        "From the first grid to the last, {}{}.",
        describe(&differences, captions.as_deref()),
        course(&losses)
    );
    Ok(Some(Change { path, sentence }))
}

fn read(path: &Path) -> anyhow::Result<Rgb> {
    let image = image::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let image = image.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Rgb { width, height, bytes: image.into_raw() })
}

/// Returns the mean absolute difference of each of `n` images of two grids of the same size, in levels
/// of 255. Captions, which are equal, do not count.
fn differences(first: &Rgb, last: &Rgb, n: usize, has_captions: bool) -> Vec<f64> {
    let columns = Rgb::square(n).clamp(1, n);
    let cell = [first.width / columns, first.height / n.div_ceil(columns)];
    let [width, height] = if has_captions { captions::image_size(cell) } else { cell };
    let of_image = |i: usize| {
        let corner = 3 * (i / columns * cell[1] * first.width + i % columns * cell[0]);
        let line =
            |y: usize| corner + 3 * y * first.width..corner + 3 * (y * first.width + cell[0]);
        let pairs =
            (0..cell[1]).flat_map(|y| first.bytes[line(y)].iter().zip(&last.bytes[line(y)]));
        let sum: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        sum / (3 * width * height).max(1) as f64
    };
    (0..n).map(of_image).collect()
}

/// Describes the differences of the images.
fn describe(differences: &[f64], captions: Option<&[String]>) -> String {
    let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
    if mean == 0.0 {
        return "no picture changed".into();
    }
    let order = |a: &usize, b: &usize| differences[*a].total_cmp(&differences[*b]);
    let all = 0..differences.len();
    let extremes = all.clone().max_by(order).zip(all.min_by(order));
    let name = |i: usize| match captions {
        Some(captions) => format!("\"{}\"", captions[i]),
        None => format!("picture {}", i + 1),
    };
    let which = match extremes {
        Some((most, least)) if name(most) != name(least) => {
            format!(", {} most and {} least", name(most), name(least))
        }
        _ => String::new(),
    };
    format!("pixels changed by {mean:.1} of 255 levels on average{which}")
}

/// Describes the course of the training loss, if there are two values.
fn course(losses: &[f64]) -> String {
    match losses {
        [first, .., last] if first.is_finite() && last.is_finite() => {
            let verb = if last < first { "fell" } else { "rose" };
            format!(", while the training loss {verb} from {first:.4} to {last:.4}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;

    fn even(value: u8) -> Rgb {
        Rgb { width: 32, height: 32, bytes: vec![value; 3 * 32 * 32] }
    }

    #[test]
    fn each_image_is_compared_without_its_caption() {
        let names: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let (first, last) = ([even(10), even(20), even(30)], [even(15), even(20), even(0)]);
        let columns = Rgb::square(3);
        let plain = [&first, &last].map(|images| Rgb::grid(images, columns));
        assert_eq!(differences(&plain[0], &plain[1], 3, false), [5.0, 0.0, 30.0]);
        let named = [&first, &last].map(|images| captions::grid(images, &names, columns));
        let found = differences(&named[0], &named[1], 3, true);
        assert_eq!(found, [5.0, 0.0, 30.0]);
        let said = describe(&found, Some(&names));
        assert_eq!(
            said,
            "pixels changed by 11.7 of 255 levels on average, \"c\" most and \"b\" least"
        );
        assert!(describe(&found, None).contains("picture 3 most and picture 2 least"));
        assert_eq!(describe(&[0.0, 0.0], None), "no picture changed");
        assert_eq!(describe(&[2.0], None), "pixels changed by 2.0 of 255 levels on average");
    }

    #[test]
    fn the_loss_is_described() {
        assert!(course(&[0.5, 0.9, 0.25]).ends_with("fell from 0.5000 to 0.2500"));
        assert!(course(&[0.25, 0.5]).ends_with("rose from 0.2500 to 0.5000"));
        assert_eq!([course(&[]), course(&[0.5]), course(&[0.5, f64::NAN])], ["", "", ""]);
    }

    #[test]
    fn both_grids_are_written_side_by_side() {
        let out = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(out.path(), "x").expect("made");
        let config = TrainConfig::preset("tiny").expect("a preset");
        let progress = Progress::new(config, String::new());
        let save = |images, value| {
            let png = Rgb::grid(&[even(value), even(value)], 2).to_png(None).expect("small");
            std::fs::write(run.grid(images), png).expect("written");
        };
        save(0, 10);
        assert!(between_grids(&run, &progress, 2).expect("readable").is_none());
        save(100, 200);
        save(300, 40);
        std::fs::write(run.path().join("stats.jsonl"), "{\"images\":100,\"loss\":0.5}\n")
            .expect("");
        let change = between_grids(&run, &progress, 2).expect("readable").expect("two grids");
        let want =
            "From the first grid to the last, pixels changed by 30.0 of 255 levels on average";
        assert!(change.sentence.starts_with(want), "{}", change.sentence);
        let both = read(&change.path).expect("a picture");
        // The first grid is on the left, the last on the right: grids of 64 pixels are enlarged twice.
        let pixel = |x: usize, y: usize| both.bytes[3 * (y * both.width + x)];
        assert_eq!([pixel(20, 20), pixel(both.width / 2 + 20, 20)], [10, 40]);
        // A grid of another size.
        let png = even(9).to_png(None).expect("small");
        std::fs::write(run.grid(400), png).expect("written");
        assert!(between_grids(&run, &progress, 2).expect("readable").is_none());
    }
}
