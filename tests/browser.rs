//! The built page (`dist/`), in a real browser. Ignored unless asked for, since they need the
//! page built and Chromium: `cargo xtask test` sees to both.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::RgbImage;
use model::picture::{Origin, Rgb};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tests::browser::{Browser, Gpu};
use tests::server::{Fault, Site};
use tests::{root, trainer};
use thirtyfour::Key;

#[path = "browser/command.rs"]
mod command;
#[path = "browser/equations.rs"]
mod equations;
#[path = "browser/inside.rs"]
mod inside;
#[path = "browser/previews.rs"]
mod previews;
#[path = "browser/recovery.rs"]
mod recovery;
#[path = "browser/successor.rs"]
mod successor;
#[path = "browser/train.rs"]
mod train;
#[path = "browser/update.rs"]
mod update;
#[path = "browser/visit.rs"]
mod visit;

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(90);
/// Long enough for a program that plays a graphics processor.
const LATE: Duration = Duration::from_secs(900);

/// A link that says nothing of names, and is none: pictures of no class, when asked for.
const PLAIN: &str = "#count=1";

/// The built page.
fn dist() -> PathBuf {
    let folder = root().join("dist");
    assert!(folder.join("index.html").exists(), "build the page first: `cargo xtask site`");
    folder
}

fn site() -> Site {
    Site::serve(dist())
}

/// The page, marked to accept faults from its address.
fn marked_site() -> Site {
    Site::serve_marked(dist())
}

/// A copy of the page, to which files can be added.
fn copied() -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let dist = root().join("dist");
    for part in ["", "weights"] {
        std::fs::create_dir_all(folder.path().join(part)).expect("a folder");
        for entry in std::fs::read_dir(dist.join(part)).expect("the built page") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name");
                std::fs::copy(&path, folder.path().join(part).join(name)).expect("copied");
            }
        }
    }
    folder
}

/// The classes of the first model of [`named_site`].
const NAMES: [&str; 20] = [
    "grinning",
    "red heart",
    "otter",
    "pizza",
    "rocket",
    "slice of pizza",
    "frog",
    "flag of Fiji",
    "mapizza",
    "pizzeria",
    "cat",
    "dog",
    "fox",
    "ox",
    "rainbow",
    "cactus",
    "train",
    "plane",
    "ship",
    "moon",
];
/// Those of its second model.
const OTHERS: [&str; 6] = ["automobile", "otter", "horse", "ship", "truck", "cat"];

/// The page with two small models that know classes by name, `named.safetensors` and
/// `others.safetensors`, and none beside them.
fn named_site() -> (Site, tempfile::TempDir) {
    use model::card::ClassGroup;
    use web::manifest::{Entry, Manifest};
    let folder = copied();
    let weights = folder.path().join("weights");
    let group = |name: &str, classes: std::ops::Range<usize>| ClassGroup {
        name: name.into(),
        classes: classes.collect(),
    };
    let groups = vec![group("Mixed", 0..10), group("Animals", 10..14), group("Things", 14..20)];
    let models =
        [("named.safetensors", &NAMES[..], groups), ("others.safetensors", &OTHERS, vec![])];
    let models = models.map(|(file, names, class_groups)| {
        let bytes = named_model(names, class_groups);
        std::fs::write(weights.join(file), &bytes).expect("written");
        Entry::new(file.into(), &bytes)
    });
    let manifest = serde_json::to_string(&Manifest { models: models.into() }).expect("plain data");
    std::fs::write(weights.join("manifest.json"), manifest).expect("written");
    (Site::serve(folder.path().into()), folder)
}

/// The small image model of the golden values, with other classes.
fn named_model(names: &[&str], class_groups: Vec<model::card::ClassGroup>) -> Vec<u8> {
    use model::config::NetworkConfig;
    use model::weights::{Precision, Weights, specs, to_bytes};
    let golden = root().join("tests/golden/network_class.weights.safetensors");
    let golden = std::fs::read(golden).expect("there");
    let golden = Weights::parse(&golden).expect("a weights file");
    let mut config = golden.config().clone();
    let NetworkConfig::Image(image) = &mut config.network else { panic!("not of pictures") };
    image.classes = names.len();
    let parameters = specs(&config).into_iter().map(|spec| {
        let values = match &*spec.name {
            "time.class.weight" => {
                let noise = model::noise::start_noise(names.len() as u64, spec.len());
                noise.into_iter().map(|value| 0.5 * value).collect()
            }
            _ => golden.values(&spec),
        };
        (spec, values)
    });
    let card = model::card::Card {
        name: "named".into(),
        classes: names.iter().map(|name| name.to_string()).collect(),
        class_groups,
        ..Default::default()
    };
    to_bytes(&config, &card, None, parameters.collect(), Precision::F32).expect("finite")
}

/// What the command line makes with one of the models of [`named_site`].
fn named_command_line(folder: &Path, file: &str, seeds: &str, classes: &str) -> RgbImage {
    let output = tempfile::TempDir::new().expect("a temporary folder");
    let path = output.path().join("grid.png");
    let columns = if seeds.contains('-') { "2" } else { "1" };
    trainer()
        .args(["sample", "--steps", "3", "--sampler", "euler", "--seeds", seeds])
        .args(["--columns", columns, "--class", classes, "--weights"])
        .arg(folder.join("weights").join(file))
        .arg("--output")
        .arg(&path)
        .assert()
        .success();
    image::open(path).expect("a PNG file").into_rgb8()
}

/// What can be read below the pictures.
async fn captions(browser: &Browser) -> Vec<String> {
    let all = "[...document.querySelectorAll('[data-testid=pictures] .name')]";
    let shown = "filter((e) => e.checkVisibility()).map((e) => e.textContent)";
    browser.run(&format!("return {all}.{shown}")).await
}

async fn is(browser: &Browser, state: &str, limit: Duration) {
    browser
        .wait(&format!("document.querySelector('main')?.dataset.state === {state:?}"), limit)
        .await;
}

/// Waits for the page to be ready for the first time.
async fn ready(browser: &Browser, limit: Duration) {
    browser
        .wait("['ready', 'broken'].includes(document.querySelector('main')?.dataset.state)", limit)
        .await;
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    is(browser, "ready", SOON).await;
}

/// Waits for the pictures.
async fn done(browser: &Browser, limit: Duration) {
    let status = "document.querySelector('[data-testid=status]')?.textContent";
    browser.wait(&format!("{status}?.startsWith('Done')"), limit).await;
}

/// What is made: seed, number, steps, sampler.
type Wish<'a> = (u64, usize, usize, &'a str);

/// Fills in the form.
async fn fill(browser: &Browser, (seed, count, steps, sampler): Wish<'_>) {
    browser.fill("#seed", &seed.to_string()).await;
    browser.click(&format!("#count-{count}")).await;
    if !browser.run::<bool>("return document.querySelector('details.more').open").await {
        browser.click("[data-testid=more]").await;
    }
    browser.fill("#steps", &steps.to_string()).await;
    browser.click(&format!("#sampler-{sampler}")).await;
}

/// Makes pictures, as a visitor does.
async fn make(browser: &Browser, wish: Wish<'_>, limit: Duration) {
    fill(browser, wish).await;
    browser.click("[data-testid=generate]").await;
    done(browser, limit).await;
}

/// Goes to another view.
async fn view(browser: &Browser, name: &str) {
    browser.click(&format!("[data-testid=view-{name}]")).await;
    browser.wait(&format!("document.querySelector('main').dataset.view === {name:?}"), SOON).await;
}

/// What a canvas shows, or several in a square, row after row.
async fn canvas(browser: &Browser, name: &str) -> RgbImage {
    canvas_where(browser, name, "true").await
}

/// Returns what [`canvas`] does, of those canvases `c` that meet a condition.
async fn canvas_where(browser: &Browser, name: &str, condition: &str) -> RgbImage {
    let shown: Vec<(u32, u32, Vec<u8>)> = browser
        .run(&format!(
            "const all = [...document.querySelectorAll('[data-testid={name}]')];
             return all.filter((c) => {condition}).map((c) => {{
             const {{ data }} = c.getContext('2d').getImageData(0, 0, c.width, c.height);
             return [c.width, c.height, Array.from(data)] }})"
        ))
        .await;
    let pictures: Vec<Rgb> = shown
        .into_iter()
        .map(|(width, height, rgba)| {
            let bytes = rgba.chunks_exact(4).flat_map(|p| p[..3].to_vec()).collect();
            Rgb { width: width as usize, height: height as usize, bytes }
        })
        .collect();
    let Rgb { width, height, bytes } = Rgb::grid(&pictures, Rgb::square(pictures.len()));
    RgbImage::from_raw(width as u32, height as u32, bytes).expect("as many values as pixels")
}

/// What the command line makes of the same settings.
fn command_line(seeds: &str, columns: usize, steps: usize, sampler: &str) -> RgbImage {
    command_line_with(&[], seeds, columns, steps, sampler)
}

/// The same with further flags.
fn command_line_with(
    more: &[&str],
    seeds: &str,
    columns: usize,
    steps: usize,
    sampler: &str,
) -> RgbImage {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("grid.png");
    trainer()
        .args(["sample", "--weights"])
        .arg(root().join("www/weights/tiny-emoji.safetensors"))
        .args(["--seeds", seeds, "--columns", &columns.to_string()])
        .args(["--steps", &steps.to_string(), "--sampler", sampler])
        .args(more)
        .arg("--output")
        .arg(&path)
        .assert()
        .success();
    image::open(path).expect("a PNG file").into_rgb8()
}

