//! Passivation: entities that had no turn for a while are put away.
//!
//! A hand passes over the slots of each type that asks for it, at a pace that takes it round twelve
//! times in the idle time, and counts in the slot's condition how often it came since the last
//! turn; a turn resets the count by the store that it makes anyway. Thirteen passes without a turn,
//! and the entity was idle for its time, whenever in a round the hand came to it.
//!
//! Where more entities or bytes are in memory than may be, another hand marks those that it passes
//! and puts away those that still have its mark from its last round, as they had no turn since (the
//! clock algorithm; Corbató 1968). Either way a message costs nothing.
//!
//! An entity that has timers set, children, or an async turn under way is not put away.
#![expect(unsafe_code, reason = "the hand passes over slots of the store")]

use std::time::Duration;

use crate::attached::Attached;
use crate::condition::Stage;
use crate::index::SlotNumber;
use crate::pending::Outside;
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::store::StoreId;
use crate::supervise::End;

/// The hands of one entity type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    /// The number of the type.
    kind: u16,
    /// The slot it comes to next, looking for idle ones.
    at: SlotNumber,
    /// When it began its round.
    began_ns: u64,
    /// The slot it comes to next, making room.
    pressed_at: SlotNumber,
    /// It marked somebody or put somebody away in this round.
    stirred: bool,
}

/// Slots that a hand passes per poll.
const SLOTS_PER_POLL: u32 = 1024;

/// Rounds of the hand in the idle time.
const ROUNDS: u64 = 12;
/// Passes without a turn between which there are at least so many rounds.
const PASSES: u32 = ROUNDS as u32 + 1;

/// What the hand did to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Passed {
    PutAway,
    Marked,
    Over,
    /// It is past the last one.
    Round,
}

impl Hand {
    pub(crate) fn new(kind: u16) -> Self {
        Self { kind, at: 0, began_ns: 0, pressed_at: 0, stirred: false }
    }
}

/// Makes room for bytes, of one type after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Press {
    /// Whose turn it is among the hands.
    hand: usize,
    /// Rounds of hands, one after the other, in which nothing could be done.
    vain: usize,
}

impl Shard {
    /// Moves each hand as far as it has come in time, or as a bound asks. Returns whether one lags
    /// behind.
    pub(crate) fn move_hands(&mut self, outside: &mut dyn Outside) -> bool {
        let mut lags = false;
        for at in 0..self.hands.len() {
            lags |= self.keep_pace(at, outside);
            let surplus = self.surplus(self.hands[at].kind);
            if surplus > 0 {
                lags |= self.press(at, surplus, outside).unwrap_or(true);
            }
        }
        lags | self.press_bytes(outside)
    }

    /// Entities of the type that are in memory beyond what may be, without those that are leaving.
    fn surplus(&self, kind: u16) -> usize {
        let life = self.table.types[usize::from(kind)].life;
        life.resident_max.map_or(0, |most| self.staying(kind).saturating_sub(most))
    }

    fn staying(&self, kind: u16) -> usize {
        // SAFETY: one step.
        let store = unsafe { self.stores[usize::from(kind)].get() };
        store.len() - self.core.leaving[usize::from(kind)] as usize
    }

    fn stride(&self, kind: u16) -> usize {
        // SAFETY: one step.
        unsafe { self.stores[usize::from(kind)].get() }.stride()
    }

    /// Puts entities away until their bytes are within the bound. Returns whether there is more to
    /// be done.
    fn press_bytes(&mut self, outside: &mut dyn Outside) -> bool {
        if self.resident_bytes_max == usize::MAX {
            return false;
        }
        let bytes = |hand: &Hand| self.staying(hand.kind) * self.stride(hand.kind);
        let bytes: usize = self.hands.iter().map(bytes).sum();
        let over = bytes.saturating_sub(self.resident_bytes_max);
        if over == 0 || self.hands.is_empty() {
            return false;
        }
        let at = self.press.hand;
        let surplus = over.div_ceil(self.stride(self.hands[at].kind));
        if let Some(lags) = self.press(at, surplus, outside) {
            self.press.vain = if lags { 0 } else { self.press.vain + 1 };
            self.press.hand = (at + 1) % self.hands.len();
        }
        self.press.vain < self.hands.len()
    }

