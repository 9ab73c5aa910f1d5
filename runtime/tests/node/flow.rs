//! Threads outside wait for room in a shard's ingress, in order, and never for nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use coreside::{AskError, Cx, Handle, HashKey, Node, NodeBuilder, Stopped, entity, handlers};
use futures_lite::future::block_on;

#[entity]
struct Journal {
    total: i64,
    log: Vec<u64>,
}

/// Copies of a message that together are more than a shard takes beside those from outside.
const CONGESTION: usize = 400;

#[handlers]
impl Journal {
    fn add(&mut self, amount: i64) -> i64 {
        self.total += amount;
        self.total
    }

    fn append(&mut self, number: u64) {
        self.log.push(number);
    }

    #[local]
    fn log(&self) -> Vec<u64> {
        self.log.clone()
    }

    /// The thread that this entity lives on.
    #[local]
    fn thread(&self) -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    /// Holds the whole shard up: says so, and waits for the test to let go.
    #[local]
    fn hold(&self, reached: mpsc::Sender<()>, release: Arc<Mutex<mpsc::Receiver<()>>>) {
        reached.send(()).expect("the test waits");
        // An error is a test that has failed and let go.
        let _ = release.lock().expect("held once").recv();
    }

    /// Keeps the shard's run queue filled until told otherwise; says so once it is.
    #[local]
    fn churn(&self, begin: Option<mpsc::Sender<()>>, end: Arc<AtomicBool>, cx: &mut Cx<Self>) {
        let copies = if begin.is_some() { CONGESTION } else { 1 };
        for _ in 0..copies {
            if !end.load(Ordering::Relaxed) {
                let sent = cx.entity::<Self>(cx.key()).churn(None, Arc::clone(&end)).try_tell();
                assert!(sent.is_ok(), "the queue has room for {CONGESTION}");
            }
        }
        if let Some(begun) = begin {
            begun.send(()).expect("the test waits");
        }
    }
}

fn builder(ingress_max: usize) -> NodeBuilder {
    let node = Node::builder().entity::<Journal>().ingress_max(ingress_max);
    node.ask_timeout(Duration::from_secs(60))
}

fn start(ingress_max: usize) -> Node {
    builder(ingress_max).shards(1).start().expect("the node starts")
}

/// Blocks the node's one shard; sending or dropping what comes back lets it go.
fn hold(node: &Handle) -> mpsc::Sender<()> {
    let (reached, is_reached) = mpsc::channel();
    let (let_go, release) = mpsc::channel();
    let held = node.entity::<Journal>(0).hold(reached, Arc::new(Mutex::new(release))).tell();
    held.wait().expect("the node runs");
    is_reached.recv().expect("the shard runs");
    let_go
}

/// Blocks the shard and fills its ingress with appends of 0 and up.
fn hold_and_fill(node: &Handle, ingress_max: u64) -> mpsc::Sender<()> {
    let let_go = hold(node);
    for number in 0..ingress_max {
        assert!(node.entity::<Journal>(1).append(number).try_tell().is_ok(), "room for {number}");
    }
    assert!(node.entity::<Journal>(1).append(99).try_tell().is_err(), "the ingress is full");
    let_go
}

type Telling = Pin<Box<dyn Future<Output = bool>>>;

