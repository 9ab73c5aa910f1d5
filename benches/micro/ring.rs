//! `ring/24B`: records of 24 bytes between two cores, in batches of 64.
#![expect(unsafe_code, reason = "the limit's ring is bare memory; records are read as words")]

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coreside_shard::{Word, ring};
use crossbeam_queue::ArrayQueue;

use crate::machine;
use crate::measure::{Effort, Row, Spin, millions_per_second};

const BATCH: u64 = 64;
/// 256 KiB of records in every ring here.
const RECORDS: usize = 8192 + 2048;
const WORDS: usize = 32 << 10;

/// Our ring, beside the barest one that does the same.
pub(crate) fn run(effort: &Effort) -> Row {
    let count = effort.scaled(40_000_000) / BATCH * BATCH;
    effort.compare("M/s", || ours(count), || bare(count))
}

/// Our ring, beside crossbeam's `ArrayQueue` with as much payload.
pub(crate) fn run_array_queue(effort: &Effort) -> Row {
    let count = effort.scaled(20_000_000) / BATCH * BATCH;
    effort.compare("M/s", || ours(count), || array_queue(count))
}

/// Records per second from `produce` on one core to `consume` on another.
fn race(count: u64, produce: impl FnOnce() + Send, consume: impl FnOnce() -> u64 + Send) -> f64 {
    let cores = machine::cores();
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            machine::pin(&cores, 0);
            produce();
        });
        let consumer = scope.spawn(|| {
            machine::pin(&cores, 1);
            millions_per_second(|| {
                assert_eq!(consume(), (0..count).fold(0, u64::wrapping_add));
                count
            })
        });
        let rate = consumer.join().unwrap_or(f64::NAN);
        assert!(producer.join().is_ok());
        rate
    })
}

fn ours(count: u64) -> f64 {
    let (mut producer, mut consumer) = ring(WORDS);
    let head = record_head();
    let produce = move || {
        let (mut next, mut spin) = (0, Spin::default());
        while next < count {
            for _ in 0..BATCH {
                let record = [head, Word::new(next), Word::new(next)];
                while producer.push(&record).is_err() {
                    producer.publish();
                    spin.once();
                }
                next += 1;
            }
            producer.publish();
        }
    };
    let consume = move || {
        let (mut seen, mut sum, mut spin) = (0, 0u64, Spin::default());
        while seen < count {
            let before = seen;
            while seen - before < BATCH
                && let Some(record) = consumer.pop()
            {
                // SAFETY: the producer writes all three words.
                sum = sum.wrapping_add(unsafe { record[2].assume_init() });
                seen += 1;
            }
            consumer.release();
            if seen == before {
                spin.once();
            }
        }
        sum
    };
    race(count, produce, consume)
}

/// A ring of whole records, without lengths, margins or caches of the other side's counter.
struct Bare {
    head: CachePadded,
    tail: CachePadded,
    records: Box<[UnsafeCell<[u64; 3]>]>,
}

#[repr(align(128))]
struct CachePadded(AtomicUsize);

// SAFETY: the two counters hand each record to one side at a time.
unsafe impl Sync for Bare {}

fn bare(count: u64) -> f64 {
    const MASK: usize = 8191;
    let ring = Arc::new(Bare {
        head: CachePadded(AtomicUsize::new(0)),
        tail: CachePadded(AtomicUsize::new(0)),
        records: (0..=MASK).map(|_| UnsafeCell::new([0; 3])).collect(),
    });
    let other = Arc::clone(&ring);
    let produce = move || {
        let (mut tail, mut spin) = (0, Spin::default());
        while (tail as u64) < count {
            while tail + BATCH as usize - ring.head.0.load(Ordering::Acquire) > MASK + 1 {
                spin.once();
            }
            for _ in 0..BATCH {
                // SAFETY: masked; between tail and head plus length only the producer writes.
                unsafe {
                    *ring.records.get_unchecked(tail & MASK).get() = [3, tail as u64, tail as u64];
                }
                tail += 1;
            }
            ring.tail.0.store(tail, Ordering::Release);
        }
    };
    let consume = move || {
        let (mut head, mut sum, mut spin) = (0, 0u64, Spin::default());
        while (head as u64) < count {
            let tail = other.tail.0.load(Ordering::Acquire).min(head + BATCH as usize);
            if head == tail {
                spin.once();
            }
            while head < tail {
                // SAFETY: masked; published and not given back yet.
                sum = sum
                    .wrapping_add(unsafe { (*other.records.get_unchecked(head & MASK).get())[2] });
                head += 1;
            }
            other.head.0.store(head, Ordering::Release);
        }
        sum
    };
    race(count, produce, consume)
}

fn array_queue(count: u64) -> f64 {
    let queue = Arc::new(ArrayQueue::<[u64; 3]>::new(RECORDS));
    let other = Arc::clone(&queue);
    let produce = move || {
        let mut spin = Spin::default();
        for next in 0..count {
            while queue.push([3, next, next]).is_err() {
                spin.once();
            }
        }
    };
    let consume = move || {
        let (mut seen, mut sum, mut spin) = (0, 0u64, Spin::default());
        while seen < count {
            match other.pop() {
                Some(record) => {
                    sum = sum.wrapping_add(record[2]);
                    seen += 1;
                }
                None => spin.once(),
            }
        }
        sum
    };
    race(count, produce, consume)
}

/// A record's first word says how long it is: three words.
fn record_head() -> Word {
    Word::new(3)
}
