//! System records: what shards tell each other about entities.
//!
//! They have a lane of their own. A shard does what waits there before the next user record, and on
//! the way to another shard they pass everything that has not found room in the ring yet. So a
//! supervisor reaches its entities whatever the load.
#![expect(unsafe_code, reason = "an entity is reached through its store")]

use crate::condition::Stage;
use crate::cycle::Probe;
use crate::identity::{EntityId, Recipient};
use crate::index::SlotNumber;
use crate::owned_record::OwnedRecord;
use crate::pending::Outside;
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::store::StoreId;
use crate::supervise::{End, Failure, Fault, Terminated};
use crate::ties::{Holder, Tie};

/// Faults that may wait for a busy supervisor, beside its stash.
const FAULTS_WAITING_MAX: usize = 1024;

/// What is to be done about an entity, on the shard where it lives.
#[derive(Debug)]
pub(crate) enum System {
    /// Activate it, and tell `supervisor` of its faults from now on.
    Start { entity: EntityId, supervisor: Holder },
    /// End it in good order.
    Stop { entity: EntityId, end: End },
    /// The same, if it is still the supervisor's.
    StopChild { entity: EntityId, supervisor: EntityId, number: u64 },
    /// Make its state anew, because one that it is bound to failed.
    Restart { entity: EntityId, supervisor: EntityId, number: u64 },
    /// Tell `watcher` once when it ends.
    Watch { entity: EntityId, watcher: Holder },
    /// No longer.
    Unwatch { entity: EntityId, watcher: EntityId, number: u64 },
    /// A child of the supervisor is no more.
    ChildEnded { supervisor: EntityId, child: EntityId, number: u64 },
    /// A child of the supervisor failed: those that are bound to it are to be restarted.
    ChildFailed { supervisor: EntityId, child: EntityId, number: u64 },
    /// A child failed, and the supervisor is to fail in its place.
    Escalated { supervisor: EntityId, child: EntityId, number: u64 },
    /// In order: `entity`, which the watcher watches, is no more.
    TellEnded { watcher: Holder, entity: EntityId, end: End },
    /// In order: a child of the supervisor failed.
    TellFault { supervisor: Recipient, fault: Fault },
    /// Looks whether asks wait for each other in a circle.
    Probe(Box<Probe>),
}

/// Where a system record is to be handled.
pub(crate) enum Place {
    /// Where this entity lives.
    Of(EntityId),
    /// On this shard.
    Shard(u16),
}

impl System {
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Start { entity, .. }
            | Self::Stop { entity, .. }
            | Self::StopChild { entity, .. }
            | Self::Restart { entity, .. }
            | Self::Watch { entity, .. }
            | Self::Unwatch { entity, .. } => Place::Of(*entity),
            Self::TellEnded { watcher, .. } => Place::Of(watcher.who.entity),
            Self::ChildEnded { supervisor, .. }
            | Self::ChildFailed { supervisor, .. }
            | Self::Escalated { supervisor, .. } => Place::Of(*supervisor),
            Self::TellFault { supervisor, .. } => Place::Of(supervisor.entity),
            Self::Probe(probe) => Place::Shard(probe.shard()),
        }
    }
}

impl Shard {
    /// Does all that waits in the lane of system records.
    #[cold]
    pub(crate) fn run_system_lane(&mut self, outside: &mut dyn Outside) {
        while let Some(record) = self.core.take_system() {
            self.core.stats.system += 1;
            let Some(record) = self.divert(record) else { continue };
            self.do_system(record, outside);
        }
    }

    pub(crate) fn do_system(&mut self, record: System, outside: &mut dyn Outside) {
        match record {
            System::Start { entity, supervisor } => self.start(entity, supervisor, outside),
            System::Stop { entity, end } => {
                if let Some((id, slot)) = self.locate(entity) {
                    self.stop(id, slot, end, outside);
                    self.current.clear();
                }
            }
            System::StopChild { entity, supervisor, number } => {
                if let Some((id, slot)) = self.locate_child(entity, supervisor, number) {
                    self.stop(id, slot, End::Stopped, outside);
                    self.current.clear();
                }
            }
            System::Restart { entity, supervisor, number } => {
                if let Some((id, slot)) = self.locate_child(entity, supervisor, number) {
                    self.restart_bound(id, slot);
                }
            }
            System::Watch { entity, watcher } => self.watch(entity, watcher),
            System::Unwatch { entity, watcher, number } => self.unwatch(entity, watcher, number),
            System::ChildEnded { supervisor, child, number } => {
                let Some((_, slot)) = self.locate(supervisor) else { return };
                if let Some(attached) = self.core.attached.get_mut(supervisor.kind, slot) {
                    let ended = Tie { entity: child, number };
                    attached.children.remove(&ended);
                    self.core.attached.tidy(supervisor.kind, slot);
                }
            }
            System::ChildFailed { supervisor, child, number } => {
                self.child_failed(supervisor, Tie { entity: child, number });
            }
            System::Escalated { supervisor, child, number } => {
                self.escalated(supervisor, Tie { entity: child, number });
            }
            System::TellEnded { watcher, entity, end } => {
                self.tell_ended(watcher, Terminated { entity, end }, outside);
            }
            System::TellFault { supervisor, fault } => self.tell_fault(supervisor, fault, outside),
            System::Probe(probe) => self.go_on(*probe),
        }
    }

