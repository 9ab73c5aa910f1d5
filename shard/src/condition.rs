//! The condition of a slot: one word that says everything a turn must know of its entity.
//!
//! The stage; whether the entity had a turn since the hand that looks for idle ones passed
//! ([`USED`]); how often the hand passed since; and whether each turn is to be noted. A turn
//! compares the word with [`READY`], which most are, in one step; everything else is the slow way.
#![expect(unsafe_code, reason = "slots lie in reserved memory")]

use crate::index::SlotNumber;
use crate::slot::SlotHead;
use crate::store::Store;

/// What a slot is used for just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Nothing; its first key word links to the next free one.
    Free = 0,
    /// The entity may have its turn.
    Live = 1,
    /// An async turn holds the state.
    Busy = 2,
    /// Async reads share the state.
    Reading = 3,
    /// The entity may have its turn; what waits in its stash comes first.
    Draining = 4,
    /// The state is being made.
    Activating = 5,
    /// The state was dropped after a fault and will be made anew.
    Restarting = 6,
}

impl Stage {
    const MASK: u32 = 0xff;

    #[inline(always)]
    pub(crate) const fn of(condition: u32) -> Self {
        match (condition & Self::MASK) as u8 {
            0 => Self::Free,
            1 => Self::Live,
            2 => Self::Busy,
            3 => Self::Reading,
            4 => Self::Draining,
            5 => Self::Activating,
            _ => Self::Restarting,
        }
    }

    /// Whether the slot's state is initialised.
    pub(crate) const fn has_state(self) -> bool {
        matches!(self, Self::Live | Self::Busy | Self::Reading | Self::Draining)
    }
}

/// The entity had a turn since the hand passed.
pub(crate) const USED: u32 = 1 << 8;
/// Each turn of the entity takes the slow way, which keeps the time of its last message.
const NOTED: u32 = 1 << 9;
/// The hand that makes room has marked the entity, which had no turn since.
const MARKED: u32 = 1 << 10;
/// How often the hand passed since the last turn, where it stands in the condition.
const AGE_SHIFT: u32 = 16;
/// The condition of an entity that a turn finds without looking further.
pub(crate) const READY: u32 = Stage::Live as u32 | USED;

/// How a life is told apart, and what it is used for.
#[derive(Clone, Copy)]
#[repr(C)]
struct Life {
    generation: u32,
    condition: u32,
}

const _: () = {
    assert!(std::mem::offset_of!(SlotHead<1>, generation) == 8);
    assert!(std::mem::offset_of!(SlotHead<1>, condition) == 12);
    assert!(std::mem::offset_of!(SlotHead<2>, generation) == 16);
    assert!(std::mem::offset_of!(SlotHead<2>, condition) == 20);
};

impl Store {
    #[inline(always)]
    fn condition(&self, slot: SlotNumber) -> u32 {
        self.life(slot).1
    }

    /// Where generation and condition of a slot stand, which follow the key: one word.
    #[inline(always)]
    fn life_word(&self, slot: SlotNumber) -> *mut Life {
        let key_bytes = size_of::<u64>() * self.layout.key_words;
        self.at(slot).wrapping_add(key_bytes).cast()
    }

    /// Generation and condition of a slot.
    #[inline(always)]
    pub(crate) fn life(&self, slot: SlotNumber) -> (u32, u32) {
        // SAFETY: slots below `used` have an initialised head.
        let Life { generation, condition } = unsafe { self.life_word(slot).read() };
        (generation, condition)
    }

    #[inline(always)]
    pub(crate) fn set_life(&mut self, slot: SlotNumber, generation: u32, condition: u32) {
        // SAFETY: slots below `used` have an initialised head, and the store is borrowed mutably.
        unsafe { self.life_word(slot).write(Life { generation, condition }) };
    }

    /// Whether the entity of this generation may have its turn without further ado.
    #[inline(always)]
    pub(crate) fn is_ready_in<const KEY_WORDS: usize>(
        &self,
        slot: SlotNumber,
        generation: u32,
    ) -> bool {
        // SAFETY: slots below `used` have an initialised head.
        let head = unsafe { &*self.head::<KEY_WORDS>(slot) };
        head.generation == generation && head.condition == READY
    }

    /// Whether the entity of this generation may have its turn, which it then has.
    #[cold]
    pub(crate) fn make_ready(&mut self, slot: SlotNumber, generation: u32) -> bool {
        let ready = self.is_alive(slot, generation) && self.stage(slot) == Stage::Live;
        if ready {
            self.touch(slot);
        }
        ready
    }

    /// What the slot is used for.
    pub(crate) fn stage(&self, slot: SlotNumber) -> Stage {
        Stage::of(self.condition(slot))
    }

    /// Puts the slot to another use. The caller vouches that the state is initialised or not, as
    /// the stage says.
    pub(crate) fn set_stage(&mut self, slot: SlotNumber, stage: Stage) {
        let (generation, condition) = self.life(slot);
        let noted = condition & NOTED;
        self.set_life(slot, generation, noted | USED | stage as u32);
    }

    /// Notes that a live entity has a turn. Returns whether the time of its messages is wanted.
    pub(crate) fn touch(&mut self, slot: SlotNumber) -> bool {
        let (generation, condition) = self.life(slot);
        let young = condition & (Stage::MASK | NOTED) | USED;
        self.set_life(slot, generation, young);
        condition & NOTED != 0
    }

    /// Whether each turn of the entity is to take the slow way.
    pub(crate) fn set_noted(&mut self, slot: SlotNumber, noted: bool) {
        let (generation, condition) = self.life(slot);
        let rest = condition & !NOTED;
        self.set_life(slot, generation, if noted { rest | NOTED } else { rest });
    }

    /// The hand passes over a live entity: returns how often it did since the last turn.
    pub(crate) fn grow_older(&mut self, slot: SlotNumber) -> u32 {
        let (generation, condition) = self.life(slot);
        let age = if condition & USED == 0 { (condition >> AGE_SHIFT) + 1 } else { 0 };
        let rest = condition & (Stage::MASK | NOTED | MARKED);
        self.set_life(slot, generation, rest | age.min(0xffff) << AGE_SHIFT);
        age
    }

    /// Marks a live entity until its next turn. Returns whether it was marked before.
    pub(crate) fn mark(&mut self, slot: SlotNumber) -> bool {
        let (generation, condition) = self.life(slot);
        self.set_life(slot, generation, condition | MARKED);
        condition & MARKED != 0
    }

    /// The life that the slot is in now, or will be in next.
    #[inline]
    pub(crate) fn generation(&self, slot: SlotNumber) -> u32 {
        self.life(slot).0
    }

    /// Whether an entity with its state is in the slot, in the life of this generation.
    #[inline]
    pub(crate) fn is_alive(&self, slot: SlotNumber, generation: u32) -> bool {
        slot < self.used && self.generation(slot) == generation && self.stage(slot).has_state()
    }
}
