//! A node's memory while it is flooded: a process of its own that may not have more address space
//! than it had when it started and what its limits add up to. What it cannot have ends it.

#![expect(unsafe_code, reason = "the limit of another process is set with a system call")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::certificates::{Authority, Folder};
use coreside::{Client, ClientTls, Limits, NetConfig, Node, TlsConfig, entity, handlers};
use coreside_net::native;
use coreside_net::native::Hello;
use coreside_net::native::frame::{Header, Kind};

/// Bytes of the longest message and of the longest reply.
const MESSAGE_BYTES: usize = 16 << 10;
const CONNECTIONS: usize = 64;
/// Of one connection, before it pauses and before it is closed.
const OUTPUT_BYTES_PAUSE: usize = 32 << 10;
const OUTPUT_BYTES: usize = 128 << 10;
/// Of all connections of a port together, before the slowest is closed.
const OUTPUT_BYTES_TOTAL: usize = 1 << 20;
/// Of all connections of a port together.
const INPUT_BYTES: usize = 2 << 20;
const QUEUE_BYTES: usize = 1 << 20;
/// Messages that wait for one busy entity.
const STASH: usize = 64;
/// Busy entities that are told things.
const BUSY: u64 = 16;
/// Letters that are kept because nobody took them: a default of the node.
const DEAD_LETTERS: usize = 1024;

/// What the limits add up to, for a shard that listens on both ports.
const BOUND_BYTES: usize = {
    // A buffer that grows has twice what it holds, and is moved into another one meanwhile.
    let input = 2 * 3 * (INPUT_BYTES + MESSAGE_BYTES);
    // A buffer has twice what it holds here, too. There may be twice the total for a moment, and
    // what comes until output is counted again.
    let replies = CONNECTIONS * (OUTPUT_BYTES_PAUSE + MESSAGE_BYTES);
    let output = 2 * 2 * (2 * OUTPUT_BYTES_TOTAL + replies);
    // The longest handshake, and records of TLS on their way in and out.
    let tls = 2 * CONNECTIONS * (16 + 64 + 64) * 1024;
    let waiting = QUEUE_BYTES + (BUSY as usize * STASH + DEAD_LETTERS) * MESSAGE_BYTES;
    // Whatever else a shard needs, and what the allocator has in hand.
    let rest = 16 << 20;
    input + output + tls + waiting + rest
};

#[entity(stash = 64)]
struct Keeper {
    heard: u64,
}

#[handlers]
impl Keeper {
    #[wire]
    fn heard(&mut self) -> u64 {
        self.heard += 1;
        self.heard
    }

    /// The longest reply.
    #[wire]
    fn much(&self) -> Vec<u8> {
        vec![b'm'; MESSAGE_BYTES - 256]
    }

    #[local]
    #[wire]
    fn take(&mut self, bytes: Vec<u8>) {
        self.heard += bytes.len() as u64;
    }

    /// Is busy from here on.
    #[local]
    #[wire]
    async fn sleep(&mut self) {
        std::future::pending().await
    }
}

/// Not a test: what the tests start. Certificates in the folder that a variable names, or none.
#[test]
#[ignore = "the node that the other tests flood"]
fn service() {
    let native = native::Limits {
        frame_bytes_max: MESSAGE_BYTES as u32,
        calls_max: 64,
        input_bytes_pause: 4096,
        input_bytes_total_max: INPUT_BYTES,
        output_bytes_pause: OUTPUT_BYTES_PAUSE,
        output_bytes_max: OUTPUT_BYTES,
        output_bytes_total_max: OUTPUT_BYTES_TOTAL,
        connections_max: CONNECTIONS as u32,
        ..native::Limits::default()
    };
    let limits = Limits {
        bulk_bytes_max: MESSAGE_BYTES as u32,
        query_bytes_max: 4 * MESSAGE_BYTES,
        query_bytes_total_max: INPUT_BYTES,
        query_bytes_pause: 4096,
        output_bytes_pause: OUTPUT_BYTES_PAUSE,
        output_bytes_max: OUTPUT_BYTES,
        output_bytes_total_max: OUTPUT_BYTES_TOTAL,
        pipeline_max: 64,
        connections_max: CONNECTIONS as u32,
        ..Limits::default()
    };
    let loopback = ([127, 0, 0, 1], 0).into();
    let mut node = Node::builder().entity::<Keeper>().shards(1).queue_bytes_max(QUEUE_BYTES);
    node = node.net(NetConfig { limits, native, ..NetConfig::default() });
    if let Some(folder) = std::env::var_os("CORESIDE_TEST_CERTIFICATES").map(PathBuf::from) {
        node = node.tls(TlsConfig::new(folder.join("node.crt"), folder.join("node.key")));
    }
    let node = node.listen(loopback).listen_native(loopback).start().expect("the node starts");
    let (resp, native) = (node.local_addr(), node.native_addr());
    println!("listening on {} {}", resp.expect("it listens"), native.expect("it listens"));
    node.run_until_signal().expect("signals are caught");
}

