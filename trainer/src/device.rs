//! Devices.

use anyhow::{bail, ensure};
use burn::tensor::{Device, Tensor};
use clap::ValueEnum;

use crate::config::Precision;

/// A kind of device. All except `cpu` need the crate feature of the same name, or of that name
/// with `-plain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// CPU.
    // Earlier versions, and the launch settings that they wrote, call it by the name of Burn's backend.
    #[default]
    #[value(alias = "flex")]
    Cpu,
    /// GPU, through the graphics API of the system.
    Wgpu,
    /// GPU, through Vulkan.
    Vulkan,
    /// NVIDIA GPU, through CUDA.
    Cuda,
}

impl DeviceKind {
    /// Checks that this program can open `n` devices of this kind, without opening them, which can take
    /// long.
    ///
    /// # Errors
    ///
    /// If the program was built without this kind, or cannot use as many devices of it.
    pub fn check(self, n: usize) -> anyhow::Result<()> {
        ensure!(
            n == 1 || matches!(self, Self::Cpu | Self::Cuda),
            "--devices {n}: several GPUs need --device cuda"
        );
        self.built().map(|_| ())
    }

    /// Opens the first `n` devices of this kind. The CPU counts as any number of devices.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), or if the machine has fewer usable devices.
    pub fn open_all(self, n: usize) -> anyhow::Result<Vec<Device>> {
        self.check(n)?;
        (0..n).map(|index| self.open_one(index)).collect()
    }

    /// Opens the first device of this kind.
    ///
    /// # Errors
    ///
    /// If the program was built without this kind, or has no usable device.
    pub fn open(self) -> anyhow::Result<Device> {
        self.open_one(0)
    }

    /// Returns the function that opens a device, given its index.
    ///
    /// # Errors
    ///
    /// If the program was built without this kind.
    fn built(self) -> anyhow::Result<fn(usize) -> Device> {
        let Some(make) = self.constructor() else {
            let name = self.to_possible_value().expect("no kind is hidden");
            let name = name.get_name();
            bail!(
                "this program was built without `{name}`; build it with \
                 `cargo build --release -p trainer --features {name}`"
            );
        };
        Ok(make)
    }

    fn open_one(self, index: usize) -> anyhow::Result<Device> {
        let make = self.built()?;
        // Drivers panic if there is no GPU.
        let opened = std::panic::catch_unwind(|| {
            let device = make(index);
            let one = Tensor::<1>::ones([1], &device).into_data();
            (one.num_elements() == 1).then_some(device)
        });
        match opened {
            Ok(Some(device)) => Ok(device),
            _ => bail!(
                "no usable {self:?} device with index {index} was found; use --device cpu for the CPU"
            ),
        }
    }

    /// Describes the hardware of `n` devices of this kind, for the model card.
    pub fn hardware(self, n: usize) -> String {
        if self == Self::Cpu {
            return cpu();
        }
        // NVIDIA's driver names its GPUs in files; other drivers have no such place.
        let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
        let name = gpus.into_iter().find_map(|gpu| {
            let text = std::fs::read_to_string(gpu.path().join("information")).ok()?;
            field(&text, "Model").map(String::from)
        });
        format!("{n} x {}", name.as_deref().unwrap_or("GPU"))
    }

    /// Returns the peak rate of one device of this kind, in floating-point operations per second without
    /// sparsity, as its data sheet states it. `None` for CPUs and for GPUs whose rate is not known here.
    pub fn peak(self, precision: Precision) -> Option<f64> {
        (self != Self::Cpu).then(|| peak(&self.hardware(1), precision)).flatten()
    }

    /// Describes how this program computes a network on such a device. It is a choice of crate
    /// features.
    pub fn implementation(self) -> &'static str {
        match self {
            Self::Cpu => "CPU kernels",
            _ if cfg!(feature = "kernels") => "the network's own GPU kernels",
            _ if cfg!(feature = "fused") => "tensor operations, fused at run time",
            _ => "tensor operations",
        }
    }

    fn constructor(self) -> Option<fn(usize) -> Device> {
        match self {
            DeviceKind::Cpu => Some(|_| Device::flex()),
            #[cfg(feature = "wgpu-plain")]
            DeviceKind::Wgpu => Some(|_| Device::wgpu(Default::default())),
            #[cfg(feature = "vulkan-plain")]
            DeviceKind::Vulkan => Some(|_| Device::vulkan(Default::default())),
            #[cfg(feature = "cuda-plain")]
            DeviceKind::Cuda => Some(|index| Device::cuda(index)),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// Returns the peak rate of a GPU, from its name. Single precision is that of the ordinary units, without
/// TF32.
fn peak(name: &str, precision: Precision) -> Option<f64> {
    // Parts of the name, and teraflops in f32 and bf16. The first row that fits counts.
    const KNOWN: [(&[&str], f64, f64); 5] = [
        (&["A100"], 19.5, 312.0),
        (&["H100", "PCIe"], 51.0, 756.0),
        (&["H100", "NVL"], 60.0, 835.0),
        (&["H100"], 67.0, 989.0),
        (&["H200"], 67.0, 989.0),
    ];
    let (_, f32, bf16) = KNOWN.iter().find(|(parts, ..)| parts.iter().all(|p| name.contains(p)))?;
    let teraflops = match precision {
        Precision::F32 => f32,
        Precision::Bf16 => bf16,
    };
    Some(teraflops * 1e12)
}

/// Returns the CPU of this machine, or its architecture if the model is unknown.
fn cpu() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    format!("{cores} cores of {}", field(&text, "model name").unwrap_or(std::env::consts::ARCH))
}

/// Returns the value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_read_from_the_files_of_the_system() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC 9R14\nmodel name\t: other\n";
        assert_eq!(field(text, "model name"), Some("AMD EPYC 9R14"));
        assert_eq!(field(text, "model"), None);
        assert!(DeviceKind::Cpu.hardware(1).contains(" cores of "));
        assert!(DeviceKind::Cuda.hardware(8).starts_with("8 x "));
    }

    #[test]
    fn the_peak_rate_is_that_of_the_gpu_and_the_precision() {
        let of = |name| [peak(name, Precision::F32), peak(name, Precision::Bf16)];
        assert_eq!(of("1 x NVIDIA A100-SXM4-80GB"), [Some(19.5e12), Some(312e12)]);
        assert_eq!(of("1 x NVIDIA H100 80GB HBM3"), [Some(67e12), Some(989e12)]);
        assert_eq!(of("1 x NVIDIA H100 PCIe"), [Some(51e12), Some(756e12)]);
        assert_eq!(of("1 x GPU"), [None, None]);
        assert_eq!(DeviceKind::Cpu.peak(Precision::F32), None);
    }

    #[test]
    fn a_gpu_is_said_to_compute_as_the_features_tell() {
        assert_eq!(DeviceKind::Cpu.implementation(), "CPU kernels");
        let on_gpu = DeviceKind::Cuda.implementation();
        assert_eq!(on_gpu.contains("fused"), cfg!(feature = "fused") && !cfg!(feature = "kernels"));
        assert_eq!(on_gpu.contains("own GPU kernels"), cfg!(feature = "kernels"));
    }
}
