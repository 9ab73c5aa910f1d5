//! Sends of a port's connections.

#![expect(unsafe_code, reason = "memory that the kernel reads")]

use super::super::engine::{Completion, Engine};
use super::super::socket::{GENERATION_MASK, Kind, Socket, place, token, zero_copy_token};
use super::{Port, find};
use crate::sessions::{Session, SessionId, Sessions};

impl<S: Session> Port<S> {
    /// Takes the report on a send.
    pub(super) fn sent(
        &mut self,
        slot: u32,
        generation: u32,
        completion: Completion,
        engine: &mut Engine,
    ) {
        let Some(socket) = find(&mut self.sockets, slot, generation) else {
            debug_assert!(false, "a connection outlives its operations");
            return;
        };
        let id = socket.id;
        socket.sending = false;
        if socket.closing {
            self.release_if_quiet(slot, engine);
            return;
        }
        let len = match completion.result {
            len if len > 0 => len as usize,
            result if matches!(-result, libc::EAGAIN | libc::EINTR) => 0,
            _ => {
                self.sessions.kill(id);
                return;
            }
        };
        if self.sessions.end_send(id, len).is_some() {
            self.send(id, engine);
        }
    }

    /// Takes one of the two reports on a send without a copy.
    pub(super) fn sent_zero_copy(
        &mut self,
        slot: u32,
        generation: u32,
        mut completion: Completion,
        engine: &mut Engine,
    ) {
        let (Some(socket), Some(sends)) =
            (find(&mut self.sockets, slot, generation), engine.zero_copy())
        else {
            debug_assert!(false, "a connection outlives its operations");
            return;
        };
        let place = place(completion.token);
        if completion.is_notice {
            socket.notices -= 1;
            socket.is_copied |= sends.noticed(completion.result);
            self.sessions.noticed(socket.id, place);
            if socket.closing {
                self.release_if_quiet(slot, engine);
            }
            return;
        }
        if completion.more {
            socket.notices += 1;
            self.sessions.lent(socket.id, place);
            if socket.closing && self.sessions.is_killed(socket.id) {
                socket.abort();
            }
        }
        if completion.result < 0 && sends.failed(-completion.result) {
            // Nothing of it was sent: as if it were to be tried again, which is done as usual.
            completion.result = -libc::EAGAIN;
        }
        self.sent(slot, generation, completion, engine);
    }

    /// Sends what its session has begun to send, or what is left of it.
    #[inline]
    pub(super) fn send(&mut self, id: SessionId, engine: &mut Engine) {
        let token = token(self.protocol, Kind::Send, id);
        let Some(socket) = find(&mut self.sockets, id.slot, id.generation & GENERATION_MASK) else {
            return;
        };
        let Some(bytes) = self.sessions.rest_of_send(id) else { return };
        socket.sending = if bytes.len() >= engine.zero_copy_min_bytes() && !socket.is_copied {
            send_large(&mut self.sessions, socket, token, engine)
        } else {
            // SAFETY: the session leaves the bytes in place until `end_send` or `close`, and is
            // closed only when no send is under way.
            unsafe { engine.send(socket.descriptor(), bytes, token) }
        };
        if !socket.sending {
            // It takes nothing even after an enter: it is broken, and `flush` says so.
            self.sessions.kill(id);
        }
    }

    /// Gives memory to blocks that have none.
    #[inline]
    pub(in super::super) fn renew_blocks(&mut self, engine: &mut Engine) {
        while self.sessions.blocks().has_lost() {
            // SAFETY: `Blocks` has the number used for this memory only, and only as long as it is
            // where it is.
            let register =
                |number, memory: &mut _| unsafe { engine.register_block(number, memory) };
            self.sessions.blocks().renew(register);
        }
    }
}

/// Sends what a session has begun to send without copying it, if the session has a place for it.
fn send_large<S: Session>(
    sessions: &mut Sessions<S>,
    socket: &Socket,
    token: u64,
    engine: &mut Engine,
) -> bool {
    let place = sessions.place_for_send(socket.id);
    let registered = sessions.registered(socket.id);
    let bytes = sessions.rest_of_send(socket.id).unwrap_or_default();
    match place {
        // SAFETY: the session leaves the bytes in place until `end_send`, and behind it until it is
        // `noticed` as often as it was `lent`; it is closed only when no send is under way and no
        // notice is to come. A net that is dropped before gives them up. They are the memory of the
        // block whose number they have, as `Output` says.
        Some(place) => unsafe {
            let token = zero_copy_token(token, place);
            engine.send_zero_copy(socket.descriptor(), bytes, registered, token)
        },
        // SAFETY: the session leaves the bytes in place until `end_send` or `close`, and is closed
        // only when no send is under way.
        None => unsafe { engine.send(socket.descriptor(), bytes, token) },
    }
}
