//! What a turn may count on: timers, async turns, deadlines, fairness, overload. Several shards are
//! driven by one thread, each polled when a seeded random sequence says so. Every promise has a
//! test that is named after it.

#[path = "../behaviour/random.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod random;
#[path = "../behaviour/shards.rs"]
mod shards;

mod agent;
mod async_turns;
mod cancellation;
mod cycles;
mod deadlines;
mod fairness;
mod gate;
mod interleaved;
mod many_timers;
mod mesh;
mod notes;
mod overload;
mod panics;
mod reads;
mod receive_timeout;
mod timers;
mod wakers;
