//! The embedded data set: Noto emoji at 32x32 on white, an EDM zip made by `cargo xtask emoji`.

use std::io::Cursor;
use std::path::Path;

use super::{DataError, EMBEDDED, Each, files};

/// The archive; its licence lies beside it.
const ARCHIVE: &[u8] = include_bytes!("../../data/emoji-32.zip");

/// Reads the embedded pictures.
pub(super) fn visit(each: &mut Each) -> Result<Vec<String>, DataError> {
    files::visit_zip(Path::new(EMBEDDED), Cursor::new(ARCHIVE), each)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_embedded_picture_can_be_used() {
        let contents = crate::data::read(super::EMBEDDED.as_ref()).expect("the archive is whole");
        assert_eq!(contents.items.len(), 1911);
        assert_eq!(contents.classes.len(), 10);
        for item in &contents.items {
            let picture = item.picture.as_ref().unwrap_or_else(|e| panic!("{}: {e}", item.name));
            assert_eq!((picture.width, picture.height), (32, 32));
            assert!(item.class.is_some());
        }
    }
}
