//! Receives of the rest of long requests, straight into place.
//!
//! A receive that goes on takes whatever comes into buffers of the net, from where the bytes of a
//! long request have to be copied. So when much of a request is missing, that receive is ended, and
//! one takes its place that ends with the request. Behind it a single receive looks whether the
//! next request is as long: requests that follow each other need no receive to be ended for them.

#![expect(unsafe_code, reason = "memory that the kernel writes")]

use super::super::buffers::GROUP;
use super::super::engine::{Completion, Engine};
use super::super::socket::{GENERATION_MASK, Kind, token};
use super::{Port, find};
use crate::sessions::{Session, SessionId, Talk};

impl<S: Session> Port<S> {
    /// Starts the receive that suits the session best. Returns whether the engine had room.
    #[inline]
    pub(super) fn start_receive(&mut self, id: SessionId, engine: &mut Engine) -> bool {
        let Self { sockets, sessions, protocol, .. } = self;
        let token = |kind| token(*protocol, kind, id);
        let Some(socket) = find(sockets, id.slot, id.generation & GENERATION_MASK) else {
            return false;
        };
        let descriptor = socket.descriptor();
        // What found no room in the queue before is tried again.
        let lent = socket.direct.take().or_else(|| sessions.lend(id, self.direct_min_bytes));
        if let Some(mut direct) = lent {
            let (start, len) = direct.room();
            // SAFETY: the memory lies still in the socket until the completion, whatever becomes of
            // the session; the socket is dropped only when no receive is under way.
            let queued =
                unsafe { engine.receive_into(descriptor, start, len, token(Kind::Direct)) };
            socket.direct = Some(direct);
            socket.in_bulk = true;
            self.direct_receives += u64::from(queued);
            return queued;
        }
        if std::mem::take(&mut socket.in_bulk) {
            return engine.receive_once(descriptor, GROUP, token(Kind::Receive));
        }
        engine.receive(descriptor, GROUP, token(Kind::Receive))
    }

    /// Gives up all memory that the kernel may still use and will not say when it no longer does.
    pub(in super::super) fn leak(&mut self) {
        for socket in self.sockets.iter_mut().flatten() {
            std::mem::forget(socket.direct.take());
        }
        self.sessions.leak_held();
    }

    /// Takes the report on a receive into the memory of a request.
    pub(in super::super) fn received_direct<I>(
        &mut self,
        (slot, generation): (u32, u32),
        completion: Completion,
        engine: &mut Engine,
        intake: &mut I,
    ) where
        S: Talk<I>,
    {
        let taken = find(&mut self.sockets, slot, generation);
        let Some((socket, direct)) =
            taken.and_then(|socket| socket.direct.take().map(|direct| (socket, direct)))
        else {
            debug_assert!(false, "a connection outlives its operations");
            return;
        };
        let id = socket.id;
        socket.receiving = false;
        let len = completion.result.max(0) as usize;
        // SAFETY: the kernel has written as many bytes as it says.
        let memory = unsafe { direct.filled(len) };
        self.sessions.fill(id, (memory, len), intake);
        match completion.result {
            1.. => {}
            0 => {
                socket.input_ended = true;
                self.sessions.end_input(id);
            }
            error => match -error {
                libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
                _ => {
                    socket.input_ended = true;
                    self.sessions.kill(id);
                }
            },
        }
        self.settle_receive(slot, engine);
    }
}
