//! Instances that are always running: singletons and workers.
//!
//! What makes them so is attached to the entity ([`Attached::kept`](crate::attached::Attached)). An
//! end that would leave a slot free for others leaves it to a next life instead, after a wait; so
//! one that ends again and again costs little, and what is sent to it meanwhile waits in its stash.
#![expect(unsafe_code, reason = "an entity is reached through its store")]

use crate::config::Now;
use crate::entity::Entity;
use crate::identity::EntityId;
use crate::index::SlotNumber;
use crate::life::{Faults, Verdict};
use crate::registry::Registry;
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::stash::Stash;
use crate::store::StoreId;
use crate::supervise::End;
use crate::table::TypeRow;

/// How many instances of a type are for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instances {
    /// Always running: those with the keys from 0 up.
    pub(crate) kept: u32,
    /// In the pool of each shard.
    pub(crate) pooled: u32,
}

impl TypeRow {
    /// Has the instances with the keys from 0 to `count` always running.
    pub(crate) fn keep(&mut self, count: u32) {
        self.instances.kept = count;
        self.life.keep_alive = true;
    }
}

impl Registry {
    /// Registers an entity type whose instances with the keys 0 to `count` (exclusive) are always
    /// running: each is activated before its shard does anything else
    /// ([`Shard::start_kept`](crate::Shard::start_kept)), never put away, restarted for ever after
    /// faults, and activated again when it stops by itself, after the waits that its
    /// [`Backoff`](crate::Backoff) declares.
    ///
    /// Keys say where they live, as for all entities: for an even number on each shard, take a
    /// [`pool`](Self::pool).
    pub fn workers<E: Entity<Key = u64>>(&mut self, count: u32) -> &mut Self {
        self.row_of::<E>().keep(count);
        self
    }
}

impl Shard {
    /// Activates the singletons and workers that live on this shard. To be called once, before the
    /// first poll; what they send is on its way when this returns.
    pub fn start_kept(&mut self, now: Now) {
        self.tick(now);
        let kept = |row: &TypeRow| row.instances.kept;
        let counts: Vec<u32> = self.table.types.iter().map(kept).collect();
        for (kind, count) in (0..).zip(counts) {
            for key in 0..u64::from(count) {
                let entity = self.core.identity(kind, [key, 0]);
                if self.core.home(entity) == self.core.shard && self.locate(entity).is_none() {
                    // A fault is dealt with by the guard, as in any other turn.
                    self.guard(|shard| shard.begin_kept(entity));
                }
            }
        }
        self.core.publish();
    }

    /// From here on singletons and workers that stop are not activated again, and no restart waits:
    /// the node is stopping. An entity that fails without a message (in its activation) ends, and
    /// what waits for it is a dead letter.
    ///
    /// # Cost
    /// A look at every slot.
    pub fn release_kept(&mut self) {
        self.core.stopping = true;
        self.hurry_restarts();
    }

    pub(crate) fn begin_kept(&mut self, entity: EntityId) {
        let id = self.stores[usize::from(entity.kind)];
        let Some(slot) = self.place(id, entity.key) else {
            self.core.stats.refused += 1;
            return;
        };
        self.core.attached.entry(entity.kind, slot).kept = Some(Faults::default());
        self.restart_now(id, slot, &mut ());
    }

    /// A life of an instance that is always running has ended: makes place for the next one.
    pub(crate) fn begin_again(
        &mut self,
        (id, slot): (StoreId, SlotNumber),
        entity: EntityId,
        end: End,
        (mut stash, mut ends): (Stash, Faults),
    ) {
        let backoff = self.table.types[usize::from(entity.kind)].life.backoff;
        let random = self.core.random();
        let wait_ns = match ends.add(&backoff, self.core.now.monotonic_ns, random) {
            Verdict::Wait(wait_ns) => wait_ns,
            Verdict::Enough => backoff.most.as_nanos() as u64,
        };
        self.drop_guarded(|| {
            // SAFETY: one step, after the user's code.
            unsafe { id.get() }.end_life(slot);
        });
        let lost = if end == End::Failed { std::mem::take(&mut stash) } else { Stash::default() };
        let attached = self.core.attached.entry(entity.kind, slot);
        attached.stash = stash;
        attached.kept = Some(ends);
        self.core.look_after(entity.kind, slot, 0);
        if !planted(Bug::StaysAway) {
            self.restart_in(id, slot, wait_ns);
        }
        lost.into_iter().for_each(|waiting| self.bury_stashed(waiting));
    }
}
