//! Generation of pictures from seeds, shared by the command line and the web page.

use core::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};

use crate::denoiser::{Denoiser, KeptRegion};
use crate::diffusion::label::Label;
use crate::diffusion::noise::{churn_noise, start_noise};
use crate::diffusion::sampler::{Evaluation, Prediction, sample};
use crate::model::Model;

pub use crate::diffusion::settings::{Settings, SettingsError};

/// Generates one picture per seed, `[seeds, C, H, W]`. Returns `None` if `on_step` cancelled.
///
/// # Errors
///
/// The error of `on_step`.
///
/// # Panics
///
/// If there is no seed, or the settings are not valid.
pub async fn generate<E>(
    model: &Model,
    settings: &Settings,
    seeds: &[u64],
    device: &Device,
    on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    let labels = settings.labels_of(seeds);
    generate_labelled(model, settings, seeds, labels, device, on_step).await
}

/// Generates pictures as [`generate`] does, but with the given label of each picture instead of those
/// of the settings. Without labels, no picture has a class.
///
/// # Errors
///
/// The error of `on_step`.
///
/// # Panics
///
/// As [`generate`], or if there are labels but not one per seed.
pub async fn generate_labelled<E>(
    model: &Model,
    settings: &Settings,
    seeds: &[u64],
    labels: Vec<Label>,
    device: &Device,
    on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    let size = model.config.image_shape().iter().product();
    let noise = seeds.iter().flat_map(|&seed| start_noise(seed, size)).collect();
    let start = Start { noise, seeds, guide: None };
    run(model, settings, start, labels, device, on_step).await
}

/// Starting point of [`generate_from`].
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Unit noise of all pictures, one after another, each `[C, H, W]`.
    pub noise: Vec<f32>,
    /// Seed of each picture, for the noise added while sampling and for its label.
    pub seeds: &'a [u64],
    /// Reference picture for all of them.
    pub guide: Option<Reference>,
}

/// Reference picture of image-to-image generation and inpainting.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Values of the picture, `[C, H, W]`.
    pub picture: Vec<f32>,
    /// Noise level that is added to the picture and at which sampling starts: the lower it is, the
    /// more of the picture is kept. It is capped at the first level of the schedule.
    pub sigma: f64,
    /// Inpainting mask, `[H, W]`: 1 where the picture is kept, 0 where it is generated.
    pub keep: Option<Vec<f32>>,
}

/// Generates pictures as [`generate`] does, but from given noise, or from a reference picture.
/// Where the reference is kept, it replaces the denoised picture after every evaluation, so that
/// the noisy picture follows it at every noise level.
///
/// # Errors
///
/// The error of `on_step`.
///
/// # Panics
///
/// If there is no seed, sizes differ, or the settings are not valid.
pub async fn generate_from<E>(
    model: &Model,
    settings: &Settings,
    start: Start<'_>,
    device: &Device,
    on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    let labels = settings.labels_of(start.seeds);
    run(model, settings, start, labels, device, on_step).await
}

