//! Arbitrary bytes, arbitrarily cut, into a session over a fake shard. The property is that of
//! `tests/hostile/resp.rs`.

#![no_main]

#[path = "../../tests/support/client.rs"]
mod client;
#[path = "../../tests/support/fake.rs"]
mod fake;
#[path = "../../tests/support/hostile.rs"]
mod property;
#[path = "../../tests/support/random.rs"]
mod random;
#[path = "../../tests/support/replies.rs"]
mod replies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(bytes));
