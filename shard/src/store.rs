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
//! A slot is `LIVE` exactly while its state is initialised and its key is in the index. The
//! generation of a slot grows when its entity goes, so `(slot, generation)` names one life.
#![expect(unsafe_code, reason = "slots are typed by their user and lie in reserved memory")]

use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::entity::Entity;
use crate::index::{Index, Place, SlotNumber};
use crate::key::{HashKey, Key, KeyWords};
use crate::pages::Region;
use crate::prefetch::prefetch;

/// What every slot begins with, whatever the type behind it.
#[repr(C)]
pub(crate) struct SlotHead<const KEY_WORDS: usize> {
    pub(crate) key: [u64; KEY_WORDS],
    pub(crate) generation: u32,
    pub(crate) condition: u32,
}

/// One entity's place.
#[repr(C)]
pub(crate) struct Slot<const KEY_WORDS: usize, E> {
    pub(crate) head: SlotHead<KEY_WORDS>,
    pub(crate) entity: MaybeUninit<E>,
}

/// The slot is free; its first key word links to the next free one.
pub(crate) const FREE: u32 = 0;
/// The entity is in memory and may have its turn.
pub(crate) const LIVE: u32 = 1;

/// How the bytes of a slot are laid out for one entity type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Bytes from one slot to the next.
    pub(crate) stride: usize,
    /// Bytes from a slot to its entity's state.
    pub(crate) entity_offset: usize,
    pub(crate) key_words: usize,
    /// Whether dropping a state does anything.
    pub(crate) needs_drop: bool,
    /// Drops a state in place.
    pub(crate) drop_entity: unsafe fn(*mut u8),
}

impl Layout {
    /// The layout for `E`.
    pub(crate) const fn of<E: Entity>() -> Self {
        const { assert!(E::Key::WORDS == 1 || E::Key::WORDS == 2, "a key has one or two words") };
        let (size, entity_offset) = if E::Key::WORDS == 1 {
            (size_of::<Slot<1, E>>(), std::mem::offset_of!(Slot<1, E>, entity))
        } else {
            (size_of::<Slot<2, E>>(), std::mem::offset_of!(Slot<2, E>, entity))
        };
        // Slots begin at multiples of the stride from a page boundary, so that is their alignment.
        const { assert!(align_of::<E>() <= 4096, "an entity's alignment is at most a page") };
        Self {
            stride: size,
            entity_offset,
            key_words: E::Key::WORDS,
            needs_drop: std::mem::needs_drop::<E>(),
            drop_entity: drop_entity::<E>,
        }
    }
}

/// # Safety
/// `at` points to an initialised `E` that nobody uses afterwards.
unsafe fn drop_entity<E>(at: *mut u8) {
    // SAFETY: the caller's contract.
    unsafe { at.cast::<E>().drop_in_place() };
}

