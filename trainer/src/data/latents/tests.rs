use super::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::collections::HashMap;

const SHAPE: [usize; 3] = [4, 2, 2];

fn origin(classes: &[&str]) -> Origin {
    Origin {
        pictures_sha256: "p".into(),
        vae: VaeConfig::tiny(),
        vae_sha256: "v".into(),
        classes: classes.iter().map(ToString::to_string).collect(),
    }
}

fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

fn whole(images: usize) -> Part {
    Part { number: 1, count: 1, images }
}

fn opened(file: &[u8]) -> Result<Latents, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("l.safetensors");
    std::fs::write(&path, file).expect("written");
    Latents::open(&path).map_err(|error| {
        let text = error.to_string();
        assert!(text.contains("l.safetensors"), "{text}");
        text
    })
}

#[test]
fn a_dataset_is_read_as_written() {
    let values =
        |picture: usize, part: usize| (0..16).map(move |i| (100 * picture + 20 * part + i) as f32);
    for (classes, labels) in [(&["a", "b"][..], &[1, 0, 1][..]), (&[], &[])] {
        let mut file = header(&origin(classes), labels, whole(3), SHAPE, Precision::F32);
        assert_eq!(record_size(SHAPE, Precision::F32), 256);
        for picture in 0..3 {
            (0..4).for_each(|part| file.extend(bytes(values(picture, part))));
        }
        let latents = opened(&file).expect("whole");
        assert_eq!((latents.len(), latents.shape, &latents.labels[..]), (3, SHAPE, labels));
        assert_eq!(latents.origin, origin(classes));
        for picture in 0..3 {
            for mirrored in [false, true] {
                let [mean, std] = latents.moments(picture, mirrored);
                let part = 2 * usize::from(mirrored);
                assert!(mean.into_iter().eq(values(picture, part)));
                assert!(std.into_iter().eq(values(picture, part + 1)));
            }
        }
    }
}

/// Values that 16 bits hold are the same in both precisions; others are rounded.
#[test]
fn moments_are_stored_in_16_bits() {
    let values: Vec<f32> = (0..64).map(|i| i as f32 / 8.0).chain([1.0 / 3.0; 64]).collect();
    let mut file = header(&origin(&[]), &[], whole(2), SHAPE, Precision::F16);
    assert_eq!(record_size(SHAPE, Precision::F16), 128);
    file.extend(bytes_of(&values, Precision::F16));
    let half = opened(&file).expect("whole");
    let mut file = header(&origin(&[]), &[], whole(2), SHAPE, Precision::F32);
    file.extend(bytes_of(&values, Precision::F32));
    let single = opened(&file).expect("whole");
    for mirrored in [false, true] {
        assert_eq!(half.moments(0, mirrored), single.moments(0, mirrored));
        let [mean, std] = half.moments(1, mirrored);
        for value in mean.into_iter().chain(std) {
            assert!(value != 1.0 / 3.0 && (value - 1.0 / 3.0).abs() < 1e-4, "{value}");
        }
    }
    assert_eq!(half.hashes(), ["p", "v, f16"]);
    assert_eq!(single.hashes(), ["p", "v"]);
    let mut file = header(&origin(&[]), &[], whole(2), SHAPE, Precision::F16);
    file.extend(bytes_of(&[1e6; 128], Precision::F16));
    assert!(opened(&file).err().expect("infinite").contains("image 0 are not finite"));
}

/// The parts of a folder are the whole file, in whatever order their names are.
#[test]
fn parts_are_read_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let labels = [1, 0, 1, 1, 0, 0, 1];
    let values = |i: usize| (0..64).map(move |v| (100 * i + v) as f32);
    let write = |name: &str, part: Part, origin: &Origin| {
        let mut file = header(origin, &labels, part, SHAPE, Precision::F32);
        part.range().for_each(|i| file.extend(bytes(values(i))));
        std::fs::write(path(name), file).expect("written");
    };
    let of = |number| Part { number, count: 3, images: 7 };
    assert_eq!([1, 2, 3].map(|number| of(number).range()), [0..2, 2..4, 4..7]);
    let classes = origin(&["a", "b"]);
    let fails = |message: &str| {
        let error = Latents::open(folder.path()).err().expect(message).to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    };
    fails("the folder has no file with latents");
    write("c.latents", of(1), &classes);
    write("a.latents", of(3), &classes);
    std::fs::write(path("notes.txt"), "about them").expect("written");
    std::fs::write(path("vae.safetensors"), "of no dataset").expect("written");
    fails("1 of the 3 parts of this encoding are missing (2/3)");
    write("b.safetensors", of(2), &classes);
    let latents = Latents::open(folder.path()).expect("whole");
    assert_eq!((latents.len(), &latents.labels[..]), (7, &labels[..]));
    for i in 0..7 {
        let [mean, _] = latents.moments(i, false);
        assert!(mean.into_iter().eq(values(i).take(16)), "image {i}");
    }
    write("d.latents", of(2), &classes);
    fails("d.latents: cannot use this latent dataset: ");
    fails("b.safetensors has the same part of the encoding");
    write("d.latents", of(2), &Origin { vae_sha256: "w".into(), ..classes.clone() });
    fails("it is not of the same encoding as");
    write("d.latents", whole(7), &classes);
    fails("it is not of the same encoding as");
    // What was encoded from images can be beside them.
    assert!(!Latents::files_of(folder.path()).is_empty());
    std::fs::write(path("1.png"), "an image").expect("written");
    assert!(Latents::files_of(folder.path()).is_empty());
}

