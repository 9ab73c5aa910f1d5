//! Memory to receive into: buffers of one size, shared by all connections.
//!
//! # Ownership
//! A buffer belongs to the engine from [`Buffers::give`] until a completion names it, and to the
//! shard from then until it is given again. `lent` knows which; reading a buffer of the engine
//! panics. Where the engine is a ring, the kernel takes from a ring of buffers; otherwise the
//! engine takes the next free one from a list, for the time of a call.

#![expect(unsafe_code, reason = "memory that the kernel writes to")]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::engine::Engine;
use super::error::NetError;

/// The buffers of one shard.
pub(super) struct Buffers {
    bytes: Mapping,
    buffer_bytes: usize,
    /// Whether the buffer belongs to the engine.
    lent: Vec<bool>,
    free: Free,
}

/// The buffers that can be received into.
enum Free {
    /// Shared with the kernel.
    Ring(Offered),
    /// The one given last is the first to be taken: it is still in the cache.
    List(Vec<u16>),
}

/// Buffers on offer to the kernel.
struct Offered {
    entries: Mapping,
    len: u16,
    /// Where the next buffer is given, wrapping; the kernel sees it at `publish`.
    tail: u16,
    published: u16,
}

/// The only group of buffers of a ring.
pub(super) const GROUP: u16 = 0;

impl Buffers {
    /// Gives `len` buffers (a power of two) of `buffer_bytes` each to the engine.
    ///
    /// # Safety
    /// The engine must be dropped before the buffers are.
    pub(super) unsafe fn new(
        engine: &mut Engine,
        len: u16,
        buffer_bytes: usize,
    ) -> Result<Self, NetError> {
        assert!(len.is_power_of_two() && len <= 1 << 15, "the kernel wants a power of two");
        let bytes = Mapping::new(usize::from(len) * buffer_bytes)?;
        let free = match engine {
            Engine::Uring(ring) => {
                let entries = Mapping::new(usize::from(len) * size_of::<BufRingEntry>())?;
                // SAFETY: the mapping is page-aligned, zeroed and has room for `len` entries; it
                // and the buffers outlive the ring, as the caller promises.
                unsafe { ring.register_buffers(entries.start as u64, len, GROUP) }
                    .map_err(NetError::Buffers)?;
                Free::Ring(Offered { entries, len, tail: 0, published: 0 })
            }
            Engine::Epoll(_) => Free::List(Vec::with_capacity(usize::from(len))),
        };
        let lent = vec![false; usize::from(len)];
        let mut buffers = Self { bytes, buffer_bytes, lent, free };
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
        let offered = match &mut self.free {
            Free::Ring(offered) => offered,
            Free::List(ids) => return ids.push(id),
        };
        let at = usize::from(offered.tail & (offered.len - 1));
        // SAFETY: `at` is an entry of the mapping, and the kernel does not read entries between the
        // published tail and the head, of which this is one: at most `len` buffers are given.
        // The tail of the ring lies in the last field of the first entry, which is not touched.
        unsafe {
            let entry = &mut *offered.entries.start.cast::<BufRingEntry>().add(at);
            entry.set_addr(self.bytes.start.add(usize::from(id) * self.buffer_bytes) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
        }
        offered.tail = offered.tail.wrapping_add(1);
    }

    /// Lets the kernel see the buffers given.
    #[inline]
    pub(super) fn publish(&mut self) {
        let Free::Ring(offered) = &mut self.free else { return };
        if offered.published == offered.tail {
            return;
        }
        offered.published = offered.tail;
        // SAFETY: the mapping begins with an entry, in which the kernel keeps the tail; it is a
        // 16-bit word that both sides access atomically.
        unsafe {
            let tail = BufRingEntry::tail(offered.entries.start.cast::<BufRingEntry>());
            (*tail.cast::<AtomicU16>()).store(offered.tail, Ordering::Release);
        }
    }

    /// A free buffer for an engine that has no ring. It is the engine's until a completion names
    /// it, or it is [put back](Self::put_back).
    pub(super) fn borrow(&mut self) -> Option<u16> {
        match &mut self.free {
            Free::Ring(_) => None,
            Free::List(ids) => ids.pop(),
        }
    }

    /// Puts a buffer back that was borrowed for nothing.
    pub(super) fn put_back(&mut self, id: u16) {
        debug_assert!(self.lent[usize::from(id)], "it was borrowed");
        if let Free::List(ids) = &mut self.free {
            ids.push(id);
        }
    }

    /// The room of a buffer that was borrowed.
    pub(super) fn room(&mut self, id: u16) -> &mut [u8] {
        let is_list = matches!(self.free, Free::List(_));
        assert!(is_list && self.lent[usize::from(id)], "not the engine's to write");
        // SAFETY: the buffer lies within the mapping, which is initialized (zeroed); the kernel was
        // not told of it, and nobody else reads or writes it while `self` is borrowed.
        unsafe {
            let start = self.bytes.start.add(usize::from(id) * self.buffer_bytes);
            std::slice::from_raw_parts_mut(start, self.buffer_bytes)
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
