//! How long a connection may take, and how many there may be: sessions without sockets, at times
//! that the tests choose.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::fake::Fake;
use crate::send_all;
use crate::server::Server;
use coreside_net::native::frame::{Header, Kind};
use coreside_net::native::{self, Hello};
use coreside_net::sessions::{Deadlines, Session, SessionId, Sessions, Talk};
use coreside_net::{Limits, NetConfig, listen, resp};

/// Deadlines are kept to two granules of the wheel.
const SLACK_MS: u64 = 270;

/// One connection, and the time.
struct Line<S: Session> {
    sessions: Sessions<S>,
    fake: Fake,
    id: SessionId,
    now_ms: u64,
}

impl<S: Session + Talk<Fake>> Line<S> {
    /// Opened long after the clock began.
    fn new(limits: S::Limits) -> Self {
        let mut sessions = Sessions::new(limits);
        let now_ms = 1_000_000;
        sessions.tick(now_ms * 1_000_000);
        let id = sessions.open(None).expect("room for one");
        Self { sessions, fake: Fake::default(), id, now_ms }
    }

    /// Lets time pass in steps of 10 ms; returns whether the connection is still open.
    fn pass_ms(&mut self, ms: u64) -> bool {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            self.sessions.tick(self.now_ms * 1_000_000);
        }
        !self.sessions.is_finished(self.id)
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.sessions.receive(self.id, bytes, &mut self.fake);
    }

    /// What is sent.
    fn output(&mut self) -> Vec<u8> {
        send_all(&mut self.sessions, self.id)
    }
}

fn hello() -> Vec<u8> {
    let hello = Hello { versions: (1, 1), shard: None, cluster: 0, messages: Vec::new() };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}

fn frame(kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header::new(kind).write(&mut bytes);
    bytes
}

fn greeted() -> Line<native::Session> {
    let mut line = Line::<native::Session>::new(native::Limits::default());
    line.receive(&hello());
    assert_eq!(line.output()[4], Kind::Welcome as u8);
    line
}

#[test]
fn connection_that_says_nothing_is_closed() {
    let mut line = Line::<native::Session>::new(native::Limits::default());
    assert!(line.pass_ms(1_990));
    assert!(!line.pass_ms(SLACK_MS));
    assert_eq!(line.sessions.stats().timeouts, 1);
    let mut line = Line::<resp::Session>::new(Limits::default());
    assert!(line.pass_ms(29_990));
    assert!(!line.pass_ms(SLACK_MS));
}

#[test]
fn slow_handshake_is_closed_though_bytes_keep_coming() {
    let mut line = Line::<native::Session>::new(native::Limits::default());
    for byte in &hello()[..10] {
        assert!(line.pass_ms(490));
        line.receive(&[*byte]);
    }
    assert!(!line.pass_ms(100 + SLACK_MS));
    assert_eq!(line.sessions.stats().timeouts, 1);
}

#[test]
fn frame_that_never_ends_is_no_sign_of_life() {
    let mut line = greeted();
    let mut ping = frame(Kind::Ping);
    ping[0] = 100;
    line.receive(&ping);
    for second in 0..59 {
        assert!(line.pass_ms(1_000), "second {second}");
        line.receive(&[0]);
    }
    assert!(!line.pass_ms(1_000 + SLACK_MS));
}

#[test]
fn idle_client_is_asked_for_a_sign_of_life_and_lives_if_it_gives_one() {
    let mut line = greeted();
    for _ in 0..10 {
        assert!(line.pass_ms(29_990));
        assert_eq!(line.output(), b"", "it is not asked before its time");
        assert!(line.pass_ms(SLACK_MS));
        assert_eq!(line.output(), frame(Kind::Ping));
        line.receive(&frame(Kind::Pong));
    }
    assert!(line.pass_ms(59_990));
    assert_eq!(line.output(), frame(Kind::Ping), "asked once");
    assert!(!line.pass_ms(SLACK_MS));
}

#[test]
fn idle_client_is_closed_although_its_handshake_could_take_any_time() {
    let deadlines = Deadlines { idle: Some(Duration::from_secs(60)), ..Deadlines::NONE };
    let limits = native::Limits { deadlines, ..native::Limits::default() };
    let mut line = Line::<native::Session>::new(limits);
    assert!(line.pass_ms(100_000));
    line.receive(&hello());
    assert_eq!(line.output()[4], Kind::Welcome as u8);
    assert!(line.pass_ms(30_000 + SLACK_MS));
    assert_eq!(line.output(), frame(Kind::Ping));
    assert!(line.pass_ms(29_000));
    assert!(!line.pass_ms(1_000 + SLACK_MS));
}

#[test]
fn redis_clients_may_idle_as_long_as_they_like() {
    let mut line = Line::<resp::Session>::new(Limits::default());
    line.receive(b"PING\r\n");
    assert_eq!(line.output(), b"+PONG\r\n");
    // Whether the last send was read is the last thing that is looked at.
    line.pass_ms(61_000);
    assert_eq!(line.sessions.next_deadline_ns(), None, "the shard may sleep");
    assert!(line.pass_ms(1_000_000));
}

#[test]
fn whoever_waits_for_an_answer_is_not_idle() {
    let idle = Some(Duration::from_secs(10));
    let limits = Limits { deadlines: Deadlines { idle, ..Deadlines::NONE }, ..Limits::default() };
    let mut line = Line::<resp::Session>::new(limits);
    line.receive(b"GET key\r\n");
    assert!(line.pass_ms(100_000), "the answer is owed");
    line.fake.answer(0, &mut line.sessions);
    assert!(!line.output().is_empty());
    assert!(line.pass_ms(4_000), "just answered");
    assert!(!line.pass_ms(10_000 + SLACK_MS));
}

