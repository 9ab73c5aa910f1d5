//! Long messages: what is missing of them is received straight into place, and whatever becomes of
//! their connection meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::driver;
use crate::random::Random;
use coreside_macros::{entity, handlers};
use coreside_net::client::Client;
use coreside_net::native::frame::{HEADER_BYTES, Header, Kind, VERSION};
use coreside_net::native::{self, Hello};
use coreside_net::sessions::Deadlines;
use coreside_net::{DriverKind, Listeners, Net, NetConfig, NetStats, listen};
use coreside_shard::{AskError, HashKey, Now, Registry, Shard, ShardConfig};

const FRAME_BYTES_MAX: u32 = 4 << 20;

#[entity(crate = coreside_shard)]
#[derive(Default)]
struct Blobs {
    bytes: u64,
}

#[handlers(crate = coreside_shard)]
impl Blobs {
    #[local]
    #[wire]
    fn echo(&mut self, blob: Vec<u8>) -> Vec<u8> {
        self.bytes += blob.len() as u64;
        blob
    }

    #[local]
    #[wire]
    fn keep(&mut self, blob: Vec<u8>) {
        self.bytes += blob.len() as u64;
    }

    #[local]
    #[wire]
    fn kept(&self) -> u64 {
        self.bytes
    }
}

/// A shard with its net, on a thread of its own.
struct Node {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<NetStats>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    direct_receives: AtomicU64,
    connections: AtomicU64,
    /// The net's time, in seconds; it stands still unless a test moves it.
    now_s: AtomicU64,
}

fn config(direct_min_bytes: u32) -> NetConfig {
    let native = native::Limits { frame_bytes_max: FRAME_BYTES_MAX, ..native::Limits::default() };
    driver::driven(NetConfig { native, direct_min_bytes, ..NetConfig::default() })
}

impl Node {
    fn start(config: NetConfig) -> Self {
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = listen(address, 1).expect("a free port").remove(0);
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut registry = Registry::new();
            registry.entity::<Blobs>();
            let table = registry.build().expect("no names twice");
            let config_of_shard = ShardConfig::new(HashKey::new(7));
            let mut shard = Shard::alone(&config_of_shard, table).expect("a shard");
            let listeners = Listeners { native: Some(listener), ..Listeners::default() };
            let mut net = Net::new(config, listeners).expect("a net");
            drive(&mut net, &mut shard, &theirs);
            net.stats()
        });
        Self { address, shared, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        let builder = Client::builder().entity::<Blobs>();
        builder.connect(self.address).expect("the node is there")
    }

    /// A connection that has greeted.
    fn greeted(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("the node listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
        let mut hello = Vec::new();
        let messages = Vec::new();
        Hello { versions: (VERSION, VERSION), shard: None, cluster: 0, messages }.write(&mut hello);
        stream.write_all(&hello).expect("sent");
        let welcome = read_header(&mut stream).expect("a welcome");
        assert_eq!(welcome.kind, Kind::Welcome);
        let mut content = vec![0; welcome.padded() - HEADER_BYTES];
        stream.read_exact(&mut content).expect("the whole of it");
        stream
    }

    /// Waits until a receive into the memory of a message is under way, or has been.
    fn wait_until_direct(&self) {
        while self.shared.direct_receives.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
    }

    fn wait_until_empty(&self) {
        while self.shared.connections.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    }

    fn stop(mut self) -> NetStats {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("stopped once").join().expect("the node does not panic")
    }
}

fn drive(net: &mut Net, shard: &mut Shard, shared: &Shared) {
    let start = Instant::now();
    let mut draining = false;
    while !draining || net.connection_count() > 0 {
        let monotonic_ns = start.elapsed().as_nanos() as u64;
        let now = Now { monotonic_ns, ..Now::default() };
        shard.tick(now);
        net.tick(shared.now_s.load(Ordering::SeqCst) * 1_000_000_000);
        net.receive(shard);
        shard.poll(now, net.outside());
        net.flush().expect("the ring works");
        shared.direct_receives.store(net.stats().direct_receives, Ordering::SeqCst);
        shared.connections.store(net.connection_count() as u64, Ordering::SeqCst);
        thread::yield_now();
        if shared.stop.load(Ordering::SeqCst) && !draining {
            draining = true;
            net.drain();
            shard.end_asks(AskError::MaybeExecuted, net.outside());
        }
    }
}

fn read_header(stream: &mut TcpStream) -> Option<Header> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).ok()?;
    Header::read(&bytes, FRAME_BYTES_MAX).expect("a frame")
}

/// A ping of this length, which is answered like any other.
fn ping(call: u32, length: usize) -> Vec<u8> {
    let header = Header { length: length as u32, call, ..Header::new(Kind::Ping) };
    let mut frame = header.to_bytes().to_vec();
    frame.resize(header.padded(), call as u8);
    frame
}

