//! Timers of entities, and the shard's own: what is due, and what is done then.
//!
//! All of them stand in one [`Wheel`](crate::timer::Wheel). A timer of an entity belongs to a life:
//! it names the slot and its generation, and goes when that life is over. Once it has fired it
//! stands aside until its turn, where it can still be cancelled.
#![expect(unsafe_code, reason = "messages are kept as words until they are due")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::condition::Stage;
use crate::core::Core;
use crate::entity::{Handler, Message};
use crate::fault::{Current, NO_MESSAGE};
use crate::identity::{EntityId, Recipient};
use crate::index::SlotNumber;
use crate::key::KeyWords;
use crate::own_timers::Own;
use crate::pending::Outside;
use crate::record::{Head, Kind, Moved, Payload, RECORD_WORDS_MAX, Word};
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::stash::Stashed;
use crate::store::StoreId;
use crate::task::TaskId;
use crate::timer::TimerId;

/// A timer that was set; to be [cancelled](crate::Cx::cancel).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer(pub(crate) TimerId);

/// The wait for a time without messages.
pub(crate) struct Quiet {
    quiet_ns: u64,
    /// When the last message had its turn.
    pub(crate) last_ns: u64,
    pub(crate) timer: TimerId,
    make: Make,
}

/// Writes a tell with a copy of the message, from the entity to itself.
type Make = Box<dyn Fn(&mut Space)>;

/// Room for a record on the stack.
type Space = [Word; RECORD_WORDS_MAX];

/// A value that a timer keeps until it is due: itself in one word, or its heap block.
pub(crate) type Kept<M> = Moved<M, 8>;

/// What is due.
pub(crate) enum Alarm {
    /// The wait before a restart is over.
    Restart { store: u16, slot: SlotNumber, generation: u32 },
    /// A message to the entity itself; the value is of the message's type.
    Once { own: Own, message: u16, value: Word },
    /// The same, again and again.
    Every { own: Own, every: Box<Every> },
    /// Look whether the entity had no message for long enough.
    Quiet { store: u16, slot: SlotNumber },
    /// Look for asks in a stash whose time is over.
    Stale { kind: u16, slot: SlotNumber },
    /// An async turn slept.
    Wake(TaskId),
    /// A part of an async turn slept, which has a waker of its own.
    Waker(Waker),
    /// The asker of an async turn waits no longer.
    Cancel(TaskId),
}

const _: () = assert!(size_of::<Alarm>() <= 40, "with its entry, a cache line");

impl Alarm {
    /// What ties it to its entity, if it is a timer of one.
    pub(crate) fn own(&mut self) -> Option<&mut Own> {
        match self {
            Self::Once { own, .. } | Self::Every { own, .. } => Some(own),
            _ => None,
        }
    }
}

/// A periodic timer.
pub(crate) struct Every {
    period_ns: u64,
    /// It fired, and its message waits in the stash.
    waits: bool,
    make: Make,
}

/// An entity in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) kind: u16,
    pub(crate) slot: SlotNumber,
    pub(crate) generation: u32,
}

/// Timers that fire per poll; more wait for the next one.
const FIRED_PER_POLL: u32 = 4096;
/// Steps of the wheel's own upkeep per poll.
const WHEEL_STEPS_PER_POLL: u32 = 16_384;

impl Core {
    /// Sets a timer of the shard's own. There are at most a few per entity or async turn, which
    /// are bounded.
    pub(crate) fn schedule(&mut self, at_ns: u64, alarm: Alarm) -> Option<TimerId> {
        self.wheel.insert(at_ns, alarm).ok()
    }

    /// Has `message` sent by the entity to itself at `at_ns`.
    pub(crate) fn set_timer<E: Handler<M>, M: Message>(
        &mut self,
        owner: Owner,
        name: Option<u64>,
        at_ns: u64,
        message: M,
    ) -> Result<Timer, M> {
        if self.own_timers.is_full() {
            return Err(message);
        }
        let mut value = Word::uninit();
        // SAFETY: one word, which is what a kept value takes.
        unsafe { Kept::<M>::write(&raw mut value, message) };
        let number = self.directory.message::<E, M>();
        let alarm = |own| Alarm::Once { own, message: number, value };
        let early_ns = if planted(Bug::EarlyTimer) { 1_000_000_000 } else { 0 };
        let set = self.set_own(owner, name, at_ns.saturating_sub(early_ns), alarm);
        // SAFETY: the value comes back as it was written.
        set.map(Timer).map_err(|_| unsafe { Kept::<M>::read(&raw const value) })
    }

