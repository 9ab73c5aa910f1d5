//! The suite: scenarios, workloads, the book they keep, and the oracles that read it. A part of the
//! example `sim` and of the test that goes by the same name.

pub(crate) mod book;
pub(crate) mod oracles;
pub(crate) mod run;
pub(crate) mod scenario;
pub(crate) mod workload;
