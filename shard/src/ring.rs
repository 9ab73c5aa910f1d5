//! The ring between two shards: records of whole words, one producer, one consumer, no lock.
//!
//! The simple version has two counters: `tail`, written by the producer behind each record, and
//! `head`, written by the consumer behind each record it took. Four departures make it fast; what
//! each saves is cache lines that cross between the two cores, which is all that a ring costs.
//!
//! 1. **Packed.** Records follow each other without padding to cache lines, so a line carries two
//!    or three of them. As in the run queue, a record that starts before the end runs over into a
//!    margin behind the ring.
//! 2. **Published once per poll.** The producer writes any number of records and stores `tail`
//!    once; the consumer gives back room once per batch.
//! 3. **Cached indices** (rigtorp, rtrb). Each side keeps the last value it saw of the other's
//!    counter, and reads the shared one only when the cached one says full or empty.
//! 4. **Halves padded apart.** `head` and `tail` stand in lines of their own, and so do the
//!    producer's and the consumer's private fields.
//!
//! # Ownership
//! | field | written by | read by |
//! |---|---|---|
//! | `shared.tail` | producer, release | consumer, acquire |
//! | `shared.head` | consumer, release | producer, acquire |
//! | words in `head..tail` | nobody | consumer |
//! | all other words | producer | nobody |
//!
//! The ring does not know the types of the values in it. When both halves are gone, the one that
//! went last is handed what was left ([`Producer::into_rest`], [`Consumer::into_rest`]).
#![expect(unsafe_code, reason = "records cross between threads as raw words")]

use std::marker::PhantomData;

use crossbeam_utils::CachePadded;

#[cfg(not(loom))]
use crate::prefetch::prefetch;
use crate::record::{Head, Word};
#[cfg(not(loom))]
use crate::record::{RECORD_WORDS_MAX, copy_words};
use crate::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// Room behind the ring for the end of the last record.
#[cfg(not(loom))]
const MARGIN: usize = RECORD_WORDS_MAX;
#[cfg(loom)]
const MARGIN: usize = 4;

/// How far ahead of the reader lines are asked for: enough to cover a round trip.
#[cfg(not(loom))]
const AHEAD_WORDS: usize = 192;

struct Shared {
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
    words: Box<[UnsafeCell<Word>]>,
    mask: usize,
}

#[cfg(not(loom))]
impl Shared {
    /// A cell of a slice is a word of an array.
    fn first_word(&self) -> *mut Word {
        self.words.as_ptr().cast::<Word>().cast_mut()
    }
}

// SAFETY: the pointers are into the words of `shared`, which the half keeps alive.
unsafe impl Send for Producer {}
// SAFETY: as above.
unsafe impl Send for Consumer {}

// SAFETY: the two counters hand each word to one side at a time (table in the module's header).
unsafe impl Sync for Shared {}
// SAFETY: words are plain data; that the values in them are Send is the writer's contract.
unsafe impl Send for Shared {}

/// The writing half of a ring. One thread at a time owns it.
pub struct Producer {
    shared: Arc<Shared>,
    /// The ring's words, without the way through `shared`.
    #[cfg(not(loom))]
    words: *mut Word,
    mask: usize,
    /// Where the next record goes; ahead of the shared tail until published.
    tail: usize,
    /// What the shared tail says.
    published: usize,
    /// The last head seen: at most the real one.
    head_seen: usize,
    not_sync: PhantomData<std::cell::Cell<()>>,
}

/// The reading half of a ring. One thread at a time owns it.
pub struct Consumer {
    shared: Arc<Shared>,
    /// The ring's words, without the way through `shared`.
    #[cfg(not(loom))]
    words: *const Word,
    mask: usize,
    /// Where the next record is read; ahead of the shared head until released.
    head: usize,
    /// What the shared head says.
    released: usize,
    /// The last tail seen: at most the real one.
    tail_seen: usize,
    not_sync: PhantomData<std::cell::Cell<()>>,
}

/// A ring of at least `words` words (rounded up to a power of two).
///
/// # Cost
/// 8 bytes per word, and about 600 bytes.
///
/// # Panics
/// When `words` is less than twice the longest record (40 words).
pub fn ring(words: usize) -> (Producer, Consumer) {
    let capacity = words.next_power_of_two();
    assert!(capacity >= MARGIN * 2, "a ring must hold at least two records of {MARGIN} words");
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        words: (0..capacity + MARGIN).map(|_| UnsafeCell::new(Word::uninit())).collect(),
        mask: capacity - 1,
    });
    let producer = Producer {
        #[cfg(not(loom))]
        words: shared.first_word(),
        mask: shared.mask,
        shared: Arc::clone(&shared),
        tail: 0,
        published: 0,
        head_seen: 0,
        not_sync: PhantomData,
    };
    (producer, Consumer::at(shared, 0))
}

impl Producer {
    /// Whether a record of `words` words fits now.
    #[inline(always)]
    fn has_room(&mut self, words: usize) -> bool {
        debug_assert!((1..=MARGIN).contains(&words));
        let capacity = self.mask + 1;
        if self.tail + words - self.head_seen <= capacity {
            return true;
        }
        self.head_seen = self.shared.head.load(Ordering::Acquire);
        self.tail + words - self.head_seen <= capacity
    }