    /// Has copies of `message` sent by the entity to itself, every `period_ns`.
    pub(crate) fn set_periodic<E: Handler<M>, M: Message + Clone>(
        &mut self,
        (owner, key): (Owner, E::Key),
        name: Option<u64>,
        period_ns: u64,
        message: M,
    ) -> Result<Timer, M> {
        if self.own_timers.is_full() {
            return Err(message);
        }
        let make = self.maker::<E, M>(key, message.clone());
        let period_ns = period_ns.max(1_000_000);
        let every = Box::new(Every { period_ns, waits: false, make });
        let at_ns = self.now.monotonic_ns.saturating_add(period_ns);
        let set = self.set_own(owner, name, at_ns, |own| Alarm::Every { own, every });
        set.map(Timer).map_err(|_| message)
    }

    /// Has a copy of `message` sent by the entity to itself whenever it had none for `quiet_ns`.
    pub(crate) fn set_quiet<E: Handler<M>, M: Message + Clone>(
        &mut self,
        (owner, key): (Owner, E::Key),
        quiet_ns: u64,
        message: M,
    ) {
        self.clear_quiet(owner);
        let make = self.maker::<E, M>(key, message);
        let Owner { kind: store, slot, .. } = owner;
        let last_ns = self.now.monotonic_ns;
        let at_ns = last_ns.saturating_add(quiet_ns);
        let Ok(timer) = self.wheel.insert(at_ns, Alarm::Quiet { store, slot }) else {
            return;
        };
        let quiet = Quiet { quiet_ns, last_ns, timer, make };
        self.attached.entry(owner.kind, owner.slot).quiet = Some(quiet);
    }

    /// Ends the wait for a time without messages.
    pub(crate) fn clear_quiet(&mut self, owner: Owner) {
        let attached = self.attached.get_mut(owner.kind, owner.slot);
        if let Some(quiet) = attached.and_then(|attached| attached.quiet.take()) {
            self.wheel.cancel(quiet.timer);
        }
    }

    fn maker<E: Handler<M>, M: Message + Clone>(&self, key: E::Key, message: M) -> Make {
        let entity = EntityId::of::<E>(self.directory.entity::<E>(), key);
        let to = Recipient { entity, message: self.directory.message::<E, M>() };
        Box::new(move |space| {
            let message = message.clone();
            // SAFETY: there is room for any record; the number is that of M to E.
            unsafe { to.write_tell(space.as_mut_ptr(), message) };
        })
    }

    /// Drops what a timer kept.
    pub(crate) fn drop_alarm(&self, alarm: Alarm) {
        if let Alarm::Once { message, mut value, .. } = alarm {
            let drop_kept = self.table.rows[usize::from(message)].drop_kept;
            // SAFETY: the value is of the type that its number names, and is given up.
            unsafe { drop_kept(&raw mut value) };
        }
    }
}

impl Shard {
    /// Does what is due.
    pub(crate) fn run_alarms(&mut self, outside: &mut dyn Outside) {
        let now_ns = self.core.now.monotonic_ns;
        let mut steps = WHEEL_STEPS_PER_POLL;
        while self.alarms_left > 0
            && let Some(timer) = self.core.wheel.pop_due(now_ns, &mut steps)
        {
            self.alarms_left -= 1;
            self.core.stats.timers_fired += 1;
            self.fire(timer, outside);
        }
    }

    /// Drops all timers of a life that is over.
    pub(crate) fn forget_timers(&mut self, kind: u16, slot: SlotNumber) {
        if planted(Bug::StaleTimer) {
            return;
        }
        while let Some(timer) = self.core.any_own(kind, slot) {
            let alarm = self.core.disown(timer);
            let core = &self.core;
            // The values may have a drop of the user's.
            let drop_it = || alarm.into_iter().for_each(|alarm| core.drop_alarm(alarm));
            if catch_unwind(AssertUnwindSafe(drop_it)).is_err() {
                self.core.stats.faults += 1;
            }
        }
        let attached = self.core.attached.get_mut(kind, slot);
        if let Some(quiet) = attached.and_then(|attached| attached.quiet.take()) {
            self.core.wheel.cancel(quiet.timer);
            self.drop_guarded(|| drop(quiet));
        }
    }

