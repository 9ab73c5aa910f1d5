//! One clock for all threads, and the wait of an entity that does something in every poll.

use std::future::poll_fn;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Instant;

/// Nanoseconds since the first call. A shard's own clock stands still during a poll, which is too
/// coarse for the latency of a message.
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Ends in the next poll of the shard. An entity that told itself a message instead would fill the
/// poll with turns of its own, and keep what is on its way to other shards until then.
pub(crate) async fn next_poll() {
    let mut waited = false;
    poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Times at which something is due, evenly spaced, whatever becomes of what was due before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) per_second: f64,
}

impl Pace {
    /// How many are due by now, of all that ever will be.
    pub(crate) fn due(&self, now_ns: u64) -> u64 {
        let passed_ns = now_ns.min(self.end_ns).saturating_sub(self.begin_ns);
        (passed_ns as f64 * self.per_second / 1e9) as u64
    }

    /// When the one with this number, from 0, is due.
    pub(crate) fn due_ns(&self, number: u64) -> u64 {
        self.begin_ns + ((number + 1) as f64 * 1e9 / self.per_second) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_due_as_have_had_their_time() {
        let pace = Pace { begin_ns: 1_000, end_ns: 2_001_000, per_second: 1e6 };
        assert_eq!(pace.due(0), 0);
        assert_eq!(pace.due(1_500), 0);
        assert_eq!(pace.due(pace.due_ns(0)), 1);
        assert_eq!(pace.due(pace.due_ns(99)), 100);
        assert_eq!(pace.due(u64::MAX), 2_000, "none is due behind the end");
    }
}
