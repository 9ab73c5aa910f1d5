//! The cores that this process may use.

use std::sync::OnceLock;

/// In order, as they were at the first call.
pub fn allowed() -> &'static [usize] {
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    CORES.get_or_init(|| {
        // SAFETY: a set of bits, for which all zero is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: writes at most the given size into the set.
        unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
        let all = 0..libc::CPU_SETSIZE as usize;
        // SAFETY: reads a bit of the set, below its size.
        all.filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
    })
}

/// Pins the calling thread to the core at this place among those that the process may use.
pub fn pin(place: usize) {
    let cores = allowed();
    let Some(core) = cores.get(place % cores.len().max(1)) else { return };
    // SAFETY: a set of bits, for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sets a bit of the set; the core came from such a set.
    unsafe { libc::CPU_SET(*core, &mut set) };
    // SAFETY: reads the set.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}
