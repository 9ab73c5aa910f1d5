//! All connections of a shard that speak one protocol, without their sockets.
//!
//! What a protocol makes of bytes is its [`Session`]'s; here is what is the same for all: names
//! that are never used again, who has something to send, who may go on, and what they hold
//! together.
//!
//! # Invariants
//! - A session is in the list `ready` exactly when its flag `ready` is set, and in `dirty` exactly
//!   when its flag `dirty` is set; so no list is longer than the number of sessions that ever were.
//! - `owed` and `unparsed_bytes` are the sums over all sessions. So is `output_bytes` of what was
//!   counted: at each look for what is to be sent, and when something was. `message_bytes` is the
//!   sum over the tickets of messages whose answers are still to come.
//!
//! | module | holds |
//! |---|---|
//! | `protocol` | what a protocol says of its sessions, and of their bounds |
//! | `line` | what is the same for every session: what is being sent, its switches, its times |
//! | `outgoing` | what of a session is being sent |
//! | `output` | memory of output, registered or not |
//! | `held` | what was sent, and is still read by the kernel |
//! | `direct` | receiving the rest of a long request straight into place |
//! | `parted` | how a connection goes on at another shard |
//! | `deadlines` | how long a connection may take for what it owes |
//! | `wheel` | when to look at which session |
//! | `shared` | what all sessions of a shard share |
//! | `totals` | what all connections may hold together |
//! | `stats` | what was counted |
//! | `addresses` | how many connections each address has |

mod addresses;
mod deadlines;
mod direct;
mod held;
mod line;
mod outgoing;
mod output;
mod parted;
mod protocol;
mod shared;
mod stats;
mod totals;
mod wheel;

use std::net::SocketAddr;
use std::sync::Arc;

use coreside_shard::{Body, Ticket};

use self::addresses::{Addresses, Source};
pub use self::deadlines::Deadlines;
use self::deadlines::Times;
pub use self::direct::{Direct, Memory};
pub(crate) use self::held::{PLACES_MAX, Place};
pub use self::line::Line;
pub(crate) use self::output::Blocks;
pub(crate) use self::parted::Parted;
pub use self::protocol::{Bounds, Session, Talk};
pub use self::shared::Shared;
pub use self::stats::SessionsStats;
pub use self::totals::Allowance;
use crate::tls::{Opened, ServerTls};

/// Names a session; a name is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId {
    /// Where the session sits.
    pub slot: u32,
    /// Tells the sessions apart that sat there one after the other.
    pub generation: u32,
}

/// The sessions of one shard.
pub struct Sessions<S: Session> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    addresses: Addresses,
    /// Sessions to look at; empty except during a look.
    due: Vec<(SessionId, u64)>,
    shared: Shared<S>,
}

struct Slot<S> {
    generation: u32,
    session: Option<S>,
    /// Where its connection is counted.
    source: Option<Source>,
}

