//! Memory to receive into: buffers of one size, shared by all connections.
//!
//! # Ownership
//! A buffer belongs to the engine from [`Buffers::give`] until a completion names it, and to the
//! shard from then until it is given again. `lent` knows which; reading a buffer of the engine
//! panics. Where the engine is a ring, the kernel takes from a ring of buffers; otherwise the
//! engine takes the next free one from a list, for the time of a call.
//!
//! # Leases
//! Whoever looks at a message in its buffer has a [`Lease`]: a share of the buffer's [`Loan`], and
//! so of the memory, which therefore outlives the net if it must. A buffer that is done with while
//! it is on lease is [set aside](Buffers::done), and given when [`Buffers::reclaim`] finds that
//! nobody shares its loan any more. At most half of the buffers are set aside: the engine always
//! has the others. Beyond that bodies are copied.

#![expect(unsafe_code, reason = "memory that the kernel writes to")]

use std::cell::OnceCell;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use coreside_shard::{Body, Lease, Lender};
use io_uring::types::BufRingEntry;

use super::engine::{BATCH, Engine};
use super::error::NetError;

/// The buffers of one shard.
pub(super) struct Buffers {
    bytes: Arc<Mapping>,
    buffer_bytes: usize,
    /// Whether the buffer belongs to the engine.
    lent: Vec<bool>,
    free: Free,
    /// What leases of each buffer are shares of, since its first.
    loans: Box<[OnceCell<Arc<Loan>>]>,
    /// Buffers that are done with but for those who look into them.
    aside: Vec<u16>,
    aside_max: usize,
    /// Buffers ever set aside.
    pub(super) leases: u64,
}

/// A buffer may not be given while anybody else shares this.
struct Loan {
    /// Stays for as long as somebody looks into it.
    _memory: Arc<Mapping>,
}

/// Lends one buffer.
struct OneBuffer<'a> {
    loan: &'a OnceCell<Arc<Loan>>,
    memory: &'a Arc<Mapping>,
    may: bool,
}

impl Lender for OneBuffer<'_> {
    #[inline]
    fn lend(&self, _: usize) -> Option<Lease> {
        let loan = || Arc::new(Loan { _memory: Arc::clone(self.memory) });
        self.may.then(|| Lease::of(Arc::clone(self.loan.get_or_init(loan))))
    }
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
        let bytes = Arc::new(Mapping::new(usize::from(len) * buffer_bytes)?);
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
        let loans = (0..len).map(|_| OnceCell::new()).collect();
        // No more than a pass takes: each pass looks at all of them, which is a load for each.
        let aside_max = usize::from(len / 2).min(BATCH);
        let aside = Vec::with_capacity(aside_max);
        let mut buffers =
            Self { bytes, buffer_bytes, lent, free, loans, aside, aside_max, leases: 0 };
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

    /// Has `read` read the first `len` bytes of a buffer that was taken; it may leave leases.
    #[inline]
    pub(super) fn read(&self, id: u16, len: usize, read: impl FnOnce(Body<'_>)) {
        let may = self.aside.len() < self.aside_max;
        let lender = OneBuffer { loan: &self.loans[usize::from(id)], memory: &self.bytes, may };
        // SAFETY: whoever has a lease shares the loan, so the mapping stays, and `is_on_lease`
        // keeps the buffer from being given; nobody writes to one that is not the engine's.
        read(unsafe { Body::lent(self.bytes(id, len), &lender) });
    }

    /// A buffer was read. It is given back, unless it is on lease.
    #[inline]
    pub(super) fn done(&mut self, id: u16) {
        if self.is_on_lease(id) {
            self.leases += 1;
            self.aside.push(id);
        } else {
            self.give(id);
        }
    }

    /// Gives the buffers that are no longer on lease.
    ///
    /// # Cost
    /// A load for each that is.
    #[inline]
    pub(super) fn reclaim(&mut self) {
        let mut at = self.aside.len();
        while at > 0 {
            at -= 1;
            let id = self.aside[at];
            if !self.is_on_lease(id) {
                self.aside.swap_remove(at);
                self.give(id);
            }
        }
    }

    /// How many buffers are set aside.
    pub(super) fn leased(&self) -> usize {
        self.aside.len()
    }

    /// Whether somebody may still look into the buffer. If not, they are done with it before this
    /// returns.
    #[inline]
    fn is_on_lease(&mut self, id: u16) -> bool {
        let Some(loan) = self.loans[usize::from(id)].get_mut() else { return false };
        // The count alone orders nothing; `get_mut` does, behind the drops of the shares.
        Arc::strong_count(loan) > 1 || Arc::get_mut(loan).is_none()
    }

    /// Gives a buffer back. The kernel sees it after the next [`publish`](Self::publish).
    #[inline]
    pub(super) fn give(&mut self, id: u16) {
        debug_assert!(!self.is_on_lease(id), "somebody looks into it");
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

// SAFETY: it is memory and no more. Who may use which part of it, and when, is kept by `Buffers`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever made the buffers saw to it that the kernel has
        // forgotten them.
        let result = unsafe { libc::munmap(self.start.cast(), self.len) };
        debug_assert_eq!(result, 0, "the mapping is whole");
    }
}

#[cfg(test)]
mod tests {
    use coreside_shard::{Encode, View};

