//! Memory of this process, and estimates for training.

use anyhow::bail;
use burn::tensor::Device;
use model::weights::shape_of;

use crate::config::{Precision, TrainConfig};
use crate::learner::nodes;
use crate::run::report::warn;

/// Configures the allocator to keep freed memory.
///
/// A training step allocates and frees the same large blocks again and again. By default, glibc
/// returns each to the system, which must clear it before the next use. This takes a quarter of the
/// step.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn keep_freed_memory() {
    // SAFETY: `mallopt` takes two integers and changes settings of the allocator only. It is called
    // at the start of `main`, while there is a single thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Does nothing with other allocators.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() {}

/// Returns the peak memory of this process in bytes, if the system reports it.
pub fn peak() -> Option<u64> {
    bytes("/proc/self/status", "VmHWM:")
}

/// Returns a field in kibibytes of a file of the kernel, in bytes.
fn bytes(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Maximum memory for the images of a dataset in bytes, where the system does not report how much is
/// available.
const FOR_IMAGES: u64 = 4 << 30;

/// Returns the memory for the images of a dataset in bytes, unless another is asked for: half of what
/// is available.
pub fn for_images() -> u64 {
    available().map_or(FOR_IMAGES, |free| free / 2)
}

/// Estimates the memory of training in bytes on each of `workers` devices: weights, gradients,
/// moments and moving averages; those of a checkpoint that is being written, as measured; and about 20
/// activations per token and channel of each block, or 6 with gradient checkpointing.
pub fn estimate(config: &TrainConfig, workers: usize) -> u64 {
    let network = shape_of(&config.model);
    let share = config.batch / workers.max(1);
    let micro_batch = config.micro_batch.map_or(share, |size| size.min(share));
    let features: usize =
        network.blocks().iter().map(|block| block.side * block.side * block.channels).sum();
    let bytes = match config.precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    };
    let activations = if config.gradient_checkpointing { 6 } else { 20 };
    let averages = config.profile_stds().len();
    let copies = (5 + averages) + (5 + averages);
    let parameters = (4 * copies * network.parameter_count()) as u64;
    // Options at their limits ask for more bytes than can be counted.
    let activations = ((bytes * activations * features) as u64).saturating_mul(micro_batch as u64);
    parameters.saturating_add(activations)
}

/// A micro-batch that was chosen because the whole batch does not fit into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Number of images.
    pub size: usize,
    /// Estimated memory of training with the micro-batch that the recipe has, in bytes.
    pub needed: u64,
    /// Available memory in bytes.
    pub free: u64,
}

/// Checks that the available memory suffices for training on the CPU. `devices` are those of this
/// machine, `workers` is the number on all machines, and `reserved` is the memory in bytes that the
/// process will take for other things. Returns the largest micro-batch that fits if
/// the whole batch does not and the recipe has no micro-batch. GPUs are not checked.
///
/// # Errors
///
/// If the memory does not suffice.
pub fn check(
    config: &TrainConfig,
    devices: &[Device],
    workers: usize,
    reserved: u64,
) -> anyhow::Result<Option<Chosen>> {
    let on_cpu = devices.iter().all(|device| *device == Device::flex());
    let Some(free) = available().filter(|_| on_cpu) else { return Ok(None) };
    choose(config, devices.len(), workers, free.saturating_sub(reserved))
}

/// Chooses the micro-batch for `free` bytes of memory, as [`check`] does.
fn choose(
    config: &TrainConfig,
    devices: usize,
    workers: usize,
    free: u64,
) -> anyhow::Result<Option<Chosen>> {
    let takes = |config: &TrainConfig| estimate(config, workers).saturating_mul(devices as u64);
    let needed = takes(config);
    if needed <= free {
        return Ok(None);
    }
    let [needed_mb, free_mb] = [needed, free].map(|bytes| bytes / 1_000_000);
    let sizes = "training takes about";
    if let Some(size) = config.micro_batch {
        bail!(
            "{sizes} {needed_mb} MB, but only {free_mb} MB are available: use --micro-batch auto, or \
             one below {size}, which computes the same, or a smaller --batch, which does not"
        );
    }
    let share = config.batch / workers.max(1);
    let fits = |size: &usize| {
        let with = TrainConfig { micro_batch: Some(*size), ..config.clone() };
        share.is_multiple_of(*size) && takes(&with) <= free
    };
    let Some(size) = (1..share).rev().find(fits) else {
        let with = TrainConfig { micro_batch: Some(1), ..config.clone() };
        bail!(
            "{sizes} {} MB even with --micro-batch 1, but only {free_mb} MB are available: use \
             --gradient-checkpointing, or a smaller model",
            takes(&with) / 1_000_000
        );
    };
    Ok(Some(Chosen { size, needed, free }))
}

