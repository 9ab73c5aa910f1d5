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

use coreside_net::sessions::{Session, SessionId, Sessions};

/// What a session sends to a peer that takes all of it.
fn send_all<S: Session>(sessions: &mut Sessions<S>, id: SessionId) -> Vec<u8> {
    let mut output = Vec::new();
    while sessions.next_dirty().is_some() {}
    while let Some(bytes) = sessions.begin_send(id) {
        let len = bytes.len();
        output.extend_from_slice(bytes);
        assert!(sessions.end_send(id, len).is_none());
    }
    output
}
