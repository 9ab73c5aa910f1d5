//! Arbitrary bytes, arbitrarily cut, into a native session over a fake shard, bare and behind a
//! handshake. The property is that of `tests/hostile/native.rs`.

#![no_main]

use std::sync::LazyLock;

use coreside_shard::WireRow;

#[path = "../../tests/support/native_property.rs"]
mod property;
#[path = "../../tests/support/random.rs"]
mod random;

static ROWS: LazyLock<Vec<WireRow>> = LazyLock::new(property::rows);
static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| property::seeds(&ROWS).swap_remove(0));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    property::check(&ROWS, bytes);
    property::check(&ROWS, &[HELLO.as_slice(), bytes].concat());
});
