//! Comparison of networks: a plan of training runs, the losses of the trained networks on the same
//! noisy images, and tables and plots of them.
//!
//! All runs of a plan with the same seed see the same images in the same order with the same noise,
//! and all networks are evaluated on the same noisy images. So differences are paired, image by
//! image.

mod difference;
mod plan;
pub mod plots;
mod result;
pub mod table;
mod wiener;

pub use plan::{Plan, PlannedNetwork};
pub use result::{RunResult, curve};
pub use table::Tables;
pub use wiener::Wiener;
