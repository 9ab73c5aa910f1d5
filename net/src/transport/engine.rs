//! What carries out the operations of a net: an io_uring ring, or calls when epoll says so.
//!
//! Both take the same operations and report on them with the same completions, in the same manner:
//! accepts and receives go on until they are told to end or something fails, a send ends when the
//! socket has taken some of it. So nothing above knows which one runs.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::buffers::Buffers;
use super::epoll::Epoll;
use super::error::NetError;
use super::ring::Ring;
use super::socket::{Kind, parts};
use super::zero_copy::{SendStats, Sends, ZeroCopy};

/// How a net deals with the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverKind {
    /// An io_uring ring: no system call per operation.
    #[default]
    Uring,
    /// A system call per operation, when epoll says that it will not wait. For kernels and
    /// containers that refuse io_uring.
    Epoll,
}

/// What became of an operation.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub(super) token: u64,
    /// Not negative: what the call would return. Negative: the error number.
    pub(super) result: i32,
    /// The receive buffer that the bytes are in.
    pub(super) buffer: Option<u16>,
    /// Whether the operation goes on.
    pub(super) more: bool,
    /// It is the second one of a send without a copy; the result is made of flags.
    pub(super) is_notice: bool,
}

impl Completion {
    /// Nobody will take what was completed: closes the connection, if one was accepted.
    #[expect(unsafe_code, reason = "a descriptor that the kernel made")]
    pub(super) fn discard(self) {
        if parts(self.token).0 == Some(Kind::Accept) && self.result >= 0 {
            // SAFETY: the descriptor was made for us, and nobody else has heard of it.
            drop(unsafe { OwnedFd::from_raw_fd(self.result) });
        }
    }
}

/// Completions taken per pass; what is left waits for the next one.
pub(super) const BATCH: usize = 512;

/// One or the other. Each operation costs a branch that always goes the same way.
pub(super) enum Engine {
    Uring(Ring),
    Epoll(Epoll),
}

impl Engine {
    /// An engine of the calling thread; only that thread may use it.
    pub(super) fn new(kind: DriverKind) -> Result<Self, NetError> {
        Ok(match kind {
            DriverKind::Uring => Self::Uring(Ring::new()?),
            DriverKind::Epoll => Self::Epoll(Epoll::new()?),
        })
    }

    /// How often the kernel was called on behalf of operations.
    pub(super) fn enters(&self) -> u64 {
        match self {
            Self::Uring(ring) => ring.enters(),
            Self::Epoll(epoll) => epoll.calls(),
        }
    }

    /// How often receives had to wait because no buffer was free. Those of a ring end instead.
    pub(super) fn waits_for_buffers(&self) -> u64 {
        match self {
            Self::Uring(_) => 0,
            Self::Epoll(epoll) => epoll.waits_for_buffers(),
        }
    }

    /// Has outputs sent without a copy as `config` says, where that is possible.
    pub(super) fn configure_sends(&mut self, config: ZeroCopy) {
        if let Self::Uring(ring) = self {
            ring.configure_sends(config);
        }
    }

    /// Outputs of so many bytes are to be sent without a copy.
    #[inline]
    pub(super) fn zero_copy_min_bytes(&self) -> usize {
        match self {
            Self::Uring(ring) => ring.sends.zero_copy_min_bytes(),
            Self::Epoll(_) => usize::MAX,
        }
    }

    /// How outputs were sent.
    pub(super) fn sends(&self) -> SendStats {
        match self {
            Self::Uring(ring) => ring.sends.stats,
            Self::Epoll(epoll) => SendStats { plain: epoll.sends(), ..SendStats::default() },
        }
    }

    /// Makes room for this many numbers of registered memory, for sends without a copy. Returns
    /// whether there is any use for it.
    pub(super) fn reserve_blocks(&mut self, count: u16) -> bool {
        match self {
            Self::Uring(ring) => {
                let is_used = ring.sends.zero_copy_min_bytes() < usize::MAX && count > 0;
                is_used && ring.reserve_blocks(count)
            }
            Self::Epoll(_) => false,
        }
    }

