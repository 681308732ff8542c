//! Devices.

use anyhow::{bail, ensure};
use burn::tensor::{Device, Tensor};
use clap::ValueEnum;

/// A kind of device. All except `flex` need the crate feature of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// CPU.
    #[default]
    Flex,
    /// GPU, through the graphics API of the system.
    Wgpu,
    /// GPU, through Vulkan.
    Vulkan,
    /// NVIDIA GPU, through CUDA.
    Cuda,
}

impl DeviceKind {
    /// Opens the first `n` devices of this kind. The CPU counts as any number of devices.
    ///
    /// # Errors
    ///
    /// If the program was built without this kind, or has fewer usable devices.
    pub fn open_all(self, n: usize) -> anyhow::Result<Vec<Device>> {
        ensure!(
            n == 1 || matches!(self, Self::Flex | Self::Cuda),
            "--devices {n}: several GPUs need --device cuda"
        );
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

    fn open_one(self, index: usize) -> anyhow::Result<Device> {
        let Some(make) = self.constructor() else {
            let name = self.to_possible_value().expect("no kind is hidden");
            let name = name.get_name();
            bail!(
                "this program was built without `{name}`; build it with \
                 `cargo build --release -p trainer --features {name}`"
            );
        };
        // Drivers panic if there is no GPU.
        let opened = std::panic::catch_unwind(|| {
            let device = make(index);
            let one = Tensor::<1>::ones([1], &device).into_data();
            (one.num_elements() == 1).then_some(device)
        });
        match opened {
            Ok(Some(device)) => Ok(device),
            _ => bail!(
                "no usable {self:?} device with index {index} was found; use --device flex for the CPU"
            ),
        }
    }

    fn constructor(self) -> Option<fn(usize) -> Device> {
        match self {
            DeviceKind::Flex => Some(|_| Device::flex()),
            #[cfg(feature = "wgpu")]
            DeviceKind::Wgpu => Some(|_| Device::wgpu(Default::default())),
            #[cfg(feature = "vulkan")]
            DeviceKind::Vulkan => Some(|_| Device::vulkan(Default::default())),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda => Some(|index| Device::cuda(index)),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}
