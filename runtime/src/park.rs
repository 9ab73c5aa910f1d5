//! Sleeping until a shard is wanted.
//!
//! # On a thread
//! `ppoll` waits for the two descriptors that may bring work. It takes nanoseconds, which
//! `epoll_wait` does not, and needs nothing to be set up or kept.
//!
//! # In an executor
//! glommio has no way to wait for a descriptor of somebody else's, but it waits for a socket to
//! become readable with a poll on the descriptor before it reads. An eventfd that is passed off as
//! a socket is polled just the same; the read that follows fails, because it is none, and the
//! failure is the wake-up. Only the first read of a stream begins with a poll, so each sleep has a
//! stream of its own: a `dup` and a `close`, small beside the tens of microseconds of a wake-up.
//! The eventfd itself is read by the driver.
#![expect(unsafe_code, reason = "descriptors are duplicated and waited for with system calls")]

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::pin::{Pin, pin};
use std::ptr;
use std::task::Poll;
use std::time::Duration;

use futures_lite::AsyncRead;
use glommio::net::TcpStream;
use glommio::timer::Timer;

/// What wakes a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wakers {
    /// Is written when the shard is wanted.
    pub(crate) eventfd: RawFd,
    /// Is readable when something has arrived for the net, if that does not write the eventfd.
    pub(crate) net: Option<RawFd>,
}

/// Blocks the thread until one of the wakers is readable, or was before, or until `limit` has
/// passed, or a signal comes.
///
/// # Errors
/// When the kernel has no memory to wait with.
pub(crate) fn block(wakers: Wakers, limit: Option<Duration>) -> io::Result<()> {
    // A negative descriptor is passed over.
    let mut polls = [wakers.eventfd, wakers.net.unwrap_or(-1)].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let timeout = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the entries and the limit live through the call; the signal mask is left as it is.
    let outcome =
        unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as _, timeout, ptr::null()) };
    match outcome {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}

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
