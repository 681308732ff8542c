//! The worker for graphics processors.

fn main() {
    #[cfg(all(target_arch = "wasm32", feature = "gpu"))]
    web::worker::start();
}
