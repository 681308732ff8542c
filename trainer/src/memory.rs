//! Memory of this process.

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
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
