//! Files of the trainer, damaged in thousands of ways, and those of `tests/corpus`: each leads to an error
//! or to valid content, not to a panic, and takes memory in proportion to its size.
//!
//! The formats that other programs read too are in `tests/mutations.rs`.

use std::path::Path;

use image::ImageFormat;
use tests::mutate::{Reader, mutated, read_all};

use crate::formats::{self, picture, read_images, tar};
use crate::run::checkpoint::Checkpoint;

const MB: usize = 1_000_000;

/// Reads files as [`read_all`] does, with one thread.
fn check(
    format: &str,
    valid: &[Vec<u8>],
    count: u64,
    (times, more): (usize, usize),
    read: fn(&[u8], &Path) -> Result<(), String>,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x");
    let read = |bytes: &[u8]| read(bytes, &path);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    // What would be done on several threads is done on the one that is measured.
    let measure = |call: &mut dyn FnMut()| allocation_counter::measure(call).bytes_max;
    pool.install(|| read_all(format, valid, count, Reader { read, measure, times, more }));
}

/// Inflated, a file can be a thousand times as large, and so large that it is refused.
#[test]
fn zips_of_images() {
    check("zip", &formats::zips(), 2_000, (16, MB), read_images);
}

#[test]
fn tars_of_images() {
    check("tar", &formats::tars(), 2_000, (16, MB), read_images);
}

/// The size of a JPEG file is not protected by a checksum: a small file can claim to be the largest
/// image that is read, which takes at most 1 GiB.
#[test]
fn large_images_take_no_more_than_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.tar");
    let jpeg = picture(16, ImageFormat::Jpeg);
    check("tar", &[tar(&[("1.jpg", &jpeg)])], 1_000, (16, 1 << 30), read_images);
    // Marker, length, bits, height, width.
    let frame = jpeg.windows(3).position(|bytes| bytes == [0xff, 0xc0, 0]).expect("a frame");
    for side in [8_192u16, 8_193, u16::MAX] {
        let mut large = jpeg.clone();
        for at in [5, 7] {
            large[frame + at..][..2].copy_from_slice(&side.to_be_bytes());
        }
        let used = allocation_counter::measure(|| {
            let read = read_images(&tar(&[("1.jpg", &large)]), &path);
            assert!(read.is_err() || side == 8_192, "{side} pixels are too many");
        });
        assert!(used.bytes_max <= 1 << 30, "{side}: {} bytes", used.bytes_max);
    }
}

#[test]
fn archives_of_cifar() {
    check("cifar", &formats::cifar(), 1_000, (16, MB), formats::read_cifar);
}

#[test]
fn parquet_files() {
    check("parquet", &formats::parquets(), 3_000, (64, MB), read_images);
}

#[test]
fn latent_datasets() {
    check("latents", &formats::latent_datasets(), 3_000, (16, MB), formats::read_latents);
}

#[test]
fn checkpoints() {
    let valid = formats::checkpoints();
    let whole = formats::whole_checkpoint(&valid[0]);
    for number in 0..500 {
        let file = mutated(std::slice::from_ref(&whole), number);
        assert!(file == whole || Checkpoint::parse(&file).is_err(), "file {number}");
    }
    check("checkpoint", &valid, 1_500, (8, 2 * MB), formats::read_checkpoint);
}

#[test]
fn options_launch_settings_and_plans() {
    check("options", &formats::options(), 4_500, (64, MB), formats::read_options);
    check("launch", &formats::launches(), 3_000, (64, MB), formats::read_launch);
    check("plan", &formats::plans(), 3_000, (64, MB), formats::read_plan);
}

#[cfg(feature = "hub")]
#[test]
fn links_to_the_hub_and_lists_of_files() {
    check("hub", &formats::hubs(), 3_000, (64, MB), formats::read_hub);
}
