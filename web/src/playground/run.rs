//! What the worker computes for the playground.

use std::convert::Infallible;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use model::mixture::Mixture;
use model::noise::{churn_noise, start_noise};
use model::sampler::{Evaluation, sample};
use model::schedule::Schedule;
use model::settings::{Method, Settings};

use super::{Exploration, Outcome, PARTICLES, PointSet};

/// Steps of Heun that lead to the exact end points.
const EXACT_STEPS: usize = 200;

/// Number of references that are kept.
const KEPT: usize = 4;

/// The exact end points for a set of points, a seed, and a first noise level.
#[derive(Clone, Debug)]
pub struct Reference {
    points: PointSet,
    seed: u64,
    first: f64,
    ends: Vec<f32>,
}

/// Computes both panels. Returns their results, and the bytes of their positions one after the
/// other. `references` are those of earlier calls, the last used one last.
///
/// # Errors
///
/// If the settings of a panel are not valid.
pub async fn explore(
    exploration: &Exploration,
    references: &mut Vec<Reference>,
) -> Result<([Outcome; 2], Vec<u8>), String> {
    let Exploration { points, seed, panels } = exploration;
    let mixture = points.mixture();
    let mut bytes = Vec::new();
    let mut outcomes = Vec::with_capacity(2);
    for settings in panels {
        settings.validate().map_err(|error| error.to_string())?;
        let path = follow(&mixture, settings, *seed).await;
        let first = path.sigmas[0];
        let same =
            |known: &Reference| (known.points, known.seed, known.first) == (*points, *seed, first);
        let reference = match references.iter().position(same) {
            Some(place) => references.remove(place),
            None => {
                let ends = exact(&mixture, *seed, first).await;
                Reference { points: *points, seed: *seed, first, ends }
            }
        };
        outcomes.push(path.outcome(&mixture, settings, &reference.ends));
        for position in path.positions.iter().chain(&reference.ends) {
            bytes.extend(position.to_le_bytes());
        }
        references.push(reference);
        let surplus = references.len().saturating_sub(KEPT);
        references.drain(..surplus);
    }
    let outcomes = outcomes.try_into().expect("a result for each panel");
    Ok((outcomes, bytes))
}

/// The positions of the particles, `[knots, PARTICLES, 2]`, with the noise level of each knot.
struct Path {
    sigmas: Vec<f64>,
    positions: Vec<f32>,
    random: bool,
}

impl Path {
    /// Returns the positions at the last knot.
    fn ends(&self) -> &[f32] {
        &self.positions[self.positions.len() - 2 * PARTICLES..]
    }

    fn outcome(&self, mixture: &Mixture, settings: &Settings, exact: &[f32]) -> Outcome {
        let ends = || self.ends().chunks_exact(2).map(|end| [end[0], end[1]].map(f64::from));
        let distance = |(end, exact): ([f64; 2], &[f32])| {
            (end[0] - f64::from(exact[0])).hypot(end[1] - f64::from(exact[1]))
        };
        let distances = ends().zip(exact.chunks_exact(2)).map(distance);
        Outcome {
            sigmas: self.sigmas.clone(),
            evaluations: settings.method.evaluations(settings.steps),
            distance: distances.sum::<f64>() / PARTICLES as f64,
            off: ends().filter(|&end| mixture.nearest(end) > 3.0).count() as f64 / PARTICLES as f64,
            random: self.random,
        }
    }
}

/// Samples with the sampler that makes pictures, and records the positions at every knot.
async fn follow(mixture: &Mixture, settings: &Settings, seed: u64) -> Path {
    let Settings { method, churn, schedule, steps, .. } = settings;
    let levels = schedule.sigmas(*steps);
    let size = 2 * PARTICLES;
    let tensor = |values: Vec<f32>| {
        Tensor::<4>::from_data(TensorData::new(values, [PARTICLES, 1, 1, 2]), &Device::flex())
    };
    let values = |x: &Tensor<4>| x.to_data().iter::<f32>().collect::<Vec<f32>>();
    let mut path = Path { sigmas: Vec::new(), positions: Vec::new(), random: false };
    let mut last = None;
    let mut random = false;
    let on_step = async |e: Evaluation<'_>| {
        // A step's second evaluation is not at a knot.
        if last.replace(e.step) != Some(e.step) {
            let (level, x) = (levels[e.step], values(e.x));
            if e.sigma > level {
                // The position before churn: without the noise that it has just added.
                let std = churn.s_noise * (e.sigma.powi(2) - level.powi(2)).sqrt();
                let noise = churn_noise(seed, e.step, size);
                let before = x.iter().zip(noise).map(|(x, n)| x - std as f32 * n);
                path.sigmas.push(level);
                path.positions.extend(before);
            }
            path.sigmas.push(e.sigma);
            path.positions.extend(x);
        }
        Ok::<_, Infallible>(ControlFlow::Continue(()))
    };
    let ends = sample(
        *method,
        churn,
        &levels,
        tensor(start_noise(seed, size)) * levels[0],
        |step| {
            random = true;
            tensor(churn_noise(seed, step, size))
        },
        async |x: &Tensor<4>, sigma| Ok(mixture.denoise_batch(x, sigma)),
        on_step,
    );
    let ends = ends.await.unwrap_or_else(|never| match never {}).expect("it is not cancelled");
    path.sigmas.push(0.0);
    path.positions.extend(values(&ends));
    path.random = random;
    path
}

