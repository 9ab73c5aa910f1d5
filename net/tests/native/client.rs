//! What a client does on its connection, seen from the other end: a node that is this test.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::read_frame::read_frame;
use coreside_macros::{entity, handlers};
use coreside_net::client::{Client, ClientBuilder};
use coreside_net::native::frame::{Code, Header, Kind, VERSION};
use coreside_net::native::{Hello, Standing, Welcome};
use coreside_shard::{AskError, Encode, HashKey, Placement};

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

const WELCOME: Welcome = Welcome {
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
    let (mut stream, hello) = accept(listener);
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

#[test]
fn tells_of_a_client_that_is_dropped_arrive_though_the_node_has_more_to_say() {
    let (client, mut stream) = pair(1000, 1000);
    let tell = |_| client.entity::<Mirror>(1).weigh(vec![7; 40_000]).try_tell().is_ok();
    assert!((0..200).all(tell));
    // It fills the buffers of both sockets, and what is in the client's is not to be lost.
    let ends = thread::spawn(move || drop(client));
    let (mut seen, mut ping) = (0, Vec::new());
    Header::new(Kind::Ping).write(&mut ping);
    while let Some((header, _)) = read_frame(&mut stream) {
        seen += u32::from(header.kind == Kind::Tell);
        // A client that is gone does not hear it.
        let _ = stream.write_all(&ping);
    }
    drop(stream);
    ends.join().expect("no panic");
    assert_eq!(seen, 200);
}

#[test]
fn a_time_without_end_is_a_time_like_any_other() {
    let (listener, address) = listener();
    let node = thread::spawn(move || greet(&listener, &WELCOME, &[]));
    let builder = builder().connect_timeout(Duration::MAX).backoff(Duration::MAX, Duration::MAX);
    let client = builder.connect(address).expect("a welcome");
    let mut stream = node.join().expect("no panic");
    let mut asking: Asking =
        Box::pin(client.entity::<Mirror>(1).echo(1).within(Duration::MAX)) as Asking;
    assert!(poll(&mut asking).is_pending());
    let calls = read_asks(&mut stream, 1);
    reply(&mut stream, &calls);
    while poll(&mut asking) != Poll::Ready(Ok(7)) {
        thread::yield_now();
    }
    drop(stream);
    while client.is_connected() {
        thread::yield_now();
    }
    assert_eq!(client.entity::<Mirror>(1).echo(1).wait(), Err(AskError::NotSent));
}

#[test]
fn every_code_says_whether_anything_was_done() {
    let (client, mut stream) = pair(1000, 1000);
    for (code, error) in [
        (Code::NotSent, AskError::NotSent),
        (Code::MaybeExecuted, AskError::MaybeExecuted),
        (Code::Failed, AskError::Failed),
        (Code::Expired, AskError::Expired),
        (Code::Full, AskError::NotSent),
        (Code::Invalid, AskError::NotSent),
        (Code::Unknown, AskError::NoSuchMessage),
        (Code::TooLong, AskError::Unsayable),
        (Code::Unconvertible, AskError::Unconvertible),
        (Code::Unsayable, AskError::Unsayable),
    ] {
        let mut asking = ask(&client, 1);
        assert!(poll(&mut asking).is_pending());
        let mut out = Vec::new();
        let call = read_asks(&mut stream, 1)[0];
        Header { call, code: code as u8, ..Header::new(Kind::Error) }.write(&mut out);
        stream.write_all(&out).expect("sent");
        loop {
            match poll(&mut asking) {
                Poll::Ready(answer) => break assert_eq!(answer, Err(error), "{code}"),
                Poll::Pending => thread::yield_now(),
            }
        }
    }
}

#[test]
fn a_task_that_panics_when_it_is_woken_harms_no_other() {
    #[derive(Default)]
    struct Panics(AtomicBool);

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
            panic!("part of the test");
        }
    }

    let (client, mut stream) = pair(1000, 1000);
    let mut first = ask(&client, 1);
    let panics = Arc::new(Panics::default());
    let waker = Waker::from(Arc::clone(&panics));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let calls = read_asks(&mut stream, 1);
    reply(&mut stream, &calls);
    while !panics.0.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    assert_eq!(poll(&mut first), Poll::Ready(Ok(7)));
    let mut second = ask(&client, 2);
    assert!(poll(&mut second).is_pending());
    let calls = read_asks(&mut stream, 1);
    reply(&mut stream, &calls);
    let until = Instant::now() + Duration::from_secs(20);
    while poll(&mut second) != Poll::Ready(Ok(7)) {
        assert!(Instant::now() < until, "nobody reads answers any more");
        thread::yield_now();
    }
}

#[test]
fn what_comes_together_with_the_welcome_is_heard() {
    let (listener, address) = listener();
    let node = thread::spawn(move || {
        let mut ping = Vec::new();
        Header { call: 77, ..Header::new(Kind::Ping) }.write(&mut ping);
        greet(&listener, &WELCOME, &ping)
    });
    let client = builder().connect(address).expect("a welcome");
    let mut stream = node.join().expect("no panic");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    let (header, _) = read_frame(&mut stream).expect("a pong");
    assert_eq!((header.kind, header.call), (Kind::Pong, 77));
    drop(client);
}

