//! The embedded dataset: Noto emoji at 32x32 on white, a zip in EDM's layout.
//! `cargo xtask emoji` makes it.

use std::io::Cursor;
use std::path::Path;

use super::archive;
use super::error::DataError;
use super::item::{Classes, Visitor};
use crate::config::EMBEDDED_DATA;

/// The archive. Its licence is in the same folder.
const ARCHIVE: &[u8] = include_bytes!("../../data/emoji-32.zip");

/// Reads the embedded images.
pub fn visit(visitor: &mut Visitor) -> Result<Classes, DataError> {
    archive::visit_zip(Path::new(EMBEDDED_DATA), Cursor::new(ARCHIVE), visitor)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::config::EMBEDDED_DATA;
    use crate::data::item::Classes;

    #[test]
    fn every_embedded_image_can_be_used() {
        let contents =
            crate::data::source::read(EMBEDDED_DATA.as_ref()).expect("the archive is whole");
        assert_eq!(contents.items.len(), 1911);
        let Classes { names, groups } = &contents.classes;
        assert_eq!((names.len(), groups.len()), (1911, 10));
        // Each class is in one group and has one image.
        let mut grouped: Vec<usize> =
            groups.iter().flat_map(|group| group.classes.clone()).collect();
        grouped.sort_unstable();
        assert_eq!(grouped, (0..1911).collect::<Vec<_>>());
        let pictured: BTreeSet<_> = contents.items.iter().map(|item| item.class).collect();
        assert_eq!(pictured.len(), 1911);
        // Every class can be selected by its name.
        for (class, name) in names.iter().enumerate() {
            assert_eq!(model::classes::find_all(names, name), Ok(vec![class.into()]), "{name}");
        }
        for name in ["otter", "pizza", "rocket", "red heart", "France Flag"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        for item in &contents.items {
            let image = item.image.as_ref().unwrap_or_else(|e| panic!("{}: {e}", item.name));
            assert_eq!((image.width, image.height), (32, 32));
            assert!(item.class.is_some());
        }
    }
}
