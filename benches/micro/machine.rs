//! The machine that a figure was measured on, and where its threads run.
#![expect(unsafe_code, reason = "affinity is a system call")]

use std::fs;
use std::sync::OnceLock;

/// One line that every report begins with.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let cores = cores();
    format!("{model}, {} cores, Linux {}, load {load}", cores.len(), kernel.trim())
}

/// The cores that this process may use, as it found them.
pub(crate) fn cores() -> Vec<usize> {
    // Asked once: the thread that asks is pinned to one of them soon.
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(allowed_cores).clone()
}

fn allowed_cores() -> Vec<usize> {
    // SAFETY: a set of bits, for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes at most the given size into the set.
    unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: reads a bit of the set, below its size.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Pins the calling thread to the core at `place` among `cores`, as far as there are so many.
pub(crate) fn pin(cores: &[usize], place: usize) {
    let Some(core) = cores.get(place % cores.len().max(1)) else { return };
    // SAFETY: as in `cores`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sets a bit of the set; the core came from such a set.
    unsafe { libc::CPU_SET(*core, &mut set) };
    // SAFETY: reads the set.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// Bytes of memory that the process occupies, without what the allocator keeps: that of an
/// earlier row would be taken for nothing.
pub(crate) fn resident_bytes() -> u64 {
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free memory back, and touches none that is used.
    unsafe {
        libc::malloc_trim(0);
    }
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * 4096
}
