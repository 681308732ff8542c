//! Small valid files in the formats that several programs read, and what reads them: for the tests that
//! damage files, and for the fuzz targets, which take this file as a part of theirs.
//!
//! A reader returns an error or reads everything; what can be written again is written and read again. Some
//! readers take a path to write the file to. The formats that only the trainer reads are in
//! `trainer/src/formats.rs`.

use std::path::Path;

use metrics::MetricsError;
use metrics::network::tensors::TensorSource;
use metrics::npz::{Npz, NpzWriter};
use metrics::reference::Reference;
use model::picture::{Origin, Rgb};
use model::settings::Settings;
use model::weights::{Weights, WeightsError, to_bytes};
use model::{TensorSpec, classes};
use web::manifest::Manifest;
use web::scene::Scene;

/// Why a file is not read.
type Refused = Result<(), String>;

/// Returns a file of `tests/golden/`.
pub fn golden(name: &str) -> Vec<u8> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    std::fs::read(golden.join(name)).expect("a golden file")
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Weights files of two networks.
pub fn weights() -> Vec<Vec<u8>> {
    ["network_c.weights.safetensors", "network_a.weights.safetensors"].map(golden).into()
}

/// Reads all tensors of a weights file.
pub fn parse_weights(bytes: &[u8]) -> Result<(), WeightsError> {
    let weights = Weights::parse(bytes)?;
    weights.intact()?;
    for spec in weights.specs() {
        assert_eq!(weights.values(spec).len(), spec.len());
    }
    Ok(())
}

/// Reads a weights file, and writes and reads it again.
pub fn read_weights(bytes: &[u8], _: &Path) -> Refused {
    parse_weights(bytes).map_err(text)?;
    let parameters = |weights: &Weights| -> Vec<(TensorSpec, Vec<f32>)> {
        let specs = weights.specs().iter();
        specs.map(|spec| (spec.clone(), weights.values(spec))).collect()
    };
    let weights = Weights::parse(bytes).map_err(text)?;
    let (config, card, answer) = (weights.config(), weights.card(), weights.answer());
    let values = parameters(&weights);
    let again = to_bytes(config, card, answer, values.clone(), weights.precision());
    let again = again.expect("its values are finite");
    let again = Weights::parse(&again).expect("its own");
    assert_eq!((again.config(), again.card(), again.answer()), (config, card, answer));
    assert!(parameters(&again) == values);
    Ok(())
}

/// Headers of the same weights files.
pub fn weights_headers() -> Vec<Vec<u8>> {
    let header = |file: Vec<u8>| {
        let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        file[8..8 + length].to_vec()
    };
    weights().into_iter().map(header).collect()
}

/// Reads a weights file with this header, whose values are zeros.
pub fn read_weights_header(bytes: &[u8], path: &Path) -> Refused {
    let mut file = (bytes.len() as u64).to_le_bytes().to_vec();
    file.extend(bytes);
    let header: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let ends = header.as_object().into_iter().flatten();
    let ends = ends.filter_map(|(_, tensor)| tensor.get("data_offsets")?.get(1)?.as_u64());
    // More than the real ones, and little enough for memory.
    file.resize(file.len() + ends.max().unwrap_or(0).min(1 << 18) as usize, 0);
    read_weights(&file, path)
}

/// Pictures with settings, of the command line and of the page.
pub fn pictures() -> Vec<Vec<u8>> {
    let picture = Rgb { width: 2, height: 1, bytes: vec![7; 6] };
    let origin = |page: Option<&str>| Origin {
        model: "a model".into(),
        weights_sha256: "0".repeat(64),
        vae_sha256: None,
        seeds: vec![5, 6, 7],
        settings: Settings { steps: 12, ..Settings::default() },
        page: page.map(String::from),
    };
    [None, Some("seed=5&count=4&steps=6&sampler=dpmpp&order=2")]
        .map(|page| picture.to_png(Some(&origin(page))).expect("a small picture"))
        .into()
}

/// Reads the settings in a picture, and makes a picture and a link with them.
pub fn read_picture(bytes: &[u8], _: &Path) -> Refused {
    let origin = Origin::from_png(bytes).map_err(text)?;
    origin.settings.validate().map_err(text)?;
    let scene = Scene::from_origin(&origin);
    assert_eq!(Scene::decode(&scene.encode()), scene);
    let picture = Rgb { width: 1, height: 1, bytes: vec![0; 3] };
    let again = picture.to_png(Some(&origin)).expect("a small picture");
    assert_eq!(Origin::from_png(&again).expect("its own"), origin);
    Ok(())
}

