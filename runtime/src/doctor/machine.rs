//! What the machine lets this process use.

#![expect(unsafe_code, reason = "limits are asked for with system calls")]

use std::fmt::Write as _;

use super::Finding;
use super::kernel::read;
use crate::topology::Topology;

/// Bytes that a node on io_uring may lock, at the least.
const LOCKED_BYTES_MIN: u64 = 512 << 10;

/// Descriptors below which a node turns clients away that it has room for.
const FILES_MIN: u64 = 10_000;

pub(super) fn findings() -> Vec<Finding> {
    let topology = Topology::read();
    vec![
        cores(&topology),
        siblings(&topology),
        quota(&topology),
        huge_pages(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
        locked(limit(libc::RLIMIT_MEMLOCK)),
        files(limit(libc::RLIMIT_NOFILE)),
        clock(&read("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
    ]
}

fn cores(topology: &Topology) -> Finding {
    let (cores, shards) = (list(&topology.cores), topology.shards());
    Finding::good("cores", format!("may use {cores}; a node has {shards} shards on them"))
}

/// Threads of one core take each other's time.
fn siblings(topology: &Topology) -> Finding {
    let shared: Vec<String> = groups(topology, |core| {
        read(&format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"))
    });
    if shared.is_empty() {
        return Finding::good("siblings", "no two of them are threads of one core");
    }
    Finding::warning(
        "siblings",
        format!("threads of one core: {}", shared.join(", ")),
        "where latency counts, pin the shards to one thread of each: --cores",
    )
}

/// Lists of siblings of which this process may use more than one.
fn groups(topology: &Topology, siblings: impl Fn(usize) -> String) -> Vec<String> {
    let mut lists: Vec<String> = topology.cores.iter().map(|core| siblings(*core)).collect();
    lists.retain(|list| !list.is_empty());
    lists.sort();
    lists
        .chunk_by(|one, next| one == next)
        .filter(|same| same.len() > 1)
        .map(|same| same[0].clone())
        .collect()
}

fn quota(topology: &Topology) -> Finding {
    match topology.quota {
        None => Finding::good("quota", "no limit on processor time"),
        Some(quota) => Finding::warning(
            "quota",
            format!("the cgroup grants {quota:.2} cores of time; shards are not pinned"),
            "a shard that is throttled stands still with all that it owns: give whole cores \
             (cpuset) instead",
        ),
    }
}

/// `always [madvise] never`.
fn huge_pages(text: &str) -> Finding {
    match text.split(['[', ']']).nth(1) {
        Some(mode @ ("always" | "madvise")) => {
            Finding::good("huge pages", format!("{mode}: large stores use them"))
        }
        mode => Finding::warning(
            "huge pages",
            mode.unwrap_or("the kernel has none").to_owned(),
            "with millions of entities they save time: echo madvise > \
             /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    }
}

fn locked(limit: Option<u64>) -> Finding {
    match limit {
        Some(bytes) if bytes < LOCKED_BYTES_MIN => Finding::warning(
            "locked memory",
            format!("{} KiB", bytes >> 10),
            "io_uring needs 512 KiB: `ulimit -l 1024`, LimitMEMLOCK=1M, docker run --ulimit \
             memlock=1048576",
        ),
        Some(bytes) => Finding::good("locked memory", format!("{} KiB", bytes >> 10)),
        None => Finding::good("locked memory", "no limit"),
    }
}

fn files(limit: Option<u64>) -> Finding {
    match limit {
        Some(count) if count < FILES_MIN => Finding::warning(
            "open files",
            format!("{count}: no more clients than that"),
            "`ulimit -n 65536`, LimitNOFILE=65536, docker run --ulimit nofile=65536",
        ),
        Some(count) => Finding::good("open files", count.to_string()),
        None => Finding::good("open files", "no limit"),
    }
}

/// Clocks that are read without a system call have their names here.
fn clock(source: &str) -> Finding {
    match source {
        "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter" | "" => {
            let source = if source.is_empty() { "the kernel does not say which" } else { source };
            Finding::good("clock", source)
        }
        slow => Finding::warning(
            "clock",
            format!("{slow}: reading the time is a system call, once per pass and shard"),
            "see whether the kernel has turned tsc down (`dmesg | grep -i tsc`), and boot with \
             clocksource=tsc where it is known to be good",
        ),
    }
}

/// The soft limit; `None` where there is none.
fn limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: writes the limit, which lives through the call.
    let outcome = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (outcome == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// `0-3,8`.
fn list(cores: &[usize]) -> String {
    let mut text = String::new();
    for run in cores.chunk_by(|one, next| one + 1 == *next) {
        let comma = if text.is_empty() { "" } else { "," };
        let (first, last) = (run[0], run[run.len() - 1]);
        // Writing to a string succeeds.
        let _ = if first == last {
            write!(text, "{comma}{first}")
        } else {
            write!(text, "{comma}{first}-{last}")
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn cores_are_listed_as_the_kernel_does() {
        assert_eq!(list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(list(&[3]), "3");
        assert_eq!(list(&[]), "");
    }

    #[test]
    fn siblings_are_those_that_this_process_may_use_both_of() {
        let topology =
            |cores: &[usize]| Topology { cores: cores.to_vec(), quota: None, cache_bytes: 1 << 20 };
        let pairs = |core: usize| format!("{},{}", core % 2, core % 2 + 2);
        assert_eq!(groups(&topology(&[0, 1, 2, 3]), pairs), ["0,2", "1,3"]);
        assert_eq!(groups(&topology(&[0, 1, 2]), pairs), ["0,2"]);
        assert!(groups(&topology(&[0, 1]), pairs).is_empty());
        assert!(groups(&topology(&[0, 1]), |_| String::new()).is_empty());
    }

    #[test]
    fn what_costs_something_is_a_warning() {
        let verdict = |finding: Finding| finding.verdict;
        assert_eq!(verdict(huge_pages("always [madvise] never")), Verdict::Good);
        assert_eq!(verdict(huge_pages("always madvise [never]")), Verdict::Warning);
        assert_eq!(verdict(huge_pages("")), Verdict::Warning);
        assert_eq!(verdict(locked(Some(64 << 10))), Verdict::Warning);
        assert_eq!(verdict(locked(Some(8 << 20))), Verdict::Good);
        assert_eq!(verdict(locked(None)), Verdict::Good);
        assert_eq!(verdict(files(Some(1024))), Verdict::Warning);
        assert_eq!(verdict(clock("tsc")), Verdict::Good);
        assert_eq!(verdict(clock("hpet")), Verdict::Warning);
    }
}
