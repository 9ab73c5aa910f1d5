//! When to look at which session: a coarse timing wheel.
//!
//! # Invariants
//! - Every entry lies in a granule of the next [`BUCKETS`], so a bucket holds entries of one
//!   granule only. What is farther away is looked at too early, and filed again.
//! - A bucket's bit in `occupied` is set exactly when the bucket is not empty.

use super::SessionId;

/// Sessions, by when they are to be looked at.
#[derive(Debug)]
pub(super) struct Wheel {
    /// None before the first entry.
    buckets: Vec<Vec<SessionId>>,
    occupied: [u64; BUCKETS / 64],
    /// The granule that is turned to next.
    at: u64,
}

/// A granule is 134 ms: deadlines of seconds need no more, and a round takes over a minute.
const GRANULE_BITS: u32 = 27;
const BUCKETS: usize = 512;

const _: () = assert!(BUCKETS.is_multiple_of(64), "whole words of bits");

impl Wheel {
    pub(super) fn new() -> Self {
        Self { buckets: Vec::new(), occupied: [0; BUCKETS / 64], at: 0 }
    }

    /// The granule in which something due at `due_ns` is looked at: the first that lies behind it,
    /// or the last of the round.
    #[inline]
    pub(super) fn granule(&self, due_ns: u64) -> u64 {
        ((due_ns >> GRANULE_BITS) + 1).clamp(self.at, self.at + BUCKETS as u64 - 1)
    }

    /// Has a session looked at in a granule that [`granule`](Self::granule) gave.
    pub(super) fn file(&mut self, id: SessionId, granule: u64) {
        debug_assert!((self.at..self.at + BUCKETS as u64).contains(&granule));
        if self.buckets.is_empty() {
            self.buckets.resize_with(BUCKETS, Vec::new);
        }
        let bucket = granule as usize % BUCKETS;
        self.buckets[bucket].push(id);
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Whether there is a granule to turn to.
    #[inline]
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >> GRANULE_BITS >= self.at
    }

    /// Moves the sessions to `due` that are to be looked at, with the granule in which they were.
    pub(super) fn turn(&mut self, now_ns: u64, due: &mut Vec<(SessionId, u64)>) {
        let until = (now_ns >> GRANULE_BITS) + 1;
        // One round reaches every bucket, however long nobody looked.
        for granule in self.at..until.min(self.at + BUCKETS as u64) {
            let bucket = granule as usize % BUCKETS;
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            if let Some(bucket) = self.buckets.get_mut(bucket) {
                due.extend(bucket.drain(..).map(|id| (id, granule)));
            }
        }
        self.at = self.at.max(until);
    }

    /// When there is something to look at, if ever.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let first = self.at as usize % BUCKETS;
        let words = BUCKETS / 64;
        // The word of the first bucket is looked at twice: from that bucket on, and up to it.
        for step in 0..=words {
            let index = (first / 64 + step) % words;
            let mask = match step {
                0 => u64::MAX << (first % 64),
                _ if step == words => !(u64::MAX << (first % 64)),
                _ => u64::MAX,
            };
            let word = self.occupied[index] & mask;
            if word != 0 {
                let bucket = index * 64 + word.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - first) % BUCKETS;
                return Some((self.at + ahead as u64) << GRANULE_BITS);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANULE_NS: u64 = 1 << GRANULE_BITS;

    fn session(slot: u32) -> SessionId {
        SessionId { slot, generation: 0 }
    }

    #[test]
    fn everything_is_looked_at_once_and_not_before_its_time() {
        let mut wheel = Wheel::new();
        let mut due = Vec::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut filed = Vec::new();
        let mut now_ns = 0;
        for slot in 0..5_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let due_ns = now_ns + (state >> 33) % (400 * GRANULE_NS);
            let granule = wheel.granule(due_ns);
            wheel.file(session(slot), granule);
            filed.push((slot, due_ns));
            assert!(wheel.next_ns().expect("something is filed") <= granule << GRANULE_BITS);
            if slot % 7 == 0 {
                now_ns += (state >> 40) % (3 * GRANULE_NS);
                wheel.turn(now_ns, &mut due);
                for (id, _) in due.drain(..) {
                    let at = filed.iter().position(|(slot, _)| *slot == id.slot);
                    let (_, due_ns) = filed.swap_remove(at.expect("looked at once"));
                    assert!(due_ns <= now_ns, "slot {}", id.slot);
                }
                let late = filed.iter().find(|(_, due_ns)| due_ns + 2 * GRANULE_NS < now_ns);
                assert_eq!(late, None);
            }
        }
        // Nobody looked for an hour.
        wheel.turn(now_ns + 3_600_000_000_000, &mut due);
        assert_eq!(due.len(), filed.len());
        assert_eq!(wheel.next_ns(), None);
    }

    #[test]
    fn what_is_farther_than_a_round_waits_for_its_end() {
        let mut wheel = Wheel::new();
        let granule = wheel.granule(u64::MAX / 2);
        assert_eq!(granule, BUCKETS as u64 - 1);
        wheel.file(session(1), granule);
        assert_eq!(wheel.next_ns(), Some(granule << GRANULE_BITS));
        // What is overdue comes with the next turn.
        wheel.turn(10 * GRANULE_NS, &mut Vec::new());
        assert_eq!(wheel.granule(0), 11);
    }
}
