//! The program for graphics processors takes over from the one for processors.

use super::*;

/// Reads the row "Device" of the view "About", and returns to the pictures.
async fn device(browser: &Browser, then: &str, limit: Duration) -> String {
    view(browser, "about").await;
    browser.wait(&says("device", then), limit).await;
    let device = browser.text("[data-testid=device]").await;
    view(browser, "form").await;
    device
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_graphics_processor_takes_over_with_the_next_pictures() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::Software).await);
    browser.open(&format!("{}?software#seed=9&steps=3&sampler=euler", site.url)).await;
    // The processor makes the first pictures, which stay.
    done(&browser, SOON).await;
    let native = command_line("9", 1, 3, "euler");
    let first = canvas(&browser, "canvas").await;
    assert_same(&first, &native, 1);
    let waits = device(&browser, "WebGPU from the next pictures on", LATE).await;
    assert!(waits.starts_with("processor"), "{waits}");
    assert_eq!(canvas(&browser, "canvas").await, first);
    // The first worker has their steps still.
    view(&browser, "attend").await;
    browser.wait("document.querySelector('[data-testid=shares]')?.textContent", SOON).await;
    view(&browser, "form").await;

    browser.click("[data-testid=generate]").await;
    done(&browser, LATE).await;
    assert_same(&canvas(&browser, "canvas").await, &native, 2);
    let used = device(&browser, "WebGPU", SOON).await;
    assert!(used.starts_with("WebGPU:"), "{used}");
    assert_eq!(browser.text("[data-testid=note]").await, "");
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn without_the_program_for_graphics_processors_the_processor_goes_on() {
    let (site, browser) = (marked_site(), Browser::start(Gpu::Software).await);
    *site.fault.lock().expect("no thread panicked") = Some(("worker_bg.wasm", Fault::Missing));
    browser.open(&format!("{}?software{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    browser.wait(&says("note", "Your graphics processor is not used."), SOON).await;
    make(&browser, (9, 1, 3, "euler"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    assert_eq!(device(&browser, "processor", SOON).await, "processor (WebAssembly)");
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    browser.close().await;
}
