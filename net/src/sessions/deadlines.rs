//! How long a connection may take for what it owes.
//!
//! Nobody looks at all connections: each that has a deadline is filed in a [`Wheel`](super::wheel),
//! under the time of the first that it may miss. When that time comes, its session is looked at:
//! what has happened meanwhile has moved the deadline, and it is filed again, or it is closed.
//!
//! # Invariants
//! - `filed` is the earliest granule of the wheel in which the session lies; it may lie in later
//!   ones too, which say nothing. A session is filed anew only for an earlier granule or after a
//!   look, so it never lies in more places than there are looks in a round of the wheel.

use std::time::Duration;

use super::line::Line;
use super::{Session, Shared, kill};

/// How long a connection may take for what it owes; `None`: as long as it likes. Kept to a few
/// tenths of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the connection to its first byte.
    pub first_byte: Option<Duration>,
    /// From the connection to the end of its handshake: that of TLS, then the protocol's own, if it
    /// has one.
    pub handshake: Option<Duration>,
    /// From one whole request to the next while nothing is owed. Bytes that are no whole request do
    /// not count. Where the protocol can, the node asks for a sign of life at half the time.
    pub idle: Option<Duration>,
    /// While the peer takes nothing of what is being sent to it, or, where that is not copied,
    /// confirms nothing of it.
    pub stall: Option<Duration>,
}

impl Deadlines {
    /// A connection may take as long as it likes.
    pub const NONE: Self = Self { first_byte: None, handshake: None, idle: None, stall: None };
}

/// Deadlines in nanoseconds; [`NEVER`] where there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    first_byte_ns: u64,
    handshake_ns: u64,
    idle_ns: u64,
    stall_ns: u64,
}

/// A time that does not come, and a granule that is none.
const NEVER: u64 = u64::MAX;

impl From<Deadlines> for Spans {
    fn from(deadlines: Deadlines) -> Self {
        let ns = |span: Option<Duration>| {
            span.map_or(NEVER, |span| u64::try_from(span.as_nanos()).unwrap_or(NEVER))
        };
        Self {
            first_byte_ns: ns(deadlines.first_byte),
            handshake_ns: ns(deadlines.handshake),
            idle_ns: ns(deadlines.idle),
            stall_ns: ns(deadlines.stall),
        }
    }
}

/// What deadlines are counted from.
#[derive(Debug)]
pub(super) struct Times {
    opened_ns: u64,
    /// The last whole request, or when something was owed last.
    heard_ns: u64,
    /// Since when the send under way has made no progress.
    moved_ns: u64,
    /// A byte has come.
    has_spoken: bool,
    /// A sign of life was asked for since.
    pinged: bool,
    filed: u64,
}

/// What a look finds.
enum Due {
    Later,
    Ping,
    Close,
}

impl Times {
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            opened_ns: now_ns,
            heard_ns: now_ns,
            moved_ns: now_ns,
            has_spoken: false,
            pinged: false,
            filed: NEVER,
        }
    }

    /// Whether the send under way has made no progress for `time_ns`.
    pub(super) fn is_stuck(&self, now_ns: u64, time_ns: u64) -> bool {
        now_ns.saturating_sub(self.moved_ns) >= time_ns
    }

    /// A byte has come.
    #[inline]
    pub(super) fn spoken(&mut self) {
        self.has_spoken = true;
    }

    /// A whole request has come.
    #[inline]
    pub(super) fn heard(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
        self.pinged = false;
    }

    /// The peer has taken bytes, or a send begins.
    #[inline]
    pub(super) fn moved(&mut self, now_ns: u64) {
        self.moved_ns = now_ns;
    }

    /// Whether the session was filed in this granule, and not earlier. Then it no longer is.
    pub(super) fn unfile(&mut self, granule: u64) -> bool {
        let is_first = self.filed == granule;
        if is_first {
            self.filed = NEVER;
        }
        is_first
    }

    /// The first time at which something may be due, with what that is.
    fn next(&self, is_shaking: bool, awaits_peer: bool, spans: &Spans) -> (u64, Due) {
        let mut close_ns = NEVER;
        if !self.has_spoken {
            close_ns = close_ns.min(self.opened_ns.saturating_add(spans.first_byte_ns));
        }
        if awaits_peer {
            close_ns = close_ns.min(self.moved_ns.saturating_add(spans.stall_ns));
        }
        if is_shaking {
            return (close_ns.min(self.opened_ns.saturating_add(spans.handshake_ns)), Due::Close);
        }
        if !self.pinged && spans.idle_ns != NEVER {
            let ping_ns = self.heard_ns.saturating_add(spans.idle_ns / 2);
            if ping_ns < close_ns {
                return (ping_ns, Due::Ping);
            }
        }
        (close_ns.min(self.heard_ns.saturating_add(spans.idle_ns)), Due::Close)
    }
}

impl Line {
    /// Whether the peer has nothing to say for the moment: it waits, or we do not listen.
    fn is_busy(&self, owed: u32) -> bool {
        let flags = &self.flags;
        owed > 0 || flags.stalled || flags.ready || flags.ending || self.awaits_peer()
    }

    /// A send begins: it may not stall for ever.
    #[inline]
    pub(super) fn send_begins<S: Session>(&mut self, shared: &mut Shared<S>) {
        self.times.moved(shared.now_ns);
        let due_ns = shared.now_ns.saturating_add(shared.spans.stall_ns);
        self.file(due_ns, shared);
    }

    /// Has the session looked at when `due_ns` is over, unless it is looked at before.
    #[inline]
    fn file<S: Session>(&mut self, due_ns: u64, shared: &mut Shared<S>) {
        if due_ns == NEVER {
            return;
        }
        let granule = shared.wheel.granule(due_ns);
        if granule < self.times.filed {
            self.times.filed = granule;
            shared.wheel.file(self.id, granule);
        }
    }
}

fn is_shaking<S: Session>(session: &mut S) -> bool {
    !session.is_greeted() || session.line().is_tls_shaking()
}

/// Has a session looked at when its first deadline is over.
pub(super) fn file<S: Session>(session: &mut S, shared: &mut Shared<S>) {
    let is_shaking = is_shaking(session);
    let line = session.line();
    let (due_ns, _) = line.times.next(is_shaking, line.awaits_peer(), &shared.spans);
    line.file(due_ns, shared);
}

/// Notes that a whole request has come. The first one may begin a deadline, where the handshake had
/// none.
#[inline]
pub(super) fn heard<S: Session>(session: &mut S, shared: &mut Shared<S>) {
    let times = &mut session.line().times;
    times.heard(shared.now_ns);
    if times.filed == NEVER && shared.spans.idle_ns != NEVER {
        file(session, shared);
    }
}

/// Looks at a session whose time has come.
pub(super) fn look<S: Session>(session: &mut S, shared: &mut Shared<S>) {
    if session.line().flags.killed {
        return;
    }
    let (owed, is_shaking) = (session.owed(), is_shaking(session));
    let line = session.line();
    if !is_shaking && line.is_busy(owed) {
        line.times.heard(shared.now_ns);
    }
    let (due_ns, due) = line.times.next(is_shaking, line.awaits_peer(), &shared.spans);
    let due = if due_ns <= shared.now_ns { due } else { Due::Later };
    match due {
        Due::Later => {}
        Due::Ping => {
            line.times.pinged = true;
            session.ping(shared);
        }
        Due::Close => {
            shared.stats.timeouts += 1;
            kill(session, shared);
            return;
        }
    }
    file(session, shared);
}
