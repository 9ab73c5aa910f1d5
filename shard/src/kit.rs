//! A kit for tests: one entity, without a node, with the time in the test's hands.

mod others;

pub(crate) use others::Others;
