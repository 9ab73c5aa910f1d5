//! The native protocol from a client to an entity and back, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::node::Node;
use coreside_macros::{entity, handlers, wire};
use coreside_net::NetConfig;
use coreside_net::client::{Client, ClientError};
use coreside_net::native::{HelloError, Standing};
use coreside_shard::{Archived, AskError, Cx, Later, ReplyTo};

#[wire(crate = coreside_shard)]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    item: u64,
    side: Side,
    notes: Vec<String>,
}

#[wire(crate = coreside_shard)]
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Buy,
    Sell { limit: i64 },
}

#[entity(crate = coreside_shard, on_fault = resume)]
#[derive(Default)]
struct Book {
    orders: Vec<Order>,
    open: Vec<ReplyTo<u64>>,
    sum: u64,
}

#[handlers(crate = coreside_shard)]
impl Book {
    #[local]
    #[wire]
    fn place(&mut self, order: Order) -> u64 {
        self.orders.push(order);
        self.orders.len() as u64
    }

    #[local]
    #[wire]
    fn orders(&self) -> Vec<Order> {
        self.orders.clone()
    }

    #[local]
    #[wire]
    fn strike(&mut self) -> bool {
        panic!("struck");
    }

    /// Is answered by `open`.
    #[local]
    #[wire]
    fn until_open(&mut self, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, to) = cx.later();
        self.open.push(to);
        later
    }

    #[local]
    #[wire]
    fn open(&mut self, cx: &mut Cx<Self>) -> u64 {
        let waiting = std::mem::take(&mut self.open);
        let count = waiting.len() as u64;
        for to in waiting {
            cx.reply(to, count);
        }
        count
    }

    #[local]
    #[wire]
    fn echo(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    /// Adds up bytes where they lie.
    #[local]
    #[wire]
    #[archived]
    fn add(&mut self, bytes: &Archived<Vec<u8>>, more: u64) -> u64 {
        self.sum += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>() + more;
        self.sum
    }

    /// Not for the wire.
    #[local]
    fn quiet(&mut self) {}
}

fn start(config: NetConfig) -> Node {
    start_at(([127, 0, 0, 1], 0).into(), config)
}

fn start_at(address: SocketAddr, config: NetConfig) -> Node {
    Node::at(address, config, None, |registry| {
        registry.entity::<Book>();
    })
}

fn client(node: &Node) -> Client {
    // A panic's backtrace may take long.
    let builder = Client::builder().entity::<Book>().ask_timeout(Duration::from_secs(20));
    builder.connect(node.address).expect("the node is there")
}

fn order(item: u64) -> Order {
    let side =
        if item.is_multiple_of(2) { Side::Buy } else { Side::Sell { limit: -(item as i64) } };
    Order { item, side, notes: vec![format!("order {item}"), String::new()] }
}

#[test]
fn messages_and_replies_arrive_as_they_were() {
    let node = start(NetConfig::default());
    let client = client(&node);
    for item in 0..100 {
        assert_eq!(client.entity::<Book>(7).place(order(item)).wait(), Ok(item + 1));
    }
    let orders = client.entity::<Book>(7).orders().wait().expect("a reply");
    assert_eq!(orders, (0..100).map(order).collect::<Vec<_>>());
    assert_eq!(client.entity::<Book>(8).orders().wait(), Ok(Vec::new()));
    drop(client);
    let stats = node.stop();
    assert_eq!((stats.native.opened, stats.native.protocol_errors), (1, 0));
}

#[test]
fn archived_messages_are_read_where_they_were_received() {
    let node = start(NetConfig::default());
    let client = client(&node);
    for round in 1..=100 {
        let sum = client.entity::<Book>(1).add(vec![1; 1000], 24).wait();
        assert_eq!(sum, Ok(round * 1024));
        let same = client.entity::<Book>(1).echo(vec![1; 1000]).wait();
        assert_eq!(same, Ok(vec![1; 1000]));
    }
    drop(client);
    let stats = node.stop();
    assert_eq!((stats.leases, stats.leased), (100, 0), "what is taken by value keeps no buffer");
}

