//! The run queue: records that wait for their turn on this shard, first in, first out.
//!
//! A ring of words that grows by doubling up to its bound. A record never wraps: one that starts
//! before the end of the ring runs over into a margin behind it, and the next one starts where it
//! would have started anyway. So a record is contiguous, nothing is padded, and a position is a
//! plain counter that stays valid when the ring grows.
//!
//! # Ownership
//! The queue owns the words, not the values in them: [`clear_with`](RunQueue::clear_with) hands
//! each record that is left to somebody who knows its type.
#![expect(unsafe_code, reason = "records are written and read in place as raw words")]

use crate::record::{Head, RECORD_WORDS_MAX, Word, copy_words};

/// A position in the queue: counts words, never reset while the queue holds records.
pub(crate) type Position = usize;

/// Records in order of arrival, in one growing ring.
///
/// # Invariants
/// `head <= tail`, `tail - head <= words.len() - MARGIN`; a whole number of records lies between.
/// `limit <= words_max`.
pub(crate) struct RunQueue {
    words: Box<[Word]>,
    mask: usize,
    head: Position,
    tail: Position,
    words_max: usize,
    /// What fits without growing: the ring, or the bound where answers made the ring longer.
    limit: usize,
}

/// Room behind the ring for the end of a record that starts inside it.
const MARGIN: usize = RECORD_WORDS_MAX;

/// 32 KiB: with the states it works on, a small queue stays in the nearest caches.
const WORDS_INITIAL: usize = 4096;

impl RunQueue {
    /// An empty queue that takes up to `words_max` words (rounded up to a power of two).
    pub(crate) fn new(words_max: usize) -> Self {
        let words_max = Self::rounded(words_max);
        let words = ring(WORDS_INITIAL);
        Self { words, mask: WORDS_INITIAL - 1, head: 0, tail: 0, words_max, limit: WORDS_INITIAL }
    }

    /// The bound that is kept where `words_max` is asked for.
    pub(crate) fn rounded(words_max: usize) -> usize {
        words_max.next_power_of_two().max(WORDS_INITIAL)
    }

    /// Position of the oldest record.
    #[inline(always)]
    pub(crate) fn head(&self) -> Position {
        self.head
    }

    /// Position behind the newest record.
    #[inline(always)]
    pub(crate) fn tail(&self) -> Position {
        self.tail
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Words that wait.
    #[inline(always)]
    pub(crate) fn len_words(&self) -> usize {
        self.tail - self.head
    }

    /// Whether less waits than may.
    pub(crate) fn is_within_bound(&self) -> bool {
        self.len_words() < self.words_max
    }

    /// The words of the record at `position`.
    ///
    /// # Safety
    /// A record starts at `position`, between head and tail.
    #[inline(always)]
    pub(crate) unsafe fn record(&mut self, position: Position) -> *mut Word {
        // SAFETY: masked, so inside the ring; the margin holds what runs over its end.
        unsafe { self.words.as_mut_ptr().add(position & self.mask) }
    }

    /// The head of the record at `position`.
    ///
    /// # Safety
    /// As for [`record`](Self::record).
    #[inline(always)]
    pub(crate) unsafe fn record_head(&mut self, position: Position) -> Head {
        // SAFETY: the caller's contract.
        let word = unsafe { self.record(position) };
        // SAFETY: the first word of a record is always written.
        Head::from_bits(unsafe { word.cast::<u64>().read() })
    }

    /// Takes the oldest record, of `words` words, off the queue. Its words stay readable until the
    /// next [`reserve`](Self::reserve).
    #[inline(always)]
    pub(crate) fn advance(&mut self, words: usize) {
        debug_assert!(self.head + words <= self.tail);
        self.head += words;
    }

    /// Makes room for a record of `words` words and returns where to write it: all of it, at once.
    /// `None` when the queue is at its bound.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, words: usize) -> Option<*mut Word> {
        if self.tail + words - self.head > self.limit && !self.grow(self.words_max) {
            return None;
        }
        Some(self.claim(words))
    }

    /// Like [`reserve`](Self::reserve), beyond the bound where need be: for answers, whose number
    /// is bounded by the asks that wait for them.
    #[inline]
    pub(crate) fn reserve_unbounded(&mut self, words: usize) -> *mut Word {
        if self.tail + words - self.head > self.mask + 1 {
            self.grow(usize::MAX);
        }
        self.claim(words)
    }

    #[inline(always)]
    fn claim(&mut self, words: usize) -> *mut Word {
        debug_assert!(words <= RECORD_WORDS_MAX);
        let at = self.tail & self.mask;
        self.tail += words;
        // SAFETY: masked, so inside the ring; the margin takes what runs over.
        unsafe { self.words.as_mut_ptr().add(at) }
    }

