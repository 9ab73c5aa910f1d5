//! The client's thread: reads answers, ends what is overdue, and connects again what was lost.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use coreside_shard::rkyv::util::AlignedVec;

use super::addresses::Addresses;
use super::calls::Call;
use super::connection::{Answer, Common, Connection, FalseCredit};
use super::dial::{CHUNK_BYTES, Dial, Dialled, consume, instant_in, receive_sealed};
use super::route::Router;
use super::wakeup::{Found, receive_some};
use super::{ClientError, SHARDS_MAX};
use crate::native::Welcome;
use crate::native::credit;
use crate::native::frame::{ALIGN, Code, FrameError, HEADER_BYTES, Header, Kind};

/// The thread's part of one connection.
pub(super) struct Link {
    common: Arc<Common>,
    router: Arc<Router>,
    pub(super) connection: Arc<Connection>,
    addresses: Arc<Addresses>,
    /// The shard that it asks for.
    shard: Option<u16>,
    stream: Option<Arc<TcpStream>>,
    /// Since when it is there, and when something came last.
    since: Instant,
    heard: Instant,
    /// When the node was pinged that has left an ask without an answer, unless it has said anything
    /// since.
    pinged: Option<Instant>,
    frame_bytes_max: u32,
    /// Bytes that were received, from the first byte of a frame.
    input: AlignedVec<ALIGN>,
    /// The attempt to connect again that is under way, on a thread of its own: nobody who asks on
    /// another connection is to wait for it.
    attempt: Option<Receiver<Result<Dialled, ClientError>>>,
    /// When it is tried again, while it is lost, and how long it waits the next time.
    retry_at: Instant,
    retry_wait: Duration,
    /// Room for bytes from which TLS is taken off.
    sealed: Vec<u8>,
    /// Asks that are answered; empty except while answers are handed out.
    ended: Vec<(Call, Answer)>,
    /// The node has been told that nothing more comes.
    is_shut: bool,
}

