//! What happens when the process has no descriptor left. One test: it takes them all.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/fake.rs"]
mod fake;
#[path = "support/server.rs"]
mod server;

use std::fs::File;
use std::io::{Read, Write};

use coreside_net::NetConfig;
use server::Server;

#[test]
fn peers_are_turned_away_while_there_are_no_descriptors_and_taken_again_after() {
    let server = Server::start(NetConfig::default());
    let mut early = server.connect();
    early.write_all(b"PING\r\n").expect("sent");
    let mut reply = [0; 7];
    early.read_exact(&mut reply).expect("the reply comes");

    // The accept that is under way has its descriptor already, so two are needed to see a refusal.
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut turned_away = 0;
    for _ in 0..10 {
        taken.pop();
        let mut stream = server.connect();
        stream.write_all(b"PING\r\n").expect("sent");
        let served = stream.read_exact(&mut reply).is_ok();
        turned_away += usize::from(!served);
        drop(stream);
        server.settle();
        taken.extend(File::open("/dev/null"));
    }
    assert!(turned_away > 0, "the case did not arise");

    // While the last of them keeps its descriptor there is none for an accept.
    taken.pop();
    let mut last = server.connect();
    assert!(last.read_exact(&mut reply).is_err(), "it is turned away");
    server.settle();
    drop(taken);
    let mut next = server.connect();
    next.write_all(b"PING\r\n").expect("sent");
    next.read_exact(&mut reply).expect("peers are taken as soon as there are descriptors");
    early.write_all(b"PING\r\n").expect("sent");
    early.read_exact(&mut reply).expect("the old connection never noticed");
    drop(early);
    server.stop();
}
