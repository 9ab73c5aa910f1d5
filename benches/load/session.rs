//! What is outstanding on one connection.

use crate::replies::Scanner;

/// One connection's requests in flight.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) scanner: Scanner,
    pub(crate) stamps: Stamps,
}

impl Session {
    /// # Panics
    /// When `depth_max` is 0.
    pub(crate) fn new(depth_max: u32) -> Self {
        Self { scanner: Scanner::new(), stamps: Stamps::new(depth_max) }
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
