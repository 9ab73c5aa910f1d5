//! One protocol's connections: its listener, its sessions and their sockets.
//!
//! # Invariants
//! - At most one receive and one send are under way per connection.
//! - A connection that receives nothing keeps `wants_receive` until a receive is queued, whatever
//!   went wrong before. It is in `unarmed` unless its session takes no bytes for now; then the
//!   session's being dirty again brings it back.
//! - Nothing looks at all connections; what has something to do is in a list.

#![expect(unsafe_code, reason = "descriptors that the kernel made")]

mod direct;
mod sends;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};

use super::accept::Acceptor;
use super::buffers::Buffers;
use super::engine::{Completion, Engine};
use super::error::NetError;
use super::linger::Lingering;
use super::socket::{GENERATION_MASK, Kind, Protocol, Socket, place, token};
use crate::sessions::{Parted, Session, SessionId, Sessions, Talk};

/// A connection on its way to another shard.
#[derive(Debug)]
pub struct Moving {
    /// Where it goes on.
    pub shard: u16,
    stream: TcpStream,
    parted: Parted,
}

/// The connections of one protocol.
pub(super) struct Port<S: Session> {
    protocol: Protocol,
    pub(super) sessions: Sessions<S>,
    sockets: Vec<Option<Socket>>,
    acceptor: Option<Acceptor>,
    /// Connections whose receive is to be started.
    unarmed: Vec<SessionId>,
    /// Connections without sessions.
    lingering: Lingering,
    now_ns: u64,
    /// What somebody is told for whom there is no room.
    no_room: Vec<u8>,
    /// Connections that go on at other shards.
    pub(super) moving: Vec<Moving>,
    /// Connections turned away because there were too many.
    pub(super) refused: u64,
    /// Receives that ended because no buffer was free.
    pub(super) buffers_exhausted: u64,
    /// So much of a request is to be missing that it is received straight into place.
    direct_min_bytes: usize,
    /// Receives straight into place.
    pub(super) direct_receives: u64,
}

impl<S: Session> Port<S> {
    pub(super) fn new(
        protocol: Protocol,
        limits: S::Limits,
        listener: Option<TcpListener>,
        no_room: Vec<u8>,
        direct_min_bytes: usize,
    ) -> Result<Self, NetError> {
        Ok(Self {
            protocol,
            sessions: Sessions::new(limits),
            sockets: Vec::new(),
            acceptor: listener.map(Acceptor::new).transpose()?,
            unarmed: Vec::new(),
            lingering: Lingering::default(),
            now_ns: 0,
            no_room,
            moving: Vec::new(),
            refused: 0,
            buffers_exhausted: 0,
            direct_min_bytes,
            direct_receives: 0,
        })
    }

    /// Says what time it is, and closes what has missed a deadline.
    #[inline]
    pub(super) fn tick(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.sessions.tick(now_ns);
    }

