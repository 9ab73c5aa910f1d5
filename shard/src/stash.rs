//! The stash: what waits for one busy entity, in order.
//!
//! An ask waits until its deadline and no longer: else entities that are busy for long would fill
//! the memory with messages that nobody waits for any more.

use std::collections::VecDeque;

use crate::core::Core;
use crate::dead_letter::Reason;
use crate::index::SlotNumber;
use crate::owned_record::OwnedRecord;
use crate::pending::Outside;
use crate::reply::AskError;
use crate::schedule::Alarm;
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

/// Between two looks at one stash, at least.
const LOOK_NS: u64 = 10_000_000;

impl Stashed {
    /// When nobody waits for it any more.
    fn deadline_ns(&self) -> Option<u64> {
        match self {
            Self::Record { record, .. } => record.deadline_ns(),
            Self::Resume { .. } => None,
        }
    }
}

impl Core {
    /// Has a message wait for an entity, behind all others.
    pub(crate) fn stash_last(&mut self, kind: u16, slot: SlotNumber, record: OwnedRecord) {
        let deadline_ns = record.deadline_ns();
        let stash = &mut self.attached.entry(kind, slot).stash;
        stash.push_back(Stashed::Record { record, tries: 0 });
        self.look_at(kind, slot, deadline_ns);
    }

    /// Has a message that was tried so often wait for an entity, before all others.
    pub(crate) fn stash_first(
        &mut self,
        kind: u16,
        slot: SlotNumber,
        record: OwnedRecord,
        tries: u32,
    ) {
        let deadline_ns = record.deadline_ns();
        let stash = &mut self.attached.entry(kind, slot).stash;
        stash.push_front(Stashed::Record { record, tries });
        self.look_at(kind, slot, deadline_ns);
    }

    /// Has a stash looked at when the first of its asks is late, but not before `least_ns`.
    pub(crate) fn look_after(&mut self, kind: u16, slot: SlotNumber, least_ns: u64) {
        let attached = self.attached.get(kind, slot);
        let stash = attached.iter().flat_map(|attached| &attached.stash);
        let first_ns = stash.filter_map(Stashed::deadline_ns).min();
        self.look_at(kind, slot, first_ns.map(|first_ns| first_ns.max(least_ns)));
    }

    /// Has a stash looked at by then.
    fn look_at(&mut self, kind: u16, slot: SlotNumber, at_ns: Option<u64>) {
        let Some(at_ns) = at_ns.filter(|at_ns| *at_ns < u64::MAX) else { return };
        let attached = self.attached.entry(kind, slot);
        if let Some(look) = attached.look {
            if self.wheel.deadline_ns(look).is_some_and(|set_ns| set_ns <= at_ns) {
                return;
            }
            self.wheel.cancel(look);
        }
        attached.look = self.wheel.insert(at_ns, Alarm::Stale { kind, slot }).ok();
    }
}

impl Shard {
    /// Gives up the asks in a stash whose time is over.
    pub(crate) fn expire_stashed(&mut self, kind: u16, slot: SlotNumber) {
        let now_ns = self.core.now.monotonic_ns;
        let Some(attached) = self.core.attached.get_mut(kind, slot) else { return };
        attached.look = None;
        let mut late = Vec::new();
        for _ in 0..attached.stash.len() {
            match attached.stash.pop_front() {
                Some(Stashed::Record { record, tries }) if record.is_late(now_ns) => {
                    late.push((record, tries));
                }
                other => attached.stash.extend(other),
            }
        }
        self.core.look_after(kind, slot, now_ns.saturating_add(LOOK_NS));
        for (record, tries) in late {
            self.bury_late(record, tries);
        }
        self.core.attached.tidy(kind, slot);
    }

    /// Gives up a message whose time is over, which was tried so often.
    pub(crate) fn bury_late(&mut self, record: OwnedRecord, tries: u32) {
        self.core.stats.expired += 1;
        // One that is tried again has had a turn, which failed.
        let error = if tries > 0 { AskError::Failed } else { AskError::Expired };
        self.bury(record, Reason::Expired, error);
    }
}
