//! What shards promise, several of them driven by one thread, each polled when a seeded random
//! sequence says so. Every promise has a test that is named after it.

mod actor;
mod asks;
mod book;
mod bounds;
mod broken;
mod faults;
mod groups;
mod kept;
mod keys;
mod large;
mod life;
mod listener;
mod look_ahead;
mod mesh;
mod model;
mod order;
mod panics_in_drops;
mod random;
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod shards;
mod stopping;
mod sweeps;
mod views;
mod watch_point;
