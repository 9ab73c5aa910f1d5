//! A node from the outside: threads call entities and get their answers.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use coreside::{
    AskError, Cx, Full, HashKey, Idle, Later, Name, Node, NodeBuilder, NodeError, ReplyTo, entity,
    handlers,
};

#[entity]
struct Counter {
    total: i64,
    log: Vec<u64>,
    kept: Vec<ReplyTo<i64>>,
}

#[handlers]
impl Counter {
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

    fn fail(&mut self) -> i64 {
        self.total += 1;
        panic!("told to")
    }

    /// Never answers.
    fn never(&mut self, cx: &mut Cx<Self>) -> Later<i64> {
        let (later, reply_to) = cx.later();
        self.kept.push(reply_to);
        later
    }

    /// Adds to another counter; answers with that one's total, or with -1.
    fn relay(&mut self, to: u64, amount: i64, cx: &mut Cx<Self>) -> Later<i64> {
        let (later, reply_to) = cx.later();
        let then = |_: &mut Self, total: Result<i64, AskError>, cx: &mut Cx<Self>| {
            cx.reply(reply_to, total.unwrap_or(-1));
        };
        if let Err(refused) = cx.entity::<Counter>(to).add(amount).ask(then) {
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        later
    }

    /// Holds the whole shard up.
    #[local]
    fn hold(&self, gate: Arc<Gate>) {
        gate.reach_and_wait();
    }

    /// The thread that this entity lives on.
    #[local]
    fn thread(&self) -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[sweep]
    fn sum(&self, sum: &mut i64) {
        *sum += self.total;
    }
}

/// Lives nowhere: no node of these tests registers it.
#[entity]
struct Stranger;

#[handlers]
impl Stranger {
    fn touch(&self) -> i64 {
        1
    }

    #[sweep]
    fn count(&self, count: &mut i64) {
        *count += 1;
    }
}

#[entity(key = Name)]
struct Named {
    total: i64,
}

#[handlers]
impl Named {
    fn raise(&mut self) -> i64 {
        self.total += 1;
        self.total
    }
}

/// Where a shard waits until the test lets it go on.
#[derive(Default)]
struct Gate {
    reached: Mutex<bool>,
    changed: Condvar,
    open: AtomicBool,
}

impl Gate {
    fn reach_and_wait(&self) {
        let mut reached = self.reached.lock().expect("no panic under this lock");
        *reached = true;
        self.changed.notify_all();
        while !self.open.load(Ordering::Acquire) {
            reached = self.changed.wait(reached).expect("no panic under this lock");
        }
    }

    fn wait_until_reached(&self) {
        let mut reached = self.reached.lock().expect("no panic under this lock");
        while !*reached {
            reached = self.changed.wait(reached).expect("no panic under this lock");
        }
    }