    use super::super::engine::DriverKind;
    use super::*;

    const BUFFER_BYTES: usize = 4096;

    /// Buffers of an engine that takes them as they come. It is dropped before them.
    struct Rig {
        engine: Engine,
        buffers: Buffers,
    }

    impl Rig {
        fn new(len: u16) -> Self {
            let mut engine = Engine::new(DriverKind::Epoll).expect("epoll");
            // SAFETY: the rig drops its engine first.
            let buffers = unsafe { Buffers::new(&mut engine, len, BUFFER_BYTES) };
            Self { engine, buffers: buffers.expect("memory") }
        }

        /// Receives an archive of so many bytes; what is looked at is returned.
        fn receive(&mut self, byte: u8, len: usize) -> Option<(u16, View<Vec<u8>>)> {
            let id = self.buffers.borrow()?;
            let mut archive = Vec::new();
            vec![byte; len].encode(&mut archive).expect("it fits");
            self.buffers.room(id)[..archive.len()].copy_from_slice(&archive);
            self.buffers.take(id);
            let mut view = None;
            self.buffers.read(id, archive.len(), |body| view = View::new(body).ok());
            self.buffers.done(id);
            Some((id, view.expect("it is an archive")))
        }

        fn free(&self) -> usize {
            match &self.buffers.free {
                Free::List(ids) => ids.len(),
                Free::Ring(_) => unreachable!("an epoll engine"),
            }
        }

        /// Whether the view is of the buffer, and not of a copy.
        fn is_of(&self, id: u16, view: &View<Vec<u8>>) -> bool {
            let start = self.buffers.bytes.start.addr() + usize::from(id) * BUFFER_BYTES;
            (start..start + BUFFER_BYTES).contains(&view.as_ptr().addr())
        }
    }

    #[test]
    fn a_buffer_returns_to_the_engine_when_its_last_view_is_gone() {
        let mut rig = Rig::new(8);
        let (id, view) = rig.receive(7, 1000).expect("a buffer");
        assert!(rig.is_of(id, &view));
        let other = view.clone();
        drop(view);
        rig.buffers.reclaim();
        assert_eq!((rig.free(), rig.buffers.leased()), (7, 1));
        let other = std::thread::spawn(move || assert!(other.iter().all(|byte| *byte == 7)));
        assert!(other.join().is_ok());
        rig.buffers.reclaim();
        assert_eq!((rig.free(), rig.buffers.leased(), rig.buffers.leases), (8, 0, 1));
        // And it is lent again.
        let (id, view) = rig.receive(8, 1000).expect("a buffer");
        assert!(rig.is_of(id, &view) && view.iter().all(|byte| *byte == 8));
    }

    #[test]
    fn leases_are_bounded_and_the_engine_keeps_half() {
        let mut rig = Rig::new(8);
        let mut views: Vec<_> = (0..8).map(|byte| (byte, rig.receive(byte, 1000))).collect();
        for (byte, received) in &views {
            let (id, view) = received.as_ref().expect("half of the buffers are never kept");
            assert_eq!(rig.is_of(*id, view), *byte < 4, "beyond half there are copies");
        }
        assert_eq!((rig.free(), rig.buffers.leased()), (4, 4));
        for (byte, received) in &views {
            let (_, view) = received.as_ref().expect("as above");
            assert!(view.iter().all(|at| at == byte), "nothing was written over");
        }
        views.truncate(1);
        rig.buffers.reclaim();
        assert_eq!((rig.free(), rig.buffers.leased()), (7, 1));
        let (id, view) = rig.receive(9, 1000).expect("a buffer");
        assert!(rig.is_of(id, &view));
    }

    #[test]
    fn a_view_outlives_the_buffers() {
        let mut rig = Rig::new(2);
        let (_, view) = rig.receive(7, 1000).expect("a buffer");
        let Rig { engine, buffers } = rig;
        drop(engine);
        drop(buffers);
        assert!(view.iter().all(|byte| *byte == 7));
    }

    /// Views come and go at random; each is what it was, and no buffer is lost.
    #[test]
    fn buffers_are_lent_and_given_back_whatever_happens() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(41);
        println!("SEED={seed}");
        let mut state: u64 = seed;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) as usize % below
        };
        let mut rig = Rig::new(16);
        let mut views: Vec<(u8, View<Vec<u8>>)> = Vec::new();
        for round in 0..5_000_u32 {
            match random(4) {
                0 | 1 => {
                    let (byte, len) = (round as u8, 1 + random(BUFFER_BYTES - 64));
                    let (_, view) = rig.receive(byte, len).expect("half are never kept");
                    if random(2) == 0 {
                        views.push((byte, view.clone()));
                    }
                    views.push((byte, view));
                }
                2 if !views.is_empty() => {
                    let (byte, view) = views.swap_remove(random(views.len()));
                    assert!(view.iter().all(|at| *at == byte));
                }
                _ => rig.buffers.reclaim(),
            }
            assert_eq!(rig.free() + rig.buffers.leased(), 16);
            assert!(rig.buffers.leased() <= 8);
            if views.len() > 40 {
                views.drain(..20);
            }
        }
        views.clear();
        rig.buffers.reclaim();
        assert_eq!((rig.free(), rig.buffers.leased()), (16, 0));
        assert!(rig.buffers.leases > 100);
    }
}
