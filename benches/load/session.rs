//! What is outstanding on one connection.

use std::fmt;

use crate::errors::ErrorLog;
use crate::native::calls::Calls;
use crate::native::frames::{FrameFault, Frames};
use crate::replies::{ScanError, Scanner};

/// One connection's requests in flight.
#[derive(Debug)]
pub(crate) enum Session {
    /// RESP: replies come in the order of the requests.
    Resp { scanner: Scanner, stamps: Stamps },
    /// Native: answers come in any order and name their calls. The connection is to this shard, if
    /// it matters.
    Native { frames: Frames, calls: Calls, shard: Option<u16> },
}

/// What ends a connection: the bytes that came make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nonsense {
    Reply(ScanError),
    /// A reply that nothing had asked for.
    Surplus,
    Frame(FrameFault),
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(error) => write!(f, "{error}"),
            Self::Surplus => write!(f, "more replies than were asked for"),
            Self::Frame(fault) => write!(f, "{fault}"),
        }
    }
}

impl Session {
    /// # Panics
    /// When `depth_max` is 0.
    pub(crate) fn resp(depth_max: u32) -> Self {
        Self::Resp { scanner: Scanner::new(), stamps: Stamps::new(depth_max) }
    }

    /// Requests sent and not answered.
    pub(crate) fn outstanding(&self) -> u32 {
        match self {
            Self::Resp { stamps, .. } => stamps.outstanding(),
            Self::Native { calls, .. } => calls.outstanding(),
        }
    }

    /// Notes a native request of the workload's `message`th kind that counts from `since_ns`;
    /// returns what its answer is to be known by.
    ///
    /// # Panics
    /// In a session that is not native.
    pub(crate) fn call(&mut self, since_ns: u64, message: u16) -> u32 {
        match self {
            Self::Resp { .. } => panic!("a native message for a target that speaks RESP"),
            Self::Native { calls, .. } => calls.begin(since_ns, message),
        }
    }

    /// Whether another request may be sent, whatever it is, as far as the target's credit goes.
    #[inline]
    pub(crate) fn may_send(&self) -> bool {
        self.credit() > 0
    }

    /// Requests that nobody answers and that may be sent before the target gives credit back.
    #[inline]
    pub(crate) fn credit(&self) -> u32 {
        match self {
            Self::Resp { .. } => u32::MAX,
            Self::Native { frames, .. } => frames.tells_left(),
        }
    }

    /// Notes a request that nobody answers.
    #[inline]
    pub(crate) fn tell(&mut self) {
        match self {
            Self::Resp { .. } => {}
            Self::Native { frames, .. } => frames.tell(),
        }
    }

    /// The shard whose keys it is for.
    #[inline]
    pub(crate) fn shard(&self) -> Option<u16> {
        match self {
            Self::Resp { .. } => None,
            Self::Native { shard, .. } => *shard,
        }
    }

    /// Whether the target wants a sign of life.
    #[inline]
    pub(crate) fn owes_pong(&self) -> bool {
        matches!(self, Self::Native { frames, .. } if frames.owes_pong())
    }

    /// Writes the sign of life at `at`, if one is owed, and returns the place behind it.
    pub(crate) fn pong(&mut self, out: &mut [u8], at: usize) -> usize {
        match self {
            Self::Resp { .. } => at,
            Self::Native { frames, .. } => frames.pong(out, at),
        }
    }

    /// Notes `count` requests that count from `since_ns`, unless each has a call number.
    pub(crate) fn note(&mut self, since_ns: u64, count: u32) {
        match self {
            Self::Resp { stamps, .. } => stamps.put(since_ns, count),
            Self::Native { .. } => {}
        }
    }

