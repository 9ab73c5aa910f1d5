//! All connections of a shard that speak one protocol, without their sockets.
//!
//! What a protocol makes of bytes is its [`Session`]'s; here is what is the same for all: names that
//! are never used again, who has something to send, who may go on, and what they hold together.
//!
//! # Invariants
//! - A session is in the list `ready` exactly when its flag `ready` is set, and in `dirty` exactly
//!   when its flag `dirty` is set; so no list is longer than the number of sessions that ever were.
//! - `owed` and `unparsed_bytes` are the sums over all sessions.

use std::collections::VecDeque;
use std::net::SocketAddr;

use coreside_shard::Ticket;

/// One connection of a protocol, as a state machine without I/O. Its methods are for [`Sessions`].
pub trait Session: Sized {
    /// The bounds of the sessions of a shard.
    type Limits: Bounds;
    /// What a session knows of its node.
    type Facts: Default;

    /// The state of a new connection.
    #[doc(hidden)]
    fn new(id: SessionId, peer: Option<SocketAddr>, shared: &Shared<Self>) -> Self;
    #[doc(hidden)]
    fn line(&mut self) -> &mut Line;
    /// How many answers are owed.
    #[doc(hidden)]
    fn owed(&self) -> u32;
    /// Memory held for bytes that are not a whole request yet.
    #[doc(hidden)]
    fn unparsed_bytes(&self) -> usize;
    /// Whether bytes of the peer are welcome, the sessions of the shard holding many or few.
    #[doc(hidden)]
    fn wants_input(&self, limits: &Self::Limits, is_crowded: bool) -> bool;
    /// Whether the connection has served its purpose and everything owed has been handed out.
    #[doc(hidden)]
    fn is_finished(&self) -> bool;
    /// Parses no more; the connection closes when what is owed has been sent.
    #[doc(hidden)]
    fn end(&mut self);
    /// Closes the connection without sending what is left.
    #[doc(hidden)]
    fn kill(&mut self);
    /// Tells the peer that the node stops, where the protocol has words for it.
    #[doc(hidden)]
    fn say_goodbye(&mut self, _shared: &mut Shared<Self>) {}
    /// Tells the peer that the unfinished requests of all are too many, and that it pays.
    #[doc(hidden)]
    fn refuse_input(&mut self, shared: &mut Shared<Self>);
    /// A send is done: what it held back may go on.
    #[doc(hidden)]
    fn sent(&mut self, shared: &mut Shared<Self>);
    /// The shard that the connection is to go on at, if it is not this one.
    #[doc(hidden)]
    fn moves_to(&self) -> Option<u16> {
        None
    }
    /// Takes the bytes that are not parsed, for the shard where the connection goes on.
    #[doc(hidden)]
    fn take_input(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// A session that sends its requests to an intake of type `I`.
pub trait Talk<I>: Session {
    /// Whether requests should stop for now.
    #[doc(hidden)]
    fn is_congested(intake: &I) -> bool;
    /// Takes bytes of the peer and sends on the requests that are whole.
    #[doc(hidden)]
    fn receive(&mut self, bytes: &[u8], intake: &mut I, shared: &mut Shared<Self>);
    /// Goes on with bytes that waited.
    #[doc(hidden)]
    fn resume(&mut self, intake: &mut I, shared: &mut Shared<Self>);
}

/// Bounds that every protocol has.
pub trait Bounds: Copy + std::fmt::Debug {
    /// Connections of the shard. The next one is told so and closed.
    fn connections_max(&self) -> u32;
    /// Bytes of unfinished requests over all connections of the shard. Beyond it the connection that
    /// holds most is closed.
    fn unparsed_bytes_max(&self) -> usize;
    /// Whether the bounds make sense together.
    ///
    /// # Panics
    /// If they do not.
    fn check(&self);
}

/// What is the same for every session: what is being sent, and its switches.
#[derive(Debug)]
pub struct Line {
    pub(crate) id: SessionId,
    pub(crate) flags: Flags,
    /// Output that is being filled.
    pub(crate) output: Vec<u8>,
    /// Output that is being sent; not touched until the send is done.
    sending: Vec<u8>,
    sent: usize,
}

/// The switches of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// Parsing stopped at a pause; there may be whole requests among the bytes that wait.
    pub(crate) stalled: bool,
    /// The session is in the list of those that are ready to be parsed.
    pub(crate) ready: bool,
    /// The session is in the list of those with something to send or to close.
    pub(crate) dirty: bool,
    /// No further request is parsed: the connection closes when what is owed has been sent.
    pub(crate) ending: bool,
    /// The peer will send no more bytes.
    pub(crate) input_ended: bool,
    /// The connection closes at once; nothing is sent any more.
    pub(crate) killed: bool,
}

impl Line {
    pub(crate) fn new(id: SessionId) -> Self {
        let (output, sending) = (Vec::new(), Vec::new());
        Self { id, flags: Flags::default(), output, sending, sent: 0 }
    }

