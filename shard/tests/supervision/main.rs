//! What a node promises about faults, supervision and the lives of entities: several shards driven
//! by one thread, each polled when a seeded random sequence says so, on a clock of the test's own.
//! Every promise has a test that is named after it.

#[path = "../behaviour/book.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod book;
#[path = "../behaviour/random.rs"]
mod random;
#[path = "../behaviour/shards.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod shards;

mod diary;
mod subject;
mod world;

mod activation;
mod dead_letters;
mod escalation;
mod groups;
mod keep_alive;
mod model;
mod passivation;
mod poison;
mod policies;
mod restart;
mod stopping;
mod watch;
mod wide;
