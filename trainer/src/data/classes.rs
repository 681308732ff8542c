//! Classes of folders and archives of images, in the layout of EDM's datasets.
//!
//! Classes come from `dataset.json`, `{"labels": [[name, class], ..]}`, optionally with
//! `"classes": [name, ..]` and `"groups": [[name, [class, ..]], ..]`; or from the names of the
//! top-level folders.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use model::card::ClassGroup;
use serde::Deserialize;

use super::error::DataError;
use super::item::{Classes, Index, Listed, Stored};

/// Name of the file with classes.
pub const FILE: &str = "dataset.json";

/// Maximum number of classes without names.
const MAX_CLASSES: usize = 1_000_000;

/// Content of `dataset.json`.
#[derive(Deserialize)]
struct Labels {
    labels: Option<Vec<(String, u32)>>,
    #[serde(default)]
    classes: Vec<String>,
    #[serde(default)]
    groups: Vec<(String, Vec<usize>)>,
}

/// Returns whether a file is an image, judging by its name.
pub fn is_image(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".png", ".jpg", ".jpeg"].iter().any(|ending| name.ends_with(ending))
}

/// Makes the index of images from their names with what is known of their files, and from the content of
/// `dataset.json`, if there is one.
///
/// # Errors
///
/// If `dataset.json` is invalid.
pub fn index(
    path: &Path,
    files: Vec<(String, Stored)>,
    json: Option<Vec<u8>>,
) -> Result<Index, DataError> {
    let (names, stored): (Vec<String>, Vec<Stored>) = files.into_iter().unzip();
    let (labels, classes) = match json {
        Some(json) => listed(path, &names, &json)?,
        None => folders(&names),
    };
    let images = names.into_iter().zip(stored).enumerate().map(|(i, (name, stored))| Listed {
        name: name.into(),
        class: labels.get(i).copied(),
        problem: None,
        stored,
    });
    Ok(Index { images: images.collect(), classes, note: None })
}

/// Returns the classes that are folders, and those of all images: top-level folders are classes if
/// every image is in one.
fn folders(names: &[String]) -> (Vec<u32>, Classes) {
    let top: Option<Vec<&str>> =
        names.iter().map(|name| name.split_once('/').map(|(top, _)| top)).collect();
    top.map_or_else(Default::default, |top| by_name(&top))
}

/// Returns the numbers of class names, in alphabetical order, and the classes.
pub fn by_name(labels: &[&str]) -> (Vec<u32>, Classes) {
    let mut classes: BTreeMap<&str, u32> = labels.iter().map(|name| (*name, 0)).collect();
    for (number, class) in classes.values_mut().enumerate() {
        *class = number as u32;
    }
    let names: Vec<String> = classes.keys().map(ToString::to_string).collect();
    (labels.iter().map(|name| classes[name]).collect(), names.into())
}

/// Returns classes without names, of which `max` is the last.
///
/// # Errors
///
/// If there are too many.
pub fn by_number(max: Option<u32>) -> Result<Classes, String> {
    let count = max.map_or(0, |max| max as usize + 1);
    if count > MAX_CLASSES {
        return Err(format!("{count} classes, more than the limit of {MAX_CLASSES}"));
    }
    Ok((0..count).map(|class| class.to_string()).collect::<Vec<_>>().into())
}

/// Returns the classes in `dataset.json`.
fn listed(path: &Path, names: &[String], json: &[u8]) -> Result<(Vec<u32>, Classes), DataError> {
    let wrong = |reason: String| DataError::Labels { path: path.to_owned(), reason };
    let Labels { labels, mut classes, groups } =
        serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
    let Some(labels) = labels else { return Ok(Default::default()) };
    if let Some((name, _)) =
        labels.iter().find(|(name, _)| name.split('/').any(|part| part == ".."))
    {
        return Err(DataError::Escape { path: path.to_owned(), name: name.clone() });
    }
    let of_name: HashMap<String, u32> = labels.into_iter().collect();
    let class = |name: &String| {
        of_name.get(name).copied().ok_or_else(|| wrong(format!("no class for {name}")))
    };
    let of_image = names.iter().map(class).collect::<Result<Vec<_>, _>>()?;
    let max = of_name.values().max().copied();
    if classes.is_empty() {
        classes = by_number(max).map_err(wrong)?.names;
    }
    let count = max.map_or(0, |max| max as usize + 1);
    if classes.len() < count {
        return Err(wrong(format!("lists {} class names but has {count} classes", classes.len())));
    }
    if let Some((name, _)) =
        groups.iter().find(|(_, group)| group.iter().any(|class| *class >= classes.len()))
    {
        return Err(wrong(format!("the group {name} contains an unknown class")));
    }
    let groups = groups.into_iter().map(|(name, classes)| ClassGroup { name, classes }).collect();
    Ok((of_image, Classes { names: classes, groups }))
}
