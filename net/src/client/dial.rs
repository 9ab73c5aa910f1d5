//! One attempt to connect and to shake hands. It blocks whoever makes it, for a bounded time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coreside_shard::rkyv::util::AlignedVec;

use super::addresses::Addresses;
use super::connection::Common;
use super::wakeup::receive_some;
use super::{ClientError, message_error};
use crate::native::frame::{ALIGN, Code, HEADER_BYTES, Header, Kind, VERSION};
use crate::native::{Hello, HelloError, Standing, Welcome};
use crate::tls::{Channel, ClientTls, Opened, TlsError};

/// Bytes that are received at once.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Memory that is kept of input that was handled; a long reply makes it larger.
const INPUT_BYTES_KEPT_MAX: usize = 1 << 20;

/// The longest welcome that is believed.
const WELCOME_BYTES_MAX: u32 = 1 << 20;

/// An attempt.
pub(super) struct Dial {
    common: Arc<Common>,
    addresses: Arc<Addresses>,
    shard: Option<u16>,
    until: Instant,
    /// Bytes that were received, from the first byte of a frame.
    input: AlignedVec<ALIGN>,
    /// Room for bytes from which TLS is taken off.
    sealed: Vec<u8>,
}

/// A connection on which hands were shaken.
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    pub(super) tls: Option<Box<Channel>>,
    pub(super) welcome: Welcome,
    /// By number of the client's table: the node's number, where it has one.
    pub(super) numbers: Vec<Option<u16>>,
    /// What came behind the welcome.
    pub(super) input: AlignedVec<ALIGN>,
}

impl Dial {
    pub(super) fn new(common: Arc<Common>, addresses: Arc<Addresses>, shard: Option<u16>) -> Self {
        let until = instant_in(common.config.connect_timeout);
        Self { common, addresses, shard, until, input: AlignedVec::new(), sealed: Vec::new() }
    }

    /// Connects and shakes hands.
    pub(super) fn connect(self) -> Result<Dialled, ClientError> {
        self.shake_hands().map_err(|error| match error {
            // What a socket says when the time of a receive is up.
            ClientError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ClientError::Io(io::ErrorKind::TimedOut.into())
            }
            other => other,
        })
    }

    fn shake_hands(mut self) -> Result<Dialled, ClientError> {
        let mut stream = self.reach()?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(self.left()?))?;
        let table = Arc::clone(&self.common.table);
        let hello = Hello {
            versions: (VERSION, VERSION),
            shard: self.shard,
            cluster: self.common.config.cluster,
            messages: table.wire_current().iter().map(|row| (row.id, row.schema)).collect(),
        };
        let mut tls = match self.common.config.tls.clone() {
            Some(tls) => Some(Box::new(self.secure(&tls, &mut stream)?)),
            None => None,
        };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        if let Some(tls) = &mut tls {
            let plain = std::mem::take(&mut bytes);
            tls.seal(&plain, &mut bytes);
        }
        stream.write_all(&bytes)?;
        let mut welcome = self.welcome(&mut stream, tls.as_deref_mut())?;
        let frame_bytes_max = &mut welcome.frame_bytes_max;
        *frame_bytes_max = self.common.config.frame_bytes_max.min(*frame_bytes_max);
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
        Ok(Dialled { stream, tls, welcome, numbers, input: self.input })
    }

    /// Connects to the first address that answers; those behind one that does not have their part
    /// of the time.
    fn reach(&self) -> io::Result<TcpStream> {
        let mut stream = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        let addresses = self.addresses.get()?;
        for (tried, address) in addresses.iter().enumerate() {
            let part = self.left()? / (addresses.len() - tried) as u32;
            stream = TcpStream::connect_timeout(address, part.max(Duration::from_millis(1)));
            if stream.is_ok() {
                break;
            }
        }
        stream
    }

    /// The time that there is.
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.checked_duration_since(Instant::now());
        let left = left.filter(|left| !left.is_zero());
        left.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Agrees with the node on TLS.
    fn secure(&mut self, tls: &ClientTls, stream: &mut TcpStream) -> Result<Channel, ClientError> {
        let mut tls = tls.connect(stream.peer_addr()?.ip()).map_err(ClientError::Tls)?;
        loop {
            let mut output = Vec::new();
            tls.flush(&mut output);
            stream.write_all(&output)?;
            if !tls.is_shaking() {
                return Ok(tls);
            }
            let received = self.receive(stream, Some(&mut tls));
            if received.is_err() {
                // Why, if the node still listens.
                output.clear();
                tls.flush(&mut output);
                stream.write_all(&output).unwrap_or_default();
            }
            received?;
        }
    }

    /// Reads the node's first frame.
    fn welcome(
        &mut self,
        stream: &mut TcpStream,
        mut tls: Option<&mut Channel>,
    ) -> Result<Welcome, ClientError> {
        loop {
            let header = Header::read(&self.input, WELCOME_BYTES_MAX)
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
                consume(&mut self.input, header.padded());
                return Ok(welcome);
            }
            self.receive(stream, tls.as_deref_mut())?;
        }
    }

    /// Receives more, in time.
    fn receive(&mut self, stream: &TcpStream, tls: Option<&mut Channel>) -> io::Result<()> {
        stream.set_read_timeout(Some(self.left()?))?;
        let received = match tls {
            Some(tls) => {
                receive_sealed(stream, &mut self.sealed, &mut self.input, |bytes, input| {
                    tls.open(bytes, input).map_err(Into::into)
                })?
            }
            None => receive_some(stream.as_raw_fd(), &mut self.input, CHUNK_BYTES)?,
        };
        if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Receives what is there and has TLS taken off it; 0 at the end of the stream.
pub(super) fn receive_sealed(
    mut stream: &TcpStream,
    sealed: &mut Vec<u8>,
    input: &mut AlignedVec<ALIGN>,
    open: impl FnOnce(&[u8], &mut AlignedVec<ALIGN>) -> Result<Opened, TlsError>,
) -> io::Result<usize> {
    sealed.resize(CHUNK_BYTES, 0);
    let len = loop {
        match stream.read(sealed) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    let before = input.len();
    let opened = open(&sealed[..len], input).map_err(io::Error::other)?;
    let is_end = opened == Opened::Last && input.len() == before;
    Ok(if is_end { 0 } else { len })
}

/// Forgets the first `len` bytes of an input, and keeps no memory that a long frame needed.
pub(super) fn consume(input: &mut AlignedVec<ALIGN>, len: usize) {
    let left = input.len() - len;
    if left == 0 && input.capacity() > INPUT_BYTES_KEPT_MAX {
        *input = AlignedVec::new();
        return;
    }
    input.copy_within(len.., 0);
    input.resize(left, 0);
}

/// When so much time will have passed; for one that the clock cannot name, a time that nobody sees.
pub(super) fn instant_in(length: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(1 << 32);
    let now = Instant::now();
    now.checked_add(length).unwrap_or(now + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_long_reply_is_kept_no_longer_than_the_reply() {
        let mut input = AlignedVec::new();
        input.resize(8 << 20, 7);
        consume(&mut input, (8 << 20) - 16);
        assert_eq!(input[..], [7; 16], "what is behind it");
        consume(&mut input, 16);
        assert!(input.is_empty() && input.capacity() == 0);
        input.resize(4096, 7);
        consume(&mut input, 4096);
        assert!(input.is_empty() && input.capacity() >= 4096, "short ones share theirs");
    }
}