    /// Bytes that wait to be sent.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.output.len() + self.sending.len() - self.sent
    }

    /// Whether no more requests come: the peer's fault or the node's wish.
    pub(crate) fn takes_no_more(&self) -> bool {
        let Flags { ending, input_ended, stalled, ready, .. } = self.flags;
        ending || (input_ended && !stalled && !ready)
    }

    /// The bytes to send next, unless a send is under way. They stay where they are until
    /// [`end_send`](Self::end_send).
    fn begin_send(&mut self) -> Option<&[u8]> {
        if self.flags.killed || !self.sending.is_empty() || self.output.is_empty() {
            return None;
        }
        debug_assert_eq!(self.sent, 0);
        std::mem::swap(&mut self.output, &mut self.sending);
        Some(&self.sending)
    }

    /// `len` bytes more have been sent; returns whether the send is done.
    fn end_send<S: Session>(&mut self, len: usize, shared: &mut Shared<S>) -> bool {
        self.sent += len;
        debug_assert!(self.sent <= self.sending.len());
        if self.sent < self.sending.len() && !self.flags.killed {
            return false;
        }
        shared.strip(&mut self.sending);
        self.sent = 0;
        true
    }

    /// What is left of the send under way.
    fn rest_of_send(&self) -> Option<&[u8]> {
        Some(&self.sending[self.sent..]).filter(|rest| !rest.is_empty())
    }
}

/// Names a session; a name is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// Where the session sits.
    pub slot: u32,
    /// Tells the sessions apart that sat there one after the other.
    pub generation: u32,
}

/// What the sessions have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionsStats {
    /// Connections opened.
    pub opened: u64,
    /// Connections closed.
    pub closed: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Requests taken, wrong ones and those that the session answers itself included.
    pub requests: u64,
    /// Connections closed because the peer does not speak the protocol.
    pub protocol_errors: u64,
    /// Connections closed because they went beyond a limit.
    pub limit_closes: u64,
    /// Answers to connections that are gone.
    pub late_answers: u64,
}

/// The sessions of one shard.
pub struct Sessions<S: Session> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    shared: Shared<S>,
}

struct Slot<S> {
    generation: u32,
    session: Option<S>,
}

/// What all sessions of a shard share.
pub struct Shared<S: Session> {
    pub(crate) limits: S::Limits,
    pub(crate) stats: SessionsStats,
    pub(crate) facts: S::Facts,
    /// Sessions that are open.
    pub(crate) open: u32,
    /// Answers owed over all sessions.
    pub(crate) owed: u64,
    unparsed_bytes: usize,
    dirty: Vec<SessionId>,
    ready: VecDeque<SessionId>,
    /// Empty buffers that keep their memory for the next connection that needs one, so that idle
    /// connections hold none.
    spare: Vec<Vec<u8>>,
}

/// How many buffers, and how large ones, are kept.
const SPARE_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 64 * 1024;

impl<S: Session> Shared<S> {
    /// Gives `buffer` memory if it has none.
    #[inline]
    pub(crate) fn equip(&mut self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            *buffer = spare;
        }
    }

    /// Takes the memory of `buffer`, and what is in it.
    pub(crate) fn strip(&mut self, buffer: &mut Vec<u8>) {
        let mut buffer = std::mem::take(buffer);
        let capacity = buffer.capacity();
        if capacity > 0 && capacity <= SPARE_BYTES_MAX && self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    #[inline]
    pub(crate) fn make_dirty(&mut self, line: &mut Line) {
        if !line.flags.dirty {
            line.flags.dirty = true;
            self.dirty.push(line.id);
        }
    }

    pub(crate) fn make_ready(&mut self, line: &mut Line) {
        if !line.flags.ready {
            line.flags.ready = true;
            self.ready.push_back(line.id);
        }
    }
}

impl<S: Session> Sessions<S> {
    /// No sessions yet.
    ///
    /// # Panics
    /// If the limits make no sense together.
    pub fn new(limits: S::Limits) -> Self {
        limits.check();
        let shared = Shared {
            limits,
            stats: SessionsStats::default(),
            facts: S::Facts::default(),
            open: 0,
            owed: 0,
            unparsed_bytes: 0,
            dirty: Vec::new(),
            ready: VecDeque::new(),
            spare: Vec::new(),
        };
        Self { slots: Vec::new(), free: Vec::new(), shared }
    }

