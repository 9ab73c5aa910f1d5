//! What a run did: a hash over all of it, and its last steps in full.

use std::collections::VecDeque;
use std::fmt;

use coreside_shard::{Progress, Stats};

/// The hash and the last steps of a run.
pub(crate) struct Trace {
    hash: u64,
    last: VecDeque<Step>,
}

/// How many steps are kept.
const STEPS_MAX: usize = 64;

/// One step of a simulation: what one shard did at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Counts from 1.
    pub number: u64,
    /// The shard's number.
    pub shard: u16,
    /// Nanoseconds since the simulation began.
    pub now_ns: u64,
    /// What it did.
    pub event: Event,
    /// The shard's fingerprint behind the step.
    pub fingerprint: u64,
}

/// What a shard does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It took calls from outside and was polled.
    Pass {
        /// Calls from outside.
        jobs: u32,
        /// What the poll did.
        progress: Progress,
    },
    /// It said that it is about to sleep.
    PrepareSleep,
    /// It looked once more, found work, and stays awake.
    Stay,
    /// It looked once more, found nothing, and sleeps.
    Sleep,
    /// It was woken.
    Wake,
    /// Its sleep was over.
    Nap,
    /// It took back its report, in a node that is stopping.
    Withdraw,
    /// It reported, in a node that is stopping.
    Report,
    /// It ended.
    End,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        Self { hash: fold(0, seed), last: VecDeque::with_capacity(STEPS_MAX) }
    }

    pub(crate) fn add(&mut self, step: Step, stats: &Stats) {
        if self.last.len() == STEPS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(step);
        let (kind, jobs, progress) = match step.event {
            Event::Pass { jobs, progress } => (0, jobs, progress),
            Event::PrepareSleep => (1, 0, Progress::default()),
            Event::Stay => (2, 0, Progress::default()),
            Event::Sleep => (3, 0, Progress::default()),
            Event::Wake => (4, 0, Progress::default()),
            Event::Nap => (5, 0, Progress::default()),
            Event::Withdraw => (6, 0, Progress::default()),
            Event::Report => (7, 0, Progress::default()),
            Event::End => (8, 0, Progress::default()),
        };
        let words = [
            kind | u64::from(step.shard) << 16 | u64::from(jobs) << 32,
            step.now_ns,
            step.fingerprint,
            u64::from(progress.received) << 32 | u64::from(progress.turns),
            u64::from(progress.expired) << 1 | u64::from(progress.more),
            stats.turns,
            stats.activations,
            stats.faults,
            stats.refused,
            stats.answers_late,
            stats.answers_unclaimed,
            stats.asks_expired,
            stats.received,
        ];
        self.hash = words.into_iter().fold(self.hash, fold);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn last(&self) -> impl Iterator<Item = &Step> {
        self.last.iter()
    }
}

/// A multiplication and a rotation: each word changes all that follow.
fn fold(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(27).wrapping_add(1)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, shard, now_ns, event, fingerprint } = self;
        let (seconds, ns) = (now_ns / 1_000_000_000, now_ns % 1_000_000_000);
        write!(f, "{number:>8} {seconds:>6}.{ns:09} s  shard {shard}  {event}")?;
        write!(f, "  [{fingerprint:016x}]")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass { jobs, progress } => {
                let Progress { received, turns, expired, other, more } = progress;
                write!(f, "pass: {jobs} calls, {received} received, {turns} turns")?;
                if *expired > 0 {
                    write!(f, ", {expired} expired")?;
                }
                if *other > 0 {
                    write!(f, ", {other} of the shard's own")?;
                }
                f.write_str(if *more { ", more" } else { "" })
            }
            Self::PrepareSleep => f.write_str("is about to sleep"),
            Self::Stay => f.write_str("finds work and stays awake"),
            Self::Sleep => f.write_str("sleeps"),
            Self::Wake => f.write_str("is woken"),
            Self::Nap => f.write_str("wakes by itself"),
            Self::Withdraw => f.write_str("withdraws its report"),
            Self::Report => f.write_str("reports"),
            Self::End => f.write_str("ends"),
        }
    }
}