/// The node, ended with the test.
struct Service {
    process: Child,
    _output: BufReader<ChildStdout>,
    resp: SocketAddr,
    native: SocketAddr,
    tls: Option<ClientTls>,
    began_bytes: usize,
    began_resident_bytes: usize,
}

impl Service {
    fn start(tls: Option<(&Folder, ClientTls)>) -> Self {
        let this = std::env::current_exe().expect("this binary has a path");
        let mut command = Command::new(this);
        command.args(["--ignored", "--exact", "flood::service", "--nocapture", "--test-threads=1"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        // Else the allocator reserves 64 MiB for each thread, used or not, and those would count.
        command.env("MALLOC_ARENA_MAX", "1");
        if let Some((folder, _)) = &tls {
            command.env("CORESIDE_TEST_CERTIFICATES", folder.path(""));
        }
        let mut process = command.spawn().expect("the service starts");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        let addresses = loop {
            line.clear();
            assert!(output.read_line(&mut line).expect("its output") > 0, "it ended at once");
            // The harness may have begun the line.
            if let Some((_, addresses)) = line.split_once("listening on ") {
                break addresses.trim().to_owned();
            }
        };
        let (resp, native) = addresses.split_once(' ').expect("two addresses");
        let (resp, native) = (resp.parse().expect("an address"), native.parse().expect("another"));
        let tls = tls.map(|(_, client)| client);
        let mut service = Self {
            process,
            _output: output,
            resp,
            native,
            tls,
            began_bytes: 0,
            began_resident_bytes: 0,
        };
        // All that a node does at first it has done then, such as to make its threads' heaps.
        let client = service.client();
        assert!(client.entity::<Keeper>(0).heard().wait().is_ok());
        drop(client);
        service.began_bytes = service.status_bytes("VmSize:");
        service.began_resident_bytes = service.status_bytes("VmHWM:");
        service.limit(service.began_bytes + BOUND_BYTES);
        service
    }

    fn limit(&self, bytes: usize) {
        let limit = libc::rlimit { rlim_cur: bytes as u64, rlim_max: bytes as u64 };
        let pid = self.process.id() as libc::pid_t;
        // SAFETY: the limit is read before the call returns, and the old one is not asked for.
        let set = unsafe { libc::prlimit(pid, libc::RLIMIT_AS, &limit, std::ptr::null_mut()) };
        assert_eq!(set, 0, "the process is ours");
    }

    /// A line of what the kernel says of the process.
    fn status_bytes(&self, field: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with(field)).expect("the kernel says so");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok());
        kib.expect("a number") * 1024
    }

    /// Somebody who behaves.
    fn client(&self) -> Client {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let builder = Client::builder().entity::<Keeper>().any_shard();
            let builder = match &self.tls {
                Some(tls) => builder.tls(tls.clone()),
                None => builder,
            };
            match builder.ask_timeout(Duration::from_secs(10)).connect(self.native) {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        }
    }

    /// Floods the node while a client goes on that was there before, and another one after that.
    fn survives(
        mut self,
        flood: &mut dyn FnMut(&Self, &mut Vec<TcpStream>, usize),
    ) -> (usize, usize) {
        let client = self.client();
        let mut streams = Vec::new();
        for pass in 0..PASSES {
            flood(&self, &mut streams, pass);
            let heard = client.entity::<Keeper>(1).heard().wait();
            assert_eq!(heard, Ok(pass as u64 + 1), "an answer in the middle of the flood");
        }
        drop(streams);
        let after = self.client().entity::<Keeper>(2).heard().wait();
        assert_eq!(after, Ok(1), "an answer behind the flood");
        assert!(self.process.try_wait().expect("a child").is_none(), "it is still there");
        let resident = self.status_bytes("VmHWM:") - self.began_resident_bytes;
        (self.status_bytes("VmPeak:") - self.began_bytes, resident)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        self.process.wait().expect("a child of ours");
    }
}

