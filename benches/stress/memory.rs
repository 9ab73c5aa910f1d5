//! What the kernel says about the memory of this process.

use std::fs;

/// Memory at one time, and what it has grown by since.
pub(crate) struct Memory {
    resident_bytes: u64,
    most_bytes: u64,
    /// Whether the kernel began its peak anew, so that it is the peak of this measurement.
    is_peak_known: bool,
}

/// Growth in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Of what is resident now, or was when it was looked at.
    pub(crate) resident_bytes: u64,
    /// Of the kernel's own peak (VmHWM); `None` where it could not be set back.
    pub(crate) peak_bytes: Option<u64>,
}

impl Memory {
    /// Begins a measurement.
    pub(crate) fn begin() -> Self {
        // 5 sets the peak back to what is resident (man 5 proc).
        let is_peak_known = fs::write("/proc/self/clear_refs", "5").is_ok();
        let resident_bytes = status_bytes("VmRSS:");
        Self { resident_bytes, most_bytes: resident_bytes, is_peak_known }
    }

    /// Looks at what is resident now.
    pub(crate) fn look(&mut self) {
        self.most_bytes = self.most_bytes.max(status_bytes("VmRSS:"));
    }

    /// What it has grown by at most.
    pub(crate) fn growth(&self) -> Growth {
        let beyond = |bytes: u64| bytes.saturating_sub(self.resident_bytes);
        Growth {
            resident_bytes: beyond(self.most_bytes),
            peak_bytes: self.is_peak_known.then(|| beyond(status_bytes("VmHWM:"))),
        }
    }
}

fn status_bytes(name: &str) -> u64 {
    parse(&fs::read_to_string("/proc/self/status").unwrap_or_default(), name).unwrap_or(0)
}

/// The value of a line such as `VmRSS:   1234 kB`, in bytes.
fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_status_are_read_in_bytes() {
        let status = "Name:\tstress\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(parse(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(parse(status, "VmSwap:"), None);
        assert!(status_bytes("VmRSS:") > 0, "the kernel has such a line");
    }
}
