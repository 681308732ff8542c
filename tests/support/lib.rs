//! Helpers that the tests share.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use model::config::{LatentConfig, ModelConfig, NetworkConfig, PrecondConfig};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

pub mod browser;
pub mod mutate;
pub mod server;

/// The seeds and the classes of the page's recording, `www/record.jpg`, which are those that a visit
/// starts with.
pub const RECORDED: (std::ops::RangeInclusive<u64>, &str) = (20..=23, "cat,rainbow,rocket,cactus");

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the root")
}

/// The trainer, as `cargo build --workspace` leaves it beside the tests.
///
/// # Panics
///
/// If it was not built.
pub fn trainer() -> Command {
    let mut path = std::env::current_exe().expect("a test knows where it is");
    // target/debug/deps/test -> target/debug/trainer
    path.pop();
    path.pop();
    path.push(format!("trainer{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{}: build it first, with `cargo build --workspace`", path.display());
    let mut command = Command::new(path);
    command.env("NO_COLOR", "1");
    // Not in the cache of whoever runs the tests.
    command.env("XDG_CACHE_HOME", std::env::temp_dir().join("diffit-tests-cache"));
    command
}

/// The CIFAR-10 pictures beside the repository, where they are.
pub fn cifar10() -> Option<PathBuf> {
    let path = root().join("../shared/data/cifar10-train.zip");
    path.exists().then_some(path)
}

/// A latent model so small that it takes no time: that of the golden values, under any
/// preconditioning.
pub fn small_latent(precond: PrecondConfig) -> ModelConfig {
    let mut latent = LatentConfig {
        resolution: 8,
        width: 24,
        depth: 2,
        classes: 5,
        time_channels: 16,
        ..LatentConfig::default()
    };
    latent.transformer.head_dim = 8;
    ModelConfig { network: NetworkConfig::Latent(latent), precond }
}

/// A safetensors file of `f32` and `f64` tensors.
pub struct Tensors(Vec<u8>);

impl Tensors {
    /// Reads a file.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// Reads a golden file.
    pub fn golden(name: &str) -> Self {
        Self::open(&root().join("tests/golden").join(name))
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).expect("a safetensors file").tensor(name).is_ok()
    }

    /// Shape and values of a tensor.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub fn get(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let view = file.tensor(name).unwrap_or_else(|_| panic!("there is no tensor {name}"));
        let values = match view.dtype() {
            Dtype::F64 => {
                let values = view.data().chunks_exact(8);
                values.map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect()
            }
            Dtype::F32 => {
                let values = view.data().chunks_exact(4);
                values.map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")).into()).collect()
            }
            Dtype::F16 => {
                let values = view.data().as_chunks().0.iter();
                values.map(|b| burn::tensor::f16::from_le_bytes(*b).to_f64()).collect()
            }
            other => panic!("{name} is {other:?}"),
        };
        (view.shape().to_vec(), values)
    }
}

/// Compares values: the largest difference is at most `tolerance` times the largest value.
///
/// # Panics
///
/// If it is not, or a value is not finite.
pub fn assert_close(what: &str, found: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len(), "{what}");
    // f64::max ignores NaN.
    for (i, (a, b)) in found.iter().zip(want).enumerate() {
        assert!(a.is_finite() && b.is_finite(), "{what}: value {i} is {a}, expected {b}");
    }
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let worst = found.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * scale, "{what}: off by {worst:e} where values reach {scale}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_close(found: &[f64], want: &[f64]) -> bool {
        let compare = || assert_close("values", found, want, 0.1);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_ok()
    }

    #[test]
    fn differences_and_values_that_are_not_finite_are_found() {
        assert!(is_close(&[1.0, 2.1], &[1.0, 2.0]));
        assert!(!is_close(&[1.0, 2.3], &[1.0, 2.0]));
        assert!(!is_close(&[1.0], &[1.0, 2.0]));
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(!is_close(&[bad, bad], &[1.0, 2.0]), "all are {bad}");
            assert!(!is_close(&[1.0, bad], &[1.0, 2.0]));
            assert!(!is_close(&[1.0, 2.0], &[1.0, bad]));
            assert!(!is_close(&[1.0, bad], &[1.0, bad]));
        }
    }
}
