//! How the shards of a node stop together.
//!
//! A shard may end only when nobody will send to it any more. Each shard that is out of work says
//! so, together with how many words it has ever sent to others and taken from them. When all say
//! so and the two sums are equal, nothing is under way: a record on its way would have been
//! counted as sent and not as taken (Mattern 1987). Whoever sees that first ends the node.
//!
//! A report must not be read while it is out of date. So a shard withdraws its report before it
//! takes anything, and reports again behind the pass; each step raises the report's version, which
//! is odd while the shard is at work. Who adds up reads the versions before and after: all even,
//! and none changed, means that all reports stood at one time.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::node::NodeError;

/// What the shards of a stopping node know of each other.
#[derive(Debug)]
pub(crate) struct Stopping {
    phase: AtomicU8,
    /// How long the drain may take.
    limit: Duration,
    reports: Vec<Report>,
    /// The first of the reasons for which the node cannot go on.
    failure: Mutex<Option<NodeError>>,
}

#[derive(Debug, Default)]
struct Report {
    /// Odd while the report is withdrawn.
    version: AtomicU64,
    idle: AtomicBool,
    sent: AtomicU64,
    taken: AtomicU64,
}

/// How far the stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serve.
    Running,
    /// Take nothing new, finish what is under way.
    Draining,
    /// End now.
    Stopped,
}

impl Stopping {
    pub(crate) fn new(shards: usize, limit: Duration) -> Self {
        let reports = (0..shards).map(|_| Report::default()).collect();
        Self { phase: AtomicU8::new(0), limit, reports, failure: Mutex::new(None) }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// How long the drain may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Begins the drain.
    pub(crate) fn begin(&self) {
        self.phase.fetch_max(1, Ordering::AcqRel);
    }

    /// Begins the drain of a node that cannot go on. Returns whether this is the first reason.
    pub(crate) fn fail(&self, error: NodeError) -> bool {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = failure.is_none();
        failure.get_or_insert(error);
        self.begin();
        is_first
    }

    /// Why the node could not go on, if that is why it stopped.
    pub(crate) fn take_failure(&self) -> Option<NodeError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends everything without a drain, or what is left of it.
    pub(crate) fn stop_now(&self) {
        self.phase.fetch_max(2, Ordering::AcqRel);
    }

    /// Takes a shard's report back: it is about to work.
    pub(crate) fn withdraw(&self, shard: u16) {
        let version = &self.reports[usize::from(shard)].version;
        version.fetch_or(1, Ordering::SeqCst);
    }

    /// A shard's report during the drain, behind a pass. Returns whether the node is done.
    pub(crate) fn report(&self, shard: u16, idle: bool, traffic: (u64, u64)) -> bool {
        let own = &self.reports[usize::from(shard)];
        own.sent.store(traffic.0, Ordering::SeqCst);
        own.taken.store(traffic.1, Ordering::SeqCst);
        own.idle.store(idle, Ordering::SeqCst);
        let withdrawn = own.version.load(Ordering::SeqCst) | 1;
        own.version.store(withdrawn + 1, Ordering::SeqCst);
        let done = idle && self.nothing_is_under_way();
        if done {
            self.stop_now();
        }
        done
    }

    fn nothing_is_under_way(&self) -> bool {
        let versions = || self.reports.iter().map(|report| report.version.load(Ordering::SeqCst));
        let before: Vec<u64> = versions().collect();
        // Version 0 has not been reported.
        if before.iter().any(|version| *version == 0 || version % 2 == 1) {
            return false;
        }
        let sum = |count: fn(&Report) -> &AtomicU64| -> u64 {
            self.reports.iter().map(|report| count(report).load(Ordering::SeqCst)).sum()
        };
        self.reports.iter().all(|report| report.idle.load(Ordering::SeqCst))
            && sum(|report| &report.taken) == sum(|report| &report.sent)
            && versions().eq(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_is_done_when_all_are_idle_and_nothing_is_under_way() {
        let stopping = Stopping::new(2, Duration::ZERO);
        stopping.begin();
        assert!(!stopping.report(0, true, (10, 0)), "shard 1 has not reported");
        assert!(!stopping.report(1, true, (0, 7)), "three words are under way");
        assert!(!stopping.report(1, false, (0, 10)));
        stopping.withdraw(0);
        assert!(!stopping.report(1, true, (0, 10)), "shard 0 is at work");
        assert!(stopping.report(0, true, (10, 0)));
        assert_eq!(stopping.phase(), Phase::Stopped);
    }

    #[test]
    fn first_reason_to_stop_is_kept() {
        let stopping = Stopping::new(2, Duration::ZERO);
        assert!(stopping.take_failure().is_none());
        assert!(stopping.fail(NodeError::Core(1)));
        assert!(!stopping.fail(NodeError::Core(2)));
        assert_eq!(stopping.phase(), Phase::Draining);
        assert!(matches!(stopping.take_failure(), Some(NodeError::Core(1))));
    }

    #[test]
    fn phases_only_go_forward() {
        let stopping = Stopping::new(1, Duration::ZERO);
        assert_eq!(stopping.phase(), Phase::Running);
        stopping.stop_now();
        stopping.begin();
        assert_eq!(stopping.phase(), Phase::Stopped);
    }
}