    /// Puts up to `surplus` entities away that had no turn since the hand came last. At the end of
    /// a round, returns whether anything was done in it.
    fn press(&mut self, at: usize, surplus: usize, outside: &mut dyn Outside) -> Option<bool> {
        let mut left = surplus;
        for _ in 0..SLOTS_PER_POLL {
            match self.press_next(at, outside) {
                Passed::PutAway => {
                    self.hands[at].stirred = true;
                    left -= 1;
                }
                Passed::Marked => self.hands[at].stirred = true,
                Passed::Over => {}
                Passed::Round => {
                    self.hands[at].pressed_at = 0;
                    return Some(std::mem::take(&mut self.hands[at].stirred));
                }
            }
            if left == 0 {
                break;
            }
        }
        None
    }

    /// Marks the entity in the next slot, or puts it away.
    fn press_next(&mut self, at: usize, outside: &mut dyn Outside) -> Passed {
        let hand = &mut self.hands[at];
        let (kind, slot) = (hand.kind, hand.pressed_at);
        let id = self.stores[usize::from(kind)];
        // SAFETY: one step.
        let store = unsafe { id.get() };
        if slot >= store.slots_used() {
            return Passed::Round;
        }
        hand.pressed_at += 1;
        if store.stage(slot) != Stage::Live || self.has_business(kind, slot) {
            return Passed::Over;
        }
        if !store.mark(slot) {
            return Passed::Marked;
        }
        self.put_away(id, slot, outside);
        Passed::PutAway
    }

    /// Passes over as many slots as the time since the round began asks for. Returns whether some
    /// are left.
    fn keep_pace(&mut self, at: usize, outside: &mut dyn Outside) -> bool {
        let hand = self.hands[at];
        let Some(idle) = self.table.types[usize::from(hand.kind)].life.idle else { return false };
        let now_ns = self.core.now.monotonic_ns;
        let round_ns = round_ns(idle);
        let passed_ns = now_ns.saturating_sub(hand.began_ns).min(round_ns);
        // SAFETY: one step.
        let used = unsafe { self.stores[usize::from(hand.kind)].get() }.slots_used();
        let due = (u128::from(used) * u128::from(passed_ns) / u128::from(round_ns)) as u32;
        let slots = due.saturating_sub(hand.at);
        for _ in 0..slots.min(SLOTS_PER_POLL) {
            self.pass(at, outside);
        }
        if slots <= SLOTS_PER_POLL && passed_ns == round_ns {
            (self.hands[at].at, self.hands[at].began_ns) = (0, now_ns);
        }
        slots > SLOTS_PER_POLL
    }

    /// Passes over one slot.
    fn pass(&mut self, at: usize, outside: &mut dyn Outside) {
        let hand = &mut self.hands[at];
        let (kind, slot) = (hand.kind, hand.at);
        hand.at += 1;
        let id = self.stores[usize::from(kind)];
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let live = store.stage(slot) == Stage::Live;
        if live && store.grow_older(slot) >= PASSES && !self.has_business(kind, slot) {
            self.put_away(id, slot, outside);
        }
    }

    fn put_away(&mut self, id: StoreId, slot: SlotNumber, outside: &mut dyn Outside) {
        self.core.stats.passivations += 1;
        self.stop(id, slot, End::Passivated, outside);
        self.current.clear();
    }

    /// Whether something of the entity's own is under way.
    fn has_business(&self, kind: u16, slot: SlotNumber) -> bool {
        let holds = |attached: &Attached| {
            !attached.tasks.is_empty() || !attached.children.is_empty() || attached.quiet.is_some()
        };
        !planted(Bug::PutsAwayBusy)
            && (self.core.own_timers.has_any(kind, slot)
                || self.core.attached.get(kind, slot).is_some_and(holds))
    }

    /// When a hand has to move next, on a shard that does nothing else.
    pub(crate) fn next_pass_ns(&self) -> Option<u64> {
        let next = |hand: &Hand| {
            let idle = self.table.types[usize::from(hand.kind)].life.idle?;
            // SAFETY: one step.
            let store = unsafe { self.stores[usize::from(hand.kind)].get() };
            let end_ns = hand.began_ns.saturating_add(round_ns(idle));
            (store.len() > 0).then_some(end_ns)
        };
        self.hands.iter().filter_map(next).min()
    }
}

/// How long a round of the hand takes.
fn round_ns(idle: Duration) -> u64 {
    (u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX) / ROUNDS).max(1)
}