/// How long a client that is dropped goes on to send.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Serves the connections until the client is dropped.
pub(super) fn run(common: &Common, router: &Router, mut links: Vec<Link>) {
    links.iter_mut().for_each(Link::begin);
    while !common.is_closed() {
        let now = Instant::now();
        links.iter_mut().for_each(|link| link.retry(now));
        grow(router, &mut links);
        let limit = links.iter_mut().filter_map(|link| link.left(now)).min();
        // Whole milliseconds, upwards: not to wake before the time.
        let limit = limit.map(|left| left + Duration::from_millis(1));
        let wanted = || links.iter().map(Link::wanted);
        let Ok(found) = common.wakeup.wait(wanted, limit, common.config.spin) else {
            // Without memory for a call there is nothing to do but wait for better times.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        links.iter_mut().zip(found).for_each(|(link, found)| link.serve(found));
    }
    close(common, links);
}

/// Has a connection to each shard of a node that has come back with more of them.
fn grow(router: &Router, links: &mut Vec<Link>) {
    let shards = router.route().spread.as_ref().map_or(0, |spread| spread.shards);
    let known = links.len() as u16;
    let is_to_each = links[0].shard.is_some();
    if is_to_each && (known + 1..=SHARDS_MAX).contains(&shards) {
        for shard in known..shards {
            links.push(links[0].sibling(shard));
        }
        router.set_lanes(lanes(links));
    }
}

/// The connections that others send on.
pub(super) fn lanes(links: &[Link]) -> Box<[Arc<Connection>]> {
    links.iter().map(|link| Arc::clone(&link.connection)).collect()
}

/// The client is no more: sends what it left, as far as the nodes take it soon, and waits until the
/// node has all that it was told. A socket that is closed with something unread, or that something
/// comes for later, throws away what it has not sent.
fn close(common: &Common, mut links: Vec<Link>) {
    let until = instant_in(CLOSE_TIME);
    loop {
        links.iter_mut().for_each(Link::finish);
        let is_done = links.iter().all(|link| link.stream.is_none());
        let left = until.checked_duration_since(Instant::now());
        let Some(left) = left.filter(|_| !is_done) else { break };
        let wanted = || links.iter().map(Link::wanted);
        let Ok(found) = common.wakeup.wait(wanted, Some(left), None) else { break };
        links.iter_mut().zip(found).for_each(|(link, found)| link.serve(found));
    }
    links.iter_mut().for_each(Link::lose);
}

impl Link {
    pub(super) fn new(
        common: Arc<Common>,
        router: Arc<Router>,
        addresses: Arc<Addresses>,
        shard: Option<u16>,
    ) -> Self {
        let now = Instant::now();
        Self {
            connection: Arc::new(Connection::new(Arc::clone(&common))),
            retry_wait: common.config.backoff.0,
            retry_at: now,
            common,
            router,
            addresses,
            shard,
            stream: None,
            since: now,
            heard: now,
            pinged: None,
            frame_bytes_max: 0,
            input: AlignedVec::new(),
            attempt: None,
            sealed: Vec::new(),
            ended: Vec::new(),
            is_shut: false,
        }
    }

    /// A connection to another shard of the same node, which is not there yet.
    pub(super) fn sibling(&self, shard: u16) -> Self {
        let (common, router) = (Arc::clone(&self.common), Arc::clone(&self.router));
        Self::new(common, router, Arc::clone(&self.addresses), Some(shard))
    }

    /// The shard that it asks for.
    pub(super) fn shard(&self) -> Option<u16> {
        self.shard
    }

    /// From here on it asks for this shard, should it have to connect again.
    pub(super) fn settle_at(&mut self, shard: u16) {
        self.shard = Some(shard);
    }

    /// What the thread waits for: the socket, and whether output waits for it.
    fn wanted(&self) -> Option<(std::os::fd::RawFd, bool)> {
        let stream = self.stream.as_ref()?;
        Some((stream.as_raw_fd(), self.connection.has_left()))
    }

    /// Ends what is overdue. Returns how long the thread may sleep on behalf of this connection.
    fn left(&mut self, now: Instant) -> Option<Duration> {
        match (&self.stream, &self.attempt) {
            (Some(_), _) => self.watch(now),
            // It wakes the thread.
            (None, Some(_)) => None,
            (None, None) => Some(self.retry_at.saturating_duration_since(now)),
        }
    }

    /// Ends what is overdue, and the connection if the node is gone: no word of it may come, and
    /// the system goes on to send for a quarter of an hour.
    fn watch(&mut self, now: Instant) -> Option<Duration> {
        let silence = self.common.config.silence;
        let since = |at: Instant| now.saturating_duration_since(at);
        let (left, is_unanswered) = self.connection.expire(now);
        if is_unanswered && self.pinged.is_none() && since(self.heard) >= silence {
            self.pinged = Some(now);
            self.connection.say(Kind::Ping, 0);
        }
        let Some(pinged) = self.pinged else { return left };
        let patience = silence.saturating_sub(since(pinged));
        if patience.is_zero() && since(pinged) > Duration::ZERO {
            self.lose();
        }
        Some(left.map_or(patience, |left| left.min(patience)))
    }

    /// Connects again if it is time.
    fn retry(&mut self, now: Instant) {
        if self.stream.is_some() {
            return;
        }
        let Some(attempt) = &self.attempt else {
            if now >= self.retry_at && self.attempt_again().is_err() {
                self.back_off();
            }
            return;
        };
        match attempt.try_recv() {
            Ok(Ok(dialled)) => {
                self.attempt = None;
                self.take(dialled);
                self.begin();
            }
            Err(TryRecvError::Empty) => {}
            Ok(Err(_)) | Err(TryRecvError::Disconnected) => {
                self.attempt = None;
                self.back_off();
            }
        }
    }

    fn attempt_again(&mut self) -> io::Result<()> {
        let (sender, attempt) = sync_channel(1);
        let dial = self.dial();
        let common = Arc::clone(&self.common);
        let name = "coreside-dial".to_owned();
        std::thread::Builder::new().name(name).spawn(move || {
            // Nobody takes it when the client is no more.
            let _ = sender.send(dial.connect());
            common.wakeup.wake();
        })?;
        self.attempt = Some(attempt);
        Ok(())
    }

    fn back_off(&mut self) {
        let (_, longest) = self.common.config.backoff;
        let random = RandomState::new().hash_one(());
        self.retry_at = instant_in(scattered(self.retry_wait, random));
        self.retry_wait = self.retry_wait.saturating_mul(2).min(longest);
    }

    /// Closes the connection if nothing is left to be sent and the node has to be told nothing.
    fn finish(&mut self) {
        let Some(stream) = self.stream.as_ref().filter(|_| !self.is_shut) else { return };
        if self.connection.has_left() || self.connection.say_goodbye() {
            return;
        }
        let is_over = self.connection.is_told_all() || stream.shutdown(Shutdown::Write).is_err();
        self.is_shut = true;
        if is_over {
            self.lose();
        }
    }

    /// The connection is lost, for whatever reason: it is tried again. One that did not hold for
    /// long is tried as if there had been none.
    fn lose(&mut self) {
        self.stream = None;
        self.connection.down();
        let (first, longest) = self.common.config.backoff;
        if self.since.elapsed() >= longest {
            self.retry_wait = first;
        }
        self.back_off();
    }

    fn dial(&self) -> Dial {
        Dial::new(Arc::clone(&self.common), Arc::clone(&self.addresses), self.shard)
    }

    /// Connects and shakes hands.
    pub(super) fn connect(&mut self) -> Result<Welcome, ClientError> {
        let dialled = self.dial().connect()?;
        let welcome = dialled.welcome.clone();
        self.take(dialled);
        Ok(welcome)
    }

    fn take(&mut self, dialled: Dialled) {
        let Dialled { stream, tls, welcome, numbers, input } = dialled;
        let stream = Arc::new(stream);
        self.frame_bytes_max = welcome.frame_bytes_max;
        self.input = input;
        self.router.renew(&welcome);
        self.connection.up(Arc::clone(&stream), tls, &welcome, numbers);
        self.stream = Some(stream);
        self.since = Instant::now();
        (self.heard, self.pinged) = (self.since, None);
    }

    /// Handles what came together with the welcome.
    fn begin(&mut self) {
        if !self.input.is_empty() && self.take_frames().is_err() {
            self.lose();
        }
    }

    /// Does what its socket is ready for.
    fn serve(&mut self, found: Found) {
        if found.readable && self.read().is_err() {
            self.lose();
        }
        self.connection.send_left(found.writable);
    }

    /// Reads what is there, and hands out the answers.
    fn read(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.clone() else { return Ok(()) };
        let received = if self.common.config.tls.is_some() && !self.is_shut {
            let connection = Arc::clone(&self.connection);
            receive_sealed(&stream, &mut self.sealed, &mut self.input, |bytes, input| {
                connection.open(bytes, input)
            })?
        } else {
            receive_some(stream.as_raw_fd(), &mut self.input, CHUNK_BYTES)?
        };
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.heard, self.pinged) = (Instant::now(), None);
        if self.is_shut {
            // Nobody is left to hear it.
            self.input.clear();
        }
        self.take_frames()
    }

    /// Hands out the answers that are there.
    fn take_frames(&mut self) -> io::Result<()> {
        let (mut answers, mut credit) = (Vec::new(), Vec::new());
        let taken = self.frames(&mut answers, &mut credit).map_err(io::Error::other)?;
        let mut ended = std::mem::take(&mut self.ended);
        let agreed = self.connection.take(answers, &credit, &mut ended);
        self.connection.end_all(ended.iter().map(|(call, answer)| {
            (&*call.pending, answer.outcome.map(|(from, to)| &self.input[from..to]))
        }));
        ended.clear();
        self.ended = ended;
        consume(&mut self.input, taken);
        let notices = agreed.map_err(|FalseCredit| io::ErrorKind::InvalidData)?;
        self.connection.end_all(notices.iter().map(|notice| (&**notice, Ok(&[][..]))));
        self.connection.send_rest();
        Ok(())
    }

    /// Handles the whole frames of the input, and appends the answers among them, and the credit;
    /// returns how many bytes they took.
    fn frames(
        &self,
        answers: &mut Vec<Answer>,
        credit: &mut Vec<(u32, u32)>,
    ) -> Result<usize, FrameError> {
        let mut at = 0;
        while let Some(header) = Header::read(&self.input[at..], self.frame_bytes_max)?
            && self.input.len() - at >= header.padded()
        {
            let content = (at + HEADER_BYTES, at + header.length as usize);
            let outcome = match header.kind {
                Kind::Reply => Some(Ok(content)),
                Kind::Error => {
                    Some(Err(Code::from_byte(header.code).unwrap_or(Code::MaybeExecuted)))
                }
                Kind::Ping => {
                    self.connection.say(Kind::Pong, header.call);
                    None
                }
                Kind::Credit => {
                    credit.extend(credit::read(&self.input[content.0..content.1]));
                    None
                }
                // What is owed still comes, and then the end.
                Kind::GoAway => {
                    self.connection.leave();
                    None
                }
                Kind::Pong => None,
                other => return Err(FrameError::Kind(other as u8)),
            };
            answers.extend(outcome.map(|outcome| Answer { call: header.call, outcome }));
            at += header.padded();
        }
        Ok(at)
    }
}

/// A wait of half to all of this: all clients of a node that stops lose it at once, and are not to
/// come back at once.
fn scattered(wait: Duration, random: u64) -> Duration {
    wait - wait / 512 * (random % 257) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_scattered_between_half_and_all() {
        for wait in [Duration::ZERO, Duration::from_millis(10), Duration::MAX] {
            let waits: Vec<_> = (0..1000).map(|random| scattered(wait, random)).collect();
            assert_eq!(waits.iter().max(), Some(&wait));
            assert!(waits.iter().all(|some| *some >= wait / 2));
            let in_first_half = waits.iter().filter(|some| **some < wait / 4 * 3).count();
            assert!(wait.is_zero() || (450..550).contains(&in_first_half), "{in_first_half}");
        }
    }
}
