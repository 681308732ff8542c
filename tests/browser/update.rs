//! From one version of the page to the next, and the first visit.

use sha2::{Digest, Sha256, Sha384};

use super::*;

/// Returns a hash as the attribute `integrity` has it.
fn integrity(bytes: &[u8]) -> String {
    use base64::Engine;
    format!("sha384-{}", base64::prelude::BASE64_STANDARD.encode(Sha384::digest(bytes)))
}

/// The name of the file of this start and ending.
fn name_of(folder: &Path, start: &str, ending: &str) -> String {
    let files = std::fs::read_dir(folder).expect("the page");
    let mut names = files.map(|file| file.expect("an entry").file_name().into_string());
    let is = |name: &String| name.starts_with(start) && name.ends_with(ending);
    names.find_map(|name| name.ok().filter(is)).expect("such a file")
}

/// Replaces a text in a file.
fn replace(path: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(path).expect("a text");
    assert!(text.contains(old), "no {old} in {}", path.display());
    std::fs::write(path, text.replace(old, new)).expect("written");
}

/// Changes a file, and its hash wherever it is written.
fn change(folder: &Path, name: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let before = std::fs::read(folder.join(name)).expect("a file of the page");
    let after = change(before.clone());
    assert_ne!(before, after);
    std::fs::write(folder.join(name), &after).expect("written");
    let compute = name_of(folder, "compute-", ".js");
    for text in ["index.html", "sw.js", &compute] {
        let path = folder.join(text);
        let old = std::fs::read_to_string(&path).expect("a text");
        let sizes = format!("\"./{name}\":{}", before.len());
        let new = old.replace(&integrity(&before), &integrity(&after));
        let new = new.replace(&sizes, &format!("\"./{name}\":{}", after.len()));
        std::fs::write(path, new).expect("written");
    }
}

/// Makes the page another version: all three programs, their start script, and the page are others.
fn upgrade(folder: &Path) {
    // The service worker's list has the hash of the page before any change of it.
    let listed_page = std::fs::read(folder.join("index.html")).expect("the page");
    // WebAssembly files may end with sections of any name.
    let section = |mut bytes: Vec<u8>| {
        bytes.extend(b"\0\x02\x01b");
        bytes
    };
    let comment = |text: &'static str| {
        move |mut bytes: Vec<u8>| {
            bytes.extend(text.as_bytes());
            bytes
        }
    };
    for program in ["worker", "cpu"] {
        change(folder, &format!("{program}_bg.wasm"), section);
        change(folder, &format!("{program}.js"), comment("\n// Version B"));
    }
    change(folder, &name_of(folder, "app", "_bg.wasm"), section);
    let marks = "\ndocument.documentElement.dataset.program = 'B';";
    change(folder, &name_of(folder, "app", ".js"), comment(marks));
    // The start script has a name after its hash.
    let old = name_of(folder, "compute-", ".js");
    let before = std::fs::read(folder.join(&old)).expect("the start script");
    let hash = Sha256::digest(&before);
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let new = format!("compute-{hash}.js");
    assert_ne!(old, new);
    std::fs::rename(folder.join(&old), folder.join(&new)).expect("renamed");
    let page = std::fs::read(folder.join("index.html")).expect("the page");
    let html = String::from_utf8(page).expect("a text").replace(&old, &new);
    let html = html.replace("<title>", "<title>Version B of ");
    std::fs::write(folder.join("index.html"), &html).expect("written");
    let keeper = folder.join("sw.js");
    replace(&keeper, &old, &new);
    let script = std::fs::read_to_string(&keeper).expect("the service worker");
    let (_, listed) = script.split_once(&format!("[\"{new}\",\"")).expect("the start script");
    let (listed, _) = listed.split_once('"').expect("a hash");
    let listed = listed.to_string();
    replace(&keeper, &listed, &integrity(&before));
    replace(&keeper, &integrity(&listed_page), &integrity(html.as_bytes()));
    replace(&keeper, "VERSION = \"", "VERSION = \"b");
}

/// The files of the service worker's list, with their hashes.
fn listed(folder: &Path) -> Vec<(String, String)> {
    let script = std::fs::read_to_string(folder.join("sw.js")).expect("the service worker");
    let (_, list) = script.split_once("FILES = ").expect("a list");
    let (list, _) = list.split_once(";").expect("an end");
    serde_json::from_str(list).expect("a list of pairs")
}

