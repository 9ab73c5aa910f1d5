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

    drop(taken);
    server.settle();
    // One more may be turned away, by the spare descriptor that was given up before.
    let answered = (0..2).any(|_| {
        let mut stream = server.connect();
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut reply).is_ok()
    });
    assert!(answered, "peers are taken again");
    early.write_all(b"PING\r\n").expect("sent");
    early.read_exact(&mut reply).expect("the old connection never noticed");
    drop(early);
    server.stop();
}