    /// Goes through bytes that have come: hands requests that are answered to `answered`, those
    /// that count from the same time together if they come together; returns their number.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        errors: &mut ErrorLog,
        mut answered: impl FnMut(Stamp),
    ) -> Result<u64, Nonsense> {
        match self {
            Self::Resp { scanner, stamps } => {
                let replies = scanner.scan(bytes, errors).map_err(Nonsense::Reply)?;
                let mut left = replies as u32;
                while left > 0 {
                    let stamp = stamps.take(left).ok_or(Nonsense::Surplus)?;
                    left -= stamp.count;
                    answered(stamp);
                }
                Ok(replies)
            }
            Self::Native { frames, calls, .. } => frames
                .scan(bytes, calls, errors, |call| {
                    answered(Stamp { since_ns: call.since_ns, count: 1 });
                })
                .map_err(Nonsense::Frame),
        }
    }
}

/// Since when the requests in flight count, in the order of their replies.
///
/// Requests with the same time are one entry: a pipeline that is filled in one go costs one entry
/// to note and one to record, whatever its depth.
#[derive(Debug)]
pub(crate) struct Stamps {
    entries: Box<[Stamp]>,
    /// Entries taken and entries put since the beginning; their places are these modulo the
    /// capacity, a power of two.
    head: u32,
    tail: u32,
    outstanding: u32,
}

/// `count` requests that count from `since_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) since_ns: u64,
    pub(crate) count: u32,
}

impl Stamps {
    fn new(depth_max: u32) -> Self {
        assert!(depth_max > 0, "a pipeline of no depth");
        let capacity = depth_max.next_power_of_two() as usize;
        let entries = vec![Stamp::default(); capacity].into_boxed_slice();
        Self { entries, head: 0, tail: 0, outstanding: 0 }
    }

    /// Requests sent and not answered.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Notes `count` requests that count from `since_ns`.
    pub(crate) fn put(&mut self, since_ns: u64, count: u32) {
        debug_assert!(count > 0, "an entry for no request");
        self.outstanding += count;
        if self.head != self.tail {
            let last = self.place(self.tail.wrapping_sub(1));
            if self.entries[last].since_ns == since_ns {
                self.entries[last].count += count;
                return;
            }
        }
        // Each entry stands for at least one of at most `depth_max` requests, so there is room.
        debug_assert!(self.tail.wrapping_sub(self.head) < self.entries.len() as u32);
        let place = self.place(self.tail);
        self.entries[place] = Stamp { since_ns, count };
        self.tail = self.tail.wrapping_add(1);
    }

    /// Takes the oldest requests, at most `count_max` of them, that share a time.
    pub(crate) fn take(&mut self, count_max: u32) -> Option<Stamp> {
        if self.head == self.tail {
            return None;
        }
        let place = self.place(self.head);
        let entry = &mut self.entries[place];
        let count = entry.count.min(count_max);
        entry.count -= count;
        if entry.count == 0 {
            self.head = self.head.wrapping_add(1);
        }
        self.outstanding -= count;
        Some(Stamp { since_ns: self.entries[place].since_ns, count })
    }

    fn place(&self, position: u32) -> usize {
        position as usize & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn agrees_with_a_queue_of_single_times() {
        let mut stamps = Stamps::new(5);
        let mut model: VecDeque<u64> = VecDeque::new();
        let mut random = crate::random::Random::new(11, 0);
        for round in 0..50_000u64 {
            let room = 5 - model.len() as u64;
            if room > 0 && random.below(2) == 0 {
                let count = 1 + random.below(room);
                let since_ns = round / 3;
                stamps.put(since_ns, count as u32);
                model.extend(std::iter::repeat_n(since_ns, count as usize));
            } else {
                let wanted = 1 + random.below(4) as u32;
                match stamps.take(wanted) {
                    Some(stamp) => {
                        assert!(stamp.count > 0 && stamp.count <= wanted);
                        for _ in 0..stamp.count {
                            assert_eq!(model.pop_front(), Some(stamp.since_ns));
                        }
                    }
                    None => assert!(model.is_empty()),
                }
            }
            assert_eq!(stamps.outstanding as usize, model.len());
        }
    }
}