    /// Lets another number of timers fire.
    pub(crate) fn refill_alarms(&mut self) {
        self.alarms_left = FIRED_PER_POLL;
    }

    fn fire(&mut self, timer: TimerId, outside: &mut dyn Outside) {
        match self.core.wheel.get_mut(timer) {
            Some(Alarm::Once { own, .. }) => {
                let owner = own.owner();
                self.fire_own(timer, owner, outside);
            }
            Some(Alarm::Every { own, every }) => {
                let (owner, period_ns) = (own.owner(), every.period_ns);
                let waits = std::mem::replace(&mut every.waits, true);
                // From now and not from when it was due: a shard that was late does not catch up in
                // a rush.
                let at_ns = self.core.now.monotonic_ns.saturating_add(period_ns);
                self.core.wheel.set_again(timer, at_ns);
                // Where the entity is busy for longer than a period, its message waits once.
                if !waits {
                    self.fire_own(timer, owner, outside);
                }
            }
            Some(Alarm::Quiet { store, slot }) => {
                let entity = (*store, *slot);
                self.fire_quiet(timer, entity, outside);
            }
            _ => {
                if let Some(alarm) = self.core.wheel.cancel(timer) {
                    self.fire_for_shard(alarm, outside);
                }
            }
        }
    }

    /// Does what is due that is not a message to an entity.
    fn fire_for_shard(&mut self, alarm: Alarm, outside: &mut dyn Outside) {
        match alarm {
            Alarm::Restart { store, slot, generation } => {
                let id = self.stores[usize::from(store)];
                // SAFETY: one step.
                if unsafe { id.get() }.generation(slot) == generation {
                    self.restart_now(id, slot, outside);
                }
            }
            Alarm::Stale { kind, slot } => self.expire_stashed(kind, slot),
            Alarm::Wake(task) | Alarm::Cancel(task) if !self.core.tasks.is_here(task) => {}
            Alarm::Wake(task) => self.poll_task(task),
            Alarm::Waker(waker) => {
                self.current = Current::ANSWERING;
                waker.wake();
                self.current = Current::NONE;
            }
            Alarm::Cancel(task) => self.cancel_late(task),
            Alarm::Once { .. } | Alarm::Every { .. } | Alarm::Quiet { .. } => {
                unreachable!("their entities are dealt with before")
            }
        }
    }

    /// Has the message of a timer its turn, now or behind what waits.
    fn fire_own(&mut self, timer: TimerId, owner: Owner, outside: &mut dyn Outside) {
        let Owner { kind, slot, generation } = owner;
        let id = self.stores[usize::from(kind)];
        // SAFETY: one step.
        let alive = unsafe { id.get() }.is_alive(slot, generation);
        debug_assert!(alive || planted(Bug::StaleTimer), "it goes with its life");
        self.turn_or_stash(id, (slot, generation), false, outside, move |shard, outside| {
            shard.run_own(timer, (id, slot), outside);
        });
    }

    /// Runs the turn of a timer that has fired, unless it was cancelled while it waited.
    fn run_own(
        &mut self,
        timer: TimerId,
        (id, slot): (StoreId, SlotNumber),
        outside: &mut dyn Outside,
    ) {
        match self.core.wheel.get_mut(timer) {
            Some(Alarm::Once { .. }) => {
                let Some(Alarm::Once { message, value, .. }) = self.core.disown(timer) else {
                    return;
                };
                let mut space = [Word::uninit(); RECORD_WORDS_MAX];
                // SAFETY: one step.
                let key = unsafe { id.get() }.key(slot);
                // SAFETY: the value is of the message's type, and is given up.
                unsafe { self.tell_of_kept(&mut space, message, key, &value) };
                // SAFETY: it has just been written.
                unsafe { self.run_space(&mut space, slot, outside) };
            }
            Some(Alarm::Every { every, .. }) => {
                every.waits = false;
                self.current = Current::new(id, slot, None, NO_MESSAGE);
                let (mut space, mut twin) = ([Word::uninit(); RECORD_WORDS_MAX], None);
                (every.make)(&mut space);
                if planted(Bug::TimerTwice) {
                    (every.make)(twin.insert([Word::uninit(); RECORD_WORDS_MAX]));
                }
                self.current.clear();
                // SAFETY: it has just been written.
                unsafe { self.run_space(&mut space, slot, outside) };
                if let Some(twin) = &mut twin {
                    // SAFETY: as above.
                    unsafe { self.run_space(twin, slot, outside) };
                }
            }
            // It was cancelled while it waited.
            _ => {}
        }
    }

