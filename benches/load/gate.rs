//! Where the load threads and the main thread meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// Stages of a run that all threads enter together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Connecting = 0,
    Populating = 1,
    /// Comes again for each point of a sweep.
    Loading = 2,
}

/// State shared by all threads of a run. None of it is touched more than once per poll of a ring.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) clock: Clock,
    /// Set by Ctrl-C: finish early and report.
    pub(crate) stop: Arc<AtomicBool>,
    /// A thread has given up, so the others need not go on.
    failed: AtomicBool,
    threads: usize,
    arrived: AtomicUsize,
    stage: AtomicUsize,
    /// How many stages have begun: they may repeat.
    begun: AtomicUsize,
    stage_ns: AtomicU64,
    replies: Box<[Padded]>,
}

/// A counter on a cache line (and its prefetched neighbour) of its own: one thread writes it while
/// the main thread reads it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Gate {
    pub(crate) fn new(clock: Clock, threads: usize) -> Self {
        Self {
            clock,
            stop: Arc::new(AtomicBool::new(false)),
            failed: AtomicBool::new(false),
            threads,
            arrived: AtomicUsize::new(0),
            stage: AtomicUsize::new(Stage::Connecting as usize),
            begun: AtomicUsize::new(0),
            stage_ns: AtomicU64::new(0),
            replies: (0..threads).map(|_| Padded::default()).collect(),
        }
    }

    /// Waits until all threads ask for `stage` and returns when it began, or `None` if a thread has
    /// given up.
    pub(crate) fn enter(&self, stage: Stage) -> Option<u64> {
        const LOOK_AGAIN: Duration = Duration::from_micros(200);
        // It cannot begin before this thread has arrived.
        let begun = self.begun.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.stage_ns.store(self.clock.now_ns(), Ordering::Relaxed);
            self.stage.store(stage as usize, Ordering::Release);
            self.begun.store(begun + 1, Ordering::Release);
        }
        while self.begun.load(Ordering::Acquire) == begun {
            if self.failed() {
                return None;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Some(self.stage_ns.load(Ordering::Relaxed))
    }

    /// The present stage and when it began.
    pub(crate) fn stage(&self) -> (Stage, u64) {
        let stage = match self.stage.load(Ordering::Acquire) {
            0 => Stage::Connecting,
            1 => Stage::Populating,
            _ => Stage::Loading,
        };
        (stage, self.stage_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Publishes the replies that a thread has seen since its present stage began.
    pub(crate) fn publish(&self, thread: usize, replies: u64) {
        self.replies[thread].0.store(replies, Ordering::Relaxed);
    }

    pub(crate) fn replies(&self) -> u64 {
        self.replies.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_enter_together() {
        let gate = Gate::new(Clock::start(), 3);
        let begun: Vec<_> = std::thread::scope(|scope| {
            let enter = || {
                let populating = gate.enter(Stage::Populating);
                let loading = gate.enter(Stage::Loading);
                (populating, loading, gate.enter(Stage::Loading))
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(enter)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(begun.iter().all(|times| times.0.is_some() && times.1 == begun[0].1));
        assert_eq!(gate.stage().0, Stage::Loading);
    }

    #[test]
    fn nobody_waits_for_a_thread_that_gave_up() {
        let gate = Gate::new(Clock::start(), 2);
        gate.fail();
        assert_eq!(gate.enter(Stage::Loading), None);
    }
}