#[test]
fn archived_messages_of_any_size_and_cut_anywhere_arrive() {
    let config = NetConfig { buffers: 16, buffer_bytes: 1024, ..NetConfig::default() };
    let node = start(config);
    let client = client(&node);
    let mut sum = 0;
    let mut len = 1;
    for round in 0..3_000_u64 {
        len = (len * 5 + 7) % 3000;
        let len = if round % 100 == 99 { 100_000 } else { len };
        sum += len as u64 * (round % 256) + round;
        let message = client.entity::<Book>(2).add(vec![round as u8; len], round);
        match round % 10 {
            9 => assert_eq!(message.within(Duration::from_secs(20)).wait(), Ok(sum)),
            _ => message.try_tell().ok().expect("room"),
        }
    }
    drop(client);
    let stats = node.stop();
    assert_eq!((stats.leased, stats.native.protocol_errors), (0, 0));
    assert!(stats.leases > 0, "some lay within a buffer");
}

#[test]
fn tells_arrive_in_order_before_the_ask_behind_them() {
    let node = start(NetConfig::default());
    let client = client(&node);
    for item in 0..5_000 {
        client.entity::<Book>(1).place(order(item)).try_tell().ok().expect("room");
    }
    let orders = client.entity::<Book>(1).orders().within(Duration::from_secs(20)).wait();
    // 5,000 orders of some 90 bytes do not fit into a frame of 256 KiB: the work was done.
    assert_eq!(orders, Err(AskError::Unsayable));
    assert_eq!(client.entity::<Book>(1).place(order(0)).wait(), Ok(5_001));
    drop(client);
    node.stop();
}

#[test]
fn answers_come_in_any_order() {
    let node = start(NetConfig::default());
    let client = client(&node);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                scope.spawn(move || {
                    let ask = client.entity::<Book>(1).until_open();
                    ask.within(Duration::from_secs(20)).wait()
                })
            })
            .collect();
        let mut opened = 0;
        while opened < 8 {
            opened += client.entity::<Book>(1).open().wait().expect("a reply");
            thread::yield_now();
        }
        assert!(waiting.into_iter().all(|ask| ask.join().expect("no panic").is_ok()));
    });
    drop(client);
    node.stop();
}

#[test]
fn every_ask_ends_with_what_became_of_it() {
    let node = start(NetConfig::default());
    let client = client(&node);
    let book = || client.entity::<Book>(1);
    assert_eq!(book().strike().wait(), Err(AskError::Failed));
    let brief = Duration::from_millis(30);
    assert_eq!(book().until_open().within(brief).wait(), Err(AskError::MaybeExecuted));
    // The next one is not met by the late answer.
    book().open().wait().expect("a reply");
    assert_eq!(book().place(order(1)).wait(), Ok(1));
    drop(client);
    node.stop();
}

#[test]
fn bodies_of_all_sizes_are_read_wherever_the_stream_is_cut() {
    let config = NetConfig { buffer_bytes: 4096, buffers: 16, ..NetConfig::default() };
    let node = start(config);
    let client = client(&node);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..400u64 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let len = [random % 64, random % 5_000, random % 200_000][(round % 3) as usize];
        let bytes: Vec<u8> = (0..len).map(|i| (i ^ round) as u8).collect();
        let echoed = client.entity::<Book>(round).echo(bytes.clone()).wait();
        assert!(echoed == Ok(bytes), "round {round}, {len} bytes");
    }
    // Longer than a frame may be: refused before it is sent.
    assert_eq!(client.entity::<Book>(0).echo(vec![0; 300_000]).wait(), Err(AskError::NotSent));
    drop(client);
    node.stop();
}

#[test]
fn client_comes_back_when_its_node_does() {
    let node = start(NetConfig::default());
    let address = node.address;
    let client = Client::builder()
        .entity::<Book>()
        .backoff(Duration::from_millis(1), Duration::from_millis(20))
        .connect(address)
        .expect("the node is there");
    assert_eq!(client.entity::<Book>(1).place(order(1)).wait(), Ok(1));
    node.stop();
    let until = Instant::now() + Duration::from_secs(20);
    while client.is_connected() && Instant::now() < until {
        thread::yield_now();
    }
    assert_eq!(client.entity::<Book>(1).place(order(1)).wait(), Err(AskError::NotSent));
    let node = start_at(address, NetConfig::default());
    let reply = loop {
        match client.entity::<Book>(1).place(order(1)).wait() {
            Err(AskError::NotSent) if Instant::now() < until => thread::yield_now(),
            other => break other,
        }
    };
    assert_eq!(reply, Ok(1), "another node, another book");
    drop(client);
    node.stop();
}

