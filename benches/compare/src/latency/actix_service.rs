//! Counters as one would write them with actix: an actor for each key, in front of them tokio tasks
//! that speak RESP, one for each connection, all on one thread. The commands that came together are
//! all sent to their actors before the first answer is awaited.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;

use actix::{Actor, Addr, Context, Handler, Message};
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Counter {
    total: i64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

struct Increment;

impl Message for Increment {
    type Result = i64;
}

impl Handler<Increment> for Counter {
    type Result = i64;

    fn handle(&mut self, _: Increment, _: &mut Self::Context) -> i64 {
        self.total += 1;
        self.total
    }
}

type Counters = Rc<RefCell<HashMap<Box<[u8]>, Addr<Counter>>>>;

pub fn serve() -> io::Result<()> {
    actix::System::new().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("listening on {}", listener.local_addr()?);
        let counters = Counters::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let counters = Rc::clone(&counters);
            actix::spawn(async move {
                // A connection that fails has ended.
                let _ended = connection(stream, &counters).await;
            });
        }
    })
}

async fn connection(mut stream: TcpStream, counters: &Counters) -> io::Result<()> {
    let mut input = Vec::with_capacity(16 << 10);
    let mut output = Vec::with_capacity(16 << 10);
    while stream.read_buf(&mut input).await? > 0 {
        let (mut taken, mut answers) = (0, FuturesOrdered::new());
        while let Some((key, len)) = increment(&input[taken..])? {
            let counter = counter(counters, key);
            answers.push_back(counter.send(Increment));
            taken += len;
        }
        input.drain(..taken);
        while let Some(total) = answers.next().await {
            let total = total.map_err(io::Error::other)?;
            output.extend_from_slice(format!(":{total}\r\n").as_bytes());
        }
        stream.write_all(&output).await?;
        output.clear();
    }
    Ok(())
}

/// The actor of a key, which begins with the first message to it.
fn counter(counters: &Counters, key: &[u8]) -> Addr<Counter> {
    let mut counters = counters.borrow_mut();
    if let Some(counter) = counters.get(key) {
        return counter.clone();
    }
    counters.entry(key.into()).or_insert_with(|| Counter::default().start()).clone()
}

/// The key of the `INCR` at the front of `bytes`, and the length of the command; `None` if it is
/// not whole.
fn increment(bytes: &[u8]) -> io::Result<Option<(&[u8], usize)>> {
    let mut rest = bytes;
    let Some(count) = number(&mut rest, b'*')? else { return Ok(None) };
    let mut words = [&b""[..]; 2];
    if count != words.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    for word in &mut words {
        let Some(len) = number(&mut rest, b'$')? else { return Ok(None) };
        let Some((content, behind)) = rest.split_at_checked(len + 2) else { return Ok(None) };
        *word = &content[..len];
        rest = behind;
    }
    match words {
        [b"INCR", key] => Ok(Some((key, bytes.len() - rest.len()))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Takes a line that begins with `mark` and holds a number.
fn number(rest: &mut &[u8], mark: u8) -> io::Result<Option<usize>> {
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = &rest[..end];
    let digits = line.strip_prefix(&[mark]).and_then(|line| line.strip_suffix(b"\r"));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    *rest = &rest[end + 1..];
    number.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
