//! Clients over real sockets: order, faults, and peers that do not read. A binary of its own, as
//! one test looks at the memory of the process.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use coreside::{
    Args, ArgumentError, AskError, Cx, FromArguments, Later, Node, ToValue, ValueWriter, entity,
    handlers,
};

#[entity]
struct Speaker {
    said: u64,
}

/// An argument whose reader panics at the word `panic`.
struct Fragile(String);

impl FromArguments for Fragile {
    fn from_arguments(args: &mut Args<'_>) -> Result<Self, ArgumentError> {
        let word = String::from_arguments(args)?;
        assert!(word != "panic", "told to, while an argument was read");
        Ok(Self(word))
    }
}

/// An answer that panics at so many while it is written, and says `fine` otherwise.
struct Brittle(u64);

impl ToValue for Brittle {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        assert!(self.0 != 13, "told to, while an answer was written");
        "fine".write_to(out);
    }
}

/// A refusal whose text panics.
struct Mute;

impl fmt::Display for Mute {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("told to, while an error was written")
    }
}

#[handlers]
impl Speaker {
    fn say(&mut self, text: String) -> String {
        self.said += 1;
        text
    }

    fn said(&self) -> u64 {
        self.said
    }

    /// Has another one say it.
    fn relay(&mut self, to: u64, text: String, cx: &mut Cx<Self>) -> Later<String> {
        let (later, reply_to) = cx.later();
        let then = |_: &mut Self, answer: Result<String, AskError>, cx: &mut Cx<Self>| {
            cx.reply(reply_to, answer.unwrap_or_else(|error| error.to_string()));
        };
        if let Err(refused) = cx.entity::<Speaker>(to).say(text).ask(then) {
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        later
    }

    fn fail(&mut self) -> u64 {
        panic!("told to")
    }

    fn fragile(&mut self, word: Fragile) -> String {
        word.0
    }

    fn brittle(&self, number: u64) -> Brittle {
        Brittle(number)
    }

    fn mute(&self) -> Result<u64, Mute> {
        Err(Mute)
    }

    /// So many bytes.
    fn blob(&mut self, bytes: u64) -> Vec<u8> {
        self.said += 1;
        vec![b'x'; bytes as usize]
    }
}

fn start(shards: usize) -> Node {
    let node = Node::builder().entity::<Speaker>().shards(shards);
    let node = node.ask_timeout(Duration::from_secs(60)).listen(([127, 0, 0, 1], 0).into());
    node.start().expect("the node starts")
}

/// A client that speaks as much of the protocol as these tests need.
struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    fn new(node: &Node) -> Self {
        let stream = TcpStream::connect(node.local_addr().expect("it listens")).expect("connected");
        // A guard: a test that waits for an answer which never comes fails instead of hanging.
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
        Self { reader: BufReader::new(stream) }
    }

    fn send(&self, bytes: impl AsRef<[u8]>) {
        let mut stream = self.reader.get_ref();
        stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// The next reply: its first line, or the bytes of a bulk string.
    fn reply(&mut self) -> String {
        self.try_reply().expect("a reply")
    }

    fn try_reply(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok("closed".to_owned());
        }
        let line = line.trim_end().to_owned();
        let Some(length) = line.strip_prefix('$') else { return Ok(line) };
        let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 2];
        self.reader.read_exact(&mut bytes)?;
        bytes.truncate(bytes.len() - 2);
        Ok(String::from_utf8(bytes).expect("text"))
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n"));
        self.reply()
    }
}

#[test]
fn pipelined_commands_to_many_shards_are_answered_in_order() {
    let node = start(3);
    let mut client = Client::new(&node);
    let mut sent = 0;
    for batch in [1, 10, 1_000] {
        let mut commands = String::new();
        for number in sent..sent + batch {
            let (key, other) = (number % 37, number % 11);
            commands += &match number % 3 {
                0 => format!("SPEAKER.SAY {key} {number}\r\n"),
                1 => format!("SPEAKER.RELAY {key} {} {number}\r\n", 100 + other),
                _ => format!("ECHO {number}\r\n"),
            };
        }
        client.send(commands);
        for number in sent..sent + batch {
            assert_eq!(client.reply(), number.to_string());
        }
        sent += batch;
    }
}

