//! Sleeping inside a glommio executor until an eventfd is written.
//!
//! glommio has no way to wait for a descriptor of somebody else's, but it waits for a socket to
//! become readable with a poll on the descriptor before it reads. An eventfd that is passed off as a
//! socket is polled just the same; the read that follows fails, because it is none, and the failure
//! is the wake-up. The eventfd itself is read by the driver.
#![expect(unsafe_code, reason = "a descriptor is duplicated with a system call")]

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_lite::AsyncRead;
use glommio::net::TcpStream;
use glommio::timer::Timer;

/// Waits for one eventfd.
pub(crate) struct Parking {
    eventfd: TcpStream,
}

impl Parking {
    pub(crate) fn new(eventfd: RawFd) -> io::Result<Self> {
        // SAFETY: makes a new descriptor for the same eventfd; touches no memory.
        let copy = unsafe { libc::fcntl(eventfd, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the copy is new, open and ours alone; the stream closes it.
        Ok(Self { eventfd: unsafe { TcpStream::from_raw_fd(copy) } })
    }

    /// Sleeps until the eventfd is written, or was before, or until `limit` has passed.
    pub(crate) async fn sleep(&mut self, limit: Option<Duration>) {
        let mut byte = [0u8; 1];
        let mut timer = pin!(limit.map(Timer::new));
        let eventfd = &mut self.eventfd;
        std::future::poll_fn(|cx| {
            // Readable or failed: either way it was written.
            if Pin::new(&mut *eventfd).poll_read(cx, &mut byte).is_ready() {
                return Poll::Ready(());
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx).map(|_| ()),
                None => Poll::Pending,
            }
        })
        .await;
    }
}
