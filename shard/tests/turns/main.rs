//! What a turn may count on: timers, async turns, deadlines, fairness, overload. Several shards are
//! driven by one thread, each polled when a seeded random sequence says so. Every promise has a
//! test that is named after it.

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