impl<S: Session> Sessions<S> {
    /// No sessions yet.
    ///
    /// # Panics
    /// If the limits make no sense together.
    pub fn new(limits: S::Limits) -> Self {
        limits.check();
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            addresses: Addresses::default(),
            due: Vec::new(),
            shared: Shared::new(limits),
        }
    }

    /// Has connections speak TLS from here on; those that are open go on as they are.
    pub fn set_tls(&mut self, tls: Option<Arc<ServerTls>>) {
        self.shared.tls = tls;
    }

    /// Whether new connections speak TLS.
    pub(crate) fn is_secured(&self) -> bool {
        self.shared.tls.is_some()
    }

    /// Says what time it is, counted from anywhere, and closes connections that have missed a
    /// deadline. Nothing is due where nobody says it.
    ///
    /// # Cost
    /// A comparison, but for 7 times in a second.
    #[inline]
    pub fn tick(&mut self, now_ns: u64) {
        self.shared.now_ns = now_ns;
        if self.shared.wheel.is_due(now_ns) {
            self.look();
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.shared.wheel.next_ns()
    }

    #[cold]
    fn look(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.shared.wheel.turn(self.shared.now_ns, &mut due);
        for (id, granule) in due.drain(..) {
            let Some(session) = find(&mut self.slots, id) else { continue };
            if session.line().times.unfile(granule) {
                deadlines::look(session, &mut self.shared);
            }
        }
        self.due = due;
    }

    /// A new session, unless there are as many as the limits allow, in all or of its address.
    pub fn open(&mut self, peer: Option<SocketAddr>) -> Option<SessionId> {
        if self.shared.open >= self.shared.limits.connections_max() {
            return None;
        }
        let tls = match &self.shared.tls {
            Some(tls) => Some(Box::new(tls.accept()?)),
            None => None,
        };
        let source = Source::of(peer);
        if !self.addresses.admit(source, self.shared.limits.connections_per_address_max()) {
            self.shared.stats.address_refusals += 1;
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None, source: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        let id = SessionId { slot, generation: place.generation };
        place.source = source;
        let session = place.session.insert(S::new(id, peer, &self.shared));
        session.line().tls = tls;
        session.line().times = Times::new(self.shared.now_ns);
        deadlines::file(session, &mut self.shared);
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
        self.shared.discount_output(session.line());
        session.line().retire(&mut self.shared);
        self.shared.open -= 1;
        self.shared.stats.closed += 1;
        let place = &mut self.slots[id.slot as usize];
        self.addresses.release(place.source.take());
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
        self.receive_lent(id, Body::new(bytes), intake);
    }

    /// Like [`receive`](Self::receive), of bytes that may stay where they are while somebody looks
    /// at them.
    #[inline]
    pub fn receive_lent<I>(&mut self, id: SessionId, input: Body<'_>, intake: &mut I)
    where
        S: Talk<I>,
    {
        let Some(session) = find(&mut self.slots, id) else {
            return;
        };
        let shared = &mut self.shared;
        shared.stats.bytes_in += input.bytes().len() as u64;
        session.line().times.spoken();
        let (before, requests) = (session.unparsed_bytes(), shared.stats.requests);
        if session.line().tls.is_some() {
            receive_sealed(session, input.bytes(), intake, shared);
        } else {
            session.receive(input, intake, shared);
        }
        note(session, before, requests, shared);
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
            kill(session, &mut self.shared);
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
            let shared = &mut self.shared;
            let (before, requests) = (session.unparsed_bytes(), shared.stats.requests);
            session.resume(intake, shared);
            note(session, before, requests, shared);
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
                self.shared.count_output(session);
                if self.shared.output_bytes > self.shared.limits.output().total_max {
                    self.close_slowest();
                }
                return Some(id);
            }
        }
    }

    /// Whether nothing is to be sent any more.
    pub(crate) fn is_killed(&mut self, id: SessionId) -> bool {
        find(&mut self.slots, id).is_none_or(|session| session.line().flags.killed)
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
                if session.line().is_tls_shaking() {
                    // Nothing can be said yet, and nothing was asked.
                    session.kill();
                }
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

    /// Whether a session has bytes to send or is to be closed.
    pub fn has_dirty(&self) -> bool {
        !self.shared.dirty.is_empty()
    }

    /// Whether a session can go on as soon as the shard takes requests.
    pub fn has_ready(&self) -> bool {
        !self.shared.ready.is_empty()
    }
}

impl<S: Session> Sessions<S> {
    /// Gives an answer to the session that it is for.
    #[inline]
    pub(crate) fn answered(
        &mut self,
        id: SessionId,
        message_bytes: usize,
        take: impl FnOnce(&mut S, &mut Shared<S>),
    ) {
        if !self.handled(id, message_bytes, take) {
            self.shared.stats.late_answers += 1;
        }
    }

    /// Gives word of a message of so many bytes to the session that it is for. Returns whether that
    /// is there.
    #[inline]
    pub(crate) fn handled(
        &mut self,
        id: SessionId,
        message_bytes: usize,
        take: impl FnOnce(&mut S, &mut Shared<S>),
    ) -> bool {
        self.shared.handled(message_bytes);
        let Some(session) = find(&mut self.slots, id) else { return false };
        take(session, &mut self.shared);
        let flags = &session.line().flags;
        if flags.ending || flags.input_ended {
            settle(session, &mut self.shared);
        }
        true
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

/// Has a session closed without sending what is left.
fn kill<S: Session>(session: &mut S, shared: &mut Shared<S>) {
    shared.unparsed_bytes -= session.unparsed_bytes();
    session.kill();
    settle(session, shared);
}

/// Notes what a session has parsed.
#[inline]
fn note<S: Session>(session: &mut S, before: usize, requests: u64, shared: &mut Shared<S>) {
    shared.unparsed_bytes = shared.unparsed_bytes - before + session.unparsed_bytes();
    if shared.stats.requests != requests {
        deadlines::heard(session, shared);
    }
}

/// Takes TLS off and gives what is inside to the session.
fn receive_sealed<S: Talk<I>, I>(
    session: &mut S,
    bytes: &[u8],
    intake: &mut I,
    shared: &mut Shared<S>,
) {
    let mut plain = std::mem::take(&mut shared.plain);
    let line = session.line();
    let opened = match &mut line.tls {
        Some(tls) if !line.flags.ending && !line.flags.killed => {
            let was_shaking = tls.is_shaking();
            let opened = tls.open(bytes, &mut plain);
            if was_shaking && !tls.is_shaking() {
                line.rights = tls.rights();
            }
            opened
        }
        _ => Ok(Opened::More),
    };
    match opened {
        Ok(opened) => {
            if !plain.is_empty() {
                session.receive(Body::new(&plain), intake, shared);
            }
            session.line().flags.input_ended |= opened == Opened::Last;
        }
        Err(_) => {
            shared.stats.tls_failures += 1;
            session.end();
        }
    }
    // Its part of the handshake, or what it does not like.
    if session.line().tls.as_ref().is_some_and(|tls| tls.has_output()) {
        shared.make_dirty(session.line());
    }
    plain.clear();
    shared.plain = plain;
}

/// Reports a session that is to be closed, or that has a last word to say.
#[inline]
fn settle<S: Session>(session: &mut S, shared: &mut Shared<S>) {
    if session.is_finished() || session.line().owes_goodbye() {
        shared.make_dirty(session.line());
    }
}
