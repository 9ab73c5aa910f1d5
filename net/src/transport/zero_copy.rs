//! When outputs are sent without a copy, and what has come of it.
//!
//! A send without a copy has two ends: the kernel takes the bytes, and, when the peer has confirmed
//! them, gives notice that it reads them no more. What that saves is a copy; what it costs is the
//! notice and the holding of pages, so it pays for large outputs only, and not where the kernel
//! copies all the same: over loopback it always does, and says so in the notice.

/// Which outputs are sent without a copy, where the kernel has that (io_uring, Linux 6.0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// None.
    #[default]
    Never,
    /// Those of at least so many bytes; to a peer on whose way the kernel copies all the same, only
    /// the first.
    From(u32),
    /// Those of at least so many bytes, even if the kernel copies all the same. For measurements
    /// and tests.
    AlwaysFrom(u32),
}

/// How outputs were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendStats {
    /// Sends that were copied.
    pub plain: u64,
    /// Sends without a copy.
    pub zero_copy: u64,
    /// Of those, how many from memory of which the kernel keeps the pages.
    pub registered: u64,
    /// Of those without a copy, how many the kernel is done with.
    pub notices: u64,
    /// Of those in turn, how many it has copied all the same.
    pub copied: u64,
    /// The error with which the kernel refused to send without a copy; it is not asked any more.
    pub refusal: Option<i32>,
}

/// What a ring sends without a copy, and how much it has sent.
#[derive(Debug, Default)]
pub(super) struct Sends {
    config: ZeroCopy,
    pub(super) stats: SendStats,
}

impl Sends {
    /// Has outputs sent as `config` says.
    pub(super) fn configure(&mut self, config: ZeroCopy) {
        self.config = config;
    }

    /// Outputs of so many bytes are sent without a copy.
    #[inline]
    pub(super) fn zero_copy_min_bytes(&self) -> usize {
        match self.config {
            ZeroCopy::Never => usize::MAX,
            ZeroCopy::From(bytes) | ZeroCopy::AlwaysFrom(bytes) => bytes.max(1) as usize,
        }
    }

    /// Takes a notice. Returns whether sends without a copy do not pay on this way.
    pub(super) fn noticed(&mut self, result: i32) -> bool {
        // The bits of the result are flags here.
        const COPIED: u32 = 1 << 31;
        let is_copied = result as u32 & COPIED != 0;
        self.stats.notices += 1;
        self.stats.copied += u64::from(is_copied);
        is_copied && !matches!(self.config, ZeroCopy::AlwaysFrom(_))
    }

    /// Takes the error of a send without a copy. Returns whether it is to be sent as usual instead,
    /// as everything is from then on.
    pub(super) fn failed(&mut self, error: i32) -> bool {
        let is_refusal = matches!(
            error,
            libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM | libc::ENOBUFS | libc::EFAULT
        );
        if is_refusal {
            self.refuse(error);
        }
        is_refusal
    }

    /// The kernel does not do it, for this reason.
    pub(super) fn refuse(&mut self, error: i32) {
        self.config = ZeroCopy::Never;
        self.stats.refusal.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_for_good_and_other_errors_are_the_peers() {
        let mut sends = Sends::default();
        sends.configure(ZeroCopy::From(1 << 16));
        assert_eq!(sends.zero_copy_min_bytes(), 1 << 16);
        assert!(!sends.failed(libc::ECONNRESET) && !sends.failed(libc::EPIPE));
        assert_eq!(sends.zero_copy_min_bytes(), 1 << 16);
        assert!(sends.failed(libc::ENOMEM));
        assert!(sends.failed(libc::EINVAL), "one that was under way");
        assert_eq!(sends.zero_copy_min_bytes(), usize::MAX);
        assert_eq!(sends.stats.refusal, Some(libc::ENOMEM), "the first says why");
    }

    #[test]
    fn what_is_copied_all_the_same_does_not_pay_unless_it_is_forced() {
        for (config, does_not_pay) in [(ZeroCopy::From(1), true), (ZeroCopy::AlwaysFrom(1), false)]
        {
            let mut sends = Sends::default();
            sends.configure(config);
            assert!(!sends.noticed(0));
            assert_eq!(sends.noticed(i32::MIN), does_not_pay);
            assert_eq!((sends.stats.notices, sends.stats.copied), (2, 1));
        }
    }
}
