//! A real browser, through its driver.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;
use thirtyfour::prelude::*;

/// What the browser has for WebGPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpu {
    /// Nothing.
    None,
    /// A program that plays a graphics processor.
    Software,
}

/// The program that steers the browser.
struct Driver(Child);

impl Driver {
    /// Starts it, and returns its port.
    ///
    /// # Panics
    ///
    /// If it does not start; `cargo xtask setup` installs it.
    fn start() -> (Self, u16) {
        // It takes a free port of IPv4, and ends if that port of IPv6 is not free too.
        let mut output = String::new();
        for _ in 0..8 {
            let mut driver = Self(
                Command::new("chromedriver")
                    .arg("--port=0")
                    .stdout(Stdio::piped())
                    .stderr(Stdio::inherit())
                    .spawn()
                    .expect("chromedriver, which `cargo xtask setup` installs"),
            );
            let stdout = BufReader::new(driver.0.stdout.take().expect("piped"));
            for line in stdout.lines().map_while(Result::ok) {
                let port = line.split_once("started successfully on port ");
                if let Some((_, port)) = port {
                    let port = port.trim_end_matches('.').parse().expect("a port");
                    return (driver, port);
                }
                output += &line;
                output.push('\n');
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("chromedriver does not start:\n{output}");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It fails where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Chromium without a window. It ends with this, also after a failed test.
pub struct Browser {
    // Dropped in this order: the driver is needed to end the session.
    session: WebDriver,
    _driver: Driver,
    /// Where downloads go, and what the browser remembers.
    folder: TempDir,
}

impl Browser {
    /// Starts one, with a memory of its own.
    ///
    /// # Panics
    ///
    /// If it does not start; `cargo xtask setup` installs what is missing.
    pub async fn start(gpu: Gpu) -> Self {
        Self::start_as(gpu, None).await
    }

    /// Starts one that calls itself by another name.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn start_as(gpu: Gpu, name: Option<&str>) -> Self {
        let (driver, port) = Driver::start();
        let folder = TempDir::new().expect("a temporary folder");
        let mut wishes = DesiredCapabilities::chrome();
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let mut args = vec![
            "--headless",
            "--no-sandbox",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,1400",
            &profile,
        ];
        let name = name.map(|name| format!("--user-agent={name}"));
        args.extend(name.as_deref());
        match gpu {
            Gpu::None => args.push("--disable-features=WebGPU,WebGPUService"),
            Gpu::Software => {
                args.extend(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]);
            }
        }
        for arg in args {
            wishes.add_arg(arg).expect("a flag");
        }
        let downloads = folder.path().join("downloads");
        let preferences = json!({"download.default_directory": downloads});
        wishes.add_experimental_option("prefs", preferences).expect("an option");
        let session = WebDriver::new(format!("http://127.0.0.1:{port}"), wishes)
            .await
            .expect("Chromium, which `cargo xtask setup` installs");
        session.set_script_timeout(Duration::from_secs(60)).await.expect("a timeout");
        Self { session, _driver: driver, folder }
    }

    /// Opens an address.
    ///
    /// # Panics
    ///
    /// If it does not open.
    pub async fn open(&self, url: &str) {
        self.session.goto(url).await.expect("the page opens");
    }

    /// Runs a script in the page and returns what it returns.
    ///
    /// # Panics
    ///
    /// If it throws, or returns something else.
    pub async fn run<T: DeserializeOwned>(&self, script: &str) -> T {
        let result = self.session.execute(script, vec![]).await;
        let result = result.unwrap_or_else(|error| panic!("{script}: {error}"));
        result.convert().unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// The text of an element, or nothing where there is none.
    pub async fn text(&self, selector: &str) -> String {
        self.run(&format!("return document.querySelector({selector:?})?.textContent ?? ''")).await
    }

    /// Clicks on an element.
    ///
    /// # Panics
    ///
    /// If there is none, or it cannot be clicked on.
    pub async fn click(&self, selector: &str) {
        let element = self.session.find(By::Css(selector)).await.expect("the element");
        element.click().await.expect("an element to click on");
    }

    /// Types over what a field holds, or chooses in a list.
    ///
    /// # Panics
    ///
    /// If there is no such field.
    pub async fn fill(&self, selector: &str, value: &str) {
        let field = self.session.find(By::Css(selector)).await.expect("the field");
        if field.tag_name().await.expect("a tag") == "select" {
            let option = format!("option[value={value:?}]");
            field.find(By::Css(&*option)).await.expect("the option").click().await.expect("chosen");
        } else {
            // As a person does it: select all, type, leave.
            field.send_keys(Key::Control + "a").await.expect("selected");
            field.send_keys(value).await.expect("typed");
            field.send_keys(Key::Tab + "").await.expect("left");
        }
    }

    /// Presses keys in an element.
    ///
    /// # Panics
    ///
    /// If there is no such element.
    pub async fn press(&self, selector: &str, keys: impl Into<TypingData>) {
        let element = self.session.find(By::Css(selector)).await.expect("the element");
        element.send_keys(keys.into()).await.expect("pressed");
    }

    /// Chooses a file in a field for files.
    ///
    /// # Panics
    ///
    /// If there is no such field.
    pub async fn upload(&self, selector: &str, file: &Path) {
        self.press(selector, file.to_str().expect("a path of letters")).await;
    }

    /// Waits for a file to be downloaded, and reads it.
    ///
    /// # Panics
    ///
    /// If none comes within `limit`.
    pub async fn downloaded(&self, name: &str, limit: Duration) -> Vec<u8> {
        let path = self.downloads().join(name);
        let started = Instant::now();
        // An empty file keeps the name until the download is moved to it.
        while std::fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            assert!(started.elapsed() < limit, "no file at {}", path.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::fs::read(path).expect("a file")
    }

    /// What axe-core finds wrong with the page as it is.
    ///
    /// # Panics
    ///
    /// If axe-core is not there; `cargo xtask setup` fetches it.
    pub async fn violations(&self) -> Vec<String> {
        let path = crate::root().join("target/tools/node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&path)
            .expect("axe-core, which `cargo xtask setup` fetches into target/tools");
        self.run::<bool>(&format!("if (!window.axe) {{ {axe} }}; return true")).await;
        let script = "const done = arguments[arguments.length - 1];
             axe.run(document, { resultTypes: ['violations'] }).then(
               ({ violations }) => done(violations.flatMap(({ id, nodes }) =>
                 nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`))),
               (error) => done([String(error)]))";
        let result = self.session.execute_async(script, vec![]).await.expect("axe runs");
        result.convert().expect("a list")
    }

    /// Waits until a script's expression is true.
    ///
    /// # Panics
    ///
    /// If it is not within `limit`; says what the page shows then.
    pub async fn wait(&self, condition: &str, limit: Duration) {
        let started = Instant::now();
        while !self.run::<bool>(&format!("return Boolean({condition})")).await {
            if started.elapsed() > limit {
                let shown = self.text("body").await;
                panic!("not within {limit:?}: {condition}\nthe page shows: {shown}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Gives the page another size and another colour scheme, `light` or `dark`.
    ///
    /// # Panics
    ///
    /// If the browser cannot.
    pub async fn look(&self, width: u32, height: u32, scheme: &str) {
        let protocol = self.session.cdp();
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false
        });
        protocol.send_raw("Emulation.setDeviceMetricsOverride", size).await.expect("a size");
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        protocol.send_raw("Emulation.setEmulatedMedia", scheme).await.expect("a colour scheme");
    }

    /// Has the browser prefer reduced motion.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub async fn prefer_no_motion(&self) {
        let preference =
            json!({"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]});
        let protocol = self.session.cdp();
        protocol.send_raw("Emulation.setEmulatedMedia", preference).await.expect("a preference");
    }

    /// Gives the page's address another part behind the `#`.
    ///
    /// # Panics
    ///
    /// If it cannot.
    pub async fn follow(&self, hash: &str) {
        self.run::<bool>(&format!("location.hash = {hash:?}; return true")).await;
    }

    /// A picture of the window.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub async fn screenshot(&self) -> Vec<u8> {
        self.session.screenshot_as_png().await.expect("a picture of the window")
    }

    /// Where downloads go.
    pub fn downloads(&self) -> std::path::PathBuf {
        Path::new(self.folder.path()).join("downloads")
    }

    /// Ends the browser.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn close(self) {
        self.session.clone().quit().await.expect("the browser ends");
    }
}
