//! The part of another entity, played by the test: it is watched or was started by the one under
//! test, and ends or fails as the test says.

use std::fmt;
use std::marker::PhantomData;

use crate::entity::Entity;
use crate::identity::EntityId;
use crate::kit::Kit;
use crate::supervise::{End, Fault};
use crate::system::System;
use crate::ties::Holder;

/// An entity that the one under test watches, or started: see [`Kit::other`].
pub struct Other<'k, E: Entity, T> {
    kit: &'k mut Kit<E>,
    entity: EntityId,
    kind: PhantomData<fn(T)>,
}

impl<'k, E: Entity, T: Entity> Other<'k, E, T> {
    pub(crate) fn new(kit: &'k mut Kit<E>, key: T::Key) -> Self {
        let entity = EntityId::of::<T>(kit.shard.core.directory.entity::<T>(), key);
        Self { kit, entity, kind: PhantomData }
    }

    /// Whether the entity under test watches it.
    pub fn is_watched(&self) -> bool {
        find(&self.kit.others_ref().watched, self.entity).is_some()
    }

    /// Whether the entity under test started it, and it has not ended.
    pub fn is_started(&self) -> bool {
        find(&self.kit.others_ref().started, self.entity).is_some()
    }

    /// Whether the entity under test told it to stop; or its own end did, as children end with
    /// their supervisor.
    pub fn is_told_to_stop(&self) -> bool {
        self.kit.others_ref().stopped.contains(&self.entity)
    }

    /// How often it was restarted because another child failed.
    pub fn restarts(&self) -> usize {
        let restarted = &self.kit.others_ref().restarted;
        restarted.iter().filter(|other| **other == self.entity).count()
    }

    /// It ends: whoever watches it gets a [`Terminated`](crate::Terminated), and its supervisor has
    /// it no longer.
    ///
    /// # Panics
    /// When the entity under test neither watches nor started it.
    #[track_caller]
    pub fn ends(self, end: End) {
        let Self { kit, entity, .. } = self;
        let supervisor = kit.own;
        let others = kit.others();
        let watcher = find(&others.watched, entity);
        let started = find(&others.started, entity);
        others.watched.retain(|(other, _)| *other != entity);
        others.started.retain(|(other, _)| *other != entity);
        assert!(
            watcher.is_some() || started.is_some(),
            "{supervisor} neither watches nor started {entity}: nobody hears of its end"
        );
        if let Some(watcher) = watcher {
            kit.shard.core.send_in_order(System::TellEnded { watcher, entity, end });
        }
        if let Some(Holder { number, .. }) = started {
            let child = entity;
            kit.shard.core.send_system(System::ChildEnded { supervisor, child, number });
        }
        kit.run();
    }

    /// It fails: its supervisor gets a [`Fault`], and what the supervisor's type declares for its
    /// other children happens.
    ///
    /// # Panics
    /// When the entity under test did not start it.
    #[track_caller]
    pub fn fails(self, reason: impl fmt::Display) {
        report(self.kit, self.entity, reason);
        self.kit.run();
    }

    /// It fails and its type escalates faults: the entity under test is told, and fails in its
    /// place; the other one ends.
    ///
    /// # Panics
    /// When the entity under test did not start it.
    #[track_caller]
    pub fn escalates(self, reason: impl fmt::Display) {
        let Self { kit, entity, .. } = self;
        let supervisor = report(kit, entity, reason);
        kit.shard.core.escalate(entity, Some(supervisor));
        let other = Other::<E, T> { kit, entity, kind: PhantomData };
        other.ends(End::Failed);
    }
}

/// Tells the entity under test of a fault, and returns as whom it hears of it.
#[track_caller]
fn report<E: Entity>(kit: &mut Kit<E>, entity: EntityId, reason: impl fmt::Display) -> Holder {
    let Some(supervisor) = find(&kit.others_ref().started, entity) else {
        panic!("{} did not start {entity}: it does not hear of its faults", kit.own)
    };
    kit.failed.push(entity);
    let count = kit.failed.iter().filter(|other| **other == entity).count() as u32;
    let reason = reason.to_string();
    let fault = Fault { entity, message: "", reason, backtrace: None, count };
    kit.shard.core.report_fault(Some(supervisor), fault);
    supervisor
}

fn find(list: &[(EntityId, Holder)], entity: EntityId) -> Option<Holder> {
    list.iter().find(|(other, _)| *other == entity).map(|(_, holder)| *holder)
}

impl<E: Entity, T> fmt::Debug for Other<'_, E, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Other").field("entity", &self.entity).finish_non_exhaustive()
    }
}