const PASSES: usize = 12;

/// Connects until there are more connections than the node takes. Nobody waits for anything.
fn fill(streams: &mut Vec<TcpStream>, address: SocketAddr) {
    while streams.len() < 2 * CONNECTIONS {
        let stream = TcpStream::connect(address).expect("the kernel takes it");
        stream.set_nonblocking(true).expect("a socket");
        streams.push(stream);
    }
}

/// Writes until the socket takes no more, or it is closed. What came is left unread.
fn push(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    match stream.write(bytes) {
        Ok(taken) => taken == bytes.len(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(_) => false,
    }
}

/// Writes `bytes` to every connection as often as it takes them whole; closed ones make way.
fn pour(streams: &mut [TcpStream], times: usize, bytes: &[u8]) {
    for stream in streams.iter_mut() {
        (0..times).all(|_| push(stream, bytes));
    }
}

/// Lets connections go that the node has closed.
fn sweep(streams: &mut Vec<TcpStream>) {
    streams.retain_mut(|stream| {
        let mut one = [0];
        !matches!(stream.peek(&mut one), Ok(0)) && stream.take_error().is_ok_and(|e| e.is_none())
    });
}

fn hello() -> Vec<u8> {
    let mut out = Vec::new();
    let schema = coreside::schema;
    let id = |method| schema("Keeper", &[schema(method, &[])]);
    let (unit, list) = (schema("()", &[]), schema("list", &[schema("u8", &[])]));
    let call = |message, reply| schema("call", &[message, reply]);
    let empty = schema("message", &[]);
    let messages = vec![
        (id("much"), call(empty, list)),
        (id("take"), call(schema("message", &[schema("bytes", &[list])]), unit)),
        (id("sleep"), call(empty, unit)),
    ];
    Hello { versions: (1, 1), shard: None, cluster: 0, messages }.write(&mut out);
    out
}

/// The numbers that the node has given to much, take and sleep.
fn greet(stream: &mut TcpStream) -> Option<[u16; 3]> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(&hello()).ok()?;
    let mut welcome = [0; 96];
    stream.read_exact(&mut welcome).ok()?;
    stream.set_nonblocking(true).ok()?;
    let number = |at: usize| {
        let number = u16::from_le_bytes([welcome[80 + at], welcome[81 + at]]);
        assert!(number < u16::MAX - 1, "message {} is not known by this id and schema", at / 2);
        number
    };
    Some([number(0), number(2), number(4)])
}

fn message(kind: Kind, number: u16, key: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header { message: number, call: 1, ..Header::new(kind) };
    let content = |out: &mut Vec<u8>| {
        out.extend_from_slice(&u128::from(key).to_le_bytes());
        out.extend_from_slice(body);
        Ok::<(), std::convert::Infallible>(())
    };
    header.write_with(&mut out, content).unwrap_or_default();
    out
}

#[test]
fn half_open_and_slow_handshakes_do_not_end_the_node() {
    let bytes = hello();
    let peak = Service::start(None).survives(&mut |service, streams, pass| {
        sweep(streams);
        fill(streams, if pass % 2 == 0 { service.native } else { service.resp });
        // A byte at a time, of which the last never comes.
        let at = pass % (bytes.len() - 1);
        pour(streams, 1, &bytes[at..=at]);
    });
    report("half-open and slow handshakes", peak);
}

#[test]
fn largest_requests_that_never_end_do_not_end_the_node() {
    let unfinished = {
        let mut bytes = message(Kind::Ask, 0, 7, &[0; MESSAGE_BYTES - 32]);
        bytes.truncate(MESSAGE_BYTES - 1);
        [hello(), bytes].concat()
    };
    let command = format!("*3\r\n$11\r\nKEEPER.TAKE\r\n$1\r\n7\r\n${MESSAGE_BYTES}\r\n");
    let command = [command.as_bytes(), &[b'x'; MESSAGE_BYTES - 1]].concat();
    let peak = Service::start(None).survives(&mut |service, streams, pass| {
        sweep(streams);
        let (address, bytes) = match pass % 2 {
            0 => (service.native, &unfinished),
            _ => (service.resp, &command),
        };
        streams.truncate(CONNECTIONS);
        let before = streams.len();
        fill(streams, address);
        for stream in &mut streams[before..] {
            push(stream, bytes);
        }
    });
    report("largest requests that never end", peak);
}