/// A tell of `append(number)` that was polled once and waits.
fn begin_append(node: &Handle, number: u64) -> Telling {
    let tell = node.entity::<Journal>(1).append(number).tell();
    let mut tell: Telling = Box::pin(async move { tell.await.is_ok() });
    assert!(poll(&mut tell).is_pending(), "there is no room for {number}");
    tell
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn log_of(node: &Handle, key: u64) -> Vec<u64> {
    node.entity::<Journal>(key).log().wait_for_room().wait().expect("an answer")
}

#[test]
fn tell_waits_for_room_and_keeps_order() {
    let node = start(4);
    let let_go = hold_and_fill(&node, 4);
    let tells: Vec<_> = (4..200).map(|number| begin_append(&node, number)).collect();
    drop(let_go);
    // In whatever order they are looked at.
    for tell in tells.into_iter().rev() {
        assert!(block_on(tell), "the node runs");
    }
    assert_eq!(log_of(&node, 1), (0..200).collect::<Vec<_>>());
}

#[test]
fn thread_waits_for_room_and_keeps_order() {
    let node = start(2);
    let let_go = hold_and_fill(&node, 2);
    thread::scope(|scope| {
        let teller = scope.spawn(|| {
            (2..500).all(|number| node.entity::<Journal>(1).append(number).tell().wait().is_ok())
        });
        drop(let_go);
        assert!(teller.join().expect("no panic"));
    });
    assert_eq!(log_of(&node, 1), (0..500).collect::<Vec<_>>());
}

#[test]
fn tell_with_room_is_sent_at_its_first_poll() {
    let node = start(4);
    let let_go = hold(&node);
    for number in 0..4 {
        let mut tell = node.entity::<Journal>(1).append(number).tell();
        assert!(matches!(poll(&mut tell), Poll::Ready(Ok(()))));
    }
    drop(node.entity::<Journal>(1).append(4).tell());
    drop(let_go);
    assert_eq!(log_of(&node, 1), [0, 1, 2, 3], "what was not polled was not sent");
}

#[test]
fn waiter_that_gives_up_passes_its_turn_on() {
    let node = start(1);
    let let_go = hold_and_fill(&node, 1);
    let first = begin_append(&node, 1);
    let gives_up = begin_append(&node, 2);
    let last = begin_append(&node, 3);
    let ask = node.entity::<Journal>(2).add(5).wait_for_room();
    let mut ask = Box::pin(ask);
    assert!(poll(&mut ask).is_pending());
    drop(gives_up);
    drop(ask);
    drop(let_go);
    assert!(block_on(last) && block_on(first));
    assert_eq!(log_of(&node, 1), [0, 1, 3]);
    let total = node.entity::<Journal>(2).add(0).wait_for_room().wait();
    assert_eq!(total, Ok(0), "the ask that was dropped was not sent");
}

#[test]
fn waiter_that_is_not_polled_again_holds_nobody_up() {
    let node = start(1);
    let let_go = hold_and_fill(&node, 1);
    let idle: Vec<_> = (1..10).map(|number| begin_append(&node, number)).collect();
    drop(let_go);
    assert_eq!(log_of(&node, 1), (0..10).collect::<Vec<_>>());
    drop(idle);
    assert_eq!(log_of(&node, 1).len(), 10);
}

#[test]
fn ask_waits_for_room() {
    let node = start(2);
    let let_go = hold_and_fill(&node, 2);
    assert_eq!(node.entity::<Journal>(1).add(1).wait(), Err(AskError::NotSent), "not by default");
    let mut ask = Box::pin(node.entity::<Journal>(1).add(1).wait_for_room());
    assert!(poll(&mut ask).is_pending());
    thread::scope(|scope| {
        let asker = scope.spawn(|| node.entity::<Journal>(2).add(7).wait_for_room().wait());
        drop(let_go);
        assert_eq!(block_on(ask), Ok(1));
        assert_eq!(asker.join().expect("no panic"), Ok(7));
    });
}

#[test]
fn ask_with_all_the_time_there_is_keeps_its_place() {
    let node = start(1);
    let let_go = hold_and_fill(&node, 1);
    let (answered, answer) = mpsc::channel();
    thread::scope(|scope| {
        let ask = node.entity::<Journal>(2).add(7).wait_for_room().within(Duration::MAX);
        scope.spawn(move || answered.send(ask.wait()));
        let early = answer.recv_timeout(Duration::from_millis(50));
        drop(let_go);
        assert!(early.is_err(), "there is no room yet: {early:?}");
    });
    assert_eq!(answer.recv(), Ok(Ok(7)));
}

#[test]
fn ask_without_room_ends_at_its_deadline_with_not_sent() {
    let node = start(1);
    let let_go = hold_and_fill(&node, 1);
    // A thread keeps its own time, even where the shard is held up.
    let ask = node.entity::<Journal>(1).add(1).wait_for_room().within(Duration::from_millis(20));
    assert_eq!(ask.wait(), Err(AskError::NotSent));
    drop(let_go);
    assert_eq!(node.entity::<Journal>(1).add(0).wait_for_room().wait(), Ok(0));
}

#[test]
fn shard_ends_asks_that_find_no_room_in_time() {
    let node = builder(1).shards(1).queue_bytes_max(32 << 10).start().expect("the node starts");
    let end = Arc::new(AtomicBool::new(false));
    let (begun, has_begun) = mpsc::channel();
    let churn = node.entity::<Journal>(0).churn(Some(begun), Arc::clone(&end)).tell();
    assert!(churn.wait().is_ok());
    has_begun.recv().expect("the shard runs");
    // From here on the shard has more to do than it takes from outside, and goes on.
    assert!(node.entity::<Journal>(1).append(0).tell().wait().is_ok(), "room in the ingress");
    let tells: Vec<_> = (1..3).map(|number| begin_append(&node, number)).collect();
    let limit = Duration::from_millis(20);
    let ask = node.entity::<Journal>(1).add(1).wait_for_room().within(limit);
    let answer = block_on(ask);
    end.store(true, Ordering::Relaxed);
    assert_eq!(answer, Err(AskError::NotSent));
    assert!(tells.into_iter().all(block_on), "tells have no deadline");
    assert_eq!(log_of(&node, 1), [0, 1, 2]);
    assert_eq!(node.entity::<Journal>(1).add(0).wait_for_room().wait(), Ok(0));
}

/// Two shards: keys 0 and 1 live on one, key 2 on the other.
fn start_with_keys_apart() -> Node {
    let nodes = (0..100).map(|seed| {
        let node = builder(1).shards(2).hash_key(HashKey::new(seed));
        node.start().expect("the node starts")
    });
    let thread = |node: &Node, key| node.entity::<Journal>(key).thread().wait();
    let is_apart =
        |node: &Node| thread(node, 0) == thread(node, 1) && thread(node, 0) != thread(node, 2);
    nodes.into_iter().find(is_apart).expect("a seed that does it")
}

#[test]
fn stop_wakes_all_who_wait_for_room() {
    let node = start_with_keys_apart();
    let handle = node.handle();
    let let_go = hold_and_fill(&handle, 1);
    let tells: Vec<_> = (1..20).map(|number| begin_append(&handle, number)).collect();
    let mut ask = Box::pin(handle.entity::<Journal>(1).add(1).wait_for_room());
    assert!(poll(&mut ask).is_pending());
    let mut last = handle.entity::<Journal>(1).append(77).tell();
    assert!(poll(&mut last).is_pending());
    thread::scope(|scope| {
        let tell = || handle.entity::<Journal>(1).append(88).tell().wait();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(tell)).collect();
        scope.spawn(move || node.stop());
        // The stop has begun once the other shard takes nothing any more.
        while handle.entity::<Journal>(2).append(0).tell().wait().is_ok() {}
        drop(let_go);
        for thread in threads {
            assert!(thread.join().expect("no panic").is_err_and(|back| back.0.number == 88));
        }
    });
    assert!(tells.into_iter().all(|tell| !block_on(tell)), "none was taken in");
    assert_eq!(block_on(ask), Err(AskError::NotSent));
    assert!(matches!(block_on(last), Err(Stopped(message)) if message.number == 77));
    assert!(handle.entity::<Journal>(1).append(0).tell().wait().is_err(), "and nothing new");
}

