//! What sessions promise, bytes in and bytes out: without sockets, at times that the tests choose.

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/driver.rs"]
mod driver;
#[path = "../support/fake.rs"]
mod fake;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/reference.rs"]
mod reference;
#[path = "../support/replies.rs"]
mod replies;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/trust.rs"]
mod trust;

mod deadlines;
mod resp;
mod rights;
mod tls;
mod totals;
