use super::*;

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::ByteArray;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::data::source;

fn png(number: usize) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let pixel = |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, number as u8]);
    let image = image::RgbImage::from_fn(3, 2 + number as u32 % 5, pixel);
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("encoded");
    bytes.into_inner()
}

/// How a file is written.
#[derive(Clone)]
struct Layout {
    schema: &'static str,
    properties: WriterProperties,
    /// Numbers of rows of the row groups.
    groups: Vec<usize>,
    /// Rows without an image.
    missing: Vec<usize>,
    /// Value of `huggingface` in the metadata.
    metadata: Option<&'static str>,
}

const NESTED: &str = "message m {
    optional group image { optional binary bytes; optional binary path (utf8); }
    optional int64 label;
}";

impl Layout {
    fn new(schema: &'static str) -> Self {
        // Few values in a page, to have several pages.
        let properties = WriterProperties::builder()
            .set_data_page_row_count_limit(4)
            .set_write_batch_size(2)
            .set_dictionary_enabled(false)
            .set_compression(Compression::SNAPPY)
            .build();
        Self { schema, properties, groups: vec![10, 7], missing: Vec::new(), metadata: None }
    }

    fn with(self, change: impl FnOnce(Properties) -> Properties) -> Self {
        Self { properties: change(self.properties.into_builder()).build(), ..self }
    }

    /// Writes pictures in order, of which picture `i` has class `i % 3`.
    fn bytes(&self) -> Vec<u8> {
        let schema = Arc::new(parse_message_type(self.schema).expect("a schema"));
        let mut properties = self.properties.clone();
        if let Some(text) = self.metadata {
            let pair = KeyValue::new("huggingface".to_string(), text.to_string());
            properties = properties.into_builder().set_key_value_metadata(Some(vec![pair])).build();
        }
        let mut file =
            SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).expect("made");
        let mut first = 0;
        for rows in &self.groups {
            let mut group = file.next_row_group().expect("made");
            let numbers = first..first + rows;
            while let Some(mut column) = group.next_column().expect("made") {
                let description = match &column.untyped() {
                    parquet::column::writer::ColumnWriter::ByteArrayColumnWriter(writer) => {
                        writer.get_descriptor().clone()
                    }
                    parquet::column::writer::ColumnWriter::Int64ColumnWriter(writer) => {
                        writer.get_descriptor().clone()
                    }
                    parquet::column::writer::ColumnWriter::Int32ColumnWriter(writer) => {
                        writer.get_descriptor().clone()
                    }
                    _ => panic!("another column"),
                };
                let max = description.max_def_level();
                let is_path = description.path().parts().last().is_some_and(|name| name == "path");
                let there = |i: &usize| !is_path && !self.missing.contains(i);
                if description.physical_type() == Type::BYTE_ARRAY {
                    let levels: Vec<i16> =
                        numbers.clone().map(|i| if there(&i) { max } else { 0 }).collect();
                    let values: Vec<ByteArray> =
                        numbers.clone().filter(there).map(|i| png(i).into()).collect();
                    let writer = column.typed::<ByteArrayType>();
                    writer.write_batch(&values, Some(&levels), None).expect("written");
                } else {
                    let levels = vec![max; numbers.len()];
                    let classes = numbers.clone().map(|i| i % 3);
                    if description.physical_type() == Type::INT64 {
                        let classes: Vec<i64> = classes.map(|class| class as i64).collect();
                        let writer = column.typed::<Int64Type>();
                        writer.write_batch(&classes, Some(&levels), None).expect("written");
                    } else {
                        let classes: Vec<i32> = classes.map(|class| class as i32).collect();
                        let writer = column.typed::<Int32Type>();
                        writer.write_batch(&classes, Some(&levels), None).expect("written");
                    }
                }
                column.close().expect("written");
            }
            group.close().expect("written");
            first += rows;
        }
        file.into_inner().expect("written")
    }
}

type Properties = parquet::file::properties::WriterPropertiesBuilder;

/// Opens a dataset.
fn opened(path: &Path) -> Result<Box<dyn Source>, String> {
    source::open(path, false).map_err(|error| error.to_string())
}

/// Writes a file and opens it.
fn written(layout: &Layout) -> Result<Box<dyn Source>, String> {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let path = folder.join("x.parquet");
    std::fs::write(&path, layout.bytes()).expect("written");
    opened(&path)
}

