//! The cores that this process may use, and the time that it had on them.

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

/// Time on a core that this thread had, so that other programs on the machine count for less.
pub fn thread_time_ns() -> f64 {
    time_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Time on cores that all threads of this process had.
pub fn process_time_ns() -> f64 {
    time_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn time_ns(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time into the place that it is given.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
