//! One thread's completion ring, its sockets, and the memory they share with the kernel.
//!
//! Receiving is one multishot request per socket into a common ring of buffers; sending is one
//! request per socket at a time out of that socket's own outbox. Either costs no system call of its
//! own: whatever was pushed goes in with the next [`Ring::submit`] or [`Ring::wait`].
//!
//! # Invariants
//! - *Shared*: memory the kernel may touch is allocated once and never freed or moved. The process
//!   lives for one run, so this is no leak that could grow.
//! - *Outbox*: an outbox in flight is not handed out, so what the kernel reads does not change.
//! - *Inbox*: a [`Received`] names a buffer that the kernel has given up; it cannot be copied, and
//!   giving it back consumes it.

#![expect(unsafe_code, reason = "memory shared with the kernel through io_uring")]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Completions handled between two looks at the clock; see `driver.rs` for what this means.
const BATCH_MAX: usize = 16;
const SUBMISSIONS_MAX: u32 = 256;
/// Large enough for a deep pipeline's replies in one piece, small enough to stay in the cache.
const INBOX_BYTES: usize = 16 * 1024;
const PAGE_BYTES: usize = 4096;
/// The only buffer group of the ring.
const GROUP: u16 = 0;

const RECEIVE: u64 = 0;
const SEND: u64 = 1 << 32;

/// A ring over a fixed set of connected sockets.
pub(crate) struct Ring {
    uring: IoUring,
    inboxes: Inboxes,
    outboxes: Vec<Outbox>,
    /// The completions under consideration, copied out so that new work may be pushed meanwhile.
    batch: Vec<cqueue::Entry>,
    _sockets: Vec<TcpStream>,
}

/// What a completion says.
pub(crate) enum Completion {
    /// Bytes have come.
    Received(Received),
    /// The outbox of this session is free again.
    Sent(usize),
    /// Nothing the caller has to act on.
    Settled,
    /// The peer has closed the connection of this session.
    Closed(usize),
    /// The kernel reports an error on the connection of this session.
    Failed(usize, io::Error),
}

/// Bytes in a buffer that belongs to us until it is given back.
pub(crate) struct Received {
    pub(crate) session: usize,
    buffer: u16,
    bytes: usize,
}

impl Ring {
    /// A ring over `sockets`, all of them receiving, with `outbox_bytes` to send from for each.
    ///
    /// # Errors
    /// When the kernel refuses the ring or its memory.
    pub(crate) fn new(sockets: Vec<TcpStream>, outbox_bytes: usize) -> io::Result<Self> {
        let completions = (sockets.len() * 4).next_power_of_two().clamp(4_096, 65_536);
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_clamp()
            .setup_cqsize(completions as u32)
            .build(SUBMISSIONS_MAX)?;
        let fds: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        uring.submitter().register_files(&fds)?;
        let inboxes = Inboxes::new(&uring, sockets.len())?;
        let outboxes = sockets.iter().map(|_| Outbox::new(outbox_bytes)).collect();
        let batch = Vec::with_capacity(BATCH_MAX);
        let mut ring = Self { uring, inboxes, outboxes, batch, _sockets: sockets };
        for session in 0..fds.len() {
            ring.receive(session)?;
        }
        Ok(ring)
    }

    /// The session's outbox, unless it is in flight.
    pub(crate) fn outbox(&mut self, session: usize) -> Option<&mut Outbox> {
        let outbox = &mut self.outboxes[session];
        if outbox.in_flight { None } else { Some(outbox) }
    }