/// Checks that a source has pictures `0..17` in order.
fn check(source: &dyn Source) {
    assert_eq!(source.index().images.len(), 17);
    // Back and forth, so that pages are read again.
    for i in (0..17).chain((0..17).map(|i| i * 5 % 17)) {
        let want = DecodedImage::decode(&png(i)).expect("a picture");
        let found = source.image(i).expect("whole");
        assert_eq!(found.rgb, want.rgb, "{i}");
        assert_eq!(source.size(i), Ok([want.width, want.height]));
    }
}

#[test]
fn pictures_are_read_in_every_layout() {
    let (zstd, gzip) =
        (Compression::ZSTD(Default::default()), Compression::GZIP(Default::default()));
    let nested = Layout::new(NESTED);
    for (what, layout) in [
        ("nested", nested.clone()),
        ("plain", Layout::new("message m { required int32 label; required binary img; }")),
        ("zstd", nested.clone().with(|properties| properties.set_compression(zstd))),
        ("gzip", nested.clone().with(|properties| properties.set_compression(gzip))),
        (
            "gzip, version 2",
            nested.clone().with(|properties| {
                properties.set_writer_version(WriterVersion::PARQUET_2_0).set_compression(gzip)
            }),
        ),
        (
            "uncompressed",
            nested.clone().with(|properties| properties.set_compression(Compression::UNCOMPRESSED)),
        ),
        (
            "version 2",
            nested.clone().with(|properties| {
                properties.set_writer_version(WriterVersion::PARQUET_2_0).set_compression(zstd)
            }),
        ),
        ("dictionary", nested.clone().with(|properties| properties.set_dictionary_enabled(true))),
        (
            "one page",
            nested.clone().with(|properties| properties.set_data_page_row_count_limit(99)),
        ),
    ] {
        let source = written(&layout).unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&*source);
        let Index { images, classes, note } = source.index();
        let found: Vec<_> = images.iter().map(|listed| listed.class).collect();
        assert_eq!(found, (0..17).map(|i| Some(i % 3)).collect::<Vec<_>>(), "{what}");
        assert_eq!((classes.names.join(" "), note), ("0 1 2".into(), &None), "{what}");
        assert_eq!(&*images[12].name, "x.parquet#12");
    }
}

#[test]
fn classes_have_the_names_of_the_metadata() {
    let metadata = r#"{"info": {"features": {"image": {"_type": "Image"},
        "label": {"names": ["cat", "dog", "fox", "owl"], "_type": "ClassLabel"}}}}"#;
    let named = Layout { metadata: Some(metadata), ..Layout::new(NESTED) };
    let source = written(&named).expect("whole");
    assert_eq!(source.index().classes.names, ["cat", "dog", "fox", "owl"]);
    let few = r#"{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}"#;
    let error = written(&Layout { metadata: Some(few), ..named.clone() }).err().expect("too few");
    assert!(error.contains("2 class names, but a label is 2"), "{error}");
    // Metadata of other programs.
    for other in ["{", "[]", r#"{"info": {"features": {"label": {"names": [1, 2, 3]}}}}"#] {
        let source = written(&Layout { metadata: Some(other), ..named.clone() }).expect("whole");
        assert_eq!(source.index().classes.names, ["0", "1", "2"]);
    }
}

#[test]
fn rows_without_an_image_are_named() {
    let source = written(&Layout { missing: vec![3, 12], ..Layout::new(NESTED) }).expect("whole");
    for i in 0..17 {
        match source.image(i) {
            Ok(image) => assert_eq!(image.rgb, DecodedImage::decode(&png(i)).expect("good").rgb),
            Err(reason) => {
                assert_eq!((reason.as_str(), i == 3 || i == 12), ("no image in this row", true));
            }
        }
    }
}

