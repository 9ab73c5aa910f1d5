//! The submission and completion queues of one shard.
//!
//! The kernel does its part of the work only inside `enter` (`DEFER_TASKRUN`), and sets a flag in
//! shared memory when there is some (`TASKRUN_FLAG`). So a spinning loop looks at memory, and makes
//! a system call only to submit or to collect.

#![expect(unsafe_code, reason = "operations of the kernel on memory of this process")]

use std::io;
use std::os::fd::RawFd;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};

use super::engine::{BATCH, Completion};
use super::error::NetError;
use super::zero_copy::{Sends, ZeroCopy};

/// Operations that can be queued before the kernel is entered.
const SUBMISSIONS: u32 = 1024;
/// Completions that can wait. The kernel keeps more, at the price of an allocation each.
const COMPLETIONS: u32 = 16 * 1024;

/// The queues.
pub(super) struct Ring {
    ring: IoUring,
    enters: u64,
    pub(super) sends: Sends,
}

impl Ring {
    /// A ring of the calling thread; only that thread may use it.
    pub(super) fn new() -> Result<Self, NetError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(NetError::Ring)?;
        Ok(Self { ring, enters: 0, sends: Sends::default() })
    }

    /// How often the kernel was entered.
    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    /// Accepts connections until told otherwise.
    #[must_use = "the queue may be full"]
    pub(super) fn accept(&mut self, listener: RawFd, token: u64) -> bool {
        let entry = opcode::AcceptMulti::new(types::Fd(listener)).flags(libc::SOCK_CLOEXEC);
        // SAFETY: a multishot accept names no memory of this process.
        unsafe { self.push(entry.build().user_data(token)) }
    }

    /// Reports once that a connection waits at the listener.
    #[must_use = "the queue may be full"]
    pub(super) fn poll_listener(&mut self, listener: RawFd, token: u64) -> bool {
        let entry = opcode::PollAdd::new(types::Fd(listener), libc::POLLIN as u32);
        // SAFETY: a poll names no memory of this process.
        unsafe { self.push(entry.build().user_data(token)) }
    }

    /// Receives into the buffers of `group` until told otherwise.
    #[must_use = "the queue may be full"]
    pub(super) fn receive(&mut self, socket: RawFd, group: u16, token: u64) -> bool {
        let entry = opcode::RecvMulti::new(types::Fd(socket), group);
        // SAFETY: the memory is that of the registered group, for which its registrar vouches.
        unsafe { self.push(entry.build().user_data(token)) }
    }

    /// Receives once, into a buffer of `group`.
    #[must_use = "the queue may be full"]
    pub(super) fn receive_once(&mut self, socket: RawFd, group: u16, token: u64) -> bool {
        // A length of 0 stands for that of the buffer.
        let entry = opcode::Recv::new(types::Fd(socket), std::ptr::null_mut(), 0).buf_group(group);
        let entry = entry.build().flags(squeue::Flags::BUFFER_SELECT);
        // SAFETY: the memory is that of the registered group, for which its registrar vouches.
        unsafe { self.push(entry.user_data(token)) }
    }

    /// Receives `len` bytes into the memory at `start`, or fewer if the stream ends or fails.
    ///
    /// # Safety
    /// The memory must stay in place, and be touched by nobody else, until the completion of this
    /// operation is taken, or the ring is dropped.
    #[must_use = "the queue may be full"]
    pub(super) unsafe fn receive_into(
        &mut self,
        socket: RawFd,
        start: *mut u8,
        len: usize,
        token: u64,
    ) -> bool {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(types::Fd(socket), start, len).flags(libc::MSG_WAITALL);
        // SAFETY: the caller keeps the memory until the completion.
        unsafe { self.push(entry.build().user_data(token)) }
    }

    /// Sends as much of `bytes` as the socket takes, once it takes any.
    ///
    /// # Safety
    /// `bytes` must stay in place and unchanged until the completion of this operation is taken, or
    /// the ring is dropped.
    #[must_use = "the queue may be full"]
    pub(super) unsafe fn send(&mut self, socket: RawFd, bytes: &[u8], token: u64) -> bool {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fd(socket), bytes.as_ptr(), len);
        self.sends.stats.plain += 1;
        // SAFETY: the caller keeps the bytes until the completion.
        unsafe { self.push(entry.flags(libc::MSG_NOSIGNAL).build().user_data(token)) }
    }

    /// Has outputs sent without a copy as `config` says, if the kernel can.
    pub(super) fn configure_sends(&mut self, config: ZeroCopy) {
        if config == ZeroCopy::Never {
            return;
        }
        self.sends.configure(config);
        let mut probe = Probe::new();
        let refusal = match self.ring.submitter().register_probe(&mut probe) {
            Ok(()) if probe.is_supported(opcode::SendZc::CODE) => return,
            Ok(()) => libc::EOPNOTSUPP,
            Err(error) => error.raw_os_error().unwrap_or(libc::EOPNOTSUPP),
        };
        self.sends.refuse(refusal);
    }

    /// Makes room for this many numbers of registered memory. Returns whether the kernel does it.
    pub(super) fn reserve_blocks(&mut self, count: u16) -> bool {
        self.ring.submitter().register_buffers_sparse(u32::from(count)).is_ok()
    }

    /// Registers memory under this number, instead of what was. Returns whether the kernel does it.
    ///
    /// # Safety
    /// Nothing is to be sent under this number once the memory has another use.
    pub(super) unsafe fn register_block(&mut self, number: u16, memory: &mut Vec<u8>) -> bool {
        let start = memory.as_mut_ptr().cast();
        let block = libc::iovec { iov_base: start, iov_len: memory.capacity() };
        // SAFETY: the memory is there, and the kernel holds its pages; the caller sees to the rest.
        let outcome = unsafe {
            self.ring.submitter().register_buffers_update(u32::from(number), &[block], None)
        };
        outcome.is_ok()
    }

    /// Sends as much of `bytes` as the socket takes, once it takes any, without copying it. If the
    /// completion says that there is more, a second one is the notice that the bytes are read no
    /// more.
    ///
    /// # Safety
    /// `bytes` must stay in place until the completion of this operation, and, if it says so, its
    /// notice is taken, or the ring is dropped. What the peer gets is what they hold meanwhile.
    /// They lie in the memory that is registered under the number, if one is given.
    #[must_use = "the queue may be full"]
    pub(super) unsafe fn send_zero_copy(
        &mut self,
        socket: RawFd,
        bytes: &[u8],
        registered: Option<u16>,
        token: u64,
    ) -> bool {
        /// `IORING_SEND_ZC_REPORT_USAGE`: the notice says whether the kernel has copied.
        const REPORT_USAGE: u16 = 1 << 3;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::SendZc::new(types::Fd(socket), bytes.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .zc_flags(REPORT_USAGE)
            .buf_index(registered);
        self.sends.stats.zero_copy += 1;
        self.sends.stats.registered += u64::from(registered.is_some());
        // SAFETY: the caller keeps the bytes until the notice.
        unsafe { self.push(entry.build().user_data(token)) }
    }

    /// Ends the operations with the token `target`.
    #[must_use = "the queue may be full"]
    pub(super) fn cancel(&mut self, target: u64, token: u64) -> bool {
        let entry = opcode::AsyncCancel::new(target);
        // SAFETY: a cancellation names no memory of this process.
        unsafe { self.push(entry.build().user_data(token)) }
    }

    /// Queues an operation, entering the kernel for room if there is none.
    ///
    /// # Safety
    /// What `entry` points to must stay valid until the operation is complete.
    unsafe fn push(&mut self, entry: squeue::Entry) -> bool {
        // SAFETY: as the caller promises.
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return true;
        }
        // SAFETY: as the caller promises.
        self.enter().is_ok() && unsafe { self.ring.submission().push(&entry) }.is_ok()
    }

    /// Whether there is anything that only a system call can move on.
    pub(super) fn wants_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the kernel has completions that it delivers on the next enter.
    pub(super) fn wants_collect(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether there is a completion to be taken.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Submits what is queued and collects what is done. Never waits.
    ///
    /// # Errors
    /// What the kernel said, unless it will be better at the next attempt.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        self.enters += 1;
        let len = self.ring.submission().len() as u32;
        let flags = io_uring::EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed, and the entries are valid as `push` demands.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(len, 0, flags, None) } {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // A signal, or no memory or room in the completion queue for now: what is queued
                // stays queued, and the next pass enters again.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Adds up to [`BATCH`] completions to `batch`, in order.
    #[inline]
    pub(super) fn take(&mut self, batch: &mut Vec<Completion>) {
        batch.extend(self.ring.completion().take(BATCH).map(Completion::from));
    }

    /// Signals `eventfd` for each completion while wake-ups are on.
    pub(super) fn register_eventfd(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.ring.submitter().register_eventfd(eventfd)?;
        self.set_wakeups(false);
        Ok(())
    }

    /// Switches the signals to the eventfd on or off.
    pub(super) fn set_wakeups(&mut self, on: bool) {
        let queue = self.ring.completion();
        if on {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
    }

    /// Hands memory to the kernel to receive into.
    ///
    /// # Safety
    /// `entries` must be the page-aligned address of a buffer ring of `len` entries, and it and the
    /// buffers it names must stay valid until the ring is dropped.
    pub(super) unsafe fn register_buffers(
        &mut self,
        entries: u64,
        len: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(entries, len, group, 0) }
    }
}

impl Drop for Ring {
    /// Closes connections that nobody has taken.
    fn drop(&mut self) {
        self.ring.completion().map(Completion::from).for_each(Completion::discard);
    }
}

impl From<cqueue::Entry> for Completion {
    #[inline]
    fn from(entry: cqueue::Entry) -> Self {
        Self {
            token: entry.user_data(),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
            is_notice: cqueue::notif(entry.flags()),
        }
    }
}
