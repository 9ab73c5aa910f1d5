//! Whole runs against a node in this process: the example `ledger`, on one shard.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Parser;
use coreside::{Cx, NetConfig, Node, NodeStats, entity, handlers};

use crate::arguments::{Action, CommandLine};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::gate::Gate;
use crate::native::handshake::HandshakeError;
use crate::native::message::upper_half;
use crate::plan::Plan;
use crate::run::{self, Outcome};
use crate::sweep::{self, Curve};

#[path = "../../runtime/examples/ledger.rs"]
#[expect(dead_code, reason = "only its entity is of use here")]
mod ledger;

const REFUSAL: &str =
    "enum Refusal { NotPositive, Insufficient, Overflow, SameAccount, Unknown, Busy }";

fn ledger_node() -> Node {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = Node::builder().entity::<ledger::Account>().shards(1);
    node.listen(loopback).listen_native(loopback).start().expect("a node")
}

fn native(node: &Node) -> [String; 4] {
    let address = node.native_addr().expect("it listens").to_string();
    ["--protocol".into(), "native".into(), "--addr".into(), address]
}

fn resp(node: &Node) -> [String; 2] {
    ["--addr".into(), node.local_addr().expect("it listens").to_string()]
}

fn line(front: &[&str], target: &[String], words: &[&str]) -> CommandLine {
    const SMALL: [&str; 9] =
        ["--quiet", "--keys", "100", "--connections", "4", "--depth", "8", "--warmup", "0"];
    let target = target.iter().map(String::as_str);
    let words = front.iter().copied().chain(SMALL).chain(target).chain(words.iter().copied());
    CommandLine::try_parse_from(["coreside-load"].into_iter().chain(words)).expect("valid")
}

fn try_run(target: &[String], words: &[&str]) -> Result<Outcome, Failure> {
    let plan = Plan::new(&line(&[], target, words).run).expect("a plan");
    let gate = Gate::new(Clock::start(), plan.threads);
    run::run(&plan, &gate, true, |crew| crew.measure(plan.rate))
}

fn run(target: &[String], words: &[&str]) -> Outcome {
    try_run(target, words).unwrap_or_else(|error| panic!("{error}"))
}

/// What all accounts hold together, as the ledger says over RESP.
fn total(node: &Node) -> i64 {
    let mut socket = TcpStream::connect(node.local_addr().expect("it listens")).expect("connected");
    socket.write_all(b"*1\r\n$13\r\nACCOUNT.AUDIT\r\n").expect("asked");
    let (mut answer, mut byte) = (String::new(), [0]);
    while answer.lines().count() < 3 || !answer.ends_with("\r\n") {
        socket.read_exact(&mut byte).expect("answered");
        answer.push(char::from(byte[0]));
    }
    let last = answer.lines().last().and_then(|line| line.strip_prefix(':'));
    last.and_then(|total| total.parse().ok()).expect("a number")
}

fn assert_total(node: &Node, expected: i64) {
    assert_eq!(total(node), expected);
}

#[test]
fn every_native_request_is_carried_out_once() {
    let node = ledger_node();
    let deposit = "Account.deposit(amount: i64 = 7) -> Result<i64, Refusal>";
    let words = ["--command", deposit, "--type", REFUSAL, "--requests", "5000"];
    let outcome = run(&native(&node), &words);
    let tally = &outcome.tally;
    assert_eq!((tally.replies, tally.errors.count(), tally.unanswered), (5_000, 0, 0));
    assert_eq!(tally.latency.len(), 5_000);
    assert_total(&node, 7 * 5_000);
    node.stop();
}

#[test]
fn transfers_keep_the_sum_in_both_protocols() {
    for speaks_native in [true, false] {
        let node = ledger_node();
        let (target, populate) = match speaks_native {
            true => (
                native(&node).to_vec(),
                "Account.deposit(amount: i64 = 100000) -> Result<i64, Refusal>",
            ),
            false => (resp(&node).to_vec(), "ACCOUNT.DEPOSIT {key} 100000"),
        };
        let words = ["--workload", "ledger", "--populate", populate, "--requests", "3000"];
        let hot = ["--distribution", "hot", "--hot-keys", "5", "--threads", "2"];
        let outcome = run(&target, &[&words[..], &hot].concat());
        assert_eq!((outcome.tally.replies, outcome.tally.errors.count()), (3_000, 0));
        assert_total(&node, 100 * 100_000);
        node.stop();
    }
}

