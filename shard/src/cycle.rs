//! Asks that wait for each other in a circle are found when the last of them arrives.
//!
//! An ask that arrives at an entity whose async turn is under way has to wait for that turn. If the
//! turn itself waits, through asks of others, for the one who asks, none of them would ever go on.
//! So a probe follows the asks backwards (edge chasing; Chandy, Misra and Haas 1983): from an ask
//! to the turn that made it, from there to all that wait for this turn (the ask that it is to
//! answer, and, where it holds its entity, the asks in the stash), and so on, across shards. If it
//! comes back to the entity where it began, the ask there is refused.
//!
//! What is seen are asks of async turns. A sync handler that puts its answer off until it has asked
//! others is not seen through: such a circle ends at its deadline.
#![expect(unsafe_code, reason = "slots lie in reserved memory")]

use crate::identity::EntityId;
use crate::reply::{AskError, Cycle, Token};
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::stash::Stashed;
use crate::system::System;
use crate::task::Hold;

/// Turns that are looked at for one ask; a circle behind so many is left to the deadline.
const TURNS_MAX: usize = 512;

/// Follows asks backwards.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The ask that waits for a busy entity.
    refused: Token,
    /// That entity.
    busy: EntityId,
    /// Turns that wait for it, through other turns or not.
    seen: Vec<Waiting>,
    /// Asks whose turns are to be looked at, and for whom of the seen each waits.
    todo: Vec<(Token, usize)>,
}

/// A turn that waits.
#[derive(Debug)]
struct Waiting {
    entity: EntityId,
    /// Where to find it: shard and tag.
    turn: (u16, u32),
    /// For whom of the seen; the first waits for the entity that is busy.
    by: usize,
}

impl Probe {
    /// The shard where the probe has to look next.
    pub(crate) fn shard(&self) -> u16 {
        self.todo.last().map_or(0, |(token, _)| token.shard())
    }

    /// From the turn that asked last to the one that was seen last.
    fn into_path(self) -> Vec<EntityId> {
        let mut at = self.seen.len() - 1;
        let mut path = vec![self.seen[at].entity];
        while at > 0 {
            at = self.seen[at].by;
            path.push(self.seen[at].entity);
        }
        path.reverse();
        path
    }
}

impl Shard {
    /// An ask waits for an entity that is busy: is it the entity that makes it wait?
    pub(crate) fn probe(&mut self, refused: Token, busy: EntityId) {
        if planted(Bug::CycleMissed) {
            return;
        }
        let probe = Probe { refused, busy, seen: Vec::new(), todo: vec![(refused, 0)] };
        self.core.send_system(System::Probe(Box::new(probe)));
    }

    /// Looks at all turns on this shard that are to be looked at, and sends the probe on.
    pub(crate) fn go_on(&mut self, mut probe: Probe) {
        let shard = self.core.shard;
        while let Some(at) = probe.todo.iter().rposition(|(token, _)| token.shard() == shard) {
            let (token, by) = probe.todo.swap_remove(at);
            if self.look_back(&mut probe, token, by) {
                return self.refuse_waiting(probe);
            }
            if probe.seen.len() == TURNS_MAX {
                return;
            }
        }
        if !probe.todo.is_empty() {
            self.core.send_system(System::Probe(Box::new(probe)));
        }
    }

    /// Looks at the turn that made an ask. Returns whether it holds the entity where all began.
    fn look_back(&self, probe: &mut Probe, token: Token, by: usize) -> bool {
        let Some(tag) = self.core.pending.task_of(token) else { return false };
        let Some((_, task)) = self.core.tasks.by_tag(tag) else { return false };
        let turn = (self.core.shard, tag);
        if probe.seen.iter().any(|seen| seen.turn == turn) {
            return false;
        }
        let (owner, hold) = (task.owner, task.hold);
        // SAFETY: one step.
        let key = unsafe { self.stores[usize::from(owner.kind)].get() }.key(owner.slot);
        let entity = self.core.identity(owner.kind, key);
        let seen = probe.seen.len();
        probe.seen.push(Waiting { entity, turn, by });
        probe.todo.extend(task.token.map(|token| (token, seen)));
        if hold == Hold::Interleaved {
            // It makes nobody wait but its asker.
            return false;
        }
        if let Some(attached) = self.core.attached.get(owner.kind, owner.slot) {
            probe.todo.extend(attached.stash.iter().filter_map(|waiting| match waiting {
                Stashed::Record { record, .. } => record.token().map(|token| (token, seen)),
                Stashed::Resume { .. } => None,
            }));
        }
        entity == probe.busy
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
        let refused = probe.refused;
        let cycle = Cycle(probe.into_path().into());
        self.core.error_record(refused, AskError::Cycle(cycle));
        self.drop_guarded(|| drop(waiting));
    }
}
