//! Processor lists and pinning.

#![expect(unsafe_code, reason = "affinity and limits are set by system calls")]

use std::io;
use std::mem::MaybeUninit;

/// Parses a list as the kernel writes it: `1`, `0-3`, `1,4-6`.
pub(crate) fn parse_list(text: &str) -> Result<Vec<usize>, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim().parse::<usize>().map_err(|_| format!("'{part}' is not a core or a range"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("the range '{part}' runs backwards"));
        }
        if last >= CORES_MAX {
            return Err(format!("core {last} is beyond the {CORES_MAX} that a mask can hold"));
        }
        cores.extend(first..=last);
    }
    Ok(cores)
}

const CORES_MAX: usize = libc::CPU_SETSIZE as usize;

/// Confines the calling thread to `cores`.
///
/// # Errors
/// When none of them exists or is allowed here.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a processor mask is plain bits, for which zeros are valid.
    let mut mask: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    for &core in cores {
        // SAFETY: `parse_list` admits no core beyond the mask, and the library checks it again.
        unsafe { libc::CPU_SET(core, &mut mask) };
    }
    // SAFETY: the mask is initialised and its size is its own.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &mask) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the number of open files to what is allowed, so that it does not limit connections early.
///
/// A refusal is no error: connecting will report the limit if it is ever reached.
pub(crate) fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes the structure it is given.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if known == 0 && limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the call reads the structure it is given.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_understood() {
        assert_eq!(parse_list("1"), Ok(vec![1]));
        assert_eq!(parse_list("1,3-5"), Ok(vec![1, 3, 4, 5]));
        assert_eq!(parse_list("0-0, 2"), Ok(vec![0, 2]));
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["", "a", "3-1", "1,", "-1", "1-", "99999"] {
            assert!(parse_list(text).is_err(), "{text}");
        }
    }
}
