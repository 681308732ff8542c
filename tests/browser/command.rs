//! Commands that the page writes.

use model::picture::Origin;
use tempfile::TempDir;
use tests::{root, trainer};
use web::command::arguments;
use web::scene::Scene;

/// The command makes pictures with the settings of the page.
#[test]
fn a_command_of_the_page_has_its_settings() {
    let folder = TempDir::new().expect("a folder");
    let weights = root().join("tests/golden/network_class.weights.safetensors");
    let weights = weights.to_str().expect("a plain path");
    let bytes = std::fs::read(weights).expect("there");
    let file = model::weights::Weights::parse(&bytes).expect("a weights file");
    let classes = file.config().classes();
    let names = file.card().class_names(classes);
    assert!(classes > 1);
    for link in [
        "seed=7&count=4&steps=2&sampler=ipndm&order=2&classes=0,1&clip=true",
        "seed=3&steps=2&sampler=heun&churn=3&churn-low=0.1&churn-high=50&churn-noise=1.01&rho=5&high=40",
        "steps=2&sampler=dpmpp&levels=log-snr&low=0.01&classes=1&guidance=2&guidance-power=0\
         &guidance-channels=all&guidance-low=0.2&guidance-high=9",
        "steps=2&sampler=ddim&eta=0.5&classes=0:0.6_1:0.4&guidance=3",
    ] {
        let order = Scene::decode(link).order(classes);
        let output = folder.path().join("grid.png");
        let args = arguments(&order, weights, &names).expect("seeds and settings only");
        trainer().args(&args).arg("--output").arg(&output).assert().success();
        let origin = Origin::from_png(&std::fs::read(&output).expect("written"));
        let origin = origin.expect("an origin");
        assert_eq!(origin.settings, order.settings, "{link}");
        let seeds: Vec<u64> = order.noises.iter().map(web::protocol::Noise::seed).collect();
        assert_eq!(origin.seeds, seeds, "{link}");
    }
}
