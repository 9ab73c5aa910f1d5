//! The doorbell: how a shard that sleeps is told that a ring has something for it.
//!
//! The race to close: the sleeper looks into its rings, finds nothing, and sleeps; in between
//! somebody publishes. So the sleeper says that it is about to sleep, *then* looks once more; the
//! sender publishes, *then* looks whether the other sleeps. A full fence between the two steps on
//! each side makes at least one of them see the other (Dekker's argument). Who clears the flag must
//! wake: exactly one sender does, however many publish at once.
//!
//! A sender passes here once per poll, a sleeper once per sleep. So where the kernel offers it the
//! sleeper pays for both: its `membarrier` makes every running thread of the process pass a full
//! fence, and the sender's own is one for the compiler only. That takes the wait for the published
//! line out of every poll.
#![cfg_attr(not(any(loom, miri)), expect(unsafe_code, reason = "membarrier is a system call"))]

use crate::sync::{AtomicBool, Ordering, fence};

/// One shard's doorbell: shared with everybody who may publish to it.
#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
    /// Whether the sleeper's fence stands for the senders' too.
    sleeper_fences_all: bool,
}

impl Doorbell {
    /// A doorbell of a shard that is awake.
    pub fn new() -> Self {
        Self { asleep: AtomicBool::new(false), sleeper_fences_all: membarrier::register() }
    }

    /// Says that the shard is about to sleep. It must look at everything that could have work for
    /// it after this call, and sleep only if there is none.
    ///
    /// # Cost
    /// A system call of some microseconds.
    #[inline]
    pub fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        if !(self.sleeper_fences_all && membarrier::fence_all()) {
            fence(Ordering::SeqCst);
        }
    }

    /// Says that the shard is awake, by itself or because it was rung.
    #[inline]
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// After publishing: whether the caller must wake the shard. At most one caller is told so for
    /// each sleep.
    ///
    /// # Cost
    /// A load while the shard is awake, and a fence where there is no `membarrier`.
    #[inline]
    pub fn must_ring(&self) -> bool {
        if self.sleeper_fences_all {
            std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

/// The kernel's fence for all threads of a process.
#[cfg(not(any(loom, miri)))]
mod membarrier {
    /// Asks for it; whether it may be used from now on.
    pub(super) fn register() -> bool {
        call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
    }

    /// Every running thread of the process passes a full fence before this returns. Cannot fail
    /// once registered; whether it did not.
    pub(super) fn fence_all() -> bool {
        let fenced = call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        assert!(fenced, "the kernel took back what it had registered");
        fenced
    }

    fn call(command: libc::c_int) -> bool {
        // SAFETY: takes two numbers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }
}

/// Models have no system calls: both sides fence for themselves.
#[cfg(any(loom, miri))]
mod membarrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn fence_all() -> bool {
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_sender_is_told_to_ring_per_sleep() {
        let bell = Doorbell::new();
        assert!(!bell.must_ring());
        bell.prepare_sleep();
        assert!(bell.must_ring());
        assert!(!bell.must_ring());
        bell.prepare_sleep();
        bell.awake();
        assert!(!bell.must_ring());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::record::{Head, Kind, Word};
    use crate::ring::ring;
    use loom::sync::Arc;

    /// No interleaving lets the shard sleep on a published record that nobody rings for.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let bell = Arc::new(Doorbell::new());
            let (mut producer, mut consumer) = ring(8);
            let sender_bell = Arc::clone(&bell);
            let sender = loom::thread::spawn(move || {
                let record = [Word::new(Head::new(Kind::Tell, 2, 0).bits()), Word::new(7)];
                assert!(producer.push(&record).is_ok());
                producer.publish();
                sender_bell.must_ring()
            });
            bell.prepare_sleep();
            let found = !consumer.is_empty();
            let rung = sender.join().unwrap_or(false);
            assert!(found || rung, "asleep, with a record in the ring and nobody to ring");
        });
    }

    /// Two senders at once: one of them rings, not both.
    #[test]
    fn loom_two_senders_ring_once() {
        loom::model(|| {
            let bell = Arc::new(Doorbell::new());
            bell.prepare_sleep();
            let other = Arc::clone(&bell);
            let sender = loom::thread::spawn(move || other.must_ring());
            let mine = bell.must_ring();
            let theirs = sender.join().unwrap_or(false);
            assert!(mine ^ theirs);
        });
    }
}
