//! Building the page.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256, Sha384};

use crate::shell::{cargo, find, run};
use crate::tools::Wasm;

const TARGET: &str = "wasm32-unknown-unknown";

/// Returns a target folder for Debian's compiler, so that it does not invalidate the other's builds.
fn folder(wasm: &Wasm) -> anyhow::Result<Option<PathBuf>> {
    if wasm.is_empty() {
        return Ok(None);
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(Some(std::path::absolute(target.join("debian"))?))
}

/// Options of a build.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    /// Whether to run wasm-opt.
    optimise: bool,
    /// Address of the folder that the page will be served from, with a slash at the end.
    address: Option<String>,
}

impl Options {
    /// Reads the arguments of the command line.
    ///
    /// # Errors
    ///
    /// If one is unknown, or the address is none.
    pub fn read(mut args: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        loop {
            args = match args {
                [] => return Ok(options),
                ["--optimise", rest @ ..] => {
                    options.optimise = true;
                    rest
                }
                ["--address", address, rest @ ..] => {
                    let whole = address.starts_with("https://") || address.starts_with("http://");
                    let plain = !address.contains(['"', '<', '>', '&', '?', '#', ' ']);
                    ensure!(whole && plain, "--address {address}: expected https://host/folder/");
                    options.address = Some(format!("{}/", address.trim_end_matches('/')));
                    rest
                }
                [other, ..] => {
                    bail!("{other}: expected --optimise or --address https://host/folder/")
                }
            };
        }
    }
}

/// Builds the page into `dist/`.
pub fn build(wasm: &Wasm, options: &Options) -> anyhow::Result<()> {
    // Trunk is run offline, so that it looks for no tools. What only a browser needs may be missing yet;
    // without a network, it may also be there already.
    if run(cargo().args(["fetch", "--locked", "--target", TARGET])).is_err() {
        eprintln!("warning: the page's dependencies cannot be fetched; trying what is there");
    }
    let mut trunk = Command::new("trunk");
    trunk.arg("build");
    trunk.env("TRUNK_OFFLINE", "true").env("TRUNK_SKIP_VERSION_CHECK", "true");
    if let Some(folder) = folder(wasm)? {
        trunk.env("CARGO_TARGET_DIR", folder);
    }
    // Trunk reads this variable as a flag and accepts only true and false.
    trunk.env_remove("NO_COLOR");
    trunk.envs(wasm.iter().map(|(name, value)| (name, value)));
    run(&mut trunk)?;
    let dist = Path::new("dist");
    for path in files(dist)?.iter().filter(|path| path.extension().is_some_and(|e| e == "wasm")) {
        let bytes = std::fs::read(path)?;
        std::fs::write(path, without_names(&bytes).context("not WebAssembly")?)?;
        if options.optimise {
            optimise(path)?;
        }
    }
    seal(dist, options.address.as_deref())
}

/// Returns a WebAssembly file without its name section, which is half of it, or `None` if the file is
/// damaged.
fn without_names(bytes: &[u8]) -> Option<Vec<u8>> {
    /// Reads a LEB128 number. Returns it and the remaining bytes.
    fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
        let last = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)?;
        let (digits, rest) = bytes.split_at(last + 1);
        let value = digits.iter().rev().fold(0, |value, &d| value << 7 | usize::from(d & 0x7f));
        Some((value, rest))
    }
    let (header, mut rest) = bytes.split_at_checked(8)?;
    let mut kept = header.to_vec();
    while let [kind, after @ ..] = rest {
        let (length, contents) = number(after)?;
        let (contents, next) = contents.split_at_checked(length)?;
        let (name, letters) = number(contents).unwrap_or((0, contents));
        let is_names = *kind == 0 && letters.get(..name) == Some(b"name");
        if !is_names {
            kept.extend(&rest[..rest.len() - next.len()]);
        }
        rest = next;
    }
    Some(kept)
}

