//! How fast the built page is, in a browser without a graphics processor: prints one JSON object
//! for the sizes of the programs, and one for each way of computing. `cargo xtask bench` runs
//! it on `dist/`; given a folder, it measures the page there.
//!
//! WebGPU is played by a program here (SwiftShader), many times slower than any graphics processor:
//! of it, the number shows that it works, and what a change does to it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tests::browser::{Browser, Gpu};
use tests::root;
use tests::server::Site;

/// Runs of the page, each in a new browser; the middle one counts.
const RUNS: usize = 3;
/// Steps of Heun for one picture.
const STEPS: usize = 4;
const LIMIT: Duration = Duration::from_secs(900);

#[tokio::main]
async fn main() {
    let dist = std::env::args_os().nth(1).map_or_else(|| root().join("dist"), PathBuf::from);
    assert!(dist.join("index.html").exists(), "build the page first: `cargo xtask site`");
    println!("{}", sizes(&dist));
    for (backend, gpu) in [("cpu", Gpu::None), ("webgpu", Gpu::Software)] {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(measure(&dist, backend, gpu).await);
        }
        let middle = |i: usize| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[i]).collect();
            values.sort_by(f64::total_cmp);
            values[RUNS / 2]
        };
        println!(
            "{}",
            json!({
                "backend": backend,
                "page_ms": middle(0),
                "ready_ms": middle(1),
                "first_picture_ms": middle(2),
                "ms_per_evaluation": middle(3),
                "memory_mb": middle(4),
            })
        );
    }
}

/// Bytes of the programs, and what is left of them on the wire.
fn sizes(dist: &Path) -> Value {
    let mut sizes = serde_json::Map::new();
    for entry in std::fs::read_dir(dist).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&bytes).expect("in memory");
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 1 << 16, 11, 22);
        brotli.write_all(&bytes).expect("in memory");
        let name = path.file_name().expect("a name").to_string_lossy();
        let name = name.split(['-', '_', '.']).next().unwrap_or_default().to_string();
        sizes.insert(
            name,
            json!({
                "bytes": bytes.len(),
                "gzip": gzip.finish().expect("in memory").len(),
                "brotli": brotli.into_inner().len(),
            }),
        );
    }
    Value::Object(sizes)
}

/// Milliseconds until the page is there, until it can be used, for the first picture from the click
/// on, and for an evaluation after that; and the megabytes of the program that computes.
async fn measure(dist: &Path, backend: &str, gpu: Gpu) -> [f64; 5] {
    let site = Site::serve(dist.to_owned());
    let browser = Browser::start(gpu).await;
    browser.open(&format!("{}?backend={backend}", site.url)).await;
    let state = "document.querySelector('main')?.dataset.state";
    browser.wait(&format!("['ready', 'broken'].includes({state})"), LIMIT).await;
    let ready: f64 = browser.run("return performance.now()").await;
    let page: f64 = browser
        .run("return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        .await;
    browser.click("[data-testid=more]").await;
    browser.fill("#steps", &STEPS.to_string()).await;
    let mut times = Vec::new();
    for _ in 0..2 {
        let clicked: f64 = browser.run("return performance.now()").await;
        browser.click("[data-testid=generate]").await;
        browser.wait(&format!("{state} === 'ready'"), LIMIT).await;
        let done: f64 = browser.run("return performance.now()").await;
        times.push(done - clicked);
    }
    browser.click("[data-testid=view-about]").await;
    let number = async |id: &str| {
        let text = browser.text(&format!("[data-testid={id}]")).await;
        let number = text.split(' ').next().unwrap_or_default();
        number.parse::<f64>().unwrap_or_else(|_| panic!("{id} shows {text:?}"))
    };
    let (evaluation, memory) = (number("evaluation").await, number("memory").await);
    browser.close().await;
    [page, ready, times[0], evaluation, memory]
}
