//! How late the load's own loop sees a timer: what of a latency is the machine's or the
//! generator's, not the target's.
//!
//! A tick is due every millisecond, and each pass of the loop looks whether one is over. A pass is
//! late when the kernel ran something else here, when a virtual machine was not run at all, or
//! when the loop was busy with what had come. Replies waited for it as long, so it is in their
//! latencies. Ticks that are missed together count one by one, each from when it was due.

use hdrhistogram::Histogram;

/// Time between two ticks.
const INTERVAL_NS: u64 = 1_000_000;

/// The next tick of one loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    due_ns: u64,
}

impl Meter {
    pub(crate) fn start(now_ns: u64) -> Self {
        Self { due_ns: now_ns + INTERVAL_NS }
    }

    /// When the loop has to look again: a sleep should end then.
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Notes in `late` how late the ticks are seen that are over by now.
    #[inline]
    pub(crate) fn look(&mut self, now_ns: u64, late: &mut Histogram<u64>) {
        while self.due_ns <= now_ns {
            late.saturating_record(now_ns - self.due_ns);
            self.due_ns += INTERVAL_NS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tally;

    #[test]
    fn every_tick_of_a_long_hiccup_counts() {
        let mut late = Tally::new().hiccups;
        let mut meter = Meter::start(0);
        meter.look(INTERVAL_NS - 1, &mut late);
        assert_eq!((late.len(), meter.due_ns()), (0, INTERVAL_NS));
        meter.look(INTERVAL_NS, &mut late);
        assert_eq!((late.len(), late.max()), (1, 0));
        // Ten milliseconds in which the loop did not run.
        meter.look(11 * INTERVAL_NS, &mut late);
        assert_eq!((late.len(), meter.due_ns()), (11, 12 * INTERVAL_NS));
        assert!(late.max().abs_diff(9 * INTERVAL_NS) < INTERVAL_NS / 100);
    }
}