/// Writes the hashes of all files into the files that load them: the page, the start script of the
/// workers, and the service worker.
fn seal(dist: &Path, address: Option<&str>) -> anyhow::Result<()> {
    let compute = dist.join("compute.js");
    let (mut hashes, mut sizes) = (serde_json::Map::new(), serde_json::Map::new());
    for program in ["worker", "cpu"] {
        for file in [format!("{program}.js"), format!("{program}_bg.wasm")] {
            let bytes = std::fs::read(dist.join(&file)).with_context(|| format!("dist/{file}"))?;
            hashes.insert(format!("./{file}"), integrity(&bytes).into());
            if file.ends_with(".wasm") {
                sizes.insert(format!("./{file}"), bytes.len().into());
            }
        }
    }
    for (name, values) in [("INTEGRITY", hashes), ("SIZES", sizes)] {
        let values = serde_json::to_string(&values)?;
        fill_in(&compute, &compute, &format!("{name} = {{}}"), &format!("{name} = {values}"))?;
    }
    // The start script has the hashes of the workers' files, and the page has the name of the start
    // script. A page and a worker of different versions therefore never meet.
    let bytes = std::fs::read(&compute).context("dist/compute.js")?;
    let name = format!("compute-{}.js", short(Sha256::digest(&bytes)));
    std::fs::rename(&compute, dist.join(&name)).context("dist/compute.js")?;

    let page = dist.join("index.html");
    let html = std::fs::read_to_string(&page).context("dist/index.html")?;
    let (html, style) = inline_styles(&html, dist)?;
    let html = allow_style(&html, &style).context("index.html")?;
    let headers = dist.join("_headers");
    let policy = std::fs::read_to_string(&headers).context("dist/_headers")?;
    std::fs::write(&headers, allow_style(&policy, &style).context("_headers")?)?;
    let marked =
        html.replacen("<html", &format!("<html data-offline data-compute=\"./{name}\""), 1);
    ensure!(marked != html, "index.html has no <html> element");
    let marked = match address {
        Some(address) => locate(&marked, address)?,
        None => marked,
    };
    std::fs::write(&page, sign(&marked, dist)?)?;

    let mut hash = Sha256::new();
    let mut list = Vec::new();
    for path in files(dist)? {
        let name = path.strip_prefix(dist)?.to_str().context("a file's name")?.replace('\\', "/");
        let bytes = std::fs::read(&path)?;
        hash.update(name.as_bytes());
        hash.update(Sha256::digest(&bytes));
        list.push((name.clone(), integrity(&bytes)));
        if name == "index.html" {
            list.push(("./".into(), integrity(&bytes)));
        }
    }
    let version = short(hash.finalize());
    let keeper = dist.join("sw.js");
    let files = serde_json::to_string(&list)?;
    fill_in(Path::new("www/sw.js"), &keeper, "VERSION = \"\"", &format!("VERSION = {version:?}"))?;
    fill_in(&keeper, &keeper, "FILES = []", &format!("FILES = {files}"))?;
    println!("dist/: version {version}, {} files", list.len() - 1);
    Ok(())
}

/// Moves the style sheets into the page: a browser shows nothing before it has all of them. Returns the
/// page and the hash of its style element.
fn inline_styles(html: &str, dist: &Path) -> anyhow::Result<(String, String)> {
    const START: &str = "<link rel=\"stylesheet\" href=\"./";
    let mut parts = html.split(START);
    let mut page = parts.next().unwrap_or_default().to_string();
    let (mut css, mut after) = (String::new(), String::new());
    for part in parts {
        let (address, rest) = part.split_once('"').context("an address that does not end")?;
        let (_, rest) = rest.split_once('>').context("a link that does not end")?;
        let sheet = dist.join(address);
        css += &std::fs::read_to_string(&sheet).with_context(|| address.to_string())?;
        std::fs::remove_file(&sheet).with_context(|| address.to_string())?;
        after += rest;
    }
    ensure!(!css.is_empty(), "index.html has no style sheets");
    ensure!(!css.contains("</"), "a style sheet would end the style element");
    page += &format!("<style>{css}</style>{after}");
    Ok((page, integrity(css.as_bytes())))
}

/// Adds the style element with this hash to the content security policy in a text. No other inline style
/// is allowed.
fn allow_style(text: &str, hash: &str) -> anyhow::Result<String> {
    let rest = "default-src 'self'; ";
    let allowed = text.replacen(rest, &format!("{rest}style-src 'self' '{hash}'; "), 1);
    ensure!(allowed != text, "no content security policy");
    Ok(allowed)
}

/// Returns the page with whole addresses for other sites, which show its picture beside a link to it.
fn locate(html: &str, address: &str) -> anyhow::Result<String> {
    let picture = "<meta property=\"og:image\" content=\"./";
    let url = format!("<meta property=\"og:url\" content=\"{address}\" />\n    ");
    let whole = picture.replace("./", address);
    let located = html.replacen(picture, &format!("{url}{whole}"), 1);
    ensure!(located != html, "index.html names no picture for other sites");
    Ok(located)
}