#[test]
fn a_node_cannot_have_a_client_open_any_number_of_connections() {
    let (listener, address) = listener();
    let hash_key = Some(HashKey::new(1));
    let welcome = Welcome { shards: u16::MAX, hash_key, ..WELCOME };
    let node = thread::spawn(move || greet(&listener, &welcome, &[]));
    let client = builder().connect(address).expect("a welcome");
    assert_eq!(client.connections(), 1);
    let mut stream = node.join().expect("no panic");
    ask_and_answer(&client, 1, &mut stream);
}

#[test]
fn an_attempt_to_connect_again_keeps_nobody_waiting() {
    let (listener, address) = listener();
    let hash_key = HashKey::new(1);
    let (accepted, streams) = std::sync::mpsc::channel();
    let node = thread::spawn(move || {
        for shard in 0..2 {
            let welcome = Welcome { shard, shards: 2, hash_key: Some(hash_key), ..WELCOME };
            accepted.send(greet(&listener, &welcome, &[])).expect("the test waits");
        }
        let (hangs, hello) = accept(&listener);
        assert_eq!(hello.shard, Some(1));
        hangs
    });
    let builder = builder().connect_timeout(Duration::from_secs(20));
    let client = builder.connect(address).expect("two welcomes");
    let mut first = streams.recv().expect("a connection");
    drop(streams.recv().expect("another connection"));
    // The shard that it is to be on is busy.
    let hangs = node.join().expect("no panic");
    let is_of_first = |key: &u64| Placement::even(2).shard(hash_key.hash(*key)) == 0;
    let key = (0..).find(is_of_first).expect("every second");
    ask_and_answer(&client, key, &mut first);
    assert!(is_silent(&hangs), "it was answered before the attempt was over");
    drop(client);
    assert!(is_silent(&hangs), "nor does the end wait for it");
}

#[test]
fn connections_that_never_hold_are_tried_again_later_and_later() {
    let (listener, address) = listener();
    let node = thread::spawn(move || {
        let mut waits = Vec::new();
        for _ in 0..9 {
            drop(greet(&listener, &WELCOME, &[]));
            waits.push(Instant::now());
        }
        waits
    });
    let (first, longest) = (Duration::from_millis(1), Duration::from_secs(60));
    let client = builder().backoff(first, longest).connect(address).expect("a welcome");
    let waits = node.join().expect("no panic");
    assert!(waits[8] - waits[7] >= Duration::from_millis(100), "{waits:?}");
    drop(client);
}

#[test]
fn a_node_that_leaves_asks_without_answers_and_says_nothing_is_given_up() {
    let (listener, address) = listener();
    let node = thread::spawn(move || {
        let first = greet(&listener, &WELCOME, &[]);
        (first, greet(&listener, &WELCOME, &[]))
    });
    let builder = builder().backoff(Duration::ZERO, Duration::ZERO);
    let builder = builder.silence(Duration::from_millis(1));
    let client = builder.connect(address).expect("a welcome");
    let asked = client.entity::<Mirror>(1).echo(1).within(Duration::from_millis(1)).wait();
    assert_eq!(asked, Err(AskError::MaybeExecuted));
    let (mut first, mut second) = node.join().expect("another connection");
    read_asks(&mut first, 1);
    let (header, _) = read_frame(&mut first).expect("a ping");
    assert_eq!(header.kind, Kind::Ping);
    assert!(read_frame(&mut first).is_none(), "and then the end");
    while !client.is_connected() {
        thread::yield_now();
    }
    ask_and_answer(&client, 2, &mut second);
}

#[test]
fn a_node_that_was_heard_of_late_may_leave_asks_without_answers() {
    let (listener, address) = listener();
    let node = thread::spawn(move || greet(&listener, &WELCOME, &[]));
    let client = builder().silence(Duration::from_secs(60)).connect(address).expect("a welcome");
    let mut stream = node.join().expect("no panic");
    for _ in 0..3 {
        let asked = client.entity::<Mirror>(1).echo(1).within(Duration::from_millis(1)).wait();
        assert_eq!(asked, Err(AskError::MaybeExecuted));
        read_asks(&mut stream, 1);
    }
    assert!(is_silent(&stream), "not even pinged before its time");
    ask_and_answer(&client, 2, &mut stream);
}

#[test]
fn a_node_cannot_have_a_client_wait_for_a_frame_of_any_length() {
    let (listener, address) = listener();
    let welcome = Welcome { frame_bytes_max: u32::MAX, ..WELCOME };
    let node = thread::spawn(move || greet(&listener, &welcome, &[]));
    let client = builder().frame_bytes_max(1 << 16).connect(address).expect("a welcome");
    let mut stream = node.join().expect("no panic");
    let mut asking = ask(&client, 1);
    assert!(poll(&mut asking).is_pending());
    let call = read_asks(&mut stream, 1)[0];
    let header = Header { call, length: (1 << 16) + 1, ..Header::new(Kind::Reply) };
    stream.write_all(&header.to_bytes()).expect("sent");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    assert!(read_frame(&mut stream).is_none(), "the end");
    while poll(&mut asking) != Poll::Ready(Err(AskError::MaybeExecuted)) {
        thread::yield_now();
    }
}
