//! What a shard shows of itself, and what is done about its dead letters.
#![expect(unsafe_code, reason = "stores are reached by their address")]

use crate::dead_letter::{DeadLetter, Reason};
use crate::heat::Hot;
use crate::identity::EntityId;
use crate::pending::Outside;
use crate::shard::Shard;
use crate::supervise::Fault;

/// By what entities are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heat {
    /// The time that their turns took.
    Time,
    /// Their number of turns.
    Turns,
}

impl Shard {
    /// Messages that were accepted and not handled, for a reason.
    pub fn dead_letter_count(&self, reason: Reason) -> u64 {
        self.core.dead_letters.count(reason)
    }

    /// Entities of all types whose state is in memory: not those that wait for a restart, or whose
    /// state is being made.
    ///
    /// # Cost
    /// A look at every slot.
    pub fn states_in_all(&self) -> usize {
        // SAFETY: one step each.
        self.stores.iter().map(|store| unsafe { store.get() }.states()).sum()
    }

    /// Messages that were accepted and not handled, for whatever reason.
    pub fn dead_letters_in_all(&self) -> u64 {
        self.core.dead_letters.count_in_all()
    }

    /// The last messages that were not handled, the oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.core.dead_letters.iter()
    }

    /// Takes the dead letter at this place out of the list.
    pub fn take_dead_letter(&mut self, at: usize) -> Option<DeadLetter> {
        self.core.dead_letters.take(at)
    }

    /// Sends the message of a dead letter of this shard again, as a tell: its asker has been told
    /// that there is no answer. It has its turn before this returns.
    pub fn replay(&mut self, letter: DeadLetter, outside: &mut dyn Outside) {
        let record = letter.into_tell();
        self.guard(|shard| shard.run_owned(record, outside));
    }

    /// Takes the faults of entities without a supervisor, the oldest first; the last 256 are kept.
    pub fn take_faults(&mut self) -> impl Iterator<Item = Fault> {
        std::mem::take(&mut self.core.faults).into_iter()
    }

    /// The entity whose fault was escalated and has nobody to decide about it: the node is to stop.
    pub fn escalation(&self) -> Option<EntityId> {
        self.core.escalation
    }

    /// Up to `n` of the entities that were hottest of late, of 64 that are watched: which one is it
    /// that takes the time, or has the turns?
    pub fn hottest(&self, n: usize, by: Heat) -> Vec<(EntityId, Hot)> {
        let top = match by {
            Heat::Time => self.sampler.heat.top_by_time(n),
            Heat::Turns => self.sampler.heat.top_by_turns(n),
        };
        top.into_iter().map(|hot| (self.core.identity(hot.kind, hot.key), hot)).collect()
    }

    /// The same, which is no longer kept then.
    pub fn take_escalation(&mut self) -> Option<EntityId> {
        self.core.escalation.take()
    }

    /// Whether faults without a supervisor wait to be taken, or an escalation.
    pub fn has_faults(&self) -> bool {
        !self.core.faults.is_empty() || self.core.escalation.is_some()
    }

    /// Whether something waits that no queue shows: messages in a stash, or an async turn that
    /// holds its entity's state. A stop waits for it.
    pub fn has_unfinished_turns(&self) -> bool {
        self.core.tasks.any_holds() || self.core.attached.any(|attached| !attached.stash.is_empty())
    }

    /// Async turns under way.
    pub fn async_turns(&self) -> usize {
        self.core.tasks.len()
    }

    /// Timers of entities that are set, or have fired and wait for their turn.
    pub fn timers(&self) -> usize {
        self.core.own_timers.len()
    }

    /// Entities that have anything beyond their state: watchers, a supervisor, a stash, or a fault
    /// behind them; not those that have timers alone.
    pub fn entities_attached(&self) -> usize {
        self.core.attached.len()
    }
}