    /// Sends what the session's outbox holds, if it holds anything and is not in flight already.
    pub(crate) fn send(&mut self, session: usize) -> io::Result<()> {
        let outbox = &mut self.outboxes[session];
        if outbox.in_flight || outbox.filled == 0 {
            return Ok(());
        }
        outbox.in_flight = true;
        let rest = &outbox.bytes[outbox.sent..outbox.filled];
        let entry = opcode::Send::new(Fixed(session as u32), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(SEND | session as u64);
        self.push(&entry)
    }

    /// Hands pushed requests to the kernel; does nothing when there are none.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        if self.uring.submission().is_empty() {
            return Ok(());
        }
        passed(self.uring.submit())
    }

    /// Hands pushed requests to the kernel and lets it complete what it can, without blocking; does
    /// not enter the kernel when it has nothing to do there.
    pub(crate) fn poll(&mut self) -> io::Result<()> {
        let submission = self.uring.submission();
        let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if idle { Ok(()) } else { passed(self.uring.submit()) }
    }

    /// Like [`Self::poll`], and sleeps until a completion has come or `limit` has passed.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<()> {
        let limit = Timespec::from(limit);
        let args = SubmitArgs::new().timespec(&limit);
        passed(self.uring.submitter().submit_with_args(1, &args))
    }

    /// Takes a batch of completions for [`Self::completion`] and returns its length.
    pub(crate) fn take_batch(&mut self) -> usize {
        self.batch.clear();
        self.batch.extend(self.uring.completion().take(BATCH_MAX));
        self.batch.len()
    }

    /// The `index`th completion of the batch. Each is to be asked for once.
    pub(crate) fn completion(&mut self, index: usize) -> io::Result<Completion> {
        let (user_data, result, flags) = {
            let entry = &self.batch[index];
            (entry.user_data(), entry.result(), entry.flags())
        };
        let session = (user_data & u64::from(u32::MAX)) as usize;
        if user_data & SEND != 0 {
            self.sent(session, result)
        } else {
            self.came(session, result, flags)
        }
    }

    pub(crate) fn bytes(&self, received: &Received) -> &[u8] {
        self.inboxes.bytes(received)
    }

    pub(crate) fn give_back(&mut self, received: Received) {
        self.inboxes.give(received.buffer);
    }

    fn came(&mut self, session: usize, result: i32, flags: u32) -> io::Result<Completion> {
        // A multishot request ends when buffers ran out, or for the kernel's own reasons; it is
        // pushed again at once, so a connection can never be left without one.
        let ended = !cqueue::more(flags);
        match (result, cqueue::buffer_select(flags)) {
            (1.., Some(buffer)) => {
                if ended {
                    self.receive(session)?;
                }
                let bytes = (result as usize).min(INBOX_BYTES);
                Ok(Completion::Received(Received { session, buffer, bytes }))
            }
            (code, _) if code == -libc::ENOBUFS => {
                self.receive(session)?;
                Ok(Completion::Settled)
            }
            (0, _) => Ok(Completion::Closed(session)),
            (code, _) if code == -libc::ECONNRESET => Ok(Completion::Closed(session)),
            (code, _) => Ok(Completion::Failed(session, io::Error::from_raw_os_error(-code))),
        }
    }

    fn sent(&mut self, session: usize, result: i32) -> io::Result<Completion> {
        let outbox = &mut self.outboxes[session];
        outbox.in_flight = false;
        match result {
            0.. => {
                outbox.sent += result as usize;
                if outbox.sent < outbox.filled {
                    self.send(session)?;
                    return Ok(Completion::Settled);
                }
                outbox.filled = 0;
                outbox.sent = 0;
                Ok(Completion::Sent(session))
            }
            code if code == -libc::EPIPE || code == -libc::ECONNRESET => {
                Ok(Completion::Closed(session))
            }
            code => Ok(Completion::Failed(session, io::Error::from_raw_os_error(-code))),
        }
    }

    fn receive(&mut self, session: usize) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fixed(session as u32), GROUP).build();
        self.push(&entry.user_data(RECEIVE | session as u64))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.uring.submission().is_full() {
            passed(self.uring.submit())?;
        }
        let mut submission = self.uring.submission();
        // SAFETY: the entry's memory, if any, is an outbox: it lives for ever (*Shared*) and stays
        // unchanged until the send completes (*Outbox*).
        let pushed = unsafe { submission.push(entry) };
        pushed.map_err(|_| io::Error::other("the kernel has left the submission ring full"))
    }
}

