//! What to compute on.

use anyhow::bail;
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
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// If this program was built without it, or there is none that works.
    pub fn open(self) -> anyhow::Result<Device> {
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
            let device = make();
            let one = Tensor::<1>::ones([1], &device).into_data();
            (one.num_elements() == 1).then_some(device)
        });
        match opened {
            Ok(Some(device)) => Ok(device),
            _ => bail!("no usable {self:?} device was found; --device flex computes on the CPU"),
        }
    }

    fn constructor(self) -> Option<fn() -> Device> {
        match self {
            DeviceKind::Flex => Some(Device::flex),
            #[cfg(feature = "wgpu")]
            DeviceKind::Wgpu => Some(|| Device::wgpu(Default::default())),
            #[cfg(feature = "vulkan")]
            DeviceKind::Vulkan => Some(|| Device::vulkan(Default::default())),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda => Some(|| Device::cuda(0)),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}
