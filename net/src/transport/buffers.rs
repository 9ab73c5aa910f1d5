//! Memory that the kernel receives into: a ring of buffers of one size, shared by all connections.
//!
//! # Ownership
//! A buffer belongs to the kernel from [`Buffers::give`] until a completion names it, and to the
//! shard from then until it is given again. `lent` knows which; reading a buffer of the kernel
//! panics.

#![expect(unsafe_code, reason = "memory that the kernel writes to")]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::error::NetError;
use super::ring::Ring;

/// The buffers of one shard.
pub(super) struct Buffers {
    entries: Mapping,
    bytes: Mapping,
    len: u16,
    buffer_bytes: usize,
    /// Where the next buffer is given, wrapping; the kernel sees it at `publish`.
    tail: u16,
    published: u16,
    /// Whether the buffer belongs to the kernel.
    lent: Vec<bool>,
}

/// The only group of buffers of a ring.
pub(super) const GROUP: u16 = 0;

impl Buffers {
    /// Gives `len` buffers (a power of two) of `buffer_bytes` each to the kernel.
    ///
    /// # Safety
    /// The ring must be dropped before the buffers are.
    pub(super) unsafe fn new(
        ring: &mut Ring,
        len: u16,
        buffer_bytes: usize,
    ) -> Result<Self, NetError> {
        assert!(len.is_power_of_two() && len <= 1 << 15, "the kernel wants a power of two");
        let entries = Mapping::new(usize::from(len) * size_of::<BufRingEntry>())?;
        let bytes = Mapping::new(usize::from(len) * buffer_bytes)?;
        // SAFETY: the mapping is page-aligned, zeroed and has room for `len` entries; it and the
        // buffers outlive the ring, as the caller promises.
        unsafe { ring.register_buffers(entries.start as u64, len, GROUP) }
            .map_err(NetError::Buffers)?;
        let lent = vec![false; usize::from(len)];
        let mut buffers = Self { entries, bytes, len, buffer_bytes, tail: 0, published: 0, lent };
        for id in 0..len {
            buffers.give(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Takes over the buffer that a completion names.
    #[inline]
    pub(super) fn take(&mut self, id: u16) {
        assert!(std::mem::replace(&mut self.lent[usize::from(id)], false), "taken twice");
    }

    /// The first `len` bytes of a buffer that was taken.
    #[inline]
    pub(super) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(!self.lent[usize::from(id)] && len <= self.buffer_bytes, "not ours to read");
        // SAFETY: the buffer lies within the mapping, which is initialized (zeroed), and the kernel
        // does not write to it before it is given again, which needs `&mut self`.
        unsafe {
            let start = self.bytes.start.add(usize::from(id) * self.buffer_bytes);
            std::slice::from_raw_parts(start, len)
        }
    }

    /// Gives a buffer back. The kernel sees it after the next [`publish`](Self::publish).
    #[inline]
    pub(super) fn give(&mut self, id: u16) {
        assert!(!std::mem::replace(&mut self.lent[usize::from(id)], true), "given twice");
        let at = usize::from(self.tail & (self.len - 1));
        // SAFETY: `at` is an entry of the mapping, and the kernel does not read entries between the
        // published tail and the head, of which this is one: at most `len` buffers are given.
        // The tail of the ring lies in the last field of the first entry, which is not touched.
        unsafe {
            let entry = &mut *self.entries.start.cast::<BufRingEntry>().add(at);
            entry.set_addr(self.bytes.start.add(usize::from(id) * self.buffer_bytes) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see the buffers given.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        // SAFETY: the mapping begins with an entry, in which the kernel keeps the tail; it is a
        // 16-bit word that both sides access atomically.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.cast::<BufRingEntry>());
            (*tail.cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous pages.
struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> Result<Self, NetError> {
        // SAFETY: a new private mapping touches no memory in use.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(NetError::Buffers(io::Error::last_os_error()));
        }
        Ok(Self { start: start.cast(), len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever made the buffers saw to it that the kernel has
        // forgotten them.
        let result = unsafe { libc::munmap(self.start.cast(), self.len) };
        debug_assert_eq!(result, 0, "the mapping is whole");
    }
}
