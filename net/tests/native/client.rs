//! What a client does on its connection, seen from the other end: a node that is this test.

mod nodes;

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::read_frame::read_frame;
use coreside_macros::{entity, handlers};
use coreside_net::client::{Client, ClientBuilder};
use coreside_net::native::frame::{Header, Kind, VERSION};
use coreside_net::native::{Hello, Standing, Welcome};
use coreside_shard::{AskError, Encode};

#[entity(crate = coreside_shard)]
struct Mirror;

#[handlers(crate = coreside_shard)]
impl Mirror {
    #[local]
    #[wire]
    fn echo(&self, word: u64) -> u64 {
        word
    }

    #[local]
    #[wire]
    fn weigh(&self, bytes: Vec<u8>) -> u64 {
        bytes.len() as u64
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

fn builder() -> ClientBuilder {
    Client::builder().entity::<Mirror>().ask_timeout(Duration::from_secs(60))
}

pub(crate) const WELCOME: Welcome = Welcome {
    version: VERSION,
    shard: 0,
    shards: 1,
    cluster: 0,
    frame_bytes_max: 1 << 16,
    calls_max: 1000,
    tells_max: 1000,
    entity_messages_max: 1000,
    hash_key: None,
    messages: Vec::new(),
};

/// The next connection, and its hello.
fn accept(listener: &TcpListener) -> (TcpStream, Hello) {
    let (mut stream, _) = listener.accept().expect("a client");
    let (header, content) = read_frame(&mut stream).expect("a hello");
    assert_eq!(header.kind, Kind::Hello);
    (stream, Hello::read(&content, 100).expect("a hello"))
}

/// Greets the next connection, and says this behind the welcome.
fn greet(listener: &TcpListener, welcome: &Welcome, behind: &[u8]) -> TcpStream {
    let (stream, hello) = accept(listener);
    welcome_to(stream, &hello, welcome, behind)
}

/// Answers a hello, and says this behind the welcome.
pub(crate) fn welcome_to<S: Write>(
    mut stream: S,
    hello: &Hello,
    welcome: &Welcome,
    behind: &[u8],
) -> S {
    let messages = (0..hello.messages.len() as u16).map(Standing::Number).collect();
    let mut out = Vec::new();
    Welcome { messages, ..welcome.clone() }.write(&mut out);
    out.extend_from_slice(behind);
    stream.write_all(&out).expect("sent");
    stream
}

/// A client, and the other end of its connection.
fn pair(calls_max: u32, entity_messages_max: u16) -> (Client, TcpStream) {
    let (listener, address) = listener();
    let welcome = Welcome { calls_max, tells_max: calls_max, entity_messages_max, ..WELCOME };
    let node = thread::spawn(move || greet(&listener, &welcome, &[]));
    // Nobody listens any more: a connection that is lost stays lost.
    let client = builder().connect(address).expect("a welcome");
    (client, node.join().expect("no panic"))
}

/// The call numbers of so many asks.
fn read_asks(stream: &mut TcpStream, count: usize) -> Vec<u32> {
    let ask = |_| {
        let (header, _) = read_frame(stream).expect("an ask");
        assert_eq!(header.kind, Kind::Ask);
        header.call
    };
    (0..count).map(ask).collect()
}

/// Whether nothing has come.
fn is_silent(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a flag");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a flag");
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn reply(stream: &mut TcpStream, calls: &[u32]) {
    let mut out = Vec::new();
    for call in calls {
        let header = Header { call: *call, ..Header::new(Kind::Reply) };
        let written = header.write_with(&mut out, |out| 7u64.encode(out));
        assert_eq!(written, Ok(()));
    }
    stream.write_all(&out).expect("sent");
}

type Asking = Pin<Box<dyn Future<Output = Result<u64, AskError>>>>;

fn ask(client: &Client, key: u64) -> Asking {
    Box::pin(client.entity::<Mirror>(key).echo(key))
}

fn poll(asking: &mut Asking) -> Poll<Result<u64, AskError>> {
    asking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// An ask that is answered.
fn ask_and_answer(client: &Client, key: u64, stream: &mut TcpStream) {
    let mut asking = ask(client, key);
    assert!(poll(&mut asking).is_pending());
    let calls = read_asks(stream, 1);
    reply(stream, &calls);
    while poll(&mut asking) != Poll::Ready(Ok(7)) {
        thread::yield_now();
    }
}

#[test]
fn requests_of_one_pass_leave_together() {
    let (client, mut stream) = pair(1000, 1000);
    let mut asking: Vec<_> = (0..65).map(|key| ask(&client, key)).collect();
    assert!(asking.iter_mut().all(|asking| poll(asking).is_pending()));
    let mut calls = read_asks(&mut stream, 1);
    assert!(is_silent(&stream), "one goes ahead, as nothing was under way; the others wait");
    assert!(asking.iter_mut().all(|asking| poll(asking).is_pending()));
    let mut bytes = vec![0; 64 * 48];
    let len = stream.read(&mut bytes).expect("received");
    assert_eq!(len, bytes.len(), "in one piece");
    calls.extend(bytes.chunks(48).map(|frame| {
        let header = Header::read(frame, 48).expect("a frame").expect("whole");
        assert_eq!(header.kind, Kind::Ask);
        header.call
    }));
    reply(&mut stream, &calls);
    for mut asking in asking {
        while poll(&mut asking) != Poll::Ready(Ok(7)) {
            thread::yield_now();
        }
    }
}

#[test]
fn what_a_future_has_left_leaves_when_it_is_dropped_or_with_the_next_answer() {
    let (client, mut stream) = pair(1000, 1000);
    let mut asking: Vec<_> = (0..3).map(|key| ask(&client, key)).collect();
    assert!(asking.iter_mut().all(|asking| poll(asking).is_pending()));
    let first = read_asks(&mut stream, 1);
    assert!(is_silent(&stream));
    drop(asking.pop());
    let others = read_asks(&mut stream, 2);
    // Polled once, and then nobody has time for it.
    let mut last = ask(&client, 3);
    assert!(poll(&mut last).is_pending());
    assert!(is_silent(&stream));
    reply(&mut stream, &first);
    let last_call = read_asks(&mut stream, 1);
    reply(&mut stream, &[others[0], last_call[0]]);
    while poll(&mut last) != Poll::Ready(Ok(7)) {
        thread::yield_now();
    }
}

#[test]
fn threads_that_wait_send_at_once() {
    let (client, mut stream) = pair(1000, 1000);
    thread::scope(|scope| {
        for key in 0..4 {
            let client = &client;
            scope.spawn(move || assert_eq!(client.entity::<Mirror>(key).echo(key).wait(), Ok(7)));
        }
        let calls = read_asks(&mut stream, 4);
        reply(&mut stream, &calls);
    });
}

#[test]
fn asks_beyond_the_calls_of_the_welcome_wait_and_entities_take_turns() {
    let (client, mut stream) = pair(4, 2);
    let keys = [1, 1, 1, 1, 2, 2, 2, 3];
    let mut asking: Vec<_> = keys.iter().map(|key| ask(&client, *key)).collect();
    assert!(asking.iter_mut().all(|asking| poll(asking).is_pending()));
    assert!(asking.iter_mut().all(|asking| poll(asking).is_pending()));
    let mut seen = Vec::new();
    let mut waiting = std::collections::VecDeque::new();
    while seen.len() < keys.len() {
        while waiting.len() < 4.min(keys.len() - seen.len()) {
            let (header, content) = read_frame(&mut stream).expect("an ask");
            waiting.push_back((header.call, content[0]));
        }
        assert!(is_silent(&stream), "no more than the node wants");
        let (call, key) = waiting.pop_front().expect("one waits");
        seen.push(key);
        reply(&mut stream, &[call]);
    }
    assert_eq!(seen, [1, 1, 2, 2, 3, 1, 1, 2]);
    for mut asking in asking {
        while poll(&mut asking) != Poll::Ready(Ok(7)) {
            thread::yield_now();
        }
    }
}

#[test]
fn node_that_gives_credit_for_nothing_is_left() {
    let (client, mut stream) = pair(4, 4);
    assert!(client.entity::<Mirror>(1).echo(1).try_tell().is_ok());
    let (header, _) = read_frame(&mut stream).expect("a tell");
    assert_eq!(header.kind, Kind::Tell);
    let credit = |stream: &mut TcpStream, count: u32| {
        let mut out = Vec::new();
        let written = Header::new(Kind::Credit).write_with(&mut out, |out| {
            out.extend_from_slice(&header.call.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
            Ok::<(), ()>(())
        });
        assert_eq!(written, Ok(()));
        stream.write_all(&out).expect("sent");
    };
    credit(&mut stream, 1);
    let waits = thread::spawn({
        let client = client.clone();
        move || client.entity::<Mirror>(2).echo(2).wait()
    });
    let calls = read_asks(&mut stream, 1);
    reply(&mut stream, &calls);
    assert_eq!(waits.join().expect("no panic"), Ok(7));
    credit(&mut stream, 1);
    assert!(read_frame(&mut stream).is_none(), "the end");
    assert_eq!(client.entity::<Mirror>(2).echo(2).wait(), Err(AskError::NotSent));
}

#[test]
fn node_that_takes_no_more_is_sent_no_more_and_still_answers() {
    let (client, mut stream) = pair(1, 1);
    let mut asking = [ask(&client, 1), ask(&client, 2)];
    assert!(asking.iter_mut().all(|asking| poll(asking).is_pending()));
    let calls = read_asks(&mut stream, 1);
    let mut out = Vec::new();
    Header::new(Kind::GoAway).write(&mut out);
    stream.write_all(&out).expect("sent");
    while client.is_connected() {
        thread::yield_now();
    }
    // It waited here.
    while poll(&mut asking[1]) != Poll::Ready(Err(AskError::NotSent)) {
        thread::yield_now();
    }
    assert_eq!(client.entity::<Mirror>(3).echo(3).wait(), Err(AskError::NotSent));
    reply(&mut stream, &calls);
    while poll(&mut asking[0]) != Poll::Ready(Ok(7)) {
        thread::yield_now();
    }
    assert!(is_silent(&stream));
}

#[test]
fn client_that_is_dropped_sends_what_it_was_told() {
    let (client, mut stream) = pair(1 << 20, u16::MAX);
    let told = (0..60_000).take_while(|number| {
        let tell = client.entity::<Mirror>(1).echo(*number);
        tell.try_tell().is_ok()
    });
    let told = told.count();
    drop(client.clone());
    let ends = thread::spawn(move || drop(client));
    let mut seen = 0;
    while let Some((header, _)) = read_frame(&mut stream) {
        assert_eq!(header.kind, Kind::Tell);
        seen += 1;
    }
    ends.join().expect("no panic");
    assert_eq!((seen, told), (60_000, 60_000));
}
