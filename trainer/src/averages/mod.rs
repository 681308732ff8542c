//! Moving averages of the weights with power-function profiles, and their reconstruction after
//! training (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models",
//! section 3 and appendix C).

mod profile;
mod reconstruct;

pub use profile::{Profile, STD_RANGE};
pub use reconstruct::{Reconstruction, reconstruct};
