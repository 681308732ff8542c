//! Which of the Parquet files of a folder are read.
//!
//! The files of a dataset of the Hugging Face Hub are named after their split: `train-00000-of-00002`,
//! `data/test-00000-of-00001`, `default/train/0000`. A folder above can be a configuration.

use std::collections::{BTreeMap, BTreeSet};

/// Part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    const ALL: [(Self, &'static str, &'static [&'static str]); 3] = [
        (Self::Train, "train", &["train", "training"]),
        (Self::Validation, "validation", &["validation", "valid", "val", "dev"]),
        (Self::Test, "test", &["test", "testing", "eval", "evaluation"]),
    ];

    /// Returns the split of a file or folder of this name, without its ending.
    fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let words = || name.split(|c: char| !c.is_ascii_alphabetic());
        let found =
            Self::ALL.iter().find(|(_, _, known)| words().any(|word| known.contains(&word)));
        found.map(|(split, ..)| *split)
    }

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Files that are read.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Their names.
    pub names: Vec<String>,
    /// What is read and what is not, if there is a choice.
    pub note: Option<String>,
}

/// Chooses among the names of Parquet files within a folder, with `/` between folders: those of the split
/// `train`, or all if no name tells a split.
///
/// # Errors
///
/// If there are several configurations, several splits without `train`, or files are missing by their
/// names.
pub fn choose(mut names: Vec<String>) -> Result<Chosen, String> {
    names.sort();
    let mut splits: BTreeMap<Option<Split>, Vec<String>> = BTreeMap::new();
    for name in names {
        // The name of the file, then those of the folders from the innermost on.
        let split = name.trim_end_matches(".parquet").rsplit('/').find_map(Split::of);
        splits.entry(split).or_default().push(name);
    }
    let train = splits.remove(&Some(Split::Train));
    let chosen = match (train, splits.len()) {
        (Some(train), _) => train,
        (None, 1) => splits.pop_first().map(|(_, names)| names).unwrap_or_default(),
        (None, _) => {
            let found = splits.keys().map(|split| split.map_or("others", Split::name));
            return Err(format!(
                "no files of the split `train`, but {}: give one file, or a folder with the files of one \
                 split",
                found.collect::<Vec<_>>().join(", ")
            ));
        }
    };
    let configurations: BTreeSet<String> = chosen.iter().map(|name| configuration(name)).collect();
    if configurations.len() > 1 {
        let list: Vec<_> = configurations.iter().map(|name| format!("`{name}`")).collect();
        return Err(format!(
            "Parquet files of several configurations in {}: give the folder of one",
            list.join(", ")
        ));
    }
    check_complete(&chosen)?;
    let left: usize = splits.values().map(Vec::len).sum();
    let note = (left > 0).then(|| {
        let found = splits.keys().map(|split| split.map_or("others", Split::name));
        let files = if left == 1 { "file" } else { "files" };
        format!(
            "the split `train`; {left} {files} of {} left out",
            found.collect::<Vec<_>>().join(", ")
        )
    });
    Ok(Chosen { names: chosen, note })
}

/// Returns the folders above a file that are not named after a split.
fn configuration(name: &str) -> String {
    let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders);
    let others = folders.split('/').filter(|folder| Split::of(folder).is_none());
    format!("{}/", others.collect::<Vec<_>>().join("/"))
}

/// Returns the number of a file and the number of all, if its name ends with `-00003-of-00008`.
fn number(name: &str) -> Option<(usize, usize)> {
    let (rest, count) = name.strip_suffix(".parquet")?.rsplit_once("-of-")?;
    let number = rest.rsplit_once('-')?.1;
    Some((number.parse().ok()?, count.parse().ok()?))
}

/// Checks that no file is missing, as far as the names tell.
fn check_complete(names: &[String]) -> Result<(), String> {
    let numbers: Option<Vec<(usize, usize)>> = names.iter().map(|name| number(name)).collect();
    let Some(numbers) = numbers else { return Ok(()) };
    let count = numbers.first().map_or(0, |(_, count)| *count);
    let there: BTreeSet<usize> = numbers.iter().map(|(number, _)| *number).collect();
    if numbers.iter().any(|(_, other)| *other != count) || there.len() != numbers.len() {
        return Err("the files, by their names, are not those of one dataset".into());
    }
    let mut missing = (0..count).filter(|number| !there.contains(number)).peekable();
    if missing.peek().is_none() {
        return Ok(());
    }
    let list: Vec<_> = missing.by_ref().take(5).map(|number| format!("{number:05}")).collect();
    let more = if missing.next().is_some() { ", .." } else { "" };
    Err(format!(
        "{} of the {count} files are missing, by their names ({}{more})",
        count.saturating_sub(there.len()),
        list.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<(Vec<String>, Option<String>), String> {
        let names = names.iter().map(ToString::to_string).collect();
        choose(names).map(|chosen| (chosen.names, chosen.note))
    }

    #[test]
    fn the_split_train_is_read() {
        for (names, want, note) in [
            (
                &["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"][..],
                &["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"][..],
                None,
            ),
            (
                &[
                    "plain_text/test-00000-of-00001.parquet",
                    "plain_text/train-00000-of-00001.parquet",
                ],
                &["plain_text/train-00000-of-00001.parquet"],
                Some("the split `train`; 1 file of test left out"),
            ),
            (
                &[
                    "default/train/0001.parquet",
                    "default/train/0000.parquet",
                    "default/test/0.parquet",
                ],
                &["default/train/0000.parquet", "default/train/0001.parquet"],
                Some("the split `train`; 1 file of test left out"),
            ),
            (
                &["a-dev.parquet", "TRAINING_1.parquet", "more.parquet", "test.parquet"],
                &["TRAINING_1.parquet"],
                Some("the split `train`; 3 files of others, validation, test left out"),
            ),
            // No split, and only one.
            (&["b.parquet", "a.parquet"], &["a.parquet", "b.parquet"], None),
            (&["x/test-1.parquet"], &["x/test-1.parquet"], None),
            // Not a word of its own.
            (&["trains.parquet", "latest.parquet"], &["latest.parquet", "trains.parquet"], None),
        ] {
            let want = (want.iter().map(ToString::to_string).collect(), note.map(String::from));
            assert_eq!(chosen(names), Ok(want), "{names:?}");
        }
    }

    #[test]
    fn what_is_not_one_dataset_is_refused() {
        for (names, message) in [
            (
                &["test.parquet", "dev.parquet"][..],
                "no files of the split `train`, but validation, test",
            ),
            (&["a/train.parquet", "b/train.parquet"], "several configurations in `a/`, `b/`"),
            (&["a/x.parquet", "y.parquet"], "several configurations in `/`, `a/`"),
            (
                &["train-00002-of-00004.parquet", "train-00000-of-00004.parquet"],
                "2 of the 4 files are missing, by their names (00001, 00003)",
            ),
            (
                &["train-00000-of-00002.parquet", "train-00001-of-00003.parquet"],
                "not those of one dataset",
            ),
        ] {
            let error = chosen(names).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
        // A number of files that nobody has.
        let error = chosen(&["x-1-of-99999999999.parquet"]).expect_err("missing");
        assert!(error.contains("(00000, 00002, 00003, 00004, 00005, ..)"), "{error}");
    }
}
