//! Connections come and go; descriptors and memory do not stay. One test: it counts the process's.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/fake.rs"]
mod fake;
#[path = "native/node.rs"]
mod node;
#[path = "support/server.rs"]
mod server;

use std::io::{Read, Write};
use std::thread;

use coreside_macros::{entity, handlers};
use coreside_net::NetConfig;
use coreside_net::client::Client;
use node::Node;
use server::Server;

#[entity(crate = coreside_shard)]
struct Mirror;

#[handlers(crate = coreside_shard)]
impl Mirror {
    #[local]
    #[wire]
    fn echo(&self, word: u64) -> u64 {
        word
    }
}

#[test]
fn storms_of_connections_leave_no_descriptor_and_no_memory_behind() {
    let before = descriptors();
    let server = Server::start(NetConfig::default());
    storm(&server);
    let (descriptors_early, bytes_early) = (descriptors(), resident_bytes());
    for _ in 0..4 {
        storm(&server);
    }
    assert_eq!(descriptors(), descriptors_early);
    let grown = resident_bytes().saturating_sub(bytes_early);
    assert!(grown < 16 << 20, "{grown} bytes more after four storms than after one");
    let stats = server.stop();
    assert_eq!(stats.sessions.opened, 5 * 4 * 500);
    assert_eq!(stats.sessions.closed, stats.sessions.opened);
    assert_eq!(descriptors(), before);
    clients_come_and_go();
    assert_eq!(descriptors(), before, "clients leave some behind");
}

/// Our own, which know all shards of their node.
fn clients_come_and_go() {
    let address = ([127, 0, 0, 1], 0).into();
    let node = Node::at(address, NetConfig::default(), None, |registry| {
        registry.entity::<Mirror>();
    });
    for word in 0..20 {
        let client = Client::builder().entity::<Mirror>().connect(node.address).expect("a client");
        assert_eq!(client.entity::<Mirror>(1).echo(word).wait(), Ok(word));
    }
    assert_eq!(node.stop().native.requests, 2 * 20, "a hello and an ask of each");
}

/// 2,000 connections from four threads: some silent, some cut off, some that read their replies.
fn storm(server: &Server) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let mut stream = server.connect();
                    match round % 4 {
                        0 => {}
                        1 => stream.write_all(b"*2\r\n$3\r\nGET\r\n$100\r\nabc").expect("sent"),
                        2 => stream.write_all(b"GET big\r\nGET big\r\n").expect("sent"),
                        _ => {
                            stream.write_all(b"PING\r\n").expect("sent");
                            let mut reply = [0; 7];
                            stream.read_exact(&mut reply).expect("the reply comes");
                        }
                    }
                }
            });
        }
    });
    server.settle();
    while server.connections() > 0 {
        thread::yield_now();
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = text.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number");
    pages * 4096
}
