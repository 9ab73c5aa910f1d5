//! What all sessions of a shard share: bounds, counts, the time, and spare memory.

use std::collections::VecDeque;
use std::sync::Arc;

use coreside_shard::rkyv::util::AlignedVec;

use super::deadlines::Spans;
use super::output::{Blocks, Output};
use super::wheel::Wheel;
use super::{Bounds as _, Line, Session, SessionId, SessionsStats};
use crate::native::frame::ALIGN;
use crate::tls::ServerTls;

/// What all sessions of a shard share.
pub struct Shared<S: Session> {
    pub(crate) limits: S::Limits,
    pub(crate) stats: SessionsStats,
    pub(crate) facts: S::Facts,
    /// Sessions that are open.
    pub(crate) open: u32,
    /// Answers owed over all sessions.
    pub(crate) owed: u64,
    pub(super) unparsed_bytes: usize,
    /// Bytes of output over all sessions, as far as they were counted.
    pub(super) output_bytes: usize,
    /// Bytes of messages that are not handled, over all sessions, those that are gone included.
    pub(crate) message_bytes: usize,
    pub(super) dirty: Vec<SessionId>,
    pub(super) ready: VecDeque<SessionId>,
    /// Empty buffers that keep their memory for the next connection that needs one, so that idle
    /// connections hold none.
    pub(super) spare: Vec<Vec<u8>>,
    /// Registered memory for large outputs.
    pub(super) blocks: Blocks,
    /// The time, as far as anybody has said it.
    pub(super) now_ns: u64,
    pub(super) spans: Spans,
    pub(super) wheel: Wheel,
    /// With what connections are secured, if they are.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// What TLS was taken off from; empty except during a receive. Aligned like what the kernel
    /// receives into.
    pub(super) plain: AlignedVec<ALIGN>,
}

/// How many buffers, and how large ones, are kept.
const SPARE_MAX: usize = 256;
const SPARE_BYTES_MAX: usize = 64 * 1024;

impl<S: Session> Shared<S> {
    pub(super) fn new(limits: S::Limits) -> Self {
        Self {
            spans: limits.deadlines().into(),
            limits,
            stats: SessionsStats::default(),
            facts: S::Facts::default(),
            open: 0,
            owed: 0,
            unparsed_bytes: 0,
            output_bytes: 0,
            message_bytes: 0,
            dirty: Vec::new(),
            ready: VecDeque::new(),
            spare: Vec::new(),
            blocks: Blocks::default(),
            now_ns: 0,
            wheel: Wheel::new(),
            tls: None,
            plain: AlignedVec::new(),
        }
    }

    /// Bytes of output past which a session pauses. While all of them hold much, each may hold no
    /// more than its share.
    #[inline]
    pub(crate) fn output_bytes_pause(&self) -> usize {
        let (alone, total_max) =
            (self.limits.output_bytes_pause(), self.limits.output_bytes_total_max());
        if self.output_bytes <= total_max / 2 { alone } else { alone.min(self.share(total_max)) }
    }

    /// Bytes of messages that are not handled, past which a session pauses; as with output.
    #[inline]
    pub(crate) fn message_bytes_pause(&self) -> usize {
        let (alone, total_max) =
            (self.limits.message_bytes_pause(), self.limits.message_bytes_total_max());
        if self.message_bytes <= total_max / 2 { alone } else { alone.min(self.share(total_max)) }
    }

    /// What each session may hold, so that all of them together hold half of what they may. Who
    /// holds nothing may go on in any case, as nothing would end its pause.
    #[cold]
    fn share(&self, total_max: usize) -> usize {
        (total_max / 2 / self.open.max(1) as usize).max(1)
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

    /// Memory for an output, which is expected to have so many bytes.
    #[inline]
    pub(super) fn output(&mut self, bytes: usize) -> Output {
        let block = if self.blocks.suits(bytes) { self.blocks.take() } else { None };
        block.unwrap_or_else(|| Output::new(self.spare.pop().unwrap_or_default()))
    }

    /// Takes the memory of an output, and what is in it.
    pub(super) fn strip_output(&mut self, output: Output) {
        if let Some(output) = self.blocks.give(output) {
            self.strip(&mut output.into_bytes());
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
