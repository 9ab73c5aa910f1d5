//! The load that ours and the raw loops get: one thread and one io_uring ring on the last core. A
//! connection sends as many requests as it may have outstanding in one piece, waits until all of
//! them are answered, and sends the next. Every reply is compared with what was asked.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coreside_net::native::frame::{HEADER_BYTES, Kind};
use coreside_shard::Encode;

use super::frames::{ASK_BYTES, BODY_BYTES, REPLY_BYTES, write_ask};
use super::ring::{Completion, Ring};
use super::{Work, ours};
use crate::{codec, cores};

/// Whether there is a handshake before the first request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Handshake,
    Plain,
}

/// How long it is measured, and how long it runs before that.
#[derive(Clone, Copy)]
pub struct Window {
    pub warm_up: Duration,
    pub length: Duration,
}

/// Entities that are asked, in turn, and different bodies.
pub const ENTITIES: usize = 1000;

/// A server that says nothing for so long will say nothing more.
const SILENCE: Duration = Duration::from_secs(5);

struct Session {
    /// The first request outstanding, counted over all that are asked on this connection.
    first: usize,
    /// A bit for each request that has not been answered.
    missing: u64,
    /// Of a reply whose end has not come.
    part: Vec<u8>,
}

/// All that the load needs.
struct Load {
    ring: Ring,
    sessions: Vec<Session>,
    bodies: Vec<[u8; BODY_BYTES]>,
    depth: usize,
    /// The message's number, as the node gave it.
    message: u16,
    replies: u64,
}

/// What a measurement comes to.
#[derive(Clone, Copy)]
pub struct Rate {
    /// Replies per second.
    pub rate: f64,
    /// Part of the time in which the load had nothing to do; where it is nearly none, the load is
    /// what limits the rate.
    pub idle: f64,
    /// Nanoseconds that the server was busy for each request, warming up included; `None` where it
    /// cannot tell. Where the load limits the rate, this still tells servers apart.
    pub busy_ns: Option<f64>,
}

/// # Errors
/// When a connection ends, falls silent or brings another reply than it should.
pub fn measure(address: SocketAddr, work: Work, window: Window, start: Start) -> io::Result<Rate> {
    let mut load = Load::new(address, work, start)?;
    for session in 0..load.sessions.len() {
        load.ask(session)?;
    }
    let began = Instant::now();
    let mut from = None;
    let (mut heard, mut last, mut idle) = ((0, began), began, Duration::ZERO);
    loop {
        load.pass()?;
        let now = Instant::now();
        if load.replies > heard.0 {
            heard = (load.replies, now);
        } else if now - heard.1 > SILENCE {
            return Err(io::Error::other("the server fell silent"));
        } else {
            idle += now - last;
            std::hint::spin_loop();
        }
        last = now;
        match from {
            None if now - began >= window.warm_up => {
                from = Some((now, load.replies));
                idle = Duration::ZERO;
            }
            Some((at, replies)) if now - at >= window.length => {
                let (count, span) = ((load.replies - replies) as f64, (now - at).as_secs_f64());
                let idle = idle.as_secs_f64() / span;
                return Ok(Rate { rate: count / span, idle, busy_ns: None });
            }
            _ => {}
        }
    }
}

impl Load {
    fn new(address: SocketAddr, work: Work, start: Start) -> io::Result<Self> {
        assert!((1..=64).contains(&work.depth), "a bit for each request");
        let mut message = 0;
        let mut streams = Vec::new();
        for _ in 0..work.connections {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            if start == Start::Handshake {
                message = ours::shake_hands(&mut stream)?;
            }
            streams.push(stream);
        }
        let sessions = (0..work.connections)
            .map(|number| Session { first: number * work.depth, missing: 0, part: Vec::new() })
            .collect();
        let bodies = (0..ENTITIES as u64).map(body).collect::<io::Result<_>>()?;
        let ring = Ring::new(streams, work.depth * ASK_BYTES)?;
        Ok(Self { ring, sessions, bodies, depth: work.depth, message, replies: 0 })
    }

    /// Takes what has come, and asks again where everything has been answered.
    fn pass(&mut self) -> io::Result<()> {
        self.ring.poll()?;
        // Handed in after each batch, so that the server never waits for the last of many.
        loop {
            let count = self.ring.take_batch();
            if count == 0 {
                return Ok(());
            }
            for index in 0..count {
                let session = match self.ring.completion(index)? {
                    Completion::Received(received) => {
                        let session = received.session;
                        let bytes = self.ring.bytes(&received);
                        self.replies += self.sessions[session].take(bytes, &self.bodies)?;
                        self.ring.give_back(received);
                        session
                    }
                    Completion::Sent(session) => session,
                    Completion::Settled => continue,
                    Completion::Closed(_) => {
                        return Err(io::Error::other("the server closed a connection"));
                    }
                    Completion::Failed(_, error) => return Err(error),
                };
                if self.sessions[session].missing == 0 {
                    self.ask(session)?;
                }
            }
            self.ring.submit()?;
        }
    }