    /// Registers memory under this number. Returns whether the kernel does it.
    ///
    /// # Safety
    /// Nothing is to be sent under this number once the memory has another use.
    #[expect(unsafe_code, reason = "memory whose pages the kernel keeps")]
    pub(super) unsafe fn register_block(&mut self, number: u16, memory: &mut Vec<u8>) -> bool {
        match self {
            // SAFETY: as the caller promises.
            Self::Uring(ring) => unsafe { ring.register_block(number, memory) },
            Self::Epoll(_) => false,
        }
    }

    /// Where the ends of sends without a copy are counted.
    pub(super) fn zero_copy(&mut self) -> Option<&mut Sends> {
        match self {
            Self::Uring(ring) => Some(&mut ring.sends),
            Self::Epoll(_) => None,
        }
    }

    /// Accepts connections until told otherwise.
    #[must_use = "the queue may be full"]
    pub(super) fn accept(&mut self, listener: RawFd, token: u64) -> bool {
        match self {
            Self::Uring(ring) => ring.accept(listener, token),
            Self::Epoll(epoll) => epoll.accept(listener, token),
        }
    }

    /// Reports once that a connection waits at the listener.
    #[must_use = "the queue may be full"]
    pub(super) fn poll_listener(&mut self, listener: RawFd, token: u64) -> bool {
        match self {
            Self::Uring(ring) => ring.poll_listener(listener, token),
            Self::Epoll(epoll) => epoll.poll_listener(listener, token),
        }
    }

    /// To be called before the listener of this token is closed.
    pub(super) fn forget_listener(&mut self, token: u64) {
        match self {
            // The kernel ends what it does for a socket that is shut down.
            Self::Uring(_) => {}
            Self::Epoll(epoll) => epoll.forget_listener(token),
        }
    }

    /// To be called when a connection for which nothing is under way goes on at another shard.
    pub(super) fn forget(&mut self, socket: RawFd, token: u64) {
        match self {
            // The kernel does nothing for a socket of which nothing was asked.
            Self::Uring(_) => {}
            Self::Epoll(epoll) => epoll.forget(socket, token),
        }
    }

    /// Receives into the buffers of the net until told otherwise.
    #[inline]
    #[must_use = "the queue may be full"]
    pub(super) fn receive(&mut self, socket: RawFd, group: u16, token: u64) -> bool {
        match self {
            Self::Uring(ring) => ring.receive(socket, group, token),
            Self::Epoll(epoll) => epoll.receive(socket, token),
        }
    }

    /// Receives into a buffer of the net, once. Where that is no cheaper, it goes on.
    #[must_use = "the queue may be full"]
    pub(super) fn receive_once(&mut self, socket: RawFd, group: u16, token: u64) -> bool {
        match self {
            Self::Uring(ring) => ring.receive_once(socket, group, token),
            Self::Epoll(epoll) => epoll.receive(socket, token),
        }
    }

    /// Receives up to `len` bytes into the memory at `start`, once.
    ///
    /// # Safety
    /// The memory must stay in place, and be touched by nobody else, until the completion of this
    /// operation is taken, or the engine is dropped.
    #[must_use = "the queue may be full"]
    #[expect(unsafe_code, reason = "an operation on memory that stays with the caller")]
    pub(super) unsafe fn receive_into(
        &mut self,
        socket: RawFd,
        start: *mut u8,
        len: usize,
        token: u64,
    ) -> bool {
        match self {
            // SAFETY: as the caller promises.
            Self::Uring(ring) => unsafe { ring.receive_into(socket, start, len, token) },
            // SAFETY: as the caller promises.
            Self::Epoll(epoll) => unsafe { epoll.receive_into(socket, start, len, token) },
        }
    }

    /// Sends as much of `bytes` as the socket takes, once it takes any: whoever waits for a peer
    /// learns that it goes on.
    ///
    /// # Safety
    /// `bytes` must stay in place and unchanged until the completion of this operation is taken, or
    /// the engine is dropped.
    #[inline]
    #[must_use = "the queue may be full"]
    #[expect(unsafe_code, reason = "an operation on memory that stays with the caller")]
    pub(super) unsafe fn send(&mut self, socket: RawFd, bytes: &[u8], token: u64) -> bool {
        match self {
            // SAFETY: as the caller promises.
            Self::Uring(ring) => unsafe { ring.send(socket, bytes, token) },
            // SAFETY: as the caller promises.
            Self::Epoll(epoll) => unsafe { epoll.send(socket, bytes, token) },
        }
    }

