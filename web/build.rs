//! Linker arguments of the workers, and the version of the programs.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Without this export, the linker has every function that JavaScript calls run all constructors
    // first. `compute.js` calls it once.
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        for program in ["worker", "cpu"] {
            println!("cargo:rustc-link-arg-bin={program}=--export=__wasm_call_ctors");
        }
    }
    // The messages between page and worker consist of types of these two crates.
    let mut hasher = DefaultHasher::new();
    for folder in ["src", "../model/src"] {
        println!("cargo:rerun-if-changed={folder}");
        for path in files(Path::new(folder)) {
            fs::read(path).expect("a source file").hash(&mut hasher);
        }
    }
    println!("cargo:rustc-env=DIFFIT_VERSION={:016x}", hasher.finish());
}

/// Returns all files below a folder, sorted by name.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry of the folder").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}
