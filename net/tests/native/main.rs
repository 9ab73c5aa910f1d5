//! The native protocol over real sockets: what clients and nodes promise each other.

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/driver.rs"]
mod driver;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/read_frame.rs"]
mod read_frame;

mod client;
mod entities;
mod large_frames;
mod node;
mod tls;
