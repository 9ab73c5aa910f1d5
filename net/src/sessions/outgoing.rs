//! What of a session is being sent, and what the kernel still reads of it.

use super::{Blocks, Place, Session, SessionId, Sessions, find, settle};

impl<S: Session> Sessions<S> {
    /// Bytes to send, unless a send is under way. They stay valid and in place until
    /// [`end_send`](Self::end_send) or [`close`](Self::close).
    pub fn begin_send(&mut self, id: SessionId) -> Option<&[u8]> {
        let session = find(&mut self.slots, id)?;
        let owed = session.owed();
        session.line().begin_send(owed, &mut self.shared)
    }

    /// `len` bytes have been sent; returns the rest of this send if there is one.
    pub fn end_send(&mut self, id: SessionId, len: usize) -> Option<&[u8]> {
        let session = find(&mut self.slots, id)?;
        self.shared.stats.bytes_out += len as u64;
        let is_done = session.line().end_send(len, &mut self.shared);
        self.shared.count_output(session);
        if is_done {
            session.sent(&mut self.shared);
            if !session.line().output.is_empty() {
                self.shared.make_dirty(session.line());
            }
            settle(session, &mut self.shared);
            return None;
        }
        session.line().rest_of_send()
    }

    /// A place for the output that is being sent, for a send without a copy; `None` while the
    /// kernel reads enough of this session's memory already.
    pub(crate) fn place_for_send(&mut self, id: SessionId) -> Option<Place> {
        find(&mut self.slots, id)?.line().place()
    }

    /// The bytes of the send under way.
    pub(crate) fn rest_of_send(&mut self, id: SessionId) -> Option<&[u8]> {
        find(&mut self.slots, id)?.line().rest_of_send()
    }

    /// The registered memory that the send under way reads, if it is registered.
    pub(crate) fn registered(&mut self, id: SessionId) -> Option<u16> {
        find(&mut self.slots, id)?.line().registered()
    }

    /// The registered memory of these sessions.
    pub(crate) fn blocks(&mut self) -> &mut Blocks {
        &mut self.shared.blocks
    }

    /// The kernel goes on reading the output in `place`, whatever becomes of the session, until it
    /// gives notice. The session must not be closed before.
    pub(crate) fn lent(&mut self, id: SessionId, place: Place) {
        if let Some(session) = find(&mut self.slots, id) {
            session.line().lent(place);
        }
    }

    /// The kernel has given notice of a send without a copy.
    pub(crate) fn noticed(&mut self, id: SessionId, place: Place) {
        if let Some(session) = find(&mut self.slots, id) {
            session.line().noticed(place, &mut self.shared);
            self.shared.count_output(session);
            session.sent(&mut self.shared);
        }
    }

    /// Gives up all memory that the kernel may still read and will not say when it no longer does.
    pub(crate) fn leak_held(&mut self) {
        for session in self.slots.iter_mut().filter_map(|place| place.session.as_mut()) {
            session.line().leak_held();
        }
    }
}
