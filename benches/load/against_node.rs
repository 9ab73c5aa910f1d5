//! Whole runs against a node in this process: the example `ledger`, on one shard.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use clap::Parser;
use coreside::Node;

use crate::arguments::{Action, CommandLine};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::gate::Gate;
use crate::native::handshake::HandshakeError;
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
fn assert_total(node: &Node, total: i64) {
    let mut socket = TcpStream::connect(node.local_addr().expect("it listens")).expect("connected");
    socket.write_all(b"*1\r\n$13\r\nACCOUNT.AUDIT\r\n").expect("asked");
    let (mut answer, mut byte) = (String::new(), [0]);
    while answer.lines().count() < 3 || !answer.ends_with("\r\n") {
        socket.read_exact(&mut byte).expect("answered");
        answer.push(char::from(byte[0]));
    }
    assert!(answer.ends_with(&format!(":{total}\r\n")), "{total} in {answer:?}");
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
