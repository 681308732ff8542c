//! Whole networks, preconditioning, noise and a trajectory against an independent computation in
//! float64 (`tests/golden/reference.py`). The paper's blocks are held against it in the crate
//! `model`.

use std::convert::Infallible;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use model::config::PrecondConfig;
use model::loss::LossConfig;
use model::noise::{churn_noise, start_noise};
use model::sampler::{Churn, Evaluation, Method, sample};
use model::schedule::Schedule;
use model::weights::{Weights, shape_of};
use model::{Conditioning, Model};
use tests::{Tensors, assert_close, root};

const NETWORKS: [&str; 2] = ["network", "network_other"];

fn model(name: &str) -> Model {
    let path = root().join(format!("tests/golden/{name}.weights.safetensors"));
    let bytes = std::fs::read(path).expect("a golden file");
    let weights = Weights::parse(&bytes).expect("written by docs/weights.md");
    assert_eq!(weights.card().name, name);
    Model::from_weights(&weights, &Device::flex())
}

fn tensor<const D: usize>((shape, values): (Vec<usize>, Vec<f64>)) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().try_to_vec().expect("just converted")
}

#[test]
fn networks_and_their_denoisers() {
    for name in NETWORKS {
        let model = model(name);
        let golden = Tensors::golden(&format!("{name}.expected.safetensors"));
        let sigma = golden.get("sigma").1;
        let run = |augment| {
            let conditioning = Conditioning { augment, ..Conditioning::default() };
            model.denoise(tensor(golden.get("x")), &sigma, conditioning)
        };
        let output = run(None);
        assert_close(&format!("{name}: F"), &values(output.raw), &golden.get("raw").1, 1e-5);
        assert_close(
            &format!("{name}: D"),
            &values(output.denoised),
            &golden.get("denoised").1,
            1e-5,
        );
        if golden.has("augment") {
            let output = run(Some(tensor(golden.get("augment"))));
            let want = golden.get("augmented").1;
            assert_close(&format!("{name}: with labels"), &values(output.denoised), &want, 1e-5);
        }
    }
}

#[test]
fn every_block_can_be_asked_for_its_attention_and_nothing_else_changes() {
    for name in NETWORKS {
        let model = model(name);
        let golden = Tensors::golden(&format!("{name}.expected.safetensors"));
        let sigma = golden.get("sigma").1;
        let want = golden.get("denoised").1;
        for (number, block) in model.network.blocks().into_iter().enumerate() {
            let conditioning =
                Conditioning { attention_of: Some(number), ..Conditioning::default() };
            let output = model.denoise(tensor(golden.get("x")), &sigma, conditioning);
            assert_close(name, &values(output.denoised), &want, 1e-5);
            let maps = output.attention.expect("they were asked for");
            assert_eq!(maps.window, block.window);
            let [b, windows, _, n, m] = maps.weights.dims();
            assert_eq!((b, n, m), (4, block.window.pow(2), block.window.pow(2)));
            assert_eq!(windows * block.window.pow(2), block.side.pow(2));
            for sum in values(maps.weights.sum_dim(4)) {
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
        }
    }
}

#[test]
fn a_trajectory_of_heun() {
    for name in NETWORKS {
        let model = model(name);
        let golden = Tensors::golden(&format!("{name}.expected.safetensors"));
        let (shape, want) = golden.get("trajectory");
        let sigmas = Schedule::default().sigmas(6);
        assert_close("noise levels", &sigmas, &golden.get("sigmas").1, 1e-12);

        // The noise is that of seeds 3 and 2^40 + 1.
        let [c, h, w] = model.config.image_shape();
        let noise: Vec<f32> =
            [3, (1 << 40) + 1].iter().flat_map(|seed| start_noise(*seed, c * h * w)).collect();
        let noise: Vec<f64> = noise.into_iter().map(f64::from).collect();
        assert_close("noise", &noise, &golden.get("noise").1, 1e-7);

        let start = tensor::<4>((vec![2, c, h, w], noise)) * sigmas[0];
        let mut trajectory = Vec::new();
        let x = pollster::block_on(sample(
            Method::Heun,
            &Churn::default(),
            &sigmas,
            start,
            |_| unreachable!("no churn"),
            async |x: &Tensor<4>, sigma| {
                let output = model.denoise(x.clone(), &[sigma; 2], Conditioning::default());
                Ok::<_, Infallible>(output.denoised)
            },
            async |e: Evaluation<'_>| {
                // The first evaluation of a step sees what the step before has left.
                if e.step > 0 && e.evaluation % 2 == 1 {
                    trajectory.extend(values(e.x.clone()));
                }
                Ok(ControlFlow::Continue(()))
            },
        ));
        trajectory.extend(values(x.expect("infallible").expect("not cancelled")));
        let size = shape[1..].iter().product();
        for (step, (found, want)) in trajectory.chunks(size).zip(want.chunks(size)).enumerate() {
            assert_close(&format!("{name}: after step {step}"), found, want, 1e-5);
        }
        assert_eq!(trajectory.len(), want.len());
    }
}

