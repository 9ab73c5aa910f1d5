//! Receiving the rest of a long request straight into the memory where its beginning lies.
//!
//! # Ownership
//! A session that lends its memory does not have it meanwhile: [`Direct`] moves to whoever has the
//! kernel write into it, and comes back by [`fill`](Sessions::fill). So whatever becomes of the
//! session, nobody frees what the kernel writes to, or reads what it has not written.

#![expect(unsafe_code, reason = "memory that the kernel has written")]

use coreside_shard::rkyv::util::AlignedVec;

use super::{Bounds as _, Session, SessionId, Sessions, Talk, find, note, settle};
use crate::native::frame::ALIGN;

/// The memory of a request.
#[derive(Debug)]
pub enum Memory {
    /// Begins at a multiple of 16, for archives.
    Aligned(AlignedVec<ALIGN>),
    /// Begins anywhere.
    Plain(Vec<u8>),
}

/// The beginning of a request, with room for its rest.
#[derive(Debug)]
pub struct Direct {
    memory: Memory,
    room: usize,
}

/// Memory that is taken ahead of what has come, however much is declared.
const AHEAD_BYTES_MAX: usize = 2 << 20;

impl Direct {
    /// `memory`, with room for the `lacking` bytes, or, of many, for the first.
    pub(crate) fn new(mut memory: Memory, lacking: usize) -> Self {
        // What is left over is worth the next one.
        let room = if lacking > AHEAD_BYTES_MAX { AHEAD_BYTES_MAX / 2 } else { lacking };
        match &mut memory {
            Memory::Aligned(bytes) => bytes.reserve(room),
            Memory::Plain(bytes) => bytes.reserve(room),
        }
        Self { memory, room }
    }

    /// Bytes that have come, and that there is room for.
    pub(crate) fn bytes(&self) -> usize {
        let len = match &self.memory {
            Memory::Aligned(bytes) => bytes.len(),
            Memory::Plain(bytes) => bytes.len(),
        };
        len + self.room
    }

    /// Where the rest belongs, and how much it is. The memory stays where it is until `self` is
    /// dropped or filled.
    pub(crate) fn room(&mut self) -> (*mut u8, usize) {
        let (start, at) = match &mut self.memory {
            Memory::Aligned(bytes) => (bytes.as_mut_ptr(), bytes.len()),
            Memory::Plain(bytes) => (bytes.as_mut_ptr(), bytes.len()),
        };
        // SAFETY: there is room behind the bytes, so the pointer stays within the allocation.
        (unsafe { start.add(at) }, self.room)
    }

    /// The beginning, with what has come of the rest.
    ///
    /// # Safety
    /// The first `len` bytes of the [room](Self::room) must have been written.
    pub(crate) unsafe fn filled(mut self, len: usize) -> Memory {
        assert!(len <= self.room, "the kernel writes no more than it was told");
        match &mut self.memory {
            // SAFETY: the caller says that they are written, and `new` has reserved them.
            Memory::Aligned(bytes) => unsafe { bytes.set_len(bytes.len() + len) },
            // SAFETY: the caller says that they are written, and `new` has reserved them.
            Memory::Plain(bytes) => unsafe { bytes.set_len(bytes.len() + len) },
        }
        self.memory
    }
}

impl<S: Session> Sessions<S> {
    /// Whether at least `min` bytes of a request are missing, and nothing else keeps them from
    /// being received straight into place.
    #[inline]
    pub(crate) fn wants_direct(&mut self, id: SessionId, min: usize) -> bool {
        let shared = &self.shared;
        let Some(session) = find(&mut self.slots, id) else { return false };
        let lacks = session.lacks(&shared.limits);
        // What there is room for counts as if it had come.
        let ahead = lacks.min(AHEAD_BYTES_MAX);
        lacks >= min.max(1)
            && session.line().tls.is_none()
            && shared.unparsed_bytes + ahead <= shared.limits.unparsed_bytes_max() / 2
    }

    /// Takes the memory for the rest of a request, if it [is wanted](Self::wants_direct).
    pub(crate) fn lend(&mut self, id: SessionId, min: usize) -> Option<Direct> {
        if !self.wants_direct(id, min) {
            return None;
        }
        let session = find(&mut self.slots, id)?;
        let shared = &mut self.shared;
        let (before, requests) = (session.unparsed_bytes(), shared.stats.requests);
        let direct = session.lend(&shared.limits);
        note(session, before, requests, shared);
        direct
    }

    /// Gives the memory back, as [`Direct::filled`] made it; the last `len` bytes are new.
    pub(crate) fn fill<I>(&mut self, id: SessionId, (memory, len): (Memory, usize), intake: &mut I)
    where
        S: Talk<I>,
    {
        let Some(session) = find(&mut self.slots, id) else { return };
        let shared = &mut self.shared;
        shared.stats.bytes_in += len as u64;
        let (before, requests) = (session.unparsed_bytes(), shared.stats.requests);
        session.fill(memory, intake, shared);
        note(session, before, requests, shared);
        settle(session, shared);
    }
}
