//! Outputs that are sent without a copy: they arrive whole, and the memory that the kernel reads
//! stays until it says that it is done, and no longer than the peer has time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::driver::driven;
use crate::fake::Fake;
use crate::random::Random;
use crate::server::Server;
use coreside_net::sessions::Deadlines;
use coreside_net::{DriverKind, Limits, Listeners, Net, NetConfig, ZeroCopy, listen};

const LARGE: usize = 3 << 20;

/// Sends from this size on without a copy, although the kernel copies over loopback.
fn forced(min_bytes: u32) -> NetConfig {
    NetConfig { zero_copy: ZeroCopy::AlwaysFrom(min_bytes), ..NetConfig::default() }
}

/// Whether the tests run where there are no such sends. Then they show that nothing is missed.
fn is_epoll() -> bool {
    driven(NetConfig::default()).driver == DriverKind::Epoll
}

/// The command that is answered with `len` random bytes, and the bytes.
fn echo(len: usize, random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let value: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
    let mut request = format!("*2\r\n$4\r\nECHO\r\n${len}\r\n").into_bytes();
    request.extend_from_slice(&value);
    request.extend_from_slice(b"\r\n");
    let mut reply = format!("${len}\r\n").into_bytes();
    reply.extend_from_slice(&value);
    reply.extend_from_slice(b"\r\n");
    (request, reply)
}

/// Reads a reply in pieces of random size, with pauses.
fn read_slowly(stream: &mut impl Read, expected: &[u8], random: &mut Random) {
    let mut at = 0;
    let mut piece = vec![0; 64 << 10];
    while at < expected.len() {
        let len = (1 + random.below(piece.len())).min(expected.len() - at);
        let len = stream.read(&mut piece[..len]).expect("more comes");
        assert!(len > 0, "{at} bytes of {}", expected.len());
        assert!(piece[..len] == expected[at..at + len], "other bytes behind {at}");
        at += len;
        for _ in 0..random.below(20) {
            thread::yield_now();
        }
    }
}

/// Asks for large replies, and reads them slowly while it goes on asking.
fn talk(mut stream: TcpStream, replies: usize, seed: u64) {
    let mut random = Random::new(seed);
    let talks: Vec<_> = (0..replies)
        .map(|round| {
            let len = [1, 100, 5_000, 70_000, 300_000, LARGE][round % 6];
            let len = 1 + random.below(len);
            echo(len, &mut random)
        })
        .collect();
    let mut writer = stream.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(|| {
            for (request, _) in &talks {
                writer.write_all(request).expect("sent");
            }
        });
        for (_, reply) in &talks {
            read_slowly(&mut stream, reply, &mut random);
        }
    });
}

#[test]
fn replies_of_every_size_arrive_whole_at_slow_readers() {
    for min_bytes in [1, 4096, 64 << 10] {
        let server = Server::start(forced(min_bytes));
        thread::scope(|scope| {
            for seed in 0..4 {
                let stream = server.connect();
                scope.spawn(move || talk(stream, 24, seed));
            }
        });
        let stats = server.stop();
        if is_epoll() {
            assert_eq!(stats.sends.zero_copy, 0);
            continue;
        }
        assert!(stats.sends.zero_copy > 0, "{stats:?}");
        assert_eq!(stats.sends.notices, stats.sends.zero_copy, "the kernel is done with all");
        assert_eq!(stats.sends.copied, stats.sends.notices, "as over loopback it is");
        assert_eq!(stats.sends.refusal, None);
    }
}

#[test]
fn peer_on_whose_way_the_kernel_copies_is_sent_one_without_a_copy() {
    let config = NetConfig { zero_copy: ZeroCopy::From(64 << 10), ..NetConfig::default() };
    let server = Server::start(config);
    let mut random = Random::new(1);
    for _ in 0..2 {
        let mut stream = server.connect();
        for _ in 0..5 {
            let (request, reply) = echo(100_000, &mut random);
            stream.write_all(&request).expect("sent");
            read_slowly(&mut stream, &reply, &mut random);
            while server.shared.lent.load(Ordering::SeqCst) > 0 {
                thread::yield_now();
            }
        }
    }
    let stats = server.stop();
    let one_each = if is_epoll() { 0 } else { 2 };
    assert_eq!((stats.sends.zero_copy, stats.sends.plain), (one_each, 10 - one_each));
}

#[test]
fn outputs_that_are_as_large_as_the_last_are_written_into_registered_memory() {
    // Some fit a block, some do not, some grow out of it.
    let server = Server::start(NetConfig {
        registered_blocks: 2,
        registered_block_bytes: 128 << 10,
        ..forced(32 << 10)
    });
    thread::scope(|scope| {
        for seed in 0..4 {
            let stream = server.connect();
            scope.spawn(move || alternate(stream, 200, Random::new(seed)));
        }
    });
    let sends = server.stop().sends;
    if !is_epoll() {
        assert!(sends.registered > 0 && sends.registered < sends.zero_copy, "{sends:?}");
        assert_eq!(sends.notices, sends.zero_copy);
    }
}

