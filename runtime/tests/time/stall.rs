//! Turns that keep their shard for too long are seen, with what they are, and nothing else is.
//!
//! What is watched here is time, so these tests let some pass. On a busy machine a turn of some
//! milliseconds may go by between two ticks; so a turn is repeated until it was seen, and what is
//! claimed is claimed of the report.

use std::fs;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::take_turns;
use coreside::{
    AskError, Cx, Idle, Later, Node, NodeBuilder, StallConfig, StallReport, entity, handlers,
};

#[entity]
struct Worker {
    total: u64,
}

/// What no optimiser folds into the handler.
#[inline(never)]
fn spin_for_a_while(length: Duration) -> u64 {
    let begin = Instant::now();
    let mut rounds = 0;
    while begin.elapsed() < length {
        rounds += 1;
    }
    rounds
}

#[handlers]
impl Worker {
    #[local]
    fn spin(&mut self, length: Duration) -> u64 {
        self.total += spin_for_a_while(length);
        self.total
    }

    #[local]
    fn block(&mut self, length: Duration) {
        thread::sleep(length);
    }

    /// Holds the whole shard up until the test lets go.
    #[local]
    fn hang(&self, release: Arc<Mutex<Receiver<()>>>) {
        let _ = release.lock().expect("held once").recv();
    }

    fn touch(&mut self) -> u64 {
        self.total += 1;
        self.total
    }

    /// Has many short turns follow this one, in one poll of the shard.
    fn fan_out(&mut self, turns: u64, cx: &mut Cx<Self>) {
        for _ in 0..turns {
            let length = Duration::from_micros(500);
            assert!(cx.entity::<Worker>(cx.key()).spin(length).try_tell().is_ok());
        }
    }

    /// Is quick to ask, and slow to take the answer.
    fn relay(&mut self, to: u64, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, reply_to) = cx.later();
        let then = |_: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            spin_for_a_while(Duration::from_millis(8));
            cx.reply(reply_to, answer.unwrap_or(0));
        };
        assert!(cx.entity::<Worker>(to).touch().ask(then).is_ok());
        later
    }

    /// Spends time on every entity.
    #[sweep]
    fn linger(&self, count: &mut u64) {
        spin_for_a_while(Duration::from_millis(8));
        *count += 1;
    }
}

fn builder(shards: usize) -> (NodeBuilder, Receiver<StallReport>) {
    let (reported, reports) = mpsc::channel();
    let node = Node::builder().entity::<Worker>().shards(shards);
    let sink = move |report| {
        // The test may be over.
        let _ = reported.send(report);
    };
    (node.ask_timeout(Duration::from_secs(60)).on_stall(sink), reports)
}

fn start(shards: usize) -> (Node, Receiver<StallReport>) {
    let (builder, reports) = builder(shards);
    (builder.start().expect("the node starts"), reports)
}

/// Repeats `turn` until there is a report that `is_it`.
fn until_reported(
    reports: &Receiver<StallReport>,
    mut turn: impl FnMut(),
    is_it: impl Fn(&StallReport) -> bool,
) -> StallReport {
    for _ in 0..200 {
        turn();
        while let Ok(report) = reports.recv_timeout(Duration::from_millis(50)) {
            if is_it(&report) {
                return report;
            }
        }
    }
    panic!("never reported");
}

#[test]
fn turn_of_five_milliseconds_is_reported_with_type_key_and_message() {
    let _turn = take_turns();
    let (node, reports) = start(1);
    let spin = || {
        let answer = node.entity::<Worker>(42).spin(Duration::from_millis(5)).wait();
        assert!(answer.is_ok());
    };
    let is_spin = |report: &StallReport| report.message == "spin" && report.backtrace.is_none();
    let report = until_reported(&reports, spin, is_spin);
    assert_eq!((report.shard, report.entity, report.key), (0, Some("Worker"), Some([42, 0])));
    assert!(report.ended && report.lasted >= Duration::from_millis(2), "{report}");
    assert!(node.stats().stalls >= 1);
}

#[test]
fn turn_of_forty_milliseconds_is_reported_with_where_it_was() {
    let _turn = take_turns();
    let (node, reports) = start(1);
    let spin = || {
        let answer = node.entity::<Worker>(7).spin(Duration::from_millis(40)).wait();
        assert!(answer.is_ok());
    };
    let report = until_reported(&reports, spin, |report| report.backtrace.is_some());
    let backtrace = report.backtrace.as_deref().unwrap_or_default();
    assert!(backtrace.contains("spin_for_a_while"), "{report}");
    assert!(backtrace.contains("stall.rs:"), "{report}");
    assert!(!backtrace.contains("on_tick"), "the handler's own frames are cut off: {report}");
    assert!(!backtrace.contains("glommio"), "so is what all turns have in common: {report}");
    assert!(report.lasted >= Duration::from_millis(25), "{report}");
}

#[test]
fn turn_that_blocks_is_reported() {
    let _turn = take_turns();
    let (node, reports) = start(1);
    let block = || {
        let answer = node.entity::<Worker>(1).block(Duration::from_millis(30)).wait();
        assert!(answer.is_ok(), "sleeping is not cut short by ticks");
    };
    let report = until_reported(&reports, block, |report| report.message == "block");
    assert_eq!(report.key, Some([1, 0]));
}

