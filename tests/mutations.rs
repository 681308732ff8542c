//! Files from elsewhere, damaged in thousands of ways: each leads to an error or to valid content, not
//! to a panic, and takes memory in proportion to its size.
//!
//! The formats that only the trainer reads are in `trainer/src/mutations.rs`.

use metrics::MetricsError;
use metrics::npz::Npz;
use metrics::reference::Reference;
use model::picture::Origin;
use model::settings::Settings;
use model::weights::{Weights, WeightsError};
use tests::mutate::{Reader, mutated, read_all};
use tests::root;
use web::scene::Scene;

const MB: usize = 1_000_000;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/golden").join(name)).expect("there")
}

/// Returns the memory that a call takes.
fn measure(call: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(call).bytes_max
}

#[test]
fn weights_files() {
    let names = ["network_c.weights.safetensors", "network_a.weights.safetensors"];
    let valid = names.map(golden);
    let read = |bytes: &[u8]| {
        let weights = Weights::parse(bytes)?;
        weights.intact()?;
        for spec in weights.specs() {
            assert_eq!(weights.values(spec).len(), spec.len());
        }
        Ok::<_, WeightsError>(())
    };
    read_all(&valid, 3_000, Reader { read, measure, times: 4, more: MB });
}

#[test]
fn weights_of_the_official_release() {
    let config = model::preset::by_name("latent-tiny").expect("a preset");
    // For another network: all of them are refused, after their names and shapes were compared.
    let valid = [golden("latent.official.safetensors")];
    for number in 0..1_000 {
        let file = mutated(&valid, number);
        let used = measure(&mut || {
            assert!(Weights::parse_official(&file, config.clone()).is_err());
        });
        assert!(used as usize <= 4 * file.len() + MB, "file {number} took {used}");
    }
}

#[test]
fn pictures_with_settings() {
    let picture = model::picture::Rgb { width: 2, height: 1, bytes: vec![7; 6] };
    let origin = |page: Option<&str>| Origin {
        model: "a model".into(),
        weights_sha256: "0".repeat(64),
        vae_sha256: None,
        seeds: vec![5, 6, 7],
        settings: Settings { steps: 12, ..Settings::default() },
        page: page.map(String::from),
    };
    let valid = [None, Some("seed=5&count=4&steps=6&sampler=dpmpp&order=2")]
        .map(|page| picture.to_png(Some(&origin(page))).expect("a small picture"));
    let read = |bytes: &[u8]| {
        let origin = Origin::from_png(bytes).map_err(|error| error.to_string())?;
        origin.settings.validate().map_err(|error| error.to_string())?;
        // What the page makes of it, as a link.
        let scene = Scene::from_origin(&origin);
        assert_eq!(Scene::decode(&scene.encode()), scene);
        Ok::<_, String>(())
    };
    read_all(&valid, 5_000, Reader { read, measure, times: 64, more: MB });
}

#[test]
fn links() {
    let valid = [
        "seed=5&count=4&steps=6&sampler=dpmpp&order=2&levels=log-snr&low=0.01&high=50",
        "steps=20&rho=5&sampler=euler&churn=40&churn-low=0.05&silent=true&block=2&head=1&row=7",
        "respacing=10,15,20&sampler=ddpm&variance=large&classes=3:0.6_5:0.4,7&guidance=4.4",
        "view=play&play=compare&seed-b=2&sigma=3.5&b-steps=7&b-rho=3&b-sampler=heun",
    ]
    .map(|link| link.as_bytes().to_vec());
    for number in 0..5_000 {
        let link = mutated(&valid, number);
        let link = String::from_utf8_lossy(&link);
        let used = measure(&mut || {
            let scene = Scene::decode(&link);
            assert_eq!(Scene::decode(&scene.encode()), scene, "{link}");
        });
        assert!(used as usize <= 64 * link.len() + MB, "{link}: {used}");
    }
}

#[test]
fn arrays_of_numpy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.npz");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        let mut file = Npz::open(&path)?;
        for name in ["c_order", "fortran_order", "single"] {
            file.array(name)?;
        }
        // As reference statistics it may be refused.
        let _ = Reference::open(&path);
        file.images(|_, _| Ok::<_, MetricsError>(()))
    };
    let valid = [golden("numpy.npz")];
    read_all(&valid, 2_000, Reader { read, measure, times: 16, more: MB });
}
