//! The way to another shard: its ring, and an outbox for what does not fit.
//!
//! A full ring never blocks a turn. What does not fit waits in the outbox, in order, and moves into
//! the ring as room appears; while anything waits there, everything new goes behind it. The outbox
//! has a bound, at which a sender is told that it is full. So two shards whose rings are full both
//! go on with their turns, and each empties the ring of the other.
#![expect(unsafe_code, reason = "records are copied between the outbox and the ring")]

use crate::queue::RunQueue;
use crate::record::{Word, copy_words};
use crate::ring::Producer;

/// The sending side of one pair of shards.
pub(crate) struct Peer {
    ring: Producer,
    outbox: RunQueue,
}

impl Peer {
    pub(crate) fn new(ring: Producer, outbox_words_max: usize) -> Self {
        Self { ring, outbox: RunQueue::new(outbox_words_max) }
    }

    /// Room for a record of `words` words, to be written at once; `None` at the outbox's bound.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, words: usize) -> Option<*mut Word> {
        if self.outbox.is_empty()
            && let Some(at) = self.ring.reserve(words)
        {
            return Some(at);
        }
        self.outbox.reserve(words)
    }

    /// Like [`reserve`](Self::reserve), for an answer, which the outbox takes beyond its bound: the
    /// asks that wait bound their number.
    #[inline(always)]
    pub(crate) fn reserve_answer(&mut self, words: usize) -> *mut Word {
        if self.outbox.is_empty()
            && let Some(at) = self.ring.reserve(words)
        {
            return at;
        }
        self.outbox.reserve_unbounded(words)
    }

    /// Moves what fits from the outbox into the ring and shows it to the peer. Returns whether
    /// there was anything to show.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        if !self.outbox.is_empty() {
            self.empty_outbox();
        }
        self.ring.publish()
    }

    #[cold]
    fn empty_outbox(&mut self) {
        while !self.outbox.is_empty() {
            let position = self.outbox.head();
            // SAFETY: a record starts at the head of a queue that is not empty.
            let words = unsafe { self.outbox.record_head(position) }.words();
            let Some(to) = self.ring.reserve(words) else { return };
            // SAFETY: as above.
            let from = unsafe { self.outbox.record(position) };
            // SAFETY: the ring reserved this many words; queue and ring are apart.
            unsafe { copy_words(from, to, words) };
            self.outbox.advance(words);
        }
        self.outbox.rewind();
    }

    /// Words that wait in the outbox.
    pub(crate) fn outbox_words(&self) -> usize {
        self.outbox.len_words()
    }

    /// Words ever written into the ring.
    pub(crate) fn written_words(&self) -> u64 {
        self.ring.written_words()
    }

    /// Gives this side up. Each record that nobody will read goes through `each`.
    pub(crate) fn clear_with(mut self, mut each: impl FnMut(*mut Word)) {
        self.outbox.clear_with(&mut each);
        let Some(mut rest) = self.ring.into_rest() else { return };
        while let Some(record) = rest.pop() {
            each(record.as_ptr().cast_mut());
        }
    }
}
