//! What the kernel does for one connection, and how that ends.
//!
//! # Stopping
//! A connection that was killed is shut down, which completes whatever the kernel still does for
//! it; where a session has finished, its receive is told to end. The slot, the descriptor and the
//! memory are released when nothing is under way any more. So no completion can name a connection
//! that is gone, and the kernel never reads memory that was freed.
//!
//! What was sent without a copy is read by the kernel until the peer has confirmed it. A peer that
//! does not would keep memory for ever: it gets the time that it has for every send, and is then
//! [forgotten](Socket::abort) together with what was still to be delivered.

#![expect(unsafe_code, reason = "a connection is broken off with a system call")]

use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use crate::sessions::{Direct, PLACES_MAX, Place, SessionId};

/// One connection.
pub(super) struct Socket {
    pub(super) id: SessionId,
    pub(super) stream: TcpStream,
    /// A receive is under way.
    pub(super) receiving: bool,
    /// That receive was told to end, because nobody can take its bytes for now.
    pub(super) cancelling: bool,
    /// What that receive writes to, if it is one into the memory of a request.
    pub(super) direct: Option<Direct>,
    /// The last request was such a one, and so may be the next.
    pub(super) in_bulk: bool,
    /// A send is under way.
    pub(super) sending: bool,
    /// Sends without a copy whose memory the kernel may still read.
    pub(super) notices: u32,
    /// The kernel copies all the same on the way to this peer, so it is not asked to do without.
    pub(super) is_copied: bool,
    /// A receive is to be started as soon as the session takes bytes and the ring has room.
    pub(super) wants_receive: bool,
    /// The connection is in the list of those whose receive is to be started.
    pub(super) listed: bool,
    /// The peer will send no more.
    pub(super) input_ended: bool,
    /// The connection is shut down and waits for the kernel to be done with it.
    pub(super) closing: bool,
    /// What the peer sends is not taken any more either.
    pub(super) is_deaf: bool,
    /// What was still to be delivered is forgotten.
    aborted: bool,
}

impl Socket {
    pub(super) fn new(id: SessionId, stream: TcpStream) -> Self {
        Self {
            id,
            stream,
            receiving: false,
            cancelling: false,
            direct: None,
            in_bulk: false,
            sending: false,
            notices: 0,
            is_copied: false,
            wants_receive: false,
            listed: false,
            input_ended: false,
            closing: false,
            is_deaf: false,
            aborted: false,
        }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether the kernel does nothing for this connection.
    pub(super) fn is_quiet(&self) -> bool {
        !self.receiving && !self.sending && self.notices == 0
    }

    /// Nothing is sent any more. Fails only if the peer has ended it already.
    pub(super) fn finish(&mut self) {
        self.closing = true;
        self.stream.shutdown(Shutdown::Write).unwrap_or_default();
    }

    /// Ends what is under way. Fails only if the peer has done so already.
    pub(super) fn shut_down(&mut self) {
        (self.closing, self.is_deaf) = (true, true);
        self.stream.shutdown(Shutdown::Both).unwrap_or_default();
    }

    /// Forgets what the peer has not confirmed, so that the kernel lets go of its memory. The peer
    /// sees a reset.
    pub(super) fn abort(&mut self) {
        if std::mem::replace(&mut self.aborted, true) {
            return;
        }
        // SAFETY: an address of which only the family counts, for which all zero is valid.
        let mut nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
        nobody.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
        // SAFETY: reads the address, which has the given size. Connecting to nobody drops what is
        // queued; a connection that is gone refuses, and has nothing queued.
        unsafe {
            let len = size_of_val(&nobody) as libc::socklen_t;
            libc::connect(self.descriptor(), &raw const nobody, len);
        }
    }
}

/// What an operation is, as its token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Receive = 1,
    Send = 2,
    Cancel = 3,
    Accept = 4,
    PollListener = 5,
    /// A receive into the memory of a request.
    Direct = 6,
    /// A send without a copy. Its [`place`] is added.
    ZeroCopy = 64,
}

/// Whose the operation is, as its token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Protocol {
    Resp = 0,
    Native = 1,
}

/// 1 bit of protocol, 7 bits of kind, 24 of the generation, 32 of the slot.
pub(super) fn token(protocol: Protocol, kind: Kind, id: SessionId) -> u64 {
    (protocol as u64) << 63
        | (kind as u64) << 56
        | u64::from(id.generation & GENERATION_MASK) << 32
        | u64::from(id.slot)
}

/// The token of a send without a copy, of output that is held in `place`: that of the usual send,
/// with another kind.
pub(super) fn zero_copy_token(send: u64, place: Place) -> u64 {
    owner(send) | (Kind::ZeroCopy as u64 | u64::from(place)) << 56
}

/// Where the output of such a send is held.
pub(super) fn place(token: u64) -> Place {
    (token >> 56) as u8 & (PLACES_MAX - 1)
}

const _: () = assert!(PLACES_MAX <= 64 && PLACES_MAX.is_power_of_two(), "beside the kind");

/// A token without its kind: the same for all operations of one connection.
pub(super) fn owner(token: u64) -> u64 {
    token & !(0x7f << 56)
}

/// The protocol.
pub(super) fn protocol(token: u64) -> Protocol {
    if token >> 63 == 0 { Protocol::Resp } else { Protocol::Native }
}

/// The kind, the slot and the low bits of the generation.
pub(super) fn parts(token: u64) -> (Option<Kind>, u32, u32) {
    let kind = match token >> 56 & 0x7f {
        1 => Some(Kind::Receive),
        2 => Some(Kind::Send),
        3 => Some(Kind::Cancel),
        4 => Some(Kind::Accept),
        5 => Some(Kind::PollListener),
        6 => Some(Kind::Direct),
        64.. => Some(Kind::ZeroCopy),
        _ => None,
    };
    (kind, token as u32, (token >> 32) as u32 & GENERATION_MASK)
}

pub(super) const GENERATION_MASK: u32 = 0x00ff_ffff;