    /// Sends as much of `bytes` as the socket takes, once it takes any, without copying it. If the
    /// completion says that there is more, a second one is the notice that the bytes are read no
    /// more. For outputs of at least [`zero_copy_min_bytes`](Self::zero_copy_min_bytes).
    ///
    /// # Safety
    /// `bytes` must stay in place until the completion of this operation, and, if it says so, its
    /// notice is taken, or the engine is dropped. What the peer gets is what they hold meanwhile.
    /// They lie in the memory that is registered under the number, if one is given.
    #[must_use = "the queue may be full"]
    #[expect(unsafe_code, reason = "an operation on memory that stays with the caller")]
    pub(super) unsafe fn send_zero_copy(
        &mut self,
        socket: RawFd,
        bytes: &[u8],
        registered: Option<u16>,
        token: u64,
    ) -> bool {
        match self {
            // SAFETY: as the caller promises.
            Self::Uring(ring) => unsafe { ring.send_zero_copy(socket, bytes, registered, token) },
            // SAFETY: as the caller promises; it is as good as a send whose notice does not come.
            Self::Epoll(epoll) => unsafe { epoll.send(socket, bytes, token) },
        }
    }

    /// Ends the receive with the token `target`.
    #[must_use = "the queue may be full"]
    pub(super) fn cancel(&mut self, target: u64, token: u64) -> bool {
        match self {
            Self::Uring(ring) => ring.cancel(target, token),
            Self::Epoll(epoll) => epoll.cancel(target, token),
        }
    }

    /// Whether a call is needed to learn what was completed, before completions are taken.
    #[inline]
    pub(super) fn wants_collect(&mut self) -> bool {
        match self {
            Self::Uring(ring) => ring.wants_collect() && !ring.has_completions(),
            Self::Epoll(epoll) => epoll.wants_collect(),
        }
    }

    /// Whether there is anything to be submitted.
    #[inline]
    pub(super) fn wants_enter(&mut self) -> bool {
        match self {
            Self::Uring(ring) => ring.wants_enter(),
            // Sends are tried when they are asked for; the rest is done by the next collect.
            Self::Epoll(_) => false,
        }
    }

    /// Whether there is nothing to be taken, and nothing to be done without the peers.
    pub(super) fn is_idle(&mut self) -> bool {
        match self {
            Self::Uring(ring) => !ring.has_completions() && !ring.wants_enter(),
            Self::Epoll(epoll) => epoll.is_idle(),
        }
    }

    /// Submits what is queued and collects what is done. Never waits.
    ///
    /// # Errors
    /// What the kernel said, unless it will be better at the next attempt.
    pub(super) fn enter(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        match self {
            Self::Uring(ring) => ring.enter(),
            Self::Epoll(epoll) => epoll.enter(buffers),
        }
    }

    /// Adds up to [`BATCH`] completions to `batch`, in order.
    #[inline]
    pub(super) fn take(&mut self, batch: &mut Vec<Completion>) {
        match self {
            Self::Uring(ring) => ring.take(batch),
            Self::Epoll(epoll) => epoll.take(batch),
        }
    }

    /// Signals `eventfd` for each completion while wake-ups are on, if there is no
    /// [`wait_descriptor`](Self::wait_descriptor).
    pub(super) fn register_eventfd(&mut self, eventfd: RawFd) -> io::Result<()> {
        match self {
            Self::Uring(ring) => ring.register_eventfd(eventfd),
            Self::Epoll(_) => Ok(()),
        }
    }

    /// Switches the signals to the eventfd on or off.
    pub(super) fn set_wakeups(&mut self, on: bool) {
        if let Self::Uring(ring) = self {
            ring.set_wakeups(on);
        }
    }

    /// What is readable when there is something to collect; `None` where the eventfd is signalled.
    pub(super) fn wait_descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Uring(_) => None,
            Self::Epoll(epoll) => Some(epoll.descriptor()),
        }
    }

    /// Whether the kernel may still use memory of operations that are under way.
    pub(super) fn lends_memory(&self) -> bool {
        matches!(self, Self::Uring(_))
    }
}