/// Links of the page.
pub fn links() -> Vec<Vec<u8>> {
    [
        "seed=5&count=4&steps=6&sampler=dpmpp&order=2&levels=log-snr&low=0.01&high=50",
        "steps=20&rho=5&sampler=euler&churn=40&churn-low=0.05&silent=true&block=2&head=1&row=7",
        "respacing=10,15,20&sampler=ddpm&variance=large&classes=3:0.6_5:0.4,7&guidance=4.4",
        "view=play&play=compare&seed-b=2&sigma=3.5&b-steps=7&b-rho=3&b-sampler=heun",
    ]
    .map(|link| link.as_bytes().to_vec())
    .into()
}

/// Reads a link, which gives a scene whatever it says, and writes it again.
pub fn read_link(bytes: &[u8], _: &Path) -> Refused {
    let link = String::from_utf8_lossy(bytes);
    let scene = Scene::decode(&link);
    assert_eq!(Scene::decode(&scene.encode()), scene, "{link}");
    Ok(())
}

/// Lists of models, as the page downloads them.
pub fn manifests() -> Vec<Vec<u8>> {
    let manifest = r#"{"models": [{"file": "tiny-a.safetensors", "bytes": 5, "sha256": "00ff"}]}"#;
    vec![manifest.into()]
}

/// Reads a list of models.
pub fn read_manifest(bytes: &[u8], _: &Path) -> Refused {
    let manifest = Manifest::parse(&String::from_utf8_lossy(bytes)).map_err(text)?;
    let again = serde_json::to_string(&manifest).expect("plain data");
    assert_eq!(Manifest::parse(&again).expect("its own"), manifest);
    for entry in &manifest.models {
        web::manifest::title(&entry.file);
    }
    Ok(())
}

/// Lists of classes, as users write them.
pub fn class_lists() -> Vec<Vec<u8>> {
    ["207, otter,10-12,crane", "otter=0.6, pizza = 0.4; 207,3"].map(Into::into).into()
}

/// Reads a list of classes of ImageNet.
pub fn read_class_list(bytes: &[u8], _: &Path) -> Refused {
    let names = &*classes::IMAGENET;
    let labels = classes::find_all(names, &String::from_utf8_lossy(bytes)).map_err(text)?;
    let listed = classes::list(names, &labels);
    assert_eq!(classes::find_all(names, &listed).expect("its own"), labels, "{listed}");
    Ok(())
}

/// Arrays of NumPy.
pub fn arrays() -> Vec<Vec<u8>> {
    vec![golden("numpy.npz")]
}

/// Reads arrays, images and reference statistics from a file that is written to `path`.
pub fn read_arrays(bytes: &[u8], path: &Path) -> Refused {
    const NAMES: [&str; 3] = ["c_order", "fortran_order", "single"];
    std::fs::write(path, bytes).expect("written");
    // As reference statistics it may be refused.
    let _ = Reference::open(path);
    let mut file = Npz::open(path).map_err(text)?;
    let mut writer = NpzWriter::default();
    let mut arrays = Vec::new();
    for name in NAMES {
        let array = file.array(name).map_err(text)?;
        if let Some(array) = &array {
            writer.array(name, &array.shape, &array.values).expect("they fill the shape");
        }
        arrays.push(array);
    }
    file.images(|_, _| Ok::<_, MetricsError>(())).map_err(text)?;
    std::fs::write(path, writer.finish().expect("small")).expect("written");
    let mut again = Npz::open(path).expect("its own");
    for (name, array) in NAMES.iter().zip(arrays) {
        let again = again.array(name).expect("its own");
        let bits = |array: metrics::npz::Array| {
            (array.shape, array.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>())
        };
        assert_eq!(again.map(bits), array.map(bits), "{name}");
    }
    Ok(())
}

/// Weights of feature networks, of PyTorch before 1.6.
pub fn feature_networks() -> Vec<Vec<u8>> {
    vec![golden("legacy.pth")]
}

/// Reads weights of a feature network from a file that is written to `path`.
pub fn read_feature_network(bytes: &[u8], path: &Path) -> Refused {
    std::fs::write(path, bytes).expect("written");
    let source = TensorSource::open(path).map_err(text)?;
    let _ = source.check(path, &[]);
    source.sha256();
    Ok(())
}
