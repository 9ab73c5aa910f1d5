//! The stash: what waits for one busy entity, in order.

use std::collections::VecDeque;

use crate::owned_record::OwnedRecord;
use crate::pending::Outside;
use crate::shard::Shard;

/// Records and continuations that wait for one entity, first in, first out.
pub(crate) type Stash = VecDeque<Stashed>;

/// The turn of a continuation or a timer that found its entity busy.
pub(crate) type Continuation = Box<dyn FnOnce(&mut Shard, &mut dyn Outside)>;

/// One turn that waits.
pub(crate) enum Stashed {
    /// A tell or an ask, and how often it was tried.
    Record { record: OwnedRecord, tries: u32 },
    /// An answer or a timer, for the life of this generation.
    Resume { generation: u32, turn: Continuation, is_answer: bool },
}
