//! System records: what shards tell each other about entities.
//!
//! They have a lane of their own. A shard does what waits there before the next user record, and on
//! the way to another shard they pass everything that has not found room in the ring yet. So a
//! supervisor reaches its entities whatever the load.

use crate::cycle::Probe;
use crate::identity::{EntityId, Recipient};
use crate::pending::Outside;
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::supervise::{End, Failure, Fault, Terminated};

/// What is to be done about an entity, on the shard where it lives.
#[derive(Debug)]
pub(crate) enum System {
    /// Activate it, and tell `supervisor` of its faults from now on.
    Start { entity: EntityId, supervisor: Recipient },
    /// End it in good order.
    Stop { entity: EntityId, end: End },
    /// Make its state anew, because one that it is bound to failed.
    Restart { entity: EntityId },
    /// Tell `watcher` once when it ends.
    Watch { entity: EntityId, watcher: Recipient },
    /// No longer.
    Unwatch { entity: EntityId, watcher: EntityId },
    /// `entity`, which the watcher watches, is no more.
    Ended { watcher: Recipient, entity: EntityId, end: End },
    /// A child of the supervisor is no more.
    ChildEnded { supervisor: EntityId, child: EntityId },
    /// A child of the supervisor failed.
    ChildFailed { supervisor: Recipient, fault: Fault },
    /// A child failed, and the supervisor is to fail in its place.
    Escalated { supervisor: EntityId, child: EntityId },
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
            | Self::Restart { entity }
            | Self::Watch { entity, .. }
            | Self::Unwatch { entity, .. } => Place::Of(*entity),
            Self::Ended { watcher, .. } => Place::Of(watcher.entity),
            Self::ChildEnded { supervisor, .. } | Self::Escalated { supervisor, .. } => {
                Place::Of(*supervisor)
            }
            Self::ChildFailed { supervisor, .. } => Place::Of(supervisor.entity),
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

    fn do_system(&mut self, record: System, outside: &mut dyn Outside) {
        match record {
            System::Start { entity, supervisor } => self.start(entity, supervisor, outside),
            System::Stop { entity, end } => {
                if let Some((id, slot)) = self.locate(entity) {
                    self.stop(id, slot, end, outside);
                }
            }
            System::Restart { entity } => {
                if let Some((id, slot)) = self.locate(entity) {
                    self.restart_after(id, slot, 0);
                }
            }
            System::Watch { entity, watcher } => self.watch(entity, watcher),
            System::Unwatch { entity, watcher } => self.unwatch(entity, watcher),
            System::Ended { watcher, entity, end } => self.tell_ended(watcher, entity, end),
            System::ChildEnded { supervisor, child } => {
                let Some((_, slot)) = self.locate(supervisor) else { return };
                if let Some(attached) = self.core.attached.get_mut(supervisor.kind, slot) {
                    attached.children.retain(|other| *other != child);
                }
            }
            System::ChildFailed { supervisor, fault } => self.child_failed(supervisor, fault),
            System::Escalated { supervisor, child } => {
                let Some((id, slot)) = self.locate(supervisor) else {
                    return self.core.escalate(child, None);
                };
                let reason = format!("{child} failed and its fault was escalated");
                let failure = Failure { token: None, message: None, reason, backtrace: None };
                self.fail(id, slot, failure);
            }
            System::Probe(probe) => self.go_on(*probe),
        }
    }

    fn start(&mut self, entity: EntityId, supervisor: Recipient, outside: &mut dyn Outside) {
        let id = self.stores[usize::from(entity.kind)];
        let slot = match self.locate(entity) {
            Some((_, slot)) => slot,
            None => match self.place(id, entity.key) {
                Some(slot) => {
                    self.core.attached.entry(entity.kind, slot).supervisor = Some(supervisor);
                    return self.restart_now(id, slot, outside);
                }
                None => {
                    let end = System::ChildEnded { supervisor: supervisor.entity, child: entity };
                    return self.core.send_system(end);
                }
            },
        };
        let attached = self.core.attached.entry(entity.kind, slot);
        let former = attached.supervisor.replace(supervisor);
        if let Some(former) = former.filter(|former| former.entity != supervisor.entity) {
            let end = System::ChildEnded { supervisor: former.entity, child: entity };
            self.core.send_system(end);
        }
    }

    fn watch(&mut self, entity: EntityId, watcher: Recipient) {
        match self.locate(entity) {
            Some((_, slot)) => {
                let watchers = &mut self.core.attached.entry(entity.kind, slot).watchers;
                if !watchers.contains(&watcher) {
                    watchers.push(watcher);
                }
            }
            None => {
                let end = End::NotThere;
                self.core.send_system(System::Ended { watcher, entity, end });
            }
        }
    }

    fn unwatch(&mut self, entity: EntityId, watcher: EntityId) {
        let Some((_, slot)) = self.locate(entity) else { return };
        if let Some(attached) = self.core.attached.get_mut(entity.kind, slot) {
            attached.watchers.retain(|other| other.entity != watcher);
        }
    }

    /// Tells a watcher, if it still watches: the entry that is taken out here is why it is told
    /// exactly once.
    fn tell_ended(&mut self, watcher: Recipient, entity: EntityId, end: End) {
        let Some((_, slot)) = self.locate(watcher.entity) else { return };
        let Some(attached) = self.core.attached.get_mut(watcher.entity.kind, slot) else { return };
        let Some(at) = attached.watching.iter().position(|other| *other == entity) else { return };
        attached.watching.swap_remove(at);
        if planted(Bug::TerminatedTwice) {
            self.core.tell_local(watcher, Terminated { entity, end });
        }
        self.core.tell_local(watcher, Terminated { entity, end });
    }
}