    fn open(&self) {
        let _reached = self.reached.lock().expect("no panic under this lock");
        self.open.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

fn builder(shards: usize) -> NodeBuilder {
    let hash_key = HashKey::new(0x0123_4567_89ab_cdef);
    // Asks have all the time that a loaded machine needs.
    let timeout = Duration::from_secs(60);
    let node = Node::builder().entity::<Counter>().entity::<Named>();
    node.shards(shards).hash_key(hash_key).ask_timeout(timeout)
}

fn start(shards: usize) -> Node {
    builder(shards).start().expect("the node starts")
}

#[test]
fn node_starts_and_stops() {
    for shards in [1, 2, 5] {
        for _ in 0..3 {
            let node = start(shards);
            let handle = node.handle();
            for key in 0..50 {
                assert_eq!(node.entity::<Counter>(key).add(2).wait(), Ok(2));
                assert_eq!(handle.entity::<Counter>(key).add(3).wait(), Ok(5));
            }
            node.stop();
            assert_eq!(handle.entity::<Counter>(1).add(1).wait(), Err(AskError::NotSent));
            assert!(handle.entity::<Counter>(1).add(1).try_tell().is_err());
        }
    }
}

#[test]
fn a_node_that_cannot_start_says_why() {
    assert!(matches!(builder(0).start(), Err(NodeError::Shards(0))));
    assert!(matches!(builder(1 << 20).start(), Err(NodeError::Shards(_))));
    assert!(matches!(builder(1).cores([100_000]).start(), Err(NodeError::Core(100_000))));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address");
    let refused = builder(2).listen(address).start();
    assert!(matches!(refused, Err(NodeError::Listen(at, _)) if at == address), "{refused:?}");
}

#[test]
fn more_shards_than_cores_work() {
    let cores = thread::available_parallelism().expect("the number of cores").get();
    let shards = 3 * cores + 1;
    let node = start(shards);
    let threads: BTreeSet<String> = (0..40 * shards as u64)
        .map(|key| node.entity::<Counter>(key).thread().wait().expect("an answer"))
        .collect();
    assert_eq!(threads.len(), shards, "a thread per shard: {threads:?}");
    for key in 0..200 {
        let relayed = node.entity::<Counter>(key).relay(key + 1, 1).wait();
        assert_eq!(relayed, Ok(1));
    }
}

#[test]
fn a_spinning_node_works() {
    let node = builder(2).idle(Idle::Spin).start().expect("the node starts");
    for key in 0..200 {
        assert_eq!(node.entity::<Counter>(key).relay(key + 1, 1).wait(), Ok(1));
    }
}

#[test]
fn a_request_from_a_thread_is_answered() {
    let node = start(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let total = node.entity::<Counter>(round % 10).add(1).wait();
                    assert!(total.as_ref().is_ok_and(|total| *total >= 1), "{total:?}");
                }
            });
        }
    });
    let totals = (0..10).map(|key| node.entity::<Counter>(key).add(0).wait());
    assert_eq!(totals.sum::<Result<i64, _>>(), Ok(2_000));
}

#[test]
fn requests_from_one_thread_arrive_in_order() {
    let node = start(2);
    for key in 0..4 {
        for number in 0..3_000 {
            while node.entity::<Counter>(key).append(number).try_tell().is_err() {
                thread::yield_now();
            }
        }
    }
    for key in 0..4 {
        let log = node.entity::<Counter>(key).log().wait().expect("an answer");
        assert!(log.iter().copied().eq(0..3_000), "key {key}: {} of them", log.len());
    }
}

/// A waker that says whether it was called.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().expect("no panic under this lock") = true;
        self.changed.notify_all();
    }
}

impl Bell {
    fn wait(&self) {
        let mut rung = self.rung.lock().expect("no panic under this lock");
        while !*rung {
            rung = self.changed.wait(rung).expect("no panic under this lock");
        }
        *rung = false;
    }
}

#[test]
fn requests_are_futures_on_any_executor() {
    let node = start(2);
    let mut request = pin!(node.entity::<Counter>(1).add(7));
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let answer = loop {
        match request.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => break answer,
            Poll::Pending => bell.wait(),
        }
    };
    assert_eq!(answer, Ok(7));
    let both = futures_lite::future::block_on(async {
        let first = node.entity::<Counter>(1).add(1);
        let second = node.entity::<Counter>(2).add(1);
        futures_lite::future::zip(first, second).await
    });
    assert_eq!(both, (Ok(8), Ok(1)));
}

#[test]
fn a_request_that_is_dropped_before_its_poll_is_not_sent() {
    let node = start(1);
    drop(node.entity::<Counter>(1).add(7));
    assert_eq!(node.entity::<Counter>(1).add(0).wait(), Ok(0));
}