    fn start(&mut self, entity: EntityId, supervisor: Holder, outside: &mut dyn Outside) {
        let id = self.stores[usize::from(entity.kind)];
        let slot = match self.locate(entity) {
            Some((_, slot)) => slot,
            None => match self.place(id, entity.key) {
                Some(slot) => {
                    self.core.attached.entry(entity.kind, slot).supervisor = Some(supervisor);
                    return self.restart_now(id, slot, outside);
                }
                None => {
                    self.core.stats.refused += 1;
                    return self.child_ended(supervisor, entity);
                }
            },
        };
        let attached = self.core.attached.entry(entity.kind, slot);
        let former = attached.supervisor.replace(supervisor);
        if let Some(former) = former.filter(|former| former.who.entity != supervisor.who.entity) {
            self.child_ended(former, entity);
        }
    }

    fn child_ended(&mut self, supervisor: Holder, child: EntityId) {
        let Holder { who, number } = supervisor;
        self.core.send_system(System::ChildEnded { supervisor: who.entity, child, number });
    }

    /// Where an entity is that this supervisor started, if it is still the supervisor's.
    fn locate_child(
        &self,
        entity: EntityId,
        supervisor: EntityId,
        number: u64,
    ) -> Option<(StoreId, SlotNumber)> {
        let (id, slot) = self.locate(entity)?;
        let holder = self.core.attached.get(entity.kind, slot)?.supervisor?;
        (holder.who.entity == supervisor && holder.number == number).then_some((id, slot))
    }

    /// A supervisor fails in place of its child; not for one of an earlier life.
    fn escalated(&mut self, supervisor: EntityId, child: Tie) {
        let Some((id, slot)) = self.locate(supervisor) else { return };
        let attached = self.core.attached.get(supervisor.kind, slot);
        if attached.is_some_and(|attached| attached.children.has(&child)) {
            let reason = format!("{} failed and its fault was escalated", child.entity);
            let failure = Failure { token: None, message: None, reason, backtrace: None };
            self.fail(id, slot, failure);
        }
    }

    fn watch(&mut self, entity: EntityId, watcher: Holder) {
        match self.locate(entity) {
            Some((_, slot)) => {
                self.core.attached.entry(entity.kind, slot).watchers.add(watcher);
            }
            None => {
                let end = End::NotThere;
                self.core.send_in_order(System::TellEnded { watcher, entity, end });
            }
        }
    }

    fn unwatch(&mut self, entity: EntityId, watcher: EntityId, number: u64) {
        let Some((_, slot)) = self.locate(entity) else { return };
        if let Some(attached) = self.core.attached.get_mut(entity.kind, slot) {
            attached.watchers.remove(&watcher, number);
            self.core.attached.tidy(entity.kind, slot);
        }
    }

    /// Tells a watcher, if it still watches when it has its turn: the entry that is taken out then
    /// is why it is told exactly once.
    fn tell_ended(&mut self, watcher: Holder, terminated: Terminated, outside: &mut dyn Outside) {
        let Some((id, slot)) = self.locate(watcher.who.entity) else { return };
        // SAFETY: one step.
        let generation = unsafe { id.get() }.generation(slot);
        let tie = Tie { entity: terminated.entity, number: watcher.number };
        self.turn_or_stash(id, (slot, generation), false, outside, move |shard, outside| {
            let kind = watcher.who.entity.kind;
            let Some(attached) = shard.core.attached.get_mut(kind, slot) else { return };
            if !attached.watching.remove(&tie) {
                return;
            }
            if planted(Bug::TerminatedTwice) {
                let again = OwnedRecord::tell_to(&shard.table, watcher.who, terminated);
                shard.run_owned(again, outside);
            }
            shard.core.attached.tidy(kind, slot);
            let record = OwnedRecord::tell_to(&shard.table, watcher.who, terminated);
            shard.run_owned(record, outside);
        });
    }

    /// Tells a supervisor, also one whose stash is full. Where a great many faults wait for it
    /// already, this one is kept for the node.
    fn tell_fault(&mut self, supervisor: Recipient, fault: Fault, outside: &mut dyn Outside) {
        let Some((id, slot)) = self.locate(supervisor.entity) else {
            return self.core.keep_fault(fault);
        };
        let kind = supervisor.entity.kind;
        let most = self.table.types[usize::from(kind)].life.stash_max as usize + FAULTS_WAITING_MAX;
        if self.core.attached.get(kind, slot).is_some_and(|own| own.stash.len() >= most) {
            return self.core.keep_fault(fault);
        }
        let record = OwnedRecord::tell_to(&self.table, supervisor, fault);
        // SAFETY: one step.
        if unsafe { id.get() }.stage(slot) == Stage::Live {
            return self.run_owned(record, outside);
        }
        self.stash_always(id, slot, record, outside);
    }
}
