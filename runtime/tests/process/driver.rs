//! A node where io_uring is refused: by a filter of system calls, as containers have it, or by a
//! limit.

#![expect(unsafe_code, reason = "limits are set with system calls")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::filter::{refuse_uring, where_refused};
use coreside::{
    DriverChoice, DriverKind, Idle, Node, NodeBuilder, NodeError, ZeroCopy, entity, handlers,
};

#[entity]
struct Counter {
    total: i64,
}

#[handlers]
impl Counter {
    fn add(&mut self, amount: i64) -> i64 {
        self.total += amount;
        self.total
    }
}

fn builder() -> NodeBuilder {
    let idle = Idle::Park { spin: Duration::ZERO };
    Node::builder().entity::<Counter>().shards(2).idle(idle).listen(([127, 0, 0, 1], 0).into())
}

/// The node answers threads and Redis clients, awake and asleep, and stops.
fn serve_and_stop(node: Node) {
    let address = node.local_addr().expect("it listens");
    for key in 0..10 {
        assert_eq!(node.entity::<Counter>(key).add(5).wait(), Ok(5));
    }
    let mut client = TcpStream::connect(address).expect("a connection");
    for round in 1..=20 {
        for key in 0..10 {
            let request = format!("COUNTER.ADD {key} 1\r\n");
            client.write_all(request.as_bytes()).expect("sent");
            let expected = format!(":{}\r\n", 5 + round);
            let mut reply = vec![0; expected.len()];
            client.read_exact(&mut reply).expect("answered");
            assert_eq!(String::from_utf8_lossy(&reply), expected);
        }
    }
    node.stop();
    assert_eq!(client.read(&mut [0; 1]).expect("closed"), 0);
}

#[test]
fn node_runs_on_epoll_however_uring_is_refused() {
    for error in
        [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP, libc::EACCES, libc::ENOMEM]
    {
        where_refused(error, move || {
            let node = builder().start().expect("the node starts");
            assert_eq!(node.driver(), DriverKind::Epoll, "error {error}");
            serve_and_stop(node);
        });
    }
}

#[test]
fn node_that_must_have_uring_says_why_it_does_not_start() {
    where_refused(libc::EPERM, || {
        let refused = builder().driver(DriverChoice::Uring).start().expect_err("it is refused");
        assert!(matches!(refused, NodeError::Net(_)), "{refused:?}");
        assert!(refused.to_string().contains("seccomp profile"), "{refused}");
    });
}

#[test]
fn what_has_run_out_is_no_reason_for_another_driver() {
    if std::env::var_os("CORESIDE_DRIVER").is_some() {
        return;
    }
    where_refused(libc::EMFILE, || {
        let refused = builder().start().expect_err("there are no descriptors");
        assert!(matches!(refused, NodeError::Net(_)), "{refused:?}");
    });
}

#[test]
fn driver_that_is_asked_for_is_the_one_that_runs() {
    for choice in [DriverChoice::Epoll, DriverChoice::Uring] {
        let node = match builder().driver(choice).start() {
            Ok(node) => node,
            // A machine without it: the test above is about that.
            Err(NodeError::Net(error)) if error.refuses_uring() => continue,
            Err(error) => panic!("{choice:?}: {error}"),
        };
        let is_epoll = node.driver() == DriverKind::Epoll;
        assert_eq!(is_epoll, choice == DriverChoice::Epoll);
        serve_and_stop(node);
    }
}

#[test]
fn stats_say_the_driver_and_how_outputs_were_sent() {
    for choice in [DriverChoice::Epoll, DriverChoice::Uring] {
        let node = match builder().driver(choice).zero_copy(ZeroCopy::AlwaysFrom(1)).start() {
            Ok(node) => node,
            Err(NodeError::Net(error)) if error.refuses_uring() => continue,
            Err(error) => panic!("{choice:?}: {error}"),
        };
        let handle = node.handle();
        serve_and_stop(node);
        let stats = handle.stats();
        assert_eq!(stats.driver == DriverKind::Epoll, choice == DriverChoice::Epoll);
        assert_eq!(stats.requests, 200);
        assert!(stats.system_calls > 0 && stats.sends >= 200, "{stats:?}");
        let expected = if choice == DriverChoice::Uring { stats.sends } else { 0 };
        assert_eq!((stats.sends_zero_copy, stats.sends_copied), (expected, expected));
    }
}

/// What the other test of this binary, started as a process, says on its standard error.
fn told_by(test: &str) -> String {
    let this = std::env::current_exe().expect("this binary has a path");
    let output = Command::new(this)
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env_remove("CORESIDE_DRIVER")
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
#[ignore = "started by `choice_of_epoll_is_told_in_one_line`"]
fn refused() {
    refuse_uring(libc::EPERM);
    serve_and_stop(builder().start().expect("the node starts"));
}

#[test]
#[ignore = "started by `choice_of_epoll_is_told_in_one_line`"]
fn not_enough_memory_to_lock() {
    let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
    // SAFETY: the kernel reads the limit during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
    let node = builder().start().expect("the node starts");
    assert_eq!(node.driver(), DriverKind::Epoll);
    serve_and_stop(node);
}

#[test]
fn choice_of_epoll_is_told_in_one_line() {
    for (test, reason) in [
        ("driver::refused", "io_uring is forbidden"),
        ("driver::not_enough_memory_to_lock", "MemLockLimit"),
    ] {
        let text = told_by(test);
        let told: Vec<_> = text.lines().filter(|line| line.starts_with("coreside: ")).collect();
        assert_eq!(told.len(), 1, "{text}");
        assert!(told[0].contains(reason) && told[0].ends_with("runs on epoll instead"), "{text}");
    }
}
