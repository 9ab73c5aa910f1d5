//! Coreside's timing wheel beside a binary heap and tokio's wheel: ten million timers.
//!
//! Each timer has 24 bytes of value and a random deadline within a minute. All are set, then time
//! goes on by a millisecond at a time, and what is due is taken out. In one variant all of them
//! fire; in the other nine of ten are cancelled first, in the order in which they were set, as most
//! timeouts are. Measured is the time that the thread had on a core. A ratio above 1 means that
//! ours takes less.
//!
//! What is fair:
//! * `BinaryHeap` holds deadlines and numbers; values stand in a table beside it, and to cancel is
//!   to empty a place there (lazy deletion). Places are not used again, which would cost more.
//! * `DelayQueue` runs under tokio's paused clock, advanced by hand, so it never waits. The advance
//!   itself, 60,000 times, is in its time, and is small beside it with millions of timers.
//! * Both are given their capacity in advance. Ours grows, as it would in a shard.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::coop::unconstrained;
use tokio_util::time::{DelayQueue, delay_queue};

use crate::cores::thread_time_ns;
use crate::{Options, Rows, Summary};

use wheel::{TimerId, Wheel};

// The file itself: it needs nothing else of its crate, and is no part of the crate's interface.
#[allow(dead_code, reason = "a shard uses more of it")]
#[path = "../../../shard/src/timer.rs"]
mod wheel;

type Value = [u64; 3];

const SPAN_MS: u64 = 60_000;
const MS_NS: u64 = 1_000_000;

/// Ours has a tick of a little more than a millisecond, so the last may come after the span.
const LAST_MS: u64 = SPAN_MS + 2;

const PHASES: [&str; 4] = ["insert", "cancel", "fire", "life"];

/// One program: its name, and what a round takes it.
type Rival = (&'static str, fn(&Work) -> Sample);

const RIVALS: [Rival; 3] = [
    ("wheel (ours)", measure::<Wheels>),
    ("BinaryHeap", measure::<Heap>),
    ("tokio DelayQueue", measure::<Delays>),
];

/// What all of them do.
struct Work {
    name: &'static str,
    deadlines_ns: Vec<u64>,
    /// Numbers of the timers that are cancelled.
    cancelled: Vec<u32>,
}

/// Nanoseconds per timer that is set, cancelled, fired; and of all three per timer set. Not a
/// number where there is no such timer.
type Sample = [f64; PHASES.len()];

/// Sets and fires timers of which the first word is their number.
trait Timers {
    fn new(timers_max: usize) -> Self;

    /// Sets a timer for each deadline.
    fn insert(&mut self, deadlines_ns: &[u64]);

    /// Cancels timers by their numbers.
    fn cancel(&mut self, numbers: &[u32]);

    /// Lets the time go on to the end of the span; returns how many fired, and their sum.
    fn fire(&mut self) -> (u64, u64);
}

/// Measures all of them, and prints and returns it.
pub fn run(options: &Options) -> Rows {
    let count = if options.small { 100_000 } else { 10_000_000 };
    let rounds = options.rounds.unwrap_or(3);
    println!(
        "timers: {count} within {SPAN_MS} ms, polled every ms; ns per timer set, cancelled, fired, \
         and for all of its life; median (min..max) of {rounds} rounds"
    );
    let mut rows = Rows::new();
    let works = [Work::new("all-fire", count, 0), Work::new("most-cancelled", count, 9)];
    let mut samples = vec![[const { Vec::new() }; RIVALS.len()]; works.len()];
    for _ in 0..rounds {
        for (work, samples) in works.iter().zip(&mut samples) {
            for ((_, run), samples) in RIVALS.iter().zip(samples) {
                samples.push(run(work));
            }
        }
    }
    for (work, samples) in works.iter().zip(&samples) {
        print_table(work, samples);
        rows.extend(compare(work, samples));
    }
    rows
}

fn print_table(work: &Work, samples: &[Vec<Sample>; RIVALS.len()]) {
    print!("{:<20}", work.name);
    println!("{:>20}{:>20}{:>20}{:>20}", PHASES[0], PHASES[1], PHASES[2], PHASES[3]);
    for ((rival, _), samples) in RIVALS.iter().zip(samples) {
        print!("{rival:<20}");
        for phase in 0..PHASES.len() {
            let Summary { median, min, max } = Summary::of(samples.iter().map(|s| s[phase]));
            let figures = format!("{median:.0} ({min:.0}..{max:.0})");
            print!("{:>20}", if median.is_nan() { "-" } else { &figures });
        }
        println!();
    }
}

/// One row for each rival and phase that there is.
fn compare(work: &Work, samples: &[Vec<Sample>; RIVALS.len()]) -> Rows {
    let mut rows = Rows::new();
    for ((rival, _), theirs) in RIVALS.iter().zip(samples).skip(1) {
        for (at, phase) in PHASES.iter().enumerate() {
            let ours = Summary::of(samples[0].iter().map(|s| s[at]));
            if ours.median.is_nan() {
                continue;
            }
            let ratio = samples[0].iter().zip(theirs).map(|(ours, theirs)| theirs[at] / ours[at]);
            rows.push(serde_json::json!({
                "bench": format!("timers/{}/{phase}", work.name),
                "ours": ours.median, "rival": rival,
                "theirs": Summary::of(theirs.iter().map(|s| s[at])).median,
                "ratio": Summary::of(ratio).median,
                "unit": "ns", "min": ours.min, "max": ours.max,
            }));
        }
    }
    rows
}

impl Work {
    /// `count` timers, of which `tenths` of ten are cancelled: the same on every run.
    fn new(name: &'static str, count: u32, tenths: u64) -> Self {
        // Xorshift (Marsaglia 2003).
        let mut random = 88_172_645_463_325_252_u64;
        let mut below = |end: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            ((u128::from(random) * u128::from(end)) >> 64) as u64
        };
        let deadlines_ns = (0..count).map(|_| below(SPAN_MS * MS_NS)).collect();
        let cancelled = (0..count).filter(|_| below(10) < tenths).collect();
        Self { name, deadlines_ns, cancelled }
    }

    /// How many are to fire, and the sum of their numbers.
    fn expected(&self) -> (u64, u64) {
        let count = self.deadlines_ns.len() as u64;
        let cancelled: u64 = self.cancelled.iter().map(|number| u64::from(*number)).sum();
        (count - self.cancelled.len() as u64, count * (count - 1) / 2 - cancelled)
    }
}

