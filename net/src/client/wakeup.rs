//! How the client's thread is woken, and how it waits: an eventfd beside the socket.
#![expect(unsafe_code, reason = "eventfd, poll, send and recv are calls of libc")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::{Duration, Instant};

use coreside_shard::rkyv::util::AlignedVec;

use crate::native::frame::ALIGN;

/// Wakes the client's thread.
#[derive(Debug)]
pub(super) struct Wakeup {
    eventfd: File,
}

/// What a wait has found of a socket.
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
    /// it, somebody wakes the thread, or `limit` has passed; looks again and again for as long as
    /// `spin` says before it sleeps. Returns what was found of each socket, in their order; nothing
    /// is found of what is `None`.
    pub(super) fn wait<S: Iterator<Item = Option<(RawFd, bool)>>>(
        &self,
        sockets: impl Fn() -> S,
        mut limit: Option<Duration>,
        spin: Option<Duration>,
    ) -> io::Result<Vec<Found>> {
        if let Some(spin) = spin {
            let start = Instant::now();
            let spin = limit.map_or(spin, |limit| limit.min(spin));
            limit = limit.map(|limit| limit - spin);
            while start.elapsed() < spin {
                // Asked for anew each time, as what is wanted changes.
                let found = self.look(sockets(), 0)?;
                if found.has_any {
                    return Ok(found.sockets);
                }
                std::hint::spin_loop();
            }
        }
        let limit_ms = limit.map_or(-1, |limit| limit.as_millis().min(1 << 30) as i32);
        Ok(self.look(sockets(), limit_ms)?.sockets)
    }

    fn look(
        &self,
        sockets: impl Iterator<Item = Option<(RawFd, bool)>>,
        limit_ms: i32,
    ) -> io::Result<Look> {
        let own = libc::pollfd { fd: self.eventfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let polled = sockets.map(|socket| {
            // The system leaves negative descriptors out.
            let (fd, writable) = socket.unwrap_or((-1, false));
            let events = libc::POLLIN | if writable { libc::POLLOUT } else { 0 };
            libc::pollfd { fd, events, revents: 0 }
        });
        let mut polled: Vec<_> = std::iter::once(own).chain(polled).collect();
        let len = polled.len() as libc::nfds_t;
        // SAFETY: as many entries, which live as long as the call.
        let count = unsafe { libc::poll(polled.as_mut_ptr(), len, limit_ms) };
        if count < 0 {
            let error = io::Error::last_os_error();
            let sockets = vec![Found::default(); polled.len() - 1];
            let is_harmless = error.kind() == io::ErrorKind::Interrupted;
            return if is_harmless { Ok(Look { has_any: false, sockets }) } else { Err(error) };
        }
        if polled[0].revents != 0 {
            // Empty when another wait was ended by the same call.
            let _ = (&self.eventfd).read(&mut [0; 8]);
        }
        let found = |polled: &libc::pollfd| Found {
            readable: polled.revents & !libc::POLLOUT != 0,
            writable: polled.revents & libc::POLLOUT != 0,
        };
        Ok(Look { has_any: count > 0, sockets: polled[1..].iter().map(found).collect() })
    }
}

/// What one look has found.
struct Look {
    has_any: bool,
    sockets: Vec<Found>,
}

/// Receives what is there, up to `room` bytes, and appends it to `input`; waits for it where the
/// socket does. 0 at the end of the stream.
pub(super) fn receive_some(
    socket: RawFd,
    input: &mut AlignedVec<ALIGN>,
    room: usize,
) -> io::Result<usize> {
    input.reserve(room);
    let len = input.len();
    loop {
        // SAFETY: `room` bytes behind those in use were reserved.
        let free = unsafe { input.as_mut_ptr().add(len) };
        // SAFETY: as many bytes are ours to write, as long as the call.
        let received = unsafe { libc::recv(socket, free.cast(), room, 0) };
        if let Ok(received) = usize::try_from(received) {
            // SAFETY: the system has written so many bytes behind those in use.
            unsafe { input.set_len(len + received) };
            return Ok(received);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_that_spins_is_over_when_one_that_sleeps_is() {
        let (wakeup, limit) = (Wakeup::new().expect("a descriptor"), Duration::from_millis(20));
        let is_in_time = |spin| {
            let start = Instant::now();
            let found = wakeup.wait(|| [None].into_iter(), Some(limit), Some(spin));
            assert_eq!(found.expect("it waits").len(), 1);
            start.elapsed() < 2 * limit
        };
        for spin in [limit / 2, limit, Duration::MAX] {
            // A busy machine may be late; not always.
            assert!((0..200).any(|_| is_in_time(spin)), "{spin:?}");
        }
    }
}
