//! The map of the network, attention after failures, comparisons.

use super::*;

const HEAT: &str = "document.querySelector('[data-testid=heat]').ariaLabel";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_block_of_the_map_can_be_looked_into() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#seed=9&steps=4&sampler=euler", site.url)).await;
    done(&browser, SOON).await;
    let labels = "[...document.querySelectorAll('.block')].map((e) => e.ariaLabel)";
    let labels = async || browser.run::<Vec<String>>(&format!("return {labels}")).await;
    let before = labels().await;
    // 2, 3 and 4 blocks on the way down, 3 and 2 on the way up.
    assert_eq!(before.len(), 14);
    assert_eq!(before[0], "Block 1, encoder, 32 by 32 tokens");
    assert_eq!(before[8], "Block 9, encoder, 8 by 8 tokens");
    assert_eq!(before[13], "Block 14, decoder, 32 by 32 tokens");
    // A U: the middle is below both ends.
    let top = async |i: usize| {
        let top =
            format!("return document.querySelectorAll('.block')[{i}].getBoundingClientRect().top");
        browser.run::<f64>(&top).await
    };
    assert!(top(6).await > top(3).await && top(3).await > top(0).await);
    assert!((top(0).await - top(13).await).abs() < 1.0);

    // Nothing is measured until that is asked for.
    browser.click("[data-testid=measure]").await;
    let measured = "[...document.querySelectorAll('.block')].every((e) => e.ariaLabel.includes('% from the time token'))";
    browser.wait(measured, SOON).await;
    let last = labels().await;
    browser.press("[data-testid=scrubber]", Key::Home + "").await;
    browser
        .wait(&format!("document.querySelectorAll('.block')[5].ariaLabel !== {:?}", last[5]), SOON)
        .await;
    browser.wait(measured, SOON).await;
    assert_ne!(labels().await, last);

    // A click looks into the block; the bars of the view are those of the map.
    browser.click(".net .block:nth-of-type(8)").await;
    browser.wait("document.querySelector('main').dataset.view === 'attend'", SOON).await;
    assert_eq!(browser.run::<String>("return document.querySelector('#block').value").await, "7");
    browser.wait(&format!("{HEAT}.includes('of block 8')"), SOON).await;
    let shares: Vec<f64> = browser
        .run("return [...document.querySelectorAll('[data-testid=shares] meter')].map((e) => e.value)")
        .await;
    let mean = 100.0 * shares.iter().sum::<f64>() / 3.0;
    let label = &labels().await[7];
    assert!(label.ends_with(&format!(", {mean:.0} % from the time token")), "{label}, {mean}");
    assert!(browser.run::<bool>("return document.querySelector('.block[aria-current]').ariaLabel.startsWith('Block 8,')").await);
    assert_eq!(browser.violations().await, Vec::<String>::new());

    // The latent network has one resolution: a column.
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let files = latent_files(folder.path());
    open_file(&browser, &files[0], "document.querySelectorAll('.block').length === 2").await;
    assert!(
        browser.run::<bool>("return Boolean(document.querySelector('.net.column .block'))").await
    );
    assert_eq!(labels().await[1], "Block 2, stack, 4 by 4 tokens");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn cancelling_at_once_keeps_the_pictures_before() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#seed=9&steps=3&sampler=euler", site.url)).await;
    done(&browser, SOON).await;
    // Cancelled before the first evaluation is done.
    fill(&browser, (1, 16, 200, "heun")).await;
    let click = "document.querySelector('[data-testid=generate]').click()";
    browser.run::<bool>(&format!("{click}; {click}; return true")).await;
    is(&browser, "ready", SOON).await;
    assert_eq!(canvas(&browser, "canvas").await.dimensions(), (32, 32));
    // The steps of the pictures before are still there.
    view(&browser, "attend").await;
    for step in 0..3 {
        browser.press("[data-testid=scrubber]", Key::Home + "").await;
        for _ in 0..step {
            browser.press("[data-testid=scrubber]", Key::Right + "").await;
        }
        browser.wait(&format!("{HEAT}.includes('row 5, column 5 of block 6')"), SOON).await;
        browser.wait("!document.querySelector('.pair .waiting')", SOON).await;
    }
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_device_lost_at_rest_is_no_reason_for_errors() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::None).await);
    browser
        .open(&format!("{}?backend=cpu&fault=rest#seed=9&steps=3&sampler=euler", site.url))
        .await;
    done(&browser, SOON).await;
    // Looking inside is when it is lost.
    view(&browser, "attend").await;
    browser.wait(&says("note", "started again"), SOON).await;
    is(&browser, "ready", SOON).await;
    let gone = "document.querySelector('[data-testid=gone]').checkVisibility()";
    browser.wait(gone, SOON).await;
    browser.press("[data-testid=scrubber]", Key::Home + Key::Right).await;
    browser.press("[data-testid=token]", Key::Up + "").await;
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    // The pictures are still there, and so is the way back.
    browser.click("[data-testid=generate]").await;
    browser.wait(&format!("!{gone}"), SOON).await;
    done(&browser, SOON).await;
    browser.wait(&format!("{HEAT}.includes('row 4, column 5 of block 6')"), SOON).await;
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn another_model_makes_an_unknown_class_obsolete() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let files = latent_files(folder.path());
    browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    open_file(&browser, &files[0], "document.querySelector('#class')").await;
    browser.fill("#class", "shark").await;
    assert!(browser.text("#class-problem").await.contains("any of 2 classes"));
    view(&browser, "about").await;
    browser.click("[data-testid=models] button").await;
    browser.wait(&says("models", "in use"), SOON).await;
    is(&browser, "ready", SOON).await;
    view(&browser, "form").await;
    assert_eq!(browser.run::<String>("return document.querySelector('#class').value").await, "");
    make(&browser, (9, 1, 3, "euler"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn both_sides_of_a_comparison_have_the_noise_levels_of_the_form() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu#seed=5&steps=2&sampler=euler", site.url)).await;
    done(&browser, SOON).await;
    browser.click("[data-testid=more]").await;
    browser.fill("#sigma-max", "40").await;
    view(&browser, "play").await;
    browser.click("#game-compare").await;
    let generate = async || {
        browser.click("[data-testid=generate]").await;
        done(&browser, SOON).await;
        canvas(&browser, "beside").await
    };
    let native = |sigma: &str| command_line_with(&["--sigma-max", sigma], "5", 1, 6, "euler");
    assert_same(&generate().await, &native("40"), 1);
    // Its own levels can be seen, and so does what differs.
    browser.click(".two fieldset:first-child .fine summary").await;
    let field = "return document.querySelector('#sigma-max-b').value";
    assert_eq!(browser.run::<String>(field).await, "40");
    browser.fill("#sigma-max-b", "60").await;
    assert_same(&generate().await, &native("60"), 1);
    let heads = "return [...document.querySelectorAll('.stage h2')].map((e) => e.textContent)";
    let heads: Vec<String> = browser.run(heads).await;
    assert!(heads.iter().any(|head| head == "6 euler, σ max 60"), "{heads:?}");
    assert!(heads.iter().any(|head| head == "2 euler, σ max 40"), "{heads:?}");
    browser.close().await;
}
