//! A parked node sleeps, and wakes in time.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::take_turns;
use coreside::{AskError, Cx, Idle, Later, Node, NodeBuilder, ReplyTo, entity, handlers};

#[entity]
struct Counter {
    total: i64,
    kept: Vec<ReplyTo<i64>>,
}

#[handlers]
impl Counter {
    fn add(&mut self, amount: i64) -> i64 {
        self.total += amount;
        self.total
    }

    fn relay(&mut self, to: u64, cx: &mut Cx<Self>) -> Later<i64> {
        let (later, reply_to) = cx.later();
        let then = |_: &mut Self, total: Result<i64, AskError>, cx: &mut Cx<Self>| {
            cx.reply(reply_to, total.unwrap_or(-1));
        };
        if let Err(refused) = cx.entity::<Counter>(to).add(1).ask(then) {
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        later
    }

    fn never(&mut self, cx: &mut Cx<Self>) -> Later<i64> {
        let (later, reply_to) = cx.later();
        self.kept.push(reply_to);
        later
    }
}

fn builder(shards: usize) -> NodeBuilder {
    let idle = Idle::Park { spin: Duration::ZERO };
    let timeout = Duration::from_secs(60);
    Node::builder().entity::<Counter>().shards(shards).idle(idle).ask_timeout(timeout)
}

/// Waits until the node's shards have gone to sleep so many times.
fn wait_for_parks(node: &Node, parks: u64) {
    for _ in 0..30_000 {
        if node.stats().parks >= parks {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the shards do not go to sleep: {:?}", node.stats());
}

#[test]
fn a_parked_node_answers_the_first_request() {
    let _turn = take_turns();
    for shards in [1, 2, 5] {
        let node = builder(shards).start().expect("the node starts");
        wait_for_parks(&node, shards as u64);
        for round in 1..=20 {
            for key in 0..5 {
                let parks = node.stats().parks;
                assert_eq!(node.entity::<Counter>(key).add(1).wait(), Ok(round));
                // Whoever answered has nothing more to do, and sleeps before it is asked again.
                wait_for_parks(&node, parks + 1);
            }
        }
    }
}

#[test]
fn only_work_keeps_a_shard_busy() {
    let _turn = take_turns();
    let node = builder(2).start().expect("the node starts");
    wait_for_parks(&node, 2);
    let mut busy_ns = node.stats().busy_ns;
    for round in 1..=3 {
        let parks = node.stats().parks;
        assert_eq!(node.entity::<Counter>(7).add(1).wait(), Ok(round));
        wait_for_parks(&node, parks + 1);
        let stats = node.stats();
        assert!(stats.busy_ns > busy_ns, "an ask takes time");
        busy_ns = stats.busy_ns;
        thread::sleep(Duration::from_millis(20));
        assert_eq!(node.stats().busy_ns, busy_ns, "sleep is not work");
    }
}

#[test]
fn a_parked_shard_is_woken_by_another() {
    let _turn = take_turns();
    let node = builder(3).start().expect("the node starts");
    wait_for_parks(&node, 3);
    for round in 1..=30 {
        for key in 0..6 {
            let parks = node.stats().parks;
            // Across shards there and back, most of them asleep when their message comes.
            assert_eq!(node.entity::<Counter>(key).relay(100 + key).wait(), Ok(round));
            wait_for_parks(&node, parks + 1);
        }
    }
}

#[test]
fn the_first_request_after_a_long_park_has_its_whole_time() {
    let _turn = take_turns();
    let timeout = Duration::from_millis(250);
    let node = builder(2).ask_timeout(timeout).start().expect("the node starts");
    for round in 1..=2 {
        thread::sleep(2 * timeout);
        for key in 0..4 {
            assert_eq!(node.entity::<Counter>(key).add(1).wait(), Ok(round), "key {key}");
        }
        thread::sleep(2 * timeout);
        for key in 0..4 {
            let answer = node.entity::<Counter>(10 + key).relay(20 + key).wait();
            assert_eq!(answer, Ok(round), "key {key}");
        }
    }
}

#[test]
fn the_first_command_after_a_long_park_has_its_whole_time() {
    let _turn = take_turns();
    let timeout = Duration::from_millis(250);
    let node = builder(2).ask_timeout(timeout).listen(([127, 0, 0, 1], 0).into());
    let node = node.start().expect("the node starts");
    let address = node.local_addr().expect("it listens");
    let mut client = TcpStream::connect(address).expect("a connection");
    for round in 1..=2 {
        thread::sleep(2 * timeout);
        for key in 0..4 {
            write!(client, "COUNTER.ADD {key} 1\r\n").expect("sent");
            let mut reply = [0; 4];
            client.read_exact(&mut reply).expect("answered");
            assert_eq!(reply, format!(":{round}\r\n").as_bytes(), "key {key}");
        }
    }
}

#[test]
fn an_ask_of_a_parked_node_ends_at_its_deadline() {
    let _turn = take_turns();
    let node = builder(2).start().expect("the node starts");
    for key in 0..10 {
        let never = node.entity::<Counter>(key).never().within(Duration::from_millis(30));
        assert_eq!(never.wait(), Err(AskError::MaybeExecuted));
    }
}

/// Hundredths of a second of time that the shards' threads have used, as the kernel counts.
fn ticks_used() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("proc is mounted");
    let stats = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        // pid (name) state ppid ..: user and system time are the 12th and 13th after the name.
        let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
        let times = rest.split(' ').skip(11).take(2).map(str::parse::<u64>);
        name.starts_with("coreside-").then(|| times.map(|time| time.unwrap_or(0)).sum::<u64>())
    });
    stats.sum()
}

/// A guard against shards that never sleep, not a measurement: whether there is a moment in which
/// they use less than a fifth of a core.
fn is_at_rest() -> bool {
    const LOOK: Duration = Duration::from_millis(250);
    (0..20).any(|_| {
        let before = ticks_used();
        thread::sleep(LOOK);
        (ticks_used() - before) * 10 < LOOK.as_millis() as u64 / 5
    })
}

#[test]
fn a_parked_node_uses_no_core() {
    let _turn = take_turns();
    for shards in [1, 3] {
        let node = builder(shards).listen(([127, 0, 0, 1], 0).into());
        let node = node.start().expect("the node starts");
        let address = node.local_addr().expect("it listens");
        let idle = TcpStream::connect(address).expect("a connection");
        for key in 0..20 {
            assert_eq!(node.entity::<Counter>(key).relay(100 + key).wait(), Ok(1));
        }
        assert!(is_at_rest(), "{shards} shards use the cores while they are parked");
        drop(idle);
    }
}

#[test]
fn a_node_with_asks_that_wait_uses_hardly_any() {
    let _turn = take_turns();
    let node = builder(2).drain(Duration::from_millis(20)).start().expect("the node starts");
    let day = Duration::from_secs(86_400);
    for key in 0..10 {
        let mut never = Box::pin(node.entity::<Counter>(key).never().within(day));
        let sent = futures_lite::future::block_on(futures_lite::future::poll_once(&mut never));
        assert!(sent.is_none(), "it waits");
    }
    assert!(is_at_rest(), "the shards use the cores while asks wait");
    assert_eq!(node.entity::<Counter>(0).add(1).wait(), Ok(1));
}
