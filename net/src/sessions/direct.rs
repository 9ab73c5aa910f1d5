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

/// The beginning of a request, with room for its rest.
#[derive(Debug)]
pub struct Direct {
    bytes: AlignedVec<ALIGN>,
    room: usize,
}

impl Direct {
    /// `bytes`, with room for `room` more.
    pub(crate) fn new(mut bytes: AlignedVec<ALIGN>, room: usize) -> Self {
        bytes.reserve_exact(room);
        Self { bytes, room }
    }

    /// Where the rest belongs, and how much it is. The memory stays where it is until `self` is
    /// dropped or filled.
    pub(crate) fn room(&mut self) -> (*mut u8, usize) {
        let at = self.bytes.len();
        // SAFETY: there is room behind the bytes, so the pointer stays within the allocation.
        (unsafe { self.bytes.as_mut_ptr().add(at) }, self.room)
    }

    /// The beginning, with what has come of the rest.
    ///
    /// # Safety
    /// The first `len` bytes of the [room](Self::room) must have been written.
    pub(crate) unsafe fn filled(mut self, len: usize) -> AlignedVec<ALIGN> {
        assert!(len <= self.room, "the kernel writes no more than it was told");
        let before = self.bytes.len();
        // SAFETY: the caller says that they are written, and `new` has reserved them.
        unsafe { self.bytes.set_len(before + len) };
        self.bytes
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
        // What is declared counts as if it had come; who has no room for it waits for it in pieces.
        lacks >= min.max(1)
            && session.line().tls.is_none()
            && shared.unparsed_bytes + lacks <= shared.limits.unparsed_bytes_max() / 2
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

    /// Gives the memory back. `bytes` are those of [`Direct::filled`], the last `len` of them new.
    pub(crate) fn fill<I>(
        &mut self,
        id: SessionId,
        (bytes, len): (AlignedVec<ALIGN>, usize),
        intake: &mut I,
    ) where
        S: Talk<I>,
    {
        let Some(session) = find(&mut self.slots, id) else { return };
        let shared = &mut self.shared;
        shared.stats.bytes_in += len as u64;
        let (before, requests) = (session.unparsed_bytes(), shared.stats.requests);
        session.fill(bytes, intake, shared);
        note(session, before, requests, shared);
        settle(session, shared);
    }
}