#[test]
fn mixtures_have_their_shares() {
    let node = ledger_node();
    let words = ["--mix", "deposit=80,balance=20", "--requests", "5000"];
    let outcome = run(&native(&node), &words);
    assert_eq!((outcome.tally.replies, outcome.tally.errors.count()), (5_000, 0));
    // A deposit's frame has 48 bytes with its amount, a question for the balance 32.
    let mean = outcome.tally.sent_bytes as f64 / 5_000.0;
    assert!((mean - (0.8 * 48.0 + 0.2 * 32.0)).abs() < 1.0, "{mean}");
    node.stop();
}

#[test]
fn what_the_entity_refuses_counts_as_an_error() {
    let node = ledger_node();
    let outcome = run(&native(&node), &["--mix", "withdraw=1", "--requests", "500"]);
    let errors = &outcome.tally.errors;
    assert_eq!(errors.texts().collect::<Vec<_>>(), [("Err(Insufficient)", 500)]);
    node.stop();
}

#[test]
fn open_loop_sends_what_is_due() {
    let node = ledger_node();
    for target in [native(&node).to_vec(), resp(&node).to_vec()] {
        let words = ["--workload", "ledger", "--mix", "deposit=1", "--rate", "50000"];
        let outcome = run(&target, &[&words[..], &["--requests", "2000"]].concat());
        assert_eq!((outcome.tally.replies, outcome.tally.errors.count()), (2_000, 0));
        assert!(outcome.tally.hiccups.len() > 10, "40 ms have as many ticks");
    }
    node.stop();
}

#[test]
fn sweep_measures_every_rate_over_the_same_connections() {
    let node = ledger_node();
    let words = ["--rates", "1000,2000,3000", "--duration", "0.1", "--mix", "deposit=1,balance=1"];
    let line = line(&["sweep"], &native(&node), &words);
    let Some(Action::Sweep(arguments)) = line.action else { panic!("a sweep") };
    let plan = Plan::of_sweep(&arguments).expect("a plan");
    let gate = Gate::new(Clock::start(), plan.threads);
    let curve = run::run(&plan, &gate, true, |crew| sweep::sweep(crew, &arguments.rates, 10));
    let curve: Curve = curve.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((curve.points.len(), curve.errors(), curve.unanswered()), (3, 0, 0));
    let due: Vec<u64> = curve.points.iter().map(|point| point.outcome.tally.due).collect();
    for (due, expected) in due.iter().zip([100, 200, 300]) {
        assert!(due.abs_diff(expected) <= 1, "{due} instead of {expected}");
    }
    node.stop();
}

#[test]
fn what_does_not_agree_is_said_before_any_load() {
    let node = ledger_node();
    let refused = |words: &[&str]| match try_run(&native(&node), words) {
        Err(Failure::Handshake { error, .. }) => error,
        other => panic!("{:?}", other.map(|outcome| outcome.tally.replies)),
    };
    let unknown = refused(&["--command", "Account.close()"]);
    assert!(matches!(&unknown, HandshakeError::Unknown(name) if name == "Account.close"));
    // One that stays at home.
    let local = refused(&["--command", "Account.audit() -> (u64, i128)"]);
    assert!(matches!(local, HandshakeError::Unknown(_)));
    let other = refused(&["--command", "Account.balance() -> u64"]);
    assert!(matches!(other, HandshakeError::OtherSchema(_)));
    let renamed = refused(&["--command", "Account.deposit(cents: i64 = 1) -> i64"]);
    assert!(matches!(renamed, HandshakeError::OtherSchema(_)));
    node.stop();
}

#[test]
fn port_of_the_other_protocol_is_told_from_a_native_one() {
    let node = ledger_node();
    let target = resp(&node);
    match try_run(&target, &["--protocol", "native", "--timeout", "0.1"]) {
        Err(Failure::Handshake { error, .. }) => {
            assert!(error.to_string().contains("native port"), "{error}");
        }
        other => panic!("{:?}", other.map(|outcome| outcome.tally.replies)),
    }
    node.stop();
}

#[test]
fn tells_of_a_mixture_are_carried_out_and_nobody_waits_for_them() {
    for loops in [&["--requests", "5000"][..], &["--requests", "2000", "--rate", "50000"]] {
        let node = ledger_node();
        let words = ["--mix", "deposit=1,tell-deposit=4", "--distribution", "hot"];
        let outcome = run(&native(&node), &[&words[..], loops].concat());
        let tally = &outcome.tally;
        let sent = loops[1].parse().expect("a number");
        assert_eq!((tally.replies + tally.told, tally.errors.count()), (sent, 0));
        assert_eq!(tally.latency.len(), tally.replies);
        let share = tally.told as f64 / sent as f64;
        assert!((share - 0.8).abs() < 0.05, "{share}");
        // Each of 10 to 18, and all of them arrive.
        let (until, least) = (Instant::now() + Duration::from_secs(20), 10 * sent as i64);
        while total(&node) < least {
            assert!(Instant::now() < until, "{} of at least {least}", total(&node));
        }
        node.stop();
    }
}