#[test]
fn folders_are_read_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let parts = [vec![10], vec![7]].map(|groups| Layout { groups, ..Layout::new(NESTED) });
    let [first, second] =
        ["00000", "00001"].map(|n| data.join(format!("train-{n}-of-00002.parquet")));
    std::fs::write(&second, parts[1].bytes()).expect("written");
    let error = opened(folder.path()).err().expect("one is missing");
    assert!(error.contains("1 of the 2 files are missing, by their names (00000)"), "{error}");
    std::fs::write(&first, parts[0].bytes()).expect("written");
    std::fs::write(data.join("test-00000-of-00001.parquet"), b"not read").expect("written");
    std::fs::write(folder.path().join("README.md"), b"about them").expect("written");
    let source = opened(folder.path()).expect("whole");
    let Index { images, note, .. } = source.index();
    assert_eq!(images.len(), 17);
    assert_eq!(&*images[11].name, "data/train-00001-of-00002.parquet#1");
    assert_eq!(note.as_deref(), Some("the split `train`; 1 file of test left out"));
    // The pictures of the second file are 0 to 6 again.
    assert_eq!(source.image(11).expect("whole").rgb, source.image(1).expect("whole").rgb);
    // Folders of images are such, whatever else is in them.
    std::fs::write(data.join("1.png"), png(1)).expect("written");
    assert_eq!(opened(folder.path()).expect("whole").index().images.len(), 1);
}

#[test]
fn other_columns_are_refused_with_a_reason() {
    for (schema, message) in [
        ("message m { required binary text; }", "no column `image` or `img` of images, but `text`"),
        ("message m { required int64 image; }", "values of type INT64, not files of images"),
        (
            "message m { required binary image; required binary label; }",
            "the column `label` has values of type BYTE_ARRAY, not numbers of classes",
        ),
    ] {
        let error = written(&Layout::new(schema)).err().expect(message);
        assert!(error.contains(message) && error.contains("x.parquet"), "{error}");
    }
    let bytes = Layout::new(NESTED).bytes();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.parquet");
    std::fs::write(&path, &bytes[..bytes.len() - 9]).expect("cut");
    let error = opened(&path).err().expect("cut");
    assert!(error.contains("x.parquet: damaged ("), "{error}");
    std::fs::write(&path, [&b"PAR1"[..], &[0; 40]].concat()).expect("written");
    let error = opened(&path).err().expect("no table");
    assert!(error.contains("x.parquet: damaged ("), "{error}");
}

/// A page that is damaged does not keep the images of others from being read.
#[test]
fn damage_is_that_of_its_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.parquet");
    let layout = Layout::new(NESTED)
        .with(|properties| properties.set_compression(Compression::UNCOMPRESSED));
    let mut bytes = layout.bytes();
    let third = png(2);
    let at = bytes.windows(third.len()).position(|part| part == third).expect("it is there");
    // The length before the picture.
    bytes[at - 4..at].copy_from_slice(&u32::MAX.to_le_bytes());
    std::fs::write(&path, &bytes).expect("written");
    let source = opened(&path).expect("its headers are good");
    let bad: Vec<usize> = (0..17).filter(|i| source.image(*i).is_err()).collect();
    assert_eq!(bad, [0, 1, 2, 3]);
    let error = source.image(1).err().expect("damaged");
    assert!(error.contains("damaged ("), "{error}");
}

/// `tests/golden/parquet.py` writes these files with PyArrow, as the library `datasets` does.
#[test]
fn files_of_pyarrow_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet");
    let want = |class: u32, i: u32| {
        image::RgbImage::from_fn(8, 6, |x, y| {
            image::Rgb([(x * 30) as u8, (y * 40) as u8, (class * 80 + i) as u8])
        })
        .into_raw()
    };
    for name in ["snappy", "zstd", "gzip", "plain"] {
        let source = opened(&golden.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Index { images, classes, note } = source.index();
        let labelled = name != "plain";
        let names = if labelled { "cat dog fox" } else { "" };
        assert_eq!((images.len(), &*classes.names.join(" ")), (24, names), "{name}");
        assert_eq!(note.is_some(), name == "snappy", "{name}");
        for (i, listed) in images.iter().enumerate() {
            let class = i as u32 * 7 % 3;
            assert_eq!(listed.class, labelled.then_some(class), "{name}: {i}");
            assert_eq!(source.image(i).expect("whole").rgb, want(class, i as u32), "{name}: {i}");
        }
    }
}

/// Of other compressions, the message says which one it is and what to do.
#[test]
fn other_compressions_are_named() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/parquet");
    for (folder, name) in [("brotli", "Brotli"), ("lz4", "LZ4")] {
        let error = opened(&golden.join(folder)).err().expect("not read");
        for part in [
            "x.parquet: column `img.bytes`: ",
            &format!("compressed with {name}; only Snappy, Zstandard and gzip are read"),
            "compression=\"zstd\"",
        ] {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
    }
}