/// Computes the exact end points from the noise of a seed at a noise level.
async fn exact(mixture: &Mixture, seed: u64, first: f64) -> Vec<f32> {
    let Schedule::Edm { sigma_min, rho, .. } = Schedule::default() else {
        unreachable!("the default schedule is EDM's")
    };
    let settings = Settings {
        method: Method::Heun,
        steps: EXACT_STEPS,
        schedule: Schedule::Edm { sigma_min, sigma_max: first, rho },
        ..Settings::default()
    };
    follow(mixture, &settings, seed).await.ends().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::{PRESETS, Playground, track::Track};
    use crate::protocol::{Event, Request};
    use model::settings::{Churn, Variance};

    fn explored(playground: Playground, seed: u64) -> ([Outcome; 2], Vec<u8>) {
        let Playground { points, panels } = playground;
        let exploration = Exploration { points, seed, panels };
        pollster::block_on(explore(&exploration, &mut Vec::new())).expect("valid settings")
    }

    /// Both panels with the same settings.
    fn twice(settings: Settings) -> Playground {
        Playground { points: PointSet::Ring, panels: [settings.clone(), settings] }
    }

    #[test]
    fn presets_show_what_they_say() {
        // Sums over seeds: a particle near the border between two points ends at the one or the other
        // by a difference that another processor rounds away, and weighs much in a single run.
        let mut sums = [[0.0; 2]; PRESETS.len()];
        let mut few = [0.0; 2];
        for seed in 0..8 {
            for (preset, sums) in PRESETS.iter().zip(&mut sums) {
                let ([a, b], _) = explored(preset.playground(), seed);
                let context = format!("{}, seed {seed}: {a:?}, {b:?}", preset.name);
                assert!(!a.random && b.random == (preset.name == "churn"), "{context}");
                assert_eq!(a.evaluations, b.evaluations, "{context}");
                let measure = |o: &Outcome| if preset.name == "churn" { o.off } else { o.distance };
                sums[0] += measure(&a);
                sums[1] += measure(&b);
            }
            let mut playground = PRESETS[0].playground();
            (playground.panels[0].steps, playground.panels[1].steps) = (9, 5);
            let ([euler, heun], _) = explored(playground, seed);
            assert_eq!(euler.evaluations, heun.evaluations);
            few[0] += euler.distance;
            few[1] += heun.distance;
        }
        for (preset, [a, b]) in PRESETS.iter().zip(sums) {
            let gain = if preset.name == "churn" { 1.5 } else { 2.0 };
            assert!(gain * b < a, "{}: {a}, {b}", preset.name);
        }
        assert!(few[0] < few[1], "{few:?}");
    }

    #[test]
    fn messages_survive_the_way_to_the_worker_and_back() {
        let Playground { points, panels } = Playground::default();
        let request = Request::Explore(Exploration { points, seed: u64::MAX, panels });
        let text = serde_json::to_string(&request).expect("plain data");
        assert_eq!(serde_json::from_str::<Request>(&text).expect("as written"), request);
        let (outcomes, bytes) = explored(Playground::default(), 5);
        let event = Event::Explored(Ok(outcomes.clone()));
        let text = serde_json::to_string(&event).expect("plain data");
        assert_eq!(serde_json::from_str::<Event>(&text).expect("as written"), event);
        let tracks = Track::both(outcomes, &bytes).expect("as many bytes as knots");
        for (track, settings) in tracks.iter().zip(Playground::default().panels) {
            assert_eq!(track.levels(), settings.schedule.sigmas(settings.steps));
        }
    }

    #[test]
    fn every_method_and_schedule_ends_near_the_data() {
        use model::config::LinearBetas;
        use model::discrete::Spacing;
        let adm = Schedule::Adm { betas: LinearBetas::default(), spacing: Spacing::Even };
        let even = Schedule::LogSnr { sigma_min: 0.002, sigma_max: 80.0 };
        for method in [
            Method::Euler,
            Method::Heun,
            Method::Ipndm { order: 4 },
            Method::Dpmpp { order: 2 },
            Method::Dpmpp { order: 3 },
            Method::Ddim { eta: 0.5 },
            Method::Ddpm { variance: Variance::Learned },
            Method::Ddpm { variance: Variance::Large },
        ] {
            for schedule in [Schedule::default(), even.clone(), adm.clone()] {
                let settings = Settings { method, schedule, steps: 60, ..Settings::default() };
                let ([a, b], bytes) = explored(twice(settings), 7);
                let context = format!("{method:?}: {a:?}");
                assert_eq!(a, b);
                assert_eq!(bytes.len(), 2 * (a.sigmas.len() + 1) * PARTICLES * 8);
                assert!(a.distance.is_finite() && a.off < 0.15, "{context}");
                let fresh = matches!(method, Method::Ddim { .. } | Method::Ddpm { .. });
                assert_eq!((a.random, a.distance < 0.1), (fresh, !fresh), "{context}");
            }
        }
    }

    /// The knots of Euler with churn: noise that raises the level, then a step along the slope.
    #[test]
    fn churn_is_recorded_before_and_after() {
        let churn = Churn { s_churn: 4.0, s_min: 0.5, s_noise: 1.01, ..Churn::default() };
        let settings = Settings { method: Method::Euler, steps: 8, churn, ..Settings::default() };
        let mixture = PointSet::Ring.mixture();
        let path = pollster::block_on(follow(&mixture, &settings, 9));
        let levels = settings.schedule.sigmas(8);
        let churned = levels.iter().filter(|&&level| level >= 0.5).count();
        assert_eq!(path.sigmas.len(), 9 + churned);
        assert!(churned > 2 && path.random);
        let knots: Vec<&[f32]> = path.positions.chunks_exact(2 * PARTICLES).collect();
        let mut jumps = 0;
        for (k, pair) in path.sigmas.windows(2).enumerate() {
            let [sigma, next] = [pair[0], pair[1]];
            for (from, to) in knots[k].chunks_exact(2).zip(knots[k + 1].chunks_exact(2)) {
                let [from, to] = [from, to].map(|x| [f64::from(x[0]), f64::from(x[1])]);
                if next > sigma {
                    continue;
                }
                let denoised = mixture.denoise(from, sigma);
                for d in 0..2 {
                    let want = from[d] + (from[d] - denoised[d]) / sigma * (next - sigma);
                    assert!((to[d] - want).abs() < 1e-4 * (1.0 + sigma), "{} not {want}", to[d]);
                }
            }
            if next > sigma {
                let noise = knots[k + 1].iter().zip(knots[k]).map(|(a, b)| f64::from(a - b));
                let square = noise.map(|n| n * n).sum::<f64>() / (2 * PARTICLES) as f64;
                let want = 1.01f64.powi(2) * (next * next - sigma * sigma);
                assert!((square / want - 1.0).abs() < 0.2, "a variance of {square}, not {want}");
                jumps += 1;
            }
        }
        assert_eq!(jumps, churned);
    }

    #[test]
    fn exact_end_points_are_kept() {
        let Playground { points, panels } = Playground::default();
        let exploration = |seed| Exploration { points, seed, panels: panels.clone() };
        let mut references = Vec::new();
        let mut explored = |seed| {
            let explored = pollster::block_on(explore(&exploration(seed), &mut references));
            (explored.expect("valid settings"), references.len())
        };
        let (first, count) = explored(1);
        assert_eq!(count, 1);
        assert_eq!(explored(1), (first.clone(), 1));
        for seed in 2..9 {
            assert!(explored(seed).1 <= KEPT);
        }
        assert_eq!(explored(1).0, first);
    }

    #[test]
    fn settings_that_are_not_valid_are_refused() {
        let settings = Settings { steps: 0, ..Settings::default() };
        let Playground { points, panels } = twice(settings);
        let exploration = Exploration { points, seed: 1, panels };
        let refused = pollster::block_on(explore(&exploration, &mut Vec::new()));
        assert!(refused.expect_err("no steps").contains("steps is 0"));
    }
}
