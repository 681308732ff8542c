//! Memory of this process: what it has, and what training will take.

use anyhow::ensure;
use burn::tensor::Device;
use model::weights::shape_of;

use crate::config::{Precision, TrainConfig};
use crate::nodes;
use crate::report::warn;

/// Tells the allocator to keep what it has freed.
///
/// A training step allocates and frees the same large blocks over and over. By default glibc
/// hands each of them back to the system at once and has it cleared again a moment later, which
/// costs a quarter of the step.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep() {
    // SAFETY: `mallopt` takes two integers and only changes the allocator's settings; it is
    // called at the start of `main`, while there is one thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Other systems' allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep() {}

/// The most memory this process has had so far, in bytes, where the system tells.
pub fn peak() -> Option<u64> {
    bytes("/proc/self/status", "VmHWM:")
}

/// The bytes that a line of one of the kernel's files gives in kibibytes.
fn bytes(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes that training takes on each of so many devices, roughly: weights, gradients, moments and average;
/// and what backpropagation keeps, some 20 values for each token and channel of each block, or 6
/// where most of them are computed again.
pub fn of_training(config: &TrainConfig, workers: usize) -> u64 {
    let network = shape_of(&config.model);
    let share = config.batch / workers.max(1);
    let at_a_time = config.micro_batch.map_or(share, |size| size.min(share));
    let features: usize =
        network.blocks().iter().map(|block| block.side * block.side * block.channels).sum();
    let bytes = match config.precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    };
    let kept = if config.gradient_checkpointing { 6 } else { 20 };
    (4 * 5 * network.parameter_count() + bytes * kept * at_a_time * features) as u64
}

/// Checks that what training on the CPU takes is there, where these are some of so many devices. A
/// GPU is not asked.
///
/// # Errors
///
/// If it is not, with what to lower.
pub fn check(config: &TrainConfig, devices: &[Device], workers: usize) -> anyhow::Result<()> {
    let on_cpu = devices.iter().all(|device| *device == Device::flex());
    let Some(there) = available().filter(|_| on_cpu) else { return Ok(()) };
    let needed = of_training(config, workers) * devices.len() as u64;
    let at_a_time = config.micro_batch.unwrap_or(config.batch);
    ensure!(
        needed <= there,
        "training takes about {} MB and {} MB are left: a --micro-batch below {at_a_time} takes less \
         and computes the same; so does a smaller --batch, which trains differently",
        needed / 1_000_000,
        there / 1_000_000
    );
    Ok(())
}

/// Bytes that this process can still have, where the system tells: what is free in the machine or,
/// if that is less, what is left of the process's limit.
fn available() -> Option<u64> {
    let free = bytes("/proc/meminfo", "MemAvailable:")?;
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let Some(limit) = limit.split_whitespace().next()?.parse::<u64>().ok() else {
        return Some(free);
    };
    let used = bytes("/proc/self/status", "VmSize:")?;
    Some(free.min(limit.saturating_sub(used)))
}

/// Adds advice to the message of a panic that comes of a device without memory left: it is deep
/// inside a driver's binding that this is found out.
pub fn advise() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() == Some(nodes::THREAD) {
            return;
        }
        usual(info);
        if runs_out(&info.to_string()) {
            warn(
                "the device has no memory left. A smaller --micro-batch, --gradient-checkpointing and \
                 --precision bf16 take less; --resume goes on from the last checkpoint, which is whole",
            );
        }
    }));
}

fn runs_out(message: &str) -> bool {
    let message = message.to_lowercase();
    ["out of memory", "out_of_memory", "outofmemory"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_memory_is_recognised() {
        assert!(runs_out("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
        assert!(runs_out("called `Result::unwrap()` on an `Err` value: OutOfMemory"));
        assert!(!runs_out("index out of bounds"));
    }

    #[test]
    fn less_is_needed_where_less_is_kept() {
        let whole = TrainConfig::preset("cifar10").expect("a preset");
        let needs = |change: fn(&mut TrainConfig)| {
            let mut config = whole.clone();
            change(&mut config);
            of_training(&config, 1)
        };
        let all = of_training(&whole, 1);
        assert!(needs(|c| c.micro_batch = Some(64)) < all / 4);
        assert!(needs(|c| c.gradient_checkpointing = true) < all / 2);
        assert!(needs(|c| c.precision = Precision::Bf16) < all * 3 / 4);
        assert!(of_training(&whole, 8) < all / 4);
    }
}
