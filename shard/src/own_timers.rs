//! Which timers an entity has: a list through the wheel's own entries.
//!
//! # Cost
//! A timer takes its entry, and four bytes by which its entity finds it; one with a name takes an
//! entry of a tree beside that. Whatever is done with one timer costs the same however many its
//! entity has; with a name, the logarithm of the number of names on the shard.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::index::SlotNumber;
use crate::schedule::{Alarm, Owner};
use crate::slot_map::SlotMap;
use crate::timer::TimerId;

/// What ties a timer to its entity, in the timer's entry.
pub(crate) struct Own {
    kind: u16,
    is_named: bool,
    /// In halves, so that it wants no padding.
    name: [u32; 2],
    slot: SlotNumber,
    generation: u32,
    /// The places of those that the entity set before and after it; [`NONE`] at the ends.
    before: u32,
    after: u32,
}

/// No timer.
const NONE: u32 = u32::MAX;

/// The timers of all entities of a shard.
pub(crate) struct OwnTimers {
    /// By entity type: where the last timer of each entity stands.
    last: Box<[SlotMap<Last>]>,
    names: BTreeMap<(u16, SlotNumber, u64), TimerId>,
    len: u32,
    len_max: u32,
}

/// The place of a timer, or [`NONE`].
struct Last(u32);

impl Default for Last {
    fn default() -> Self {
        Self(NONE)
    }
}

impl OwnTimers {
    /// None yet, up to `len_max` of them, of so many entity types.
    pub(crate) fn new(len_max: u32, types: usize) -> Self {
        let last = (0..types).map(|_| SlotMap::new()).collect();
        Self { last, names: BTreeMap::new(), len: 0, len_max }
    }

    /// Timers that are set, or have fired and wait for their turn.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.len_max
    }

    /// Whether the entity in the slot has timers.
    pub(crate) fn has_any(&self, kind: u16, slot: SlotNumber) -> bool {
        self.last(kind, slot) != NONE
    }

    fn last(&self, kind: u16, slot: SlotNumber) -> u32 {
        self.last[usize::from(kind)].get(slot).map_or(NONE, |last| last.0)
    }

    fn set_last(&mut self, kind: u16, slot: SlotNumber, place: u32) {
        self.last[usize::from(kind)].entry(slot).0 = place;
    }
}

impl Own {
    pub(crate) fn owner(&self) -> Owner {
        Owner { kind: self.kind, slot: self.slot, generation: self.generation }
    }

    /// By what the shard finds the timer, if it has a name.
    fn name(&self) -> Option<(u16, SlotNumber, u64)> {
        let [low, high] = self.name.map(u64::from);
        self.is_named.then_some((self.kind, self.slot, high << 32 | low))
    }
}

impl Core {
    /// Sets a timer of the entity. The value that had its name before is dropped.
    ///
    /// # Errors
    /// What `alarm` made, when the wheel is full.
    pub(crate) fn set_own(
        &mut self,
        owner: Owner,
        name: Option<u64>,
        at_ns: u64,
        alarm: impl FnOnce(Own) -> Alarm,
    ) -> Result<TimerId, Alarm> {
        let Owner { kind, slot, generation } = owner;
        let before = self.own_timers.last(kind, slot);
        let (number, is_named) = (name.unwrap_or(0), name.is_some());
        let halves = [number as u32, (number >> 32) as u32];
        let own = Own { kind, is_named, name: halves, slot, generation, before, after: NONE };
        let id = self.wheel.insert(at_ns, alarm(own))?;
        if let Some(before) = self.own_at(before) {
            before.after = id.place();
        }
        self.own_timers.set_last(kind, slot, id.place());
        self.own_timers.len += 1;
        if let Some(name) = name
            && let Some(former) = self.own_timers.names.insert((kind, slot, name), id)
        {
            self.drop_own(former);
        }
        Ok(id)
    }

    /// Cancels a timer of the entity. Returns whether it was still to fire.
    pub(crate) fn cancel_timer(&mut self, owner: Owner, id: TimerId) -> bool {
        let own = self.wheel.get_mut(id).and_then(Alarm::own);
        own.is_some_and(|own| own.owner() == owner) && self.drop_own(id)
    }

    /// Cancels the timer of this name. Returns whether it was still to fire.
    pub(crate) fn cancel_named(&mut self, owner: Owner, name: u64) -> bool {
        let named = self.own_timers.names.get(&(owner.kind, owner.slot, name)).copied();
        named.is_some_and(|id| self.drop_own(id))
    }

    /// Any timer of the entity in the slot.
    pub(crate) fn any_own(&mut self, kind: u16, slot: SlotNumber) -> Option<TimerId> {
        let last = self.own_timers.last(kind, slot);
        (last != NONE).then(|| self.wheel.id_at(last))
    }

    /// Takes a timer from its entity, and drops what it kept. Returns whether it was there.
    pub(crate) fn drop_own(&mut self, id: TimerId) -> bool {
        self.disown(id).map(|alarm| self.drop_alarm(alarm)).is_some()
    }

    /// Takes a timer from its entity and out of the wheel.
    pub(crate) fn disown(&mut self, id: TimerId) -> Option<Alarm> {
        let mut alarm = self.wheel.cancel(id)?;
        let own = alarm.own()?;
        if let Some(name) = own.name()
            && self.own_timers.names.get(&name) == Some(&id)
        {
            self.own_timers.names.remove(&name);
        }
        self.own_timers.len -= 1;
        if let Some(before) = self.own_at(own.before) {
            before.after = own.after;
        }
        match self.own_at(own.after) {
            Some(after) => after.before = own.before,
            None => self.own_timers.set_last(own.kind, own.slot, own.before),
        }
        Some(alarm)
    }

    fn own_at(&mut self, place: u32) -> Option<&mut Own> {
        if place == NONE {
            return None;
        }
        let id = self.wheel.id_at(place);
        self.wheel.get_mut(id).and_then(Alarm::own)
    }
}