    /// Sends the next requests, unless the kernel still holds the last; their end comes back here.
    fn ask(&mut self, session: usize) -> io::Result<()> {
        let Some(outbox) = self.ring.outbox(session) else { return Ok(()) };
        let Session { first, missing, .. } = &mut self.sessions[session];
        // In steps that bring each connection to all entities.
        *first = (*first + self.depth * 7) % ENTITIES;
        *missing = u64::MAX >> (64 - self.depth);
        for call in 0..self.depth {
            let which = (*first + call) % ENTITIES;
            outbox.append(|bytes, at| {
                let place = &mut bytes[at..at + ASK_BYTES];
                write_ask(place, self.message, call as u32, which as u64, &self.bodies[which]);
                at + ASK_BYTES
            });
        }
        self.ring.send(session)
    }
}

impl Session {
    /// How many replies these bytes make whole.
    fn take(&mut self, bytes: &[u8], bodies: &[[u8; BODY_BYTES]]) -> io::Result<u64> {
        if self.part.is_empty() {
            let (replies, rest) = self.check(bytes, bodies)?;
            self.part.extend_from_slice(rest);
            return Ok(replies);
        }
        let mut part = std::mem::take(&mut self.part);
        part.extend_from_slice(bytes);
        let (replies, rest) = self.check(&part, bodies)?;
        self.part.extend_from_slice(rest);
        Ok(replies)
    }

    /// Compares whole replies with what was asked; returns how many they are, and what is behind.
    fn check<'a>(
        &mut self,
        bytes: &'a [u8],
        bodies: &[[u8; BODY_BYTES]],
    ) -> io::Result<(u64, &'a [u8])> {
        let (frames, rest) = bytes.as_chunks::<REPLY_BYTES>();
        for frame in frames {
            let word = |at: usize| {
                u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
            };
            let call = word(8);
            let bit = 1u64.checked_shl(call).unwrap_or(0) & self.missing;
            let body = &bodies[(self.first + call as usize) % ENTITIES];
            let is_reply = word(0) == REPLY_BYTES as u32 && frame[4] == Kind::Reply as u8;
            if !is_reply || bit == 0 || frame[HEADER_BYTES..] != body[..] {
                return Err(io::Error::other(format!("no reply to what was asked: {frame:02x?}")));
            }
            self.missing ^= bit;
        }
        Ok((frames.len() as u64, rest))
    }
}

fn body(number: u64) -> io::Result<[u8; BODY_BYTES]> {
    let mut bytes = Vec::new();
    codec::trade(number).encode(&mut bytes).map_err(io::Error::other)?;
    bytes.try_into().map_err(|_| io::Error::other("not a flat message"))
}

/// What the tasks of other clients have come to.
#[derive(Default)]
pub struct Tally {
    replies: AtomicU64,
    failures: AtomicU64,
}

impl Tally {
    /// Counts a request that is over, and says whether it ended as it should.
    #[must_use = "a task ends with its first failure"]
    pub fn note(&self, is_right: bool) -> bool {
        let count = if is_right { &self.replies } else { &self.failures };
        count.fetch_add(1, Ordering::Relaxed);
        is_right
    }

    /// Lets the tasks run for so long, and counts.
    ///
    /// # Errors
    /// When a request failed or brought another reply than it should.
    pub async fn count(&self, window: Window) -> io::Result<Rate> {
        tokio::time::sleep(window.warm_up).await;
        let (from, at) = (self.replies.load(Ordering::Relaxed), Instant::now());
        let busy_ns = cores::process_time_ns();
        tokio::time::sleep(window.length).await;
        let count = (self.replies.load(Ordering::Relaxed) - from) as f64;
        let (span, busy_ns) = (at.elapsed().as_secs_f64(), cores::process_time_ns() - busy_ns);
        match self.failures.load(Ordering::Relaxed) {
            0 => {
                let idle = 1.0 - busy_ns / span / 1e9;
                Ok(Rate { rate: count / span, idle, busy_ns: None })
            }
            failures => Err(io::Error::other(format!("{failures} requests failed"))),
        }
    }
}