#[test]
fn a_request_that_is_dropped_after_its_poll_disturbs_nobody() {
    let node = start(1);
    for _ in 0..100 {
        let mut request = Box::pin(node.entity::<Counter>(1).add(1));
        let _ = request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    assert_eq!(node.entity::<Counter>(1).add(0).wait(), Ok(100));
}

#[test]
fn within_ends_the_wait() {
    let node = start(2);
    for key in 0..4 {
        let never = node.entity::<Counter>(key).never().within(Duration::from_millis(20));
        assert_eq!(never.wait(), Err(AskError::MaybeExecuted));
    }
    assert_eq!(node.entity::<Counter>(0).add(1).wait(), Ok(1));
}

#[test]
fn the_nodes_timeout_ends_the_wait() {
    let node = builder(2).ask_timeout(Duration::from_millis(20)).start().expect("it starts");
    for key in 0..4 {
        assert_eq!(node.entity::<Counter>(key).never().wait(), Err(AskError::MaybeExecuted));
    }
}

#[test]
fn ask_across_shards() {
    let node = start(3);
    for from in 0..12 {
        for to in (0..12).filter(|to| *to != from) {
            let total = node.entity::<Counter>(from).relay(to, 1).wait();
            assert!(total.as_ref().is_ok_and(|total| *total >= 1), "{from} to {to}: {total:?}");
        }
    }
    let totals = (0..12).map(|key| node.entity::<Counter>(key).add(0).wait());
    assert_eq!(totals.sum::<Result<i64, _>>(), Ok(12 * 11));
}

#[test]
fn a_panic_drops_that_entity_and_nothing_else() {
    let node = start(2);
    for key in 0..20 {
        assert_eq!(node.entity::<Counter>(key).add(10).wait(), Ok(10));
    }
    assert_eq!(node.entity::<Counter>(7).fail().wait(), Err(AskError::Failed));
    for key in 0..20 {
        let expected = if key == 7 { 1 } else { 11 };
        assert_eq!(node.entity::<Counter>(key).add(1).wait(), Ok(expected), "key {key}");
    }
}

#[test]
fn full_ingress_refuses() {
    let node = builder(1).ingress_max(4).start().expect("the node starts");
    let gate = Arc::new(Gate::default());
    node.entity::<Counter>(1).hold(Arc::clone(&gate)).try_tell().map_err(|_| ()).expect("room");
    gate.wait_until_reached();
    let mut accepted = 0;
    let refused = loop {
        match node.entity::<Counter>(2).add(1).try_tell() {
            Ok(()) => accepted += 1,
            Err(Full(message)) => break message,
        }
        assert!(accepted < 100, "no bound is met");
    };
    assert_eq!((accepted, refused.amount), (4, 1));
    assert_eq!(node.entity::<Counter>(2).add(1).wait(), Err(AskError::NotSent));
    gate.open();
    // The ingress may still be full for a moment.
    let total = loop {
        match node.entity::<Counter>(2).add(0).wait() {
            Err(AskError::NotSent) => thread::yield_now(),
            total => break total,
        }
    };
    assert_eq!(total, Ok(4), "what was accepted was done, what was refused was not");
}

#[test]
fn two_nodes_in_one_process_know_nothing_of_each_other() {
    let (one, other) = (start(2), start(2));
    for key in 0..20 {
        assert_eq!(one.entity::<Counter>(key).add(1).wait(), Ok(1));
        assert_eq!(other.entity::<Counter>(key).add(5).wait(), Ok(5));
    }
    one.stop();
    assert_eq!(other.entity::<Counter>(3).add(5).wait(), Ok(10));
}

#[test]
fn a_sweep_adds_up_all_shards() {
    let node = start(3);
    for key in 0..1_000 {
        while node.entity::<Counter>(key).add(key as i64).try_tell().is_err() {
            thread::yield_now();
        }
    }
    // A tell to another shard may be behind the sweep, so wait for the last of each.
    for key in 0..1_000 {
        assert_eq!(node.entity::<Counter>(key).add(0).wait(), Ok(key as i64));
    }
    let sum = node.sweep::<Counter, CounterSum>().expect("a total");
    assert_eq!(sum.total, 1_000 * 999 / 2);
}

#[test]
fn names_are_keys() {
    let node = start(2);
    for round in 1..=3 {
        for name in ["alice", "bob", "a name that is longer than any record"] {
            let key = Name::new(name, node.hash_key());
            assert_eq!(node.entity::<Named>(key).raise().wait(), Ok(round), "{name}");
        }
    }
}

#[test]
fn a_type_that_is_not_registered_disturbs_nobody() {
    let node = start(2);
    thread::scope(|scope| {
        for key in 0..4 {
            let node = &node;
            // Whether the caller panics or is refused, it hears of it.
            let stranger = scope.spawn(move || node.entity::<Stranger>(key).touch().wait());
            assert!(stranger.join().unwrap_or(Err(AskError::NotSent)).is_err());
        }
        let sweep = scope.spawn(|| node.sweep::<Stranger, StrangerCount>().map(|_| ()));
        assert!(sweep.join().unwrap_or(Err(AskError::NotSent)).is_err());
    });
    for key in 0..20 {
        assert_eq!(node.entity::<Counter>(key).add(1).wait(), Ok(1));
    }
}
