//! Arbitrary bytes to a port with TLS, and arbitrary changes of the records of a real client.

#![no_main]

use std::sync::LazyLock;

#[path = "../../tests/support/certificates.rs"]
mod certificates;
#[path = "../../tests/support/fake.rs"]
mod fake;
#[path = "../../tests/support/trust.rs"]
mod trust;
#[path = "../../tests/support/tls_property.rs"]
mod property;

static SETTING: LazyLock<property::Setting> = LazyLock::new(property::Setting::new);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(&SETTING, bytes));