/// Interruptions and elapsed waits are no failures; the caller looks at its completions either way.
fn passed(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Encoded requests of one session on their way to the socket.
pub(crate) struct Outbox {
    bytes: &'static mut [u8],
    /// Bytes that hold requests.
    filled: usize,
    /// Bytes of those that the socket has taken.
    sent: usize,
    in_flight: bool,
}

impl Outbox {
    fn new(bytes: usize) -> Self {
        let start = shared_memory(bytes);
        // SAFETY: `shared_memory` has just allocated this many zeroed bytes for good, and nothing
        // else refers to them.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, bytes) };
        Self { bytes, filled: 0, sent: 0, in_flight: false }
    }

    /// Bytes still free.
    pub(crate) fn room_bytes(&self) -> usize {
        self.bytes.len() - self.filled
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Appends one request: `encode` is given the memory and the place to write at, and returns the
    /// place behind the request.
    pub(crate) fn append(&mut self, encode: impl FnOnce(&mut [u8], usize) -> usize) -> usize {
        let start = self.filled;
        self.filled = encode(self.bytes, start);
        self.filled - start
    }
}

/// The buffers that the kernel receives into.
struct Inboxes {
    entries: *mut BufRingEntry,
    buffers: *mut u8,
    count: u16,
    /// Entries given since the beginning; the kernel takes them in this order.
    tail: u16,
}

impl Inboxes {
    fn new(uring: &IoUring, sockets: usize) -> io::Result<Self> {
        // Few, so that they stay in the cache; running out only costs a request that is pushed
        // again.
        let count = sockets.next_power_of_two().clamp(32, 256) as u16;
        let entries = shared_memory(usize::from(count) * size_of::<BufRingEntry>());
        let buffers = shared_memory(usize::from(count) * INBOX_BYTES);
        // SAFETY: the array has `count` entries, a power of two, is aligned to a page and is never
        // freed (*Shared*).
        let registered = unsafe {
            uring.submitter().register_buf_ring_with_flags(entries as u64, count, GROUP, 0)
        };
        registered?;
        let mut inboxes = Self { entries: entries.cast(), buffers, count, tail: 0 };
        for buffer in 0..count {
            inboxes.give(buffer);
        }
        Ok(inboxes)
    }

    fn start(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.count, "a buffer the kernel was never given");
        // SAFETY: just asserted, so the offset stays inside the allocation of `count` buffers.
        unsafe { self.buffers.add(usize::from(buffer) * INBOX_BYTES) }
    }

    fn bytes(&self, received: &Received) -> &[u8] {
        let start = self.start(received.buffer);
        // SAFETY: the kernel wrote this many bytes, at most `INBOX_BYTES`, and has given the buffer
        // up until `received` is given back, which the borrow excludes (*Inbox*).
        unsafe { std::slice::from_raw_parts(start, received.bytes) }
    }

    /// Puts a buffer at the kernel's disposal.
    fn give(&mut self, buffer: u16) {
        let start = self.start(buffer);
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` is below `count`, the number of entries in this allocation.
        let entry = unsafe { self.entries.add(place) };
        // SAFETY: at most `count` buffers exist, so the kernel has consumed this place's former
        // entry and does not read it before the tail moves past it.
        let entry = unsafe { &mut *entry };
        entry.set_addr(start as u64);
        entry.set_len(INBOX_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the start of the ring's array.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: the tail lies in the array, aligned, and is written by this thread alone; the
        // kernel reads it concurrently, hence the atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed memory, aligned to pages, that is never freed.
fn shared_memory(bytes: usize) -> *mut u8 {
    let layout = Layout::from_size_align(bytes.max(1), PAGE_BYTES).expect("a size in range");
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn bytes_go_out_and_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (mut peer, _) = listener.accept().expect("accepted");
        let mut ring = Ring::new(vec![socket], 4_096).expect("a ring");
        let outbox = ring.outbox(0).expect("free");
        outbox.append(|bytes, at| {
            bytes[at..at + 4].copy_from_slice(b"ping");
            at + 4
        });
        ring.send(0).expect("pushed");
        assert!(ring.outbox(0).is_none(), "an outbox in flight may not be written");
        ring.submit().expect("submitted");
        let mut asked = [0; 4];
        peer.read_exact(&mut asked).expect("received");
        assert_eq!(&asked, b"ping");
        peer.write_all(b"pong").expect("sent");
        drop(peer);

        let mut came = Vec::new();
        let mut closed = false;
        while !closed {
            ring.wait(Duration::from_secs(5)).expect("waited");
            for index in 0..ring.take_batch() {
                match ring.completion(index).expect("a completion") {
                    Completion::Received(received) => {
                        came.extend_from_slice(ring.bytes(&received));
                        ring.give_back(received);
                    }
                    Completion::Closed(session) => closed = session == 0,
                    Completion::Sent(_) | Completion::Settled => {}
                    Completion::Failed(_, error) => panic!("{error}"),
                }
            }
        }
        assert_eq!(came, b"pong");
        assert!(ring.outbox(0).is_some(), "a completed send frees its outbox");
    }
}
