//! Reading datasets of any format.

use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use super::decode::DecodedImage;
use super::error::DataError;
use super::item::{Classes, Contents, Item, Visitor};
use super::latents::Latents;
use super::{archive, cifar, emoji};
use crate::config::EMBEDDED_DATA;

/// Reads all images of a dataset.
///
/// # Errors
///
/// As [`visit`].
pub fn read(path: &Path) -> Result<Contents, DataError> {
    let mut items = Vec::new();
    let classes = visit(path, &mut |item| {
        items.push(item);
        ControlFlow::Continue(())
    })?;
    Ok(Contents { items, classes })
}

/// Reads a dataset of images image by image, in the order of training, and returns the classes.
///
/// # Errors
///
/// If the dataset as a whole cannot be read. Images that cannot be used are passed to `visitor`
/// with the reason.
pub fn visit(path: &Path, visitor: &mut Visitor) -> Result<Classes, DataError> {
    if path == Path::new(EMBEDDED_DATA) {
        return emoji::visit(visitor);
    }
    let metadata = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
    if metadata.is_dir() {
        return archive::visit_folder(path, visitor);
    }
    let start = first_bytes(path).map_err(|e| DataError::io(path, e))?;
    match start[..] {
        _ if Latents::may_be(&start) => Err(DataError::Latents {
            path: path.to_owned(),
            reason: "expected a dataset of images".into(),
        }),
        [b'P', b'K', ..] => {
            let file = File::open(path).map_err(|e| DataError::io(path, e))?;
            archive::visit_zip(path, BufReader::new(file), visitor)
        }
        [0x1f, 0x8b, ..] => {
            let Contents { items, classes } = cifar::read(path)?;
            let _ = items.into_iter().try_for_each(visitor);
            Ok(classes)
        }
        _ => Err(DataError::Unknown(path.to_owned())),
    }
}

/// Returns whether a path is a latent dataset, judging by its first bytes.
pub fn is_latents(path: &Path) -> bool {
    // Whoever opens an unreadable file reports the error.
    path.is_file() && first_bytes(path).is_ok_and(|start| Latents::may_be(&start))
}

/// Returns the first nine bytes of a file, or fewer, which tell its format.
fn first_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(9).read_to_end(&mut start)?;
    Ok(start)
}

/// Passes every image of a dataset with its class to `take`, and returns the classes. `take`
/// returns the reason if it cannot use an image.
///
/// # Errors
///
/// If there are no images, or some cannot be used.
pub fn read_usable(
    path: &Path,
    mut take: impl FnMut(DecodedImage, Option<u32>) -> Result<(), String>,
) -> Result<Classes, DataError> {
    let (mut total, mut count, mut list) = (0, 0, Vec::new());
    let classes = visit(path, &mut |Item { name, image, class }| {
        total += 1;
        if let Err(reason) = image.and_then(|image| take(image, class)) {
            count += 1;
            if count <= 5 {
                list.push(format!("  {name}: {reason}"));
            }
        }
        ControlFlow::Continue(())
    })?;
    let path = path.to_owned();
    match (total, count) {
        (0, _) => Err(DataError::Empty(path)),
        (_, 0) => Ok(classes),
        _ => Err(DataError::Bad { path, count, total, list: list.join("\n") }),
    }
}
