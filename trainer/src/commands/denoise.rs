//! `trainer denoise`: runs the denoiser on tensors from a file, for comparison with other
//! implementations.

use anstream::println;
use anyhow::{Context, bail, ensure};
use burn::tensor::{Tensor, TensorData};
use model::Denoiser;
use model::generate::Settings;
use model::weights::f32_values;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::args::DenoiseArgs;
use crate::files::atomic::write;
use crate::weights::load::load;

/// Returns an `f32` tensor of the input file.
fn tensor(file: &SafeTensors, name: &str) -> anyhow::Result<(Vec<usize>, Vec<f32>)> {
    let Ok(view) = file.tensor(name) else { bail!("has no tensor `{name}`") };
    ensure!(view.dtype() == Dtype::F32, "`{name}` is {:?}, not F32", view.dtype());
    Ok((view.shape().to_vec(), f32_values(view.data())))
}

/// Runs the command.
///
/// # Errors
///
/// If the tensors do not fit the model, or a file cannot be read or written.
pub fn run(args: DenoiseArgs) -> anyhow::Result<()> {
    let device = args.device.device.open()?;
    let loaded = load(args.weights.as_deref(), &device)?;
    let model = loaded.model;
    let [c, h, w] = model.config.image_shape();
    ensure!(args.guidance.guidance.len() <= 1, "--guidance: expected a single scale");
    let settings = Settings {
        classes: args.guidance.labels(&loaded.card.class_names(model.config.classes()))?,
        guidance: args.guidance.guidance.first().map(|&scale| args.guidance.with_scale(scale)),
        ..Settings::default()
    };
    settings.validate()?;
    settings.validate_for(&model.config)?;

    let input = || args.input.display().to_string();
    let bytes = std::fs::read(&args.input).with_context(input)?;
    let file = SafeTensors::deserialize(&bytes).with_context(input)?;
    let (x_shape, x) = tensor(&file, "x").with_context(input)?;
    let (sigma_shape, sigma) = tensor(&file, "sigma").with_context(input)?;
    let b = sigma.len();
    ensure!(
        sigma_shape == [b] && x_shape == [b, c, h, w] && b > 0,
        "{}: `x` is {x_shape:?} and `sigma` is {sigma_shape:?}; this model takes [B, {c}, {h}, {w}] and [B]",
        input()
    );
    if let Some(wrong) = sigma.iter().find(|sigma| !(sigma.is_finite() && **sigma > 0.0)) {
        bail!("{}: `sigma` contains {wrong}, which is not above 0", input());
    }

    let (mut denoised, mut raw) = (Vec::new(), Vec::new());
    let size = c * h * w;
    let batch = args.batch as usize;
    let numbers: Vec<u64> = (0..b as u64).collect();
    let batches = x.chunks(batch * size).zip(sigma.chunks(batch)).zip(numbers.chunks(batch));
    for ((x, sigma), numbers) in batches {
        let x = TensorData::new(x.to_vec(), [sigma.len(), c, h, w]);
        let x = Tensor::<4>::from_data(x, &device);
        let sigma: Vec<f64> = sigma.iter().map(|&sigma| sigma.into()).collect();
        let output = Denoiser::of_settings(&model, &settings, numbers).denoise(x, &sigma);
        for (tensor, bytes) in [(output.denoised, &mut denoised), (output.raw, &mut raw)] {
            let values = tensor.into_data().try_into_vec::<f32>().expect("images are f32");
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    // With a learned variance, the network's output has more channels than the images.
    let shape = |bytes: &[u8]| vec![b, bytes.len() / (4 * b * h * w), h, w];
    let tensors = [
        ("denoised", TensorView::new(Dtype::F32, shape(&denoised), &denoised)?),
        ("raw", TensorView::new(Dtype::F32, shape(&raw), &raw)?),
    ];
    let bytes = safetensors::serialize(tensors, None)?;
    write(&args.output, &bytes)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    println!("{b} images in {}", args.output.display());
    Ok(())
}
