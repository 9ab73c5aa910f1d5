//! Passivation: entities that had no turn for a while are put away.
//!
//! A hand passes over the slots of each type that asks for it, at a pace that takes it round in a
//! quarter of the idle time, and counts in the slot's condition how often it came since the last
//! turn; a turn resets the count by the store that it makes anyway. Four passes without a turn, and
//! the entity is idle. Where there are more entities than may be in memory, the hand goes on at
//! once, and one pass without a turn is enough (the second chance of the clock algorithm; Corbató
//! 1968). Either way a message costs nothing.
//!
//! An entity that has timers set, children, or an async turn under way is not put away.
#![expect(unsafe_code, reason = "the hand passes over slots of the store")]

use crate::condition::Stage;
use crate::index::SlotNumber;
use crate::pending::Outside;
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::supervise::End;

/// The hand of one entity type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    /// The number of the type.
    kind: u16,
    /// The slot it comes to next.
    at: SlotNumber,
    /// When it began its round.
    began_ns: u64,
}

/// Slots that the hand passes per poll.
const SLOTS_PER_POLL: u32 = 1024;

/// Passes of the hand in the idle time.
const PASSES: u64 = 4;

/// What the hand did to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passed {
    PutAway,
    Over,
    /// It is past the last one.
    Round,
}

impl Hand {
    pub(crate) fn new(kind: u16) -> Self {
        Self { kind, at: 0, began_ns: 0 }
    }
}

impl Shard {
    /// Moves each hand as far as it has come in time, or as the bound on entities asks. Returns
    /// whether one lags behind.
    pub(crate) fn move_hands(&mut self, outside: &mut dyn Outside) -> bool {
        let mut lags = false;
        for at in 0..self.hands.len() {
            let surplus = self.surplus(self.hands[at].kind);
            if surplus > 0 {
                self.press(at, surplus, outside);
                lags = true;
            } else {
                lags |= self.keep_pace(at, outside);
            }
        }
        lags
    }

    /// Entities of the type that are in memory beyond what may be.
    fn surplus(&self, kind: u16) -> usize {
        let life = self.table.types[usize::from(kind)].life;
        // SAFETY: one step.
        let store = unsafe { self.stores[usize::from(kind)].get() };
        let by_count = store.len().saturating_sub(life.resident_max.unwrap_or(usize::MAX));
        if self.resident_bytes_max == usize::MAX {
            return by_count;
        }
        let over_bytes = self.passivated_bytes().saturating_sub(self.resident_bytes_max);
        by_count.max(over_bytes.div_ceil(store.stride()).min(store.len()))
    }

    /// Bytes of all states that may be put away.
    fn passivated_bytes(&self) -> usize {
        let bytes = |hand: &Hand| {
            // SAFETY: one step.
            let store = unsafe { self.stores[usize::from(hand.kind)].get() };
            store.len() * store.stride()
        };
        self.hands.iter().map(bytes).sum()
    }

    /// Puts `surplus` entities away, those first that had no turn since the hand last came.
    fn press(&mut self, at: usize, surplus: usize, outside: &mut dyn Outside) {
        let mut left = surplus;
        for _ in 0..SLOTS_PER_POLL {
            match self.pass(at, 1, outside) {
                Passed::PutAway => left -= 1,
                Passed::Over => {}
                Passed::Round => self.hands[at].at = 0,
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Passes over as many slots as the time since the round began asks for. Returns whether some
    /// are left.
    fn keep_pace(&mut self, at: usize, outside: &mut dyn Outside) -> bool {
        let hand = self.hands[at];
        let Some(idle) = self.table.types[usize::from(hand.kind)].life.idle else { return false };
        let now_ns = self.core.now.monotonic_ns;
        let round_ns = (idle.as_nanos() as u64 / PASSES).max(1);
        let passed_ns = now_ns.saturating_sub(hand.began_ns).min(round_ns);
        // SAFETY: one step.
        let used = unsafe { self.stores[usize::from(hand.kind)].get() }.slots_used();
        let due = (u128::from(used) * u128::from(passed_ns) / u128::from(round_ns)) as u32;
        let slots = due.saturating_sub(hand.at);
        for _ in 0..slots.min(SLOTS_PER_POLL) {
            self.pass(at, PASSES as u32, outside);
        }
        if slots <= SLOTS_PER_POLL && passed_ns == round_ns {
            (self.hands[at].at, self.hands[at].began_ns) = (0, now_ns);
        }
        slots > SLOTS_PER_POLL
    }

    /// Passes over one slot.
    fn pass(&mut self, at: usize, passes: u32, outside: &mut dyn Outside) -> Passed {
        let hand = &mut self.hands[at];
        let (kind, slot) = (hand.kind, hand.at);
        let id = self.stores[usize::from(kind)];
        // SAFETY: one step.
        let store = unsafe { id.get() };
        if slot >= store.slots_used() {
            return Passed::Round;
        }
        hand.at += 1;
        if store.stage(slot) != Stage::Live {
            return Passed::Over;
        }
        let age = store.grow_older(slot);
        if age < passes || self.has_business(kind, slot) {
            return Passed::Over;
        }
        self.core.stats.passivations += 1;
        self.stop(id, slot, End::Passivated, outside);
        self.current.clear();
        Passed::PutAway
    }

    /// Whether something of the entity's own is under way.
    fn has_business(&self, kind: u16, slot: SlotNumber) -> bool {
        !planted(Bug::PutsAwayBusy)
            && self.core.attached.get(kind, slot).is_some_and(|attached| {
                !attached.timers.is_empty()
                    || !attached.tasks.is_empty()
                    || !attached.children.is_empty()
                    || attached.quiet.is_some()
            })
    }

    /// When a hand has to move next, on a shard that does nothing else.
    pub(crate) fn next_pass_ns(&self) -> Option<u64> {
        let next = |hand: &Hand| {
            let idle = self.table.types[usize::from(hand.kind)].life.idle?;
            // SAFETY: one step.
            let store = unsafe { self.stores[usize::from(hand.kind)].get() };
            let round_ns = idle.as_nanos() as u64 / PASSES;
            let end_ns = hand.began_ns.saturating_add(round_ns);
            (store.len() > 0).then_some(end_ns)
        };
        self.hands.iter().filter_map(next).min()
    }
}
