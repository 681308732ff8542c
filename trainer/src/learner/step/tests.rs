use super::*;
use crate::config::EmaProfiles;
use crate::data::dataset::Dataset;
use crate::data::loader::Loader;
use crate::run::checkpoint::State;
use crate::run::progress::Progress;
use burn::tensor::{Tensor, TensorData};
use model::Conditioning;
use model::config::NetworkConfig;
use model::examples::Examples;
use model::state::{StepOptions, TrainState};
use std::sync::Arc;

/// A small network with dropout and augmentation, in batches of 8.
fn config() -> TrainConfig {
    let mut config = TrainConfig::preset("tiny").expect("a preset");
    let NetworkConfig::Image(image) = &mut config.model.network else { unreachable!() };
    image.channels = vec![32, 32];
    image.blocks = vec![1, 1];
    image.time.width = 32;
    image.dropout = 0.2;
    TrainConfig { batch: 8, lr_ramp: 0, augment: 0.5, ..config }
}

/// Takes 4 steps with the given number of workers.
fn learn(config: &TrainConfig, workers: usize) -> (Learner, Vec<Step>) {
    let devices = vec![Device::flex(); workers];
    let make = |device: &_| Ok(Model::new(config.model.clone(), 1, device)?);
    let mut learner = Learner::new(config, &devices, None, make, make).expect("it fits together");
    let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
    let loader = Loader::new(config, Arc::new(data), 0, 0..config.batch);
    let steps = (0..4u64)
        .map(|step| {
            let step =
                learner.step(loader.next().expect("read"), config, step * config.batch as u64);
            step.expect("one machine")
        })
        .collect();
    (learner, steps)
}

/// Euclidean distance of the parameters of two models.
fn distance(a: &Model, b: &Model) -> f64 {
    let values = |model: &Model| {
        model.parameters().into_iter().flat_map(|(_, values)| values).collect::<Vec<f32>>()
    };
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    let squares = a.into_iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

fn start(config: &TrainConfig) -> Model {
    Model::new(config.model.clone(), 1, &Device::flex()).expect("valid")
}

#[test]
fn micro_batches_and_workers_take_the_same_step() {
    let whole = config();
    let (one, steps) = learn(&whole, 1);
    let moved = distance(&start(&whole), one.model());
    for (micro_batch, workers) in [(Some(2), 1), (Some(4), 2), (None, 2), (Some(1), 4)] {
        let gradient_checkpointing = workers == 2;
        let parts = TrainConfig { micro_batch, gradient_checkpointing, ..whole.clone() };
        let (other, other_steps) = learn(&parts, workers);
        for (a, b) in steps.iter().zip(&other_steps) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-5 && (a.norm / b.norm - 1.0).abs() < 1e-4);
        }
        for (a, b) in [(one.model(), other.model()), (one.ema(), other.ema())] {
            let off = distance(a, b);
            assert!(off < 1e-2 * moved, "{micro_batch:?} x {workers}: off by {off} of {moved}");
        }
        for worker in &other.workers {
            assert_eq!(distance(&worker.model, other.model()), 0.0);
        }
    }
}

/// The model crate's step on one device, with which the page trains, is the same step bit for bit.
#[test]
fn one_device_takes_the_step_of_the_model_crate() {
    let config = TrainConfig { augment: 0.0, clip: Some(0.5), ..config() };
    let mut learner = learner(&config);
    let [beta_1, beta_2] = config.adam.betas.map(|beta| beta as f32);
    let adam = AdamConfig::new()
        .with_beta_1(beta_1)
        .with_beta_2(beta_2)
        .with_epsilon(config.adam.eps as f32);
    let mut state =
        TrainState::new(config.model.clone(), 1, &adam, &Device::flex()).expect("valid");
    let device = Device::flex().autodiff();
    let [c, h, w] = config.model.image_shape();
    let b = config.batch;
    for (i, batch) in batches(&config, 3).into_iter().enumerate() {
        let images = (i * b) as u64;
        let tensor = |values: &[f32]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [b, c, h, w]), &device)
        };
        let labels = config.model.augment_labels();
        let augment = TensorData::new(batch.augment.clone(), [b, labels]);
        let examples = Examples {
            images: tensor(&batch.images),
            noise: tensor(&batch.noise),
            sigma: batch.sigma.clone(),
            conditioning: Conditioning {
                augment: Some(Tensor::from_data(augment, &device)),
                ..Conditioning::default()
            },
            dropout: batch.dropout.clone(),
        };
        let (lr, ema_beta) = (config.lr(images), config.ema_beta(images));
        let own =
            state.step(&config.loss, examples, StepOptions { lr, clip: config.clip, ema_beta });
        let step = learner.step(batch, &config, images).expect("one machine");
        assert_eq!(step, own);
        assert!(step.norm > 0.5, "nothing was clipped: {}", step.norm);
    }
    assert!(distance(&start(&config), state.model()) > 0.0);
    assert_eq!(distance(learner.model(), state.model()), 0.0);
    assert_eq!(distance(learner.ema(), state.ema()), 0.0);
}