    /// Writes a record. It is not seen by the consumer before [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`RingFull`] when the record does not fit; nothing is written then.
    #[inline(always)]
    pub fn push(&mut self, record: &[Word]) -> Result<(), RingFull> {
        if !self.has_room(record.len()) {
            return Err(RingFull);
        }
        let at = self.tail & self.mask;
        self.tail += record.len();
        #[cfg(not(loom))]
        // SAFETY: these words lie outside head..tail, so the producer alone touches them; the
        // margin takes what runs over the end.
        unsafe {
            copy_words(record.as_ptr(), self.words.add(at), record.len());
        }
        #[cfg(loom)]
        for (cell, word) in self.shared.words[at..at + record.len()].iter().zip(record) {
            // SAFETY: as above.
            cell.with_mut(|slot| unsafe { slot.write(*word) });
        }
        Ok(())
    }

    /// Makes room for a record of `words` words and returns where to write all of it before the
    /// next publish; `None` when it does not fit.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn reserve(&mut self, words: usize) -> Option<*mut Word> {
        if !self.has_room(words) {
            return None;
        }
        let at = self.tail & self.mask;
        self.tail += words;
        // SAFETY: masked, so inside the ring.
        Some(unsafe { self.words.add(at) })
    }

    /// Whether records were written that the consumer cannot see yet.
    #[inline(always)]
    pub fn is_dirty(&self) -> bool {
        self.tail != self.published
    }

    /// Shows the consumer everything written so far. Returns whether that was anything.
    #[inline(always)]
    pub fn publish(&mut self) -> bool {
        if !self.is_dirty() {
            return false;
        }
        self.shared.tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
        true
    }

    /// Gives the writing half up, and everything written with it. Returns a reading half for what
    /// is left in the ring if the reader has given up too, to be emptied by the caller.
    #[cfg(not(loom))]
    pub(crate) fn into_rest(mut self) -> Option<Consumer> {
        self.publish();
        Consumer::of_rest(self.shared)
    }

    /// Words ever written.
    pub fn written_words(&self) -> u64 {
        self.tail as u64
    }
}

impl Consumer {
    /// Whether nothing is left to read. Looks at the producer's counter when all that was seen of
    /// it has been read.
    #[inline(always)]
    pub fn is_empty(&mut self) -> bool {
        if self.head != self.tail_seen {
            return false;
        }
        // The line of the next record comes from the other core too: let it come meanwhile.
        #[cfg(not(loom))]
        prefetch(self.words.wrapping_add(self.head & self.mask).cast());
        self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        self.head == self.tail_seen
    }

    /// The next record, which stays in place until [`release`](Self::release).
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn pop(&mut self) -> Option<&[Word]> {
        if self.is_empty() {
            return None;
        }
        // Where the next record begins is only known from this one's length, so without help the
        // lines would come one by one, each after a round trip to the other core.
        if self.tail_seen - self.head > AHEAD_WORDS {
            prefetch(self.words.wrapping_add((self.head + AHEAD_WORDS) & self.mask).cast());
        }
        // SAFETY: masked, so inside the ring.
        let first = unsafe { self.words.add(self.head & self.mask) };
        // SAFETY: between head and the published tail records are written and left alone, and the
        // first word of a record is its head.
        let words = Head::from_bits(unsafe { first.cast::<u64>().read() }).words();
        self.head += words;
        // SAFETY: the record has this many words, published by the producer's release.
        Some(unsafe { std::slice::from_raw_parts(first, words) })
    }

    /// The next record, copied out word by word so that loom sees each access.
    #[cfg(loom)]
    pub(crate) fn pop(&mut self) -> Option<Vec<Word>> {
        if self.is_empty() {
            return None;
        }
        let at = self.head & self.mask;
        // SAFETY: published words are not written before they are released.
        let read = |i: usize| self.shared.words[at + i].with(|slot| unsafe { slot.read() });
        // SAFETY: the first word of a record is always written.
        let words = Head::from_bits(unsafe { read(0).assume_init() }).words();
        let record = (0..words).map(read).collect();
        self.head += words;
        Some(record)
    }

    /// Gives the room of everything popped so far back to the producer.
    #[inline(always)]
    pub fn release(&mut self) {
        if self.released != self.head {
            self.shared.head.store(self.head, Ordering::Release);
            self.released = self.head;
        }
    }

    /// Gives the reading half up. Returns it again, for what is left in the ring, if the writer has
    /// given up before.
    #[cfg(not(loom))]
    pub(crate) fn into_rest(mut self) -> Option<Self> {
        self.release();
        Self::of_rest(self.shared)
    }

    /// Exactly one of the two halves finds that it is the last.
    #[cfg(not(loom))]
    fn of_rest(shared: Arc<Shared>) -> Option<Self> {
        let shared = Arc::into_inner(shared)?;
        let head = shared.head.load(Ordering::Acquire);
        let shared = Arc::new(shared);
        Some(Self::at(shared, head))
    }

