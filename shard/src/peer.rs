//! The way to another shard: its ring, and an outbox for what does not fit.
//!
//! A full ring never blocks a turn. What does not fit waits in the outbox, in order, and moves into
//! the ring as room appears; while anything waits there, everything new goes behind it. The outbox
//! has a bound, at which a sender is told that it is full. So two shards whose rings are full both
//! go on with their turns, and each empties the ring of the other.
#![expect(unsafe_code, reason = "records are copied between the outbox and the ring")]

use std::collections::VecDeque;

use crate::queue::RunQueue;
use crate::record::{Head, Kind, Word, copy_words};
use crate::ring::Producer;
use crate::sabotage::{self, Bug, planted};
use crate::system::System;

/// The sending side of one pair of shards.
pub(crate) struct Peer {
    ring: Producer,
    outbox: RunQueue,
    /// System records, which go before anything in the outbox.
    lane: VecDeque<Box<System>>,
}

/// A head and a pointer.
pub(crate) const SYSTEM_WORDS: usize = 2;

/// In place of a message number: the record passes everything that waits in the run queue.
pub(crate) const IN_LANE: u16 = 0;
/// Or it has its turn there.
pub(crate) const IN_ORDER: u16 = 1;

/// Takes the system record out of its ring record.
///
/// # Safety
/// A record of kind `System` stands at `record`, and is given up.
pub(crate) unsafe fn take_system(record: *const Word) -> Box<System> {
    // SAFETY: the pointer of a live box follows the head, taken back once.
    unsafe { Box::from_raw(record.add(1).cast::<*mut System>().read()) }
}

/// Writes a system record, marked [`IN_LANE`] or [`IN_ORDER`].
///
/// # Safety
/// There is room for [`SYSTEM_WORDS`] words.
pub(crate) unsafe fn write_system(at: *mut Word, record: Box<System>, mark: u16) {
    // SAFETY: the caller's contract: the head and the pointer.
    unsafe {
        at.cast::<u64>().write(Head::new(Kind::System, SYSTEM_WORDS, mark).bits());
        at.add(1).cast::<*mut System>().write(Box::into_raw(record));
    }
}

impl Peer {
    pub(crate) fn new(ring: Producer, outbox_words_max: usize) -> Self {
        Self { ring, outbox: RunQueue::new(outbox_words_max), lane: VecDeque::new() }
    }

    /// Room for a record of `words` words, to be written at once; `None` at the outbox's bound.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, words: usize) -> Option<*mut Word> {
        if (self.outbox.is_empty() || planted(Bug::PassesTheOutbox))
            && let Some(at) = self.ring.reserve(words)
        {
            return Some(at);
        }
        if planted(Bug::DroppedOnFullRing) {
            return Some(sabotage::nowhere());
        }
        if planted(Bug::UnboundedOutbox) {
            return Some(self.outbox.reserve_unbounded(words));
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

    /// Puts a system record on its way.
    pub(crate) fn send_system(&mut self, record: Box<System>) {
        self.lane.push_back(record);
        self.empty_lane();
    }

    /// System records that wait for room.
    pub(crate) fn lane_len(&self) -> usize {
        self.lane.len()
    }

    fn empty_lane(&mut self) {
        while let Some(record) = self.lane.pop_front() {
            let Some(at) = self.ring.reserve(SYSTEM_WORDS) else {
                return self.lane.push_front(record);
            };
            // SAFETY: as many words were reserved.
            unsafe { write_system(at, record, IN_LANE) };
        }
    }

    /// Moves what fits from the outbox into the ring and shows it to the peer. Returns whether
    /// there was anything to show.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        if !self.lane.is_empty() {
            self.empty_lane();
        }
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

    /// Whether nothing waits for room in the ring.
    pub(crate) fn is_clear(&self) -> bool {
        self.outbox.is_empty() && self.lane.is_empty()
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