/// Returns whether the page has all files of the list, with these hashes, from wherever it gets them.
async fn has_all(browser: &Browser, files: &[(String, String)]) -> bool {
    let files = serde_json::to_string(files).expect("plain data");
    let script = format!(
        "window.same = undefined;
         Promise.all({files}.map(([path, integrity]) => fetch(path, {{ integrity }}))).then(
           (answers) => {{ window.same = answers.every(({{ ok }}) => ok) }},
           () => {{ window.same = false }});
         return true"
    );
    browser.run::<bool>(&script).await;
    browser.wait("window.same !== undefined", SOON).await;
    browser.run::<bool>("return window.same").await
}

const HIDDEN: &str = "document.getElementById('update').hidden";

/// Has the browser look for a new version.
async fn look_for_update(browser: &Browser) {
    browser
        .run::<bool>("navigator.serviceWorker.ready.then((kept) => kept.update()); return true")
        .await;
}

/// A new version is announced, and comes when the visitor asks for it, not before: then all of it,
/// also from a host whose files the browser may keep for a while.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_new_version_is_offered() {
    for kept in [false, true] {
        let folder = copied();
        let path = folder.path();
        let site = if kept { Site::serve_kept(path.into()) } else { Site::serve(path.into()) };
        let browser = Browser::start(Gpu::None).await;
        browser.open(&format!("{}?backend=cpu{PLAIN}", site.url)).await;
        ready(&browser, SOON).await;
        keep(&browser).await;
        assert!(browser.run::<bool>(&format!("return {HIDDEN}")).await);
        let old = listed(path);
        upgrade(path);
        let new = listed(path);
        // All but the weights, the style sheets, icons and pictures.
        let changed = new.iter().filter(|file| !old.contains(file)).count();
        assert!(changed >= 9, "{changed} files");

        look_for_update(&browser).await;
        browser.wait(&format!("!{HIDDEN}"), SOON).await;
        // The open page goes on with its own version: what it loads from now on is of that, too.
        let title = browser.run::<String>("return document.title").await;
        assert!(!title.contains("Version B"), "{title}");
        assert!(has_all(&browser, &old).await);
        make(&browser, (9, 1, 3, "euler"), SOON).await;

        browser.click("#update button").await;
        browser.wait("document.title.startsWith('Version B')", SOON).await;
        ready(&browser, SOON).await;
        assert!(browser.run::<bool>(&format!("return {HIDDEN}")).await);
        let program = "return document.documentElement.dataset.program ?? ''";
        assert_eq!(browser.run::<String>(program).await, "B");
        assert!(has_all(&browser, &new).await);
        make(&browser, (9, 1, 3, "euler"), SOON).await;
        assert_same(&canvas(&browser, "canvas").await, &command_line("9", 1, 3, "euler"), 1);
        // Nothing of version A is left.
        browser
            .run::<bool>("caches.keys().then((names) => { window.kept = names }); return true")
            .await;
        browser.wait("window.kept?.length === 1", SOON).await;
        browser.close().await;
    }
}

/// The page, and what keeps it for later, ask for the same files.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn a_first_visit_downloads_no_file_twice() {
    let (site, browser) = (Site::serve_kept(dist()), Browser::start(Gpu::None).await);
    browser.open(&format!("{}{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    keep(&browser).await;
    let mut counts = std::collections::BTreeMap::new();
    for (path, status) in site.answers.lock().expect("no thread panicked").iter() {
        assert_eq!(*status, 200, "{path}");
        *counts.entry(path.clone()).or_insert(0) += 1;
    }
    // Browsers look for a new service worker as often as they like.
    counts.retain(|path, _| !path.ends_with("sw.js"));
    assert!(counts.len() > 8, "{counts:?}");
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    browser.close().await;
}

/// Hosts that send browsers from `index.html` to the folder do not keep the page from being opened
/// without the network, by either address.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn an_index_that_is_redirected_is_kept_as_a_page() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    let set = |fault| *site.fault.lock().expect("no thread panicked") = fault;
    set(Some(("index.html", Fault::Moved)));
    browser.open(&format!("{}index.html?backend=cpu{PLAIN}", site.url)).await;
    ready(&browser, SOON).await;
    keep(&browser).await;
    set(Some(("", Fault::Missing)));
    for page in ["index.html", ""] {
        browser.open(&format!("{}{page}?backend=cpu{PLAIN}", site.url)).await;
        ready(&browser, SOON).await;
        make(&browser, (9, 1, 2, "euler"), SOON).await;
    }
    browser
        .run::<bool>(
            "caches.match('./index.html').then((page) => {
               window.redirected = page.redirected });
             return true",
        )
        .await;
    browser.wait("window.redirected === false", SOON).await;
    browser.close().await;
}