/// After one step with decay, the weights differ by `lr · weight_decay · w` from those without.
#[test]
fn weight_decay_shrinks_the_weights_apart_from_the_gradient() {
    let config = config();
    let step = |weight_decay: f64| {
        let mut config = config.clone();
        config.adam.weight_decay = weight_decay;
        let make = |device: &_| Ok(Model::new(config.model.clone(), 1, device)?);
        let mut learner =
            Learner::new(&config, &[Device::flex()], None, make, make).expect("valid");
        let data = Dataset::open(&config.data, &config.model, false).expect("embedded");
        let loader = Loader::new(&config, Arc::new(data), 0, 0..config.batch);
        learner.step(loader.next().expect("read"), &config, 8).expect("one machine");
        let values = learner.model().parameters().into_iter().flat_map(|(_, values)| values);
        values.collect::<Vec<f32>>()
    };
    let (plain, decayed) = (step(0.0), step(20.0));
    let before = start(&config).parameters().into_iter().flat_map(|(_, values)| values);
    let factor = (config.adam.lr * 20.0) as f32;
    let mut moved = 0;
    for ((before, plain), decayed) in before.zip(plain).zip(decayed) {
        let want = plain - factor * before;
        assert!((decayed - want).abs() < 1e-6, "{before}: {decayed}, not {want}");
        moved += usize::from(before.abs() > 0.01);
    }
    assert!(moved > 1_000);
}

/// The weights stay in single precision: updates below the resolution of bfloat16 add up.
#[test]
fn bf16_learns_as_f32_does() {
    let mut config = config();
    config.adam.lr = 1e-5;
    let (exact, exact_steps) = learn(&config, 1);
    config.precision = Precision::Bf16;
    let (rounded, steps) = learn(&config, 1);
    for (a, b) in exact_steps.iter().zip(&steps) {
        assert!((a.loss / b.loss - 1.0).abs() < 0.02, "{} and {}", a.loss, b.loss);
        assert!((a.norm / b.norm - 1.0).abs() < 0.1, "{} and {}", a.norm, b.norm);
    }
    assert_ne!(exact_steps[3].loss, steps[3].loss, "nothing was computed in bf16");
    let start = start(&config);
    let (moved, off) = (distance(&start, exact.model()), distance(rounded.model(), exact.model()));
    assert!(off < 0.5 * moved, "{off}, of {moved}");
}

fn learner(config: &TrainConfig) -> Learner {
    let make = |device: &_| Ok(Model::new(config.model.clone(), 1, device)?);
    Learner::new(config, &[Device::flex()], None, make, make).expect("it fits together")
}

/// `n` batches of the embedded dataset.
fn batches(config: &TrainConfig, n: usize) -> Vec<Batch> {
    let data = Dataset::open(&config.data, &config.model, config.resize).expect("embedded");
    let loader = Loader::new(config, Arc::new(data), 0, 0..config.batch);
    (0..n).map(|_| loader.next().expect("read")).collect()
}

