//! What becomes of a client whose node is slow, lost, hostile, or another one than before.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use coreside_net::native::Welcome;
use coreside_net::native::frame::{Code, Header, Kind};
use coreside_shard::{AskError, HashKey, Placement};

use super::{
    Asking, Mirror, WELCOME, accept, ask, ask_and_answer, builder, greet, is_silent, listener,
    pair, poll, read_asks, reply, welcome_to,
};
use crate::read_frame::read_frame;

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
fn a_node_that_comes_back_with_more_shards_gets_more_connections() {
    let (listener, address) = listener();
    let hash_key = HashKey::new(1);
    let welcome =
        move |shard, shards| Welcome { shard, shards, hash_key: Some(hash_key), ..WELCOME };
    let node = thread::spawn(move || {
        drop(greet(&listener, &welcome(0, 1), &[]));
        let mut ping = Vec::new();
        Header::new(Kind::Ping).write(&mut ping);
        // One, and because of what it hears the others, in any order.
        let stream = || {
            let (stream, hello) = accept(&listener);
            let shard = hello.shard.expect("it asks for one");
            (shard, welcome_to(stream, &hello, &welcome(shard, 3), &ping))
        };
        [stream(), stream(), stream()]
    });
    let builder = builder().backoff(Duration::ZERO, Duration::ZERO);
    let client = builder.connect(address).expect("a welcome");
    let streams = node.join().expect("no panic");
    assert_eq!((client.connections(), client.hash_key()), (3, Some(hash_key)));
    for (shard, mut stream) in streams {
        let is_there = |key: &u64| Placement::even(3).shard(hash_key.hash(*key)) == shard;
        let key = (0..).find(is_there).expect("every third");
        let pong = read_frame(&mut stream).expect("the client knows that it is there");
        assert_eq!(pong.0.kind, Kind::Pong);
        ask_and_answer(&client, key, &mut stream);
    }
}

#[test]
fn a_node_that_comes_back_elsewhere_is_found_by_its_name() {
    /// Stands for a name: what it means changes.
    struct Moves(Arc<Mutex<SocketAddr>>);

    impl ToSocketAddrs for Moves {
        type Iter = std::iter::Once<SocketAddr>;

        fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
            Ok(std::iter::once(*self.0.lock().expect("no panic")))
        }
    }

    let ((first, here), (second, there)) = (listener(), listener());
    let address = Arc::new(Mutex::new(here));
    let name = Moves(Arc::clone(&address));
    let node = thread::spawn(move || {
        let stream = greet(&first, &WELCOME, &[]);
        *address.lock().expect("no panic") = there;
        drop((first, stream));
        greet(&second, &WELCOME, &[])
    });
    let builder = builder().backoff(Duration::ZERO, Duration::from_millis(10));
    let client = builder.connect(name).expect("a welcome");
    let mut stream = node.join().expect("no panic");
    while !client.is_connected() {
        thread::yield_now();
    }
    ask_and_answer(&client, 1, &mut stream);
}

#[test]
fn connections_that_never_hold_are_tried_again_later_and_later() {
    let (listener, address) = listener();
    let node = thread::spawn(move || {
        let mut waits = Vec::new();
        for _ in 0..9 {
            let stream = greet(&listener, &WELCOME, &[]);
            waits.push(Instant::now());
            drop(stream);
        }
        waits
    });
    let (first, longest) = (Duration::from_millis(1), Duration::from_secs(60));
    let client = builder().backoff(first, longest).connect(address).expect("a welcome");
    let waits = node.join().expect("no panic");
    assert!(waits[8] - waits[7] >= Duration::from_millis(64), "{waits:?}");
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