/// Returns the available memory in bytes, if the system reports it: the free memory of the machine,
/// or the rest of the process's limit if that is less.
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

/// Installs a panic hook that explains how to use less memory. Drivers panic when a device runs out
/// of memory.
pub fn explain_out_of_memory() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() == Some(nodes::THREAD_NAME) {
            return;
        }
        default_hook(info);
        if is_out_of_memory(&info.to_string()) {
            warn(
                "the device is out of memory. A smaller --micro-batch, --gradient-checkpointing and \
                 --precision bf16 take less memory; --resume continues from the last checkpoint",
            );
        }
    }));
}

fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    ["out of memory", "out_of_memory", "outofmemory"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::NetworkConfig;

    #[test]
    fn out_of_memory_errors_are_recognised() {
        assert!(is_out_of_memory("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
        assert!(is_out_of_memory("called `Result::unwrap()` on an `Err` value: OutOfMemory"));
        assert!(!is_out_of_memory("index out of bounds"));
    }

    #[test]
    fn the_largest_micro_batch_that_fits_is_chosen() {
        let config = TrainConfig::preset("cifar10").expect("a preset");
        let with = |micro_batch| TrainConfig { micro_batch, ..config.clone() };
        let takes = |size, workers| estimate(&with(Some(size)), workers);
        let chosen = |config: &TrainConfig, workers: usize, free| {
            choose(config, 1, workers, free).map(|chosen| chosen.map(|chosen| chosen.size))
        };
        // Enough for the whole batch: nothing is changed.
        assert_eq!(chosen(&config, 1, takes(512, 1)).expect("it fits"), None);
        for size in [256, 64, 1] {
            for free in [takes(size, 1), takes(2 * size, 1) - 1] {
                assert_eq!(chosen(&config, 1, free).expect("it fits"), Some(size));
            }
        }
        // On each of four devices, a micro-batch is at most a quarter of the batch.
        assert_eq!(chosen(&config, 4, takes(512, 4) - 1).expect("it fits"), Some(64));
        let error = chosen(&config, 1, takes(1, 1) - 1).expect_err("too little").to_string();
        assert!(error.contains("even with --micro-batch 1"), "{error}");
        // A micro-batch that was asked for is not replaced.
        let error = chosen(&with(Some(128)), 1, takes(64, 1)).expect_err("too little").to_string();
        assert!(error.contains("use --micro-batch auto, or one below 128"), "{error}");
        // Not a power of two: the divisors are 1, 3, 5 and 15.
        let odd = TrainConfig { batch: 15, ..config.clone() };
        let free = estimate(&TrainConfig { micro_batch: Some(5), ..odd.clone() }, 1);
        assert_eq!(chosen(&odd, 1, free + 1).expect("it fits"), Some(5));
    }

    #[test]
    fn options_at_their_limits_take_too_much_memory() {
        let mut config = TrainConfig::preset("tiny").expect("a preset");
        let NetworkConfig::Image(image) = &mut config.model.network else { unreachable!() };
        (image.resolution, image.channels, image.blocks) = (4_096, vec![16_384], vec![64]);
        config.batch = 65_536;
        assert_eq!(estimate(&config, 1), u64::MAX);
        let error = choose(&config, 2, 1, 1 << 40).expect_err("too little").to_string();
        assert!(error.contains("even with --micro-batch 1"), "{error}");
    }

    #[test]
    fn options_that_save_memory_lower_the_estimate() {
        let whole = TrainConfig::preset("cifar10").expect("a preset");
        let needs = |change: fn(&mut TrainConfig)| {
            let mut config = whole.clone();
            change(&mut config);
            estimate(&config, 1)
        };
        let all = estimate(&whole, 1);
        assert!(needs(|c| c.micro_batch = Some(64)) < all / 4);
        assert!(needs(|c| c.gradient_checkpointing = true) < all / 2);
        assert!(needs(|c| c.precision = Precision::Bf16) < all * 3 / 4);
        assert!(estimate(&whole, 8) < all / 4);
    }
}