/// Writes a script with a value in place of the empty one in its source.
fn fill_in(source: &Path, target: &Path, empty: &str, filled: &str) -> anyhow::Result<()> {
    let context = || source.display().to_string();
    let script = std::fs::read_to_string(source).with_context(context)?;
    let (before, after) = script.split_once(empty).with_context(context)?;
    std::fs::write(target, format!("{before}{filled}{after}")).with_context(context)
}

/// Returns a page with the current hash of each script and style sheet.
fn sign(html: &str, dist: &Path) -> anyhow::Result<String> {
    let mut signed = String::new();
    for (i, part) in html.split('<').enumerate() {
        if i > 0 {
            signed.push('<');
        }
        let address = ["src=\"./", "href=\"./"].iter().find_map(|start| {
            let (_, rest) = part.split_once(start)?;
            rest.split('"').next()
        });
        let loads = part.starts_with("script ") || part.starts_with("link ");
        let Some(address) = address.filter(|_| loads && !part.contains("rel=\"icon\"")) else {
            signed.push_str(part);
            continue;
        };
        let bytes = std::fs::read(dist.join(address)).with_context(|| address.to_string())?;
        let hash = integrity(&bytes);
        if let Some((before, rest)) = part.split_once("integrity=\"") {
            let (_, after) = rest.split_once('"').context("an attribute that does not end")?;
            signed.push_str(&format!("{before}integrity=\"{hash}\"{after}"));
        } else {
            let (name, rest) = part.split_once(' ').context("an element without attributes")?;
            signed.push_str(&format!("{name} integrity=\"{hash}\" {rest}"));
        }
    }
    Ok(signed)
}

