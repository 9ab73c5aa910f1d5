//! The store: the states of one entity type on one shard, found by key.
//!
//! A slab of slots in large pages, and an [`Index`] from key to slot number. A slot is the entity's
//! key, its generation, its condition, and its state, side by side: a turn that found the slot has
//! everything in the line it already touches. Per idle entity that is 16 bytes (24 with a 128-bit
//! key) beside the state and about 11 in the index.
//!
//! The store does not know its entity's type; [`Slot`] does, and each user of a store names it.
//!
//! # Invariants
//! A slot that is not free has its key in the index; its [`Stage`] says whether its state is
//! initialised. The generation of a slot grows when a life ends, be it that the entity goes or that
//! it is made anew in place, so `(slot, generation)` names one life.
#![expect(unsafe_code, reason = "slots are typed by their user and lie in reserved memory")]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::condition::{READY, Stage, USED};
use crate::index::{Index, Place, SlotNumber};
use crate::key::{HashKey, KeyWords};
use crate::pages::Region;
use crate::prefetch::prefetch;
use crate::sabotage::{Bug, planted};
use crate::slot::{Layout, Slot, SlotHead};

/// The states of one entity type on one shard. What every turn reads fills the first cache line.
#[repr(C, align(64))]
pub(crate) struct Store {
    /// First slot; never moves.
    base: *mut u8,
    /// Bytes from one slot to the next.
    stride: u32,
    /// Slots ever used.
    pub(crate) used: u32,
    hash: HashKey,
    index: Index,
    slots_max: u32,
    /// The number of the entity type.
    number: u16,
    pub(crate) layout: Layout,
    /// First free slot, plus one.
    free: u64,
    region: Region,
}

// SAFETY: the pointer is into the region that the store owns. The entities inside need not be Send:
// they are made, used and dropped by the one thread that drives the shard (`Shard` says how).
unsafe impl Send for Store {}

/// One of a shard's stores, by address: what every turn needs, resolved once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreId(std::ptr::NonNull<Store>);

impl StoreId {
    /// Gives the store a fixed address. [`discard`](Self::discard) ends it.
    pub(crate) fn new(store: Store) -> Self {
        Self(std::ptr::NonNull::from(Box::leak(Box::new(store))))
    }

    /// The store.
    ///
    /// # Safety
    /// It was not discarded, and no other reference to it is alive: the shard's code borrows a
    /// store for one step at a time, never across user code.
    #[inline(always)]
    pub(crate) unsafe fn get<'a>(self) -> &'a mut Store {
        // SAFETY: the caller's contract.
        unsafe { &mut *self.0.as_ptr() }
    }

    /// The number of the entity type, which does not change.
    #[inline(always)]
    pub(crate) fn number(self) -> u16 {
        // SAFETY: nobody asks a store that was discarded; through the pointer, as a reference to
        // the store may be alive.
        unsafe { (*self.0.as_ptr()).number }
    }