    /// When [`tick`](Self::tick) and the flush behind it have something to do.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        let deadlines = [self.sessions.next_deadline_ns(), self.lingering.next_ns()];
        deadlines.into_iter().flatten().min()
    }

    /// How many connections are open.
    pub(super) fn connection_count(&self) -> usize {
        self.sessions.open_count() + self.lingering.len()
    }

    fn token(&self, kind: Kind, id: SessionId) -> u64 {
        token(self.protocol, kind, id)
    }

    /// Takes the report on an operation of this port, other than a receive.
    pub(super) fn complete(
        &mut self,
        (kind, slot, generation): (Kind, u32, u32),
        completion: Completion,
        engine: &mut Engine,
    ) {
        match kind {
            Kind::Send => self.sent(slot, generation, completion, engine),
            Kind::ZeroCopy => self.sent_zero_copy(slot, generation, completion, engine),
            Kind::Accept => self.accepted(completion),
            Kind::PollListener => {
                if let Some(acceptor) = &mut self.acceptor {
                    acceptor.poll_ended();
                }
            }
            // The operation that was told to end reports for itself.
            Kind::Cancel => {}
            Kind::Receive | Kind::Direct => debug_assert!(false, "goes to `received`"),
        }
    }

    /// Takes the report on a receive, and the buffer with it.
    #[inline]
    pub(super) fn received<I>(
        &mut self,
        (slot, generation): (u32, u32),
        completion: Completion,
        (engine, buffers): (&mut Engine, &mut Buffers),
        intake: &mut I,
    ) where
        S: Talk<I>,
    {
        if let Some(buffer) = completion.buffer {
            buffers.take(buffer);
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
                    let sessions = &mut self.sessions;
                    buffers.read(buffer, len as usize, |input| {
                        sessions.receive_lent(id, input, intake);
                    });
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
            buffers.done(buffer);
        }
        self.settle_receive(slot, engine);
    }

    /// After a completion of a receive: goes on, pauses, or closes.
    #[inline]
    fn settle_receive(&mut self, slot: u32, engine: &mut Engine) {
        let protocol = self.protocol;
        let Some(socket) = &mut self.sockets[slot as usize] else {
            return;
        };
        if socket.closing {
            self.release_if_quiet(slot, engine);
        } else if socket.receiving {
            let goes_on = self.sessions.wants_input(socket.id)
                && !self.sessions.wants_direct(socket.id, self.direct_min_bytes);
            if !goes_on && !socket.cancelling {
                // If the queue is full, the next completion of this receive tries again.
                let target = token(protocol, Kind::Receive, socket.id);
                socket.cancelling = engine.cancel(target, token(protocol, Kind::Cancel, socket.id));
            }
        } else if self.sessions.moves_to(socket.id).is_some() {
            self.hand_over(slot, engine);
        } else if !socket.input_ended {
            socket.wants_receive = true;
            list(&mut self.unarmed, socket);
        }
    }

    /// Lets go of a connection that goes on at another shard, if the kernel does nothing for it.
    fn hand_over(&mut self, slot: u32, engine: &mut Engine) {
        let place = &mut self.sockets[slot as usize];
        let Some(socket) = place.take_if(|socket| socket.is_quiet()) else { return };
        let shard = self.sessions.moves_to(socket.id).unwrap_or_default();
        engine.forget(socket.descriptor(), self.token(Kind::Receive, socket.id));
        let parted = self.sessions.part(socket.id);
        self.moving.push(Moving { shard, stream: socket.stream, parted });
    }

    /// Goes on with a connection that another shard has handed over.
    pub(super) fn adopt<I>(&mut self, moving: Moving, intake: &mut I)
    where
        S: Talk<I>,
    {
        if let Some(id) = self.open(moving.stream) {
            self.sessions.go_on(id, moving.parted, intake);
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
        self.open(stream);
    }

    /// A session for a connection, unless there are too many, or the port is closed.
    fn open(&mut self, stream: TcpStream) -> Option<SessionId> {
        self.acceptor.as_ref()?;
        let Some(id) = self.sessions.open(stream.peer_addr().ok()) else {
            self.refused += 1;
            let is_secured = self.sessions.is_secured();
            refuse(&stream, if is_secured { &NO_ROOM_TLS } else { &self.no_room });
            return None;
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
        Some(id)
    }

    /// Sends the answers, closes what is done, receives where there is room again. Returns how many
    /// connections it dealt with.
    pub(super) fn flush(&mut self, engine: &mut Engine) -> usize {
        let mut count = 0;
        self.lingering.look(self.now_ns);
        while let Some(id) = self.sessions.next_dirty() {
            self.attend(id, engine);
            count += 1;
        }
        if !self.unarmed.is_empty() {
            count += self.arm(engine);
        }
        let accept = self.token(Kind::Accept, NOBODY);
        let poll = self.token(Kind::PollListener, NOBODY);
        if let Some(acceptor) = &mut self.acceptor
            && acceptor.wants_start()
        {
            acceptor.start(engine, accept, poll);
        }
        count
    }

    /// Sends, closes, or receives again.
    fn attend(&mut self, id: SessionId, engine: &mut Engine) {
        let Some(socket) = find(&mut self.sockets, id.slot, id.generation & GENERATION_MASK) else {
            debug_assert!(false, "every session has its socket");
            return;
        };
        if socket.closing || self.sessions.is_finished(id) {
            self.close(id, engine);
            return;
        }
        if socket.wants_receive {
            list(&mut self.unarmed, socket);
        }
        if !socket.sending && self.sessions.begin_send(id).is_some() {
            self.send(id, engine);
        }
    }

    /// Shuts a connection down whose session is finished. What was sent is still delivered, unless
    /// the session was killed.
    fn close(&mut self, id: SessionId, engine: &mut Engine) {
        let is_killed = self.sessions.is_killed(id);
        let receive = self.token(Kind::Receive, id);
        let cancel = self.token(Kind::Cancel, id);
        let Some(socket) = &mut self.sockets[id.slot as usize] else { return };
        if is_killed {
            socket.shut_down();
            if socket.notices > 0 {
                socket.abort();
            }
        } else if !socket.closing {
            socket.finish();
            if socket.receiving && !socket.cancelling {
                // A receive into the memory of a request ends by itself only.
                socket.cancelling = socket.direct.is_none() && engine.cancel(receive, cancel);
                if !socket.cancelling {
                    socket.shut_down();
                }
            }
        }
        self.release_if_quiet(id.slot, engine);
    }

    /// Starts the receives that are wanted and possible; returns how many.
    fn arm(&mut self, engine: &mut Engine) -> usize {
        let mut count = 0;
        let mut unarmed = std::mem::take(&mut self.unarmed);
        unarmed.retain(|id| {
            let generation = id.generation & GENERATION_MASK;
            let Some(socket) = find(&mut self.sockets, id.slot, generation) else {
                return false;
            };
            socket.listed = false;
            if socket.closing || socket.input_ended {
                socket.wants_receive = false;
                return false;
            }
            if !self.sessions.wants_input(*id) {
                return false;
            }
            let receiving = self.start_receive(*id, engine);
            if let Some(socket) = find(&mut self.sockets, id.slot, generation) {
                socket.receiving = receiving;
                socket.wants_receive = !receiving;
                socket.listed = !receiving;
            }
            count += usize::from(receiving);
            !receiving
        });
        debug_assert!(self.unarmed.is_empty(), "a receive that starts lists nobody");
        self.unarmed = unarmed;
        count
    }

    /// Lets go of a connection for which the kernel does nothing any more.
    fn release_if_quiet(&mut self, slot: u32, engine: &mut Engine) {
        let Some(socket) = self.sockets[slot as usize].take_if(|socket| socket.is_quiet()) else {
            return;
        };
        self.sessions.close(socket.id);
        // Whoever sends no more is delivered everything by the kernel.
        if !(socket.is_deaf || socket.input_ended) {
            engine.forget(socket.descriptor(), self.token(Kind::Receive, socket.id));
            self.lingering.close(socket.stream, self.now_ns);
        }
    }

    /// Whether the next pass would find nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        !self.sessions.has_dirty()
            && !self.sessions.has_ready()
            && self.acceptor.as_ref().is_none_or(|acceptor| !acceptor.wants_start())
    }

    /// Whether an answer is owed, or something is to be sent or closed.
    pub(super) fn has_unfinished_work(&self) -> bool {
        self.sessions.owed_count() > 0
            || self.sessions.has_dirty()
            || self.lingering.len() > 0
            || self.sockets.iter().flatten().any(|socket| socket.sending || socket.closing)
    }

    /// Stops listening, parses no more requests, and closes each connection when what it is owed
    /// has been sent.
    pub(super) fn drain(&mut self, engine: &mut Engine) {
        // Connections that wait to be accepted are refused by the kernel from here on. What the
        // kernel still does for the listener ends with it.
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop(engine, self.token(Kind::Accept, NOBODY));
        }
        self.sessions.drain();
    }

    /// Shuts every connection down, which completes whatever the kernel does for it.
    pub(super) fn shut_down(&mut self) {
        for socket in self.sockets.iter_mut().flatten() {
            socket.shut_down();
            if socket.notices > 0 {
                socket.abort();
            }
        }
    }

    /// Whether the kernel does nothing for any connection.
    pub(super) fn is_quiet(&self) -> bool {
        self.sockets.iter().flatten().all(Socket::is_quiet)
    }

    /// Notes that an operation of a port that was shut down is over.
    pub(super) fn note_end(
        &mut self,
        (kind, slot, generation): (Kind, u32, u32),
        completion: Completion,
    ) {
        let Some(socket) = find(&mut self.sockets, slot, generation) else { return };
        match kind {
            Kind::Receive | Kind::Direct => socket.receiving = completion.more,
            Kind::Send => socket.sending = false,
            Kind::ZeroCopy if completion.is_notice => {
                socket.notices -= 1;
                self.sessions.noticed(socket.id, place(completion.token));
            }
            Kind::ZeroCopy => {
                socket.sending = false;
                if completion.more {
                    socket.notices += 1;
                    self.sessions.lent(socket.id, place(completion.token));
                    socket.abort();
                }
            }
            _ => {}
        }
    }
}

/// Tokens of the listener name no connection.
const NOBODY: SessionId = SessionId { slot: 0, generation: 0 };

/// What somebody is told who expects TLS: a fatal alert, in plain text as there are no keys yet.
/// There is none that says more than "internal error", which has nothing to do with the peer.
const NO_ROOM_TLS: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Tells a peer why it is not taken, if that fits its socket, and closes.
fn refuse(stream: &TcpStream, why: &[u8]) {
    let mut stream = stream;
    if stream.set_nonblocking(true).is_ok() {
        stream.write_all(why).unwrap_or_default();
    }
}

#[inline]
fn find(sockets: &mut [Option<Socket>], slot: u32, generation: u32) -> Option<&mut Socket> {
    let socket = sockets.get_mut(slot as usize)?.as_mut()?;
    (socket.id.generation & GENERATION_MASK == generation).then_some(socket)
}

/// Has the receive of a connection started at the next flush.
fn list(unarmed: &mut Vec<SessionId>, socket: &mut Socket) {
    if !socket.listed {
        socket.listed = true;
        unarmed.push(socket.id);
    }
}
