//! Linker arguments of the workers.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Without this export, the linker has every function that JavaScript calls run all constructors
    // first. `compute.js` calls it once.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32") {
        for program in ["worker", "cpu"] {
            println!("cargo:rustc-link-arg-bin={program}=--export=__wasm_call_ctors");
        }
    }
}
