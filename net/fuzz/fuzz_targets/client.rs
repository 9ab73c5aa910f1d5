//! Arbitrary bytes from a node to a client, over a real socket.

#![no_main]

use std::sync::LazyLock;

#[path = "../../tests/support/client_property.rs"]
mod property;

// The engine calls from one thread only; the node's ends of channels know no other either.
static NODE: LazyLock<std::sync::Mutex<property::Node>> =
    LazyLock::new(|| std::sync::Mutex::new(property::Node::new()));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    property::check(&NODE.lock().expect("no panic is survived"), bytes);
});
