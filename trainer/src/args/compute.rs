//! Flags for devices and machines.

use clap::Args;

use crate::device::DeviceKind;

/// The device of a command that uses one.
#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// Device to compute on.
    #[arg(help_heading = "Devices", long, value_enum, default_value_t)]
    pub device: DeviceKind,
}

/// The devices and machines that train a model.
#[derive(Args, Clone)]
#[command(next_help_heading = "Devices")]
pub struct ClusterArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Split each batch across this many devices.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub devices: u16,
    /// Split each batch across the machines with these addresses.
    ///
    /// The default is this machine only. List all machines in the same order on each, and start each with the same flags. Each writes
    /// a run folder of its own. `none` resumes a run of several machines on one.
    #[arg(long, value_name = "HOST:PORT,..", value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// Index of this machine in --nodes, from 0; it has no default.
    #[arg(long, value_name = "N", requires = "nodes")]
    pub node: Option<usize>,
}

impl ClusterArgs {
    /// Returns the number of devices that share a batch, on all machines.
    pub fn workers(&self) -> usize {
        usize::from(self.devices) * self.nodes.len().max(1)
    }
}
