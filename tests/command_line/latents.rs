//! Latent datasets and latent models.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;
use tests::{Tensors, assert_close, root, trainer};

use crate::support::{
    fails, file_names, largest_difference, latest, only_run, png, run,
    small_autoencoder_and_pictures, small_latent_options, text, write_noisy,
};

/// Sampling latents with classes and guidance, and decoding them.
#[test]
fn latents_become_pictures() {
    use model::config::{LinearBetas, PrecondConfig};
    let config = tests::small_latent(PrecondConfig::Adm { betas: LinearBetas::default() });
    let model = model::Model::new(config, 0, &burn::tensor::Device::flex()).expect("it fits");
    let card = model::card::Card::default();
    let file = model::weights::to_bytes(
        &model.config,
        &card,
        None,
        model.parameters(),
        model::weights::Precision::F32,
    );
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (weights, sizes, output) = (path("latent.safetensors"), path("vae.json"), path("a.png"));
    fs::write(&weights, file.expect("finite")).expect("written");
    let text_of_sizes = r#"{"channels": [8, 16, 16], "layers": 1, "groups": 4}"#;
    fs::write(&sizes, text_of_sizes).expect("written");
    let vae = root().join("tests/golden/vae.safetensors");
    let common = ["sample", "--weights", text(&weights), "--seeds", "0-2", "-o", text(&output)];
    let latents = ["--vae", text(&vae), "--vae-config", text(&sizes)];
    let steps = ["--sampler", "ddpm", "--respacing", "3", "--separate"];
    let guided = ["--classes", "1,4", "--guidance", "4.4"];
    run(&[&common[..], &latents, &steps, &guided].concat());
    // This autoencoder upsamples by 4, not by 8 as Stable Diffusion's.
    let picture = png(&output.join("000002.png"));
    assert_eq!(picture.dimensions(), (32, 32));
    let inside = fs::read(output.join("000002.png")).expect("there");
    let inside = String::from_utf8_lossy(&inside);
    // The class of this picture, the third with two classes in turn.
    assert!(inside.contains("\"classes\":[1]") && inside.contains("\"scale\":4.4"), "{inside}");
    assert!(inside.contains("\"vae_sha256\":\""), "{inside}");

    // The metadata of an autoencoder's file can contain its configuration.
    let bytes = fs::read(&vae).expect("there");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file").tensors();
    let metadata = [("diffit_vae".to_string(), text_of_sizes.to_string())].into();
    let own = path("own.safetensors");
    fs::write(&own, safetensors::serialize(tensors, Some(metadata)).expect("fits"))
        .expect("written");
    // Images of another autoencoder are not mixed with those of the first.
    let other = path("b");
    let mut elsewhere = common;
    elsewhere[6] = text(&other);
    run(&[&elsewhere[..], &["--vae", text(&own)], &steps, &guided].concat());
    assert_eq!(png(&other.join("000002.png")), picture);

    for (more, message) in [
        (&["--steps", "2"][..], "images of 4 channels cannot be written as PNG"),
        (&["--vae", text(&vae)], "norm1.weight` is [8], not [128]"),
        (&["--vae", text(&weights)], "is missing"),
        (&["--guidance", "2"], "--classes <CLASSES>"),
    ] {
        let error = fails(&[&common[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
    }
    for (class, message) in
        [("7", "class 7: this model has 5"), ("some", "no class is called `some`")]
    {
        let error = fails(&[&common[..], &latents, &["--classes", class]].concat());
        assert!(error.contains(message), "{class}: {error:?} does not say {message:?}");
    }
    let shipped = fails(&[&["sample", "--steps", "2"], &latents[..]].concat());
    assert!(shipped.contains("omit --vae"), "{shipped}");
}

#[test]
fn pictures_are_encoded_once_and_stopping_changes_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let path = |name: &str| folder.path().join(name);
    let (whole, parts) = (path("whole.latents"), path("parts.latents"));
    let encode = |output: &Path, more: &[&str]| {
        let data = ["data", "encode", "--data", text(&pictures), "--vae", text(&vae)];
        let sizes = ["--vae-config", text(&sizes), "-o", text(output)];
        let size: &[&str] = if more.contains(&"--size") { &[] } else { &["--size", "32"] };
        let output = trainer().args([&data[..], &sizes, size, more].concat()).output();
        let output = output.expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    };
    let works = |output: &Path, more: &[&str]| {
        let (code, said) = encode(output, more);
        assert_eq!(code, Some(0), "{said}");
        said
    };
    let refuses = |output: &Path, more: &[&str]| {
        let (code, said) = encode(output, more);
        assert_eq!(code, Some(1), "{said}");
        said
    };
    works(&whole, &[]);
    let bytes = fs::read(&whole).expect("there");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let moments = file.tensor("moments").expect("there");
    assert_eq!(moments.shape(), [24, 2, 2, 4, 8, 8]);
    let values: std::collections::HashSet<_> = moments.data().chunks_exact(4).collect();
    assert!(values.len() > 10_000, "{} values", values.len());
    let labels = file.tensor("labels").expect("there").data().to_vec();
    assert_eq!(
        labels,
        [[0, 0, 0, 0]; 12]
            .concat()
            .into_iter()
            .chain([[1, 0, 0, 0]; 12].concat())
            .collect::<Vec<u8>>()
    );

    // The moments match those of the autoencoder in the crate `model`.
    let device = burn::tensor::Device::flex();
    let config = model::vae::VaeConfig {
        channels: vec![8, 16, 16],
        layers: 1,
        groups: 4,
        ..Default::default()
    };
    let model = model::vae::Vae::from_safetensors(&fs::read(&vae).expect("there"), config, &device);
    let picture = png(&pictures.join("cats/03.png"));
    let values: Vec<f32> = (0..3)
        .flat_map(|c| picture.pixels().map(move |p| f32::from(p.0[c]) / 127.5 - 1.0))
        .collect();
    let values = burn::tensor::TensorData::new(values, [1, 3, 32, 32]);
    let image = burn::tensor::Tensor::<4>::from_data(values, &device);
    let model = model.expect("as published");
    for (mirrored, image) in [image.clone(), image.flip([3])].into_iter().enumerate() {
        let encoded = model.encode(image);
        for (moment, want) in [encoded.mean, encoded.std].into_iter().enumerate() {
            let want: Vec<f64> = want.into_data().iter::<f64>().collect();
            let size = 4 * want.len();
            let found = &moments.data()[(3 * 4 + 2 * mirrored + moment) * size..][..size];
            let found =
                found.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four")));
            assert_close("moments", &found.map(f64::from).collect::<Vec<_>>(), &want, 1e-5);
        }
    }

    // Interrupted during the 21st image.
    let record = moments.data().len() / 24;
    let partial = path("parts.latents.partial");
    fs::write(&partial, &bytes[..bytes.len() - 3 * record - record / 2]).expect("written");
    assert!(works(&parts, &[]).contains("resuming after 16 images"));
    assert!(fs::read(&parts).expect("there") == bytes, "the resumed file differs");
    assert!(!partial.exists());

    // A complete file is kept; other files are not overwritten.
    assert!(works(&whole, &[]).contains("already contains the latents of these 24 images"));
    assert!(refuses(&whole, &["--size", "16"]).contains("use --overwrite to replace it"));
    let other = path("other.latents");
    fs::write(path("other.latents.partial"), &bytes[..bytes.len() - record]).expect("written");
    let error = refuses(&other, &["--size", "16"]);
    assert!(error.contains("an encoding of other images, with another --size"), "{error}");
    works(&other, &["--size", "16", "--overwrite"]);
    assert!(fs::metadata(&other).expect("there").len() < bytes.len() as u64 / 3);
    let error = refuses(&other, &["--size", "30", "--overwrite"]);
    assert!(error.contains("--size 30 is not a multiple of 4"), "{error}");

    let report = run(&["data", "check", text(&whole)]);
    for part in
        ["latents     24,", "8x8         4 channels, scale 0.18215", "dogs                     12"]
    {
        assert!(report.contains(part), "{report:?} does not say {part:?}");
    }
    fs::write(pictures.join("dogs/empty.png"), b"").expect("written");
    let error = refuses(&path("never.latents"), &[]);
    assert!(error.contains("dogs/empty.png: the file is empty"), "{error}");
    assert!(!path("never.latents").exists() && !path("never.latents.partial").exists());
}

/// Batches, devices, parts and 16 bits give the latents that one image at a time gives.
#[test]
fn pictures_are_encoded_in_batches_in_parts_and_in_16_bits() {
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let path = |name: &str| folder.path().join(name);
    let args = |output: &str, more: &[&str]| -> Vec<String> {
        let data = ["data", "encode", "--data", text(&pictures), "--size", "32"];
        let vae = ["--vae", text(&vae), "--vae-config", text(&sizes)];
        let output = path(output);
        let all = [&data[..], &vae, &["-o", text(&output)], more].concat();
        all.into_iter().map(String::from).collect()
    };
    let encode = |output: &str, more: &[&str]| -> String {
        let args = args(output, more);
        run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refuses = |output: &str, more: &[&str], message: &str| {
        let args = args(output, more);
        let error = fails(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
    };
    let moments = |name: &str| -> Vec<f64> { Tensors::open(&path(name)).get("moments").1 };
    encode("whole.latents", &[]);
    let want = moments("whole.latents");
    for (name, more) in [
        ("batch.latents", &["--batch", "5"][..]),
        ("devices.latents", &["--batch", "5", "--devices", "2"]),
        ("half.latents", &["--precision", "f16", "--batch", "24"]),
    ] {
        encode(name, more);
        let exact = if name.starts_with("half") { 1e-3 } else { 1e-6 };
        assert_close(name, &moments(name), &want, exact);
    }
    let bytes = |name: &str| fs::read(path(name)).expect("there");
    // Devices share the work, and stopping changes nothing.
    assert!(bytes("devices.latents") == bytes("batch.latents"));
    let whole = bytes("batch.latents");
    fs::write(path("again.latents.partial"), &whole[..whole.len() - 20]).expect("written");
    encode("again.latents", &["--batch", "5", "--devices", "2"]);
    assert!(bytes("again.latents") == whole, "the resumed file differs");
    assert!(bytes("half.latents").len() < whole.len() * 6 / 10);
    assert!(run(&["data", "check", text(&path("half.latents"))]).contains("precision   f16"));

    // In parts, which are read together.
    fs::create_dir(path("parts")).expect("made");
    for part in ["2/3", "1/3", "3/3"] {
        let name = format!("parts/{}.latents", part.replace('/', "-of-"));
        let said = encode(&name, &["--shard", part]);
        let images = format!("8 images (part {part} of 24)");
        assert!(said.contains(&images), "{said:?} does not say {images:?}");
        assert!(encode(&name, &["--shard", part]).contains("these 8 images"));
    }
    let parts = path("parts");
    let report = run(&["data", "check", text(&parts)]);
    for part in ["latents     24,", "dogs                     12"] {
        assert!(report.contains(part), "{report:?} does not say {part:?}");
    }
    let options = small_latent_options(folder.path());
    let train = |name: &str, data: &Path| {
        let out = path(name);
        let from = ["train", "--preset", "latent-tiny", "--options", &options, "--grid", "0"];
        run(&[&from[..], &["--data", text(data), "--duration", "40", "--out", text(&out)]].concat());
        only_run(&out)
    };
    let of_whole = train("of whole", &path("whole.latents"));
    let of_parts = train("of parts", &parts);
    assert!(latest(&of_whole) == latest(&of_parts), "parts are not the whole");
    let of_half = train("of half", &path("half.latents"));
    assert!(latest(&of_half) != latest(&of_whole), "nothing was rounded");

    // A run can go on with the parts, not with other precision, and not with one part.
    let resume = |data: &Path, duration| {
        let args = ["train", "--resume", text(&of_whole), "--grid", "0", "--data", text(data)];
        let output = trainer().args(args).args(["--duration", duration]).output().expect("it runs");
        (output.status.success(), String::from_utf8(output.stderr).expect("text"))
    };
    assert!(resume(&parts, "48").0);
    let (_, error) = resume(&path("half.latents"), "56");
    assert!(error.contains("of another precision"), "{error}");
    let (_, error) = resume(&parts.join("2-of-3.latents"), "56");
    assert!(error.contains("2 of the 3 parts of this encoding are missing (1/3, 3/3)"), "{error}");
    let only = parts.join("2-of-3.latents");
    fs::remove_file(&only).expect("there");
    let error = fails(&["data", "check", text(&parts)]);
    assert!(error.contains("1 of the 3 parts of this encoding are missing (2/3)"), "{error}");

    refuses("x.latents", &["--shard", "1/25"], "has only 24 images");
    refuses("x.latents", &["--shard", "3/2"], "such as 3/8");
    refuses("x.latents", &["--batch", "0"], "--batch");
    refuses("parts/1-of-3.latents", &["--shard", "1/2"], "use --overwrite to replace it");
    assert!(!path("x.latents").exists());
}

#[test]
fn latents_are_trained_on_and_sampled_with_guidance() {
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let latents = folder.path().join("pictures.latents");
    let decoder = ["--vae", text(&vae), "--vae-config", text(&sizes)];
    let encode =
        ["data", "encode", "--data", text(&pictures), "--size", "32", "-o", text(&latents)];
    run(&[&encode[..], &decoder].concat());

    let options = small_latent_options(folder.path());
    let from = ["--preset", "latent-tiny", "--options", &options, "--data", text(&latents)];
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        run(&[&["train", "--out", text(&out)], &from[..], more].concat());
        only_run(&out)
    };
    let whole = train("whole", &["--grid", "2", "--duration", "160"]);
    let parts = train("parts", &["--grid", "0", "--duration", "80"]);
    run(&["train", "--resume", text(&parts), "--grid", "0", "--duration", "160"]);
    assert!(latest(&parts) == latest(&whole), "resuming changes the result");
    // Grids show channels of latents without --vae and decoded images with it, both enlarged and
    // with captions.
    assert_eq!(png(&whole.join("grids/000000160.png")).dimensions(), (208, 132));
    let shown = ["--grid", "2", "--duration", "8"];
    let shown = train("shown", &[&shown[..], &decoder].concat());
    assert_eq!(png(&shown.join("grids/000000008.png")).dimensions(), (208, 132));
    let start = |run: &Path| fs::read(run.join("grids/000000000.png")).expect("a grid");
    assert_ne!(start(&whole), start(&shown));

    // Training depends on the classes.
    let blind = ["--grid", "0", "--duration", "160", "--label-dropout", "1"];
    assert!(latest(&train("blind", &blind)) != latest(&whole));
    // Resuming with the loss-aware timestep sampler is exact too.
    let importance = folder.path().join("importance.json");
    let mut recipe: Value =
        serde_json::from_str(&fs::read_to_string(&options).expect("there")).expect("JSON");
    let times = serde_json::json!({"kind": "importance", "history": 2, "uniform": 0.1});
    recipe["loss"] = serde_json::json!({"kind": "adm", "betas": {"steps": 6}, "times": times});
    recipe["model"]["precond"] = serde_json::json!({"kind": "adm", "betas": {"steps": 6}});
    fs::write(&importance, recipe.to_string()).expect("written");
    let train_by = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--preset", "latent-tiny", "--grid", "0", "--data", text(&latents)];
        let recipe = ["--options", text(&importance), "--out", text(&out)];
        run(&[&args[..], &recipe, more].concat());
        only_run(&out)
    };
    let by_loss = train_by("by-loss", &["--duration", "160"]);
    let halves = train_by("halves", &["--duration", "80"]);
    run(&["train", "--resume", text(&halves), "--grid", "0", "--duration", "160"]);
    assert!(latest(&halves) == latest(&by_loss), "resuming changes the result");
    recipe["loss"]["times"] = serde_json::json!({"kind": "uniform"});
    fs::write(&importance, recipe.to_string()).expect("written");
    assert!(latest(&train_by("alike", &["--duration", "160"])) != latest(&by_loss));
    recipe["loss"]["times"] = serde_json::json!({"kind": "importance", "history": 0});
    fs::write(&importance, recipe.to_string()).expect("written");
    let never = folder.path().join("none");
    let args = ["train", "--preset", "latent-tiny", "--options", text(&importance)];
    let error = fails(&[&args[..], &["--out", text(&never)]].concat());
    assert!(error.contains("importance.history is 0"), "{error}");

    // Micro-batches, several devices, gradient checkpointing and bf16 work with latents too.
    let first_loss = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let args = ["train", "--grid", "0", "--duration", "1000", "--json", "--out", text(&out)];
        let said = run(&[&args[..], &from, more].concat());
        let first: Value =
            serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
        first["loss"].as_f64().expect("a number")
    };
    let one = first_loss("one", &[]);
    let shared = ["--micro-batch", "2", "--devices", "2", "--gradient-checkpointing"];
    let two = first_loss("two", &shared);
    assert!((one / two - 1.0).abs() < 1e-3, "{one} and {two}");
    let rounded = first_loss("rounded", &["--precision", "bf16"]);
    assert!((one / rounded - 1.0).abs() < 0.05 && one != rounded, "{one} and {rounded}");

    // One grid per guidance scale, from the same seeds.
    let output = folder.path().join("a.png");
    let sample = ["sample", "--weights", text(&whole), "--seeds", "0-1", "-o", text(&output)];
    let guided =
        ["--classes", "1", "--steps", "3", "--guidance", "1,22.5,0", "--guidance-power", "0"];
    let grids = |guided: &[&str]| {
        run(&[&sample[..], guided, &decoder].concat());
        ["1", "22.5", "0"].map(|scale| folder.path().join(format!("a-guidance{scale}.png")))
    };
    let [plain, more, none] = grids(&guided).map(|path| png(&path));
    assert_eq!(plain.dimensions(), (64, 32));
    assert!(plain != more && plain != none);
    assert!(!output.exists());
    // Class names are stored in the weights file.
    run(&[&sample[..], &["--class", "Dog", "--steps", "3"], &decoder].concat());
    let off = largest_difference(&png(&output), &plain);
    assert!(off <= 1, "a scale of 1 is no guidance, up to rounding: {off}");

    // Guidance in `denoise` extrapolates from no class beyond the class.
    let noisy = folder.path().join("noisy");
    write_noisy(&noisy, (&[2, 4, 8, 8], &model::noise::start_noise(1, 512)), &[1.0, 3.0]);
    let denoised = |more: &[&str]| -> Vec<f64> {
        let output = folder.path().join("denoised");
        let files = ["--weights", text(&whole), "--input", text(&noisy), "--output", text(&output)];
        run(&[&["denoise"], &files[..], more].concat());
        Tensors::open(&output).get("denoised").1
    };
    let (class, null) = (denoised(&["--class", "dog,cat"]), denoised(&[]));
    assert!(class != null && class != denoised(&["--class", "cat,dog"]));
    let want: Vec<f64> = class.iter().zip(&null).map(|(c, n)| n + 3.0 * (c - n)).collect();
    let scale = ["--class", "1,0", "--guidance", "3", "--guidance-power", "0"];
    let all = [&scale[..], &["--guidance-channels", "all"]].concat();
    assert_close("guided", &denoised(&all), &want, 1e-5);
    // The noise levels 1 and 3 are below and above the bound of 2.
    let within = |bounds: &[&str]| denoised(&[&all[..], bounds].concat());
    let found = within(&["--guidance-max", "2"]);
    assert_close("guided", &found, &[&want[..256], &class[256..]].concat(), 1e-5);
    let found = within(&["--guidance-min", "2"]);
    assert_close("guided", &found, &[&class[..256], &want[256..]].concat(), 1e-5);
    let denoise = ["denoise", "--weights", text(&whole), "--input", text(&noisy), "--output", "x"];
    for (more, message) in [
        (&["--class", "bird"][..], "no class is called `bird`"),
        (&["--class", "dog", "--guidance", "1,2"], "expected a single scale"),
        (&["--class", "dog", "--guidance", "2", "--guidance-min", "-1"], "from sigma -1"),
    ] {
        let error = fails(&[&denoise[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
    }

    // Invalid combinations are refused before a run folder is created.
    let out = folder.path().join("never");
    let refused = |more: &[&str], message: &str| {
        let args = ["train", "--out", text(&out), "--preset", "latent-tiny", "--grid", "0"];
        let error = fails(&[&args[..], more].concat());
        assert!(error.contains(message), "{more:?}: {error:?} does not say {message:?}");
        assert!(!out.exists());
    };
    let data = ["--data", text(&latents)];
    refused(&data, "[4, 8, 8], but the model takes [4, 16, 16]");
    refused(&[&data[..], &["--options", &options, "--augment", "0.1"]].concat(), "only mirrored");
    let fewer = folder.path().join("fewer.json");
    fs::write(
        &fewer,
        fs::read_to_string(&options).expect("there").replace("\"classes\":2", "\"classes\":1"),
    )
    .expect("written");
    refused(
        &[&data[..], &["--options", text(&fewer)]].concat(),
        "has 2 classes, but the model has 1",
    );
    let scaled = folder.path().join("scaled.json");
    let edited = fs::read_to_string(&sizes).expect("there").replace("{", "{\"scale\": 1.5, ");
    fs::write(&scaled, edited).expect("written");
    let fits = [&from[2..], &["--vae", text(&vae), "--vae-config"]].concat();
    refused(
        &[&fits[..], &[text(&scaled)]].concat(),
        "scale 0.18215, but the autoencoder of --vae has scale 1.5",
    );
    let other = root().join("tests/golden/vae.safetensors");
    let other = ["--vae", text(&other), "--vae-config", text(&sizes)];
    refused(&[&from[2..], &other].concat(), "not of that of --vae");
    fs::remove_file(pictures.join("cats/00.png")).expect("there");
    run(&[&encode[..], &decoder, &["--overwrite"]].concat());
    let error = fails(&["train", "--resume", text(&whole), "--duration", "200"]);
    assert!(error.contains("the latents are of other images"), "{error}");
    let bytes = fs::read(&latents).expect("there");
    fs::write(&latents, &bytes[..bytes.len() - 7]).expect("cut");
    refused(&from[2..], "it may be truncated");
}

/// Files of a limited size are parts of the same dataset, and an interruption changes nothing.
#[test]
fn pictures_are_encoded_to_files_of_a_limited_size() {
    let folder = TempDir::new().expect("a temporary folder");
    let [vae, sizes, pictures] = small_autoencoder_and_pictures(folder.path());
    let path = |name: &str| folder.path().join(name);
    let encode = |output: &str, more: &[&str]| {
        let data = ["data", "encode", "--data", text(&pictures), "--size", "32"];
        let vae = ["--vae", text(&vae), "--vae-config", text(&sizes), "--batch", "3"];
        let output = path(output);
        let args = [&data[..], &vae, &["-o", text(&output)], more].concat();
        let output = trainer().args(args).output().expect("it runs");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (output.status.code(), said)
    };
    let works = |output: &str, more: &[&str]| {
        let (code, said) = encode(output, more);
        assert_eq!(code, Some(0), "{said}");
        said
    };
    works("whole.latents", &[]);
    // The moments of an image take 4 KB.
    let limit = 40_000;
    let said = works("parts", &["--shard-size", &limit.to_string()]);
    let parts = file_names(&path("parts"));
    let want = [
        "part-00001-of-00003.latents",
        "part-00002-of-00003.latents",
        "part-00003-of-00003.latents",
    ];
    assert_eq!(parts, want);
    assert!(said.contains("of 24 images in 3 files"), "{said}");
    for name in &parts {
        let size = fs::metadata(path("parts").join(name)).expect("there").len();
        assert!((limit / 2..=limit).contains(&size), "{name}: {size} bytes");
    }
    let moments = |path: &Path| Tensors::open(path).get("moments").1;
    let joined: Vec<f64> =
        parts.iter().flat_map(|name| moments(&path("parts").join(name))).collect();
    assert_close("moments", &joined, &moments(&path("whole.latents")), 1e-6);
    assert!(run(&["data", "check", text(&path("parts"))]).contains("latents     24,"));

    // Interrupted in the second file.
    let bytes = |folder: &str, name: &str| fs::read(path(folder).join(name)).expect("there");
    fs::create_dir(path("again")).expect("made");
    fs::write(path("again").join(&parts[0]), bytes("parts", &parts[0])).expect("written");
    let second = bytes("parts", &parts[1]);
    let partial = path("again").join(format!("{}.partial", parts[1]));
    fs::write(&partial, &second[..second.len() - 20]).expect("written");
    let said = works("again", &["--shard-size", &limit.to_string()]);
    assert!(said.contains("resuming after 8 images"), "{said}");
    assert_eq!(file_names(&path("again")), parts);
    for name in &parts {
        assert!(bytes("again", name) == bytes("parts", name), "{name} differs");
    }
    assert!(works("again", &["--shard-size", "40000"]).contains("these 24 images"));

    for (output, more, message) in [
        ("parts", &["--shard-size", "20000"][..], "is of another encoding than this one in"),
        ("other", &["--shard-size", "100"], "a file with one image takes"),
        ("whole.latents", &["--shard-size", "1MB"], "cannot make the folder"),
    ] {
        let (code, said) = encode(output, more);
        assert!(code == Some(1) && said.contains(message), "{more:?}: {said}");
    }
    assert_eq!(encode("other", &["--shard-size", "1MB", "--shard", "1/2"]).0, Some(2));
}
