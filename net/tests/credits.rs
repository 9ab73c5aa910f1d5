//! Back pressure from an entity to those who call it, over real sockets: who waits, where, and who
//! does not. A binary of its own, as one test looks at the memory of the process.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/read_frame.rs"]
mod read_frame;

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use coreside_macros::{entity, handlers};
use coreside_net::client::Client;
use coreside_net::native::frame::{Code, Header, Kind, VERSION};
use coreside_net::native::{Hello, Limits, Standing, Welcome};
use coreside_net::{Listeners, Net, NetConfig, listen};
use coreside_shard::{
    AskError, Cx, Encode, HashKey, Later, Now, Registry, ReplyTo, Shard, ShardConfig,
};
use read_frame::read_frame;

/// Takes messages and answers them when it is told to: as slow as a test needs it.
#[entity(crate = coreside_shard)]
#[derive(Default)]
struct Gate {
    waiting: Vec<ReplyTo<u64>>,
    passed: Vec<u64>,
}

#[handlers(crate = coreside_shard)]
impl Gate {
    /// Is over when the gate opens.
    #[local]
    #[wire]
    fn pass(&mut self, number: u64, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, to) = cx.later();
        self.waiting.push(to);
        self.passed.push(number);
        later
    }

    /// Like `pass`, with something to keep in mind meanwhile.
    #[local]
    #[wire]
    fn carry(&mut self, load: Vec<u8>, cx: &mut Cx<Self>) -> Later<u64> {
        self.pass(load.len() as u64, cx)
    }

    #[local]
    #[wire]
    fn open(&mut self, cx: &mut Cx<Self>) -> u64 {
        for to in self.waiting.drain(..) {
            cx.reply(to, 0);
        }
        self.passed.len() as u64
    }

    #[local]
    #[wire]
    fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    #[local]
    #[wire]
    fn passed(&self) -> Vec<u64> {
        self.passed.clone()
    }

    #[local]
    #[wire]
    fn echo(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
}

/// What a node shows while it runs.
#[derive(Default)]
struct Shown {
    stop: AtomicBool,
    /// Passes in which nothing happened.
    idle_passes: AtomicU64,
    requests: AtomicU64,
}

/// A shard with its net, on a thread of its own.
struct Node {
    address: SocketAddr,
    shown: Arc<Shown>,
    thread: thread::JoinHandle<()>,
}

