//! Taking connections, also when descriptors run out.
//!
//! A kernel that has no descriptor left refuses an accept at once, whether or not somebody waits;
//! asking again right away would spin. So from then on the listener is polled, and who comes is
//! turned away with the descriptor that was kept for the purpose.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use super::engine::Engine;
use super::error::NetError;

/// The listening socket of a shard.
pub(super) struct Acceptor {
    listener: TcpListener,
    state: State,
    /// Given up when descriptors have run out, so that a peer can be turned away.
    spare: Option<File>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// An accept is to be started.
    WantsAccept,
    Accepting,
    /// No descriptors: a poll is to be started.
    WantsPoll,
    Polling,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> Result<Self, NetError> {
        // On a socket that does not block a ring would answer "try again" at once.
        listener.set_nonblocking(false).map_err(NetError::Listener)?;
        Ok(Self { listener, state: State::WantsAccept, spare: spare().ok() })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// Whether there is something to be started.
    pub(super) fn wants_start(&self) -> bool {
        matches!(self.state, State::WantsAccept | State::WantsPoll)
    }

    /// Starts what is to be started, if the engine has room: an accept or a poll, with its token.
    pub(super) fn start(&mut self, engine: &mut Engine, accept: u64, poll: u64) {
        let listener = self.descriptor();
        self.state = match self.state {
            State::WantsAccept if engine.accept(listener, accept) => State::Accepting,
            State::WantsPoll if engine.poll_listener(listener, poll) => State::Polling,
            unchanged => unchanged,
        };
    }

    /// The accept has ended with this result.
    pub(super) fn accept_ended(&mut self, result: i32) {
        self.state = match -result {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => State::WantsPoll,
            _ => State::WantsAccept,
        };
    }

    /// Listens no more. Shutting the socket down ends what the kernel still does for it.
    pub(super) fn stop(self, engine: &mut Engine, accept: u64) {
        engine.forget_listener(accept);
        let socket = socket2::SockRef::from(&self.listener);
        socket.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    }

    /// Somebody waits while there were no descriptors. Turns one away if that is still so.
    pub(super) fn poll_ended(&mut self) {
        self.state = State::WantsAccept;
        if let Ok(file) = spare() {
            self.spare.get_or_insert(file);
            return;
        }
        if self.spare.take().is_none() {
            return;
        }
        // The spare's descriptor is free now; whoever takes it first is turned away.
        if self.listener.set_nonblocking(true).is_ok() {
            drop(self.listener.accept());
        }
        if self.listener.set_nonblocking(false).is_err() {
            debug_assert!(false, "a flag of our own descriptor");
        }
        self.spare = spare().ok();
    }
}

fn spare() -> io::Result<File> {
    File::open("/dev/null")
}
