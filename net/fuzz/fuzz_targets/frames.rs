//! Arbitrary bytes as a stream of frames; the first two are the limit of their length.

#![no_main]

#[path = "../../tests/support/handshake_property.rs"]
#[expect(dead_code, reason = "the handshake has a target of its own")]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check_frames(bytes));
