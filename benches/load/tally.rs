//! What one load thread has measured, and the sum of all.

use hdrhistogram::Histogram;

use crate::errors::ErrorLog;

/// Longer latencies are recorded as this.
pub(crate) const LATENCY_NS_MAX: u64 = 60_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Measurements of one thread, or of all after [`Self::merge`].
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Latencies in nanoseconds of the requests that fell due in the window.
    pub(crate) latency: Histogram<u64>,
    /// How late, in nanoseconds, the loop saw each millisecond of the window go by.
    pub(crate) hiccups: Histogram<u64>,
    /// Error replies since the connections were made, outside the window too.
    pub(crate) errors: ErrorLog,
    /// Replies that came inside the window.
    pub(crate) replies: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    /// Length of the window.
    pub(crate) window_ns: u64,
    /// Requests that fell due in the window (open loop only).
    pub(crate) due: u64,
    /// Those of them that were never sent because the pipelines stayed full. They are recorded with
    /// the time they had waited when the window closed, which is less than the truth.
    pub(crate) unsent: u64,
    /// Requests sent inside the window that nobody answers.
    pub(crate) told: u64,
    /// Requests that were sent and never answered.
    pub(crate) unanswered: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let times = Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS);
        let times = times.expect("bounds and digits that the histogram admits");
        Self {
            latency: times.clone(),
            hiccups: times,
            errors: ErrorLog::default(),
            replies: 0,
            sent_bytes: 0,
            received_bytes: 0,
            window_ns: 0,
            due: 0,
            unsent: 0,
            told: 0,
            unanswered: 0,
        }
    }

    /// Adds another thread's measurements over the same window.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("histograms of the same bounds");
        self.hiccups.add(&other.hiccups).expect("histograms of the same bounds");
        self.errors.merge(&other.errors);
        self.replies += other.replies;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.window_ns = self.window_ns.max(other.window_ns);
        self.due += other.due;
        self.unsent += other.unsent;
        self.told += other.told;
        self.unanswered += other.unanswered;
    }

    /// Replies per second.
    pub(crate) fn rate(&self) -> f64 {
        self.per_second(self.replies)
    }

    /// Requests that fell due per second (open loop only).
    pub(crate) fn offered_rate(&self) -> f64 {
        self.per_second(self.due)
    }

    pub(crate) fn per_second(&self, count: u64) -> f64 {
        if self.window_ns == 0 { 0.0 } else { count as f64 * 1e9 / self.window_ns as f64 }
    }

    /// Whether an open loop's target fell behind its schedule: more than a thousandth of the
    /// window's requests were left over, or replies came at a rate more than 1 % below it.
    ///
    /// A few requests are always on their way when a window closes.
    pub(crate) fn fell_behind(&self) -> bool {
        self.unsent > self.due / 1_000
            || (self.replies + self.told) as f64 + 1.0 < self.due as f64 * 0.99
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_over_one_window() {
        let mut sum = Tally::new();
        for replies in [100, 200] {
            let mut one = Tally::new();
            one.replies = replies;
            one.window_ns = 1_000_000_000;
            one.latency.record(5_000).expect("in range");
            sum.merge(&one);
        }
        assert_eq!((sum.replies, sum.latency.len()), (300, 2));
        assert!((sum.rate() - 300.0).abs() < 1e-9);
    }

    #[test]
    fn leftovers_and_slow_replies_mean_falling_behind() {
        let mut tally = Tally::new();
        (tally.due, tally.replies) = (1_000, 995);
        assert!(!tally.fell_behind());
        tally.replies = 980;
        assert!(tally.fell_behind());
        (tally.replies, tally.unsent) = (1_000, 1);
        assert!(!tally.fell_behind());
        tally.unsent = 2;
        assert!(tally.fell_behind());
    }
}