/// Asks for one reply after the other.
fn alternate(mut stream: TcpStream, replies: usize, mut random: Random) {
    let mut writer = stream.try_clone().expect("a descriptor");
    for _ in 0..replies {
        let (request, reply) = echo(1000 + random.below(200_000), &mut random);
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&request).expect("sent"));
            read_slowly(&mut stream, &reply, &mut random);
        });
    }
}

/// Waits until the kernel reads memory that it will not give back by itself: the peer has no room.
fn wait_until_lent(server: &Server) {
    while server.shared.lent.load(Ordering::SeqCst) == 0 && !is_epoll() {
        thread::yield_now();
    }
    server.settle();
}

/// A connection that has asked for much and reads nothing.
fn deaf(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    let (request, _) = echo(1000, &mut Random::new(2));
    stream.write_all(&request).expect("sent");
    let mut writer = stream.try_clone().expect("a descriptor");
    // Several outputs, so that some are sent whole, and one waits for room.
    writer.set_nonblocking(true).expect("a flag");
    let request = b"GET big\r\n".repeat(100);
    for _ in 0..20 {
        let _ = writer.write(&request);
        server.settle();
    }
    writer.set_nonblocking(false).expect("a flag");
    wait_until_lent(server);
    stream
}

#[test]
fn connection_that_is_reset_while_memory_is_lent_leaves_nothing_behind() {
    let server = Server::start(forced(1));
    for _ in 0..20 {
        let stream = deaf(&server);
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
        drop(stream);
        while server.connections() > 0 {
            thread::yield_now();
        }
        assert_eq!(server.shared.lent.load(Ordering::SeqCst), 0);
    }
    let stats = server.stop();
    assert_eq!(stats.sessions.closed, 20);
    assert_eq!(stats.sends.notices, stats.sends.zero_copy);
}

#[test]
fn peer_that_confirms_nothing_is_forgotten_when_its_time_is_up() {
    let stall = Duration::from_secs(30);
    let deadlines = Deadlines { stall: Some(stall), ..Deadlines::NONE };
    let limits = Limits { deadlines, output_bytes_pause: 8 << 20, ..Limits::default() };
    let server = Server::start(NetConfig { limits, ..forced(1) });
    let stream = deaf(&server);
    // One that says goodbye, is sent everything and shut down, and reads nothing of it.
    let mut quits = server.connect();
    quits.write_all(&b"GET big\r\n".repeat(60)).expect("sent");
    quits.write_all(b"QUIT\r\n").expect("sent");
    server.settle();
    assert_eq!(server.connections(), 2);
    while server.connections() > 0 {
        server.shared.now_ns.fetch_add(stall.as_nanos() as u64 / 100, Ordering::SeqCst);
        thread::yield_now();
    }
    assert_eq!(server.shared.lent.load(Ordering::SeqCst), 0);
    let stats = server.stop();
    assert!(stats.sessions.timeouts > 0);
    assert_eq!(stats.sends.notices, stats.sends.zero_copy);
    drop(stream);
}

#[test]
fn net_that_ends_while_memory_is_lent_takes_the_connections_down() {
    let listener = listen("127.0.0.1:0".parse().expect("an address"), 1).expect("a port").remove(0);
    let address = listener.local_addr().expect("bound");
    let listeners = Listeners { resp: Some(listener), ..Listeners::default() };
    let mut net = Net::new(driven(forced(1)), listeners).expect("a net");
    let mut stream = TcpStream::connect(address).expect("the net listens");
    stream.write_all(&b"GET big\r\n".repeat(1000)).expect("sent");
    let mut fake = Fake::default();
    for _ in 0..2000 {
        net.receive(&mut fake);
        fake.answer_all(net.outside());
        net.flush().expect("the ring works");
    }
    let sends = net.stats().sends;
    assert!(is_epoll() || sends.zero_copy > sends.notices, "the case did not arise: {sends:?}");
    drop(net);
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let whole = b"$10000\r\n".len() + 10_000 + 2;
    assert!(end.is_err() || bytes.len() < 1000 * whole);
    let reply = [b"$10000\r\n".as_slice(), &[b'B'; 10_000], b"\r\n"].concat();
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, reply[at % whole], "what was sent is what was said, byte {at}");
    }
}

#[test]
fn where_the_kernel_refuses_everything_is_sent_as_usual() {
    // Over a Unix socket there is no sending without a copy.
    let folder = std::env::temp_dir().join(format!("coreside-zero-copy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let nowhere = "127.0.0.1:0".parse().expect("an address");
    let listener = TcpListener::from(OwnedFd::from(listener));
    let server = Server::on(listener, nowhere, forced(1), None);
    let mut random = Random::new(3);
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&path).expect("the server listens");
        for len in [10, 100_000, LARGE] {
            let (request, reply) = echo(len, &mut random);
            let mut writer = stream.try_clone().expect("a descriptor");
            thread::scope(|scope| {
                scope.spawn(move || writer.write_all(&request).expect("sent"));
                read_slowly(&mut stream, &reply, &mut random);
            });
        }
    }
    let stats = server.stop();
    std::fs::remove_dir_all(&folder).expect("the folder is there");
    if !is_epoll() {
        assert_eq!(stats.sends.refusal, Some(libc::EOPNOTSUPP));
        assert_eq!(stats.sends.zero_copy, 1, "once for the ring");
    }
    assert!(stats.sends.plain >= 6);
}
