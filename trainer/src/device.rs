//! What to compute on.

use anyhow::{bail, ensure};
use burn::tensor::{Device, Tensor};
use clap::ValueEnum;

/// A kind of device. All but `flex` are compiled in by a feature of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// The CPU.
    #[default]
    Flex,
    /// A GPU, by whichever interface the system has.
    Wgpu,
    /// A GPU, by Vulkan.
    Vulkan,
    /// An NVIDIA GPU, by CUDA.
    Cuda,
}

impl DeviceKind {
    /// Opens the first `n` devices of this kind. The CPU is opened `n` times.
    ///
    /// # Errors
    ///
    /// If this program was built without them, or there are not so many that work.
    pub fn open_all(self, n: usize) -> anyhow::Result<Vec<Device>> {
        ensure!(
            n == 1 || matches!(self, Self::Flex | Self::Cuda),
            "several GPUs work together under --device cuda only"
        );
        (0..n).map(|index| self.open_one(index)).collect()
    }

    /// Opens the first device of this kind.
    ///
    /// # Errors
    ///
    /// If this program was built without it, or there is none that works.
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
        // A missing GPU shows as a panic deep inside its driver's binding.
        let opened = std::panic::catch_unwind(|| {
            let device = make(index);
            let one = Tensor::<1>::ones([1], &device).into_data();
            (one.num_elements() == 1).then_some(device)
        });
        match opened {
            Ok(Some(device)) => Ok(device),
            _ => bail!(
                "no usable {self:?} device number {index} was found; --device flex computes on the \
                 CPU"
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
