//! Connections whose sessions are over, and whose peers have not confirmed all that was sent.
//!
//! When bytes arrive on a connection that was closed, or lie there unread as it is, the kernel
//! resets it and forgets what it was still to deliver. A peer that goes on asking while the node
//! says goodbye would so lose answers to what was done. So such a connection stays open, unread,
//! until its peer has everything.

#![expect(unsafe_code, reason = "a system call that counts bytes")]

use std::collections::VecDeque;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// The connections of one port that linger.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    waiting: VecDeque<Waiting>,
    /// When they were looked at last.
    looked_ns: u64,
}

#[derive(Debug)]
struct Waiting {
    stream: TcpStream,
    /// Bytes that the peer has not confirmed, and since when.
    left: usize,
    since_ns: u64,
}

/// Between two looks.
const LOOK_NS: u64 = 5_000_000;

/// A peer that confirms nothing for so long is given up.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Beyond these the oldest is given up: each has a descriptor.
const LINGERING_MAX: usize = 1024;

impl Lingering {
    /// Closes a connection on which nothing is sent any more, as soon as its peer has everything.
    pub(super) fn close(&mut self, stream: TcpStream, now_ns: u64) {
        if let Some(left) = unconfirmed_bytes(&stream) {
            if self.waiting.len() >= LINGERING_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(Waiting { stream, left, since_ns: now_ns });
        }
    }

    /// Closes the connections whose peers have everything, or are not waited for any more. Where
    /// time stands still, it looks at them each time.
    #[inline]
    pub(super) fn look(&mut self, now_ns: u64) {
        let is_time = now_ns == self.looked_ns || now_ns >= self.looked_ns + LOOK_NS;
        if !self.waiting.is_empty() && is_time {
            self.look_at_all(now_ns);
        }
    }

    #[cold]
    fn look_at_all(&mut self, now_ns: u64) {
        self.looked_ns = now_ns;
        self.waiting.retain_mut(|waiting| {
            let Some(left) = unconfirmed_bytes(&waiting.stream) else { return false };
            if left < waiting.left {
                (waiting.left, waiting.since_ns) = (left, now_ns);
            }
            now_ns.saturating_sub(waiting.since_ns) < PATIENCE_NS
        });
    }

    /// When to look next.
    pub(super) fn next_ns(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.looked_ns + LOOK_NS)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Bytes, and the end, that the peer has not confirmed; `None` if it has everything or is gone.
fn unconfirmed_bytes(stream: &TcpStream) -> Option<usize> {
    let mut left: libc::c_int = 0;
    // SAFETY: writes one number, which lives through the call.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    let is_there = result == 0 && matches!(stream.take_error(), Ok(None));
    usize::try_from(left).ok().filter(|left| is_there && *left > 0)
}
