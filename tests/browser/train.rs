//! Training in the page.

use super::*;

/// Steps that are done, as the page says.
const STEP: &str = "Number(document.querySelector('[data-testid=training-status]')?.textContent.match(/^Step ([0-9]+)/)?.[1] ?? -1)";

/// The loss that the page reports.
async fn loss(browser: &Browser) -> f64 {
    let label = "return document.querySelector('[data-testid=loss]').getAttribute('aria-label')";
    let label = browser.run::<String>(label).await;
    let number = label.trim_end_matches('.').rsplit(' ').next().expect("a word");
    number.parse().unwrap_or_else(|_| panic!("no loss: {label}"))
}

/// Pictures that can be seen.
async fn visible(browser: &Browser, name: &str) -> RgbImage {
    canvas_where(browser, name, "c.checkVisibility()").await
}

/// Says whether a button can be used.
fn usable(name: &str) -> String {
    format!("document.querySelector('[data-testid={name}]')?.disabled === false")
}

/// Training starts with the first set; the file is one for the command line and for the page.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_model_is_trained_saved_and_used() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#view=train", site.url)).await;
    browser.wait(&usable("set-shapes"), SOON).await;
    assert!(!browser.run::<bool>(&format!("return {}", usable("train"))).await);
    browser.click("[data-testid=set-shapes]").await;
    let examples = visible(&browser, "example").await;
    browser.click("#training-steps-200").await;
    browser.click("[data-testid=train]").await;
    browser.wait(&format!("{STEP} >= 10"), SOON).await;
    let before = loss(&browser).await;

    // It stops when told to, and goes on while other views are used.
    browser.click("[data-testid=train]").await;
    browser.wait(&usable("go-on"), SOON).await;
    let stopped: usize = browser.run(&format!("return {STEP}")).await;
    assert!((10..200).contains(&stopped), "{stopped} steps");
    browser.click("[data-testid=go-on]").await;
    view(&browser, "about").await;
    view(&browser, "train").await;
    browser.wait(&format!("{STEP} === 200 && {}", usable("go-on")), LATE).await;
    let after = loss(&browser).await;
    println!("loss {before} after the first steps, {after} after 200");
    assert!(after < 0.5 * before, "the loss was {before} and is {after}");
    let status = browser.text("[data-testid=training-status]").await;
    println!("{status}");
    assert_eq!(browser.text("[data-testid=samples-heading]").await, "Samples after 200 steps");
    assert_eq!(visible(&browser, "trained").await.as_raw(), examples.as_raw());
    assert_eq!(browser.violations().await, Vec::<String>::new());

    // The command line makes the samples that the page shows.
    let samples = visible(&browser, "sample").await;
    browser.click("[data-testid=save-weights]").await;
    let file = browser.downloaded("trained-in-a-tab-200.safetensors", SOON).await;
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("weights.safetensors");
    std::fs::write(&path, file).expect("written");
    let output = trainer().arg("info").arg(&path).output().expect("it runs");
    let info = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{info}");
    for part in ["Trained in a browser tab on 6 pictures", "memorised"] {
        assert!(info.contains(part), "{part} is not in {info}");
    }
    let grid = folder.path().join("grid.png");
    trainer()
        .args(["sample", "--seeds", "0-7", "--columns", "3", "--sampler", "ipndm", "--steps", "12"])
        .args(["--class", "disc, square, triangle, ring, cross, heart"])
        .arg("--weights")
        .arg(&path)
        .arg("--output")
        .arg(&grid)
        .assert()
        .success();
    let made = image::open(&grid).expect("a PNG file").into_rgb8();
    assert_eq!(made.dimensions(), samples.dimensions());
    let off = made.iter().zip(samples.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(2), "samples differ by {off:?}");

    // The page uses it.
    browser.wait(&usable("use-weights"), SOON).await;
    browser.click("[data-testid=use-weights]").await;
    browser.wait("document.querySelector('main').dataset.view === 'form'", SOON).await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await.width(), 32);
    view(&browser, "about").await;
    let about = browser.text("main").await;
    assert!(about.contains("Trained in a browser tab on 6 pictures"), "{about}");
    view(&browser, "attend").await;
    browser.wait("document.querySelectorAll('#block option').length === 3", SOON).await;
    // And the file itself is opened as any other.
    browser.open(&format!("{}?backend=cpu&again{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    open_file(&browser, &path, "document.querySelector('main').dataset.state === 'ready'").await;
    view(&browser, "about").await;
    browser.wait("document.body.textContent.includes('Trained in a browser tab')", SOON).await;
    browser.close().await;
}

/// Pictures come from files and drawings; what is none is refused, and so are too many.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn training_pictures_are_chosen_and_drawn() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#view=train", site.url)).await;
    browser.wait(&usable("set-faces"), SOON).await;
    let count = async || {
        let shown = "[...document.querySelectorAll('[data-testid=example]')]";
        let shown = format!("return {shown}.filter((e) => e.checkVisibility()).length");
        browser.run::<usize>(&shown).await
    };
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let picture = folder.path().join("half.png");
    let half =
        RgbImage::from_fn(64, 64, |x, _| image::Rgb(if x < 32 { [200, 0, 0] } else { [0; 3] }));
    half.save(&picture).expect("written");
    browser.upload("#training-files", &picture).await;
    browser.wait("document.querySelector('[data-testid=example]').checkVisibility()", SOON).await;
    let shown = visible(&browser, "example").await;
    assert_eq!((shown.get_pixel(0, 0).0, shown.get_pixel(15, 15).0), ([200, 0, 0], [0; 3]));

    let text = folder.path().join("text.png");
    std::fs::write(&text, "no picture").expect("written");
    browser.upload("#training-files", &text).await;
    browser.wait(&says("training-trouble", "not a picture"), SOON).await;
    assert_eq!(count().await, 1);

    browser.click("[data-testid=sketch]").await;
    browser.click("#colour-blue").await;
    browser.press("[data-testid=draw]", Key::Up + Key::Enter).await;
    let drawn = canvas(&browser, "drawing").await;
    assert_eq!(drawn.pixels().filter(|pixel| pixel.0 == [46, 107, 222]).count(), 4);
    browser.click("[data-testid=add-drawing]").await;
    assert_eq!(count().await, 2);
    assert_eq!(browser.text("[data-testid=training-trouble]").await, "");
    for _ in 0..7 {
        browser.click("[data-testid=add-drawing]").await;
    }
    assert_eq!(count().await, 8);
    assert!(browser.text("[data-testid=training-trouble]").await.contains("8 training pictures"));
    browser.click("[data-testid=examples] li:nth-child(1) button").await;
    assert_eq!(count().await, 7);
    browser.click("[data-testid=none]").await;
    assert_eq!(count().await, 0);
    assert_eq!(browser.violations().await, Vec::<String>::new());
    browser.close().await;
}

/// A worker that ends leaves a message, and the page and another run work.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn training_that_fails_can_be_started_again() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu&fault=train5#view=train", site.url)).await;
    browser.wait(&usable("set-flags"), SOON).await;
    browser.click("[data-testid=set-flags]").await;
    for _ in 0..2 {
        browser.click("[data-testid=train]").await;
        browser.wait(&says("training-trouble", "failed on purpose"), SOON).await;
        browser.wait(&usable("train"), SOON).await;
    }
    let trouble = browser.text("[data-testid=training-trouble]").await;
    assert!(trouble.ends_with("You can start again."), "{trouble}");
    assert!(!browser.run::<bool>(&format!("return {}", usable("save-weights"))).await);
    // The worker of the page is another one.
    ready(&browser, SOON).await;
    assert_eq!(browser.text("[data-testid=note]").await, "");
    // A program with the wrong hash is not used.
    *site.fault.lock().expect("no thread panicked") = Some(("cpu_bg.wasm", Fault::Flipped));
    browser.click("[data-testid=train]").await;
    browser.wait(&says("training-trouble", "could not be loaded"), SOON).await;
    browser.close().await;
}
