//! Nodes in processes of their own: this binary, started again for one of its ignored tests.

#[path = "../../../net/tests/support/certificates.rs"]
mod certificates;
#[path = "../support/filter.rs"]
mod filter;

mod driver;
mod flood;
mod signals;
