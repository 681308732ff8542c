//! The embedded data set: Noto emoji at 32x32 on white, an EDM zip made by `cargo xtask emoji`.

use std::io::Cursor;
use std::path::Path;

use super::{Classes, DataError, EMBEDDED, Each, files};

/// The archive; its licence lies beside it.
const ARCHIVE: &[u8] = include_bytes!("../../data/emoji-32.zip");

/// Reads the embedded pictures.
pub(super) fn visit(each: &mut Each) -> Result<Classes, DataError> {
    files::visit_zip(Path::new(EMBEDDED), Cursor::new(ARCHIVE), each)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::data::Classes;

    #[test]
    fn every_embedded_picture_can_be_used() {
        let contents = crate::data::read(super::EMBEDDED.as_ref()).expect("the archive is whole");
        assert_eq!(contents.items.len(), 1911);
        let Classes { names, groups } = &contents.classes;
        assert_eq!((names.len(), groups.len()), (1911, 10));
        // Each class is in one group, and each has one picture.
        let mut grouped: Vec<usize> =
            groups.iter().flat_map(|group| group.classes.clone()).collect();
        grouped.sort_unstable();
        assert_eq!(grouped, (0..1911).collect::<Vec<_>>());
        let pictured: BTreeSet<_> = contents.items.iter().map(|item| item.class).collect();
        assert_eq!(pictured.len(), 1911);
        // Every class can be asked for by its name.
        for (class, name) in names.iter().enumerate() {
            assert_eq!(model::classes::find_all(names, name), Ok(vec![class.into()]), "{name}");
        }
        for name in ["otter", "pizza", "rocket", "red heart", "France Flag"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        for item in &contents.items {
            let picture = item.picture.as_ref().unwrap_or_else(|e| panic!("{}: {e}", item.name));
            assert_eq!((picture.width, picture.height), (32, 32));
            assert!(item.class.is_some());
        }
    }
}