    /// A reading half whose next record is at `head`.
    fn at(shared: Arc<Shared>, head: usize) -> Self {
        Self {
            #[cfg(not(loom))]
            words: shared.first_word(),
            mask: shared.mask,
            shared,
            head,
            released: head,
            tail_seen: head,
            not_sync: PhantomData,
        }
    }

    /// Words popped that the producer has not been given back.
    #[inline(always)]
    pub fn unreleased_words(&self) -> usize {
        self.head - self.released
    }

    /// Words the ring holds.
    pub fn capacity_words(&self) -> usize {
        self.mask + 1
    }

    /// Words ever read.
    pub fn read_words(&self) -> u64 {
        self.head as u64
    }
}

/// The record does not fit into the ring now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFull;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::record::Kind;
    use std::collections::VecDeque;

    fn record(words: usize, stamp: u64) -> Vec<Word> {
        let head = Head::new(Kind::Tell, words, 0).bits();
        (0..words).map(|i| Word::new(if i == 0 { head } else { stamp })).collect()
    }

    fn stamp(record: &[Word]) -> (usize, u64) {
        // SAFETY: `record` above writes every word.
        let words: Vec<u64> = record.iter().map(|word| unsafe { word.assume_init() }).collect();
        assert!(words[1..].windows(2).all(|pair| pair[0] == pair[1]), "a torn record");
        (words.len(), words[1])
    }

    #[test]
    fn ring_behaves_as_a_deque_with_a_bound() {
        let (mut producer, mut consumer) = ring(64);
        let (mut model, mut hidden) = (VecDeque::new(), VecDeque::new());
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut used = 0;
        for step in 0..300_000u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 8 {
                0..=3 => {
                    let words = 2 + (random >> 8) as usize % (RECORD_WORDS_MAX - 1);
                    let fits = used + words <= 64;
                    assert_eq!(producer.push(&record(words, step)).is_ok(), fits);
                    if fits {
                        hidden.push_back((words, step));
                        used += words;
                    }
                }
                4 => {
                    assert_eq!(producer.publish(), !hidden.is_empty());
                    model.append(&mut hidden);
                }
                5 => {
                    used -= consumer.unreleased_words();
                    consumer.release();
                }
                _ => assert_eq!(consumer.pop().map(stamp), model.pop_front()),
            }
        }
    }

    #[test]
    fn full_ring_refuses_and_writes_nothing() {
        let (mut producer, mut consumer) = ring(40);
        for i in 0..16 {
            assert_eq!(producer.push(&record(4, i)), Ok(()));
        }
        assert_eq!(producer.push(&record(4, 99)), Err(RingFull));
        producer.publish();
        for i in 0..16 {
            assert_eq!(consumer.pop().map(stamp), Some((4, i)));
        }
        assert!(consumer.pop().is_none());
        assert_eq!(producer.push(&record(4, 99)), Err(RingFull), "room is not given back yet");
        consumer.release();
        assert_eq!(producer.push(&record(4, 99)), Ok(()));
    }

    #[test]
    fn two_threads_see_every_record_once_and_in_order() {
        const COUNT: u64 = 200_000;
        let (mut producer, mut consumer) = ring(256);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 0..COUNT {
                    while producer.push(&record(2 + (i % 7) as usize, i)).is_err() {
                        producer.publish();
                        std::thread::yield_now();
                    }
                    if i % 16 == 15 {
                        producer.publish();
                    }
                }
                producer.publish();
            });
            let mut next = 0;
            while next < COUNT {
                while let Some(record) = consumer.pop() {
                    assert_eq!(stamp(record), (2 + (next % 7) as usize, next));
                    next += 1;
                }
                consumer.release();
                std::thread::yield_now();
            }
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::record::Kind;

    fn record(words: usize, stamp: u64) -> Vec<Word> {
        let head = Head::new(Kind::Tell, words, 0).bits();
        (0..words).map(|i| Word::new(if i == 0 { head } else { stamp })).collect()
    }

    /// The ring has 8 words under loom, so five records of two and three words wrap it.
    #[test]
    fn loom_every_interleaving_delivers_in_order() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring(8);
            let writer = loom::thread::spawn(move || {
                for i in 0..4u64 {
                    let record = record(2 + (i % 2) as usize, i);
                    while producer.push(&record).is_err() {
                        producer.publish();
                        loom::thread::yield_now();
                    }
                    if i % 2 == 1 {
                        producer.publish();
                    }
                }
                producer.publish();
            });
            let mut next = 0;
            while next < 4 {
                match consumer.pop() {
                    Some(record) => {
                        assert_eq!(record.len(), 2 + (next % 2) as usize);
                        // SAFETY: the writer writes every word of a record.
                        assert_eq!(unsafe { record[1].assume_init() }, next);
                        next += 1;
                    }
                    None => {
                        consumer.release();
                        loom::thread::yield_now();
                    }
                }
            }
            assert!(writer.join().is_ok());
        });
    }
}
