//! Folders and zip archives of PNG and JPEG files, in the layout of EDM's datasets.
//!
//! Classes come from `dataset.json`, `{"labels": [[name, class], ..]}`, optionally with
//! `"classes": [name, ..]` and `"groups": [[name, [class, ..]], ..]`; or from the names of the
//! top-level folders.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek};
use std::path::Path;

use model::card::ClassGroup;
use rayon::prelude::*;
use serde::Deserialize;
use zip::ZipArchive;

use super::decode::DecodedImage;
use super::error::DataError;
use super::item::{Classes, Item, Visitor};

/// Maximum size of an image file in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Number of files that are decoded in parallel, and so the number of images in memory.
const CHUNK: usize = 256;

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
fn is_image(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".png", ".jpg", ".jpeg"].iter().any(|ending| name.ends_with(ending))
}

/// Reads all images below a folder.
pub fn visit_folder(root: &Path, visitor: &mut Visitor) -> Result<Classes, DataError> {
    let mut names = Vec::new();
    let mut unreadable = Vec::new();
    for entry in walkdir::WalkDir::new(root).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() => {
                let path = entry.path().strip_prefix(root).expect("it lies below the root");
                match path.to_str() {
                    Some(name) if is_image(name) => names.push(name.replace('\\', "/")),
                    Some(_) => {}
                    None => unreadable.push((
                        path.to_string_lossy().into_owned(),
                        "the file name is not valid Unicode".to_string(),
                    )),
                }
            }
            Ok(_) => {}
            Err(error) => {
                let name = error.path().unwrap_or(root).to_string_lossy().into_owned();
                let reason = match error.loop_ancestor() {
                    Some(above) => format!("a symbolic link loop to {}", above.display()),
                    None => error.to_string(),
                };
                unreadable.push((name, reason));
            }
        }
    }
    let json = match std::fs::read(root.join("dataset.json")) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(DataError::io(&root.join("dataset.json"), error)),
    };
    let read = |name: &str| {
        let path = root.join(name);
        let size = std::fs::metadata(&path).map_err(|e| e.to_string())?.len();
        if size > MAX_FILE {
            return Err(format!("{size} bytes, more than the limit of {MAX_FILE}"));
        }
        std::fs::read(path).map_err(|e| e.to_string())
    };
    for (name, reason) in unreadable {
        if visitor(Item { name, image: Err(reason), class: None }).is_break() {
            return Ok(Classes::default());
        }
    }
    visit(root, names, json, read, visitor)
}

/// Reads all images of a zip archive.
pub fn visit_zip(
    path: &Path,
    file: impl Read + Seek,
    visitor: &mut Visitor,
) -> Result<Classes, DataError> {
    let mut zip = ZipArchive::new(file).map_err(|e| DataError::archive(path, e))?;
    let mut names = Vec::new();
    let mut json = None;
    for i in 0..zip.len() {
        let entry = zip.by_index_raw(i).map_err(|e| DataError::archive(path, e))?;
        let name = match entry.name() {
            Ok(name) => name.into_owned(),
            Err(error) => return Err(DataError::archive(path, error)),
        };
        if entry.enclosed_name().is_none() || name.split(['/', '\\']).any(|part| part == "..") {
            return Err(DataError::Escape { path: path.to_owned(), name });
        }
        if name == "dataset.json" {
            json = Some(i);
        } else if entry.is_file() && is_image(&name) {
            names.push((name, i));
        }
    }
    names.sort();
    let json = match json {
        Some(i) => Some(
            read_entry(&mut zip, i)
                .map_err(|reason| DataError::Labels { path: path.to_owned(), reason })?,
        ),
        None => None,
    };
    let index: HashMap<String, usize> = names.iter().cloned().collect();
    let names = names.into_iter().map(|(name, _)| name).collect();
    visit(path, names, json, |name| read_entry(&mut zip, index[name]), visitor)
}

/// Reads an entry of at most [`MAX_FILE`] bytes, whatever size it claims.
fn read_entry(zip: &mut ZipArchive<impl Read + Seek>, index: usize) -> Result<Vec<u8>, String> {
    let entry = zip.by_index(index).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    entry.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| format!("damaged ({e})"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("decompresses to more than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

/// Reads and decodes images by name and finds their classes.
fn visit(
    path: &Path,
    names: Vec<String>,
    json: Option<Vec<u8>>,
    mut read: impl FnMut(&str) -> Result<Vec<u8>, String>,
    visitor: &mut Visitor,
) -> Result<Classes, DataError> {
    let (of_name, classes) = classes(path, &names, json)?;
    for chunk in names.chunks(CHUNK) {
        let files: Vec<_> = chunk.iter().map(|name| (name.clone(), read(name))).collect();
        let items = files.into_par_iter().map(|(name, bytes)| Item {
            class: of_name.get(&name).copied(),
            image: bytes.and_then(|bytes| DecodedImage::decode(&bytes)),
            name,
        });
        if items.collect::<Vec<_>>().into_iter().try_for_each(&mut *visitor).is_break() {
            break;
        }
    }
    Ok(classes)
}

/// Returns the class of every image by name, and the classes.
fn classes(
    path: &Path,
    names: &[String],
    json: Option<Vec<u8>>,
) -> Result<(HashMap<String, u32>, Classes), DataError> {
    let wrong = |reason: String| DataError::Labels { path: path.to_owned(), reason };
    let Some(json) = json else {
        // Top-level folders are classes if every image is in one.
        let top: Option<Vec<&str>> =
            names.iter().map(|name| name.split_once('/').map(|(top, _)| top)).collect();
        let Some(top) = top.filter(|top| !top.is_empty()) else { return Ok(Default::default()) };
        let mut classes: BTreeMap<&str, u32> = top.iter().map(|top| (*top, 0)).collect();
        for (number, class) in classes.values_mut().enumerate() {
            *class = number as u32;
        }
        let of_name = names.iter().cloned().zip(top.iter().map(|top| classes[top])).collect();
        let names: Vec<String> = classes.keys().map(ToString::to_string).collect();
        return Ok((of_name, names.into()));
    };
    let Labels { labels, mut classes, groups } =
        serde_json::from_slice(&json).map_err(|e| wrong(e.to_string()))?;
    let Some(labels) = labels else { return Ok(Default::default()) };
    if let Some((name, _)) =
        labels.iter().find(|(name, _)| name.split('/').any(|part| part == ".."))
    {
        return Err(DataError::Escape { path: path.to_owned(), name: name.clone() });
    }
    let of_name: HashMap<String, u32> = labels.into_iter().collect();
    if let Some(name) = names.iter().find(|name| !of_name.contains_key(*name)) {
        return Err(wrong(format!("no class for {name}")));
    }
    let count = of_name.values().max().map_or(0, |max| *max as usize + 1);
    if classes.is_empty() {
        if count > 1_000_000 {
            return Err(wrong(format!("{count} classes, more than the limit of 1000000")));
        }
        classes = (0..count).map(|class| class.to_string()).collect();
    }
    if classes.len() < count {
        return Err(wrong(format!("lists {} class names but has {count} classes", classes.len())));
    }
    if let Some((name, _)) =
        groups.iter().find(|(_, group)| group.iter().any(|class| *class >= classes.len()))
    {
        return Err(wrong(format!("the group {name} contains an unknown class")));
    }
    let groups = groups.into_iter().map(|(name, classes)| ClassGroup { name, classes }).collect();
    Ok((of_name, Classes { names: classes, groups }))
}
