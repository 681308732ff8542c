//! Which solver needs the fewest evaluations: how far its pictures are from those of 100 steps of
//! Heun, from the same noise. Prints the tables of docs/solvers.md.
//!
//! ```sh
//! cargo run -p tests --example solvers -- [SEEDS] [WEIGHTS]
//! ```
//!
//! The distance of two pictures is the root of the mean squared difference of their values, as they
//! are shown (within -1 to 1), in levels of 255; what is printed is its mean over the seeds, from 0
//! to SEEDS - 1. Nothing is rounded to whole levels.

use std::convert::Infallible;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::Device;
use model::Model;
use model::generate::{Settings, generate};
use model::sampler::{Evaluation, Method};
use model::schedule::Schedule;
use model::weights::Weights;
use tests::root;

/// The solvers; from the third on they have a history.
const METHODS: [(&str, Method); 7] = [
    ("Euler", Method::Euler),
    ("Heun", Method::Heun),
    ("iPNDM-2", Method::Ipndm { order: 2 }),
    ("iPNDM-3", Method::Ipndm { order: 3 }),
    ("iPNDM-4", Method::Ipndm { order: 4 }),
    ("DPM-Solver++(2M)", Method::Dpmpp { order: 2 }),
    ("DPM-Solver++(3M)", Method::Dpmpp { order: 3 }),
];
/// Evaluations allowed, down to EDM's lowest noise level.
const EVALUATIONS: [usize; 7] = [6, 8, 10, 12, 16, 18, 35];
/// The same where the noise levels end earlier.
const FEW: [usize; 3] = [8, 10, 12];
/// The lowest noise levels above 0: EDM's, and one that is hardly to be seen either.
const SIGMA_MIN: [f64; 2] = [0.002, 0.02];
const SIGMA_MAX: f64 = 80.0;
/// Pictures computed at a time.
const BATCH: usize = 32;

fn main() {
    let mut args = std::env::args().skip(1);
    let seeds: u64 = args.next().map_or(64, |text| text.parse().expect("a number of seeds"));
    let shipped = || root().join("www/weights/tiny-emoji.safetensors");
    let path = args.next().map_or_else(shipped, PathBuf::from);
    let bytes = std::fs::read(&path).expect("a file that can be read");
    let weights = Weights::parse(&bytes).expect("a weights file");
    let model = Model::from_weights(&weights, &Device::flex());
    println!("{}: {} images seen; {seeds} seeds", path.display(), weights.card().images_seen);

    let seeds: Vec<u64> = (0..seeds).collect();
    let reference = pictures(&model, &Settings { steps: 100, ..Settings::default() }, &seeds);
    let tables = [(&EVALUATIONS[..], &METHODS[..]), (&FEW[..], &METHODS[2..])];
    for (sigma_min, (allowed, methods)) in SIGMA_MIN.into_iter().zip(tables) {
        let head: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        println!("\nDown to σ = {sigma_min}:\n\n| solver | levels | {} |", head.join(" | "));
        println!("|---|---|{}", "---|".repeat(allowed.len()));
        let edm = Schedule::Edm { sigma_min, sigma_max: SIGMA_MAX, rho: 7.0 };
        let even = Schedule::LogSnr { sigma_min, sigma_max: SIGMA_MAX };
        for (levels, schedule) in [("EDM", edm), ("log-SNR", even)] {
            for &(name, method) in methods {
                print!("| {name} | {levels} |");
                for &evaluations in allowed {
                    let steps = steps(method, evaluations);
                    let schedule = schedule.clone();
                    let settings = Settings { steps, method, schedule, ..Settings::default() };
                    let made = pictures(&model, &settings, &seeds);
                    print!(" {:.2} |", distance(&made, &reference));
                    std::io::stdout().flush().expect("somebody reads this");
                }
                println!();
            }
        }
    }
}

/// As many steps as there are evaluations for. Heun takes two a step, and one in the last: where
/// they are even, one is left over.
fn steps(method: Method, evaluations: usize) -> usize {
    (1..).take_while(|&steps| method.evaluations(steps) <= evaluations).last().expect("one step")
}

/// One picture per seed, as its values are shown.
fn pictures(model: &Model, settings: &Settings, seeds: &[u64]) -> Vec<Vec<f32>> {
    settings.validate().expect("they make sense");
    let mut pictures = Vec::with_capacity(seeds.len());
    for seeds in seeds.chunks(BATCH) {
        let go_on = async |_: Evaluation<'_>| Ok::<_, Infallible>(ControlFlow::Continue(()));
        let made = pollster::block_on(generate(model, settings, seeds, &Device::flex(), go_on));
        let Ok(Some(made)) = made else { unreachable!("it neither fails nor breaks off") };
        let values: Vec<f32> =
            made.clamp(-1.0, 1.0).into_data().try_into_vec().expect("pictures are f32");
        pictures.extend(values.chunks(values.len() / seeds.len()).map(<[f32]>::to_vec));
    }
    pictures
}

/// The mean over pairs of pictures of how far they are apart, in levels of 255.
fn distance(made: &[Vec<f32>], wanted: &[Vec<f32>]) -> f64 {
    let apart = |(made, want): (&Vec<f32>, &Vec<f32>)| {
        let squares = made.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2));
        127.5 * (squares.sum::<f64>() / made.len() as f64).sqrt()
    };
    made.iter().zip(wanted).map(apart).sum::<f64>() / made.len() as f64
}
