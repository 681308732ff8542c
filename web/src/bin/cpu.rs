//! The worker for processors, which also trains.

fn main() {
    #[cfg(all(target_arch = "wasm32", feature = "learn"))]
    web::worker::start();
}
