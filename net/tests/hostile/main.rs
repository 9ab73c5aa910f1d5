//! Any bytes from outside: the properties of the fuzz targets, on a bounded number of mutations.

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/client_property.rs"]
mod client_property;
#[path = "../support/fake.rs"]
mod fake;
#[path = "../support/handshake_property.rs"]
mod handshake_property;
#[path = "../support/native_property.rs"]
mod native_property;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/replies.rs"]
mod replies;
#[path = "../support/hostile.rs"]
mod resp_property;
#[path = "../support/tls_property.rs"]
mod tls_property;
#[path = "../support/trust.rs"]
mod trust;

mod native;
mod peers;
mod resp;