#[test]
fn noise_is_the_same_everywhere() {
    let golden = Tensors::golden("noise.safetensors");
    for (name, found) in [
        ("start_0", start_noise(0, 1001)),
        ("churn_step_5_of_seed_2_to_the_40", churn_noise(1 << 40, 5, 1001)),
    ] {
        // The reference rounds the same numbers to f32; its logarithm may differ in the last bit
        // of an f64, which can show in the last of an f32.
        for (found, want) in found.iter().zip(golden.get(name).1) {
            let (found, want) = (found.to_bits(), (want as f32).to_bits());
            assert!(found.abs_diff(want) <= 1, "{name}");
        }
    }
}

#[test]
fn coefficients_are_edms() {
    let golden = Tensors::golden("precond.safetensors");
    let sigma = golden.get("sigma").1;
    let precond = PrecondConfig::default();
    let all: Vec<_> = sigma.iter().map(|&sigma| precond.coefficients(sigma)).collect();
    let column =
        |of: fn(&model::precond::Coefficients) -> f64| all.iter().map(of).collect::<Vec<_>>();
    for (name, found) in [
        ("c_skip", column(|c| c.c_skip)),
        ("c_out", column(|c| c.c_out)),
        ("c_in", column(|c| c.c_in)),
        ("c_noise", column(|c| c.c_noise)),
        ("weight", sigma.iter().map(|&sigma| LossConfig::default().weight(sigma)).collect()),
    ] {
        assert_close(name, &found, &golden.get(name).1, 1e-14);
    }
}

#[test]
fn parameters_and_multiply_adds_of_every_preset() {
    let text = std::fs::read(root().join("tests/golden/counts.json")).expect("a golden file");
    let counts: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let presets = model::preset::all();
    assert_eq!(presets.len(), counts.as_object().expect("an object").len());
    for (name, config) in presets {
        let network = shape_of(&config);
        let parameters = network.parameter_count();
        let macs = network.macs();
        let want = |what: &str| counts[name][what].as_u64().expect("a count");
        assert_eq!(parameters as u64, want("parameters"), "{name}");
        assert_eq!((macs.weights, macs.attention), (want("weights"), want("attention")), "{name}");
    }
}

#[test]
fn the_list_of_tensors_in_the_documentation_is_true() {
    let text = std::fs::read_to_string(root().join("docs/weights.md")).expect("the document");
    // Rows such as "| `tokenizer.weight` | 32, 3, 3, 3 |", below "## Preset `tiny`".
    let section = text.split("## Preset `tiny`").nth(1).expect("the section");
    let rows: Vec<(String, Vec<usize>)> = section
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            let shape = cells.next()?.split(", ").map(|n| n.parse().expect("a number")).collect();
            Some((name.to_string(), shape))
        })
        .collect();
    let config = model::preset::by_name("tiny").expect("a preset");
    let specs: Vec<_> =
        model::weights::specs(&config).into_iter().map(|spec| (spec.name, spec.shape)).collect();
    assert_eq!(rows, specs);
}
