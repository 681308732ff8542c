//! The worker that computes.

fn main() {
    #[cfg(target_arch = "wasm32")]
    web::worker::start();
}
