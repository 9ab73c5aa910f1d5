//! Asks that wait for each other in a circle are found when the last of them arrives.
//!
//! An ask that arrives at an entity whose async turn is under way has to wait for that turn. If the
//! turn itself waits, through asks of others, for the one who asks, none of them would ever go on.
//! So a probe follows the asks backwards (edge chasing; Chandy, Misra and Haas 1983): from an ask
//! to the turn that made it, from there to the ask that this turn is to answer, and so on, across
//! shards. If it comes back to the entity where it began, the ask there is refused.
#![expect(unsafe_code, reason = "slots lie in reserved memory")]

use std::sync::Arc;

use crate::identity::EntityId;
use crate::reply::{AskError, Cycle, Token};
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::stash::Stashed;
use crate::system::System;
use crate::task::Hold;

/// The longest circle that is looked for.
const PATH_MAX: usize = 64;

/// Follows asks backwards.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The ask that waits for a busy entity.
    refused: Token,
    /// That entity.
    busy: EntityId,
    /// The ask that is looked at next.
    at: Token,
    path: Vec<EntityId>,
}

impl Probe {
    /// The shard where the probe has to look next.
    pub(crate) fn shard(&self) -> u16 {
        self.at.shard()
    }
}

impl Shard {
    /// An ask waits for an entity that is busy: is it the entity that makes it wait?
    pub(crate) fn probe(&mut self, refused: Token, busy: EntityId) {
        if planted(Bug::CycleMissed) {
            return;
        }
        let probe = Probe { refused, busy, at: refused, path: Vec::new() };
        self.core.send_system(System::Probe(Box::new(probe)));
    }

    /// Goes one step back.
    pub(crate) fn go_on(&mut self, mut probe: Probe) {
        let Some(tag) = self.core.pending.task_of(probe.at) else { return };
        let Some((_, task)) = self.core.tasks.by_tag(tag) else { return };
        let (owner, hold, asked_by) = (task.owner, task.hold, task.token);
        if hold == Hold::Interleaved || probe.path.len() == PATH_MAX {
            // It waits, but makes nobody wait.
            return;
        }
        // SAFETY: one step.
        let key = unsafe { self.stores[usize::from(owner.kind)].get() }.key(owner.slot);
        let asker = self.core.identity(owner.kind, key);
        probe.path.push(asker);
        if asker == probe.busy {
            return self.refuse_waiting(probe);
        }
        if let Some(next) = asked_by {
            probe.at = next;
            self.core.send_system(System::Probe(Box::new(probe)));
        }
    }

    /// Takes the ask out of the stash where it would wait for ever.
    fn refuse_waiting(&mut self, probe: Probe) {
        let Some((_, slot)) = self.locate(probe.busy) else { return };
        let Some(attached) = self.core.attached.get_mut(probe.busy.kind, slot) else { return };
        let is_it = |waiting: &Stashed| match waiting {
            Stashed::Record { record, .. } => record.token() == Some(probe.refused),
            Stashed::Resume { .. } => false,
        };
        let Some(at) = attached.stash.iter().position(is_it) else { return };
        let waiting = attached.stash.remove(at);
        self.core.stats.cycles += 1;
        let cycle = Cycle(Arc::from(probe.path));
        self.core.error_record(probe.refused, AskError::Cycle(cycle));
        self.drop_guarded(|| drop(waiting));
    }
}
