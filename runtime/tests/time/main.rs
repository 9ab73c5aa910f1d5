//! Nodes and the time that passes: shards that sleep, and shards that are held up. These tests look
//! at the threads of the process and let some time pass, so they stand in a binary of their own and
//! take turns.

mod park;
mod stall;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time: the others' work would be in the way of its ticks.
fn take_turns() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
