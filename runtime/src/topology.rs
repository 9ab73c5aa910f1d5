//! What the machine lets this process use: cores, quota, cache.
//!
//! The kernel's affinity mask says *which* cores; a cgroup's CPU quota says *how much* of them. A
//! thread that is pinned and then throttled stands still with everything it owns, while a floating
//! one is moved to where there is time left; so under a quota shards are not pinned.
#![expect(unsafe_code, reason = "the affinity mask is a system call's")]

use std::fs;
use std::path::Path;

/// What this process may use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Topology {
    /// Numbers of the cores in the affinity mask, ascending.
    pub(crate) cores: Vec<usize>,
    /// Cores' worth of time that the cgroup grants, if it limits it.
    pub(crate) quota: Option<f64>,
    /// Bytes of second-level cache per core.
    pub(crate) cache_bytes: usize,
}

impl Topology {
    /// Asks the kernel.
    pub(crate) fn read() -> Self {
        Self { cores: allowed_cores(), quota: cpu_quota(), cache_bytes: cache_bytes() }
    }

    /// How many shards run well here: one per allowed core, no more than the quota pays for.
    pub(crate) fn shards(&self) -> usize {
        let cores = self.cores.len().max(1);
        match self.quota {
            Some(quota) => cores.min((quota as usize).max(1)),
            None => cores,
        }
    }
}

fn allowed_cores() -> Vec<usize> {
    // SAFETY: a set of bits, for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes at most the given size into the set.
    let outcome = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if outcome != 0 {
        return vec![];
    }
    // SAFETY: reads a bit of the set, below its size.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// The tightest quota from this process's cgroup up to the root.
fn cpu_quota() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let quotas = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if controllers.is_empty() {
            tightest("/sys/fs/cgroup", path, |folder| {
                parse_v2(&fs::read_to_string(folder.join("cpu.max")).ok()?)
            })
        } else if controllers.split(',').any(|name| name == "cpu") {
            tightest("/sys/fs/cgroup/cpu", path, |folder| {
                parse_v1(
                    &fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?,
                    &fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?,
                )
            })
        } else {
            None
        }
    });
    quotas.min_by(f64::total_cmp)
}

/// The smallest of what `read` finds in the group's folder and those above it.
fn tightest(root: &str, path: &str, read: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    let root = Path::new(root);
    let group = root.join(path.trim_start_matches('/'));
    let folders = group.ancestors().take_while(|folder| folder.starts_with(root));
    folders.filter_map(read).min_by(f64::total_cmp)
}

/// `max 100000` or `150000 100000`: microseconds of time per period.
fn parse_v2(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// A quota of -1 is none.
fn parse_v1(quota: &str, period: &str) -> Option<f64> {
    parse_v2(&format!("{} {}", quota.trim(), period.trim()))
}

fn cache_bytes() -> usize {
    const USUAL: usize = 1 << 20;
    let text = fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size");
    text.ok().and_then(|text| parse_size(text.trim())).unwrap_or(USUAL)
}

/// `512K`, `2M` or plain bytes.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_read_in_both_forms() {
        assert_eq!(parse_v2("150000 100000\n"), Some(1.5));
        assert_eq!(parse_v2("max 100000\n"), None);
        assert_eq!(parse_v1("-1\n", "100000\n"), None);
        assert_eq!(parse_v1("200000\n", "100000\n"), Some(2.0));
        assert_eq!(parse_v2(""), None);
    }

    #[test]
    fn cache_size_is_read_with_its_unit() {
        assert_eq!(parse_size("512K"), Some(512 << 10));
        assert_eq!(parse_size("2M"), Some(2 << 20));
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("much"), None);
    }

    #[test]
    fn quota_limits_the_number_of_shards() {
        let topology =
            |quota| Topology { cores: vec![0, 1, 4, 5], quota, cache_bytes: 1 << 20 }.shards();
        assert_eq!(topology(None), 4);
        assert_eq!(topology(Some(2.5)), 2);
        assert_eq!(topology(Some(0.5)), 1);
        assert_eq!(topology(Some(9.0)), 4);
    }

    #[test]
    fn this_machine_has_a_core() {
        let topology = Topology::read();
        assert!(!topology.cores.is_empty() && topology.shards() >= 1, "{topology:?}");
    }
}