    /// A new session, unless there are as many as the limits allow.
    pub fn open(&mut self, peer: Option<SocketAddr>) -> Option<SessionId> {
        if self.shared.open >= self.shared.limits.connections_max() {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        let id = SessionId { slot, generation: place.generation };
        place.session = Some(S::new(id, peer, &self.shared));
        self.shared.stats.opened += 1;
        self.shared.open += 1;
        Some(id)
    }

    /// Frees a session. Answers that are still to come for it are dropped.
    pub fn close(&mut self, id: SessionId) {
        let Some(session) = find(&mut self.slots, id) else {
            return;
        };
        self.shared.owed -= u64::from(session.owed());
        self.shared.unparsed_bytes -= session.unparsed_bytes();
        self.shared.open -= 1;
        self.shared.stats.closed += 1;
        let place = &mut self.slots[id.slot as usize];
        place.session = None;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.slot);
    }

    /// Takes bytes of a peer and sends on the commands that are whole.
    #[inline]
    pub fn receive<I>(&mut self, id: SessionId, bytes: &[u8], intake: &mut I)
    where
        S: Talk<I>,
    {
        let Some(session) = find(&mut self.slots, id) else {
            return;
        };
        let shared = &mut self.shared;
        shared.stats.bytes_in += bytes.len() as u64;
        let before = session.unparsed_bytes();
        session.receive(bytes, intake, shared);
        shared.unparsed_bytes = shared.unparsed_bytes - before + session.unparsed_bytes();
        settle(session, shared);
        if shared.unparsed_bytes > shared.limits.unparsed_bytes_max() {
            self.close_worst();
        }
    }

    /// The peer will send no more.
    pub fn end_input(&mut self, id: SessionId) {
        if let Some(session) = find(&mut self.slots, id) {
            session.line().flags.input_ended = true;
            settle(session, &mut self.shared);
        }
    }

    /// The connection is broken: it is to be closed without sending anything.
    pub fn kill(&mut self, id: SessionId) {
        if let Some(session) = find(&mut self.slots, id) {
            self.shared.unparsed_bytes -= session.unparsed_bytes();
            session.kill();
            settle(session, &mut self.shared);
        }
    }

    /// Goes on with sessions whose pause is over, while the shard takes requests. Returns how many.
    pub fn resume<I>(&mut self, intake: &mut I) -> usize
    where
        S: Talk<I>,
    {
        let mut count = 0;
        for _ in 0..self.shared.ready.len() {
            if S::is_congested(intake) {
                break;
            }
            let Some(id) = self.shared.ready.pop_front() else {
                break;
            };
            let Some(session) = find(&mut self.slots, id) else {
                continue;
            };
            let flags = &mut session.line().flags;
            flags.ready = false;
            if flags.killed || flags.ending {
                continue;
            }
            let before = session.unparsed_bytes();
            session.resume(intake, &mut self.shared);
            let shared = &mut self.shared;
            shared.unparsed_bytes = shared.unparsed_bytes - before + session.unparsed_bytes();
            // Whoever reads the socket may have to go on as well.
            shared.make_dirty(session.line());
            count += 1;
        }
        count
    }

    /// The next session with bytes to send or that is to be closed.
    pub fn next_dirty(&mut self) -> Option<SessionId> {
        loop {
            let id = self.shared.dirty.pop()?;
            if let Some(session) = find(&mut self.slots, id) {
                session.line().flags.dirty = false;
                return Some(id);
            }
        }
    }

    /// Bytes to send, unless a send is under way. They stay valid and in place until
    /// [`end_send`](Self::end_send) or [`close`](Self::close).
    pub fn begin_send(&mut self, id: SessionId) -> Option<&[u8]> {
        find(&mut self.slots, id)?.line().begin_send()
    }

    /// `len` bytes have been sent; returns the rest of this send if there is one.
    pub fn end_send(&mut self, id: SessionId, len: usize) -> Option<&[u8]> {
        let session = find(&mut self.slots, id)?;
        self.shared.stats.bytes_out += len as u64;
        if session.line().end_send(len, &mut self.shared) {
            session.sent(&mut self.shared);
            if !session.line().output.is_empty() || session.is_finished() {
                self.shared.make_dirty(session.line());
            }
            return None;
        }
        session.line().rest_of_send()
    }

    /// The shard that the connection is to go on at, if it is not this one. It is done here when its
    /// input was [taken](Self::take_input).
    pub(crate) fn moves_to(&mut self, id: SessionId) -> Option<u16> {
        find(&mut self.slots, id)?.moves_to()
    }