/// A file as another program could write it.
fn foreign(tensors: &[(&str, Dtype, &[usize], &[u8])], origin: &str) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).expect("it fits"))
    });
    let metadata = HashMap::from([(KEY.to_string(), origin.to_string())]);
    safetensors::serialize(views, Some(metadata)).expect("it fits")
}

#[test]
fn invalid_files_are_refused_with_a_reason() {
    let says = |file: &[u8], message: &str| {
        let error = opened(file).err().unwrap_or_else(|| panic!("{message}: it was opened"));
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    };
    let known = |classes: &[&str]| {
        let mut origin = serde_json::to_value(origin(classes)).expect("plain data");
        origin["version"] = VERSION.into();
        origin.to_string()
    };
    let good = bytes((0..128).map(|i| i as f32));
    let header = header(&origin(&["a"]), &[0, 0], whole(2), SHAPE, Precision::F32);
    let file = [header, good.clone()].concat();
    assert!(opened(&file).is_ok());
    says(&file[..file.len() - 1], "truncated");
    says(&[&file[..], b"more"].concat(), "does not match its header");
    says(&file[..100], "damaged");
    says(b"\xff\xff\xff\xff\xff\xff\xff\x7f{", "damaged");

    let shape: &[usize] = &[2, 2, 2, 4, 2, 2];
    let moments = ("moments", Dtype::F32, shape, &good[..]);
    let plain = safetensors::serialize(
        [("moments", TensorView::new(Dtype::F32, shape.to_vec(), &good).expect("it fits"))],
        None,
    );
    says(&plain.expect("it fits"), "metadata has no `diffit-latents`");
    says(&foreign(&[moments], "{"), "is invalid");
    says(&foreign(&[moments], r#"{"version": 3}"#), "format version 3");
    says(&foreign(&[moments], r#"{"version": 1}"#), "is invalid");
    says(&foreign(&[moments], &known(&[]).replace("0.18215", "-1.0")), "vae.scale is -1");
    says(&foreign(&[], &known(&[])), "no tensor `moments`");
    let of = |shape| foreign(&[("moments", Dtype::F32, shape, &good[..])], &known(&[]));
    says(&of(&[2, 2, 2, 2, 4, 2]), "[2, 2, 2, 2, 4, 2], not [N, 2, 2, 4, H, W]");
    says(&of(&[128]), "[128], not");
    let empty = foreign(&[("moments", Dtype::F32, &[0, 2, 2, 4, 2, 2], &[])], &known(&[]));
    says(&empty, "[0, 2, 2, 4, 2, 2], not");
    let half = foreign(&[("moments", Dtype::BF16, shape, &good[..256])], &known(&[]));
    says(&half, "BF16, not F32 or F16");
    let part = |part: serde_json::Value| {
        let mut origin: serde_json::Value = serde_json::from_str(&known(&[])).expect("JSON");
        origin["part"] = part;
        foreign(&[moments], &origin.to_string())
    };
    says(&part(json!({"number": 1, "count": 2})), "is invalid (missing field `images`)");
    for [number, count, images] in [[0, 2, 4], [3, 2, 4], [1, 2, 9], [1, 0, 2], [1, 9, 2]] {
        let part = part(json!({"number": number, "count": count, "images": images}));
        says(&part, "2 images, which cannot be part");
    }
    let alone = part(json!({"number": 2, "count": 2, "images": 4}));
    says(&alone, "1 of the 2 parts of this encoding are missing (1/2)");

    let labelled = |dtype, labels: &[u8]| {
        let n = labels.len() / 4;
        foreign(&[moments, ("labels", dtype, &[n], labels)], &known(&["a"]))
    };
    says(&foreign(&[moments], &known(&["a"])), "no tensor `labels`");
    says(&labelled(Dtype::U32, &[0; 12]), "[3] of U32, not [2] of U32");
    says(&labelled(Dtype::F32, &[0; 8]), "[2] of F32, not [2] of U32");
    says(&labelled(Dtype::U32, &[0, 0, 0, 0, 9, 0, 0, 0]), "1 classes, but a label is 9");

    let spoiled = |place: usize, value: f32| {
        let values = (0..128).map(|i| if i == place { value } else { i as f32 });
        foreign(&[("moments", Dtype::F32, shape, &bytes(values))], &known(&[]))
    };
    says(&spoiled(70, f32::NAN), "moments of image 1 are not finite");
    says(
        &spoiled(50, -1.0),
        "moments of image 0 are not finite, or a standard deviation is negative",
    );
    assert!(opened(&spoiled(33, -1.0)).is_ok(), "a mean may be negative");
}
