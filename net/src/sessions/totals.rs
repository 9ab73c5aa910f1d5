//! What all connections of a shard may hold together: bytes that are not parsed, messages that are
//! not handled, output that is not read.
//!
//! While they hold much, each pauses at its share; whoever holds most pays for what goes beyond.

use super::{Bounds as _, Line, Session, Sessions, Shared, kill, settle};

/// What of something connections may hold, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// At so much, one of them pauses.
    pub pause: usize,
    /// At half of so much over all of them, each pauses at its share of that half.
    pub total_max: usize,
}

impl Allowance {
    /// At what a connection of `open` pauses, which together hold `held`. Who holds nothing may go
    /// on in any case, as nothing would end its pause.
    #[inline]
    fn pause_of(self, open: u32, held: usize) -> usize {
        let half = self.total_max / 2;
        if held <= half { self.pause } else { self.pause.min((half / open.max(1) as usize).max(1)) }
    }
}

/// A peer that has taken nothing for so long is slow.
const SLOW_NS: u64 = 50_000_000;

/// Between two looks at all sessions for one that is.
const LOOK_NS: u64 = 1_000_000;

impl<S: Session> Sessions<S> {
    /// Bytes over all sessions that wait for the rest of their command.
    pub fn unparsed_bytes(&self) -> usize {
        self.shared.unparsed_bytes
    }

    /// Bytes of output over all sessions: what waits to be sent, to be in order, or for the kernel
    /// to be done with it.
    pub fn output_bytes(&self) -> usize {
        self.shared.output_bytes
    }

    /// Bytes of messages that are not handled, over all sessions, closed ones included.
    pub fn message_bytes(&self) -> usize {
        self.shared.message_bytes
    }

    /// Too many unparsed bytes in all: the session that holds most of them pays.
    #[cold]
    pub(super) fn close_worst(&mut self) {
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

    /// More output in all than there should be: of the sessions whose peers have taken nothing for
    /// a while, the one that holds most pays. What was only just said has had no chance to be read;
    /// but beyond twice as much whoever holds most pays.
    #[cold]
    pub(super) fn close_slowest(&mut self) {
        let shared = &mut self.shared;
        let now_ns = shared.now_ns;
        let is_far_beyond = shared.output_bytes / 2 > shared.limits.output().total_max;
        if !is_far_beyond && now_ns < shared.slow_look_ns {
            return;
        }
        shared.slow_look_ns = now_ns.saturating_add(LOOK_NS);
        let sessions = self.slots.iter_mut().filter_map(|place| {
            let session = place.session.as_mut()?;
            let pays = is_far_beyond || session.line().is_slow(now_ns, SLOW_NS);
            (pays && !session.is_finished()).then_some(session)
        });
        let Some(slowest) = sessions.max_by_key(|session| session.output_bytes()) else {
            return;
        };
        shared.stats.limit_closes += 1;
        shared.discount_output(slowest.line());
        kill(slowest, shared);
    }
}

impl<S: Session> Shared<S> {
    /// Bytes of output past which a session pauses. While all of them hold much, each may hold no
    /// more than its share.
    #[inline]
    pub(crate) fn output_bytes_pause(&self) -> usize {
        self.limits.output().pause_of(self.open, self.output_bytes)
    }

    /// Bytes of messages that are not handled, past which a session pauses; as with output.
    #[inline]
    pub(crate) fn message_bytes_pause(&self) -> usize {
        self.limits.messages().pause_of(self.open, self.message_bytes)
    }

    /// A message has been handled, whether or not its session is still there.
    #[inline]
    pub(crate) fn handled(&mut self, message_bytes: usize) {
        debug_assert!(self.message_bytes >= message_bytes);
        self.message_bytes = self.message_bytes.saturating_sub(message_bytes);
    }

    /// Counts the output of a session anew. That of one that is to be closed at once goes soon.
    #[inline]
    pub(super) fn count_output(&mut self, session: &mut S) {
        let bytes = session.output_bytes();
        let line = session.line();
        if !line.flags.killed {
            self.output_bytes = self.output_bytes - line.counted_bytes + bytes;
            line.counted_bytes = bytes;
        }
    }

    /// The output of a session counts no more.
    pub(super) fn discount_output(&mut self, line: &mut Line) {
        self.output_bytes -= std::mem::take(&mut line.counted_bytes);
    }
}