#[test]
fn asks_whose_answers_are_not_read_do_not_end_the_node() {
    let peak = Service::start(None).survives(&mut |service, streams, _| {
        sweep(streams);
        while streams.len() < CONNECTIONS - 1 {
            let mut stream = TcpStream::connect(service.native).expect("the kernel takes it");
            let Some([much, ..]) = greet(&mut stream) else { break };
            // 64 MiB of answers for each connection, at once.
            let asks = message(Kind::Ask, much, 7, &[]).repeat(4_096);
            push(&mut stream, &asks);
            streams.push(stream);
        }
    });
    report("asks whose answers are not read", peak);
}

#[test]
fn commands_whose_replies_are_not_read_do_not_end_the_node() {
    let commands = b"*2\r\n$11\r\nKEEPER.MUCH\r\n$1\r\n7\r\n".repeat(4_096);
    let peak = Service::start(None).survives(&mut |service, streams, _| {
        sweep(streams);
        fill(streams, service.resp);
        pour(streams, 1, &commands);
    });
    report("commands whose replies are not read", peak);
}

#[test]
fn tells_to_busy_entities_do_not_end_the_node() {
    let peak = Service::start(None).survives(&mut |service, streams, pass| {
        sweep(streams);
        while streams.len() < CONNECTIONS / 2 {
            let mut stream = TcpStream::connect(service.native).expect("the kernel takes it");
            let Some([_, take, sleep]) = greet(&mut stream) else { break };
            let busy = 100 + (pass + streams.len()) as u64 % BUSY;
            push(&mut stream, &message(Kind::Tell, sleep, busy, &[]));
            // The archive of a list of bytes: the bytes, then where they begin and how many.
            let count = MESSAGE_BYTES - 64;
            let mut body = vec![b't'; count];
            body.extend((-(count as i32)).to_le_bytes());
            body.extend((count as u32).to_le_bytes());
            let tell = message(Kind::Tell, take, busy, &body);
            (0..4 * STASH).all(|_| push(&mut stream, &tell));
            streams.push(stream);
        }
        streams.truncate(CONNECTIONS / 4);
    });
    report("tells to busy entities", peak);
}

#[test]
fn flood_of_tls_handshakes_does_not_end_the_node() {
    let (authority, folder) = (Authority::new("first"), Folder::new());
    folder.put_identity("node", &authority.certify("127.0.0.1"));
    let ca = folder.put("ca.crt", &authority.pem());
    let tls = ClientTls::new(ca);
    let hello = client_hello(&tls);
    let peak = Service::start(Some((&folder, tls))).survives(&mut |service, streams, pass| {
        sweep(streams);
        streams.truncate(CONNECTIONS / 2);
        let before = streams.len();
        fill(streams, if pass % 2 == 0 { service.native } else { service.resp });
        for (at, stream) in streams[before..].iter_mut().enumerate() {
            match at % 3 {
                // A whole hello, and then nothing; the half of one; a record of any length.
                0 => push(stream, &hello),
                1 => push(stream, &hello[..hello.len() / 2]),
                _ => push(
                    stream,
                    &[&[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb], [0; 16_000].as_slice()].concat(),
                ),
            };
        }
    });
    report("TLS handshakes", peak);
}

/// What a client sends first, as it would to a node.
fn client_hello(tls: &ClientTls) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let builder = Client::builder().entity::<Keeper>().tls(tls.clone());
    let client = std::thread::spawn(move || builder.connect(address).is_err());
    let (mut stream, _) = listener.accept().expect("the client comes");
    let mut hello = vec![0; 4096];
    let len = stream.read(&mut hello).expect("its hello");
    hello.truncate(len);
    drop(stream);
    assert!(client.join().expect("no panic"), "nobody answered");
    hello
}

fn report(flood: &str, (address_space, resident): (usize, usize)) {
    let mib = |bytes: usize| bytes >> 20;
    println!(
        "{flood}: {} MiB of address space and {} MiB in memory more than at the start; the bound \
         is {} MiB",
        mib(address_space),
        mib(resident),
        mib(BOUND_BYTES)
    );
}
