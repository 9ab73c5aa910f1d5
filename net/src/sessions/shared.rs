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
    /// When slow peers are looked for again, while that is too much.
    pub(super) slow_look_ns: u64,
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
            slow_look_ns: 0,
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
