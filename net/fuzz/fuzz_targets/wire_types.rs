//! Arbitrary bytes as each message of the examples that goes on the wire, and as its reply.

#![no_main]

#[path = "../../../runtime/examples/ledger.rs"]
#[expect(dead_code, reason = "only its entity is of use here")]
mod ledger;
#[path = "../../../runtime/tests/support/wire_types.rs"]
#[expect(dead_code, reason = "the corpus holds the seeds")]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(bytes));
