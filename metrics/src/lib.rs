//! Image quality metrics: Fréchet distances (FID, sFID), Inception Score, precision and recall,
//! KID, and the extrapolation of FID to infinitely many samples.
//!
//! Every metric compares features of images, which a feature network computes ([`network`]). The
//! features of a set of images are kept in a file ([`store`]), so that memory does not grow with
//! the number of images, and an interrupted computation goes on where it stopped. Reference
//! statistics are `.npz` files ([`mod@reference`]), also those of EDM and of ADM.
//!
//! | to find | look in |
//! |---|---|
//! | Inception-v3 as TensorFlow 1 ran it | [`network::inception`], [`resize`] |
//! | sums of features, mean and covariance | [`statistics`] |
//! | FID and sFID | [`frechet`] |
//! | FID-infinity | [`extrapolation`] |
//! | Inception Score | [`inception_score`] |
//! | precision and recall | [`neighbours`] |
//! | KID | [`kernel`] |

#![forbid(unsafe_code)]

pub mod error;
pub mod extrapolation;
pub mod frechet;
#[cfg(test)]
mod golden;
pub mod inception_score;
pub mod kernel;
mod linear;
pub mod neighbours;
pub mod network;
pub mod npz;
pub mod reference;
pub mod resize;
pub mod rows;
pub mod statistics;
pub mod store;
#[cfg(test)]
mod testing;

pub use error::MetricsError;
