//! Pictures without those on the way to them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn previews_can_be_switched_off() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    let wish = (5, 4, 5, "euler");
    make(&browser, wish, SOON).await;
    let shown = canvas(&browser, "canvas").await;
    let unseen = async || {
        let count = "return document.querySelectorAll('.frame.unseen').length";
        browser.run::<usize>(count).await
    };
    assert_eq!(unseen().await, 0);

    browser.click("#previews").await;
    browser.wait("location.hash.includes('previews=false')", SOON).await;
    // The pictures that are shown are still those of the settings.
    let outdated = "return Boolean(document.querySelector('.outdated'))";
    assert!(!browser.run::<bool>(outdated).await);
    make(&browser, wish, SOON).await;
    // Bit for bit, on both sides.
    for name in ["canvas", "noisy"] {
        assert_eq!(canvas(&browser, name).await, shown);
    }
    assert_eq!(unseen().await, 0);
    browser.press("[data-testid=scrubber]", Key::Home + "").await;
    let level = browser.text("[data-testid=level]").await;
    assert_eq!((level.as_str(), unseen().await), ("Step 1 of 5, noise level 80.0", 8));
    let label = "return document.querySelector('[data-testid=canvas]').ariaLabel";
    assert!(browser.run::<String>(label).await.contains("previews are off"));
    assert_eq!(browser.violations().await, Vec::<String>::new());
    std::fs::create_dir_all(root().join("target/screenshots")).expect("a folder");
    for (name, width) in [("previews-off", 1280), ("previews-off-phone", 360)] {
        browser.look(width, 900, "light").await;
        let path = root().join(format!("target/screenshots/{name}.png"));
        std::fs::write(path, browser.screenshot().await).expect("written");
    }
    browser.look(1280, 1400, "light").await;
    browser.click("[data-testid=strip]").await;
    let strip = browser.downloaded("diffit-5-strip.png", SOON).await;
    let strip = image::load_from_memory(&strip).expect("a PNG file").into_rgb8();
    assert_eq!(strip.dimensions(), (128, 2 * 128));

    // The steps can be looked into all the same, on the finished picture.
    view(&browser, "attend").await;
    browser.wait("document.querySelector('[data-testid=shares]')?.textContent", SOON).await;
    let below = canvas(&browser, "looked-at").await;
    assert_eq!(below, first_of(&shown));

    // A link brings the setting back.
    let link = "#seed=5&count=4&steps=5&sampler=euler&previews=false";
    browser.open(&format!("{}?backend=cpu&again{link}", site.url)).await;
    done(&browser, SOON).await;
    assert_eq!(canvas(&browser, "canvas").await, shown);
    let checked = "return document.querySelector('#previews').checked";
    assert!(!browser.run::<bool>(checked).await);
    browser.close().await;
}

/// The first of four pictures in a square.
fn first_of(square: &RgbImage) -> RgbImage {
    let (width, height) = (square.width() / 2, square.height() / 2);
    image::imageops::crop_imm(square, 0, 0, width, height).to_image()
}