impl Node {
    fn start(native: Limits) -> Self {
        let any = ([127, 0, 0, 1], 0).into();
        let listener = listen(any, 1).expect("a free port").pop().expect("one was asked for");
        let address = listener.local_addr().expect("it is bound");
        let shown = Arc::new(Shown::default());
        let theirs = Arc::clone(&shown);
        let thread = thread::spawn(move || {
            let mut registry = Registry::new();
            registry.entity::<Gate>();
            let table = registry.build().expect("no names twice");
            let mut shard =
                Shard::alone(&ShardConfig::new(HashKey::new(7)), table).expect("a shard");
            let listeners = Listeners { native: Some(listener), ..Listeners::default() };
            let config = driver::driven(NetConfig { native, ..NetConfig::default() });
            let mut net = Net::new(config, listeners).expect("a net");
            let start = Instant::now();
            while !theirs.stop.load(Ordering::SeqCst) {
                let monotonic_ns = start.elapsed().as_nanos() as u64;
                let now = Now { monotonic_ns, ..Now::default() };
                shard.tick(now);
                net.receive(&mut shard);
                let idle = shard.poll(now, net.outside()).is_idle();
                net.flush().expect("the ring works");
                thread::yield_now();
                let requests = net.stats().native.requests;
                let before = theirs.requests.swap(requests, Ordering::SeqCst);
                if idle && before == requests {
                    theirs.idle_passes.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { address, shown, thread }
    }

    fn client(&self) -> Client {
        let builder = Client::builder().entity::<Gate>().ask_timeout(Duration::from_secs(60));
        builder.connect(self.address).expect("the node is there")
    }

    /// Waits until the node has had nothing to do for a while.
    fn settle(&self) {
        let idle = self.shown.idle_passes.load(Ordering::SeqCst) + 200;
        while self.shown.idle_passes.load(Ordering::SeqCst) < idle {
            thread::yield_now();
        }
    }

    fn requests(&self) -> u64 {
        self.shown.requests.load(Ordering::SeqCst)
    }

    fn stop(self) {
        self.shown.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the node does not panic");
    }
}

const LIMITS: Limits = Limits {
    frame_bytes_max: 256 << 10,
    messages_max: 16,
    calls_max: 16,
    tells_max: 16,
    entity_messages_max: 4,
    message_bytes_pause: 16 << 20,
    input_bytes_pause: 64 << 10,
    input_bytes_total_max: 64 << 20,
    output_bytes_pause: 1 << 20,
    output_bytes_max: 64 << 20,
    output_bytes_total_max: 256 << 20,
    message_bytes_total_max: 256 << 20,
    connections_max: 10,
    connections_per_address_max: 10,
    deadlines: coreside_net::sessions::Deadlines::NONE,
};

const SLOW: u64 = 1;

type Asking = Pin<Box<dyn Future<Output = Result<u64, AskError>>>>;

/// Polls each once, and returns those that go on.
fn poll_all(asking: Vec<Asking>) -> Vec<Asking> {
    let mut cx = Context::from_waker(Waker::noop());
    let waits = |mut ask: Asking| match ask.as_mut().poll(&mut cx) {
        Poll::Pending => Some(ask),
        Poll::Ready(reply) => {
            assert_eq!(reply, Ok(0));
            None
        }
    };
    asking.into_iter().filter_map(waits).collect()
}

#[test]
fn a_slow_entity_slows_its_callers_not_its_neighbours() {
    let node = Node::start(LIMITS);
    let (client, other) = (node.client(), node.client());
    // More than the whole connection may have under way.
    let asking = (0..40).map(|number| Box::pin(client.entity::<Gate>(SLOW).pass(number)) as Asking);
    let mut asking = poll_all(asking.collect());
    assert_eq!(asking.len(), 40);
    for key in 2..200 {
        let bytes = vec![key as u8; key as usize];
        assert_eq!(client.entity::<Gate>(key).echo(bytes.clone()).wait(), Ok(bytes));
    }
    assert_eq!(other.entity::<Gate>(SLOW).waiting().wait(), Ok(4), "a share of the connection");
    while !asking.is_empty() {
        assert!(other.entity::<Gate>(SLOW).waiting().wait().expect("a reply") <= 4);
        other.entity::<Gate>(SLOW).open().wait().expect("a reply");
        asking = poll_all(asking);
    }
    let passed = other.entity::<Gate>(SLOW).passed().wait();
    assert_eq!(passed, Ok((0..40).collect()), "in the order in which they were asked");
    node.stop();
}

#[test]
fn asks_wait_at_the_client_no_longer_than_their_time() {
    let node = Node::start(LIMITS);
    let (client, other) = (node.client(), node.client());
    let asking = (0..4).map(|number| Box::pin(client.entity::<Gate>(SLOW).pass(number)) as Asking);
    let asking = poll_all(asking.collect());
    let late = client.entity::<Gate>(SLOW).pass(4).within(Duration::from_millis(1)).wait();
    assert_eq!(late, Err(AskError::Expired), "nothing was done");
    // Nobody waits for this one any more.
    let dropped = Box::pin(client.entity::<Gate>(SLOW).pass(5)) as Asking;
    drop(poll_all(vec![dropped]));
    let last = Box::pin(client.entity::<Gate>(SLOW).pass(6)) as Asking;
    let mut asking: Vec<_> = asking.into_iter().chain(poll_all(vec![last])).collect();
    while !asking.is_empty() {
        other.entity::<Gate>(SLOW).open().wait().expect("a reply");
        asking = poll_all(asking);
    }
    assert_eq!(other.entity::<Gate>(SLOW).passed().wait(), Ok(vec![0, 1, 2, 3, 6]));
    node.stop();
}

#[test]
fn tells_beyond_the_credit_wait_at_the_client() {
    let node = Node::start(LIMITS);
    let (client, other) = (node.client(), node.client());
    for number in 0..100 {
        assert!(client.entity::<Gate>(SLOW).pass(number).try_tell().is_ok());
    }
    // Its neighbours are told more than the connection may have under way.
    for number in 0..100 {
        assert!(client.entity::<Gate>(2 + number % 3).open().try_tell().is_ok());
        let key = 2 + number % 3;
        assert_eq!(client.entity::<Gate>(key).echo(vec![1]).wait(), Ok(vec![1]));
    }
    assert_eq!(other.entity::<Gate>(SLOW).waiting().wait(), Ok(4), "a share of the connection");
    // An ask to the slow one comes behind what it was told.
    let mut asking = poll_all(vec![Box::pin(client.entity::<Gate>(SLOW).pass(100)) as Asking]);
    while !asking.is_empty() {
        assert!(other.entity::<Gate>(SLOW).waiting().wait().expect("a reply") <= 4);
        other.entity::<Gate>(SLOW).open().wait().expect("a reply");
        asking = poll_all(asking);
    }
    let passed = other.entity::<Gate>(SLOW).passed().wait();
    assert_eq!(passed, Ok((0..=100).collect()), "all of them, in order");
    assert!(client.is_connected());
    node.stop();
}

#[test]
fn whoever_tells_with_patience_is_slowed_by_whom_it_tells() {
    let node = Node::start(LIMITS);
    let (client, other) = (node.client(), node.client());
    let mut cx = Context::from_waker(Waker::noop());
    let tell = |number| Box::pin(client.entity::<Gate>(SLOW).pass(number).tell());
    for number in 0..4 {
        assert!(matches!(tell(number).as_mut().poll(&mut cx), Poll::Ready(Ok(()))));
    }
    let (mut fifth, mut given_up, mut last) = (tell(4), tell(5), tell(6));
    for tell in [&mut fifth, &mut given_up, &mut last] {
        assert!(tell.as_mut().poll(&mut cx).is_pending(), "a share is under way");
    }
    drop(given_up);
    assert!(client.entity::<Gate>(2).pass(0).tell().wait().is_ok(), "its neighbour has room");
    thread::scope(|scope| {
        let waits = scope.spawn(|| client.entity::<Gate>(SLOW).pass(7).tell().wait().is_ok());
        while fifth.as_mut().poll(&mut cx).is_pending() {
            other.entity::<Gate>(SLOW).open().wait().expect("a reply");
        }
        while last.as_mut().poll(&mut cx).is_pending() {
            other.entity::<Gate>(SLOW).open().wait().expect("a reply");
        }
        while !waits.is_finished() {
            other.entity::<Gate>(SLOW).open().wait().expect("a reply");
        }
        assert!(waits.join().expect("no panic"));
    });
    let passed = || other.entity::<Gate>(SLOW).passed().wait();
    while passed() != Ok(vec![0, 1, 2, 3, 4, 6, 7]) {
        thread::yield_now();
    }
    node.stop();
}

#[test]
fn what_waits_at_the_client_is_bounded() {
    let node = Node::start(LIMITS);
    let client = node.client();
    // 8 MiB, in frames of 48 bytes: the other half is for others.
    let told = (0..1 << 20).take_while(|number| {
        let tell = client.entity::<Gate>(SLOW).pass(*number);
        tell.try_tell().is_ok()
    });
    let told = told.count();
    assert!((150_000..200_000).contains(&told), "{told} tells wait");
    let refused = client.entity::<Gate>(SLOW).pass(0).wait();
    assert_eq!(refused, Err(AskError::NotSent));
    assert_eq!(client.entity::<Gate>(SLOW + 1).echo(vec![7]).wait(), Ok(vec![7]));
    node.stop();
}

/// The numbers of messages.
struct Numbers {
    pass: u16,
    carry: u16,
    echo: u16,
}

/// A connection that shook hands by itself.
fn connect(node: &Node) -> (TcpStream, Welcome, Numbers) {
    let mut registry = Registry::new();
    registry.entity::<Gate>();
    let table = registry.build().expect("no names twice");
    let mut stream = TcpStream::connect(node.address).expect("the node is there");
    let messages = table.wire().iter().map(|row| (row.id, row.schema)).collect();
    let mut hello = Vec::new();
    let versions = (VERSION, VERSION);
    Hello { versions, shard: None, cluster: 0, messages }.write(&mut hello);
    stream.write_all(&hello).expect("sent");
    let (header, content) = read_frame(&mut stream).expect("a welcome");
    assert_eq!(header.kind, Kind::Welcome);
    let welcome = Welcome::read(&content).expect("a welcome");
    let number = |method: &str| {
        let at = table.wire().iter().position(|row| row.name.1 == method).expect("it is there");
        let Standing::Number(number) = welcome.messages[at] else { panic!("{welcome:?}") };
        number
    };
    let numbers = Numbers { pass: number("pass"), carry: number("carry"), echo: number("echo") };
    (stream, welcome, numbers)
}

fn write_message(out: &mut Vec<u8>, header: Header, key: u64, message: &impl Encode) {
    let written = header.write_with(out, |out| {
        out.extend_from_slice(&u128::from(key).to_le_bytes());
        message.encode(out)
    });
    assert_eq!(written, Ok(()));
}

#[test]
fn a_client_that_ignores_credit_is_closed() {
    let node = Node::start(LIMITS);
    let (mut stream, welcome, Numbers { pass, .. }) = connect(&node);
    assert_eq!((welcome.tells_max, welcome.entity_messages_max), (16, 4));
    let mut out = Vec::new();
    for number in 0..17u64 {
        let header = Header { message: pass, call: number as u32, ..Header::new(Kind::Tell) };
        write_message(&mut out, header, SLOW, &number);
    }
    stream.write_all(&out).expect("sent");
    let (header, _) = read_frame(&mut stream).expect("a goodbye");
    assert_eq!((header.kind, header.code), (Kind::GoAway, Code::Limit as u8));
    assert!(read_frame(&mut stream).is_none(), "and then the end");
    let client = node.client();
    assert_eq!(client.entity::<Gate>(SLOW).passed().wait(), Ok((0..16).collect()));
    assert_eq!(client.entity::<Gate>(SLOW).open().wait(), Ok(16), "of a connection that is gone");
    node.stop();
}

#[test]
fn credit_says_which_tells_were_handled() {
    let node = Node::start(LIMITS);
    let client = node.client();
    let (mut stream, _, Numbers { pass, .. }) = connect(&node);
    let mut out = Vec::new();
    for (call, key) in [(5, 2), (5, 2), (9, 3), (7, 2)] {
        let header = Header { message: pass, call, ..Header::new(Kind::Tell) };
        write_message(&mut out, header, key, &0u64);
    }
    stream.write_all(&out).expect("sent");
    while client.entity::<Gate>(3).waiting().wait() != Ok(1) {}
    node.settle();
    assert_eq!(client.entity::<Gate>(2).open().wait(), Ok(3));
    let (header, content) = read_frame(&mut stream).expect("credit");
    assert_eq!(header.kind, Kind::Credit);
    // Told of in batches of half an entity's share.
    assert_eq!(content, [5, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(client.entity::<Gate>(3).open().wait(), Ok(1));
    let (_, content) = read_frame(&mut stream).expect("credit");
    assert_eq!(content, [7, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0]);
    node.stop();
}

/// Bytes of memory that this process uses.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).expect("a number").parse().expect("a number");
    pages * 4096
}

/// Writes a frame again and again until the node takes no more; returns how many bytes it took.
fn write_until_refused(node: &Node, stream: &mut TcpStream, frame: &[u8]) -> usize {
    stream.set_nonblocking(true).expect("a flag");
    let (mut sent, mut sent_before) = (0, usize::MAX);
    loop {
        match stream.write(&frame[sent % frame.len()..]) {
            Ok(len) => sent += len,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                if sent == std::mem::replace(&mut sent_before, sent) {
                    break;
                }
                node.settle();
            }
        }
        assert!(sent < 1 << 30, "the node reads without end");
    }
    stream.set_nonblocking(false).expect("a flag");
    sent
}

/// Completes the last frame, and reads a reply to each.
fn read_what_is_owed(stream: &mut TcpStream, frame: &[u8], sent: usize) {
    let mut writer = stream.try_clone().expect("a descriptor");
    let total = sent.div_ceil(frame.len());
    let rest = &frame[frame.len() - (total * frame.len() - sent)..];
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(rest).expect("sent"));
        for _ in 0..total {
            let (header, _) = read_frame(stream).expect("a reply");
            assert_eq!(header.kind, Kind::Reply);
        }
    });
}

#[test]
fn a_slow_reader_cannot_grow_the_nodes_memory() {
    const BODY_BYTES: usize = 64 << 10;
    let node = Node::start(LIMITS);
    let (mut stream, _, Numbers { echo, .. }) = connect(&node);
    let mut frame = Vec::new();
    let header = Header { message: echo, time_us: 60_000_000, ..Header::new(Kind::Ask) };
    write_message(&mut frame, header, 2, &vec![7u8; BODY_BYTES]);
    let before = resident_bytes();
    let sent = write_until_refused(&node, &mut stream, &frame);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more for a peer that reads nothing");
    // What is not in the buffers of the two sockets is what the limits allow.
    let taken = node.requests() as usize;
    assert!(taken * BODY_BYTES < 64 << 20, "{taken} asks were taken");
    // Nobody else notices, and nothing is lost.
    let client = node.client();
    assert_eq!(client.entity::<Gate>(2).echo(vec![1]).wait(), Ok(vec![1]));
    read_what_is_owed(&mut stream, &frame, sent);
    node.stop();
}

#[test]
fn large_messages_to_a_slow_entity_cannot_grow_the_nodes_memory() {
    const BODY_BYTES: usize = 200 << 10;
    // Many more than fit may be under way by their number.
    let limits = Limits { message_bytes_pause: 1 << 20, calls_max: 10_000, ..LIMITS };
    let node = Node::start(limits);
    let (mut stream, _, Numbers { carry, .. }) = connect(&node);
    let mut frame = Vec::new();
    let header = Header { message: carry, time_us: 60_000_000, ..Header::new(Kind::Ask) };
    write_message(&mut frame, header, SLOW, &vec![7u8; BODY_BYTES]);
    let sent = write_until_refused(&node, &mut stream, &frame);
    let client = node.client();
    assert_eq!(client.entity::<Gate>(SLOW).waiting().wait(), Ok(6), "more than 1 MiB by a part");
    let (opens, is_over) = (client.clone(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                opens.entity::<Gate>(SLOW).open().wait().expect("a reply");
            }
        });
        read_what_is_owed(&mut stream, &frame, sent);
        is_over.store(true, Ordering::SeqCst);
    });
    node.stop();
}