/// Returns the first eight bytes of a hash in hexadecimal.
fn short(hash: impl AsRef<[u8]>) -> String {
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a hash in the format of the attribute `integrity`.
fn integrity(bytes: &[u8]) -> String {
    format!("sha384-{}", BASE64_STANDARD.encode(Sha384::digest(bytes)))
}

/// Files that the page does not load: the service worker, what hosts read, what other sites show.
const NOT_OF_THE_PAGE: [&str; 3] = ["sw.js", "_headers", "share.png"];

/// Returns all files below a folder that the page loads, sorted by name.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.file_name().is_some_and(|n| NOT_OF_THE_PAGE.iter().all(|other| n != *other))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs wasm-opt on a WebAssembly file.
fn optimise(path: &Path) -> anyhow::Result<()> {
    ensure!(
        find("wasm-opt").is_some(),
        "wasm-opt is missing; `npm install --global binaryen` brings one (Debian's is too old)"
    );
    let size = || {
        let file = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        anyhow::Ok(file.len())
    };
    let before = size()?;
    run(Command::new("wasm-opt").args(["-O2", "--strip-debug", "-o"]).arg(path).arg(path))?;
    println!("{}: {before} bytes before, {} after", path.display(), size()?);
    Ok(())
}

/// Runs clippy on the code that is only built for WebAssembly, if the compiler has clippy.
pub fn lint(wasm: &Wasm) -> anyhow::Result<()> {
    if !wasm.is_empty() {
        // Debian's compiler has no clippy.
        return Ok(());
    }
    for (program, feature) in [("app", "page"), ("worker", "gpu"), ("cpu", "learn")] {
        let mut clippy = cargo();
        clippy.args(["clippy", "--package", "web", "--bin", program, "--features", feature]);
        clippy.args(["--target", TARGET, "--profile", "page", "--locked", "--", "-D", "warnings"]);
        run(&mut clippy)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"\0asm\x01\0\0\0";

    #[test]
    fn names_are_left_out_and_nothing_else() {
        let names = b"\0\x08\x04name\x01\x02\x03";
        let other = b"\0\x07\x05other\x01";
        let code = b"\x0a\x83\x80\0\x01\x02\x03";
        let file = [HEADER, names, other, code].concat();
        assert_eq!(without_names(&file), Some([HEADER, other, code].concat()));
        assert_eq!(without_names(HEADER), Some(HEADER.to_vec()));
        assert_eq!(without_names(&file[..file.len() - 1]), None);
        assert_eq!(without_names(b"\0asm"), None);
    }

    #[test]
    fn every_script_is_signed_with_the_hash_of_its_file() {
        let folder = tempfile::TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("a.js"), "").expect("written");
        let empty = "sha384-OLBgp1GsljhM2TJ+sbHjaiH9txEUvgdDTAzHv2P24donTt6/529l+9Ua0vFImLlb";
        let html = "<p><script src=\"./a.js\"></script><link integrity=\"old\" href=\"./a.js\">";
        let want = format!(
            "<p><script integrity=\"{empty}\" src=\"./a.js\"></script>\
             <link integrity=\"{empty}\" href=\"./a.js\">"
        );
        assert_eq!(sign(html, folder.path()).expect("signed"), want);
        assert!(sign("<script src=\"./b.js\">", folder.path()).is_err());
    }

    #[test]
    fn style_sheets_become_a_part_of_the_page() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let sheet = |name: &str, css: &str| {
            std::fs::write(folder.path().join(name), css).expect("written");
        };
        let html = "<head><meta content=\"default-src 'self'; object-src 'none'\">\
                    <link rel=\"stylesheet\" href=\"./a.css\" integrity=\"x\"/>\
                    <link rel=\"stylesheet\" href=\"./b.css\"/><link rel=\"icon\" href=\"./c.svg\">";
        sheet("a.css", "a {}\n");
        sheet("b.css", "b > a {}\n");
        let (inlined, hash) = inline_styles(html, folder.path()).expect("two sheets");
        let want = "<head><meta content=\"default-src 'self'; object-src 'none'\">\
                    <style>a {}\nb > a {}\n</style><link rel=\"icon\" href=\"./c.svg\">";
        assert_eq!(inlined, want);
        assert_eq!(hash, integrity(b"a {}\nb > a {}\n"));
        // The files are not a part of the page any more.
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let allowed = allow_style(&inlined, &hash).expect("a policy");
        let policy = format!("default-src 'self'; style-src 'self' '{hash}'; object-src 'none'");
        assert!(allowed.contains(&policy) && !allowed.contains("unsafe"), "{allowed}");
        assert!(allow_style("<head>", &hash).is_err());
        assert!(inline_styles("<head>", folder.path()).is_err());
        assert!(inline_styles(html, folder.path()).is_err(), "the files are gone");
        sheet("a.css", "a { content: \"</style>\" }");
        sheet("b.css", "b {}");
        assert!(inline_styles(html, folder.path()).is_err());
    }

    /// Hosts that send `_headers` send the policy that the page has.
    #[test]
    fn the_page_and_the_headers_have_one_policy() {
        let html = std::fs::read_to_string("../www/index.html").expect("the page");
        let headers = std::fs::read_to_string("../www/_headers").expect("the headers");
        let policy = |text: &str, start: &str| {
            let (_, rest) = text.split_once(start).expect("a policy");
            rest.split(['"', '\n']).next().unwrap_or_default().to_string()
        };
        let allowed = |text: &str| allow_style(text, "sha384-x").expect("a policy");
        let page = policy(&allowed(&html), "content=\"default-src");
        assert_eq!(page, policy(&allowed(&headers), "Content-Security-Policy: default-src"));
        assert!(page.contains("'sha384-x'") && !page.contains("unsafe-inline"), "{page}");
    }

    #[test]
    fn options_are_read_and_mistakes_told() {
        let read = |args: &[&str]| Options::read(args);
        assert_eq!(read(&[]).expect("no options"), Options::default());
        let address = Some("https://a.example/b/".to_string());
        let both = read(&["--optimise", "--address", "https://a.example/b"]).expect("valid");
        assert_eq!(both, Options { optimise: true, address });
        for wrong in [&["--optimize"][..], &["--address"], &["--address", "a.example"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&["--address", "https://a.example/\"><script>"]).is_err());
    }

    #[test]
    fn the_page_can_say_where_it_is() {
        let html = std::fs::read_to_string("../www/index.html").expect("the page");
        let located = locate(&html, "https://a.example/b/").expect("it has a picture");
        for (name, want) in
            [("image", "https://a.example/b/share.png"), ("url", "https://a.example/b/")]
        {
            let element = format!("<meta property=\"og:{name}\" content=\"{want}\" />");
            assert_eq!(located.matches(&element).count(), 1, "{element}");
        }
        assert!(locate("<html>", "https://a.example/").is_err());
    }
}
