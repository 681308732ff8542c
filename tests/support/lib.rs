//! What the tests share.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use model::config::{LatentConfig, ModelConfig, NetworkConfig, PrecondConfig};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

pub mod browser;
pub mod server;

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
            other => panic!("{name} is {other:?}"),
        };
        (view.shape().to_vec(), values)
    }
}

/// Holds values against others: the largest difference is at most `tolerance` times the largest
/// value.
///
/// # Panics
///
/// If it is not.
pub fn assert_close(what: &str, found: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(found.len(), want.len(), "{what}");
    let scale = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let worst = found.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * scale, "{what}: off by {worst:e} where values reach {scale}");
}