#[test]
fn a_panic_in_a_handler_answers_an_error_and_the_connection_lives() {
    let node = start(2);
    let mut client = Client::new(&node);
    for key in 0..10 {
        assert_eq!(client.ask(&format!("SPEAKER.SAY {key} hello")), "hello");
        let error = client.ask(&format!("SPEAKER.FAIL {key}"));
        assert!(error.starts_with('-'), "{error}");
        assert_eq!(client.ask(&format!("SPEAKER.SAID {key}")), ":0", "activated anew");
        assert_eq!(client.ask("PING"), "+PONG");
    }
    client.send("SPEAKER.SAY 1 a\r\nSPEAKER.FAIL 1\r\nSPEAKER.SAY 1 b\r\nSPEAKER.SAY 2 c\r\n");
    assert_eq!(client.reply(), "a");
    assert!(client.reply().starts_with('-'));
    assert_eq!(client.reply(), "b");
    assert_eq!(client.reply(), "c");
}

#[test]
fn a_panic_while_arguments_are_read_disturbs_nobody() {
    let node = start(2);
    let (mut client, mut other) = (Client::new(&node), Client::new(&node));
    for key in 0..10 {
        assert_eq!(client.ask(&format!("SPEAKER.FRAGILE {key} fine")), "fine");
        let error = client.ask(&format!("SPEAKER.FRAGILE {key} panic"));
        assert!(error.starts_with('-'), "{error}");
        assert_eq!(other.ask(&format!("SPEAKER.SAY {key} hello")), "hello");
    }
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn a_panic_while_an_answer_is_written_ends_that_command() {
    let node = start(2);
    let mut other = Client::new(&node);
    for key in 0..6 {
        for command in [format!("SPEAKER.BRITTLE {key} 13"), format!("SPEAKER.MUTE {key}")] {
            let mut client = Client::new(&node);
            assert_eq!(client.ask(&format!("SPEAKER.BRITTLE {key} 1")), "+fine");
            let end = client.ask(&command);
            assert!(end.starts_with('-') || end == "closed", "{command}: {end}");
            assert_eq!(other.ask(&format!("SPEAKER.SAY {key} hello")), "hello");
        }
    }
}

#[test]
fn two_hundred_connections_are_served_at_once() {
    let node = start(3);
    let mut clients: Vec<_> = (0..200).map(|_| Client::new(&node)).collect();
    for round in 0..3 {
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("SPEAKER.RELAY {number} {round} {number}\r\nPING\r\n"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.reply(), number.to_string());
            assert_eq!(client.reply(), "+PONG");
        }
    }
    drop(clients);
    let mut client = Client::new(&node);
    assert_eq!(client.ask("PING"), "+PONG");
}

/// Resident bytes of this process.
fn memory_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number of pages") * 4096
}

#[test]
fn a_slow_reader_does_not_grow_memory() {
    // Large in all, and small beside the limit as far as they may be under way together.
    const REPLIES: usize = 40_000;
    const REPLY_BYTES: usize = 10_000;
    let node = start(2);
    let (mut slow, mut other) = (Client::new(&node), Client::new(&node));
    let before = memory_bytes();
    slow.send(format!("SPEAKER.BLOB 1 {REPLY_BYTES}\r\n").repeat(REPLIES));
    // Wait until the node has stopped working for the one who does not read.
    let (mut done, mut looks_alike) = (String::new(), 0);
    while looks_alike < 50 {
        let now = other.ask("SPEAKER.SAID 1");
        looks_alike = if now == done { looks_alike + 1 } else { 0 };
        done = now;
        thread::sleep(Duration::from_millis(2));
    }
    let done: usize = done.trim_start_matches(':').parse().expect("a number");
    assert!(done < REPLIES / 2, "{done} of {REPLIES} answers were made for nobody");
    let grown = memory_bytes().saturating_sub(before);
    assert!(grown < REPLIES * REPLY_BYTES / 4, "{} MiB for one slow reader", grown >> 20);
    for _ in 0..REPLIES {
        assert_eq!(slow.reply().len(), REPLY_BYTES);
    }
    assert_eq!(slow.ask("SPEAKER.SAID 1"), format!(":{REPLIES}"));
}

#[test]
fn a_client_that_leaves_takes_nobody_along() {
    let node = start(2);
    let mut other = Client::new(&node);
    for key in 0..50 {
        let client = Client::new(&node);
        client.send(format!("SPEAKER.RELAY {key} {} bye\r\nSPEAKER.BLOB", key + 1));
        drop(client);
        assert_eq!(other.ask(&format!("SPEAKER.SAY {key} hello")), "hello");
    }
}

#[test]
fn stop_answers_what_was_asked() {
    let node = start(2);
    let mut client = Client::new(&node);
    for _ in 0..200 {
        client.send("SPEAKER.RELAY 1 2 hello\r\n");
    }
    // The first answer says that they have begun to arrive.
    assert_eq!(client.reply(), "hello");
    node.stop();
    let mut answered = 1;
    while client.try_reply().is_ok_and(|reply| reply == "hello") {
        answered += 1;
    }
    assert!(answered <= 200, "{answered}");
}
