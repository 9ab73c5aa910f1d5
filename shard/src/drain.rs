//! Draining: what waited for an entity has its turns, one at a time, with others between.
#![expect(unsafe_code, reason = "slots lie in reserved memory")]

use crate::attached::Attached;
use crate::condition::Stage;
use crate::fault::Current;
use crate::index::SlotNumber;
use crate::pending::Outside;
use crate::shard::Shard;
use crate::stash::Stashed;
use crate::store::StoreId;
use crate::system::System;

impl Shard {
    /// Whether a read may have its turn beside those that are under way.
    pub(crate) fn may_read(&mut self, id: StoreId, slot: SlotNumber) -> bool {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let waits = self.core.attached.get(store.number(), slot);
        let first = std::mem::take(&mut self.core.read_is_first);
        let behind = waits.is_some_and(|waits| !waits.stash.is_empty());
        store.stage(slot) == Stage::Reading
            && (first || !behind)
            && self.core.has_room_beside(store.number(), slot)
    }

    /// Whether reads have their turns just now, and what waits first is one more.
    fn is_read_next(&self, id: StoreId, slot: SlotNumber) -> bool {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let attached = self.core.attached.get(store.number(), slot);
        let first = attached.and_then(|attached| attached.stash.front());
        store.stage(slot) == Stage::Reading
            && self.core.has_room_beside(store.number(), slot)
            && matches!(first, Some(Stashed::Record { record, .. })
                if self.table.rows[usize::from(record.head().message())].reads)
    }

    /// Runs the oldest turn that waits for an entity. Returns whether the next one needs a record
    /// to have its turn by; where the turn itself has released the entity, there is one.
    pub(crate) fn drain_one(
        &mut self,
        id: StoreId,
        slot: SlotNumber,
        outside: &mut dyn Outside,
    ) -> bool {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (kind, generation) = (store.number(), store.generation(slot));
        if store.stage(slot) == Stage::Draining {
            self.serve_waiting(kind, (slot, generation));
        }
        // SAFETY: one step, after the user's code.
        let store = unsafe { id.get() };
        if store.generation(slot) != generation {
            return false;
        }
        match store.stage(slot) {
            Stage::Draining => store.set_stage(slot, Stage::Live),
            _ if self.is_read_next(id, slot) => self.core.read_is_first = true,
            _ => return false,
        }
        let next = self.core.attached.get_mut(kind, slot);
        match next.and_then(|attached| attached.stash.pop_front()) {
            Some(Stashed::Record { record, tries }) => {
                self.core.trying = tries;
                self.run_owned(record, outside);
                self.core.trying = 0;
                self.core.read_is_first = false;
            }
            Some(Stashed::Resume { generation: life, turn, .. }) if life == generation => {
                turn(self, outside);
            }
            Some(other) => self.bury_stashed(other),
            None => return false,
        }
        // SAFETY: one step, after the user's code.
        let store = unsafe { id.get() };
        if !store.is_alive(slot, generation) {
            return false;
        }
        let waits = |attached: &Attached| !attached.stash.is_empty();
        if store.stage(slot) != Stage::Live {
            return self.is_read_next(id, slot);
        }
        let more = self.core.attached.get(kind, slot).is_some_and(waits);
        if more {
            store.set_stage(slot, Stage::Draining);
        }
        more
    }

    /// Lets interleaved turns that wait for the state have it, before what is in the stash.
    fn serve_waiting(&mut self, kind: u16, (slot, generation): (SlotNumber, u32)) {
        let id = self.stores[usize::from(kind)];
        // SAFETY: one step, after the user's code.
        while unsafe { id.get() }.is_alive(slot, generation)
            && let Some(attached) = self.core.attached.get_mut(kind, slot)
            && let Some((task, waker)) = attached.waiting.pop_front()
        {
            if let Some(waker) = waker {
                self.current = Current::ANSWERING;
                waker.wake();
                self.current.clear();
            }
            self.poll_task(task);
        }
    }

    /// Runs what waits for an entity, one turn at a time with others between: a step of it.
    pub(crate) fn run_drain(
        &mut self,
        kind: u16,
        (slot, generation): (SlotNumber, u32),
        outside: &mut dyn Outside,
    ) {
        let id = self.stores[usize::from(kind)];
        // SAFETY: one step.
        let alive = unsafe { id.get() }.is_alive(slot, generation);
        if alive && self.drain_one(id, slot, outside) {
            self.core.drain_record(kind, slot, generation);
        }
    }

    /// Has the entities that wait for their restart made anew at once, in a shard that is stopping.
    pub(crate) fn hurry_restarts(&mut self) {
        for id in self.stores.clone() {
            // SAFETY: one step.
            for slot in 0..unsafe { id.get() }.slots_used() {
                // SAFETY: one step.
                let store = unsafe { id.get() };
                if store.stage(slot) == Stage::Restarting {
                    // The alarm that was set is for the life that will not be.
                    store.end_life(slot);
                    self.restart_in(id, slot, 0);
                }
            }
        }
    }

    /// An entity whose turn is over is ready for the next one, or for what waits.
    pub(crate) fn release(&mut self, id: StoreId, slot: SlotNumber) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (kind, generation) = (store.number(), store.generation(slot));
        let Some(attached) = self.core.attached.get_mut(kind, slot) else {
            return store.set_stage(slot, Stage::Live);
        };
        let (ending, now_ns) = (attached.ending.take(), self.core.now.monotonic_ns);
        // A message counts until its turn is over.
        attached.quiet.iter_mut().for_each(|quiet| quiet.last_ns = now_ns);
        if let Some(end) = ending.filter(|_| attached.said_goodbye) {
            return self.end(id, slot, end);
        }
        let waits = attached.is_awaited();
        store.set_stage(slot, if waits { Stage::Draining } else { Stage::Live });
        if let Some(end) = ending {
            let entity = self.identity(id, slot);
            self.core.send_system(System::Stop { entity, end });
        }
        if waits {
            self.core.drain_record(kind, slot, generation);
        }
    }
}