#[test]
fn peer_that_does_not_read_is_closed_and_a_slow_one_is_not() {
    let mut line = Line::<resp::Session>::new(Limits::default());
    line.receive(b"PING\r\n");
    assert_eq!(line.sessions.begin_send(line.id), Some(b"+PONG\r\n".as_slice()));
    for _ in 0..6 {
        assert!(line.pass_ms(29_000));
        assert!(line.sessions.end_send(line.id, 1).is_some(), "one byte was taken");
    }
    assert!(line.pass_ms(29_990));
    assert!(!line.pass_ms(SLACK_MS));
    assert_eq!(line.sessions.stats().timeouts, 1);
}

#[test]
fn without_a_clock_nothing_is_ever_due() {
    let mut sessions = native::Sessions::new(native::Limits::default());
    let id = sessions.open(None).expect("room");
    assert!(!sessions.is_finished(id));
    assert!(sessions.next_deadline_ns().is_some(), "it would be, if somebody said the time");
}

/// A flood from one address takes its own share only, and what it takes is given back.
#[test]
fn flood_of_one_address_leaves_room_for_others() {
    let limits = Limits { connections_per_address_max: 10, ..Limits::default() };
    let mut sessions = resp::Sessions::new(limits);
    let peer = |text: &str| Some(text.parse::<SocketAddr>().expect("an address"));
    let mut open = Vec::new();
    for port in 0..20_000u16 {
        open.extend(sessions.open(peer(&format!("198.51.100.7:{port}"))));
    }
    assert_eq!((open.len(), sessions.open_count()), (10, 10));
    assert_eq!(sessions.stats().address_refusals, 19_990);
    assert!(sessions.open(peer("198.51.100.8:1")).is_some(), "another address");
    for port in 0..100 {
        let proxy = sessions.open(peer(&format!("127.0.0.1:{port}")));
        assert!(proxy.is_some(), "the machine itself is not counted");
    }
    sessions.close(open[0]);
    assert!(sessions.open(peer("198.51.100.7:1")).is_some(), "one has gone");
    assert!(sessions.open(peer("198.51.100.7:1")).is_none());
}

/// However many connect at once and say nothing, all are gone when their time is over, and so is
/// what they took.
#[test]
fn flood_of_half_open_connections_passes() {
    let mut sessions = native::Sessions::new(native::Limits::default());
    let mut now_ms = 0;
    for wave in 0..20u8 {
        let peer = |at: u32| SocketAddr::from(([203, 0, wave, (at % 250) as u8], at as u16));
        let ids: Vec<_> = (0..12_000).filter_map(|at| sessions.open(Some(peer(at)))).collect();
        assert_eq!(ids.len(), 10_000, "as many as a shard takes");
        for _ in 0..250 {
            now_ms += 10;
            sessions.tick(now_ms * 1_000_000);
        }
        for _ in 0..10_000 {
            let id = sessions.next_dirty().expect("all are to be closed");
            assert!(sessions.is_finished(id));
            sessions.close(id);
        }
        assert_eq!((sessions.next_dirty(), sessions.open_count()), (None, 0));
    }
    assert_eq!(sessions.stats().timeouts, 200_000);
}

#[test]
fn deadlines_close_sockets() {
    let deadlines =
        Deadlines { first_byte: Some(Duration::from_secs(2)), ..Limits::default().deadlines };
    let limits = Limits { deadlines, ..Limits::default() };
    let server = Server::start(NetConfig { limits, ..NetConfig::default() });
    let mut silent: Vec<_> = (0..50).map(|_| server.connect()).collect();
    let mut talks = server.connect();
    std::io::Write::write_all(&mut talks, b"PING\r\n").expect("it is open");
    let mut pong = [0; 7];
    talks.read_exact(&mut pong).expect("the reply comes");
    server.settle();
    assert_eq!(server.connections(), 51);
    server.shared.now_ns.store(2_500_000_000, Ordering::SeqCst);
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 16]).expect("an orderly end"), 0);
    }
    server.settle();
    assert_eq!(server.connections(), 1);
    assert_eq!(server.stop().sessions.timeouts, 50);
}

/// It is one send of the node, however long that takes.
#[test]
fn peer_that_reads_a_long_reply_slowly_gets_all_of_it() {
    const STEPS: usize = 16;
    const STEP_BYTES: usize = 512 << 10;
    let listener =
        listen("127.0.0.1:0".parse().expect("an address"), 1).expect("a port is free").remove(0);
    let address = listener.local_addr().expect("it is bound");
    // Connections take it over: the kernel holds little that the peer has not read.
    socket2::SockRef::from(&listener).set_send_buffer_size(64 << 10).expect("a size");
    let server = Server::on(listener, address, NetConfig::default(), None);
    let mut stream = server.connect();
    socket2::SockRef::from(&stream).set_recv_buffer_size(64 << 10).expect("a size");
    let len = STEPS * STEP_BYTES;
    std::io::Write::write_all(&mut stream, format!("*2\r\n$4\r\nECHO\r\n${len}\r\n").as_bytes())
        .expect("sent");
    std::io::Write::write_all(&mut stream, &vec![b'x'; len + 2]).expect("sent");
    let mut step = vec![0; STEP_BYTES];
    for at in 0..STEPS {
        stream.read_exact(&mut step).unwrap_or_else(|error| panic!("step {at}: {error}"));
        server.settle();
        server.shared.now_ns.fetch_add(10_000_000_000, Ordering::SeqCst);
        server.settle();
    }
    assert_eq!(server.stop().sessions.timeouts, 0);
}
