//! The end of a node: it takes nothing new, finishes what is under way, and leaves nothing behind.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use coreside::{AskError, Cx, Handle, Later, Node, NodeBuilder, ReplyTo, entity, handlers};

#[entity]
struct Hop {
    kept: Vec<ReplyTo<u64>>,
    witness: Option<Arc<AtomicU64>>,
}

/// Keys that a chain of hops goes round, so that every pair of shards is on its way.
const KEYS: u64 = 97;

#[handlers]
impl Hop {
    /// Counts, and sends what is left of the chain on to the next key.
    #[local]
    fn hop(&mut self, left: u64, count: Arc<AtomicU64>, cx: &mut Cx<Self>) {
        count.fetch_add(1, Ordering::Relaxed);
        if left > 0 {
            let next = (cx.key() * 31 + 1) % KEYS;
            let sent = cx.entity::<Hop>(next).hop(left - 1, count).try_tell();
            assert!(sent.is_ok(), "queues are far from full");
        }
    }

    /// The same by asks: answers when the rest of the chain has.
    #[local]
    fn ask_on(&mut self, left: u64, count: Arc<AtomicU64>, cx: &mut Cx<Self>) -> Later<u64> {
        count.fetch_add(1, Ordering::Relaxed);
        let (later, reply_to) = cx.later();
        if left == 0 {
            cx.reply(reply_to, 0);
            return later;
        }
        let next = (cx.key() * 31 + 1) % KEYS;
        let then = |_: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            cx.reply(reply_to, answer.map_or(1_000_000, |hops| hops + 1));
        };
        let sent = cx.entity::<Hop>(next).ask_on(left - 1, count).ask(then);
        assert!(sent.is_ok(), "queues are far from full");
        later
    }

    fn never(&mut self, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, reply_to) = cx.later();
        self.kept.push(reply_to);
        later
    }

    #[local]
    fn keep(&mut self, witness: Arc<AtomicU64>) {
        self.witness = Some(witness);
    }

    /// The number by which the kernel knows this entity's thread.
    #[local]
    fn thread(&self) -> String {
        let link = std::fs::read_link("/proc/thread-self").expect("proc is mounted");
        link.to_string_lossy().into_owned()
    }
}

fn builder(shards: usize) -> NodeBuilder {
    Node::builder().entity::<Hop>().shards(shards).ask_timeout(Duration::from_secs(60))
}

/// Tells it, however often the ingress is full.
fn tell_hop(node: &Handle, key: u64, left: u64, count: &Arc<AtomicU64>) {
    while node.entity::<Hop>(key % KEYS).hop(left, Arc::clone(count)).try_tell().is_err() {
        thread::yield_now();
    }
}

#[test]
fn stop_finishes_what_is_under_way() {
    for shards in [1, 2, 5] {
        let node = builder(shards).start().expect("the node starts");
        let count = Arc::new(AtomicU64::new(0));
        for key in 0..200 {
            tell_hop(&node, key, 500, &count);
        }
        node.stop();
        assert_eq!(count.load(Ordering::Relaxed), 200 * 501, "{shards} shards");
        assert_eq!(Arc::strong_count(&count), 1, "no message is left");
    }
}

#[test]
fn stop_finishes_short_work_on_many_shards() {
    // Many ends, each with a few records on their way between shards that are not on a core.
    for round in 0..60 {
        let node = builder(5).start().expect("the node starts");
        let count = Arc::new(AtomicU64::new(0));
        for key in 0..3 {
            tell_hop(&node, round + key, 40, &count);
        }
        node.stop();
        assert_eq!(count.load(Ordering::Relaxed), 3 * 41, "round {round}");
    }
}