#[test]
fn messages_of_every_size_arrive_as_they_were() {
    for direct_min_bytes in [1, 5000, 64 << 10, u32::MAX] {
        let node = Node::start(config(direct_min_bytes));
        let client = node.client();
        thread::scope(|scope| {
            for seed in 0..3 {
                let client = &client;
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    for round in 0..60 {
                        let limit = [10, 5_000, 70_000, 500_000, 3 << 20][round % 5];
                        let seed = random.below(256);
                        let blob: Vec<u8> =
                            (0..random.below(limit)).map(|at| (at * 7 + seed) as u8).collect();
                        let echo = client.entity::<Blobs>(1).echo(blob.clone());
                        let reply = echo.within(Duration::from_secs(20)).wait();
                        assert!(reply.as_ref() == Ok(&blob), "{} bytes, seed {seed}", blob.len());
                    }
                });
            }
        });
        drop(client);
        let stats = node.stop();
        assert_eq!(stats.native.protocol_errors, 0);
        assert_eq!(stats.direct_receives > 0, direct_min_bytes < u32::MAX, "{stats:?}");
    }
}

#[test]
fn long_messages_that_follow_each_other_are_all_received_straight_into_place() {
    let node = Node::start(config(64 << 10));
    let client = node.client();
    for _ in 0..50 {
        client.entity::<Blobs>(1).keep(vec![3; 1 << 20]).try_tell().ok().expect("room");
        // The queue of a client is short.
        while client.entity::<Blobs>(1).kept().within(Duration::from_secs(20)).wait().is_err() {}
    }
    assert_eq!(client.entity::<Blobs>(1).kept().wait(), Ok(50 << 20));
    drop(client);
    let stats = node.stop();
    assert!(stats.direct_receives >= 25, "{stats:?}");
}

#[test]
fn frames_cut_anywhere_are_answered_in_order() {
    let node = Node::start(config(1000));
    let mut stream = node.greeted();
    let mut random = Random::new(5);
    let lengths: Vec<_> = (0..200)
        .map(|round| HEADER_BYTES + random.below([1, 40, 3_000, 20_000, 200_000][round % 5]))
        .collect();
    let input: Vec<u8> =
        lengths.iter().zip(0..).flat_map(|(length, call)| ping(call, *length)).collect();
    let mut writer = stream.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut rest = input.as_slice();
            while !rest.is_empty() {
                let len = (1 + random.below(50_000)).min(rest.len());
                writer.write_all(&rest[..len]).expect("the node reads");
                rest = &rest[len..];
                for _ in 0..random.below(5) {
                    thread::yield_now();
                }
            }
        });
        for call in 0..200 {
            let pong = read_header(&mut stream).expect("a pong");
            assert_eq!((pong.kind, pong.call), (Kind::Pong, call));
        }
    });
    drop(stream);
    assert!(node.stop().direct_receives > 0);
}

#[test]
fn connection_that_ends_within_a_message_leaves_nothing_behind() {
    for is_reset in [false, true] {
        let node = Node::start(config(64 << 10));
        for _ in 0..20 {
            let mut stream = node.greeted();
            stream.write_all(&ping(0, 1 << 20)[..300_000]).expect("sent");
            node.wait_until_direct();
            if is_reset {
                let socket = socket2::SockRef::from(&stream);
                socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
            }
            drop(stream);
            node.wait_until_empty();
        }
        let stats = node.stop();
        assert_eq!((stats.native.opened, stats.native.closed), (20, 20));
    }
}

#[test]
fn who_does_not_finish_a_message_is_closed_when_the_time_is_up() {
    let mut config = config(64 << 10);
    let (handshake, idle) = (Some(Duration::from_secs(5)), Some(Duration::from_secs(60)));
    config.native.deadlines = Deadlines { handshake, idle, ..Deadlines::NONE };
    let node = Node::start(config);
    let mut stream = node.greeted();
    stream.write_all(&ping(0, 1 << 20)[..300_000]).expect("sent");
    node.wait_until_direct();
    node.shared.now_s.store(40, Ordering::SeqCst);
    let sign = read_header(&mut stream).expect("a sign of life is asked for");
    assert_eq!(sign.kind, Kind::Ping);
    // Whoever is sent something, even that sign, has more time.
    while node.shared.connections.load(Ordering::SeqCst) > 0 {
        assert!(node.shared.now_s.fetch_add(1, Ordering::SeqCst) < 1_000_000, "it stays");
        thread::yield_now();
    }
    assert_eq!(node.stop().native.timeouts, 1);
}

#[test]
fn net_is_drained_within_a_message() {
    let node = Node::start(config(64 << 10));
    let mut stream = node.greeted();
    stream.write_all(&ping(0, 1 << 20)[..300_000]).expect("sent");
    node.wait_until_direct();
    let stats = node.stop();
    assert_eq!((stats.native.opened, stats.native.closed), (1, 1));
    assert_eq!(read_header(&mut stream).map(|header| header.kind), Some(Kind::GoAway));
}

#[test]
fn many_who_declare_much_are_not_given_it_in_advance() {
    let mut config = config(64 << 10);
    config.native.input_bytes_total_max = 8 << 20;
    let node = Node::start(config);
    // Half of the bound is for memory that is lent, a MiB at a time.
    let streams: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = node.greeted();
            stream.write_all(&ping(0, 3 << 20)[..100_000]).expect("sent");
            stream
        })
        .collect();
    node.wait_until_direct();
    let mut other = node.greeted();
    other.write_all(&ping(7, 64)).expect("sent");
    assert_eq!(read_header(&mut other).expect("it is served").call, 7);
    if driver::driven(NetConfig::default()).driver == DriverKind::Uring {
        assert!(node.shared.direct_receives.load(Ordering::SeqCst) <= 4);
    }
    assert_eq!(node.shared.connections.load(Ordering::SeqCst), 17, "100 kB each are not too many");
    drop((streams, other));
    node.stop();
}