    /// Writes the tell of a value that a timer kept.
    ///
    /// # Safety
    /// `kept` holds a value of the type that `message` names, which is given up.
    unsafe fn tell_of_kept(&self, space: &mut Space, message: u16, key: KeyWords, kept: &Word) {
        let row = &self.table.rows[usize::from(message)];
        let key_words = usize::from(row.key_words);
        let words = 1 + key_words + usize::from(row.value_words);
        space[0] = Word::new(Head::new(Kind::Tell, words, message).bits());
        for (at, word) in key[..key_words].iter().enumerate() {
            space[1 + at] = Word::new(*word);
        }
        // SAFETY: the row is that of the value, and there is room for any record.
        unsafe { (row.unkeep)(kept, space.as_mut_ptr().add(1 + key_words)) };
    }

    /// Runs the turn of a tell that was written for the entity in the slot.
    ///
    /// # Safety
    /// A whole tell of this table stands in the space, and is given up.
    unsafe fn run_space(&mut self, space: &mut Space, slot: SlotNumber, outside: &mut dyn Outside) {
        // SAFETY: the first word of a record is always written.
        let head = Head::from_bits(unsafe { space[0].assume_init() });
        // Another turn, though the queue stands where it stood.
        self.polls += 1;
        // SAFETY: the caller's contract.
        unsafe { self.run_record(space.as_mut_ptr(), head.with_status(slot + 1), outside) };
    }

    fn fire_quiet(
        &mut self,
        timer: TimerId,
        (store, slot): (u16, SlotNumber),
        outside: &mut dyn Outside,
    ) {
        let (now_ns, id) = (self.core.now.monotonic_ns, self.stores[usize::from(store)]);
        // SAFETY: one step.
        let free = unsafe { id.get() }.stage(slot) == Stage::Live;
        let attached = self.core.attached.get_mut(store, slot);
        let quiet = attached.and_then(|attached| attached.quiet.as_mut());
        let Some(quiet) = quiet.filter(|quiet| quiet.timer == timer) else {
            self.core.wheel.cancel(timer);
            return;
        };
        let due_ns = quiet.last_ns.saturating_add(quiet.quiet_ns);
        let is_due = due_ns <= now_ns;
        if is_due || !free {
            // While it is busy, it is not quiet.
            quiet.last_ns = now_ns;
        }
        self.core.wheel.set_again(timer, quiet.last_ns.saturating_add(quiet.quiet_ns));
        if is_due && free {
            self.current = Current::new(id, slot, None, NO_MESSAGE);
            let mut space = [Word::uninit(); RECORD_WORDS_MAX];
            (quiet.make)(&mut space);
            self.current.clear();
            // SAFETY: it has just been written.
            unsafe { self.run_space(&mut space, slot, outside) };
        }
    }

    /// Runs `turn` on the entity in the life of this generation: now, or behind what waits.
    pub(crate) fn turn_or_stash(
        &mut self,
        id: StoreId,
        (slot, generation): (SlotNumber, u32),
        is_answer: bool,
        outside: &mut dyn Outside,
        turn: impl FnOnce(&mut Self, &mut dyn Outside) + 'static,
    ) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let life = if planted(Bug::StaleTimer) { store.generation(slot) } else { generation };
        if !store.is_alive(slot, life) {
            // It may have captured values of the user's.
            return self.drop_guarded(|| drop(turn));
        }
        let (kind, stage) = (store.number(), store.stage(slot));
        if stage == Stage::Live {
            store.touch(slot);
            return turn(self, outside);
        }
        let waiting = Stashed::Resume { generation, turn: Box::new(turn), is_answer };
        self.core.attached.entry(kind, slot).stash.push_back(waiting);
        if stage == Stage::Draining {
            self.drain_one(id, slot, outside);
        }
    }
}

/// Moves a kept value behind the routing words of a record.
///
/// # Safety
/// `kept` holds an `M` in its kept form, which is given up; `at` has room for its payload.
pub(crate) unsafe fn unkeep<M: Message>(kept: *const Word, at: *mut Word) {
    // SAFETY: the caller's contract.
    unsafe { Payload::<M>::write(at, Kept::<M>::read(kept)) };
}
