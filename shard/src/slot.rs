//! Slots: an entity's key, life, condition and state, side by side.
#![expect(unsafe_code, reason = "states are dropped behind their type")]

use std::mem::MaybeUninit;

use crate::entity::Entity;
use crate::key::Key;

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
pub(crate) unsafe fn drop_entity<E>(at: *mut u8) {
    // SAFETY: the caller's contract.
    unsafe { at.cast::<E>().drop_in_place() };
}
