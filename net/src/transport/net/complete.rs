//! What the kernel reports, and what follows from it.

#![expect(unsafe_code, reason = "descriptors that the kernel made, memory that it reads")]

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};

use super::{Net, find, list};
use crate::resp::Intake;
use crate::transport::ring::Completion;
use crate::transport::socket::{Kind, Socket, parts, token};

impl Net {
    #[inline]
    pub(super) fn complete<I: Intake>(&mut self, completion: Completion, intake: &mut I) {
        let (kind, slot, generation) = parts(completion.token);
        match kind {
            Some(Kind::Receive) => self.received(slot, generation, completion, intake),
            Some(Kind::Send) => self.sent(slot, generation, completion),
            Some(Kind::Accept) => self.accepted(completion),
            Some(Kind::PollListener) => {
                if let Some(acceptor) = &mut self.acceptor {
                    acceptor.poll_ended();
                }
            }
            // The operation that was told to end reports for itself.
            Some(Kind::Cancel) => {}
            None => debug_assert!(false, "a token of ours"),
        }
    }

    fn received<I: Intake>(
        &mut self,
        slot: u32,
        generation: u32,
        completion: Completion,
        intake: &mut I,
    ) {
        if let Some(buffer) = completion.buffer {
            self.buffers.take(buffer);
        }
        let Some(socket) = find(&mut self.sockets, slot, generation) else {
            debug_assert!(false, "a connection outlives its operations");
            return;
        };
        let id = socket.id;
        if !completion.more {
            socket.receiving = false;
            socket.cancelling = false;
        }
        match (completion.result, completion.buffer) {
            (0, _) => {
                socket.input_ended = true;
                self.sessions.end_input(id);
            }
            (len, Some(buffer)) if len > 0 => {
                if !socket.closing {
                    let bytes = self.buffers.bytes(buffer, len as usize);
                    self.sessions.receive(id, bytes, intake);
                }
            }
            (error, _) => match -error {
                libc::ENOBUFS => self.buffers_exhausted += 1,
                libc::ECANCELED | libc::EAGAIN | libc::EINTR => {}
                _ => {
                    socket.input_ended = true;
                    self.sessions.kill(id);
                }
            },
        }
        if let Some(buffer) = completion.buffer {
            self.buffers.give(buffer);
        }
        self.settle_receive(slot);
    }

    /// After a completion of a receive: goes on, pauses, or closes.
    #[inline]
    fn settle_receive(&mut self, slot: u32) {
        let Some(socket) = &mut self.sockets[slot as usize] else {
            return;
        };
        if socket.closing {
            self.release_if_quiet(slot);
        } else if socket.receiving {
            if !self.sessions.wants_input(socket.id) && !socket.cancelling {
                // If the queue is full, the next completion of this receive tries again.
                socket.cancelling = self
                    .ring
                    .cancel(token(Kind::Receive, socket.id), token(Kind::Cancel, socket.id));
            }
        } else if !socket.input_ended {
            socket.wants_receive = true;
            list(&mut self.unarmed, socket);
        }
    }

    fn sent(&mut self, slot: u32, generation: u32, completion: Completion) {
        let Some(socket) = find(&mut self.sockets, slot, generation) else {
            debug_assert!(false, "a connection outlives its operations");
            return;
        };
        let id = socket.id;
        socket.sending = false;
        if socket.closing {
            self.release_if_quiet(slot);
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
        if let Some(rest) = self.sessions.end_send(id, len) {
            // SAFETY: the session leaves the bytes in place until `end_send` or `close`, and is
            // closed only when no send is under way.
            socket.sending =
                unsafe { self.ring.send(socket.descriptor(), rest, token(Kind::Send, id)) };
            if !socket.sending {
                self.sessions.kill(id);
            }
        }
    }

    fn accepted(&mut self, completion: Completion) {
        if !completion.more
            && let Some(acceptor) = &mut self.acceptor
        {
            acceptor.accept_ended(completion.result);
        }
        if completion.result < 0 {
            return;
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(completion.result) });
        if self.acceptor.is_none() {
            return;
        }
        let Some(id) = self.sessions.open(stream.peer_addr().ok()) else {
            self.refused += 1;
            refuse(&stream);
            return;
        };
        let slot = id.slot as usize;
        if slot >= self.sockets.len() {
            self.sockets.resize_with(slot + 1, || None);
        }
        debug_assert!(self.sockets[slot].is_none());
        let mut socket = Socket::new(id, stream);
        socket.wants_receive = true;
        list(&mut self.unarmed, &mut socket);
        self.sockets[slot] = Some(socket);
    }
}

/// Tells a peer why it is not taken, if that fits its socket, and closes.
fn refuse(stream: &TcpStream) {
    let mut stream = stream;
    if stream.set_nonblocking(true).is_ok() {
        stream.write_all(b"-ERR max number of clients reached\r\n").unwrap_or_default();
    }
}