/// The check of a checkpoint knows where the moments are in Burn's record.
#[test]
fn moments_that_are_not_finite_are_found() {
    for optimizer in [Optimizer::Adam, Optimizer::Muon] {
        let config = TrainConfig { optimizer, ..config() };
        let mut learner = learner(&config);
        let batch = batches(&config, 1).remove(0);
        learner.step(batch, &config, 8).expect("one machine");
        let progress = Progress::new(config, String::new());
        let problem = |optimizer| {
            let (network, ema, averages) = (Vec::new(), Vec::new(), Vec::new());
            let progress = progress.clone();
            State { progress, network, ema, averages, optimizer }.not_finite()
        };
        let record = learner.learned().read(progress.clone()).expect("a record").optimizer;
        assert_eq!(problem(record.clone()), None);
        let length = record.len();
        // The moments take nearly all of the record.
        for at in [length / 4 * 2, length / 8 * 4, length - 4] {
            let at = length - (length - at).next_multiple_of(4);
            for bad in [f32::NAN, f32::INFINITY] {
                let mut record = record.clone();
                record[at..at + 4].copy_from_slice(&bad.to_le_bytes());
                assert_eq!(problem(record), Some("optimizer state"));
            }
        }
    }
}

/// What is saved is what there was when the save began, whatever the learner does meanwhile, and the
/// learner goes on as if nothing were saved.
#[test]
fn what_was_learned_stays_while_the_learner_goes_on() {
    for optimizer in [Optimizer::Adam, Optimizer::Muon] {
        let ema_profiles = Some(EmaProfiles { stds: vec![0.1], snapshot_every: None });
        let config = TrainConfig { optimizer, ema_profiles, ..config() };
        let (mut plain, mut saved) = (learner(&config), learner(&config));
        let progress = Progress::new(config.clone(), String::new());
        let steps = |learner: &mut Learner, numbers: std::ops::Range<usize>| {
            for (i, batch) in batches(&config, numbers.end).into_iter().enumerate() {
                let images = (i * config.batch) as u64;
                if numbers.contains(&i) {
                    assert!(learner.step(batch, &config, images).expect("one machine").taken);
                }
            }
        };
        steps(&mut plain, 0..2);
        steps(&mut saved, 0..2);
        let state = |learner: &Learner| learner.learned().read(progress.clone()).expect("a state");
        let want = state(&plain);
        let learned = saved.learned();
        steps(&mut saved, 2..4);
        // On another thread, as in training.
        let found = std::thread::spawn({
            let progress = progress.clone();
            move || learned.read(progress).expect("a state")
        });
        let found = found.join().expect("no panic");
        assert!(found.network == want.network && found.ema == want.ema, "{optimizer:?}");
        assert!(found.averages == want.averages, "{optimizer:?}");
        // The order of tensors in a record is not fixed, nor is the padding between them.
        let values = |record: Vec<u8>| {
            let length = u32::from_le_bytes(record[6..10].try_into().expect("four bytes"));
            let values = record[10 + length as usize..].rchunks_exact(4);
            let mut values: Vec<&[u8]> = values.filter(|value| **value != [0; 4]).collect();
            values.sort();
            values.concat()
        };
        assert!(values(found.optimizer) == values(want.optimizer), "{optimizer:?}");
        assert!(found.network != saved.model().parameters(), "the steps changed nothing");

        steps(&mut plain, 2..4);
        let [found, want] = [&saved, &plain].map(state);
        assert!(found.network == want.network && found.ema == want.ema, "{optimizer:?}");
        assert!(found.averages == want.averages, "{optimizer:?}");
    }
}

/// Steps with NaN in an image, infinite noise or an infinite loss weight change nothing. The
/// next step shows that the optimizer state is unchanged too.
#[test]
fn a_step_that_is_not_finite_changes_nothing() {
    for optimizer in [Optimizer::Adam, Optimizer::Muon] {
        let config = TrainConfig { optimizer, clip: Some(1.0), ..config() };
        let batch = config.batch as u64;
        let (mut plain, mut disturbed) = (learner(&config), learner(&config));
        for learner in [&mut plain, &mut disturbed] {
            let first = batches(&config, 1).remove(0);
            assert!(learner.step(first, &config, batch).expect("one machine").taken);
        }
        let before = disturbed.model().parameters();
        let average = disturbed.ema().parameters();
        let spoil: [fn(&mut Batch); 3] = [
            |batch| batch.images[5] = f32::NAN,
            |batch| batch.noise[5] = f32::INFINITY,
            |batch| batch.weight[1] = f64::INFINITY,
        ];
        for spoil in spoil {
            let mut bad = batches(&config, 1).remove(0);
            spoil(&mut bad);
            let step = disturbed.step(bad, &config, 2 * batch).expect("one machine");
            assert!(!step.taken, "loss {}, gradient norm {}", step.loss, step.norm);
            assert!(disturbed.model().parameters() == before, "the weights changed");
            assert!(disturbed.ema().parameters() == average, "the moving average changed");
        }
        for learner in [&mut plain, &mut disturbed] {
            let last = batches(&config, 2).remove(1);
            assert!(learner.step(last, &config, 3 * batch).expect("one machine").taken);
        }
        assert_eq!(distance(plain.model(), disturbed.model()), 0.0, "{optimizer:?}");
        assert_eq!(distance(plain.ema(), disturbed.ema()), 0.0, "{optimizer:?}");
        assert!(plain.model().parameters() != before, "the last step was not taken");
    }
}

