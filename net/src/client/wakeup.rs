//! How the client's thread is woken, and how it waits: an eventfd beside the socket.
#![expect(unsafe_code, reason = "eventfd and poll are calls of libc")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::Duration;

/// Wakes the client's thread.
#[derive(Debug)]
pub(super) struct Wakeup {
    eventfd: File,
}

/// What a wait has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Wakeup {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else knows of it.
        Ok(Self { eventfd: unsafe { File::from_raw_fd(descriptor) } })
    }

    /// Ends the wait that is under way, or the next one.
    pub(super) fn wake(&self) {
        // A counter that is full has woken the thread already.
        let _ = (&self.eventfd).write(&1u64.to_ne_bytes());
    }

    /// Waits until one of the `sockets` has something, or can take something if that is wanted of
    /// it, somebody wakes the thread, or `limit` has passed. Returns what was found of each socket,
    /// in their order; nothing is found of what is `None`.
    pub(super) fn wait(
        &self,
        sockets: impl Iterator<Item = Option<(RawFd, bool)>>,
        limit: Option<Duration>,
    ) -> io::Result<Vec<Found>> {
        let own = libc::pollfd { fd: self.eventfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let polled = sockets.map(|socket| {
            // The system leaves negative descriptors out.
            let (fd, writable) = socket.unwrap_or((-1, false));
            let events = libc::POLLIN | if writable { libc::POLLOUT } else { 0 };
            libc::pollfd { fd, events, revents: 0 }
        });
        let mut polled: Vec<_> = std::iter::once(own).chain(polled).collect();
        let limit_ms = limit.map_or(-1, |limit| limit.as_millis().min(1 << 30) as i32);
        let len = polled.len() as libc::nfds_t;
        // SAFETY: as many entries, which live as long as the call.
        let count = unsafe { libc::poll(polled.as_mut_ptr(), len, limit_ms) };
        if count < 0 {
            let error = io::Error::last_os_error();
            let interrupted = error.kind() == io::ErrorKind::Interrupted;
            let nothing = vec![Found::default(); polled.len() - 1];
            return if interrupted { Ok(nothing) } else { Err(error) };
        }
        if polled[0].revents != 0 {
            // Empty when another wait was ended by the same call.
            let _ = (&self.eventfd).read(&mut [0; 8]);
        }
        let found = |polled: &libc::pollfd| Found {
            readable: polled.revents & !libc::POLLOUT != 0,
            writable: polled.revents & libc::POLLOUT != 0,
        };
        Ok(polled[1..].iter().map(found).collect())
    }
}

/// Sends what fits without waiting; returns how much.
pub(super) fn send_some(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes live as long as the call.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    match usize::try_from(sent) {
        Ok(sent) => Ok(sent),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        },
    }
}
