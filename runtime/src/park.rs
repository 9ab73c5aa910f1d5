//! Sleeping inside a glommio executor until an eventfd is written.
//!
//! glommio has no way to wait for a descriptor of somebody else's, but it waits for a socket to
//! become readable with a poll on the descriptor before it reads. An eventfd that is passed off as
//! a socket is polled just the same; the read that follows fails, because it is none, and the
//! failure is the wake-up. Only the first read of a stream begins with a poll, so each sleep has a
//! stream of its own: a `dup` and a `close`, small beside the tens of microseconds of a wake-up.
//! The eventfd itself is read by the driver.
#![expect(unsafe_code, reason = "a descriptor is duplicated with a system call")]

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_lite::AsyncRead;
use glommio::net::TcpStream;
use glommio::timer::Timer;

/// Sleeps until `eventfd` is written, or was before, or until `limit` has passed.
///
/// # Errors
/// When the process has no descriptor left to sleep with.
pub(crate) async fn sleep(eventfd: RawFd, limit: Option<Duration>) -> io::Result<()> {
    // SAFETY: makes a new descriptor for the same eventfd; touches no memory.
    let copy = unsafe { libc::fcntl(eventfd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the copy is new, open and ours alone; the stream closes it.
    let mut stream = unsafe { TcpStream::from_raw_fd(copy) };
    let mut byte = [0u8; 1];
    let mut timer = pin!(limit.map(Timer::new));
    poll_fn(|cx| {
        // Readable or failed: either way it was written.
        if Pin::new(&mut stream).poll_read(cx, &mut byte).is_ready() {
            return Poll::Ready(());
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|_| ()),
            None => Poll::Pending,
        }
    })
    .await;
    Ok(())
}
