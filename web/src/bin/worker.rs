//! The worker that computes.

fn main() {
    #[cfg(all(target_arch = "wasm32", feature = "compute"))]
    web::worker::start();
}
