//! Writing of latent datasets.

use burn::tensor::f16;
use model::weights::Precision;
use serde_json::json;

use super::{KEY, Origin, Part, VERSION, VERSION_OF_PARTS, record_size};

/// Returns everything before the moments of a file: of all images, or of a part of them. `labels` are
/// those of all images. The precision is `F32` or `F16`.
///
/// # Panics
///
/// If there are classes but not as many labels as images, or the precision is another.
pub fn header(
    origin: &Origin,
    labels: &[u32],
    part: Part,
    shape: [usize; 3],
    precision: Precision,
) -> Vec<u8> {
    let [c, h, w] = shape;
    let labelled = !origin.classes.is_empty();
    assert_eq!(labels.len(), if labelled { part.images } else { 0 });
    let range = part.range();
    let (n, labels) = (range.len(), if labelled { &labels[range] } else { labels });
    let mut origin = serde_json::to_value(origin).expect("plain data");
    origin["version"] = if part.count == 1 { VERSION } else { VERSION_OF_PARTS }.into();
    if part.count > 1 {
        origin["part"] = serde_json::to_value(part).expect("plain data");
    }
    let start = 4 * labels.len();
    let end = start + n * record_size(shape, precision);
    let dtype = match precision {
        Precision::F32 => "F32",
        Precision::F16 => "F16",
        Precision::Bf16 => panic!("moments are not stored in bf16"),
    };
    let mut json = json!({
        "__metadata__": { KEY: origin.to_string() },
        "moments": {
            "dtype": dtype,
            "shape": [n, 2, 2, c, h, w],
            "data_offsets": [start, end],
        },
    });
    if labelled {
        json["labels"] = json!({"dtype": "U32", "shape": [n], "data_offsets": [0, start]});
    }
    let mut json = json.to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header.extend(labels.iter().flat_map(|label| label.to_le_bytes()));
    header
}

/// Returns the bytes of moments in a file. A value beyond the range of 16 bits becomes infinite.
pub fn bytes_of(moments: &[f32], precision: Precision) -> Vec<u8> {
    match precision {
        Precision::F32 => moments.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => moments.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
    }
}
