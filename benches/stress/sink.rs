//! The entity that takes what is offered in `overload`, and the books that both sides keep.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coreside::{AskError, Handle, entity, handlers};

use crate::clock::now_ns;
use crate::run::Run;

/// Senders that are told apart.
pub(crate) const SENDERS_MAX: usize = 64;
/// Sinks; each sender takes them in turn.
pub(crate) const SINKS: u64 = 256;

/// Messages handled, by sender. A sender that keeps a bound on what it has under way reads its own.
static HANDLED: [Line; SENDERS_MAX] = [const { Line(AtomicU64::new(0)) }; SENDERS_MAX];
/// How long each turn takes.
static TURN_NS: AtomicU64 = AtomicU64::new(0);

/// A count in a cache line of its own.
#[repr(align(64))]
struct Line(AtomicU64);

/// Begins the books anew, with turns of this length.
pub(crate) fn begin(turn: Duration) {
    HANDLED.iter().for_each(|line| line.0.store(0, Ordering::Relaxed));
    TURN_NS.store(turn.as_nanos() as u64, Ordering::Relaxed);
}

/// How many messages of a sender were handled.
pub(crate) fn handled_of(sender: usize) -> u64 {
    HANDLED[sender].0.load(Ordering::Relaxed)
}

/// How many messages were handled.
pub(crate) fn handled() -> u64 {
    (0..SENDERS_MAX).map(handled_of).sum()
}

/// Takes a message in, which keeps its shard for a while.
#[entity]
pub(crate) struct Sink {
    total: Total,
}

/// Messages, and the sum of what they carried, which shows one that came twice in place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl Total {
    pub(crate) fn add(&mut self, value: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

#[handlers]
impl Sink {
    #[local]
    pub(crate) fn take(&mut self, sender: u16, value: u64) {
        let end_ns = now_ns() + TURN_NS.load(Ordering::Relaxed);
        while now_ns() < end_ns {
            spin_loop();
        }
        self.total.add(value);
        HANDLED[usize::from(sender)].0.fetch_add(1, Ordering::Relaxed);
    }

    #[local]
    pub(crate) fn total(&self) -> Total {
        self.total
    }
}

/// What became of what was offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) accepted: Total,
    pub(crate) refused: u64,
    /// Refusals that gave another message back than the one that was sent.
    pub(crate) mistaken: u64,
}

impl Offered {
    pub(crate) fn count(&self) -> u64 {
        self.accepted.count + self.refused
    }

    /// Notes what came of one message, given back where it was refused.
    pub(crate) fn note(&mut self, value: u64, outcome: Result<(), SinkTake>) {
        match outcome {
            Ok(()) => self.accepted.add(value),
            Err(message) => {
                self.refused += 1;
                self.mistaken += u64::from(message.value != value);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.accepted.merge(other.accepted);
        self.refused += other.refused;
        self.mistaken += other.mistaken;
    }
}

/// Waits for what was accepted, and compares the books of both sides.
///
/// Tells to sinks, which neither fail nor make anybody wait, become no dead letters; so what was
/// accepted has to be handled, all of it.
pub(crate) fn check(
    run: &mut Run,
    part: &str,
    node: &Handle,
    keys: impl Iterator<Item = u64>,
    offered: &Offered,
) -> Result<(), AskError> {
    const END: Duration = Duration::from_secs(60);
    run.show(format!("{part}: waiting for what was accepted"));
    run.until(END, || handled() >= offered.accepted.count);
    let mut total = Total::default();
    for key in keys {
        total.merge(node.entity::<Sink>(key).total().wait()?);
    }
    run.hide();
    let accepted = offered.accepted;
    run.report.check_equal(&format!("{part}: accepted is handled"), total.count, accepted.count);
    let sums_agree = total.sum == accepted.sum;
    let found = format!("sums {:#x} and {:#x}", total.sum, accepted.sum);
    run.report.check(&format!("{part}: each message once"), sums_agree, &found);
    let faults = node.stats().faults;
    run.report.check_equal(&format!("{part}: faults"), faults, 0);
    run.report.check_equal(
        &format!("{part}: refusals that gave back the wrong message"),
        offered.mistaken,
        0,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_message_is_counted_apart_and_compared() {
        let mut offered = Offered::default();
        offered.note(7, Ok(()));
        offered.note(8, Err(SinkTake { sender: 0, value: 8 }));
        offered.note(9, Err(SinkTake { sender: 0, value: 8 }));
        assert_eq!(offered.accepted, Total { count: 1, sum: 7 });
        assert_eq!((offered.count(), offered.refused, offered.mistaken), (3, 2, 1));
        let mut twice = offered;
        twice.merge(&offered);
        assert_eq!((twice.count(), twice.accepted.sum), (6, 14));
    }
}
