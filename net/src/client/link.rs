//! The client's thread: reads answers, ends what is overdue, and connects again what was lost.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coreside_shard::rkyv::util::AlignedVec;

use super::calls::Call;
use super::connection::{Answer, Common, Connection, FalseCredit};
use super::wakeup::{Found, receive_some};
use super::{ClientError, message_error};
use crate::native::credit;
use crate::native::frame::{ALIGN, Code, FrameError, HEADER_BYTES, Header, Kind, VERSION};
use crate::native::{Hello, HelloError, Standing, Welcome};
use crate::tls::{Channel, ClientTls, Opened, TlsError};

/// The thread's part of one connection.
pub(super) struct Link {
    common: Arc<Common>,
    pub(super) connection: Arc<Connection>,
    addresses: Arc<[SocketAddr]>,
    /// The shard that it asks for.
    shard: Option<u16>,
    stream: Option<Arc<TcpStream>>,
    frame_bytes_max: u32,
    /// Bytes that were received, from the first byte of a frame.
    input: AlignedVec<ALIGN>,
    /// When it is tried again, while it is lost, and how long it waits the next time.
    retry_at: Instant,
    retry_wait: Duration,
    /// Room for bytes from which TLS is taken off.
    sealed: Vec<u8>,
    /// Asks that are answered; empty except while answers are handed out.
    ended: Vec<(Call, Answer)>,
}

/// Bytes that are received at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The longest welcome that is believed.
const WELCOME_BYTES_MAX: u32 = 1 << 20;

/// How long a client that is dropped goes on to send.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Serves the connections until the client is dropped.
pub(super) fn run(common: &Common, mut links: Vec<Link>) {
    while !common.is_closed() {
        let now = Instant::now();
        links.iter_mut().for_each(|link| link.retry(now));
        let limit = links.iter().filter_map(|link| link.left(now)).min();
        // Whole milliseconds, upwards: not to wake before the time.
        let limit = limit.map(|left| left + Duration::from_millis(1));
        let wanted = || links.iter().map(Link::wanted);
        let Ok(found) = common.wakeup.wait(wanted, limit, common.config.spin) else {
            // Without memory for a call there is nothing to do but wait for better times.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        for (link, found) in links.iter_mut().zip(found) {
            if found.readable && link.read().is_err() {
                link.lose();
            }
            link.connection.send_left(found.writable);
        }
    }
    links.iter_mut().for_each(Link::close);
}