    /// Drops the store with all its entities.
    ///
    /// # Safety
    /// It is not used afterwards.
    pub(crate) unsafe fn discard(self) {
        // SAFETY: made by Box::leak in `new`.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The store holds as many entities as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreFull;

/// The most addresses that one store reserves.
const BYTES_MAX: usize = 64 << 30;

impl Store {
    /// An empty store for up to `entities_max` entities.
    ///
    /// # Errors
    /// The kernel's when the addresses cannot be reserved.
    pub(crate) fn new(
        number: u16,
        layout: Layout,
        hash: HashKey,
        entities_max: usize,
    ) -> io::Result<Self> {
        let slots_max = entities_max.clamp(1, BYTES_MAX / layout.stride).min(u32::MAX as usize - 1);
        assert!(layout.stride <= u32::MAX as usize / 2, "an entity's state is below 2 GiB");
        let region = Region::reserve(slots_max * layout.stride)?;
        let index = Index::new(slots_max)?;
        Ok(Self {
            base: region.start(),
            stride: layout.stride as u32,
            used: 0,
            hash,
            index,
            number,
            layout,
            slots_max: slots_max as u32,
            free: 0,
            region,
        })
    }

    /// The number of the entity type.
    #[inline(always)]
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Bytes from one slot to the next.
    pub(crate) fn stride(&self) -> usize {
        self.layout.stride
    }

    /// Entities in memory.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes that turns on these entities work in.
    pub(crate) fn working_bytes(&self) -> usize {
        self.used as usize * self.layout.stride + self.index.bytes()
    }

    /// Entities whose state is there: not those that are being made or wait for their restart.
    ///
    /// # Cost
    /// A look at every slot.
    pub(crate) fn states(&self) -> usize {
        (0..self.used).filter(|slot| self.stage(*slot).has_state()).count()
    }

    /// Slots ever used: all entities have numbers below.
    pub(crate) fn slots_used(&self) -> SlotNumber {
        self.used
    }

    /// The first byte of a slot.
    #[inline(always)]
    pub(crate) fn at(&self, slot: SlotNumber) -> *mut u8 {
        debug_assert!(slot < self.used);
        // SAFETY: slots below `used` lie in the usable part of the region.
        unsafe { self.base.add(slot as usize * self.stride as usize) }
    }

    /// Where the state of a slot is, or will be.
    #[inline(always)]
    pub(crate) fn state(&self, slot: SlotNumber) -> *mut u8 {
        self.at(slot).wrapping_add(self.layout.entity_offset)
    }

    /// The slot of `E` with this number.
    #[inline(always)]
    pub(crate) fn slot<const KEY_WORDS: usize, E>(
        &self,
        slot: SlotNumber,
    ) -> *mut Slot<KEY_WORDS, E> {
        self.at(slot).cast()
    }

    #[inline(always)]
    pub(crate) fn head<const KEY_WORDS: usize>(
        &self,
        slot: SlotNumber,
    ) -> *mut SlotHead<KEY_WORDS> {
        self.at(slot).cast()
    }

    /// The hash under which `key` is filed, also used for placement.
    #[inline(always)]
    fn hash_of<const KEY_WORDS: usize>(&self, key: [u64; KEY_WORDS]) -> u64 {
        match key.as_slice() {
            [word] => self.hash.hash_one(*word),
            [first, second, ..] => self.hash.hash_two([*first, *second]),
            [] => 0,
        }
    }

    /// First stage of looking ahead: the index line for `key` is on its way. Returns where in it
    /// the second stage is to look.
    #[inline(always)]
    pub(crate) fn fetch_index<const KEY_WORDS: usize>(&self, key: [u64; KEY_WORDS]) -> Place {
        let (place, line) = self.index.place(self.hash_of(key));
        prefetch(line);
        place
    }

    /// Second stage: the slots that may be meant are on their way. Returns the hint for the record:
    /// the slot number plus one when there is just one candidate, else 0.
    #[inline(always)]
    pub(crate) fn fetch_slot(&self, place: Place) -> u32 {
        let mut candidates = self.index.candidates(place);
        let Some(slot) = candidates.next() else { return 0 };
        self.fetch_lines(slot);
        let mut hint = slot + 1;
        while let Some(slot) = candidates.next() {
            self.fetch_lines(slot);
            hint = 0;
        }
        hint
    }

    /// A state that begins in one line and ends in the next costs two.
    #[inline(always)]
    fn fetch_lines(&self, slot: SlotNumber) {
        let at = self.at(slot);
        prefetch(at);
        let stride = self.stride as usize;
        if (at.addr() & 63) + stride > 64 {
            prefetch(at.wrapping_add(stride.min(128) - 1));
        }
    }

    /// The slot that the hint of a record names, if `key` really lives there and may have its turn
    /// without further ado.
    #[inline(always)]
    pub(crate) fn ready_by_hint<const KEY_WORDS: usize>(
        &self,
        hint: u32,
        key: [u64; KEY_WORDS],
    ) -> Option<SlotNumber> {
        let slot = hint.wrapping_sub(1);
        if slot >= self.used {
            return None;
        }
        // SAFETY: slots below `used` have an initialised head.
        let head = unsafe { &*self.head::<KEY_WORDS>(slot) };
        (head.key == key && head.condition == READY).then_some(slot)
    }

    /// The slot of `key`, if its entity may have its turn without further ado.
    #[inline(always)]
    pub(crate) fn find_ready<const KEY_WORDS: usize>(
        &self,
        key: [u64; KEY_WORDS],
    ) -> Option<SlotNumber> {
        self.index.find(self.hash_of(key), |slot| {
            // SAFETY: slots below `used` have an initialised head.
            let head = unsafe { &*self.head::<KEY_WORDS>(slot) };
            head.key == key && head.condition == READY
        })
    }

    /// The slot of `key`, if its entity is in memory or on its way there.
    #[inline(never)]
    pub(crate) fn find<const KEY_WORDS: usize>(&self, key: [u64; KEY_WORDS]) -> Option<SlotNumber> {
        self.index.find(self.hash_of(key), |slot| {
            // SAFETY: slots below `used` have an initialised head.
            let head = unsafe { &*self.head::<KEY_WORDS>(slot) };
            head.key == key && head.condition != Stage::Free as u32
        })
    }

    /// [`find`](Self::find), whatever the width of the key.
    pub(crate) fn find_words(&self, key: KeyWords) -> Option<SlotNumber> {
        if self.layout.key_words == 1 { self.find([key[0]]) } else { self.find(key) }
    }

    /// The key in a slot that is not free.
    pub(crate) fn key(&self, slot: SlotNumber) -> KeyWords {
        // SAFETY: slots below `used` have an initialised head.
        unsafe {
            if self.layout.key_words == 1 {
                [(*self.head::<1>(slot)).key[0], 0]
            } else {
                (*self.head::<2>(slot)).key
            }
        }
    }

    /// A slot for `key`, which is not in memory yet, in the index and in stage `Activating`.
    pub(crate) fn place(&mut self, key: KeyWords) -> Result<SlotNumber, StoreFull> {
        if self.layout.key_words == 1 { self.place_keyed([key[0]]) } else { self.place_keyed(key) }
    }

    fn place_keyed<const KEY_WORDS: usize>(
        &mut self,
        key: [u64; KEY_WORDS],
    ) -> Result<SlotNumber, StoreFull> {
        let slot = self.claim(key)?;
        match self.file::<KEY_WORDS>(slot) {
            Ok(()) => {
                self.set_stage(slot, Stage::Activating);
                Ok(slot)
            }
            Err(full) => {
                self.abandon::<KEY_WORDS>(slot);
                Err(full)
            }
        }
    }

    /// A free slot, for `key`.
    fn claim<const KEY_WORDS: usize>(
        &mut self,
        key: [u64; KEY_WORDS],
    ) -> Result<SlotNumber, StoreFull> {
        let slot = if self.free != 0 {
            let slot = (self.free - 1) as SlotNumber;
            // SAFETY: a free slot's head is initialised; its first key word is the link.
            self.free = unsafe { (*self.head::<KEY_WORDS>(slot)).key[0] };
            slot
        } else {
            let bytes = (self.used as usize + 1) * self.layout.stride;
            if self.used == self.slots_max || !self.region.ensure(bytes) {
                return Err(StoreFull);
            }
            // Memory behind `used` was never written, so the generation there is 0.
            self.used += 1;
            self.used - 1
        };
        // SAFETY: the slot is ours alone.
        unsafe { (*self.head::<KEY_WORDS>(slot)).key = key };
        Ok(slot)
    }

    /// Files a claimed slot under its key.
    fn file<const KEY_WORDS: usize>(&mut self, slot: SlotNumber) -> Result<(), StoreFull> {
        let head = self.head::<KEY_WORDS>(slot);
        // SAFETY: a claimed slot has an initialised head.
        let key = unsafe { (*head).key };
        let hash = self.hash_of(key);
        let (base, stride, hash_key) = (self.base, self.layout.stride, self.hash);
        let hash_of = |slot: SlotNumber| {
            let at = base.wrapping_add(slot as usize * stride);
            // SAFETY: slots in the index lie below `used`, and begin with their key.
            match unsafe { at.cast::<[u64; KEY_WORDS]>().read() }.as_slice() {
                [word] => hash_key.hash_one(*word),
                [first, second, ..] => hash_key.hash_two([*first, *second]),
                [] => 0,
            }
        };
        self.index.insert(hash, slot, hash_of).map_err(|_| StoreFull)?;
        if self.index.split_is_near() {
            for slot in self.index.next_split_slots() {
                prefetch(base.wrapping_add(slot as usize * stride));
            }
        }
        Ok(())
    }

    /// Gives a slot back that is not in the index and whose state is not initialised (any more).
    fn abandon<const KEY_WORDS: usize>(&mut self, slot: SlotNumber) {
        let head = self.head::<KEY_WORDS>(slot);
        // SAFETY: the slot was claimed, so its head is initialised and nobody uses its state.
        unsafe {
            (*head).condition = Stage::Free as u32;
            (*head).generation = (*head).generation.wrapping_add(1);
            (*head).key[0] = self.free;
        }
        self.free = u64::from(slot) + 1;
    }

    /// Ends a life in place: drops the state, if there is one, and leaves the slot in stage
    /// `Restarting` under its key, also when the drop panics (the panic goes on, and what it left
    /// is leaked).
    pub(crate) fn end_life(&mut self, slot: SlotNumber) {
        let (generation, condition) = self.life(slot);
        let next = if planted(Bug::SameLife) { generation } else { generation.wrapping_add(1) };
        self.set_life(slot, next, USED | Stage::Restarting as u32);
        self.drop_state(slot, Stage::of(condition));
    }

    fn drop_state(&mut self, slot: SlotNumber, stage: Stage) {
        if stage.has_state() && self.layout.needs_drop {
            // SAFETY: the stage says that the state is initialised; its slot says no longer so.
            unsafe { (self.layout.drop_entity)(self.at(slot).add(self.layout.entity_offset)) };
        }
    }

    /// Takes an entity out of the index and drops its state, if there is one. The slot is free
    /// afterwards, also when the drop panics (the panic goes on, and what it left is leaked).
    pub(crate) fn remove(&mut self, slot: SlotNumber) {
        if self.layout.key_words == 1 {
            self.remove_keyed::<1>(slot);
        } else {
            self.remove_keyed::<2>(slot);
        }
    }

    fn remove_keyed<const KEY_WORDS: usize>(&mut self, slot: SlotNumber) {
        // SAFETY: slots below `used` have an initialised head.
        let head = unsafe { &*self.head::<KEY_WORDS>(slot) };
        let stage = Stage::of(head.condition);
        debug_assert!(stage != Stage::Free, "the slot holds no entity");
        let filed = self.index.remove(self.hash_of(head.key), slot);
        debug_assert!(filed, "an entity is in the index");
        self.abandon::<KEY_WORDS>(slot);
        self.drop_state(slot, stage);
    }
}

impl Drop for Store {
    /// Drops every state, also behind one whose drop panics.
    fn drop(&mut self) {
        let slots = if self.layout.needs_drop { 0..self.used } else { 0..0 };
        for slot in slots.filter(|slot| self.stage(*slot).has_state()) {
            // SAFETY: the state is live, and the store is going: nobody uses it again.
            let drop_state = || unsafe {
                (self.layout.drop_entity)(self.at(slot).add(self.layout.entity_offset));
            };
            // The panic hook has reported it; what that state left is leaked.
            let _ = catch_unwind(AssertUnwindSafe(drop_state));
        }
    }
}

/// The words of a key as an array of its own length.
#[inline(always)]
pub(crate) fn narrow<const KEY_WORDS: usize>(words: KeyWords) -> [u64; KEY_WORDS] {
    std::array::from_fn(|i| words[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::drop_entity;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    type RcSlot = Slot<1, Rc<u64>>;

    fn layout() -> Layout {
        Layout {
            stride: size_of::<RcSlot>(),
            entity_offset: std::mem::offset_of!(RcSlot, entity),
            key_words: 1,
            needs_drop: true,
            drop_entity: drop_entity::<Rc<u64>>,
        }
    }

    fn store(entities_max: usize) -> Store {
        Store::new(0, layout(), HashKey::new(5), entities_max).expect("address space")
    }

    fn put(store: &mut Store, key: u64, state: Rc<u64>) -> Result<SlotNumber, StoreFull> {
        let slot = store.place([key, 0])?;
        // SAFETY: the state of a slot that is being activated may be written.
        unsafe { (*store.slot::<1, Rc<u64>>(slot)).entity.write(state) };
        store.set_stage(slot, Stage::Live);
        Ok(slot)
    }

    #[test]
    fn slot_keeps_its_overhead() {
        assert_eq!(size_of::<SlotHead<1>>(), 16);
        assert_eq!(size_of::<SlotHead<2>>(), 24);
        assert_eq!(size_of::<Slot<1, [u64; 6]>>(), 64, "48 bytes of state fill a line");
    }

    #[test]
    fn store_behaves_as_a_map_of_living_states() {
        let mut store = store(10_000);
        let mut model: BTreeMap<u64, (Rc<u64>, SlotNumber, u32)> = BTreeMap::new();
        let mut lives = std::collections::BTreeSet::new();
        let mut random = 0xdead_beef_cafe_f00d_u64;
        for _ in 0..100_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let key = (random >> 16) % 5000;
            match model.remove(&key) {
                Some((state, slot, generation)) => {
                    assert_eq!(store.find([key]), Some(slot));
                    assert_eq!(store.ready_by_hint(slot + 1, [key]), Some(slot));
                    assert_eq!(store.ready_by_hint(slot + 1, [key + 1]), None);
                    assert_eq!(store.generation(slot), generation);
                    store.remove(slot);
                    assert_eq!(Rc::strong_count(&state), 1, "dropped once");
                    assert_eq!(store.ready_by_hint(slot + 1, [key]), None);
                }
                None => {
                    assert_eq!(store.find([key]), None);
                    let state = Rc::new(key);
                    let slot = put(&mut store, key, Rc::clone(&state)).expect("room");
                    let generation = store.generation(slot);
                    assert!(lives.insert((slot, generation)), "a life came twice");
                    model.insert(key, (state, slot, generation));
                }
            }
            assert_eq!(store.len(), model.len());
        }
        let states: Vec<_> = model.into_values().map(|(state, _, _)| state).collect();
        drop(store);
        assert!(states.iter().all(|state| Rc::strong_count(state) == 1));
    }

    #[test]
    fn restart_keeps_the_place_and_begins_another_life() {
        let mut store = store(10);
        let state = Rc::new(1);
        let slot = put(&mut store, 1, Rc::clone(&state)).expect("room");
        let generation = store.generation(slot);
        store.end_life(slot);
        assert_eq!(Rc::strong_count(&state), 1, "dropped");
        assert_eq!((store.find([1]), store.stage(slot)), (Some(slot), Stage::Restarting));
        assert_eq!(store.ready_by_hint(slot + 1, [1]), None);
        assert!(!store.is_alive(slot, generation) && store.generation(slot) != generation);
        store.remove(slot);
        assert_eq!(Rc::strong_count(&state), 1, "not dropped again");
        assert_eq!(store.find([1]), None);
    }

    #[test]
    fn hand_counts_since_the_last_turn() {
        let mut store = store(10);
        let slot = put(&mut store, 1, Rc::new(1)).expect("room");
        assert_eq!([0, 1, 2], [0; 3].map(|_: u32| store.grow_older(slot)));
        assert_eq!(store.find_ready([1]), None, "the next turn takes the slow way, and says so");
        store.touch(slot);
        assert_eq!(store.find_ready([1]), Some(slot));
        assert_eq!(store.grow_older(slot), 0);
    }

    #[test]
    fn full_store_refuses_and_takes_again_after_a_removal() {
        let mut store = store(3);
        for key in 0..3 {
            assert!(put(&mut store, key, Rc::new(key)).is_ok());
        }
        assert_eq!(put(&mut store, 3, Rc::new(3)), Err(StoreFull));
        store.remove(1);
        assert!(put(&mut store, 3, Rc::new(3)).is_ok());
    }

    #[test]
    fn fetching_ahead_names_the_slot() {
        let mut store = store(100_000);
        for key in 0..50_000 {
            assert!(put(&mut store, key, Rc::new(key)).is_ok());
        }
        let mut named = 0;
        for key in 0..50_000u64 {
            let place = store.fetch_index([key]);
            let hint = store.fetch_slot(place);
            if store.ready_by_hint(hint, [key]).is_some() {
                named += 1;
            }
        }
        assert!(named > 45_000, "only {named} of 50,000 hints were right");
    }
}
