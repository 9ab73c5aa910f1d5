//! The doorbell: how a shard that sleeps is told that a ring has something for it.
//!
//! The race to close: the sleeper looks into its rings, finds nothing, and sleeps; in between
//! somebody publishes. So the sleeper says that it is about to sleep, *then* looks once more; the
//! sender publishes, *then* looks whether the other sleeps. A sequentially consistent fence on each
//! side makes at least one of them see the other (Dekker's argument). Who clears the flag must
//! wake: exactly one sender does, however many publish at once.

use crate::sync::{AtomicBool, Ordering, fence};

/// One shard's doorbell: shared with everybody who may publish to it.
#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
}

impl Doorbell {
    /// A doorbell of a shard that is awake.
    pub fn new() -> Self {
        Self { asleep: AtomicBool::new(false) }
    }

    /// Says that the shard is about to sleep. It must look at everything that could have work for
    /// it after this call, and sleep only if there is none.
    #[inline]
    pub fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
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
    /// One fence and a load while the shard is awake.
    #[inline]
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
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