/// Averages with power-function profiles are those of the weights after each step, computed in
/// double precision. Other values are the same with and without them.
#[test]
fn averages_have_their_profiles() {
    let plain = config();
    let ema_profiles = Some(EmaProfiles { stds: vec![0.1, 0.2], snapshot_every: None });
    let config = TrainConfig { ema_profiles, ..plain.clone() };
    let (mut with, mut without) = (learner(&config), learner(&plain));
    assert_eq!((with.averages().len(), without.averages().len()), (2, 0));
    let values = |model: &Model| {
        let values = model.parameters().into_iter().flat_map(|(_, values)| values);
        values.map(f64::from).collect::<Vec<f64>>()
    };
    let gammas = [6.9372039, 1.8262138];
    let mut want = [Vec::new(), Vec::new()];
    let batch = config.batch as u64;
    for (step, data) in batches(&config, 3).into_iter().enumerate() {
        with.step(data, &config, step as u64 * batch).expect("one machine");
        let weights = values(with.model());
        for (want, gamma) in want.iter_mut().zip(gammas) {
            want.resize(weights.len(), 0.0);
            let beta = (1.0 - 1.0 / (step + 1) as f64).powf(gamma + 1.0);
            want.iter_mut().zip(&weights).for_each(|(w, x)| *w = beta * *w + (1.0 - beta) * x);
        }
    }
    for (step, data) in batches(&plain, 3).into_iter().enumerate() {
        without.step(data, &plain, step as u64 * batch).expect("one machine");
    }
    let moved = distance(&start(&config), with.model());
    for (average, want) in with.averages().zip(&want) {
        let squares = values(average).into_iter().zip(want).map(|(a, b)| (a - b).powi(2));
        let off = squares.sum::<f64>().sqrt();
        assert!(off < 1e-3 * moved, "off by {off} of {moved}");
        assert!(distance(average, with.model()) > 1e-3 * moved, "not an average");
    }
    assert_eq!(distance(with.model(), without.model()), 0.0);
    assert_eq!(distance(with.ema(), without.ema()), 0.0);
}

/// With a large epsilon, a step of Adam is proportional to the gradient: a gradient that is
/// clipped to a hundredth of its norm moves the weights a hundredth as far.
#[test]
fn clipping_limits_the_step() {
    let mut config = config();
    (config.adam.lr, config.adam.eps) = (1e6, 1e6);
    let start = start(&config);
    let moved = |config: &TrainConfig| {
        let mut learner = learner(config);
        let batch = batches(config, 1).remove(0);
        let step = learner.step(batch, config, 0).expect("one machine");
        (step.norm, distance(&start, learner.model()))
    };
    let (norm, free) = moved(&config);
    let (same_norm, clipped) = moved(&TrainConfig { clip: Some(norm / 100.0), ..config.clone() });
    assert_eq!(norm, same_norm, "the reported norm is that before clipping");
    assert!((free / norm - 1.0).abs() < 1e-2, "{free} for a gradient of norm {norm}");
    assert!((100.0 * clipped / free - 1.0).abs() < 1e-2, "{clipped} and {free}");
    let (_, loose) = moved(&TrainConfig { clip: Some(norm * 2.0), ..config.clone() });
    assert_eq!(loose, free, "a norm below the limit is not scaled");
}