#[test]
fn stop_waits_for_the_answers_under_way() {
    let node = builder(3).start().expect("the node starts");
    let count = Arc::new(AtomicU64::new(0));
    let (accepted, all_accepted) = mpsc::channel();
    thread::scope(|scope| {
        let asks: Vec<_> = (0..8)
            .map(|key| {
                let (handle, count, accepted) =
                    (node.handle(), Arc::clone(&count), accepted.clone());
                scope.spawn(move || {
                    let mut ask = Box::pin(handle.entity::<Hop>(key).ask_on(300, count));
                    // The first poll sends it.
                    let first =
                        futures_lite::future::block_on(futures_lite::future::poll_once(&mut ask));
                    accepted.send(()).expect("the test waits");
                    first.unwrap_or_else(|| futures_lite::future::block_on(ask))
                })
            })
            .collect();
        (0..8).for_each(|_| all_accepted.recv().expect("every thread sends"));
        node.stop();
        for ask in asks {
            assert_eq!(ask.join().expect("no panic"), Ok(300));
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 8 * 301);
}

#[test]
fn stop_ends_every_ask() {
    let node = builder(2).drain(Duration::from_millis(50)).start().expect("the node starts");
    let (accepted, all_accepted) = mpsc::channel();
    thread::scope(|scope| {
        let asks: Vec<_> = (0..6)
            .map(|key| {
                let (handle, accepted) = (node.handle(), accepted.clone());
                scope.spawn(move || {
                    let day = Duration::from_secs(86_400);
                    let mut ask = Box::pin(handle.entity::<Hop>(key).never().within(day));
                    let first =
                        futures_lite::future::block_on(futures_lite::future::poll_once(&mut ask));
                    accepted.send(()).expect("the test waits");
                    first.unwrap_or_else(|| futures_lite::future::block_on(ask))
                })
            })
            .collect();
        (0..6).for_each(|_| all_accepted.recv().expect("every thread sends"));
        node.stop();
        for ask in asks {
            let answer = ask.join().expect("no panic");
            let ended = matches!(answer, Err(AskError::MaybeExecuted | AskError::NotSent));
            assert!(ended, "{answer:?}");
        }
    });
}

#[test]
fn stop_takes_nothing_new() {
    let node = builder(2).drain(Duration::from_secs(3_600)).start().expect("the node starts");
    let (ended, end) = mpsc::channel();
    let callers: Vec<_> = (0..3)
        .map(|key| {
            let handle = node.handle();
            thread::spawn(move || {
                let count = Arc::new(AtomicU64::new(0));
                // Calls for as long as it is answered.
                while handle.entity::<Hop>(key).ask_on(1, Arc::clone(&count)).wait().is_ok() {}
            })
        })
        .collect();
    thread::spawn(move || {
        node.stop();
        ended.send(()).expect("the test waits");
    });
    let outcome = end.recv_timeout(Duration::from_secs(30));
    assert!(outcome.is_ok(), "callers who go on calling keep the node from its end");
    callers.into_iter().for_each(|caller| caller.join().expect("refused in the end"));
}

#[test]
fn dropping_a_node_ends_its_threads() {
    let node = builder(3).start().expect("the node starts");
    let mut threads: Vec<String> =
        (0..KEYS).map(|key| node.entity::<Hop>(key).thread().wait().expect("an answer")).collect();
    threads.sort();
    threads.dedup();
    assert_eq!(threads.len(), 3);
    let exists = |thread: &String| Path::new("/proc").join(thread).exists();
    assert!(threads.iter().all(exists));
    drop(node);
    // The kernel lets whoever waits for a thread go on a moment before it forgets the thread.
    for _ in 0..10_000 {
        if !threads.iter().any(exists) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{threads:?} are still there");
}

#[test]
fn stop_executes_every_tell_that_was_accepted() {
    for round in 0..40 {
        let node = builder(3).start().expect("the node starts");
        let count = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..3)
            .map(|key| {
                let (handle, count) = (node.handle(), Arc::clone(&count));
                thread::spawn(move || {
                    let mut accepted = 0;
                    // Until the node refuses for good, which it does once it has ended.
                    let mut refused = 0;
                    while refused < 100 {
                        match handle.entity::<Hop>(key).hop(1, Arc::clone(&count)).try_tell() {
                            Ok(()) => (accepted, refused) = (accepted + 1, 0),
                            Err(_) => {
                                refused += 1;
                                thread::yield_now();
                            }
                        }
                    }
                    accepted
                })
            })
            .collect();
        while count.load(Ordering::Relaxed) < 50 {
            thread::yield_now();
        }
        node.stop();
        let accepted = callers.into_iter().map(|caller| caller.join().expect("no panic"));
        assert_eq!(count.load(Ordering::Relaxed), 2 * accepted.sum::<u64>(), "round {round}");
    }
}

#[test]
fn dropping_a_node_drops_its_entities() {
    let witness = Arc::new(AtomicU64::new(0));
    let node = builder(3).start().expect("the node starts");
    for key in 0..KEYS {
        assert_eq!(node.entity::<Hop>(key).keep(Arc::clone(&witness)).wait(), Ok(()));
    }
    assert_eq!(Arc::strong_count(&witness), 1 + KEYS as usize);
    drop(node);
    assert_eq!(Arc::strong_count(&witness), 1);
}

#[test]
fn a_handle_outlives_its_node() {
    let node = builder(1).start().expect("the node starts");
    let handle = node.handle();
    assert_eq!(handle.entity::<Hop>(1).keep(Arc::default()).wait(), Ok(()));
    drop(node);
    assert_eq!(handle.entity::<Hop>(1).never().wait(), Err(AskError::NotSent));
    assert!(handle.entity::<Hop>(1).never().try_tell().is_err());
    assert!(handle.stats().turns >= 1);
}
