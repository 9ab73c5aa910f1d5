//! The clocks that a driver reads for its shard.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use coreside_shard::Now;

/// Nanoseconds since the process first asked, for what is timed on one thread.
pub(crate) fn stopwatch_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Two clocks for the price of one: the wall clock is read now and then, and carried on by the
/// monotonic one in between.
pub(crate) struct Clock {
    start: Instant,
    /// Milliseconds since 1970 at `start`, as of the last look.
    unix_ms_at_start: u64,
    next_look_ns: u64,
}

/// How often the wall clock is read: a step of it is followed within this time.
const LOOK_NS: u64 = 10_000_000;

impl Clock {
    /// A clock that counts from `start`, which all shards of a node share: deadlines travel.
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, unix_ms_at_start: 0, next_look_ns: 0 }
    }

    /// Nanoseconds since the start.
    ///
    /// # Cost
    /// About 25 ns: no system call.
    pub(crate) fn monotonic_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(crate) fn now(&mut self) -> Now {
        let monotonic_ns = self.monotonic_ns();
        if monotonic_ns >= self.next_look_ns {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.unix_ms_at_start =
                (since_1970.as_millis() as u64).saturating_sub(monotonic_ns / 1_000_000);
            self.next_look_ns = monotonic_ns + LOOK_NS;
        }
        Now { monotonic_ns, unix_ms: self.unix_ms_at_start + monotonic_ns / 1_000_000 }
    }
}
