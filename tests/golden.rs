//! Whole networks, preconditioning, noise and a trajectory against an independent computation in
//! float64 (`tests/golden/reference.py`). The paper's blocks are held against it in the crate
//! `model`.

use std::convert::Infallible;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use model::config::{ModelConfig, PrecondConfig, VpSchedule};
use model::generate::{Settings, generate};
use model::guidance::{Guidance, GuidanceSchedule, GuidedChannels};
use model::label::Label;
use model::loss::LossConfig;
use model::network::NetworkInput;
use model::noise::{churn_noise, start_noise};
use model::sampler::{Churn, Evaluation, Method, sample};
use model::schedule::Schedule;
use model::weights::{Weights, shape_of};
use model::{Conditioning, Denoiser, Inspection, Model, NetworkOptions};
use tests::{Tensors, assert_close, root};

const NETWORKS: [&str; 8] = [
    "network",
    "network_other",
    "network_class",
    "network_a",
    "network_b",
    "network_c",
    "network_d",
    "network_e_add",
];

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
        let run = |augment, labels| {
            let conditioning = Conditioning { augment, labels };
            model.denoise(tensor(golden.get("x")), &sigma, conditioning)
        };
        let output = run(None, vec![]);
        assert_close(&format!("{name}: F"), &values(output.raw), &golden.get("raw").1, 1e-5);
        assert_close(
            &format!("{name}: D"),
            &values(output.denoised),
            &golden.get("denoised").1,
            1e-5,
        );
        if golden.has("augment") {
            let output = run(Some(tensor(golden.get("augment"))), vec![]);
            let want = golden.get("augmented").1;
            assert_close(&format!("{name}: augmented"), &values(output.denoised), &want, 1e-5);
        }
        assert_eq!(model.config.classes() > 0, golden.has("labels"), "{name}");
        if golden.has("labels") {
            // The weights of all classes, picture after picture.
            let (shape, weights) = golden.get("labels");
            let label = |row: &[f64]| {
                let parts = row.iter().copied().enumerate().filter(|(_, weight)| *weight != 0.0);
                Label::mixture(parts.collect()).expect("moderate")
            };
            let labels = weights.chunks(shape[1]).map(label).collect();
            let output = run(Some(tensor(golden.get("augment"))), labels);
            let want = golden.get("labelled").1;
            assert_close(&format!("{name}: with classes"), &values(output.denoised), &want, 1e-5);
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
        let mut single = Vec::new();
        for (number, block) in model.network.blocks().into_iter().enumerate() {
            let inspection = Inspection { attention_of: Some(number), ..Inspection::default() };
            let options = NetworkOptions { inspection, ..NetworkOptions::default() };
            let output = model.denoise(tensor(golden.get("x")), &sigma, options);
            assert_close(name, &values(output.denoised), &want, 1e-5);
            let maps = output.attention.expect("they were asked for");
            assert_eq!(maps.window, block.window);
            let [b, windows, _, n, m] = maps.weights.dims();
            assert_eq!((b, n, m), (4, block.window.pow(2), block.window.pow(2)));
            assert_eq!(windows * block.window.pow(2), block.side.pow(2));
            for sum in values(maps.weights.clone().sum_dim(4)) {
                assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            }
            single.push(values(maps.summary()));
        }
        // One pass summarises all blocks.
        let denoiser = Denoiser::new(&model);
        let summaries = denoiser.summaries(tensor(golden.get("x")), &sigma);
        assert_eq!(summaries.len(), single.len());
        for (found, want) in summaries.into_iter().zip(single) {
            assert_close(name, &values(found.expect("every block has attention")), &want, 1e-5);
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

/// The configuration that the golden latent network was made with.
fn latent_config() -> ModelConfig {
    tests::small_latent(PrecondConfig::Vp { schedule: VpSchedule::default() })
}

fn latent_model() -> Model {
    let path = root().join("tests/golden/latent.official.safetensors");
    let bytes = std::fs::read(path).expect("a golden file");
    let weights = Weights::parse_official(&bytes, latent_config()).expect("as it was released");
    Model::from_weights(&weights, &Device::flex())
}

/// The class of each picture of a golden batch.
fn classes(golden: &Tensors) -> Vec<Option<usize>> {
    golden.get("classes").1.iter().map(|&class| Some(class as usize)).collect()
}

fn labels(classes: &[usize]) -> Vec<Label> {
    classes.iter().copied().map(Label::from).collect()
}

#[test]
fn the_latent_network_with_a_class_and_without() {
    let model = latent_model();
    let golden = Tensors::golden("latent.expected.safetensors");
    let run = |classes: Vec<Option<usize>>, attention_of| {
        let labels = classes.into_iter().map(Label::from).collect();
        let x = tensor(golden.get("x"));
        let c_noise = golden.get("t").1;
        model.network.forward(NetworkInput {
            x,
            c_noise,
            options: NetworkOptions {
                conditioning: Conditioning { labels, augment: None },
                inspection: Inspection { attention_of, ..Inspection::default() },
                ..NetworkOptions::default()
            },
        })
    };
    for (name, classes) in [
        ("with_class", classes(&golden)),
        ("without", vec![None; 4]),
        ("without", vec![]),
        ("half", vec![Some(0), None, None, Some(2)]),
    ] {
        let output = run(classes, None);
        assert_eq!(output.x.dims(), [4, 8, 8, 8]);
        assert!(output.attention.is_none());
        assert_close(name, &values(output.x), &golden.get(name).1, 1e-5);
    }
    // Asked for its attention, it computes the same, and returns what it computed with.
    let (shape, want) = golden.get("attention");
    let size = shape[1..].iter().product();
    for (number, want) in want.chunks(size).enumerate() {
        let output = run(classes(&golden), Some(number));
        assert_close("output", &values(output.x), &golden.get("with_class").1, 1e-5);
        let maps = output.attention.expect("asked for");
        assert_eq!((maps.window, maps.weights.dims()), (4, [4, 1, 3, 16, 16]));
        assert_close("attention", &values(maps.weights), want, 1e-5);
    }
    assert_eq!(model.network.blocks().len(), 2);
}

#[test]
fn classifier_free_guidance_is_the_releases() {
    let model = latent_model();
    let golden = Tensors::golden("latent.expected.safetensors");
    let VpTimes { sigma, x } = VpTimes::of(&golden);
    let released = Guidance::default();
    for (sigma, want) in sigma.iter().zip(golden.get("scale").1) {
        let found = released.scale_at(&model.config.precond, *sigma);
        assert!((found - want).abs() < 1e-9 * want, "{found} is not {want}");
    }
    for (name, guidance) in [
        ("guided_three", released),
        ("guided_all", Guidance { channels: GuidedChannels::All, ..released }),
        (
            "guided_constant",
            Guidance { scale: 1.49, schedule: GuidanceSchedule::Constant, ..released },
        ),
        ("with_class", Guidance { scale: 1.0, ..released }),
        ("with_class", Guidance { sigma_low: 1e3, sigma_high: 1e4, ..released }),
        (
            "without",
            Guidance {
                scale: 0.0,
                schedule: GuidanceSchedule::Constant,
                channels: GuidedChannels::All,
                ..released
            },
        ),
    ] {
        let labels = classes(&golden).into_iter().map(Label::from).collect();
        let denoiser = Denoiser { labels, guidance: Some(guidance), ..Denoiser::new(&model) };
        let output = denoiser.denoise(x.clone(), &sigma);
        let want = tensor::<4>(golden.get(name));
        let eps = |raw: Tensor<4>| raw.narrow(1, 0, 4);
        assert_close(name, &values(eps(output.raw.clone())), &values(eps(want.clone())), 1e-5);
        // The variance is that of the class, whatever the guidance.
        let class = tensor::<4>(golden.get("with_class"));
        let variance = |raw: Tensor<4>| values(raw.narrow(1, 4, 4));
        assert_close("variance", &variance(output.raw.clone()), &variance(class), 1e-5);
        // What is denoised is what the guided noise leaves.
        let column = TensorData::new(sigma.clone(), [4, 1, 1, 1]);
        let column = Tensor::<4>::from_data(column, &Device::flex());
        let left = x.clone() - eps(output.raw) * column;
        assert_close("denoised", &values(output.denoised), &values(left), 1e-5);
    }
}

/// Noise levels whose time steps are those of the golden batch, and pictures that come to the
/// network as those of the batch.
struct VpTimes {
    sigma: Vec<f64>,
    x: Tensor<4>,
}

impl VpTimes {
    fn of(golden: &Tensors) -> Self {
        let schedule = VpSchedule::default();
        let t = golden.get("t").1;
        let sigma: Vec<f64> = t.iter().map(|t| schedule.sigma(t / 999.0)).collect();
        let scale: Vec<f64> = sigma.iter().map(|sigma| sigma.hypot(1.0)).collect();
        let scale = Tensor::<4>::from_data(TensorData::new(scale, [4, 1, 1, 1]), &Device::flex());
        Self { sigma, x: tensor::<4>(golden.get("x")) * scale }
    }
}

#[test]
fn samplers_run_under_guidance() {
    let model = latent_model();
    let device = Device::flex();
    let run = |settings: &Settings, seeds: &[u64]| {
        settings.validate().expect("they make sense");
        settings.validate_for(&model.config).expect("the model has the classes");
        let x = pollster::block_on(generate(&model, settings, seeds, &device, async |_| {
            Ok::<_, Infallible>(ControlFlow::Continue(()))
        }));
        values(x.expect("infallible").expect("not cancelled"))
    };
    for method in [
        Method::Euler,
        Method::Heun,
        Method::Ipndm { order: 4 },
        Method::Dpmpp { order: 2 },
        Method::Dpmpp { order: 3 },
    ] {
        let plain = Settings { steps: 3, method, classes: labels(&[4, 1]), ..Settings::default() };
        let guided = |scale| Settings {
            guidance: Some(Guidance { scale, ..Guidance::default() }),
            ..plain.clone()
        };
        let all = run(&plain, &[0, 1, 2, 3]);
        // A scale of 1 changes nothing; another does.
        assert_eq!(run(&guided(1.0), &[0, 1, 2, 3]), all);
        assert_ne!(run(&guided(4.4), &[0, 1, 2, 3]), all);
        // The class goes with the seed, not with the place in the batch.
        let size = all.len() / 4;
        assert_close("alone", &run(&plain, &[3]), &all[3 * size..], 1e-5);
        let one = Settings { classes: labels(&[1]), ..plain.clone() };
        assert_close("of class 1", &run(&one, &[3]), &all[3 * size..], 1e-5);
        let other = Settings { classes: labels(&[4]), ..plain };
        assert_ne!(run(&other, &[3]), run(&one, &[3]));
    }
}

#[test]
fn classes_that_are_not_there_are_refused() {
    let settings = |classes: Vec<usize>, guidance| {
        let classes = labels(&classes);
        Settings { classes, guidance, ..Settings::default() }
    };
    let tiny = model::preset::by_name("tiny").expect("a preset");
    for (settings, config, message) in [
        (settings(vec![0, 5], None), &latent_config(), "class 5: this model has 5, from 0 to 4"),
        (settings(vec![0], None), &tiny, "class 0: this model has no classes"),
        (settings(vec![], Some(Guidance::default())), &latent_config(), "needs a class"),
    ] {
        let error = settings.validate_for(config).expect_err(message).to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    }
    for (guidance, message) in [
        (Guidance { scale: f64::NAN, ..Guidance::default() }, "guidance scale NaN"),
        (
            Guidance {
                schedule: GuidanceSchedule::PowerCosine { power: 0.0 },
                ..Guidance::default()
            },
            "power 0",
        ),
        (Guidance { sigma_low: 2.0, sigma_high: 1.0, ..Guidance::default() }, "from sigma 2 to 1"),
    ] {
        let error = settings(vec![0], Some(guidance)).validate().expect_err(message).to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
    }
}

/// The numbers of the paper's table 9, and of the release.
#[test]
fn the_latent_networks_have_the_released_sizes() {
    for (name, parameters) in [("latent256", 561_035_232), ("latent512", 562_382_816)] {
        let network = shape_of(&model::preset::by_name(name).expect("a preset"));
        assert_eq!(network.specs().iter().map(|spec| spec.len()).sum::<usize>(), parameters);
        // The released files hold the position embedding and 28 indices besides.
        assert_eq!(network.specs().len() + 1 + 28, 346);
    }
    let macs = shape_of(&model::preset::by_name("latent256").expect("a preset")).macs();
    // 114.2 G in the blocks' linear maps, and a little more before and after them.
    assert!((114.2..114.3).contains(&(macs.weights as f64 / 1e9)), "{macs:?}");
    assert!((118.45..118.55).contains(&(macs.total() as f64 / 1e9)), "{macs:?}");
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
    let read = |name| {
        let text = std::fs::read(root().join("tests/golden").join(name)).expect("a golden file");
        serde_json::from_slice::<serde_json::Map<_, _>>(&text).expect("JSON")
    };
    let mut counts = read("counts.json");
    counts.extend(read("ablations.json"));
    let presets = model::preset::all();
    assert_eq!(presets.len(), counts.len());
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