/// The same names as `Book`'s, but not the same shape.
mod other {
    use super::*;

    #[entity(crate = coreside_shard, name = "Book")]
    pub(super) struct Changed {
        count: u64,
    }

    #[handlers(crate = coreside_shard)]
    impl Changed {
        #[local]
        #[wire]
        fn place(&mut self, item: u64) -> u64 {
            self.count += item;
            self.count
        }
    }

    #[entity(crate = coreside_shard)]
    pub(super) struct Stranger;

    #[handlers(crate = coreside_shard)]
    impl Stranger {
        #[local]
        #[wire]
        pub(super) fn hello(&mut self) {}
    }
}

#[test]
fn other_schemas_are_refused_in_the_handshake_and_unknown_messages_when_they_are_sent() {
    let node = start(NetConfig::default());
    let changed = Client::builder().entity::<other::Changed>().connect(node.address);
    let Err(error @ ClientError::Message { standing: Standing::OtherSchema { .. }, .. }) = changed
    else {
        panic!("{changed:?}")
    };
    let text = error.to_string();
    assert!(text.contains("Book.place has version 1 (schema "), "{text}");
    assert!(text.contains("was changed without a new version"), "{text}");
    let builder = Client::builder().entity::<other::Stranger>().entity::<Book>();
    let client = builder.connect(node.address).expect("it may still send what the node knows");
    assert_eq!(client.entity::<other::Stranger>(1).hello().is_known(), Some(false));
    let answer = client.entity::<other::Stranger>(1).hello().wait();
    assert_eq!(answer, Err(AskError::NoSuchMessage));
    assert!(client.entity::<other::Stranger>(1).hello().try_tell().is_err());
    assert_eq!(client.entity::<Book>(1).place(order(1)).is_known(), Some(true));
    assert_eq!(client.entity::<Book>(1).place(order(1)).wait(), Ok(1));
    node.stop();
}

#[test]
fn what_does_not_speak_the_protocol_is_told_and_closed() {
    use std::io::{Read, Write};
    let node = start(NetConfig::default());
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        &[0xff; 64],
        &[0; 16],
        // A ping before the hello.
        &[16, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let mut stream = std::net::TcpStream::connect(node.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("not zero");
        stream.write_all(bytes).expect("it takes a few bytes");
        let mut answer = Vec::new();
        // The rest of what was sent may reset the connection behind the answer.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer.get(4), Some(&9), "go away: {answer:?}");
    }
    // And a client that meets something else says so.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client comes");
        stream.write_all(b"-ERR unknown command, and much more of this\r\n").expect("it reads");
    });
    let met = Client::builder().entity::<Book>().connect(address);
    assert!(matches!(met, Err(ClientError::Hello(HelloError::NotNative))), "{met:?}");
    server.join().expect("no panic");
    node.stop();
}

#[test]
fn futures_work_on_any_executor() {
    use std::future::Future;
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let node = start(NetConfig::default());
    let client = client(&node);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut asks: Vec<_> =
        (0..200).map(|item| Box::pin(client.entity::<Book>(item).place(order(item)))).collect();
    let mut replies = 0;
    while !asks.is_empty() {
        asks.retain_mut(|ask| match ask.as_mut().poll(&mut context) {
            Poll::Ready(reply) => {
                assert_eq!(reply, Ok(1));
                replies += 1;
                false
            }
            Poll::Pending => true,
        });
        if !asks.is_empty() {
            thread::park();
        }
    }
    assert_eq!(replies, 200);
    drop(client);
    node.stop();
}

#[test]
#[should_panic(expected = "put `#[wire]` on the handler")]
fn message_that_is_not_for_the_wire_is_explained() {
    let node = start(NetConfig::default());
    let client = client(&node);
    let _ = client.entity::<Book>(1).quiet();
}