    #[cold]
    fn grow(&mut self, words_max: usize) -> bool {
        let capacity = (self.mask + 1) * 2;
        if capacity > words_max {
            return false;
        }
        let mut words = ring(capacity);
        let mut position = self.head;
        while position != self.tail {
            // SAFETY: records lie between head and tail, and `position` steps from one to the next.
            let length = unsafe { self.record_head(position) }.words();
            // SAFETY: as above.
            let from = unsafe { self.record(position) };
            // SAFETY: masked by the new capacity, whose ring has the same margin.
            let to = unsafe { words.as_mut_ptr().add(position & (capacity - 1)) };
            // SAFETY: two different allocations, each with room for a whole record here.
            unsafe { copy_words(from, to, length) };
            position += length;
        }
        self.words = words;
        self.mask = capacity - 1;
        self.limit = capacity.min(self.words_max);
        true
    }

    /// Starts again at the front of the ring, where the caches are warm, and gives back memory that
    /// a burst took. Does nothing while records wait.
    #[inline]
    pub(crate) fn rewind(&mut self) {
        if self.head != self.tail {
            return;
        }
        self.head = 0;
        self.tail = 0;
        if self.mask + 1 > 32 * WORDS_INITIAL {
            self.words = ring(WORDS_INITIAL);
            self.mask = WORDS_INITIAL - 1;
            self.limit = WORDS_INITIAL;
        }
    }

    /// Empties the queue; `each` gets every record and what becomes of its value.
    pub(crate) fn clear_with(&mut self, mut each: impl FnMut(*mut Word)) {
        while self.head != self.tail {
            // SAFETY: head is where the oldest record starts.
            let record = unsafe { self.record(self.head) };
            // SAFETY: as above.
            let words = unsafe { self.record_head(self.head) }.words();
            self.head += words;
            each(record);
        }
    }
}

fn ring(capacity: usize) -> Box<[Word]> {
    vec![Word::uninit(); capacity + MARGIN].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Kind;
    use std::collections::VecDeque;

    /// Writes a record whose words carry `stamp`.
    fn push(queue: &mut RunQueue, words: usize, stamp: u64) -> bool {
        let Some(at) = queue.reserve(words) else { return false };
        // SAFETY: the queue reserved this many words.
        unsafe {
            at.write(Word::new(Head::new(Kind::Tell, words, 0).bits()));
            for i in 1..words {
                at.add(i).write(Word::new(stamp + i as u64));
            }
        }
        true
    }

    fn pop(queue: &mut RunQueue) -> Option<(usize, u64)> {
        if queue.is_empty() {
            return None;
        }
        let head = queue.head();
        // SAFETY: a record starts at head, and all of its words were written.
        let (words, at) = unsafe { (queue.record_head(head).words(), queue.record(head)) };
        // SAFETY: as above.
        let stamps = (1..words).map(|i| unsafe { at.add(i).read().assume_init() } - i as u64);
        let stamps: Vec<u64> = stamps.collect();
        assert!(stamps.windows(2).all(|pair| pair[0] == pair[1]), "a torn record: {stamps:?}");
        queue.advance(words);
        Some((words, stamps[0]))
    }

    #[test]
    fn queue_behaves_as_a_deque_while_it_wraps_and_grows() {
        let mut queue = RunQueue::new(1 << 16);
        let mut model = VecDeque::new();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for step in 0..200_000u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let words = 2 + (random >> 8) as usize % (RECORD_WORDS_MAX - 1);
            // Phases of filling and of draining, so that the ring both grows and runs empty.
            let fill = if step / 20_000 % 2 == 0 { 60 } else { 40 };
            if random % 100 < fill {
                if push(&mut queue, words, step << 8) {
                    model.push_back((words, step << 8));
                } else {
                    assert!(queue.len_words() + words > 1 << 16, "full too early");
                }
            } else {
                assert_eq!(pop(&mut queue), model.pop_front());
                queue.rewind();
            }
        }
        while let Some(expected) = model.pop_front() {
            assert_eq!(pop(&mut queue), Some(expected));
        }
        assert_eq!(pop(&mut queue), None);
    }

    #[test]
    fn full_queue_refuses_a_record_but_takes_an_answer() {
        let mut queue = RunQueue::new(WORDS_INITIAL);
        while push(&mut queue, 4, 0) {}
        assert_eq!(queue.len_words(), WORDS_INITIAL);
        let at = queue.reserve_unbounded(4);
        // SAFETY: four words were reserved.
        unsafe { at.write(Word::new(Head::new(Kind::Reply, 4, 0).bits())) };
        assert_eq!(queue.len_words(), WORDS_INITIAL + 4);
        assert!(!push(&mut queue, 4, 0), "the room that an answer made is not for messages");
        let mut left = 0;
        queue.clear_with(|_| left += 1);
        assert_eq!(left, WORDS_INITIAL / 4 + 1);
    }
}
