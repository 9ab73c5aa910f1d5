//! What holds for a client whose node sends any bytes: every ask ends.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use coreside_macros::{entity, handlers, wire};
use coreside_net::client::Client;
use coreside_net::native::frame::VERSION;
use coreside_net::native::{Standing, Welcome};

#[wire(crate = coreside_shard)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    name: String,
    parts: Vec<Option<u32>>,
    mark: Mark,
}

#[wire(crate = coreside_shard)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mark {
    None,
    Of(u64, bool),
    Named { text: String },
}

#[entity(crate = coreside_shard)]
struct Book;

#[handlers(crate = coreside_shard)]
impl Book {
    #[local]
    #[wire]
    fn bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    #[local]
    #[wire]
    fn entry(&self) -> Result<Entry, u64> {
        Err(1)
    }

    #[local]
    #[wire]
    fn count(&self) -> u64 {
        0
    }
}

/// The messages of a book.
const MESSAGES: u16 = 3;

/// A node that says what it is told to say.
pub(crate) struct Node {
    address: SocketAddr,
    /// What the next connection gets; those behind it are closed.
    next: Arc<Mutex<Option<Said>>>,
    /// The asks are made, or never will be.
    go: SyncSender<()>,
    done: Receiver<()>,
}

/// Bytes before and behind the asks.
struct Said {
    first: Vec<u8>,
    then: Vec<u8>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let next = Arc::new(Mutex::new(None::<Said>));
        let (serve, to_serve) = sync_channel::<(TcpStream, Said)>(0);
        let (go, gone) = sync_channel(1);
        let (finished, done) = sync_channel(1);
        let said = Arc::clone(&next);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), Some(said)) = (stream, said.lock().expect("no panic").take())
                else {
                    continue;
                };
                if serve.send((stream, said)).is_err() {
                    return;
                }
            }
        });
        thread::spawn(move || {
            for (stream, said) in to_serve {
                say(stream, &said, &gone);
                if finished.send(()).is_err() {
                    return;
                }
            }
        });
        Self { address, next, go, done }
    }
}

/// Speaks, and then waits until the client is gone. Whoever leaves first has said all there was.
fn say(mut stream: TcpStream, said: &Said, gone: &Receiver<()>) {
    let mut spoken = stream.write_all(&said.first);
    if said.then.is_empty() {
        spoken = spoken.and_then(|()| stream.shutdown(Shutdown::Write));
    }
    gone.recv().expect("who asks says when");
    if !said.then.is_empty() && spoken.is_ok() {
        let _ = stream.write_all(&said.then).and_then(|()| stream.shutdown(Shutdown::Write));
    }
    let mut heard = [0; 4096];
    while stream.read(&mut heard).is_ok_and(|len| len > 0) {}
}

/// What is said behind a welcome (or, bit 0 of the first byte, in its place): every ask ends. Bit 1
/// has the client want any shard.
pub(crate) fn check(node: &Node, bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let (bare, any_shard) = (mode & 1 != 0, mode & 2 != 0);
    let said = match bare {
        true => Said { first: bytes.to_vec(), then: Vec::new() },
        false => Said { first: welcome(), then: bytes.to_vec() },
    };
    *node.next.lock().expect("no panic") = Some(said);
    let builder = Client::builder().entity::<Book>().connect_timeout(Duration::from_secs(5));
    let builder = builder.backoff(Duration::from_secs(60), Duration::from_secs(60));
    let builder = builder.ask_timeout(Duration::from_secs(60));
    let client = if any_shard { builder.any_shard() } else { builder };
    let Ok(client) = client.connect(node.address) else {
        assert!(bare || !any_shard, "a welcome like any other");
        node.go.send(()).expect("the node waits");
        return node.done.recv().expect("the node has noticed");
    };
    let mut bytes = pin!(client.entity::<Book>(7).bytes(b"some".to_vec()));
    let mut entry = pin!(client.entity::<Book>(7).entry());
    let mut count = pin!(client.entity::<Book>(7).count());
    let mut nobody = Context::from_waker(Waker::noop());
    let asked = (
        bytes.as_mut().poll(&mut nobody),
        entry.as_mut().poll(&mut nobody),
        count.as_mut().poll(&mut nobody),
    );
    node.go.send(()).expect("the node waits");
    end(bytes, asked.0);
    end(entry, asked.1);
    end(count, asked.2);
    drop(client);
    node.done.recv().expect("the node has noticed");
}

/// Waits for the end of an ask.
fn end<F: Future + Unpin>(mut ask: F, asked: Poll<F::Output>) {
    if asked.is_ready() {
        return;
    }
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut cx = Context::from_waker(&waker);
    while std::pin::Pin::new(&mut ask).poll(&mut cx).is_pending() {
        thread::park();
    }
}

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn welcome() -> Vec<u8> {
    let mut out = Vec::new();
    let welcome = Welcome {
        version: VERSION,
        shard: 0,
        shards: 1,
        cluster: 0,
        frame_bytes_max: 4096,
        calls_max: 16,
        tells_max: 1000,
        entity_messages_max: 100,
        hash_key: None,
        messages: (0..MESSAGES).map(Standing::Number).collect(),
    };
    welcome.write(&mut out);
    out
}
