//! The page.

fn main() {
    #[cfg(all(target_arch = "wasm32", feature = "page"))]
    web::app::start();
}