/// Generates the picture of each seed with its label.
async fn run<E>(
    model: &Model,
    settings: &Settings,
    start: Start<'_>,
    labels: Vec<Label>,
    device: &Device,
    on_step: impl AsyncFnMut(Evaluation<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<Option<Tensor<4>>, E> {
    let [c, h, w] = model.config.image_shape();
    let Start { noise, seeds, guide: reference } = start;
    let tensor = |values: Vec<f32>, shape: [usize; 4]| {
        Tensor::<4>::from_data(TensorData::new(values, shape), device)
    };
    let pictures = |values| tensor(values, [seeds.len(), c, h, w]);
    let precond = &model.config.precond;
    let highest = reference.as_ref().map(|reference| reference.sigma);
    let sigmas = settings.sigmas(precond, highest).expect("valid settings");
    // With a reference picture, which is at full strength, the noise has the level as its standard
    // deviation. Without one, it has the standard deviation of the noisy pictures that the network
    // was trained on.
    let std = if reference.is_some() { sigmas[0] } else { precond.initial_std(sigmas[0]) };
    let mut start = pictures(noise) * std;
    let mut denoiser = Denoiser { labels, ..Denoiser::of_settings(model, settings, &[]) };
    if let Some(Reference { picture, keep, .. }) = reference {
        let picture = tensor(picture, [1, c, h, w]);
        start = start + picture.clone();
        denoiser.kept = keep.map(|keep| KeptRegion { picture, mask: tensor(keep, [1, 1, h, w]) });
    }
    sample(
        settings.method,
        &settings.churn,
        &sigmas,
        start,
        |step| {
            pictures(seeds.iter().flat_map(|&seed| churn_noise(seed, step, c * h * w)).collect())
        },
        async |x: &Tensor<4>, sigma| {
            let output = denoiser.denoise(x.clone(), &vec![sigma; seeds.len()]);
            Ok(Prediction { variance: output.variance(), denoised: output.denoised })
        },
        on_step,
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Window;
    use crate::config::{ImageConfig, LinearBetas, ModelConfig, NetworkConfig, PrecondConfig};
    use crate::diffusion::discrete::Spacing;
    use crate::diffusion::sampler::{Churn, Method, Variance};
    use crate::diffusion::schedule::Schedule;
    use core::convert::Infallible;

    fn model() -> Model {
        let network = NetworkConfig::Image(ImageConfig {
            blocks: vec![1, 1],
            // Large enough for the blocks to matter in an untrained network.
            branch_init: 1.0,
            ..crate::golden::config()
        });
        let config = ModelConfig { network, precond: PrecondConfig::default() };
        Model::new(config, 0, &Device::flex()).expect("it fits together")
    }

    fn generated(settings: &Settings, start: Start<'_>) -> Vec<f32> {
        let step = async |_: Evaluation<'_>| Ok::<_, Infallible>(ControlFlow::Continue(()));
        let (model, device) = (model(), Device::flex());
        let pictures = generate_from(&model, settings, start, &device, step);
        let pictures = pollster::block_on(pictures).expect("infallible").expect("not cancelled");
        pictures.into_data().try_to_vec().expect("f32")
    }

    fn settings() -> Settings {
        let churn = Churn { s_churn: 2.0, ..Churn::default() };
        Settings { steps: 4, churn, ..Settings::default() }
    }

    fn start(guide: Option<Reference>) -> Start<'static> {
        Start { noise: start_noise(1, 192), seeds: &[1], guide }
    }

    fn picture() -> Vec<f32> {
        (0..192).map(|i| (i as f32 / 7.0).sin()).collect()
    }

    /// Settings with churn, and with the multistep methods.
    fn settings_variants() -> [Settings; 4] {
        let of = |method| Settings { method, steps: 6, ..Settings::default() };
        let [ipndm, dpmpp] = [Method::Ipndm { order: 4 }, Method::Dpmpp { order: 3 }].map(of);
        let schedule = Schedule::LogSnr { sigma_min: 0.002, sigma_max: 80.0 };
        [settings(), ipndm, dpmpp.clone(), Settings { schedule, ..dpmpp }]
    }

    #[test]
    fn inpainting_changes_only_what_is_not_kept() {
        // The left half of every row.
        let keep: Vec<f32> = (0..64).map(|i| if i % 8 < 4 { 1.0 } else { 0.0 }).collect();
        for settings in settings_variants() {
            let reference = Reference { picture: picture(), sigma: 80.0, keep: Some(keep.clone()) };
            let pictures = generated(&settings, start(Some(reference)));
            for (i, (value, want)) in pictures.iter().zip(picture()).enumerate() {
                let same = (value - want).abs() < 1e-3;
                assert_eq!(
                    same,
                    keep[i % 64] == 1.0,
                    "value {i}: {value}, where the picture has {want}: {settings:?}"
                );
            }
        }
    }

    #[test]
    fn little_noise_changes_a_picture_little() {
        for settings in settings_variants() {
            let distance = |sigma| {
                let reference = Reference { picture: picture(), sigma, keep: None };
                let pictures = generated(&settings, start(Some(reference)));
                pictures.iter().zip(picture()).map(|(a, b)| (a - b).abs()).sum::<f32>() / 192.0
            };
            assert!(distance(0.01) < 0.05, "{} {settings:?}", distance(0.01));
            assert!(distance(20.0) > 0.2, "{} {settings:?}", distance(20.0));
        }
    }

    /// The first evaluation receives the picture plus noise of the reported level, under every
    /// preconditioner.
    #[test]
    fn sampling_from_a_picture_starts_at_its_noise_level() {
        let device = Device::flex();
        for precond in [
            PrecondConfig::default(),
            PrecondConfig::Vp { schedule: Default::default() },
            PrecondConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 },
            PrecondConfig::Adm { betas: LinearBetas::default() },
        ] {
            let mut model = model();
            model.config.precond = precond;
            let reference = Reference { picture: picture(), sigma: 1.5, keep: None };
            let settings = Settings { steps: 2, ..Settings::default() };
            let mut seen = None;
            let step = async |e: Evaluation<'_>| {
                seen.get_or_insert((e.sigma, e.x.clone()));
                Ok::<_, Infallible>(ControlFlow::Continue(()))
            };
            let pictures = generate_from(&model, &settings, start(Some(reference)), &device, step);
            pollster::block_on(pictures).expect("infallible").expect("not cancelled");
            let (sigma, x) = seen.expect("an evaluation");
            assert_eq!(sigma, 1.5);
            let x: Vec<f32> = x.into_data().try_to_vec().expect("f32");
            let want = picture().into_iter().zip(start_noise(1, 192)).map(|(y, n)| y + 1.5 * n);
            for (x, want) in x.iter().zip(want) {
                assert!((x - want).abs() < 1e-5, "{x} is not {want}: {:?}", model.config.precond);
            }
        }
    }

    #[test]
    fn silencing_the_time_token_changes_the_picture() {
        let silent = Settings { silence_time: true, ..settings() };
        assert_ne!(generated(&settings(), start(None)), generated(&silent, start(None)));
        // The default is not serialised, so that older programs can read the settings.
        let text = serde_json::to_string(&settings()).expect("plain data");
        assert!(!text.contains("silence"));
    }

    /// Every method works with every schedule and every kind of preconditioning.
    #[test]
    fn every_sampler_works_with_every_preconditioner() {
        let mut image = crate::config::ImageConfig {
            resolution: 4,
            channels: vec![16],
            blocks: vec![1],
            window: Window::Size(4),
            ..Default::default()
        };
        image.transformer.head_dim = 8;
        // A head whose output is not close to zero.
        image.branch_init = 1.0;
        let device = Device::flex();
        for precond in [
            PrecondConfig::default(),
            PrecondConfig::Vp { schedule: Default::default() },
            PrecondConfig::Ve { sigma_min: 0.02, sigma_max: 100.0 },
            PrecondConfig::Adm { betas: LinearBetas::default() },
        ] {
            let network = NetworkConfig::Image(image.clone());
            let config = ModelConfig { network, precond: precond.clone() };
            let model = Model::new(config, 0, &device).expect("small");
            for method in [
                Method::Euler,
                Method::Heun,
                Method::Ipndm { order: 4 },
                Method::Dpmpp { order: 2 },
                Method::Dpmpp { order: 3 },
                Method::Ddim { eta: 0.5 },
                Method::Ddpm { variance: Variance::Learned },
            ] {
                let adm = Schedule::Adm { betas: LinearBetas::default(), spacing: Spacing::Even };
                let even = Schedule::LogSnr { sigma_min: 0.002, sigma_max: 80.0 };
                for schedule in [Schedule::default(), even, adm] {
                    let settings = Settings {
                        steps: 4,
                        method,
                        schedule,
                        clip_denoised: true,
                        ..Settings::default()
                    };
                    let make = |seeds: &[u64]| {
                        let pictures = pollster::block_on(generate(
                            &model,
                            &settings,
                            seeds,
                            &device,
                            async |_| Ok::<_, Infallible>(ControlFlow::Continue(())),
                        ));
                        let pictures = pictures.expect("infallible").expect("not cancelled");
                        pictures.into_data().try_into_vec::<f32>().expect("f32")
                    };
                    let two = make(&[3, 9]);
                    assert!(
                        two.iter().all(|v| v.is_finite() && v.abs() < 2.0),
                        "{precond:?} {settings:?}"
                    );
                    // A picture depends on its own seed only, not on the rest of the batch.
                    let alone = make(&[9]);
                    for (a, b) in two[alone.len()..].iter().zip(&alone) {
                        assert!((a - b).abs() < 1e-4, "{a} {b} {precond:?} {settings:?}");
                    }
                }
            }
        }
    }
}
