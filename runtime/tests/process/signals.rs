//! A service as a process of its own: this binary, started again as one.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use coreside::{Cx, Later, Node, ReplyTo, entity, handlers};

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

    /// Answers once somebody says [`release`](Self::release).
    fn keep(&mut self, cx: &mut Cx<Self>) -> Later<i64> {
        let (later, reply_to) = cx.later();
        self.kept.push(reply_to);
        later
    }

    fn release(&mut self, cx: &mut Cx<Self>) -> i64 {
        let count = self.kept.len() as i64;
        self.kept.drain(..).for_each(|reply_to| cx.reply(reply_to, count));
        count
    }
}

/// Not a test: what the tests start.
#[test]
#[ignore = "the service that the other tests start"]
fn service() {
    let hour = Duration::from_secs(3_600);
    let node = Node::builder().entity::<Counter>().shards(2).drain(hour).ask_timeout(hour);
    let node = node.listen(([127, 0, 0, 1], 0).into()).start().expect("the node starts");
    println!("listening on {}", node.local_addr().expect("it listens"));
    node.run_until_signal().expect("signals are caught");
    println!("stopped");
}

/// The service, ended with the test.
struct Service {
    process: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Service {
    fn start() -> Self {
        let this = std::env::current_exe().expect("this binary has a path");
        let mut process = Command::new(this)
            .args(["--ignored", "--exact", "signals::service", "--nocapture", "--test-threads=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the service starts");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(output.read_line(&mut line).expect("its output") > 0, "it ended at once");
            // The harness may have begun the line.
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.trim().to_owned();
            }
        };
        let service = Self { process, output, address };
        service.wait_until_signals_are_caught();
        service
    }

    /// They are once the thread runs that takes them.
    fn wait_until_signals_are_caught(&self) {
        let tasks = format!("/proc/{}/task", self.process.id());
        let is_taker = |task: std::io::Result<fs::DirEntry>| {
            let name = task.and_then(|task| fs::read_to_string(task.path().join("comm")));
            name.is_ok_and(|name| name.starts_with("coreside-signal"))
        };
        while !fs::read_dir(&tasks).expect("it runs").any(is_taker) {
            thread::yield_now();
        }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(&self.address).expect("a connection");
        client.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
        client
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let outcome = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(outcome.success());
    }

    /// Waits for its end; whether that was a good one, and what it said.
    fn wait(mut self) -> (bool, String) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("its output");
        (self.process.wait().expect("its end").success(), rest)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Gone already, most often.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(client: &mut TcpStream, expected: &str) {
    let mut reply = vec![0; expected.len()];
    client.read_exact(&mut reply).expect("a reply");
    assert_eq!(String::from_utf8_lossy(&reply), expected);
}

#[test]
fn sigterm_stops_a_service_gracefully() {
    for signal in ["TERM", "INT"] {
        let service = Service::start();
        let mut client = service.connect();
        for total in 1..=5 {
            client.write_all(b"COUNTER.ADD 7 1\r\n").expect("sent");
            read(&mut client, &format!(":{total}\r\n"));
        }
        service.signal(signal);
        let (good, output) = service.wait();
        assert!(good, "SIG{signal}: {output}");
        assert!(output.contains("stopped"), "SIG{signal}: {output}");
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let service = Service::start();
    let mut client = service.connect();
    // An ask that holds the drain up for an hour, and a command behind it to see it arrive.
    client.write_all(b"COUNTER.KEEP 7\r\n").expect("sent");
    let mut other = service.connect();
    let arrived = |other: &mut TcpStream| {
        other.write_all(b"COUNTER.ADD 7 1\r\n").expect("sent");
        read(other, ":");
        let mut rest = [0; 3];
        other.read_exact(&mut rest).expect("a reply");
    };
    arrived(&mut other);
    service.signal("TERM");
    // The first signal closes the door: whoever knocks now is not served.
    while TcpStream::connect(&service.address).is_ok_and(|mut client| {
        let sent = client.write_all(b"PING\r\n");
        sent.is_ok() && client.read(&mut [0; 16]).is_ok_and(|bytes| bytes > 0)
    }) {
        thread::yield_now();
    }
    service.signal("TERM");
    let (_, output) = service.wait();
    assert!(output.contains("stopped"), "{output}");
}