impl Link {
    pub(super) fn new(
        common: Arc<Common>,
        addresses: Arc<[SocketAddr]>,
        shard: Option<u16>,
    ) -> Self {
        Self {
            connection: Arc::new(Connection::new(Arc::clone(&common))),
            retry_wait: common.config.backoff.0,
            retry_at: Instant::now(),
            common,
            addresses,
            shard,
            stream: None,
            frame_bytes_max: WELCOME_BYTES_MAX,
            input: AlignedVec::new(),
            sealed: Vec::new(),
            ended: Vec::new(),
        }
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
    fn left(&self, now: Instant) -> Option<Duration> {
        match self.stream {
            Some(_) => self.connection.expire(now),
            None => Some(self.retry_at.saturating_duration_since(now)),
        }
    }

    /// Connects again if it is time.
    fn retry(&mut self, now: Instant) {
        if self.stream.is_some() || now < self.retry_at {
            return;
        }
        let (first, longest) = self.common.config.backoff;
        match self.connect() {
            Ok(_) => self.retry_wait = first,
            Err(_) => {
                self.retry_at = Instant::now() + self.retry_wait;
                self.retry_wait = (self.retry_wait * 2).min(longest);
            }
        }
    }

    /// The client is no more: sends what it left, as far as the node takes it soon.
    fn close(&mut self) {
        let until = Instant::now() + CLOSE_TIME;
        while let Some(socket) = self.wanted()
            && self.connection.has_left()
            && let Some(left) = until.checked_duration_since(Instant::now())
            && let Ok(found) =
                self.common.wakeup.wait(|| [Some(socket)].into_iter(), Some(left), None)
        {
            let Found { readable, writable } = found[0];
            if readable && self.read().is_err() {
                break;
            }
            self.connection.send_left(writable);
        }
        self.lose();
    }

    /// The connection is lost, for whatever reason: it is tried again.
    fn lose(&mut self) {
        self.stream = None;
        self.connection.down();
        self.retry_at = Instant::now() + self.retry_wait;
    }

    /// Connects and shakes hands.
    pub(super) fn connect(&mut self) -> Result<Welcome, ClientError> {
        let limit = self.common.config.connect_timeout;
        let until = Instant::now() + limit;
        let mut stream = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        for address in self.addresses.iter() {
            stream = TcpStream::connect_timeout(address, limit);
            if stream.is_ok() {
                break;
            }
        }
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let table = Arc::clone(&self.common.table);
        let hello = Hello {
            versions: (VERSION, VERSION),
            shard: self.shard,
            cluster: self.common.config.cluster,
            messages: table.wire_current().iter().map(|row| (row.id, row.schema)).collect(),
        };
        self.input.clear();
        self.frame_bytes_max = WELCOME_BYTES_MAX;
        let mut tls = match self.common.config.tls.clone() {
            Some(tls) => Some(Box::new(self.secure(&tls, &mut stream, until)?)),
            None => None,
        };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        if let Some(tls) = &mut tls {
            let plain = std::mem::take(&mut bytes);
            tls.seal(&plain, &mut bytes);
        }
        stream.write_all(&bytes)?;
        let welcome = self.welcome(&mut stream, tls.as_deref_mut(), until)?;
        if welcome.messages.len() != hello.messages.len() {
            return Err(ClientError::Hello(HelloError::Malformed));
        }
        let mut numbers = Vec::with_capacity(welcome.messages.len());
        for (number, standing) in welcome.messages.iter().enumerate() {
            match standing {
                Standing::Number(theirs) => numbers.push(Some(*theirs)),
                // Perhaps not for this client: whoever sends it is told.
                Standing::Unknown => numbers.push(None),
                other => return Err(message_error(&table.wire_current()[number], *other)),
            }
        }
        stream.set_read_timeout(None)?;
        let stream = Arc::new(stream);
        self.frame_bytes_max = welcome.frame_bytes_max;
        self.connection.up(Arc::clone(&stream), tls, &welcome, numbers);
        self.stream = Some(stream);
        Ok(welcome)
    }

    /// Agrees with the node on TLS.
    fn secure(
        &mut self,
        tls: &ClientTls,
        stream: &mut TcpStream,
        until: Instant,
    ) -> Result<Channel, ClientError> {
        let mut tls = tls.connect(stream.peer_addr()?.ip()).map_err(ClientError::Tls)?;
        loop {
            let mut output = Vec::new();
            tls.flush(&mut output);
            stream.write_all(&output)?;
            if !tls.is_shaking() {
                return Ok(tls);
            }
            wait_until(stream, until)?;
            let received =
                self.receive(stream, |bytes, input| tls.open(bytes, input).map_err(Into::into));
            if received.is_err() {
                // Why, if the node still listens.
                output.clear();
                tls.flush(&mut output);
                stream.write_all(&output).unwrap_or_default();
            }
            if received? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Reads the node's first frame.
    fn welcome(
        &mut self,
        stream: &mut TcpStream,
        mut tls: Option<&mut Channel>,
        until: Instant,
    ) -> Result<Welcome, ClientError> {
        loop {
            let header = Header::read(&self.input, self.frame_bytes_max)
                .map_err(|_| ClientError::Hello(HelloError::NotNative))?;
            if let Some(header) = header
                && self.input.len() >= header.padded()
            {
                let content = &self.input[HEADER_BYTES..header.length as usize];
                let welcome = match header.kind {
                    Kind::Welcome => Welcome::read(content).map_err(ClientError::Hello)?,
                    Kind::GoAway => {
                        let code = Code::from_byte(header.code).unwrap_or(Code::Protocol);
                        return Err(ClientError::Refused(code));
                    }
                    _ => return Err(ClientError::Hello(HelloError::Malformed)),
                };
                self.consume(header.padded());
                return Ok(welcome);
            }
            wait_until(stream, until)?;
            let received = match &mut tls {
                Some(tls) => {
                    self.receive(stream, |bytes, input| tls.open(bytes, input).map_err(Into::into))?
                }
                None => receive_some(stream.as_raw_fd(), &mut self.input, CHUNK_BYTES)?,
            };
            if received == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Reads what is there, and hands out the answers.
    fn read(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.clone() else { return Ok(()) };
        let received = if self.common.config.tls.is_some() {
            let connection = Arc::clone(&self.connection);
            self.receive(&stream, |bytes, input| connection.open(bytes, input))?
        } else {
            receive_some(stream.as_raw_fd(), &mut self.input, CHUNK_BYTES)?
        };
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut answers, mut credit) = (Vec::new(), Vec::new());
        let taken = self.frames(&mut answers, &mut credit).map_err(io::Error::other)?;
        let mut ended = std::mem::take(&mut self.ended);
        let agreed = self.connection.take(answers, &credit, &mut ended);
        self.connection.end_all(ended.iter().map(|(call, answer)| {
            (&*call.pending, answer.outcome.map(|(from, to)| &self.input[from..to]))
        }));
        ended.clear();
        self.ended = ended;
        self.consume(taken);
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
                    self.connection.pong(header.call);
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

    /// Receives what is there and has TLS taken off it; 0 at the end of the stream.
    fn receive(
        &mut self,
        mut stream: &TcpStream,
        open: impl FnOnce(&[u8], &mut AlignedVec<ALIGN>) -> Result<Opened, TlsError>,
    ) -> io::Result<usize> {
        self.sealed.resize(CHUNK_BYTES, 0);
        let len = loop {
            match stream.read(&mut self.sealed) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let before = self.input.len();
        let opened = open(&self.sealed[..len], &mut self.input).map_err(io::Error::other)?;
        let is_end = opened == Opened::Last && self.input.len() == before;
        Ok(if is_end { 0 } else { len })
    }

    /// Forgets the first `len` bytes of the input.
    fn consume(&mut self, len: usize) {
        let left = self.input.len() - len;
        self.input.copy_within(len.., 0);
        self.input.resize(left, 0);
    }
}

/// Has the next read end in time.
fn wait_until(stream: &TcpStream, until: Instant) -> io::Result<()> {
    let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
    stream.set_read_timeout(Some(left.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?))
}
