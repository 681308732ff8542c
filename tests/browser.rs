//! The built page (`dist/`), in a real browser. Ignored unless asked for, since they need the
//! page built and Chromium: `cargo xtask test` sees to both.

use std::io::Write;
use std::time::Duration;

use image::RgbImage;
use model::picture::Origin;
use tests::browser::{Browser, Gpu};
use tests::server::{Fault, Site};
use tests::{root, trainer};
use thirtyfour::Key;

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

/// What a canvas shows.
async fn canvas(browser: &Browser, name: &str) -> RgbImage {
    let (width, height, rgba): (u32, u32, Vec<u8>) = browser
        .run(&format!(
            "const c = document.querySelector('[data-testid={name}]');
             const {{ data }} = c.getContext('2d').getImageData(0, 0, c.width, c.height);
             return [c.width, c.height, Array.from(data)]"
        ))
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
    // There is something to see before anything is made.
    let poster = "document.querySelector('.poster img')";
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
    assert_eq!(origin.page.as_deref(), Some("seed=5&count=4&steps=6"));

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
    browser.open(&format!("{}?backend=webgpu", site.url)).await;
    ready(&browser, LATE).await;
    assert_eq!(browser.text("[data-testid=note]").await, "");
    make(&browser, (3, 1, 2, "euler"), LATE).await;
    // Another order of sums, other functions for exp and tanh.
    let shown = canvas(&browser, "canvas").await;
    assert_same(&shown, &command_line("3", 1, 2, "euler"), 2);
    view(&browser, "about").await;
    let device = browser.text("[data-testid=device]").await;
    assert!(device.starts_with("WebGPU:"), "{device}");
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
    browser.open(&format!("{}?backend=cpu", site.url)).await;
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
    browser.click("[data-testid=enlarge] button:nth-child(2)").await;
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
    browser.wait("document.querySelector('#steps')?.value === '200'", SOON).await;
    assert_eq!(browser.run::<String>("return document.querySelector('#seed').value").await, "154");
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.follow(&format!("{}=1&seed=%00", "a".repeat(50_000))).await;
    browser.wait("document.querySelector('#steps')?.value === '18'", SOON).await;
    is(&browser, "ready", SOON).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn files_carry_settings_there_and_back() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu", site.url)).await;
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
    browser.open(&format!("{}?backend=cpu", site.url)).await;
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
    assert!(browser.text("[data-testid=trouble]").await.contains("Choose a picture"));
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
    browser.upload("#guide-file", &root().join("www/poster.png")).await;
    browser.wait("document.querySelector('[data-testid=guide]')", SOON).await;
    browser.follow("view=play&play=from&seed=8&sigma=1.5&steps=3").await;
    let (from, guide) = (generate().await, canvas(&browser, "guide").await);
    let distance =
        from.iter().zip(guide.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    assert!(distance / (from.len() as f64) < 80.0 && from != guide);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_lost_device_costs_no_more_than_time() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
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
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_lost_device_keeps_weights_of_ones_own() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu&fault=2", site.url)).await;
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
    let (site, browser) = (site(), Browser::start(Gpu::Software).await);
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
    browser.open(&format!("{}?backend=cpu", site.url)).await;
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn what_arrives_wrong_is_refused_and_can_be_fetched_again() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    let set = |fault| *site.fault.lock().expect("no thread panicked") = fault;
    for (ending, fault, message) in [
        ("worker.js", Fault::Flipped, "could not be loaded"),
        ("worker_bg.wasm", Fault::Flipped, "could not be loaded"),
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
    assert_eq!(browser.violations().await, Vec::<String>::new());
    set(None);
    browser.click("[data-testid=again]").await;
    ready(&browser, SOON).await;
    browser.close().await;
}

/// What is loaded is what was built: of this origin, and with its hash.
#[test]
#[ignore = "needs the built page"]
fn the_page_trusts_nothing_but_itself() {
    let dist = root().join("dist");
    let page = std::fs::read_to_string(dist.join("index.html")).expect("the built page");
    let policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; \
                  base-uri 'none'; form-action 'none'";
    assert!(page.contains(policy));
    for element in page.split('<').filter(|e| e.starts_with("script") || e.starts_with("link")) {
        let elsewhere = ["://", "=\"//"].iter().any(|start| element.contains(start));
        assert!(!elsewhere, "from elsewhere: {element}");
        let loads = !element.contains("rel=\"icon\"");
        assert!(!loads || element.contains("integrity=\"sha384-"), "without a hash: {element}");
        let inline = element.starts_with("script") && !element.contains("src=");
        assert!(!inline && !element.contains("style="), "inline: {element}");
    }
    // The program that keeps the page knows every file of it.
    let keeper = std::fs::read_to_string(dist.join("sw.js")).expect("the keeper");
    for file in ["index.html", "worker_bg.wasm", "compute.js", "weights/tiny-emoji.safetensors"] {
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

/// KiB of the two programs with gzip and with Brotli at a speed that servers use, before wasm-opt.
const BUDGETS: [(&str, [usize; 2]); 2] = [("app", [512, 416]), ("worker", [4096, 3072])];

/// Whoever has no pointer gets everywhere, and sees where.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn the_keyboard_is_enough() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    ready(&browser, SOON).await;
    let focus = "const e = document.activeElement; return e.dataset.testid || e.id || e.tagName";
    let tab_to = async |name: &str| {
        for _ in 0..60 {
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
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    ready(&browser, SOON).await;
    let folder = root().join("target/screenshots");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut backgrounds = std::collections::BTreeSet::new();
    for name in ["poster", "form", "attend", "between", "inpaint", "compare", "about"] {
        match name {
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
            }
            "about" => view(&browser, "about").await,
            game => {
                if game == "between" {
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