#[test]
fn tells_alone_are_all_sent_before_the_end() {
    let node = ledger_node();
    let deposit = "tell Account.deposit(amount: i64 = 7) -> Result<i64, Refusal>";
    let words = ["--command", deposit, "--type", REFUSAL, "--requests", "50000"];
    let outcome = run(&native(&node), &words);
    assert_eq!((outcome.tally.replies, outcome.tally.told), (0, 50_000));
    let until = Instant::now() + Duration::from_secs(20);
    while total(&node) < 7 * 50_000 {
        assert!(Instant::now() < until, "{} of {}", total(&node), 7 * 50_000);
    }
    assert_total(&node, 7 * 50_000);
    node.stop();
}

/// Knows whether it was meant.
#[entity(key = u128)]
struct Seal {
    pressed: u64,
}

#[handlers]
impl Seal {
    #[local]
    #[wire]
    fn press(&mut self, lower: u64, cx: &mut Cx<Self>) -> Result<u64, u64> {
        self.pressed += 1;
        let key = u128::from(upper_half(lower)) << 64 | u128::from(lower);
        if cx.key() == key { Ok(self.pressed) } else { Err(self.pressed) }
    }
}

#[test]
fn keys_of_128_bits_reach_the_entities_that_they_name() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = Node::builder().entity::<Seal>().shards(3).listen_native(loopback);
    let node = node.start().expect("a node");
    let press = "Seal.press(lower: u64 = {key}) -> Result<u64, u64>";
    let words = ["--command", press, "--key-bits", "128", "--requests", "5000", "--shard-aware"];
    let outcome = run(&native(&node), &words);
    assert_eq!((outcome.tally.replies, outcome.tally.errors.count()), (5_000, 0));
    assert_eq!(settled(&node, 5_000).between_shards, 0, "each came in where it belongs");
    node.stop();
}

/// What the node has done once it has run so many turns: shards show their counts at times.
fn settled(node: &Node, turns: u64) -> NodeStats {
    let until = Instant::now() + Duration::from_secs(20);
    while node.stats().turns < turns && Instant::now() < until {
        std::thread::yield_now();
    }
    node.stats()
}

#[test]
fn shard_aware_load_asks_each_shard_for_its_own_keys() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = Node::builder().entity::<ledger::Account>().shards(3).listen_native(loopback);
    let node = node.start().expect("a node");
    let words = ["--mix", "deposit=1", "--requests", "3000", "--threads", "2"];
    let aware = run(&native(&node), &[&words[..], &["--shard-aware"]].concat());
    assert_eq!((aware.tally.replies, aware.tally.errors.count()), (3_000, 0));
    let stats = settled(&node, 3_000);
    assert_eq!((stats.turns, stats.between_shards), (3_000, 0));
    let any = run(&native(&node), &words);
    assert_eq!((any.tally.replies, any.tally.errors.count()), (3_000, 0));
    assert!(settled(&node, 6_000).between_shards > 3_000, "two of three go on, and come back");
    node.stop();
    let node = Node::builder().entity::<ledger::Account>().shards(5).listen_native(loopback);
    let node = node.start().expect("a node");
    let few = try_run(&native(&node), &["--shard-aware"]);
    let Err(Failure::Handshake { error, .. }) = few else { panic!("a shard without connection") };
    assert_eq!(error.to_string(), "4 connections, but 5 shards");
    node.stop();
}

#[test]
fn pings_of_the_node_are_answered() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut net = NetConfig::default();
    net.native.deadlines.idle = Some(Duration::from_millis(300));
    let node = Node::builder().entity::<ledger::Account>().shards(1).net(net);
    let node = node.listen_native(loopback).start().expect("a node");
    // Each connection is silent for 600 ms between two requests, and would be closed by then.
    let words = ["--mix", "deposit=1", "--rate", "6.6", "--requests", "12"];
    for idle in ["spin", "park"] {
        let outcome = run(&native(&node), &[&words[..], &["--idle", idle]].concat());
        assert_eq!((outcome.tally.replies, outcome.tally.errors.count()), (12, 0));
    }
    node.stop();
}