/// The states of one entity type on one shard. What every turn reads fills the first cache line.
#[repr(C, align(64))]
pub(crate) struct Store {
    /// First slot; never moves.
    base: *mut u8,
    /// Bytes from one slot to the next.
    stride: u32,
    /// Slots ever used.
    used: u32,
    hash: HashKey,
    index: Index,
    slots_max: u32,
    layout: Layout,
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
    pub(crate) fn new(layout: Layout, hash: HashKey, entities_max: usize) -> io::Result<Self> {
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
            layout,
            slots_max: slots_max as u32,
            free: 0,
            region,
        })
    }

    /// Entities in memory.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes that turns on these entities work in.
    pub(crate) fn working_bytes(&self) -> usize {
        self.used as usize * self.layout.stride + self.index.bytes()
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

    /// The slot of `E` with this number.
    #[inline(always)]
    pub(crate) fn slot<const KEY_WORDS: usize, E>(
        &self,
        slot: SlotNumber,
    ) -> *mut Slot<KEY_WORDS, E> {
        self.at(slot).cast()
    }

    #[inline(always)]
    fn head<const KEY_WORDS: usize>(&self, slot: SlotNumber) -> *mut SlotHead<KEY_WORDS> {
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

    /// The slot that the hint of a record names, if `key` really lives there.
    #[inline(always)]
    pub(crate) fn by_hint<const KEY_WORDS: usize>(
        &self,
        hint: u32,
        key: [u64; KEY_WORDS],
    ) -> Option<SlotNumber> {
        let slot = hint.wrapping_sub(1);
        (slot < self.used && self.is_live_key(slot, key)).then_some(slot)
    }

    #[inline(always)]
    fn is_live_key<const KEY_WORDS: usize>(&self, slot: SlotNumber, key: [u64; KEY_WORDS]) -> bool {
        // SAFETY: slots below `used` have an initialised head.
        let head = unsafe { &*self.head::<KEY_WORDS>(slot) };
        head.key == key && head.condition != FREE
    }

    /// The slot of `key`, if its entity is in memory.
    #[inline]
    pub(crate) fn find<const KEY_WORDS: usize>(&self, key: [u64; KEY_WORDS]) -> Option<SlotNumber> {
        self.index.find(self.hash_of(key), |slot| self.is_live_key(slot, key))
    }

    /// A slot for the state of `key`, which is not in memory yet. It is not live and not in the
    /// index before [`settle`](Self::settle); [`abandon`](Self::abandon) gives it back.
    pub(crate) fn claim<const KEY_WORDS: usize>(
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

    /// Files a claimed slot, whose state is initialised, under its key.
    pub(crate) fn settle<const KEY_WORDS: usize>(
        &mut self,
        slot: SlotNumber,
    ) -> Result<(), StoreFull> {
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
        // SAFETY: as above.
        unsafe { (*head).condition = LIVE };
        if self.index.split_is_near() {
            for slot in self.index.next_split_slots() {
                prefetch(base.wrapping_add(slot as usize * stride));
            }
        }
        Ok(())
    }

    /// Gives back a claimed slot whose state is not initialised (any more).
    pub(crate) fn abandon<const KEY_WORDS: usize>(&mut self, slot: SlotNumber) {
        let head = self.head::<KEY_WORDS>(slot);
        // SAFETY: the slot was claimed, so its head is initialised and nobody uses its state.
        unsafe {
            (*head).condition = FREE;
            (*head).generation = (*head).generation.wrapping_add(1);
            (*head).key[0] = self.free;
        }
        self.free = u64::from(slot) + 1;
    }

    /// Gives back a claimed slot, whatever the width of its key.
    pub(crate) fn discard(&mut self, slot: SlotNumber) {
        if self.layout.key_words == 1 {
            self.abandon::<1>(slot);
        } else {
            self.abandon::<2>(slot);
        }
    }

    /// Takes the entity of a live slot out of the index and drops its state. The slot is free
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
        debug_assert!(head.condition != FREE, "the slot holds no entity");
        let filed = self.index.remove(self.hash_of(head.key), slot);
        debug_assert!(filed, "a live slot is in the index");
        self.abandon::<KEY_WORDS>(slot);
        // SAFETY: the state was live, and nobody finds it any more.
        unsafe { (self.layout.drop_entity)(self.at(slot).add(self.layout.entity_offset)) };
    }

    /// The life that the slot is in now, or will be in next.
    pub(crate) fn generation(&self, slot: SlotNumber) -> u32 {
        // SAFETY: slots below `used` have an initialised head.
        unsafe {
            if self.layout.key_words == 1 {
                (*self.head::<1>(slot)).generation
            } else {
                (*self.head::<2>(slot)).generation
            }
        }
    }

    /// Whether an entity is in the slot.
    pub(crate) fn is_live(&self, slot: SlotNumber) -> bool {
        // SAFETY: slots below `used` have an initialised head.
        unsafe {
            if self.layout.key_words == 1 {
                (*self.head::<1>(slot)).condition != FREE
            } else {
                (*self.head::<2>(slot)).condition != FREE
            }
        }
    }
}

impl Drop for Store {
    /// Drops every state, also behind one whose drop panics.
    fn drop(&mut self) {
        let slots = if self.layout.needs_drop { 0..self.used } else { 0..0 };
        for slot in slots.filter(|slot| self.is_live(*slot)) {
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
        Store::new(layout(), HashKey::new(5), entities_max).expect("address space")
    }

    fn put(store: &mut Store, key: u64, state: Rc<u64>) -> Result<SlotNumber, StoreFull> {
        let slot = store.claim([key])?;
        // SAFETY: a claimed slot's state may be written.
        unsafe { (*store.slot::<1, Rc<u64>>(slot)).entity.write(state) };
        store.settle::<1>(slot)?;
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
                    assert_eq!(store.by_hint(slot + 1, [key]), Some(slot));
                    assert_eq!(store.by_hint(slot + 1, [key + 1]), None);
                    assert_eq!(store.generation(slot), generation);
                    store.remove(slot);
                    assert_eq!(Rc::strong_count(&state), 1, "dropped once");
                    assert_eq!(store.by_hint(slot + 1, [key]), None);
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
            if store.by_hint(hint, [key]).is_some() {
                named += 1;
            }
        }
        assert!(named > 45_000, "only {named} of 50,000 hints were right");
    }
}
