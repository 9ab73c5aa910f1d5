//! `restart`: from a panic to the next life.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use coreside::{entity, handlers};

use crate::bench_entity::{alone_with, settle};
use crate::limits::State;
use crate::machine;
use crate::measure::{Effort, Row, nanoseconds_each};

/// Entities; each panics once per round.
const ENTITIES: u64 = 512;

/// Fails, and is made anew without a wait.
#[entity(on_fault = restart, backoff = "1us..1us", faults = "4000000000 in 60s")]
struct Fragile {
    turns: u64,
}

#[handlers]
impl Fragile {
    #[local]
    fn strike(&mut self) {
        self.turns += 1;
        panic!("struck");
    }
}

/// Nanoseconds from the message that makes an entity panic to its next state. The limit catches a
/// panic and writes a new state.
pub(crate) fn run(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    let rounds = effort.scaled(200_000) / ENTITIES + 1;
    // A million reports of panics are not what is measured.
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let mut shard = alone_with::<Fragile>();
    let mut now_ns = 0;
    let ours = || {
        nanoseconds_each(|| {
            let before = shard.stats().restarts;
            for _ in 0..rounds {
                for key in 0..ENTITIES {
                    let told = shard.tell::<Fragile, FragileStrike>(key, FragileStrike {});
                    debug_assert!(told.is_ok());
                }
                settle(&mut shard, now_ns);
                // Past the backoff, and what the wheel rounds it up to.
                now_ns += 2_000_000;
                settle(&mut shard, now_ns);
            }
            let restarts = shard.stats().restarts - before;
            assert_eq!(restarts, rounds * ENTITIES, "each panic is followed by one restart");
            restarts
        })
    };
    let mut states = vec![State::default(); ENTITIES as usize];
    let limit = || {
        nanoseconds_each(|| {
            for _ in 0..rounds {
                for state in &mut states {
                    let turn = AssertUnwindSafe(|| strike(state));
                    if catch_unwind(turn).is_err() {
                        *state = State::default();
                    }
                }
            }
            rounds * ENTITIES
        })
    };
    let row = effort.compare("ns", ours, limit);
    set_hook(hook);
    row
}

#[inline(never)]
fn strike(state: &mut State) {
    state.turns += 1;
    panic!("struck");
}
