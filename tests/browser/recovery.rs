//! Workers that are silent or of another version, and files that take too long or too much.

use super::*;

/// Replaces the workers' start script in a copy of the page.
fn replace_start_script(folder: &Path, script: &str) -> (PathBuf, Vec<u8>) {
    let files = std::fs::read_dir(folder).expect("the page");
    let mut paths = files.map(|file| file.expect("an entry").path());
    let is = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("compute-")
    };
    let path = paths.find(is).expect("the start script");
    let before = std::fs::read(&path).expect("a script");
    std::fs::write(&path, script).expect("written");
    (path, before)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_worker_that_does_not_answer_leads_to_advice() {
    let hello = "postMessage([JSON.stringify({ event: { Hello: { version: 'other' } } })])";
    for (script, message) in [
        ("", "does not answer. Reload the page"),
        ("while (true) {}", "does not answer. Reload the page"),
        // A worker of an earlier version, whose messages had another form.
        ("postMessage([JSON.stringify('Hello')])", "does not answer. Reload the page"),
        (hello, "are of different versions. Reload the page"),
    ] {
        let folder = copied();
        let (path, before) = replace_start_script(folder.path(), script);
        let site = Site::serve_marked(folder.path().into());
        let browser = Browser::start(Gpu::None).await;
        browser.open(&format!("{}?backend=cpu&silence=3000{PLAIN}", site.url)).await;
        browser.wait(&says("trouble", message), SOON).await;
        is(&browser, "broken", SOON).await;
        // The programs are read again when the visitor tries again.
        std::fs::write(path, before).expect("written");
        browser.click("[data-testid=again]").await;
        ready(&browser, SOON).await;
        make(&browser, (9, 1, 2, "euler"), SOON).await;
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_download_that_stops_leads_to_advice() {
    let site = marked_site();
    let set = |fault| *site.fault.lock().expect("no thread panicked") = fault;
    for ending in ["tiny-emoji.safetensors", "cpu_bg.wasm"] {
        // Each in a browser of its own: this one keeps the files once the page is ready.
        let browser = Browser::start(Gpu::None).await;
        set(Some((ending, Fault::Stuck)));
        browser.open(&format!("{}?backend=cpu&silence=3000{PLAIN}", site.url)).await;
        is(&browser, "broken", SOON).await;
        let trouble = browser.text("[data-testid=trouble]").await;
        assert!(trouble.contains("Nothing has arrived") || ending.ends_with("wasm"), "{trouble}");
        assert!(!trouble.is_empty());
        set(None);
        browser.click("[data-testid=again]").await;
        ready(&browser, SOON).await;
        browser.close().await;
    }
    // What takes long but goes on is waited for.
    let browser = Browser::start(Gpu::None).await;
    set(Some(("tiny-emoji.safetensors", Fault::Slow)));
    browser.open(&format!("{}?backend=cpu&silence=1000&again{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn opening_a_file_can_be_cancelled() {
    let folder = copied();
    let weights = folder.path().join("weights");
    // Of several parts, in which it is put together.
    std::fs::copy(weights.join("tiny-emoji.safetensors"), weights.join("own.safetensors"))
        .expect("copied");
    let (site, browser) = (Site::serve(folder.path().into()), Browser::start(Gpu::None).await);
    let set = |fault| *site.fault.lock().expect("no thread panicked") = fault;
    set(Some(("own.safetensors", Fault::Slow)));
    let address = format!("{}?backend=cpu&weights=own.safetensors{PLAIN}", site.url);
    browser.open(&address).await;
    let status = "document.querySelector('[data-testid=status]')?.textContent";
    browser.wait(&format!("{status}?.startsWith('Reading the file: ')"), SOON).await;
    assert_eq!(browser.text("[data-testid=generate]").await, "Cancel");
    browser.click("[data-testid=generate]").await;
    is(&browser, "ready", SOON).await;
    assert_eq!(browser.text("[data-testid=trouble]").await, "");
    make(&browser, (9, 1, 3, "euler"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    view(&browser, "about").await;
    assert!(browser.text("[data-testid=models]").await.contains("in use"));

    // Left alone, it is opened.
    set(None);
    browser.open(&format!("{address}&seed=1")).await;
    browser.run::<bool>("location.reload(); return true").await;
    view(&browser, "about").await;
    browser.wait("document.querySelector('[data-testid=models] button:enabled')", SOON).await;
    view(&browser, "form").await;
    make(&browser, (9, 1, 3, "euler"), SOON).await;
    assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
    browser.close().await;
}

/// Opens an autoencoder without weights: the sizes tell what it takes before anything is built.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn an_autoencoder_that_is_too_large_is_not_built() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join("large-vae.safetensors");
    let names = ["encoder.conv_in.weight", "decoder.conv_in.weight"];
    let views =
        names.map(|name| (name, TensorView::new(Dtype::F32, vec![0], &[]).expect("it fits")));
    let sizes = r#"{"channels": [512, 512, 512, 512], "layers": 4}"#;
    let metadata = HashMap::from([("diffit_vae".to_string(), sizes.to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata)).expect("it fits");
    std::fs::write(&path, bytes).expect("written");
    let (site, browser) = (marked_site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu&memory=100000000{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    open_file(&browser, &path, &says("trouble", "large-vae.safetensors: It is too large")).await;
    make(&browser, (9, 1, 2, "euler"), SOON).await;
    browser.close().await;
}
