//! Coreside's ring beside rtrb's and crossbeam's: 24-byte records between two cores, batches of 64.
//!
//! All of them carry the same payload in as many bytes (256 KiB), from a thread on one core to a
//! thread on another, interleaved, in one process. A ratio above 1 means that ours moves more.

use std::sync::Arc;
use std::time::Instant;

use coreside_shard::Word;
use crossbeam_queue::ArrayQueue;

use crate::cores::pin;
use crate::{Options, Rows, Summary};

const BATCH: u64 = 64;
/// Records per round.
const COUNT: u64 = 40_000_000 / BATCH * BATCH;
const COUNT_SMALL: u64 = COUNT / 100 / BATCH * BATCH;
const BYTES: usize = 256 << 10;
const RECORDS: usize = BYTES / 24;

/// One program: its name, and how many millions of records per second it moves, given their count.
type Rival = (&'static str, fn(u64) -> f64);

const RIVALS: &[Rival] = &[
    ("rtrb chunks(64)", rtrb_chunks),
    ("rtrb push/pop", rtrb_single),
    ("crossbeam ArrayQueue", array_queue),
];

/// Races all of them, and prints and returns what they did.
pub fn run(options: &Options) -> Rows {
    let (rounds, count) = if options.small { (1, COUNT_SMALL) } else { (9, COUNT) };
    let rounds = options.rounds.unwrap_or(rounds);
    let mut samples = vec![Vec::new(); RIVALS.len() + 1];
    for _ in 0..rounds {
        samples[0].push(ours(count));
        for (place, (_, run)) in RIVALS.iter().enumerate() {
            samples[place + 1].push(run(count));
        }
    }
    println!(
        "{:<24}{:>10}{:>10}{:>8}{:>18}",
        "ring/24B beside", "ours", "theirs", "ratio", "ours min..max"
    );
    let mut rows = Rows::new();
    for ((rival, _), theirs) in RIVALS.iter().zip(&samples[1..]) {
        let ratio = Summary::of(samples[0].iter().zip(theirs).map(|(a, b)| a / b)).median;
        let ours = Summary::of(samples[0].iter().copied());
        let theirs = Summary::of(theirs.iter().copied());
        println!(
            "{rival:<24}{:>10.1}{:>10.1}{ratio:>8.2}{:>10.1}..{:.1}",
            ours.median, theirs.median, ours.min, ours.max
        );
        rows.push(serde_json::json!({
            "bench": "ring/24B", "ours": ours.median, "rival": rival, "theirs": theirs.median,
            "ratio": ratio, "unit": "M/s", "min": ours.min, "max": ours.max,
        }));
    }
    rows
}

/// Millions of records per second, of `count` from `produce` on the first core to `consume` on the
/// second.
fn race(count: u64, produce: impl FnOnce() + Send, consume: impl FnOnce() -> u64 + Send) -> f64 {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            produce();
        });
        pin(1);
        let start = Instant::now();
        let sum = consume();
        let rate = count as f64 / start.elapsed().as_secs_f64() / 1e6;
        assert_eq!(sum, count * (count - 1) / 2, "records were lost or doubled");
        rate
    })
}

fn ours(count: u64) -> f64 {
    let (mut producer, mut consumer) = coreside_shard::ring(BYTES / 8);
    race(
        count,
        move || {
            for batch in 0..count / BATCH {
                for next in batch * BATCH..(batch + 1) * BATCH {
                    // The first word of a record says how long it is.
                    let record = [Word::new(3), Word::new(next), Word::new(next)];
                    while producer.push(&record).is_err() {
                        producer.publish();
                        std::hint::spin_loop();
                    }
                }
                producer.publish();
            }
        },
        move || {
            let (mut seen, mut sum) = (0, 0);
            while seen < count {
                let before = seen;
                while seen - before < BATCH
                    && let Some(record) = consumer.pop()
                {
                    // SAFETY: the producer writes all three words.
                    sum += unsafe { record[2].assume_init() };
                    seen += 1;
                }
                consumer.release();
                if seen == before {
                    std::hint::spin_loop();
                }
            }
            sum
        },
    )
}

fn rtrb_chunks(count: u64) -> f64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<[u64; 3]>::new(RECORDS);
    race(
        count,
        move || {
            for batch in 0..count / BATCH {
                let first = batch * BATCH;
                loop {
                    if let Ok(chunk) = producer.write_chunk_uninit(BATCH as usize) {
                        chunk.fill_from_iter((first..first + BATCH).map(|next| [3, next, next]));
                        break;
                    }
                    std::hint::spin_loop();
                }
            }
        },
        move || {
            let (mut seen, mut sum) = (0, 0);
            while seen < count {
                match consumer.read_chunk(BATCH as usize) {
                    Ok(chunk) => {
                        for record in chunk {
                            sum += record[2];
                            seen += 1;
                        }
                    }
                    Err(_) => std::hint::spin_loop(),
                }
            }
            sum
        },
    )
}

fn rtrb_single(count: u64) -> f64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<[u64; 3]>::new(RECORDS);
    race(
        count,
        move || {
            for next in 0..count {
                while producer.push([3, next, next]).is_err() {
                    std::hint::spin_loop();
                }
            }
        },
        move || {
            let (mut seen, mut sum) = (0, 0);
            while seen < count {
                match consumer.pop() {
                    Ok(record) => {
                        sum += record[2];
                        seen += 1;
                    }
                    Err(_) => std::hint::spin_loop(),
                }
            }
            sum
        },
    )
}

fn array_queue(count: u64) -> f64 {
    let queue = Arc::new(ArrayQueue::<[u64; 3]>::new(RECORDS));
    let other = Arc::clone(&queue);
    race(
        count,
        move || {
            for next in 0..count {
                while queue.push([3, next, next]).is_err() {
                    std::hint::spin_loop();
                }
            }
        },
        move || {
            let (mut seen, mut sum) = (0, 0);
            while seen < count {
                match other.pop() {
                    Some(record) => {
                        sum += record[2];
                        seen += 1;
                    }
                    None => std::hint::spin_loop(),
                }
            }
            sum
        },
    )
}