#[test]
fn turn_that_hangs_is_reported_while_it_does() {
    let _turn = take_turns();
    let (builder, reports) = builder(1);
    let mut config = StallConfig::default();
    config.hang_after = Duration::from_millis(50);
    let node = builder.stalls(config).start().expect("the node starts");
    let (let_go, release) = mpsc::channel();
    let hang = node.entity::<Worker>(3).hang(Arc::new(Mutex::new(release))).tell();
    assert!(hang.wait().is_ok());
    let report = reports.recv_timeout(Duration::from_secs(60)).expect("a report");
    assert!(!report.ended && report.backtrace.is_some(), "{report}");
    assert_eq!((report.message.as_str(), report.key), ("hang", Some([3, 0])));
    drop(let_go);
    let last = reports.recv_timeout(Duration::from_secs(60)).expect("another, at its end");
    assert!(last.ended && last.lasted >= report.lasted, "{last}");
    assert_eq!(node.stats().stalls, 1, "one turn");
}

#[test]
fn answers_and_sweeps_are_reported_as_such() {
    let _turn = take_turns();
    let (node, reports) = start(2);
    let relay = || assert!(node.entity::<Worker>(1).relay(2).wait().is_ok());
    let report = until_reported(&reports, relay, |report| report.message.contains("answer"));
    assert_eq!(report.message, "an answer to Worker.touch");
    assert_eq!((report.entity, report.key), (Some("Worker"), Some([1, 0])));
    let sweep = || assert!(node.sweep::<Worker, WorkerLinger>().is_ok());
    let report = until_reported(&reports, sweep, |report| report.message == "a sweep");
    assert_eq!(report.entity, Some("Worker"));
}

#[test]
fn each_shard_is_watched() {
    let _turn = take_turns();
    let (node, reports) = start(2);
    for shard in 0..2 {
        // Where keys live is a secret of each node: enough of them are somewhere on each shard.
        let mut key = 0;
        let spin = || {
            key += 1;
            assert!(node.entity::<Worker>(key).spin(Duration::from_millis(6)).wait().is_ok());
        };
        until_reported(&reports, spin, |report| report.shard == shard);
    }
}

#[test]
fn short_turns_are_not_reported() {
    let _turn = take_turns();
    let (builder, reports) = builder(2);
    // A thread that loses its core in the middle of a turn has a stall, whoever is to blame.
    let mut config = StallConfig::default();
    config.after = Duration::from_millis(200);
    let node = builder.idle(Idle::Spin).stalls(config).start().expect("the node starts");
    for key in 0..4 {
        assert!(node.entity::<Worker>(key).fan_out(900).tell().wait().is_ok());
        assert!(node.entity::<Worker>(key).touch().wait().is_ok());
    }
    assert_eq!(node.stats().stalls, 0);
    drop(node);
    assert!(reports.recv().is_err(), "no report, and the sink is gone with its node");
}

#[test]
fn reports_are_limited_and_what_is_left_out_is_counted() {
    let _turn = take_turns();
    let (builder, reports) = builder(1);
    let mut config = StallConfig::default();
    config.reports_per_second_max = 1;
    let node = builder.stalls(config).start().expect("the node starts");
    let spin = || assert!(node.entity::<Worker>(1).spin(Duration::from_millis(6)).wait().is_ok());
    let report = until_reported(&reports, spin, |report| report.suppressed > 0);
    assert!(node.stats().stalls > report.suppressed);
}

#[test]
fn nothing_is_seen_where_nothing_is_watched() {
    let _turn = take_turns();
    let (builder, reports) = builder(1);
    let node = builder.stalls(StallConfig::OFF).start().expect("the node starts");
    assert!(node.entity::<Worker>(1).spin(Duration::from_millis(40)).wait().is_ok());
    assert_eq!(node.stats().stalls, 0);
    assert!(reports.recv().is_err(), "nobody is there to report");
}

#[test]
fn sink_that_panics_or_stops_the_node_harms_nobody() {
    let _turn = take_turns();
    let node = Node::builder().entity::<Worker>().shards(1);
    let (given, taken) = mpsc::channel::<Node>();
    let mut panics = true;
    let sink = move |_| {
        if std::mem::take(&mut panics) {
            panic!("told to");
        }
        drop(taken.recv());
    };
    let node = node.on_stall(sink).start().expect("the node starts");
    let handle = node.handle();
    assert!(given.send(node).is_ok());
    let spin = || handle.entity::<Worker>(1).spin(Duration::from_millis(6)).wait();
    assert!((0..200).any(|_| spin().is_err()), "the second report stops the node");
}

/// How often each shard's thread has gone to sleep, as the kernel counts it.
fn sleeps_of_shards() -> Vec<u64> {
    let tasks = fs::read_dir("/proc/self/task").expect("proc is mounted");
    let sleeps = tasks.flatten().filter_map(|task| {
        // A thread may end while this looks at it.
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        // A number follows, the executor's own behind it.
        let is_shard = field("Name:")?.strip_prefix("coreside-")?.starts_with(char::is_numeric);
        is_shard.then(|| field("voluntary_ctxt_switches:")?.parse::<u64>().ok()).flatten()
    });
    sleeps.collect()
}

#[test]
fn parked_node_takes_no_ticks() {
    let _turn = take_turns();
    let (builder, _reports) = builder(2);
    let idle = Idle::Park { spin: Duration::ZERO };
    let node = builder.idle(idle).start().expect("the node starts");
    for _ in 0..3 {
        for key in 0..8 {
            assert!(node.entity::<Worker>(key).touch().wait().is_ok());
        }
        // A tick would wake the thread, and it would sleep once more.
        let is_still = (0..50).any(|_| {
            let before = sleeps_of_shards();
            assert!(before.len() >= 2, "the threads of two shards: {before:?}");
            thread::sleep(Duration::from_millis(100));
            sleeps_of_shards() == before
        });
        assert!(is_still, "something wakes the shards again and again");
    }
}
