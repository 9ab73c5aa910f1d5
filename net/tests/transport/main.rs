//! What the transport promises, over real sockets: to be run on either driver.

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/driver.rs"]
mod driver;
#[path = "../support/fake.rs"]
mod fake;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/server.rs"]
mod server;

mod calls;
mod park;
mod room;
mod sockets;
mod zero_copy;