#[test]
fn everything_passes_through_a_tiny_ingress() {
    const THREADS: u64 = 8;
    const TELLS: u64 = 2_000;
    for (shards, ingress_max) in [(1, 1), (2, 3)] {
        let node = builder(ingress_max).shards(shards).start().expect("the node starts");
        thread::scope(|scope| {
            for key in 0..THREADS {
                let node = &node;
                scope.spawn(move || tell_in_many_ways(node, key, TELLS));
            }
        });
        for key in 0..THREADS {
            let log = log_of(&node, key);
            assert!(log.iter().copied().eq(0..TELLS), "key {key}: {} of them", log.len());
        }
    }
}

/// Appends 0 to `count` in order: by blocking, at once where there is room, and as futures of which
/// several wait at a time; and begins asks that it drops again.
fn tell_in_many_ways(node: &Handle, key: u64, count: u64) {
    let append = |number| node.entity::<Journal>(key).append(number);
    let mut waiting = VecDeque::new();
    for number in 0..count {
        match number % 7 {
            0 => assert!(append(number).tell().wait().is_ok()),
            1 | 2 if append(number).try_tell().is_ok() => {}
            _ => {
                let mut tell = Box::pin(append(number).tell());
                match poll(&mut tell) {
                    Poll::Ready(outcome) => assert!(outcome.is_ok()),
                    Poll::Pending => waiting.push_back(tell),
                }
            }
        }
        if number % 5 == 0 {
            let _ = poll(&mut Box::pin(node.entity::<Journal>(key).add(1).wait_for_room()));
        }
        if waiting.len() > 5
            && let Some(tell) = waiting.pop_front()
        {
            assert!(block_on(tell).is_ok());
        }
    }
    assert!(waiting.into_iter().all(|tell| block_on(tell).is_ok()));
}
