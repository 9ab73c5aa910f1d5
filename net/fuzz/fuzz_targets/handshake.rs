//! Arbitrary bytes as what follows the header of a hello, and of a welcome.

#![no_main]

#[path = "../../tests/support/handshake_property.rs"]
#[expect(dead_code, reason = "frames have a target of their own")]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check_handshake(bytes));