/// A small latent model of five classes whose head has learned something, an autoencoder that says
/// its own sizes, and one that does not fit.
fn latent_files(folder: &Path) -> [PathBuf; 3] {
    use model::config::{LinearBetas, PrecondConfig};
    use model::weights::{Precision, to_bytes};
    let config = tests::small_latent(PrecondConfig::Adm { betas: LinearBetas::default() });
    let model = model::Model::new(config, 0, &burn::tensor::Device::flex()).expect("it fits");
    let mut parameters = model.parameters();
    for (spec, values) in &mut parameters {
        // It begins with zeros, and embeddings with little, so that classes would change nothing.
        let noise = model::noise::start_noise(spec.len() as u64, spec.len());
        let scale = match &*spec.name {
            "final_layer.linear.weight" => 0.1,
            "y_embedder.embedding_table.weight" => 1.0,
            _ => continue,
        };
        *values = noise.into_iter().map(|value| scale * value).collect();
    }
    let names = ["tench", "goldfish", "great white shark", "tiger shark", "hammerhead"];
    let card = model::card::Card {
        name: "small latent".into(),
        classes: names.map(String::from).into(),
        ..Default::default()
    };
    let files = ["latent", "vae", "wide-vae"].map(|n| folder.join(format!("{n}.safetensors")));
    let bytes = to_bytes(&model.config, &card, None, parameters, Precision::F32);
    std::fs::write(&files[0], bytes.expect("finite")).expect("written");
    let golden = std::fs::read(root().join("tests/golden/vae.safetensors")).expect("there");
    let golden = SafeTensors::deserialize(&golden).expect("a safetensors file");
    let sizes = r#"{"channels": [8, 16, 16], "layers": 1, "groups": 4}"#;
    let metadata = HashMap::from([("diffit_vae".to_string(), sizes.to_string())]);
    let bytes = safetensors::serialize(golden.tensors(), Some(metadata)).expect("it fits");
    std::fs::write(&files[1], bytes).expect("written");
    // The same, with latents of eight channels.
    let doubled: Vec<(String, Vec<usize>, Vec<u8>)> = golden
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let (mut shape, mut data) = (tensor.shape().to_vec(), tensor.data().to_vec());
            let dimensions: &[usize] = match &*name {
                "post_quant_conv.weight" | "quant_conv.weight" => &[0, 1],
                "encoder.conv_out.weight" | "encoder.conv_out.bias" => &[0],
                "quant_conv.bias" | "post_quant_conv.bias" => &[0],
                "decoder.conv_in.weight" => &[1],
                _ => &[],
            };
            for &dimension in dimensions {
                shape[dimension] *= 2;
                data = data.repeat(2);
            }
            (name, shape, data)
        })
        .collect();
    let views = doubled.iter().map(|(name, shape, data)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("it fits"))
    });
    let sizes = sizes.replace('{', r#"{"latent_channels": 8, "#);
    let metadata = HashMap::from([("diffit_vae".to_string(), sizes)]);
    let bytes = safetensors::serialize(views, Some(metadata)).expect("it fits");
    std::fs::write(&files[2], bytes).expect("written");
    files
}

/// What the command line makes of latents.
fn latent_command_line(files: &[PathBuf; 3], more: &[&str]) -> RgbImage {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("grid.png");
    let [weights, vae, _] = files;
    trainer()
        .args(["sample", "--weights"])
        .arg(weights)
        .arg("--vae")
        .arg(vae)
        .args(more)
        .arg("--output")
        .arg(&path)
        .assert()
        .success();
    image::open(path).expect("a PNG file").into_rgb8()
}

/// Opens a file, and waits until that leads to something.
async fn open_file(browser: &Browser, file: &Path, then: &str) {
    browser.upload("#file", file).await;
    browser.wait(then, SOON).await;
    is(browser, "ready", SOON).await;
}

/// Whether an element says something, as a script's expression.
fn says(id: &str, text: &str) -> String {
    format!("(document.querySelector('[data-testid={id}]')?.textContent ?? '').includes({text:?})")
}

/// The pictures differ by at most `levels` of 255, and are pictures.
fn assert_same(page: &RgbImage, native: &RgbImage, levels: u8) {
    assert_eq!(page.dimensions(), native.dimensions());
    let worst = page.iter().zip(native.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(levels), "off by {worst:?} levels");
    let colours: std::collections::HashSet<_> = native.pixels().collect();
    assert!(colours.len() > 16, "an even colour");
}

