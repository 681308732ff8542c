//! The built page (`dist/`), in a real browser. Ignored unless asked for, since they need the
//! page built and Chromium: `cargo xtask test` sees to both.

use std::time::Duration;

use image::RgbImage;
use tests::browser::{Browser, Gpu};
use tests::server::{Fault, Site};
use tests::{root, trainer};

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(90);
/// Long enough for a program that plays a graphics processor.
const LATE: Duration = Duration::from_secs(900);

fn site() -> Site {
    let folder = root().join("dist");
    assert!(folder.join("index.html").exists(), "build the page first: `cargo xtask site`");
    Site::serve(folder)
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
    let status = "document.querySelector('[data-testid=status]').textContent";
    browser.wait(&format!("{status}.startsWith('Done')"), limit).await;
}

async fn settings(browser: &Browser, seed: u64, count: usize, steps: usize, sampler: &str) {
    browser.fill("#seed", &seed.to_string()).await;
    browser.fill("#count", &count.to_string()).await;
    browser.fill("#steps", &steps.to_string()).await;
    browser.fill("#sampler", sampler).await;
}

/// What the canvas shows.
async fn canvas(browser: &Browser) -> RgbImage {
    let (width, height, rgba): (u32, u32, Vec<u8>) = browser
        .run(
            "const c = document.querySelector('canvas');
             const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
             return [c.width, c.height, Array.from(data)]",
        )
        .await;
    let rgb = rgba.chunks_exact(4).flat_map(|p| p[..3].to_vec()).collect();
    RgbImage::from_raw(width, height, rgb).expect("as many values as pixels")
}

/// What the command line makes of the same settings.
fn command_line(seeds: &str, columns: usize, steps: usize, sampler: &str) -> RgbImage {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("grid.png");
    trainer()
        .args(["sample", "--weights"])
        .arg(root().join("www/weights/tiny-emoji.safetensors"))
        .args(["--seeds", seeds, "--columns", &columns.to_string()])
        .args(["--steps", &steps.to_string(), "--sampler", sampler, "--output"])
        .arg(&path)
        .assert()
        .success();
    image::open(path).expect("a PNG file").into_rgb8()
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
    browser.open(&site.url).await;
    ready(&browser, SOON).await;
    let note = browser.text("[data-testid=note]").await;
    assert!(note.contains("on your processor instead"), "{note}");
    assert!(browser.text("[data-testid=device]").await.contains("processor"));
    assert!(browser.text("[data-testid=check]").await.starts_with("passed"));
    assert!(browser.text("[data-testid=card]").await.contains("emoji"));

    settings(&browser, 5, 4, 6, "heun").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    let shown = canvas(&browser).await;
    // One level: where a value lies on the edge between two.
    assert_same(&shown, &command_line("5-8", 2, 6, "heun"), 1);
    for id in ["ready", "first", "evaluation"] {
        assert!(number(&browser, id).await > 0.0, "{id}");
    }

    // The file holds what is shown, and how it was made.
    browser.click("[data-testid=download]").await;
    let path = browser.downloads().join("diffit-5.png");
    let started = std::time::Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < SOON, "no file at {}", path.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(image::open(&path).expect("a PNG file").into_rgb8(), shown);
    let file = std::fs::read(&path).expect("a file");
    let inside = String::from_utf8_lossy(&file);
    for part in ["\"seeds\":[5,6,7,8]", "\"steps\":6", "weights_sha256"] {
        assert!(inside.contains(part), "{part} is not in the file");
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
    browser.open(&format!("{}?backend=webgpu", site.url)).await;
    ready(&browser, LATE).await;
    assert_eq!(browser.text("[data-testid=note]").await, "");
    let device = browser.text("[data-testid=device]").await;
    assert!(device.starts_with("WebGPU:"), "{device}");
    settings(&browser, 3, 1, 2, "euler").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, LATE).await;
    // Another order of sums, other functions for exp and tanh.
    assert_same(&canvas(&browser).await, &command_line("3", 1, 2, "euler"), 2);
    assert!(browser.text("[data-testid=device]").await.starts_with("WebGPU:"));
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
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    ready(&browser, SOON).await;
    assert_eq!(browser.text("[data-testid=note]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn cancel_stops_within_an_evaluation() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    ready(&browser, SOON).await;
    settings(&browser, 1, 16, 200, "heun").await;
    browser.click("[data-testid=generate]").await;
    let evaluation = "Number(document.querySelector('canvas').getAttribute('aria-label').match(/evaluation (\\d+) of 399/)?.[1] ?? 0)";
    browser.wait(&format!("{evaluation} >= 2"), SOON).await;
    assert_eq!(browser.text("[data-testid=generate]").await, "Cancel");
    // Read and clicked in one go, so that no evaluation comes between.
    let at: usize = browser
        .run(&format!(
            "document.querySelector('[data-testid=generate]').click(); return {evaluation}"
        ))
        .await;
    is(&browser, "ready", SOON).await;
    assert_eq!(browser.text("[data-testid=status]").await, "Cancelled.");
    let after: usize = browser.run(&format!("return {evaluation}")).await;
    assert!(after <= at + 1, "{after} after a click at {at}");

    // What comes next is not touched by it.
    settings(&browser, 9, 1, 3, "euler").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    assert_same(&canvas(&browser).await, &command_line("9", 1, 3, "euler"), 1);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn weights_that_arrive_wrong_are_refused_and_can_be_fetched_again() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    let set = |fault| *site.fault.lock().expect("no thread panicked") = fault;
    for (ending, fault, message) in [
        (".safetensors", Fault::Missing, "the server answered 404"),
        (".safetensors", Fault::Short, "bytes arrived"),
        (".safetensors", Fault::Flipped, "its hash differs"),
        (".safetensors", Fault::WebPage, "bytes arrived"),
        ("manifest.json", Fault::Missing, "the server answered 404"),
        ("manifest.json", Fault::WebPage, "cannot be read"),
    ] {
        set(Some((ending, fault.clone())));
        browser.open(&site.url).await;
        is(&browser, "broken", SOON).await;
        let trouble = browser.text("[data-testid=trouble]").await;
        assert!(trouble.contains(message), "{ending} {fault:?}: {trouble:?}");
    }
    set(None);
    browser.click("[data-testid=again]").await;
    ready(&browser, SOON).await;
    browser.close().await;
}

/// Saves how the page looks under `target/screenshots/`, for someone to look at.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn it_fits_every_width_in_light_and_dark() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    ready(&browser, SOON).await;
    settings(&browser, 144, 16, 12, "heun").await;
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    let folder = root().join("target/screenshots");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut backgrounds = Vec::new();
    for (width, height) in [(1280, 1200), (768, 1400), (320, 1900)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme).await;
            let picture = browser.screenshot().await;
            std::fs::write(folder.join(format!("{width}-{scheme}.png")), picture).expect("written");
            let needed: u32 = browser.run("return document.documentElement.scrollWidth").await;
            assert!(needed <= width, "{needed} pixels wide on a page of {width}");
            backgrounds.push(
                browser
                    .run::<String>("return getComputedStyle(document.body).backgroundColor")
                    .await,
            );
        }
    }
    assert_ne!(backgrounds[0], backgrounds[1], "dark is light");
    browser.close().await;
}
