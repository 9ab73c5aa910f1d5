//! What follows a fault, and when an entity is put away: declared once per entity type.

use std::time::Duration;

/// The rules of one entity type's life, all with defaults.
///
/// # Examples
/// ```
/// use coreside_shard::{Life, OnFault};
/// const LIFE: Life = Life { on_fault: OnFault::Stop, stash_max: 16, ..Life::DEFAULT };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// What follows a fault of the entity (default: [`OnFault::Restart`]).
    pub on_fault: OnFault,
    /// How long a restart waits, and how many are too many.
    pub backoff: Backoff,
    /// What the fault of one child means for the others (default: [`Children::OneForOne`]).
    pub children: Children,
    /// An entity that had no turn for this long is put away; at most a quarter later (default:
    /// never).
    pub idle: Option<Duration>,
    /// Entities of the type that may be in memory on one shard; beyond, those that have gone
    /// longest without a turn are put away (default: no bound but the store's).
    pub resident_max: Option<usize>,
    /// Records that may wait for one busy entity, and async reads of it that may be under way
    /// beside each other, at least one (default: 128). Beyond, a message is a dead letter, and a
    /// read waits. Interleaved turns are bounded by the shard's async turns alone.
    pub stash_max: u32,
    /// Whether the entity stays: it is restarted for ever and never put away (default: no).
    pub keep_alive: bool,
}

/// What follows a fault of an entity. In each case its asker is told
/// [`Failed`](crate::AskError::Failed), and its supervisor gets a [`Fault`](crate::Fault).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// The state is dropped and made anew after the backoff. The address stays valid; messages that
    /// arrive meanwhile wait, in order.
    Restart,
    /// The state is kept as the fault left it, and the next message has its turn.
    Resume,
    /// The entity ends; the next message activates it anew.
    Stop,
    /// The entity ends, and its supervisor fails in its place. Without a supervisor the node stops.
    Escalate,
}

/// The wait before a restart: it doubles from fault to fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first restart (default: 10 ms).
    pub first: Duration,
    /// The longest wait (default: 10 s).
    pub most: Duration,
    /// How far each wait may be off, in percent of it, so that those who fell together do not rise
    /// together (default: 20).
    pub jitter_percent: u8,
    /// Faults [`within`](Self::within) which the entity is restarted; one more ends it (default:
    /// 10).
    pub faults_max: u32,
    /// The window in which faults are counted (default: 60 s).
    pub within: Duration,
    /// After so long without a fault the wait begins at the first again (default: 30 s).
    pub reset: Duration,
}

/// What the fault of one child means for the other children of its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// Nothing.
    OneForOne,
    /// All of them are restarted.
    OneForAll,
    /// Those that were started after it are restarted.
    RestForOne,
}

impl Life {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        on_fault: OnFault::Restart,
        backoff: Backoff::DEFAULT,
        children: Children::OneForOne,
        idle: None,
        resident_max: None,
        stash_max: 128,
        keep_alive: false,
    };

    /// Whether entities of the type are ever put away.
    pub(crate) const fn passivates(&self) -> bool {
        !self.keep_alive && (self.idle.is_some() || self.resident_max.is_some())
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Backoff {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        first: Duration::from_millis(10),
        most: Duration::from_secs(10),
        jitter_percent: 20,
        faults_max: 10,
        within: Duration::from_secs(60),
        reset: Duration::from_secs(30),
    };

    /// The wait before a restart that follows `faults` earlier ones without a long pause between,
    /// in nanoseconds; `random` decides where in the jitter it lies.
    pub(crate) fn wait_ns(&self, faults: u32, random: u64) -> u64 {
        let first = self.first.as_nanos() as u64;
        let doubled = first.saturating_mul(1u64.checked_shl(faults).unwrap_or(u64::MAX));
        let wait = doubled.min(self.most.as_nanos() as u64);
        let spread = wait / 100 * u64::from(self.jitter_percent.min(100));
        if spread == 0 { wait } else { wait - spread + random % (2 * spread + 1) }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How often an entity has failed lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Of this life and the lives that it was restarted from.
    pub(crate) count: u32,
    /// In a row, without a pause of [`Backoff::reset`].
    in_a_row: u32,
    in_window: u32,
    window_began_ns: u64,
    last_ns: u64,
}

/// What the count of faults says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Restart after so many nanoseconds.
    Wait(u64),
    /// Too many.
    Enough,
}

impl Faults {
    /// Counts a fault now, and says what the backoff makes of it.
    pub(crate) fn add(&mut self, backoff: &Backoff, now_ns: u64, random: u64) -> Verdict {
        let first = self.count == 0;
        if first || now_ns - self.window_began_ns >= backoff.within.as_nanos() as u64 {
            self.window_began_ns = now_ns;
            self.in_window = 0;
        }
        if first || now_ns - self.last_ns >= backoff.reset.as_nanos() as u64 {
            self.in_a_row = 0;
        }
        self.count = self.count.saturating_add(1);
        self.in_window = self.in_window.saturating_add(1);
        self.last_ns = now_ns;
        let wait_ns = backoff.wait_ns(self.in_a_row, random);
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_window > backoff.faults_max { Verdict::Enough } else { Verdict::Wait(wait_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn wait_doubles_up_to_its_bound_and_stays_within_its_jitter() {
        let backoff = Backoff::DEFAULT;
        for (faults, expected_ms) in [(0, 10), (1, 20), (5, 320), (10, 10_000), (70, 10_000)] {
            for random in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
                let wait = backoff.wait_ns(faults, random) as f64 / 1e6;
                let off = (wait - f64::from(expected_ms)).abs() / f64::from(expected_ms);
                assert!(off <= 0.2, "{wait} ms after {faults} faults");
            }
        }
    }

    #[test]
    fn wait_begins_anew_after_a_pause() {
        let backoff = Backoff { jitter_percent: 0, ..Backoff::DEFAULT };
        let mut faults = Faults::default();
        assert_eq!(faults.add(&backoff, 0, 0), Verdict::Wait(10_000_000));
        assert_eq!(faults.add(&backoff, SECOND, 0), Verdict::Wait(20_000_000));
        assert_eq!(faults.add(&backoff, 32 * SECOND, 0), Verdict::Wait(10_000_000));
        assert_eq!(faults.count, 3);
    }

    #[test]
    fn one_fault_too_many_in_the_window_is_enough() {
        let backoff = Backoff::DEFAULT;
        let mut faults = Faults::default();
        for i in 0..10 {
            assert!(matches!(faults.add(&backoff, i * SECOND, 0), Verdict::Wait(_)));
        }
        assert_eq!(faults.add(&backoff, 11 * SECOND, 0), Verdict::Enough);
        assert!(matches!(faults.add(&backoff, 61 * SECOND, 0), Verdict::Wait(_)), "a new window");
    }
}