/// Reads a number off the page, such as `12.3` off "12.3 ms".
async fn number(browser: &Browser, id: &str) -> f64 {
    let text = browser.text(&format!("[data-testid={id}]")).await;
    let number = text.split(' ').next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("{id} shows {text:?}"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn the_processor_makes_the_pictures_of_the_command_line() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    // There is something to see before anything is made.
    let poster = "document.querySelector('.poster .film')";
    browser.wait(&format!("{poster}.naturalWidth > 0 && {poster}.checkVisibility()"), SOON).await;
    let note = browser.text("[data-testid=note]").await;
    assert!(note.contains("on your processor instead"), "{note}");

    make(&browser, (5, 4, 6, "heun"), SOON).await;
    let shown = canvas(&browser, "canvas").await;
    // One level: where a value lies on the edge between two.
    assert_same(&shown, &command_line("5-8", 2, 6, "heun"), 1);

    // The file holds what is shown, and how it was made.
    browser.click("[data-testid=download]").await;
    let file = browser.downloaded("diffit-5.png", SOON).await;
    assert_eq!(image::load_from_memory(&file).expect("a PNG file").into_rgb8(), shown);
    let origin = Origin::from_png(&file).expect("an origin");
    assert_eq!((origin.seeds, origin.settings.steps), (vec![5, 6, 7, 8], 6));
    // Without a class, the guidance that the model's card recommends has no effect yet.
    let guidance =
        "guidance=2&guidance-power=0&guidance-channels=all&guidance-low=1&guidance-high=20";
    assert_eq!(origin.page, Some(format!("seed=5&count=4&steps=6&{guidance}")));

    view(&browser, "about").await;
    assert!(browser.text("[data-testid=device]").await.contains("processor"));
    assert!(browser.text("[data-testid=check]").await.starts_with("passed"));
    assert!(browser.text("[data-testid=card]").await.contains("emoji"));
    for id in ["ready", "first", "evaluation", "memory"] {
        assert!(number(&browser, id).await > 0.0, "{id}");
    }

    // Everything came from the folder, and all of it was there.
    for (path, status) in site.answers.lock().expect("no thread panicked").iter() {
        assert_eq!(*status, 200, "{path}");
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn webgpu_makes_the_pictures_of_the_command_line() {
    let (site, browser) = (site(), Browser::start(Gpu::Software).await);
    browser.open(&format!("{}?backend=webgpu{PLAIN}", site.url)).await;
    ready(&browser, LATE).await;
    assert_eq!(browser.text("[data-testid=note]").await, "");
    make(&browser, (3, 1, 2, "euler"), LATE).await;
    // Another order of sums, other functions for exp and tanh.
    let shown = canvas(&browser, "canvas").await;
    assert_same(&shown, &command_line("3", 1, 2, "euler"), 2);
    view(&browser, "about").await;
    let device = browser.text("[data-testid=device]").await;
    assert!(device.starts_with("WebGPU:"), "{device}");
    // To start a kernel takes a GPU longer than to compute one of this model's.
    let work = browser.text("[data-testid=work]").await;
    let counts: Vec<usize> = work.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [dispatches, writes, reads, submissions] = counts[..] else { panic!("{work}") };
    assert!((50..=200).contains(&dispatches), "{work}");
    assert!(writes <= dispatches, "{work}");
    // The preview.
    assert_eq!(reads, 1, "{work}");
    assert!(submissions <= 20, "{work}");
    // Without previews nothing is read before the finished picture, which is the same.
    view(&browser, "form").await;
    browser.click("#previews").await;
    make(&browser, (3, 1, 2, "euler"), LATE).await;
    assert_eq!(canvas(&browser, "canvas").await, shown);
    view(&browser, "about").await;
    let work = browser.text("[data-testid=work]").await;
    assert!(work.contains(" 0 reads"), "{work}");
    browser.close().await;
}

/// Firefox notices that a GPU is done when it gives it something new to do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_sleepy_browser_is_kept_awake() {
    let site = site();
    let browser = Browser::start_as(Gpu::Software, Some("Gecko/20100101 Firefox/153.0")).await;
    browser.open(&format!("{}?backend=webgpu{PLAIN}", site.url)).await;
    ready(&browser, LATE).await;
    make(&browser, (3, 1, 2, "euler"), LATE).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("3", 1, 2, "euler"), 2);
    view(&browser, "about").await;
    let work = browser.text("[data-testid=work]").await;
    let submissions = work.split(' ').filter_map(|word| word.parse::<usize>().ok()).nth(3);
    // An evaluation takes a second here at least, and something is given every few milliseconds.
    assert!(submissions.is_some_and(|submissions| submissions > 40), "{work}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_slow_adapter_is_not_used_unless_asked_for() {
    let (site, browser) = (site(), Browser::start(Gpu::Software).await);
    browser.open(&site.url).await;
    ready(&browser, SOON).await;
    let note = browser.text("[data-testid=note]").await;
    assert!(note.contains("without a graphics processor"), "{note}");
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    assert_eq!(browser.text("[data-testid=note]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn cancel_stops_within_an_evaluation() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    fill(&browser, (1, 16, 200, "heun")).await;
    browser.click("[data-testid=generate]").await;
    let evaluation = "Number(document.querySelector('[data-testid=status]').textContent.match(/Evaluation (\\d+) of 399/)?.[1] ?? 0)";
    browser.wait(&format!("{evaluation} >= 2"), SOON).await;
    assert_eq!(browser.text("[data-testid=generate]").await, "Cancel");
    // Read and clicked in one go, so that no evaluation comes between.
    let at: usize = browser
        .run(&format!(
            "const at = {evaluation}; document.querySelector('[data-testid=generate]').click(); return at"
        ))
        .await;
    is(&browser, "ready", SOON).await;
    assert_eq!(browser.text("[data-testid=status]").await, "Cancelled.");
    let frames: usize = browser
        .run(
            "const s = document.querySelector('[data-testid=scrubber]'); s.value = 200; \
              s.dispatchEvent(new Event('input', { bubbles: true })); return Number(s.value) + 1",
        )
        .await;
    // Two evaluations a step.
    assert!(frames <= (at + 1).div_ceil(2), "{frames} steps after a click at evaluation {at}");

    // What comes next is not touched by it.
    make(&browser, (9, 1, 3, "euler"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_picture_can_be_followed_from_noise() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    make(&browser, (5, 4, 5, "euler"), SOON).await;
    let level = async || browser.text("[data-testid=level]").await;
    assert_eq!(level().await, "After 5 steps: the picture");
    let (made, same) = (canvas(&browser, "canvas").await, canvas(&browser, "noisy").await);
    assert_eq!(made, same);

    // Back to the noise, and step by step forward, with the keyboard.
    browser.press("[data-testid=scrubber]", Key::Home + "").await;
    assert_eq!(level().await, "Step 1 of 5, noise level 80.0");
    let noise = canvas(&browser, "noisy").await;
    // Unit noise on a scale of 255: its spread is 127.5, less what is clipped.
    let mean = noise.iter().map(|&v| f64::from(v)).sum::<f64>() / noise.len() as f64;
    let spread = noise.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    let spread = (spread / noise.len() as f64).sqrt();
    assert!((mean - 128.0).abs() < 5.0 && (80.0..110.0).contains(&spread), "{mean} {spread}");
    assert_ne!(canvas(&browser, "canvas").await, made);
    browser.press("[data-testid=scrubber]", Key::Right + "").await;
    assert!(level().await.starts_with("Step 2 of 5, noise level 1"), "{}", level().await);
    browser.click("[data-testid=play]").await;
    browser
        .wait("document.querySelector('[data-testid=level]').textContent.startsWith('After')", SOON)
        .await;
    browser.wait("document.querySelector('[data-testid=play]').ariaLabel === 'Play'", SOON).await;

    // One of them, large.
    browser.click("[data-testid=pictures] > :nth-child(2) button").await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("6", 1, 5, "euler"), 1);
    browser.click("[data-testid=download]").await;
    let origin = Origin::from_png(&browser.downloaded("diffit-6.png", SOON).await);
    assert_eq!(origin.expect("an origin").seeds, [6]);
    browser.click("[data-testid=back]").await;
    assert_eq!(canvas(&browser, "canvas").await, made);

    // Seeds used before can be had again.
    make(&browser, (77, 1, 1, "euler"), SOON).await;
    browser.click("[data-testid=history] button").await;
    assert_eq!(browser.run::<String>("return document.querySelector('#seed').value").await, "5");
    browser.click("[data-testid=paper]").await;
    assert_eq!(browser.run::<String>("return document.querySelector('#steps').value").await, "18");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_link_brings_everything_back() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#seed=9&steps=3&sampler=euler", site.url)).await;
    done(&browser, SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);

    // The address follows the controls.
    let hash = async || browser.run::<String>("return location.hash").await;
    browser.click("#count-4").await;
    browser.wait("location.hash.includes('count=4')", SOON).await;
    view(&browser, "attend").await;
    assert_eq!(hash().await, "#view=attend&seed=9&count=4&steps=3&sampler=euler");

    // The controls follow the address; what makes no sense in it does nothing.
    browser.follow("seed=<b>&count=7&steps=999999&rho=NaN&view=javascript:alert(1)&x=y").await;
    browser.wait("document.querySelector('#steps')?.value === '250'", SOON).await;
    assert_eq!(browser.run::<String>("return document.querySelector('#seed').value").await, "154");
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.follow(&format!("{}=1&seed=%00", "a".repeat(50_000))).await;
    browser.wait("document.querySelector('#steps')?.value === '12'", SOON).await;
    is(&browser, "ready", SOON).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn files_carry_settings_there_and_back() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    make(&browser, (21, 1, 4, "euler"), SOON).await;
    let made = canvas(&browser, "canvas").await;
    browser.click("[data-testid=strip]").await;
    let strip = browser.downloaded("diffit-21-strip.png", SOON).await;
    let strip = image::load_from_memory(&strip).expect("a PNG file").into_rgb8();
    // Five noise levels, noisy above and denoised below, enlarged four times.
    assert_eq!(strip.dimensions(), (5 * 128, 2 * 128));
    assert_eq!(strip.get_pixel(4 * 128 + 62, 128 + 30), made.get_pixel(15, 7));
    browser.click("[data-testid=animation]").await;
    let animation = browser.downloaded("diffit-21-animation.png", SOON).await;
    assert!(animation.windows(4).any(|chunk| chunk == b"acTL"));

    // Any of them brings the settings and the picture back.
    make(&browser, (1, 4, 1, "heun"), SOON).await;
    let path = browser.downloads().join("diffit-21-animation.png");
    browser.upload("#file", &path).await;
    browser.wait("document.querySelector('#seed').value === '21'", SOON).await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await, made);

    // So does one of the command line.
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let native = folder.path().join("native.png");
    let weights = root().join("www/weights/tiny-emoji.safetensors");
    trainer()
        .args(["sample", "--seeds", "30-33", "--steps", "6", "--weights"])
        .arg(weights)
        .arg("--output")
        .arg(&native)
        .assert()
        .success();
    browser.upload("#file", &native).await;
    browser.wait("document.querySelector('#seed').value === '30'", SOON).await;
    done(&browser, SOON).await;
    let native = image::open(&native).expect("a PNG file").into_rgb8();
    assert_same(&canvas(&browser, "canvas").await, &native, 1);

    // What is none of ours does nothing but say so.
    let mut broken = std::fs::read(&path).expect("a file");
    broken.truncate(60);
    let mut plain = Vec::new();
    RgbImage::new(2, 2)
        .write_to(&mut std::io::Cursor::new(&mut plain), image::ImageFormat::Png)
        .expect("a PNG file");
    for (name, contents, message) in [
        ("broken.png", broken, "damaged"),
        ("plain.png", plain, "holds no settings"),
        ("page.safetensors", b"<!DOCTYPE html><title>x</title>".to_vec(), "it is a web page"),
        ("pickle.safetensors", b"PK\x03\x04torch".to_vec(), "can run code"),
        ("empty.safetensors", Vec::new(), "0 bytes"),
        ("long.safetensors", vec![0xff; 64], "no sensible length"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).expect("written");
        browser.upload("#file", &path).await;
        let trouble = "document.querySelector('[data-testid=trouble]')?.textContent ?? ''";
        browser.wait(&format!("({trouble}).includes({message:?})"), SOON).await;
        is(&browser, "ready", SOON).await;
    }
    assert_same(&canvas(&browser, "canvas").await, &native, 1);

    // A photo becomes the picture to start from.
    browser.upload("#file", &root().join("www/record.jpg")).await;
    browser.wait("document.querySelector('main').dataset.view === 'play'", SOON).await;
    browser.wait("document.querySelector('[data-testid=guide]')", SOON).await;
    assert_eq!(canvas(&browser, "guide").await.dimensions(), (32, 32));
    view(&browser, "form").await;
    is(&browser, "ready", SOON).await;

    // Weights of one's own are checked and used.
    browser.upload("#file", &root().join("tests/golden/network.weights.safetensors")).await;
    browser.wait("document.querySelector('.poster').checkVisibility()", SOON).await;
    is(&browser, "ready", SOON).await;
    make(&browser, (1, 1, 2, "heun"), SOON).await;
    assert_eq!(canvas(&browser, "canvas").await.dimensions(), (8, 8));

    // And the shipped ones are there again.
    view(&browser, "about").await;
    browser.click("[data-testid=models] button").await;
    browser
        .wait("document.querySelector('[data-testid=models]').textContent.includes('in use')", SOON)
        .await;
    is(&browser, "ready", SOON).await;
    view(&browser, "form").await;
    make(&browser, (30, 4, 6, "heun"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &native, 1);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn attention_can_be_looked_at() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser
        .open(&format!("{}?backend=cpu#view=attend&seed=9&block=0&steps=4&sampler=euler", site.url))
        .await;
    done(&browser, SOON).await;
    let heat = "document.querySelector('[data-testid=heat]').ariaLabel";
    let told = async |part: &str| browser.wait(&format!("{heat}.includes({part:?})"), SOON).await;
    // The first block has 32 by 32 tokens; the mark is right of and below the middle.
    told("token in row 17, column 17 of block 1, the mean of all heads").await;
    let first = canvas(&browser, "heat").await;
    assert_eq!(first.dimensions(), (32, 32));
    browser.press("[data-testid=token]", Key::Right + Key::Right + Key::Up).await;
    told("token in row 16, column 19").await;
    // Outside the token's window of 8 by 8 there is only grey; inside there is colour.
    let shown = canvas(&browser, "heat").await;
    let grey = |x, y| {
        let p = shown.get_pixel(x, y);
        p[0] == p[1] && p[1] == p[2]
    };
    assert!(grey(0, 0) && grey(15, 15) && grey(24, 15) && !grey(18, 15));
    // By pointer: the corner.
    browser.run::<bool>(
        "const t = document.querySelector('[data-testid=token]'); const r = t.getBoundingClientRect();
         t.dispatchEvent(new MouseEvent('click', { clientX: r.x + 2, clientY: r.y + 2, bubbles: true })); return true",
    ).await;
    told("row 1, column 1 of").await;

    // In step with the slider, and in another block, which has more heads.
    let (before, share) =
        (canvas(&browser, "heat").await, browser.text("[data-testid=shares]").await);
    browser.press("[data-testid=scrubber]", Key::Home + "").await;
    browser.wait("!document.querySelector('.pair .waiting')", SOON).await;
    assert_ne!(canvas(&browser, "heat").await, before);
    assert_ne!(browser.text("[data-testid=shares]").await, share);
    browser.fill("#block", "6").await;
    told("of block 7").await;
    browser.fill("#head", "1").await;
    told("head 2").await;
    assert_eq!(canvas(&browser, "bias").await.dimensions(), (8, 8));

    // Along the noise levels, as a file too.
    browser.click("[data-testid=open-strip]").await;
    browser.wait("!document.querySelector('[data-testid=save-strip]').disabled", SOON).await;
    browser.click("[data-testid=save-strip]").await;
    let strip = browser.downloaded("diffit-attention.png", SOON).await;
    let strip = image::load_from_memory(&strip).expect("a PNG file").into_rgb8();
    assert_eq!(strip.dimensions(), (4 * 128, 128));

    // All blocks at all noise levels. The panel beside it has one of the numbers: block 7 at the first.
    browser.click("[data-testid=open-survey]").await;
    let said = "document.querySelector('[data-testid=survey-said]').textContent";
    browser.wait(&format!("{said}.startsWith('Most in block')"), SOON).await;
    let cells = "[...document.querySelectorAll('.survey tbody tr')].map(row => [...row.cells].map(c => c.textContent))";
    let table = browser.run::<Vec<Vec<String>>>(&format!("return {cells}")).await;
    let blocks =
        browser.run::<usize>("return document.querySelectorAll('#block option').length").await;
    assert_eq!(table.len(), 4);
    assert!(table.iter().all(|row| row.len() == 1 + blocks), "{table:?}");
    assert_eq!(table[0][0], "80.00");
    let queries = browser.text("[data-testid=shares]").await;
    browser.click(".survey .buttons button:nth-child(2)").await;
    let query = browser.run::<String>(&format!("return ({cells})[0][7]")).await;
    assert!(queries.contains(&format!("{query} %")), "{query} and {queries}");
    // Evenness and distance are shown with the time token and without.
    browser.click(".survey .buttons button:nth-child(5)").await;
    browser.wait(&format!("{said}.startsWith('The time token changes it most')"), SOON).await;
    let both = browser.run::<Vec<Vec<String>>>(&format!("return {cells}")).await;
    assert_eq!(both.len(), 8);
    assert_ne!(both[..4], both[4..]);

    // Without the time token, other pictures come out.
    let made = canvas(&browser, "looked-at").await;
    browser.click("#silent").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    assert_ne!(canvas(&browser, "looked-at").await, made);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn noises_and_pictures_can_be_played_with() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    browser.follow("view=play&seed=5&seed-b=6&steps=2&sampler=euler").await;
    browser.wait("document.querySelector('#seed-b')?.value === '6'", SOON).await;
    let generate = async || {
        browser.click("[data-testid=generate]").await;
        done(&browser, SOON).await;
        canvas(&browser, "canvas").await
    };
    let tile = |grid: &RgbImage, x: u32, y: u32| {
        image::imageops::crop_imm(grid, 32 * x, 32 * y, 32, 32).to_image()
    };
    let (five, six) = (command_line("5", 1, 2, "euler"), command_line("6", 1, 2, "euler"));
    let way = generate().await;
    assert_eq!(way.dimensions(), (96, 96));
    assert_same(&tile(&way, 0, 0), &five, 1);
    assert_same(&tile(&way, 2, 2), &six, 1);
    browser.click("#game-among").await;
    let plane = generate().await;
    assert_eq!(plane.dimensions(), (128, 128));
    assert_same(&tile(&plane, 0, 0), &five, 1);
    assert_same(&tile(&plane, 3, 0), &six, 1);

    browser.click("#game-compare").await;
    assert_same(&generate().await, &five, 1);
    let beside = canvas(&browser, "beside").await;
    assert_same(&beside, &command_line("5", 1, 6, "euler"), 1);

    // A part of it made anew: what was not painted over stays.
    browser.click("#game-inpaint").await;
    browser.click("[data-testid=generate]").await;
    browser.wait(&says("trouble", "Choose a picture"), SOON).await;
    browser.click("[data-testid=take-shown]").await;
    browser.press("[data-testid=paint]", Key::Right + Key::Enter).await;
    assert!(browser.text("[data-testid=painted]").await.starts_with("256 "));
    browser.fill("#seed", "8").await;
    let made = generate().await;
    let mut changed = 0;
    for (x, y, pixel) in made.enumerate_pixels() {
        let most = (0..3).map(|c| pixel[c].abs_diff(five.get_pixel(x, y)[c])).max();
        if (9..25).contains(&x) && (8..24).contains(&y) {
            changed += usize::from(most > Some(8));
        } else {
            assert!(most <= Some(2), "({x}, {y}) changed by {most:?}");
        }
    }
    assert!(changed > 64, "only {changed} pixels were made anew");

    // From a picture of one's own, with little noise: it stays much as it was.
    browser.click("#game-from").await;
    browser.upload("#guide-file", &root().join("www/record.jpg")).await;
    browser.wait("document.querySelector('[data-testid=guide]')", SOON).await;
    browser.follow("view=play&play=from&seed=8&sigma=1.5&steps=3").await;
    let (from, guide) = (generate().await, canvas(&browser, "guide").await);
    let distance =
        from.iter().zip(guide.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    assert!(distance / (from.len() as f64) < 80.0 && from != guide);

    // From a step of a picture: four others, which the guess leaves open.
    browser.follow("seed=8&steps=4&sampler=euler").await;
    browser.fill("#class", "otter").await;
    let guessed = generate().await;
    browser.press("[data-testid=scrubber]", Key::Left + Key::Left + Key::Left).await;
    let sigma: f64 = browser.run("return Number(document.querySelector('[data-testid=level]').textContent.split(' ').pop())").await;
    browser.click("[data-testid=branch]").await;
    is(&browser, "generating", SOON).await;
    done(&browser, SOON).await;
    let hash = browser.run::<String>("return location.hash").await;
    for part in ["view=play", "play=from", "count=4", "classes=", &format!("sigma={sigma}")] {
        assert!(hash.contains(part), "{part} in {hash}");
    }
    let branches = canvas(&browser, "canvas").await;
    assert_ne!(branches, guessed);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn latents_of_a_class_become_the_pictures_of_the_command_line() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let files = latent_files(folder.path());
    let [weights, vae, wide] = &files;
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    let steps = "document.querySelector('#steps').value";
    assert_ne!(browser.run::<String>(&format!("return {steps}")).await, "50");

    // Weights alone: what is shown are latents, and how to come to pictures.
    open_file(&browser, weights, &format!("{steps} === '50'")).await;
    browser.fill("#seed", "0").await;
    browser.click("#count-4").await;
    browser.click("[data-testid=more]").await;
    browser.click("#sampler-ddpm").await;
    browser.fill("#respacing", "4").await;
    browser.click("#clip").await;
    browser.fill("#class", "goldf").await;
    assert_eq!(
        browser.run::<String>("return document.querySelector('#class').value").await,
        "goldfish"
    );
    browser.fill("#guidance-scale", "3").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await.dimensions(), (16, 16));
    assert!(browser.text("[data-testid=latent]").await.contains("open the file of their"));

    // The autoencoder; the one of other channels before it.
    open_file(&browser, wide, &says("trouble", "its latents have 8 channels")).await;
    let plain = root().join("tests/golden/vae.safetensors");
    open_file(&browser, &plain, &says("trouble", "is [8], not [128]")).await;
    let neither = root().join("tests/golden/vae.expected.safetensors");
    open_file(&browser, &neither, &says("trouble", "nor, where one is asked for")).await;
    let short = folder.path().join("short.safetensors");
    let bytes = std::fs::read(vae).expect("there");
    std::fs::write(&short, &bytes[..bytes.len() / 2]).expect("written");
    open_file(&browser, &short, &says("trouble", "it may be cut short")).await;
    open_file(&browser, vae, &says("note", "latents are decoded")).await;
    browser.click("[data-testid=generate]").await;
    browser.wait("document.querySelector('[data-testid=canvas]').width === 32", SOON).await;
    done(&browser, SOON).await;
    let made = canvas(&browser, "canvas").await;
    let common = ["--seeds", "0-3", "--columns", "2", "--sampler", "ddpm", "--clip-denoised"];
    let how = [&common[..], &["--respacing", "4"]].concat();
    let class = ["--classes", "1", "--guidance", "3"];
    assert_same(&made, &latent_command_line(&files, &[&how[..], &class].concat()), 1);
    // Class and guidance are not for nothing.
    assert_ne!(made, latent_command_line(&files, &how));

    // The file says all of it, and brings it back.
    browser.click("[data-testid=download]").await;
    let path = browser.downloads().join("diffit-0.png");
    let origin = Origin::from_png(&browser.downloaded("diffit-0.png", SOON).await);
    let origin = origin.expect("an origin");
    assert_eq!((origin.settings.classes.clone(), origin.seeds), (vec![1.into()], vec![0, 1, 2, 3]));
    assert_eq!(origin.settings.guidance.map(|guidance| guidance.scale), Some(3.0));
    assert_eq!(origin.vae_sha256.map(|hash| hash.len()), Some(64));
    browser.press("#class", Key::Control + "a").await;
    browser.press("#class", Key::Backspace + Key::Tab).await;
    // The device is fast enough for the pictures to follow.
    done(&browser, SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &latent_command_line(&files, &how), 1);
    browser.upload("#file", &path).await;
    browser.wait("document.querySelector('#class').value === 'goldfish'", SOON).await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await, made);

    // What is no class is said, and nothing is made of it.
    browser.fill("#class", "shark").await;
    assert!(browser.text("#class-problem").await.contains("any of 2 classes: 2 great white"));
    browser.click("[data-testid=generate]").await;
    browser.wait(&says("trouble", "any of 2 classes"), SOON).await;
    browser.fill("#class", "2,tiger").await;
    assert!(browser.run::<bool>("return location.hash.includes('classes=2,3')").await);
    done(&browser, SOON).await;
    browser.fill("#respacing", "ddim3000").await;
    assert!(browser.text("#respacing-problem").await.contains("no whole stride"));
    browser.fill("#respacing", "2,2").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    let how = [&common[..], &["--respacing", "2,2"]].concat();
    let class = ["--classes", "2-3", "--guidance", "3"];
    let two = latent_command_line(&files, &[&how[..], &class].concat());
    assert_same(&canvas(&browser, "canvas").await, &two, 1);

    // On the way they are latents; strips bring both to one size.
    browser.press("[data-testid=scrubber]", Key::Left + "").await;
    assert_eq!(canvas(&browser, "canvas").await.dimensions(), (16, 16));
    assert!(browser.text("[data-testid=latent]").await.contains("32 × 32"));
    browser.click("[data-testid=strip]").await;
    let strip = browser.downloaded("diffit-0-strip.png", SOON).await;
    let strip = image::load_from_memory(&strip).expect("a PNG file").into_rgb8();
    assert_eq!(strip.dimensions(), (5 * 128, 2 * 128));

    // The latent network's one window is the whole map.
    view(&browser, "attend").await;
    let heat = "document.querySelector('[data-testid=heat]').ariaLabel";
    browser.fill("#block", "1").await;
    browser.wait(&format!("{heat}.includes('row 3, column 3 of block 2')"), SOON).await;
    assert!(browser.text("#block").await.contains("stack, 4 × 4, window 4"));
    view(&browser, "about").await;
    assert!(browser.text("[data-testid=autoencoder]").await.contains("in use"));
    assert_eq!(browser.text("[data-testid=numbers]").await, "32-bit numbers");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn latents_can_be_made_from_pictures() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let files = latent_files(folder.path());
    let [weights, vae, _] = &files;
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    // In this order the autoencoder waits, and the model of pictures goes on.
    open_file(&browser, vae, &says("note", "once a model")).await;
    make(&browser, (9, 1, 3, "euler"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    open_file(&browser, weights, "document.querySelector('#class')").await;
    browser.follow("seed=4&respacing=5&sampler=ddim&clip=true&view=play&play=inpaint").await;
    browser.wait("document.querySelector('#guide-file')", SOON).await;
    browser.upload("#guide-file", &root().join("www/record.jpg")).await;
    browser.wait("document.querySelector('[data-testid=guide]')?.width === 32", SOON).await;
    let all = browser.text("[data-testid=painted]").await;
    assert!(all.starts_with("0 "), "{all}");
    browser.press("[data-testid=paint]", Key::Enter + "").await;
    assert!(browser.text("[data-testid=painted]").await.starts_with("256 "));
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    let first = canvas(&browser, "canvas").await;
    assert_eq!(first.dimensions(), (32, 32));
    // Another seed changes what was painted over; far from it, hardly anything.
    browser.fill("#seed", "5").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    let second = canvas(&browser, "canvas").await;
    let distance = |x: u32, y: u32| {
        let area = |image: &RgbImage| image::imageops::crop_imm(image, x, y, 6, 6).to_image();
        let (a, b) = (area(&first), area(&second));
        a.iter().zip(b.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
    };
    assert!(distance(13, 13) > 4 * distance(0, 0), "{} {}", distance(13, 13), distance(0, 0));

    // Without the autoencoder there is nothing to start with.
    browser.open(&format!("{}?backend=cpu&anew#view=play&play=from", site.url)).await;
    ready(&browser, SOON).await;
    open_file(&browser, weights, "document.querySelector('#class')").await;
    assert!(
        browser.text("[data-testid=needs-autoencoder]").await.contains("needs the autoencoder")
    );
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn the_address_names_files_beside_the_page() {
    let folder = copied();
    let files = latent_files(&folder.path().join("weights"));
    let (site, browser) =
        (Site::serve_marked(folder.path().into()), Browser::start(Gpu::None).await);
    let names = "weights=latent.safetensors&vae=vae.safetensors";
    let link =
        "seed=3&respacing=4&sampler=ddim&eta=0.5&clip=true&classes=4&guidance=2&guidance-power=0";
    let how = [
        "--seeds",
        "3",
        "--sampler",
        "ddim",
        "--eta",
        "0.5",
        "--respacing",
        "4",
        "--clip-denoised",
    ];
    let class = ["--classes", "4", "--guidance", "2", "--guidance-power", "0"];
    let native = latent_command_line(&files, &[&how[..], &class].concat());
    // A lost device is found again with both of them.
    for fault in ["", "&fault=3"] {
        browser.open(&format!("{}?backend=cpu&{names}{fault}#{link}", site.url)).await;
        browser.wait("document.querySelector('[data-testid=canvas]')?.width === 32", SOON).await;
        browser.wait(&says("level", "After 4 steps"), SOON).await;
        done(&browser, SOON).await;
        assert_same(&canvas(&browser, "canvas").await, &native, 1);
        let note = browser.text("[data-testid=note]").await;
        let expected = if fault.is_empty() { "latents are decoded" } else { "started again" };
        assert!(note.contains(expected), "{note}");
    }
    // One that is not there, or lies elsewhere, is passed over; the shipped model is there.
    browser
        .open(&format!("{}?backend=cpu&weights=none.safetensors&vae=../x{PLAIN}", site.url))
        .await;
    browser.wait(&says("trouble", "the server answered 404"), SOON).await;
    is(&browser, "ready", SOON).await;
    make(&browser, (9, 1, 3, "euler"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    let answers = site.answers.lock().expect("no thread panicked").clone();
    assert!(answers.iter().all(|(path, _)| !path.ends_with("/x")), "{answers:?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_visit_begins_with_four_named_pictures() {
    let (site, folder) = named_site();
    let browser = Browser::start(Gpu::None).await;
    let four = ["cat", "rainbow", "rocket", "cactus"];
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    done(&browser, SOON).await;
    assert_eq!(captions(&browser).await, four);
    let labels =
        "return [...document.querySelectorAll('[data-testid=canvas]')].map((e) => e.ariaLabel)";
    let buttons = "return [...document.querySelectorAll('[data-testid=pictures] button')].map((e) => e.ariaLabel)";
    let (labels, buttons): (Vec<String>, Vec<String>) =
        (browser.run(labels).await, browser.run(buttons).await);
    assert_eq!((labels.len(), buttons.len()), (4, 4));
    for (i, name) in four.into_iter().enumerate() {
        assert!(labels[i].contains(name) && labels[i].contains("without noise"), "{labels:?}");
        assert_eq!(buttons[i], format!("Enlarge picture {} of 4: {name}", i + 1));
    }
    assert_eq!(browser.violations().await, Vec::<String>::new());
    let hash = async || browser.run::<String>("return location.hash").await;
    assert_eq!(hash().await, "#seed=20&count=4&steps=12&sampler=ipndm&classes=10,14,4,15");

    // They are the pictures of these names.
    make(&browser, (20, 4, 3, "euler"), SOON).await;
    let shown = canvas(&browser, "canvas").await;
    let native = named_command_line(folder.path(), "named.safetensors", "20-23", &four.join(","));
    assert_same(&shown, &native, 1);
    browser.click("[data-testid=pictures] > :nth-child(4) button").await;
    assert_eq!(captions(&browser).await, ["cactus"]);
    browser.click("[data-testid=download]").await;
    let origin = Origin::from_png(&browser.downloaded("diffit-23.png", SOON).await);
    let origin = origin.expect("an origin");
    assert_eq!(origin.settings.labels_of(&origin.seeds), [15.into()]);
    browser.click("[data-testid=back]").await;

    // A link that says nothing of names is of none, as it always was.
    browser.open(&format!("{}?backend=cpu&old#seed=9&steps=3&sampler=euler", site.url)).await;
    done(&browser, SOON).await;
    assert_eq!(captions(&browser).await, [""; 0]);
    assert_same(
        &canvas(&browser, "canvas").await,
        &named_command_line(folder.path(), "named.safetensors", "9", ""),
        1,
    );
    // Nor is the usual scene, where someone comes back to it: nothing is made, nothing is named.
    fill(&browser, (154, 1, 12, "ipndm")).await;
    browser.wait("location.hash === '#classes=none'", SOON).await;
    browser.open(&format!("{}?backend=cpu&again{}", site.url, hash().await)).await;
    ready(&browser, SOON).await;
    browser.wait("document.querySelector('.poster').checkVisibility()", SOON).await;
    assert_eq!(browser.run::<String>("return document.querySelector('#class').value").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn names_are_found_as_one_types() {
    let (site, folder) = named_site();
    let browser = Browser::start(Gpu::None).await;
    browser.open(&format!("{}?backend=cpu#steps=3&sampler=euler&classes=0", site.url)).await;
    done(&browser, SOON).await;
    let offered = async || -> Vec<String> {
        let shown = "document.querySelector('#class-names').checkVisibility()";
        let texts = "[...document.querySelectorAll('#class-names li > :first-child')].map((e) => e.textContent)";
        browser.run(&format!("return {shown} ? {texts} : []")).await
    };
    let value =
        async || browser.run::<String>("return document.querySelector('#class').value").await;
    let input = "document.querySelector('#class')";
    let marked = format!(
        "return document.getElementById({input}.getAttribute('aria-activedescendant'))?.firstElementChild.textContent ?? ''"
    );
    let expanded = format!("return {input}.getAttribute('aria-expanded')");
    let marked = async || browser.run::<String>(&marked).await;
    let expanded = async || browser.run::<String>(&expanded).await;
    let select_all = async || browser.press("#class", Key::Control + "a").await;

    // Prefixes of names, then of words, then what has it anywhere.
    assert_eq!((offered().await, expanded().await.as_str()), (vec![], "false"));
    select_all().await;
    browser.press("#class", "PIZ").await;
    assert_eq!(offered().await, ["pizza", "pizzeria", "slice of pizza", "mapizza"]);
    assert_eq!((marked().await.as_str(), expanded().await.as_str()), ("", "true"));
    assert!(browser.text("#class-names li").await.ends_with("Mixed"));
    browser.press("#class", Key::Down + Key::Down + Key::Down).await;
    assert_eq!(marked().await, "slice of pizza");
    assert_eq!(browser.violations().await, Vec::<String>::new());
    browser.press("#class", Key::Up + "").await;
    assert_eq!(marked().await, "pizzeria");
    browser.press("#class", Key::Enter + "").await;
    assert_eq!((value().await.as_str(), expanded().await.as_str()), ("pizzeria", "false"));
    // The device is fast: the picture follows by itself.
    let follows = async |name: &str| {
        let caption = "document.querySelector('[data-testid=pictures] .name')?.textContent";
        browser.wait(&format!("{caption} === {name:?}"), SOON).await;
        done(&browser, SOON).await;
    };
    follows("pizzeria").await;
    let native = named_command_line(folder.path(), "named.safetensors", "154", "pizzeria");
    assert_same(&canvas(&browser, "canvas").await, &native, 1);

    // Escape closes, and then brings back what there was.
    select_all().await;
    browser.press("#class", "fro").await;
    browser.press("#class", Key::Escape + "").await;
    assert_eq!((value().await.as_str(), offered().await.len()), ("fro", 0));
    browser.press("#class", Key::Escape + "").await;
    assert_eq!(value().await, "pizzeria");
    // Enter takes the best, arrows go around, a pointer does as well.
    select_all().await;
    browser.press("#class", "fr").await;
    browser.press("#class", Key::Enter + "").await;
    follows("frog").await;
    select_all().await;
    browser.press("#class", "animals").await;
    assert_eq!(offered().await, ["cat", "dog", "fox", "ox"]);
    browser.press("#class", Key::Up + "").await;
    assert_eq!(marked().await, "ox");
    browser.press("#class", Key::Down + "").await;
    assert_eq!(marked().await, "cat");
    browser.click("#class-names li:nth-child(2)").await;
    follows("dog").await;
    // Without a letter, there is some of everything, and no more than a screen of it.
    browser.press("#class", Key::Down + "").await;
    assert_eq!(offered().await.len(), 12);
    browser.press("#class", Key::Escape + "").await;

    // Lists, ranges and mixtures can be typed; the last name of a list is looked for.
    browser.click("#count-4").await;
    select_all().await;
    browser.press("#class", "ship,ro").await;
    assert_eq!(offered().await, ["rocket", "frog"]);
    browser.press("#class", Key::Down + Key::Enter).await;
    assert_eq!(value().await, "ship, rocket");
    browser
        .wait("document.querySelectorAll('[data-testid=pictures] .name').length === 4", SOON)
        .await;
    done(&browser, SOON).await;
    assert_eq!(captions(&browser).await, ["ship", "rocket", "ship", "rocket"]);
    browser.fill("#class", "10-12,otter").await;
    assert_eq!(value().await, "cat, dog, fox, otter");
    browser.fill("#class", "otter=0.6,pizza=0.4;moon").await;
    assert_eq!(value().await, "otter=0.6, pizza=0.4; moon");
    browser.wait("location.hash.includes('classes=2:0.6_3:0.4,19')", SOON).await;
    done(&browser, SOON).await;
    let mixed = "otter 60 % + pizza 40 %";
    assert_eq!(captions(&browser).await, [mixed, "moon", mixed, "moon"]);
    // What is no name is said so, and changes nothing.
    browser.fill("#class", "unicorn").await;
    assert!(browser.text("#class-problem").await.contains("no class is called `unicorn`"));
    assert_eq!(browser.violations().await, Vec::<String>::new());
    assert!(browser.run::<bool>("return location.hash.includes('classes=2:0.6_3:0.4,19')").await);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn names_are_drawn_and_mixed() {
    let (site, folder) = named_site();
    let browser = Browser::start(Gpu::None).await;
    browser
        .open(&format!("{}?backend=cpu#seed=0&count=4&steps=3&sampler=euler&classes=0", site.url))
        .await;
    done(&browser, SOON).await;
    // Four pictures, four names; another four with the next click.
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..4 {
        browser.click("[data-testid=random]").await;
        done(&browser, SOON).await;
        let names = captions(&browser).await;
        let different: std::collections::BTreeSet<_> = names.iter().cloned().collect();
        assert!(different.len() == 4 && names.iter().all(|n| NAMES.contains(&&**n)), "{names:?}");
        let value = browser.run::<String>("return document.querySelector('#class').value").await;
        assert_eq!(value, names.join(", "));
        drawn.insert(names);
    }
    assert!(drawn.len() > 1, "always {drawn:?}");

    // Two names and a slider.
    browser.click("#count-1").await;
    browser.fill("#class", "otter").await;
    done(&browser, SOON).await;
    browser.wait("!document.querySelector('#mix').checkVisibility()", SOON).await;
    browser.fill("#second", "pizza").await;
    done(&browser, SOON).await;
    let half = canvas(&browser, "canvas").await;
    assert_eq!(captions(&browser).await, ["otter 50 % + pizza 50 %"]);
    let native = |class: &str| named_command_line(folder.path(), "named.safetensors", "0", class);
    assert_same(&half, &native("otter=0.5,pizza=0.5"), 1);
    browser.press("#mix", Key::Left + Key::Left + Key::Left).await;
    browser
        .wait(
            "document.querySelector('[data-testid=pictures] .name').textContent.includes('47 %')",
            SOON,
        )
        .await;
    done(&browser, SOON).await;
    let mixed = canvas(&browser, "canvas").await;
    assert_same(&mixed, &native("otter=0.53,pizza=0.47"), 1);
    assert_ne!(mixed, half);
    assert_ne!(mixed, native("otter"));
    let text = "document.querySelector('#mix').getAttribute('aria-valuetext')";
    assert_eq!(browser.run::<String>(&format!("return {text}")).await, "53 % otter, 47 % pizza");

    // Guided beyond it, and back: 1 is no guidance.
    browser.fill("#guidance-scale", "3").await;
    browser.wait("location.hash.includes('guidance=3')", SOON).await;
    done(&browser, SOON).await;
    assert_ne!(canvas(&browser, "canvas").await, mixed);
    browser.fill("#guidance-scale", "1").await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await, mixed);

    // Link and file bring all of it back.
    browser.click("[data-testid=download]").await;
    let origin = Origin::from_png(&browser.downloaded("diffit-0.png", SOON).await);
    let path = browser.downloads().join("diffit-0.png");
    assert_eq!(origin.expect("an origin").settings.classes[0].parts(), [(2, 0.53), (3, 0.47)]);
    let hash = browser.run::<String>("return location.hash").await;
    assert!(hash.contains("classes=2:0.53_3:0.47"), "{hash}");
    browser.open(&format!("{}?backend=cpu&reloaded{hash}", site.url)).await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await, mixed);
    let fields = "return ['class', 'second', 'mix'].map((id) => document.getElementById(id).value)";
    assert_eq!(browser.run::<Vec<String>>(fields).await, ["otter", "pizza", "47"]);
    // Without the second name, the first is all of it.
    browser.press("#second", Key::Control + "a").await;
    browser.press("#second", Key::Backspace + Key::Tab).await;
    browser.wait("!document.querySelector('#mix').checkVisibility()", SOON).await;
    done(&browser, SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &native("otter"), 1);
    browser.upload("#file", &path).await;
    browser.wait("document.querySelector('#mix')?.value === '47'", SOON).await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await, mixed);

    // What does not follow by itself is pointed out.
    let outdated = "document.querySelector('[data-testid=generate].outdated')";
    browser.wait(&format!("!{outdated}"), SOON).await;
    browser.fill("#seed", "7").await;
    browser.wait(outdated, SOON).await;
    browser.click("[data-testid=generate]").await;
    browser.wait(&format!("!{outdated}"), SOON).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn another_model_is_chosen_at_the_top() {
    let (site, folder) = named_site();
    let browser = Browser::start(Gpu::None).await;
    browser
        .open(&format!(
            "{}?backend=cpu#seed=0&count=4&steps=3&sampler=euler&classes=2,3,4,18",
            site.url
        ))
        .await;
    done(&browser, SOON).await;
    let models =
        "return [...document.querySelectorAll('#model-choice option')].map((e) => e.textContent)";
    assert_eq!(browser.run::<Vec<String>>(models).await, ["Named", "Others"]);
    // Names that the other model has stay, and so does all else.
    let uses = async |file: &str| {
        browser
            .wait(&format!("document.querySelector('#model-choice').value === {file:?}"), SOON)
            .await;
        browser.wait("document.querySelector('[data-testid=pictures] .name')", SOON).await;
        done(&browser, SOON).await;
    };
    browser.fill("#model-choice", "others.safetensors").await;
    uses("others.safetensors").await;
    assert_eq!(captions(&browser).await, ["otter", "ship", "otter", "ship"]);
    let native = named_command_line(folder.path(), "others.safetensors", "0-3", "otter,ship");
    assert_same(&canvas(&browser, "canvas").await, &native, 1);
    let hash = "#model=others.safetensors&seed=0&count=4&steps=3&sampler=euler&classes=1,3";
    browser.wait(&format!("location.hash === {hash:?}"), SOON).await;
    // A name that the first model has not gives way to its own.
    browser.fill("#class", "horse").await;
    done(&browser, SOON).await;
    browser.fill("#model-choice", "named.safetensors").await;
    uses("named.safetensors").await;
    assert_eq!(captions(&browser).await, ["cat", "rainbow", "rocket", "cactus"]);
    // These were not chosen. The other model has one of them, and begins with its own all the same.
    browser.fill("#model-choice", "others.safetensors").await;
    uses("others.safetensors").await;
    assert_eq!(captions(&browser).await, ["automobile", "horse", "ship", "cat"]);
    // Where a model has none of these names, some of everything.
    browser.open(&format!("{}?backend=cpu&own{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    browser.fill("#class", "moon").await;
    browser.fill("#model-choice", "others.safetensors").await;
    uses("others.safetensors").await;
    assert_eq!(captions(&browser).await, ["ship"]);

    // A model of one's own is named there, as long as it is used.
    browser.upload("#file", &root().join("tests/golden/network.weights.safetensors")).await;
    browser
        .wait(
            "document.querySelector('#model-choice')?.value === 'network.weights.safetensors'",
            SOON,
        )
        .await;
    is(&browser, "ready", SOON).await;
    assert_eq!(
        browser
            .run::<usize>("return document.querySelectorAll('#model-choice option').length")
            .await,
        3
    );
    assert!(!browser.run::<bool>("return Boolean(document.querySelector('#class'))").await);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn where_memory_does_not_suffice_fewer_pictures_are_offered() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::None).await);
    // The program of the worker really finds no more, and ends.
    browser.open(&format!("{}?backend=cpu&fault=memory4{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    fill(&browser, (9, 9, 3, "euler")).await;
    browser.click("[data-testid=generate]").await;
    browser.wait(&says("trouble", "not enough memory for 9 pictures"), SOON).await;
    browser.wait("document.querySelector('[data-testid=smaller]:enabled')", SOON).await;
    is(&browser, "ready", SOON).await;
    assert_eq!(browser.text("[data-testid=smaller]").await, "Make 4 pictures");
    browser.click("[data-testid=smaller]").await;
    done(&browser, SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9-12", 2, 3, "euler"), 1);
    assert_eq!(browser.text("[data-testid=trouble]").await, "");

    // Here it is known before anything is tried: 12.6 MB of weights, and some 3 MB a picture.
    browser.open(&format!("{}?backend=cpu&memory=20000000{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    fill(&browser, (9, 4, 3, "euler")).await;
    browser.click("[data-testid=generate]").await;
    browser.wait(&says("trouble", "at most 20 MB of memory are available"), SOON).await;
    browser.click("[data-testid=smaller]").await;
    done(&browser, SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    // So it is of a model that is too large.
    browser.open(&format!("{}?backend=cpu&memory=10000{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    let own = root().join("tests/golden/network.weights.safetensors");
    open_file(&browser, &own, &says("trouble", "is too large to be used here")).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_lost_device_costs_no_more_than_time() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::None).await);
    let native = command_line("9", 1, 3, "euler");
    for evaluation in 1..=3 {
        let link =
            format!("{}?backend=cpu&fault={evaluation}#seed=9&steps=3&sampler=euler", site.url);
        browser.open(&link).await;
        browser.wait("document.querySelector('[data-testid=note]')", SOON).await;
        done(&browser, SOON).await;
        assert!(browser.text("[data-testid=note]").await.contains("started again"));
        assert_same(&canvas(&browser, "canvas").await, &native, 1);
    }
    // The published page ignores the fault.
    let published = Site::serve(dist());
    browser
        .open(&format!("{}?backend=cpu&fault=1#seed=9&steps=3&sampler=euler", published.url))
        .await;
    done(&browser, SOON).await;
    assert_eq!(browser.text("[data-testid=note]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_lost_device_keeps_weights_of_ones_own() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu&fault=2{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    let own = root().join("tests/golden/network.weights.safetensors");
    browser.upload("#file", &own).await;
    view(&browser, "about").await;
    let used = "document.querySelector('[data-testid=models] button')";
    browser.wait(used, SOON).await;
    view(&browser, "form").await;
    make(&browser, (1, 1, 3, "heun"), SOON).await;
    assert!(browser.text("[data-testid=note]").await.contains("started again"));
    assert_eq!(canvas(&browser, "canvas").await.dimensions(), (8, 8));
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_lost_graphics_processor_costs_no_more_than_time() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::Software).await);
    browser
        .open(&format!("{}?backend=webgpu&fault=2#seed=3&steps=2&sampler=euler", site.url))
        .await;
    browser.wait("document.querySelector('[data-testid=note]')", LATE).await;
    done(&browser, LATE).await;
    assert!(browser.text("[data-testid=note]").await.contains("started again"));
    assert_same(&canvas(&browser, "canvas").await, &command_line("3", 1, 2, "euler"), 2);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn it_works_without_the_network_once_it_was_there() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    browser
        .run::<bool>(
            "navigator.serviceWorker.ready.then(() => { window.kept = true }); return true",
        )
        .await;
    browser.wait("window.kept", SOON).await;
    *site.fault.lock().expect("no thread panicked") = Some(("", Fault::Missing));
    browser.open(&format!("{}?backend=cpu#seed=9&steps=2&sampler=euler", site.url)).await;
    browser.run::<bool>("location.reload(); return true").await;
    done(&browser, SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 2, "euler"), 1);
    view(&browser, "about").await;
    browser.wait("document.querySelector('[data-testid=storage]').textContent.includes('without the network')", SOON).await;
    browser.click("[data-testid=delete]").await;
    browser
        .wait(
            "document.querySelector('[data-testid=storage]').textContent.startsWith('Nothing')",
            SOON,
        )
        .await;
    browser.close().await;
}

/// The page inside another page, what it copies, and a browser that lacks what secure addresses have.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn it_can_be_embedded_and_copied_from() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#seed=9&steps=2&sampler=euler", site.url)).await;
    done(&browser, SOON).await;
    // What is copied is kept here: a browser without a window has no clipboard.
    let stub = "Object.defineProperty(navigator, 'clipboard', {
            configurable: true, value: { writeText: async (text) => { window.text = text } } }); return true";
    browser.run::<bool>(stub).await;
    let copy = async |name: &str| {
        browser.run::<bool>("window.text = ''; return true").await;
        browser.click(&format!("[data-testid={name}]")).await;
        browser.wait("window.text", SOON).await;
        browser.run::<String>("return window.text").await
    };
    let element = copy("embed").await;
    let (_, address) = element.split_once("src=\"").expect("an address");
    let (address, _) = address.split_once('"').expect("an end");
    assert!(element.starts_with("<iframe ") && address.contains("?embed&amp;backend=cpu#"));
    assert!(address.contains("seed=9"), "{element}");
    view(&browser, "about").await;
    let report = copy("diagnostics").await;
    for part in
        ["Browser: Mozilla/", "Model: tiny-emoji.safetensors, SHA-256 ", "Self-check: passed"]
    {
        assert!(report.contains(part), "{report}");
    }
    // A source is a link to the paper.
    let papers = "return [...document.querySelectorAll('.source a')].map((link) => link.href)";
    let papers = browser.run::<Vec<String>>(papers).await;
    assert!(papers.contains(&"https://arxiv.org/abs/2312.02139".to_string()), "{papers:?}");

    // An address without TLS has no clipboard.
    let none =
        "Object.defineProperty(navigator, 'clipboard', { configurable: true, value: undefined });
                return true";
    browser.run::<bool>(none).await;
    browser.click("[data-testid=diagnostics]").await;
    browser.wait("document.body.textContent.includes('does not let the page copy')", SOON).await;

    let shown = "return ['h1', '.keep', '[data-testid=canvas]', '#whole'].map((name) =>
                 document.querySelector(name)?.checkVisibility() ?? false)";
    let whole = browser.run::<Vec<bool>>(shown).await;
    assert_eq!((whole[0], whole[3]), (true, false));
    browser.open(&address.replace("&amp;", "&")).await;
    done(&browser, SOON).await;
    assert_eq!(browser.run::<Vec<bool>>(shown).await, [false, false, true, true]);
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 2, "euler"), 1);
    browser.close().await;
}

/// Waits until the browser keeps the page, and opens it anew, so that the service worker answers.
async fn keep(browser: &Browser) {
    browser
        .run::<bool>(
            "navigator.serviceWorker.ready.then(() => { window.kept = true }); return true",
        )
        .await;
    browser.wait("window.kept", SOON).await;
    browser.run::<bool>("location.reload(); return true").await;
    browser.wait("navigator.serviceWorker.controller", SOON).await;
    ready(browser, SOON).await;
}

/// Workers have the policy of the page, and nothing is loaded from elsewhere.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn workers_have_the_policy_of_the_page() {
    let folder = copied();
    // Another port is another origin.
    let other = site();
    let probe = format!(
        "addEventListener('securitypolicyviolation', (e) => postMessage(`refused by ${{e.violatedDirective}}`));
         fetch('{}', {{ mode: 'no-cors' }}).then(() => postMessage('loaded'), () => {{}});",
        other.url
    );
    std::fs::write(folder.path().join("probe.js"), probe).expect("written");
    let (site, browser) = (Site::serve(folder.path().to_owned()), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    keep(&browser).await;
    browser
        .run::<bool>(
            "const probe = new Worker('./probe.js');
             probe.onmessage = (message) => { window.probed = message.data };
             return true",
        )
        .await;
    browser.wait("window.probed", SOON).await;
    let probed = browser.run::<String>("return window.probed").await;
    assert_eq!(probed, "refused by connect-src");
    assert_eq!(*other.answers.lock().expect("no thread panicked"), []);

    let loaded = "return performance.getEntriesByType('resource').map((entry) => entry.name)";
    let loaded = browser.run::<Vec<String>>(loaded).await;
    assert!(loaded.len() > 3, "{loaded:?}");
    assert!(loaded.iter().all(|address| address.starts_with(&site.url)), "{loaded:?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn what_arrives_wrong_is_refused_and_can_be_fetched_again() {
    let site = site();
    let set = |fault| *site.fault.lock().expect("no thread panicked") = fault;
    for (ending, fault, message) in [
        ("cpu.js", Fault::Flipped, "could not be loaded"),
        ("cpu_bg.wasm", Fault::Flipped, "could not be loaded"),
        (".safetensors", Fault::Missing, "the server answered 404"),
        (".safetensors", Fault::Short, "bytes arrived"),
        (".safetensors", Fault::Flipped, "its hash differs"),
        (".safetensors", Fault::WebPage, "bytes arrived"),
        ("manifest.json", Fault::Missing, "the server answered 404"),
        ("manifest.json", Fault::WebPage, "cannot be read"),
    ] {
        // Each in a browser of its own: this one keeps the files once all have arrived.
        let browser = Browser::start(Gpu::None).await;
        set(Some((ending, fault.clone())));
        browser.open(&site.url).await;
        is(&browser, "broken", SOON).await;
        let trouble = browser.text("[data-testid=trouble]").await;
        assert!(trouble.contains(message), "{ending} {fault:?}: {trouble:?}");
        assert_eq!(browser.violations().await, Vec::<String>::new());
        set(None);
        browser.click("[data-testid=again]").await;
        ready(&browser, SOON).await;
        browser.close().await;
    }
}

/// A damaged copy of the weights in a cache is replaced by the server's, without a word.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_damaged_copy_in_a_cache_is_replaced() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    *site.fault.lock().expect("no thread panicked") =
        Some((".safetensors", Fault::FlippedInCaches));
    browser.open(&site.url).await;
    ready(&browser, SOON).await;
    let loaded = |(path, status): &(String, u16)| path.ends_with(".safetensors") && *status == 200;
    let answers = site.answers.lock().expect("no thread panicked").clone();
    assert!(answers.iter().filter(|answer| loaded(answer)).count() >= 2, "{answers:?}");
    browser.close().await;
}

/// Waits for the playground to show this many evaluations in a panel.
async fn evaluates(browser: &Browser, panel: &str, evaluations: usize) {
    let shown = format!("document.querySelector('[data-testid=evaluations-{panel}]')?.textContent");
    browser.wait(&format!("{shown} === '{evaluations}'"), SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn samplers_can_be_compared_in_the_plane() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    view(&browser, "playground").await;
    let distances =
        async || [number(&browser, "distance-a").await, number(&browser, "distance-b").await];
    let paths = async |class: &str| -> Vec<String> {
        let all = format!("[...document.querySelectorAll('.plane .{class}')]");
        browser.run(&format!("return {all}.map((path) => path.getAttribute('d'))")).await
    };

    // Heun is closer than Euler with as many evaluations, in numbers, in words, and as a picture.
    evaluates(&browser, "a", 35).await;
    evaluates(&browser, "b", 35).await;
    let [euler, heun] = distances().await;
    assert!(heun > 0.0 && 2.0 * heun < euler, "Heun {heun}, Euler {euler}");
    let verdict = browser.text("[data-testid=verdict]").await;
    assert!(verdict.starts_with("With 35 evaluations each, B ends"), "{verdict}");
    let label = "document.querySelector('[data-testid=plane-a]').ariaLabel";
    let label: String = browser.run(&format!("return {label}")).await;
    assert!(label.contains("35 evaluations") && label.contains(&euler.to_string()), "{label}");
    // It plays once by itself; then the lines to the exact end points are shown.
    browser.wait(&says("level", "No noise left"), SOON).await;
    let errors = paths("error").await;
    assert_eq!(errors.iter().map(|path| path.matches("L").count()).collect::<Vec<_>>(), [240; 2]);

    // The slider: at the first level there are no trails, and the particles are elsewhere.
    let particles = paths("particle").await;
    assert_eq!(particles[0].matches("h0").count(), 240);
    browser.press("[data-testid=scrubber]", Key::Home + "").await;
    browser.wait(&says("level", "Noise level 10.0"), SOON).await;
    assert_eq!(paths("error").await, ["", ""]);
    assert_ne!(paths("particle").await, particles);
    let start = paths("particle").await;
    assert_eq!(start[0], start[1], "both panels start from the same noise");
    browser.press("[data-testid=scrubber]", Key::Right + "").await;
    browser.wait(&says("level", "Noise level 9."), SOON).await;

    // Another method in A: the same numbers as in B.
    browser.click("#sampler-panel-a-heun").await;
    evaluates(&browser, "a", 69).await;
    browser.fill("#steps-panel-a", "18").await;
    evaluates(&browser, "a", 35).await;
    let [a, b] = distances().await;
    assert_eq!((a, b), (heun, heun));
    assert!(browser.text("[data-testid=verdict]").await.contains("equally far"));
    browser.wait("location.hash.includes('pa-steps=18&pa-sampler=heun')", SOON).await;
    // Other noise, and other data.
    browser.fill("#seed", "7").await;
    let shown = "document.querySelector('[data-testid=distance-b]').textContent";
    let changed = format!("{shown} !== '{heun}'");
    browser.wait(&changed, SOON).await;
    browser.click("#points-moons").await;
    browser.wait("location.hash.includes('data=moons')", SOON).await;

    // Churn: fresh noise, no lines to end points that it does not lead to.
    browser.click("[data-testid=preset-churn]").await;
    browser.wait(&says("verdict", "off the data"), SOON).await;
    browser.wait(&says("level", "No noise left"), SOON).await;
    let jumps = paths("jump").await;
    assert!(jumps[0].is_empty() && jumps[1].len() > 1000);
    assert!(paths("error").await[1].is_empty());
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_link_brings_a_playground_back() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.prefer_no_motion().await;
    let link = "view=playground&seed=3&data=smiley&pa-steps=12&pa-sampler=dpmpp&pb-steps=6";
    browser.open(&format!("{}?backend=cpu#{link}", site.url)).await;
    evaluates(&browser, "a", 12).await;
    evaluates(&browser, "b", 11).await;
    let shown: (bool, bool, String) = browser
        .run(
            "const at = (id) => document.getElementById(id);
             return [at('points-smiley').checked, at('sampler-panel-a-dpmpp').checked, at('seed').value]",
        )
        .await;
    assert_eq!(shown, (true, true, "3".into()));
    let before = [number(&browser, "distance-a").await, number(&browser, "distance-b").await];
    // Whoever prefers no motion sees the end.
    assert_eq!(browser.text("[data-testid=level]").await, "No noise left");
    // The pictures of the model are made once they are to be seen.
    ready(&browser, SOON).await;
    assert_eq!(browser.text("[data-testid=status]").await, "Ready.");
    view(&browser, "form").await;
    done(&browser, SOON).await;
    view(&browser, "playground").await;
    evaluates(&browser, "a", 12).await;
    let after = [number(&browser, "distance-a").await, number(&browser, "distance-b").await];
    assert_eq!(before, after);

    // What it does not know is said, and the usual is shown instead.
    browser.follow("view=playground&data=cow&pa-steps=9&pb-sampler=fox").await;
    evaluates(&browser, "a", 9).await;
    let note = browser.text("[data-testid=refused]").await;
    assert!(note.contains("data=cow, pb-sampler=fox."), "{note}");
    assert!(browser.run::<bool>("return document.getElementById('points-spiral').checked").await);
    browser.close().await;
}

/// The playground needs no model.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn the_playground_works_without_weights() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    *site.fault.lock().expect("no other thread panicked") = Some((".safetensors", Fault::Missing));
    browser.open(&format!("{}?backend=cpu#view=playground", site.url)).await;
    is(&browser, "broken", SOON).await;
    evaluates(&browser, "b", 35).await;
    browser.fill("#steps-panel-b", "5").await;
    evaluates(&browser, "b", 9).await;
    browser.close().await;
}

/// What is loaded is what was built: of this origin, and with its hash.
#[test]
#[ignore = "needs the built page"]
fn the_page_trusts_nothing_but_itself() {
    let dist = root().join("dist");
    let page = std::fs::read_to_string(dist.join("index.html")).expect("the built page");
    // Of styles inside the page, only the one with this hash.
    let (_, rest) = page.split_once("style-src 'self' 'sha384-").expect("a policy for styles");
    let (hash, _) = rest.split_once('\'').expect("a hash");
    let policy = format!(
        "default-src 'self'; style-src 'self' 'sha384-{hash}'; script-src 'self' 'wasm-unsafe-eval'; \
         object-src 'none'; base-uri 'none'; form-action 'none'"
    );
    assert!(page.contains(&format!("content=\"{policy}\"")));
    let headers = std::fs::read_to_string(dist.join("_headers")).expect("the headers for hosts");
    assert!(headers.contains(&format!("Content-Security-Policy: {policy}\n")));
    for element in page.split('<').filter(|e| e.starts_with("script") || e.starts_with("link")) {
        let elsewhere = ["://", "=\"//"].iter().any(|start| element.contains(start));
        assert!(!elsewhere, "from elsewhere: {element}");
        let loads = !element.contains("rel=\"icon\"");
        assert!(!loads || element.contains("integrity=\"sha384-"), "without a hash: {element}");
        let inline = element.starts_with("script") && !element.contains("src=");
        assert!(!inline && !element.contains("style="), "inline: {element}");
    }
    assert!(!page.contains(web::testing::MARK), "the published page accepts faults");
    // The program that keeps the page knows every file of it.
    let keeper = std::fs::read_to_string(dist.join("sw.js")).expect("the keeper");
    let (_, script) = page.split_once("data-compute=\"./").expect("the worker's start script");
    let (script, _) = script.split_once('"').expect("an attribute");
    for file in
        ["index.html", "worker_bg.wasm", "cpu_bg.wasm", script, "weights/tiny-emoji.safetensors"]
    {
        assert!(keeper.contains(&format!("[\"{file}\",\"sha384-")), "{file}");
    }
}

/// What a first visit costs, weights apart.
#[test]
#[ignore = "needs the built page"]
fn the_page_is_small() {
    let dist = root().join("dist");
    let program = |name: &str| {
        let files = std::fs::read_dir(&dist).expect("the built page");
        let mut files = files.map(|entry| entry.expect("an entry").path());
        let path = files.find(|path| {
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            file.starts_with(name) && file.ends_with("_bg.wasm")
        });
        std::fs::read(path.expect("the file")).expect("readable")
    };
    for (name, budget) in BUDGETS {
        let bytes = program(name);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&bytes).expect("in memory");
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 1 << 16, 5, 22);
        brotli.write_all(&bytes).expect("in memory");
        let found = [gzip.finish().expect("in memory").len(), brotli.into_inner().len()];
        println!("{name}: {} bytes, {} with gzip, {} with Brotli", bytes.len(), found[0], found[1]);
        assert!(found[0] <= budget[0] << 10 && found[1] <= budget[1] << 10, "{name} has grown");
    }
}

/// KiB of the three programs with gzip and with Brotli at a speed that servers use, before wasm-opt.
const BUDGETS: [(&str, [usize; 2]); 3] =
    [("app", [640, 552]), ("worker", [3200, 2432]), ("cpu", [1320, 1008])];

/// Whoever has no pointer gets everywhere, and sees where.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn the_keyboard_is_enough() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    let focus = "const e = document.activeElement; return e.dataset.testid || e.id || e.tagName";
    let tab_to = async |name: &str| {
        for _ in 0..120 {
            browser.press(":focus, body", Key::Tab + "").await;
            if browser.run::<String>(focus).await == name {
                let style = "getComputedStyle(document.activeElement)";
                let ring =
                    format!("return {style}.outlineStyle !== 'none' || {style}.opacity === '0'");
                assert!(browser.run::<bool>(&ring).await, "{name} has no visible focus");
                return;
            }
        }
        panic!("{name} cannot be reached");
    };
    tab_to("more").await;
    browser.press(":focus", Key::Enter + "").await;
    tab_to("steps").await;
    browser.press(":focus", Key::Control + "a").await;
    browser.press(":focus", Key::Down + "").await;
    browser.press(":focus", Key::Control + "a").await;
    browser.press(":focus", "2").await;
    browser.press(":focus", Key::Enter + "").await;
    done(&browser, SOON).await;
    tab_to("scrubber").await;
    browser.press(":focus", Key::Left + "").await;
    assert!(browser.text("[data-testid=level]").await.starts_with("Step 2 of 2"));
    tab_to("view-attend").await;
    browser.press(":focus", Key::Space + "").await;
    tab_to("token").await;
    browser.press(":focus", Key::Right + "").await;
    let heat = "document.querySelector('[data-testid=heat]').ariaLabel";
    browser.wait(&format!("{heat}.includes('row 5, column 6 of block 6')"), SOON).await;
    browser.close().await;
}

/// Saves how the page looks under `target/screenshots/`, for someone to look at, and has axe-core
/// look at every view.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn every_view_fits_every_width_in_light_and_dark() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    let folder = root().join("target/screenshots");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut backgrounds = std::collections::BTreeSet::new();
    let files = tempfile::TempDir::new().expect("a temporary folder");
    let [weights, vae, _] = latent_files(files.path());
    let named = files.path().join("named.safetensors");
    std::fs::write(&named, named_model(&NAMES, Vec::new())).expect("written");
    let views = [
        "poster",
        "form",
        "attend",
        "tour",
        "between",
        "inpaint",
        "compare",
        "about",
        "playground",
        "train",
        "latent",
        "names",
    ];
    for name in views {
        match name {
            "names" => {
                open_file(&browser, &named, "document.querySelector('#class').value === ''").await;
                browser.fill("#class", "otter, pizza, rocket, red heart").await;
                browser.click("[data-testid=generate]").await;
                done(&browser, SOON).await;
                browser.fill("#second", "slice of pizza").await;
                done(&browser, SOON).await;
                browser.fill("#guidance-scale", "2").await;
                done(&browser, SOON).await;
                browser.press("#second", Key::Down + "").await;
            }
            "poster" => {}
            "form" => {
                make(&browser, (154, 4, 8, "heun"), SOON).await;
                browser.press("[data-testid=scrubber]", Key::Left + Key::Left + Key::Left).await;
            }
            "attend" => {
                view(&browser, "attend").await;
                browser.click("[data-testid=open-strip]").await;
                browser
                    .wait("!document.querySelector('[data-testid=save-strip]').disabled", SOON)
                    .await;
                browser.click("[data-testid=open-survey]").await;
                browser.wait(&says("survey-said", "Most in block"), SOON).await;
                browser.click(".survey .buttons button:nth-child(5)").await;
            }
            "tour" => {
                let hash = browser.run::<String>("return location.hash.slice(1)").await;
                browser.follow(&format!("{hash}&tour=5")).await;
                browser.wait(&says("stop", "5 of 6"), SOON).await;
            }
            "about" => view(&browser, "about").await,
            "playground" => {
                view(&browser, "playground").await;
                browser.wait(&says("level", "No noise left"), SOON).await;
                browser.wait(&says("verdict", "times closer"), SOON).await;
            }
            "train" => {
                view(&browser, "train").await;
                browser.click("[data-testid=set-faces]").await;
                browser.click("#training-steps-200").await;
                browser.click("[data-testid=train]").await;
                browser.wait(&says("training-status", "in all"), LATE).await;
                browser.click("[data-testid=sketch]").await;
            }
            "latent" => {
                view(&browser, "form").await;
                open_file(&browser, &weights, "document.querySelector('#class')").await;
                open_file(&browser, &vae, &says("note", "latents are decoded")).await;
                browser.fill("#class", "goldfish").await;
                browser.click("[data-testid=fine]").await;
                browser.click("[data-testid=more]").await;
                browser.click("#schedule-adm").await;
                browser.fill("#respacing", "8").await;
                browser.click("#sampler-ddpm").await;
                browser.click("[data-testid=generate]").await;
                done(&browser, SOON).await;
                browser.press("[data-testid=scrubber]", Key::Left + "").await;
                browser.fill("#class", "shark").await;
            }
            game => {
                if game == "between" {
                    browser.click("[data-testid=leave]").await;
                    view(&browser, "play").await;
                }
                browser.click(&format!("#game-{game}")).await;
                if game == "inpaint" {
                    browser.click("[data-testid=take-shown]").await;
                    browser.press("[data-testid=paint]", Key::Enter + "").await;
                } else {
                    browser.click("[data-testid=generate]").await;
                    done(&browser, SOON).await;
                }
            }
        }
        for (width, height) in [(1280, 900), (768, 1200), (320, 900)] {
            for scheme in ["light", "dark"] {
                browser.look(width, height, scheme).await;
                let needed: u32 = browser.run("return document.documentElement.scrollWidth").await;
                assert!(needed <= width, "{name}: {needed} pixels wide on a page of {width}");
                let tall: u32 = browser.run("return document.documentElement.scrollHeight").await;
                browser.look(width, tall.clamp(height, 4000), scheme).await;
                let picture = browser.screenshot().await;
                let file = folder.join(format!("{name}-{width}-{scheme}.png"));
                std::fs::write(file, picture).expect("written");
                let background = "return getComputedStyle(document.body).backgroundColor";
                backgrounds.insert(browser.run::<String>(background).await);
                if width != 768 {
                    let violations = browser.violations().await;
                    assert_eq!(violations, Vec::<String>::new(), "{name} at {width}, {scheme}");
                }
            }
        }
    }
    assert_eq!(backgrounds.len(), 2, "dark is light");
    browser.close().await;
}
