//! What a node promises, seen from outside: by threads that start it, call its entities and stop
//! it.

#[path = "../../../net/tests/support/certificates.rs"]
mod certificates;

mod asks;
mod flow;
mod groups;
mod promises;
mod security;
mod stop;
