//! System calls belong to passes, not to messages.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::driver;
use crate::fake::Fake;
use coreside_net::{DriverKind, Listeners, Net, NetConfig, listen};

const CONNECTIONS: usize = 64;
const REPLY: &[u8] = b"$10\r\nvalue of a\r\n";

/// A net that makes a pass when the test says so, with its clients.
struct Rig {
    net: Net,
    fake: Fake,
    streams: Vec<TcpStream>,
}

impl Rig {
    fn new() -> Self {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = listen(address, 1).expect("a port").remove(0);
        let address = listener.local_addr().expect("bound");
        let listeners = Listeners { resp: Some(listener), ..Listeners::default() };
        let net = Net::new(driver::driven(NetConfig::default()), listeners).expect("a net");
        let mut rig = Self { net, fake: Fake::default(), streams: Vec::new() };
        for _ in 0..CONNECTIONS {
            rig.streams.push(TcpStream::connect(address).expect("the net listens"));
            rig.pass();
        }
        while rig.net.connection_count() < CONNECTIONS {
            rig.pass();
        }
        rig.idle();
        rig
    }

    fn pass(&mut self) {
        self.net.receive(&mut self.fake);
        self.fake.answer_all(self.net.outside());
        self.net.flush().expect("the engine works");
    }

    /// Many passes without anything to do.
    fn idle(&mut self) {
        for _ in 0..1000 {
            self.pass();
        }
    }

    /// Every connection asks so often at once and is answered. Returns the system calls.
    fn round(&mut self, depth: usize) -> u64 {
        for stream in &mut self.streams {
            stream.write_all(&b"GET a\r\n".repeat(depth)).expect("sent");
        }
        let (before, stats) = (self.net.stats().enters, self.net.stats().sessions);
        let until = stats.requests + (CONNECTIONS * depth) as u64;
        while self.net.stats().sessions.requests < until || self.net.has_unfinished_work() {
            self.pass();
        }
        let calls = self.net.stats().enters - before;
        for stream in &mut self.streams {
            let mut replies = vec![0; REPLY.len() * depth];
            stream.read_exact(&mut replies).expect("answered");
            assert_eq!(replies, REPLY.repeat(depth));
        }
        self.idle();
        calls
    }
}

#[test]
fn requests_of_64_connections_share_their_system_calls() {
    let mut rig = Rig::new();
    for depth in [1, 16] {
        for _ in 0..10 {
            let requests = (CONNECTIONS * depth) as u64;
            let calls = rig.round(depth);
            if driver::driven(NetConfig::default()).driver == DriverKind::Epoll {
                // One to ask, and one each to receive and to send.
                assert!(calls <= 2 * CONNECTIONS as u64 + 2, "{calls} for {requests}");
            } else {
                // One that collects, one that submits, one that collects the ends of the sends; a
                // busy kernel may bring the requests in more than one piece.
                assert!(calls <= 6 && calls * 10 <= requests, "{calls} for {requests}");
            }
        }
    }
}

#[test]
fn passes_with_nothing_to_do_make_no_system_call() {
    let mut rig = Rig::new();
    rig.round(1);
    let before = rig.net.stats().enters;
    rig.idle();
    assert_eq!(rig.net.stats().enters, before);
}
