//! All connections of a shard, without their sockets.
//!
//! # Invariants
//! - A session is in the list `ready` exactly when its flag `ready` is set, and in `dirty` exactly
//!   when its flag `dirty` is set; so no list is longer than the number of sessions that ever were.
//! - `owed` and `unparsed_bytes` are the sums over all sessions.

use std::collections::VecDeque;
use std::net::SocketAddr;

use coreside_shard::{AskError, Outside, Ticket, ToValue};

use super::builtin::Facts;
use super::intake::Intake;
use super::limits::Limits;
use super::session::{Flags, Session, parts_of};

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
    /// Commands taken, built-ins and wrong ones included.
    pub commands: u64,
    /// Connections closed because the peer does not speak the protocol.
    pub protocol_errors: u64,
    /// Connections closed because they went beyond a limit.
    pub limit_closes: u64,
    /// Answers to connections that are gone.
    pub late_answers: u64,
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct Sessions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    shared: Shared,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    session: Option<Session>,
}

/// What all sessions of a shard share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) stats: SessionsStats,
    pub(crate) facts: Facts,
    /// Sessions that are open.
    pub(crate) open: u32,
    /// Replies owed over all sessions.
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

impl Shared {
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
    pub(crate) fn make_dirty(&mut self, flags: &mut Flags, id: SessionId) {
        if !flags.dirty {
            flags.dirty = true;
            self.dirty.push(id);
        }
    }

    pub(crate) fn make_ready(&mut self, flags: &mut Flags, id: SessionId) {
        if !flags.ready {
            flags.ready = true;
            self.ready.push_back(id);
        }
    }
}

impl Sessions {
    /// No sessions yet.
    ///
    /// # Panics
    /// If a limit is beyond what 32-bit spans can name.
    pub fn new(limits: Limits) -> Self {
        assert!(limits.query_bytes_max <= 1 << 31, "spans have 32 bits");
        assert!(limits.output_bytes_max <= 1 << 31, "spans have 32 bits");
        assert!(limits.pipeline_max >= 1, "a session must be able to ask");
        let shared = Shared {
            limits,
            stats: SessionsStats::default(),
            facts: Facts::default(),
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
        if self.shared.open >= self.shared.limits.connections_max {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, session: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        let id = SessionId { slot, generation: place.generation };
        let facts = &self.shared.facts;
        let number =
            self.shared.stats.opened * u64::from(facts.shards.max(1)) + u64::from(facts.shard) + 1;
        place.session = Some(Session::new(id, number, peer));
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
    pub fn receive<I: Intake>(&mut self, id: SessionId, bytes: &[u8], intake: &mut I) {
        let Some(session) = find(&mut self.slots, id) else {
            return;
        };
        let shared = &mut self.shared;
        shared.stats.bytes_in += bytes.len() as u64;
        let before = session.unparsed_bytes();
        session.receive(bytes, intake, shared);
        shared.unparsed_bytes = shared.unparsed_bytes - before + session.unparsed_bytes();
        settle(session, shared);
        if shared.unparsed_bytes > shared.limits.query_bytes_total_max {
            self.close_worst();
        }
    }

    /// The peer will send no more.
    pub fn end_input(&mut self, id: SessionId) {
        if let Some(session) = find(&mut self.slots, id) {
            session.end_input();
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
    pub fn resume<I: Intake>(&mut self, intake: &mut I) -> usize {
        let mut count = 0;
        for _ in 0..self.shared.ready.len() {
            if intake.is_congested() {
                break;
            }
            let Some(id) = self.shared.ready.pop_front() else {
                break;
            };
            let Some(session) = find(&mut self.slots, id) else {
                continue;
            };
            session.flags.ready = false;
            if session.flags.killed || session.flags.ending {
                continue;
            }
            let before = session.unparsed_bytes();
            session.resume(intake, &mut self.shared);
            let shared = &mut self.shared;
            shared.unparsed_bytes = shared.unparsed_bytes - before + session.unparsed_bytes();
            // Whoever reads the socket may have to go on as well.
            shared.make_dirty(&mut session.flags, id);
            count += 1;
        }
        count
    }

    /// The next session with bytes to send or that is to be closed.
    pub fn next_dirty(&mut self) -> Option<SessionId> {
        loop {
            let id = self.shared.dirty.pop()?;
            if let Some(session) = find(&mut self.slots, id) {
                session.flags.dirty = false;
                return Some(id);
            }
        }
    }

    /// Bytes to send, unless a send is under way. They stay valid and in place until
    /// [`end_send`](Self::end_send) or [`close`](Self::close).
    pub fn begin_send(&mut self, id: SessionId) -> Option<&[u8]> {
        find(&mut self.slots, id)?.begin_send()
    }

    /// `len` bytes have been sent; returns the rest of this send if there is one.
    pub fn end_send(&mut self, id: SessionId, len: usize) -> Option<&[u8]> {
        let session = find(&mut self.slots, id)?;
        self.shared.stats.bytes_out += len as u64;
        if session.end_send(len, &mut self.shared) {
            if session.has_output() || session.is_finished() {
                self.shared.make_dirty(&mut session.flags, id);
            }
            return None;
        }
        session.rest_of_send()
    }

    /// Whether bytes of the peer are welcome.
    pub fn wants_input(&mut self, id: SessionId) -> bool {
        let limits = &self.shared.limits;
        let is_crowded = self.shared.unparsed_bytes > limits.query_bytes_total_max / 2;
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
                session.end();
                self.shared.make_dirty(&mut session.flags, session.id);
            }
        }
    }

    /// Sets what `INFO` and `HELLO` say about the node.
    pub fn set_facts(&mut self, facts: Facts) {
        self.shared.facts = facts;
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
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
        worst.reply(shared, |writer| {
            writer.error_bytes(b"ERR too many bytes of unfinished commands in this shard");
        });
        worst.end();
        settle(worst, shared);
    }
}

impl Outside for Sessions {
    #[inline]
    fn answer(&mut self, ticket: Ticket, answer: Result<&dyn ToValue, AskError>) {
        let (id, sequence, part) = parts_of(ticket);
        let Some(session) = find(&mut self.slots, id) else {
            self.shared.stats.late_answers += 1;
            return;
        };
        session.answer(sequence, part, answer, &mut self.shared);
        if session.flags.ending || session.flags.input_ended {
            settle(session, &mut self.shared);
        }
    }
}

#[inline]
fn find(slots: &mut [Slot], id: SessionId) -> Option<&mut Session> {
    let place = slots.get_mut(id.slot as usize)?;
    if place.generation == id.generation { place.session.as_mut() } else { None }
}

/// Reports a session that is to be closed.
#[inline]
fn settle(session: &mut Session, shared: &mut Shared) {
    if session.is_finished() {
        shared.make_dirty(&mut session.flags, session.id);
    }
}
