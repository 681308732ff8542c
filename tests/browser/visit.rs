//! What a first visit shows: the recording, the progress, the first pictures, the tour.

use super::*;

/// The step that the recording shows.
const AT: &str = "getComputedStyle(document.querySelector('#record')).getPropertyValue('--at')";

/// The mean difference of two pictures, in levels of 255.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a.iter().zip(b.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

/// The recording was made by the shipped model, with the settings that a visit starts with.
#[test]
#[ignore = "needs the trainer's program"]
fn the_recording_is_of_the_shipped_model() {
    let record = image::open(root().join("www/record.jpg")).expect("a JPEG file").into_rgb8();
    assert_eq!(record.dimensions(), (8 * 32, 13 * 32));
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("grid.png");
    let (seeds, classes) = tests::RECORDED;
    trainer()
        .args(["sample", "--recommended", "--columns", "4", "--weights"])
        .arg(root().join("www/weights/tiny-emoji.safetensors"))
        .args(["--seeds", &format!("{}-{}", seeds.start(), seeds.end()), "--class", classes])
        .arg("--output")
        .arg(&path)
        .assert()
        .success();
    let made = image::open(path).expect("a PNG file").into_rgb8();
    let part = |x, y| image::imageops::crop_imm(&record, x, y, 4 * 32, 32).to_image();
    // The last row has the pictures twice; JPEG changes them a little.
    for x in [0, 128] {
        let off = difference(&part(x, 12 * 32), &made);
        assert!(off < 6.0, "off by {off} levels: run `cargo xtask record`");
    }
    // The first row is noise, and a guess that is something else.
    assert!(difference(&part(0, 0), &made) > 40.0 && difference(&part(128, 0), &made) > 10.0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_recording_plays_without_the_program() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    *site.fault.lock().expect("no thread panicked") = Some(("_bg.wasm", Fault::Missing));
    browser.open(&site.url).await;
    browser.wait("document.querySelector('#loading[role=alert]')", SOON).await;
    assert!(browser.text("#loading").await.contains("could not be started"));
    let films = "[...document.querySelectorAll('.film')].every((e) => e.complete && e.naturalWidth === 256)";
    browser.wait(films, SOON).await;
    let at = async || browser.run::<String>(&format!("return {AT}.trim()")).await;
    // It plays once, and stays at the finished pictures.
    browser.wait(&format!("{AT}.trim() === '12'"), SOON).await;
    // By keyboard, as a slider.
    browser.press("#replay", Key::Right + "").await;
    assert_eq!(at().await, "0");
    browser.press(".reel label:nth-of-type(2) input", Key::Right + Key::Right).await;
    assert_eq!(at().await, "2");
    let top = "document.querySelector('.film').getBoundingClientRect().top - \
               document.querySelector('.film').parentElement.getBoundingClientRect().top";
    let shift =
        format!("return Math.round(({top}) / document.querySelector('.frame').clientHeight)");
    assert_eq!(browser.run::<i32>(&shift).await, -2);
    browser.run::<bool>("document.querySelector('#replay').click(); return true").await;
    browser.wait(&format!("Number({AT}) < 12"), SOON).await;
    assert_eq!(browser.violations().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn live_pictures_take_the_place_of_the_recording() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    *site.fault.lock().expect("no thread panicked") = Some(("cpu_bg.wasm", Fault::Slow));
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    let status = "document.querySelector('[data-testid=status]')?.textContent";
    browser.wait(&format!("/^Loading the program: [1-9][0-9]? %$/.test({status})"), SOON).await;
    let shown = "document.querySelector('.poster #record')?.checkVisibility()";
    assert!(browser.run::<bool>(&format!("return {shown}")).await);
    let part = "document.querySelector('progress').value";
    assert!((0.01..0.999).contains(&browser.run::<f64>(&format!("return {part}")).await));
    // The step that was chosen before stays.
    browser.run::<bool>("document.querySelectorAll('.reel input')[4].click(); return true").await;
    assert_eq!(browser.run::<String>(&format!("return {AT}.trim()")).await, "3");
    // The model is downloaded meanwhile.
    let asked = || {
        let answers = site.answers.lock().expect("no thread panicked");
        answers.iter().any(|(path, _)| path.ends_with("tiny-emoji.safetensors"))
    };
    let started = std::time::Instant::now();
    while !asked() {
        assert!(started.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(browser.text("[data-testid=status]").await.starts_with("Loading the program"));
    done(&browser, SOON).await;
    assert!(!browser.run::<bool>(&format!("return Boolean({shown})")).await);
    assert_eq!(captions(&browser).await, ["cat", "rainbow", "rocket", "cactus"]);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_slow_device_waits_for_the_button() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu&check=60000", site.url)).await;
    ready(&browser, SOON).await;
    let status = browser.text("[data-testid=status]").await;
    assert!(status.contains("take about 12 min"), "{status}");
    assert!(
        browser.run::<bool>("return document.querySelector('.poster').checkVisibility()").await
    );
    browser.click("[data-testid=generate]").await;
    done(&browser, SOON).await;
    assert_eq!(captions(&browser).await.len(), 4);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_phone_shows_the_button_without_scrolling() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.look(360, 740, "light").await;
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    let bottom = |selector: &str| {
        format!("return document.querySelector('{selector}').getBoundingClientRect().bottom")
    };
    let button: f64 = browser.run(&bottom("[data-testid=generate]")).await;
    assert!(button <= 600.0, "the button ends at {button}");
    // Some of the pictures is there too.
    let pictures = "return document.querySelector('.stage').getBoundingClientRect().top";
    assert!(browser.run::<f64>(pictures).await < 640.0);
    let views = "return [...document.querySelectorAll('nav button')].map((e) => e.textContent)";
    let views: Vec<String> = browser.run(views).await;
    for name in ["Generate", "Look inside", "Play", "About"] {
        assert!(views.iter().any(|view| view == name), "{views:?}");
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn the_tour_leads_through_the_page() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#tour=1", site.url)).await;
    // It starts a visit as any other.
    done(&browser, SOON).await;
    assert_eq!(captions(&browser).await, ["cat", "rainbow", "rocket", "cactus"]);
    let stop = async || browser.text("[data-testid=stop]").await;
    let level = async || browser.text("[data-testid=level]").await;
    assert_eq!(stop().await, "1 of 6: Noise");
    assert!(level().await.starts_with("Step 1 of 12"), "{}", level().await);
    let outlined = async |selector: &str| {
        let style = format!("getComputedStyle(document.querySelector('{selector}')).outlineStyle");
        browser.run::<String>(&format!("return {style}")).await == "solid"
    };
    assert!(outlined("[data-testid=noises]").await && !outlined("[data-testid=pictures]").await);
    assert_eq!(browser.violations().await, Vec::<String>::new());

    // By keyboard to the end; each stop is an address.
    for (number, title, view) in [
        (2, "The guess", "form"),
        (3, "Steps", "form"),
        (4, "Attention", "attend"),
        (5, "The time token", "attend"),
        (6, "Make your own", "form"),
    ] {
        browser.press("[data-testid=next]", Key::Enter + "").await;
        browser.wait(&says("stop", title), SOON).await;
        let at = "document.querySelector('main').dataset.view";
        browser.wait(&format!("{at} === {view:?}"), SOON).await;
        let hash = browser.run::<String>("return location.hash").await;
        assert!(hash.ends_with(&format!("tour={number}")), "{hash}");
        let focus = "return document.activeElement.dataset.testid ?? ''";
        assert_eq!(browser.run::<String>(focus).await, "next");
        if number == 2 {
            assert!(outlined("[data-testid=pictures]").await);
            assert!(level().await.starts_with("Step 4 of 12"), "{}", level().await);
        }
    }
    assert!(outlined(".prompt").await);
    // The pictures are those of before.
    done(&browser, SOON).await;
    assert_eq!(captions(&browser).await, ["cat", "rainbow", "rocket", "cactus"]);
    browser.run::<bool>("history.back(); return true").await;
    browser.wait(&says("stop", "5 of 6"), SOON).await;
    browser.click("[data-testid=leave]").await;
    browser.wait("!location.hash.includes('tour')", SOON).await;
    assert!(!browser.run::<bool>("return document.querySelector('.tour').checkVisibility()").await);

    // It goes on by link.
    browser.open(&format!("{}?backend=cpu&again#view=attend&tour=4", site.url)).await;
    ready(&browser, SOON).await;
    assert_eq!(stop().await, "4 of 6: Attention");
    browser.close().await;
}