fn measure<T: Timers>(work: &Work) -> Sample {
    let mut timers = T::new(work.deadlines_ns.len());
    let start_ns = thread_time_ns();
    timers.insert(&work.deadlines_ns);
    let insert_ns = thread_time_ns() - start_ns;
    timers.cancel(&work.cancelled);
    let cancel_ns = thread_time_ns() - start_ns - insert_ns;
    let fired = timers.fire();
    let life_ns = thread_time_ns() - start_ns;
    assert_eq!(fired, work.expected(), "timers were lost or doubled");
    let set = work.deadlines_ns.len() as f64;
    [
        insert_ns / set,
        if work.cancelled.is_empty() { f64::NAN } else { cancel_ns / work.cancelled.len() as f64 },
        (life_ns - insert_ns - cancel_ns) / fired.0 as f64,
        life_ns / set,
    ]
}

fn value(number: usize) -> Value {
    [number as u64; 3]
}

struct Wheels {
    wheel: Wheel<Value>,
    ids: Vec<TimerId>,
}

impl Timers for Wheels {
    fn new(timers_max: usize) -> Self {
        Self { wheel: Wheel::new(timers_max as u32, 0), ids: Vec::with_capacity(timers_max) }
    }

    fn insert(&mut self, deadlines_ns: &[u64]) {
        for (number, deadline_ns) in deadlines_ns.iter().enumerate() {
            self.ids.push(self.wheel.insert(*deadline_ns, value(number)).expect("room"));
        }
    }

    fn cancel(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.wheel.cancel(self.ids[*number as usize]).expect("it is set");
        }
    }

    fn fire(&mut self) -> (u64, u64) {
        let (mut count, mut sum) = (0, 0);
        for now_ms in 1..=LAST_MS {
            while let Some(due) = self.wheel.pop_due(now_ms * MS_NS, &mut { u32::MAX }) {
                count += 1;
                sum += self.wheel.cancel(due).expect("it has fired")[0];
            }
        }
        (count, sum)
    }
}

struct Heap {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    values: Vec<Option<Value>>,
}

impl Timers for Heap {
    fn new(timers_max: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(timers_max), values: Vec::with_capacity(timers_max) }
    }

    fn insert(&mut self, deadlines_ns: &[u64]) {
        for (number, deadline_ns) in deadlines_ns.iter().enumerate() {
            self.values.push(Some(value(number)));
            self.heap.push(Reverse((*deadline_ns, number as u32)));
        }
    }

    fn cancel(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.values[*number as usize].take().expect("it is set");
        }
    }

    fn fire(&mut self) -> (u64, u64) {
        let (mut count, mut sum) = (0, 0);
        for now_ms in 1..=LAST_MS {
            while let Some(Reverse((deadline_ns, number))) = self.heap.peek().copied()
                && deadline_ns <= now_ms * MS_NS
            {
                self.heap.pop();
                if let Some(value) = self.values[number as usize].take() {
                    count += 1;
                    sum += value[0];
                }
            }
        }
        (count, sum)
    }
}

struct Delays {
    runtime: Runtime,
    queue: DelayQueue<Value>,
    keys: Vec<delay_queue::Key>,
}

impl Timers for Delays {
    fn new(timers_max: usize) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let queue = runtime.block_on(async { DelayQueue::with_capacity(timers_max) });
        Self { runtime, queue, keys: Vec::with_capacity(timers_max) }
    }

    fn insert(&mut self, deadlines_ns: &[u64]) {
        self.runtime.block_on(async {
            let start = tokio::time::Instant::now();
            for (number, deadline_ns) in deadlines_ns.iter().enumerate() {
                let deadline = start + Duration::from_nanos(*deadline_ns);
                self.keys.push(self.queue.insert_at(value(number), deadline));
            }
        });
    }

    fn cancel(&mut self, numbers: &[u32]) {
        self.runtime.block_on(async {
            for number in numbers {
                self.queue.remove(&self.keys[*number as usize]);
            }
        });
    }

    fn fire(&mut self) -> (u64, u64) {
        let (mut count, mut sum) = (0, 0);
        let queue = &mut self.queue;
        self.runtime.block_on(unconstrained(async {
            for _ in 0..LAST_MS {
                tokio::time::advance(Duration::from_millis(1)).await;
                poll_fn(|context| {
                    while let Poll::Ready(Some(expired)) = queue.poll_expired(context) {
                        count += 1;
                        sum += expired.get_ref()[0];
                    }
                    Poll::Ready(())
                })
                .await;
            }
        }));
        (count, sum)
    }
}
