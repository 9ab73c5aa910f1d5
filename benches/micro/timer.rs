//! `timer` and `timer/bytes`: timers of entities, set and fired.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use coreside::{Cx, entity, handlers};
use coreside_shard::Shard;

use crate::bench_entity::{alone_with, settle};
use crate::limits::State;
use crate::machine;
use crate::measure::{Effort, Random, Row, nanoseconds_each};

/// Timers that are set at one time, each by an entity of its own.
const TIMERS: u64 = 1_000_000;
/// Timers are due within so long.
const SPAN_NS: u64 = 1_000_000_000;
const STEP_NS: u64 = 1_000_000;

/// Sets timers, and counts those that fired.
#[entity]
struct Waiter {
    fired: u64,
}

#[handlers]
impl Waiter {
    #[local]
    fn touch(&mut self) {
        self.fired = 0;
    }

    #[local]
    fn set(&mut self, delay_ns: u64, cx: &mut Cx<Self>) {
        let set = cx.after(Duration::from_nanos(delay_ns), WaiterFire {});
        debug_assert!(set.is_ok());
    }

    #[local]
    fn fire(&mut self) {
        self.fired += 1;
    }
}

/// Nanoseconds for a timer that is set in one turn and fires in another, while a second's worth of
/// others wait. The limit is a binary heap of as many deadlines, and a state for each.
pub(crate) fn run(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    let timers = effort.scaled(TIMERS);
    let mut shard = waiters(timers);
    let mut now_ns = 0;
    let ours = || {
        let before = shard.stats().timers_fired;
        nanoseconds_each(|| {
            set_all(&mut shard, timers, now_ns);
            let end_ns = now_ns + SPAN_NS + 2 * STEP_NS;
            while now_ns < end_ns {
                now_ns += STEP_NS;
                settle(&mut shard, now_ns);
            }
            assert_eq!(shard.stats().timers_fired - before, timers, "each timer fires once");
            timers
        })
    };
    let mut states = vec![State::default(); timers as usize];
    let limit = || {
        let (mut heap, mut random) = (BinaryHeap::new(), Random::new());
        nanoseconds_each(|| {
            for key in 0..timers {
                heap.push(Reverse((random.below(SPAN_NS), key)));
            }
            while let Some(Reverse((_, key))) = heap.pop() {
                states[key as usize].turns += 1;
            }
            std::hint::black_box(&states);
            timers
        })
    };
    effort.compare("ns", ours, limit)
}

/// Bytes per timer that is set, where each entity has one, as the process's resident memory shows
/// them. The limit is an entry of a heap: when, and for whom.
pub(crate) fn footprint(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    // Fewer would be lost in what the process has anyway.
    let timers = if effort.quick { TIMERS / 4 } else { TIMERS };
    let ours = || {
        let mut shard = waiters(timers);
        let before = machine::resident_bytes();
        set_all(&mut shard, timers, 0);
        let after = machine::resident_bytes();
        assert_eq!(shard.timers() as u64, timers);
        after.saturating_sub(before) as f64 / timers as f64
    };
    let limit = || {
        let before = machine::resident_bytes();
        let mut heap = BinaryHeap::with_capacity(timers as usize);
        let mut random = Random::new();
        heap.extend((0..timers).map(|key| Reverse((random.below(SPAN_NS), key))));
        let after = machine::resident_bytes();
        std::hint::black_box(&heap);
        after.saturating_sub(before) as f64 / timers as f64
    };
    effort.compare("B", ours, limit)
}

/// A shard with so many entities.
fn waiters(count: u64) -> Shard {
    let mut shard = alone_with::<Waiter>();
    for key in 0..count {
        let told = shard.tell::<Waiter, WaiterTouch>(key, WaiterTouch {});
        debug_assert!(told.is_ok());
        if key % 512 == 511 {
            settle(&mut shard, 0);
        }
    }
    settle(&mut shard, 0);
    shard
}

/// Each entity sets one timer.
fn set_all(shard: &mut Shard, timers: u64, now_ns: u64) {
    let mut random = Random::new();
    for key in 0..timers {
        let delay_ns = random.below(SPAN_NS);
        let told = shard.tell::<Waiter, WaiterSet>(key, WaiterSet { delay_ns });
        debug_assert!(told.is_ok());
        if key % 512 == 511 {
            settle(shard, now_ns);
        }
    }
    settle(shard, now_ns);
}
