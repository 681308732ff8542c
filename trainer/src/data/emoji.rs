//! The embedded dataset: Noto emoji at 32x32 on white, a zip in EDM's layout.
//! `cargo xtask emoji` makes it.

use std::path::Path;

use super::source::Format;
use super::zip_file;
use crate::config::EMBEDDED_DATA;
use crate::files::at::Bytes;

/// The archive. Its licence is in the same folder.
const ARCHIVE: &[u8] = include_bytes!("../../data/emoji-32.zip");

/// The embedded dataset, which has a name instead of a path.
pub const FORMAT: Format = Format {
    what: "`emoji`, which is embedded",
    open: |candidate| {
        let path = Path::new(EMBEDDED_DATA);
        (candidate.path == path).then(|| zip_file::open(path, Bytes::Memory(ARCHIVE)))
    },
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::config::EMBEDDED_DATA;
    use crate::data::item::{Classes, Index};

    #[test]
    fn every_embedded_image_can_be_used() {
        let emoji =
            crate::data::source::open(EMBEDDED_DATA.as_ref(), false).expect("the archive is whole");
        let Index { images, classes: Classes { names, groups }, .. } = emoji.index();
        assert_eq!(images.len(), 1911);
        assert_eq!((names.len(), groups.len()), (1911, 10));
        // Each class is in one group and has one image.
        let mut grouped: Vec<usize> =
            groups.iter().flat_map(|group| group.classes.clone()).collect();
        grouped.sort_unstable();
        assert_eq!(grouped, (0..1911).collect::<Vec<_>>());
        let pictured: BTreeSet<_> = images.iter().map(|image| image.class).collect();
        assert_eq!(pictured.len(), 1911);
        // Every class can be selected by its name.
        for (class, name) in names.iter().enumerate() {
            assert_eq!(model::classes::find_all(names, name), Ok(vec![class.into()]), "{name}");
        }
        for name in ["otter", "pizza", "rocket", "red heart", "France Flag"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        for (i, listed) in images.iter().enumerate() {
            let image = emoji.image(i).unwrap_or_else(|e| panic!("{}: {e}", listed.name));
            assert_eq!((image.width, image.height), (32, 32));
            assert!(listed.class.is_some());
            assert_eq!(emoji.size(i), Ok([32, 32]));
        }
    }
}