    /// Takes the bytes that are not parsed.
    pub(crate) fn take_input(&mut self, id: SessionId) -> Vec<u8> {
        let Some(session) = find(&mut self.slots, id) else { return Vec::new() };
        self.shared.unparsed_bytes -= session.unparsed_bytes();
        session.take_input()
    }

    /// Whether bytes of the peer are welcome.
    pub fn wants_input(&mut self, id: SessionId) -> bool {
        let limits = &self.shared.limits;
        let is_crowded = self.shared.unparsed_bytes > limits.unparsed_bytes_max() / 2;
        find(&mut self.slots, id).is_some_and(|session| session.wants_input(limits, is_crowded))
    }

    /// Whether the connection is to be closed now.
    pub fn is_finished(&mut self, id: SessionId) -> bool {
        find(&mut self.slots, id).is_none_or(|session| session.is_finished())
    }

    /// Parses no more commands anywhere; sessions finish when what they owe has been sent.
    pub fn drain(&mut self) {
        for place in &mut self.slots {
            if let Some(session) = &mut place.session {
                self.shared.unparsed_bytes -= session.unparsed_bytes();
                session.say_goodbye(&mut self.shared);
                session.end();
                self.shared.make_dirty(session.line());
            }
        }
    }

    /// Sets what sessions say about the node.
    pub fn set_facts(&mut self, facts: S::Facts) {
        self.shared.facts = facts;
    }

    /// The bounds.
    pub fn limits(&self) -> &S::Limits {
        &self.shared.limits
    }

    /// What was done so far.
    pub fn stats(&self) -> SessionsStats {
        self.shared.stats
    }

    /// How many sessions are open.
    pub fn open_count(&self) -> usize {
        self.shared.open as usize
    }

    /// How many replies are owed over all sessions.
    pub fn owed_count(&self) -> u64 {
        self.shared.owed
    }

    /// Bytes over all sessions that wait for the rest of their command.
    pub fn unparsed_bytes(&self) -> usize {
        self.shared.unparsed_bytes
    }

    /// Whether a session has bytes to send or is to be closed.
    pub fn has_dirty(&self) -> bool {
        !self.shared.dirty.is_empty()
    }

    /// Whether a session can go on as soon as the shard takes requests.
    pub fn has_ready(&self) -> bool {
        !self.shared.ready.is_empty()
    }

    /// Too many unparsed bytes in all: the session that holds most of them pays.
    #[cold]
    fn close_worst(&mut self) {
        let sessions = self.slots.iter_mut().filter_map(|place| place.session.as_mut());
        let Some(worst) = sessions.max_by_key(|session| session.unparsed_bytes()) else {
            return;
        };
        let shared = &mut self.shared;
        shared.unparsed_bytes -= worst.unparsed_bytes();
        shared.stats.limit_closes += 1;
        worst.refuse_input(shared);
        worst.end();
        settle(worst, shared);
    }
}

impl<S: Session> Sessions<S> {
    /// Gives an answer to the session that it is for.
    #[inline]
    pub(crate) fn answered(&mut self, id: SessionId, take: impl FnOnce(&mut S, &mut Shared<S>)) {
        let Some(session) = find(&mut self.slots, id) else {
            self.shared.stats.late_answers += 1;
            return;
        };
        take(session, &mut self.shared);
        let flags = &session.line().flags;
        if flags.ending || flags.input_ended {
            settle(session, &mut self.shared);
        }
    }
}

impl<S: Session> std::fmt::Debug for Sessions<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("open", &self.shared.open)
            .field("limits", &self.shared.limits)
            .field("stats", &self.shared.stats)
            .finish_non_exhaustive()
    }
}

impl SessionId {
    /// The first word of a ticket.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.slot) | u64::from(self.generation) << 32
    }

    /// The session that a ticket is for.
    #[inline]
    pub(crate) fn of(ticket: Ticket) -> Self {
        let Ticket([word, _]) = ticket;
        Self { slot: word as u32, generation: (word >> 32) as u32 }
    }
}

#[inline]
fn find<S>(slots: &mut [Slot<S>], id: SessionId) -> Option<&mut S> {
    let place = slots.get_mut(id.slot as usize)?;
    if place.generation == id.generation { place.session.as_mut() } else { None }
}

/// Reports a session that is to be closed.
#[inline]
fn settle<S: Session>(session: &mut S, shared: &mut Shared<S>) {
    if session.is_finished() {
        shared.make_dirty(session.line());
    }
}
