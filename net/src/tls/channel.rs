//! One connection: takes TLS off what comes, and puts it on what goes. Knows no socket.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use coreside_shard::rkyv::util::AlignedVec;
use rustls::Connection;

use super::rights::{Rights, Rules};
use crate::native::frame::ALIGN;

/// One side of a connection.
pub(crate) struct Channel {
    connection: Connection,
    /// The peer broke the rules; it is told so, and nothing else any more.
    failed: bool,
    /// The end has been said.
    parted: bool,
    /// What the peer may call, once it is known who it is.
    rules: Arc<Rules>,
    /// Bytes that came before the handshake was done.
    shaking_bytes: usize,
}

/// What came of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// More may come.
    More,
    /// The peer has said that nothing more comes.
    Last,
}

/// Bytes that are sealed before their records are moved on: TLS keeps a copy of each record.
const PIECE_BYTES: usize = 64 << 10;

/// The longest handshake of a peer: its hello and its certificates, which take a few KiB. It is
/// held in memory before anybody knows who the peer is.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

impl Channel {
    pub(super) fn new(mut connection: Connection, rules: Arc<Rules>) -> Self {
        // What waits here is bounded where it comes from.
        connection.set_buffer_limit(None);
        Self { connection, failed: false, parted: false, rules, shaking_bytes: 0 }
    }

    /// Takes TLS off `bytes` and appends what is inside to `plain`.
    pub(crate) fn open(
        &mut self,
        mut bytes: &[u8],
        plain: &mut AlignedVec<ALIGN>,
    ) -> Result<Opened, rustls::Error> {
        if self.failed || self.parted {
            // Nobody wants it, and rustls must not find an error behind the end that it has said.
            return Ok(Opened::More);
        }
        let opened = self.try_open(&mut bytes, plain);
        self.failed |= opened.is_err();
        opened
    }

    fn try_open(
        &mut self,
        bytes: &mut &[u8],
        plain: &mut AlignedVec<ALIGN>,
    ) -> Result<Opened, rustls::Error> {
        let own = |error: std::io::Error| rustls::Error::General(error.to_string());
        let mut opened = Opened::More;
        while !bytes.is_empty() && opened == Opened::More {
            let read = self.connection.read_tls(bytes).map_err(own)?;
            if read == 0 {
                return Ok(Opened::Last);
            }
            let state = self.connection.process_new_packets()?;
            // What ends the handshake may have much behind it.
            if self.is_shaking() {
                self.shaking_bytes += read;
                if self.shaking_bytes > HANDSHAKE_BYTES_MAX {
                    return Err(rustls::Error::General("a handshake without end".to_owned()));
                }
            }
            let (before, len) = (plain.len(), state.plaintext_bytes_to_read());
            if len > 0 {
                plain.resize(before + len, 0);
                self.connection.reader().read_exact(&mut plain[before..]).map_err(own)?;
            }
            if state.peer_has_closed() {
                opened = Opened::Last;
            }
        }
        Ok(opened)
    }

    /// Appends `plain` to `sealed`, in as few records as hold it.
    ///
    /// To be called when nothing [`is shaking`](Self::is_shaking) any more.
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) {
        debug_assert!(!self.is_shaking());
        for piece in plain.chunks(PIECE_BYTES) {
            // Writing to memory without a limit takes everything.
            let taken = self.connection.writer().write_all(piece);
            debug_assert!(taken.is_ok());
            self.failed |= taken.is_err();
            self.flush(sealed);
        }
    }

    /// Appends what TLS itself has to say to `sealed`.
    pub(crate) fn flush(&mut self, sealed: &mut Vec<u8>) {
        while self.connection.wants_write() && self.connection.write_tls(sealed).is_ok() {}
    }

    /// Says that nothing more comes.
    pub(crate) fn say_goodbye(&mut self) {
        if self.owes_goodbye() {
            self.parted = true;
            self.connection.send_close_notify();
        }
    }

    /// What the peer may call; `None` for everything. To be asked when the handshake is done.
    pub(crate) fn rights(&self) -> Option<Arc<Rights>> {
        debug_assert!(!self.is_shaking());
        self.rules.rights(self.connection.peer_certificates())
    }

    /// Whether the handshake is not done.
    pub(crate) fn is_shaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether TLS itself has something to say.
    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Whether the end is still to be said.
    #[inline]
    pub(crate) fn owes_goodbye(&self) -> bool {
        !self.parted && !self.failed && !self.is_shaking()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("failed", &self.failed)
            .field("parted", &self.parted)
            .finish_non_exhaustive()
    }
}
