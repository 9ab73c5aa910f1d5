//! Timers of entities, and the shard's own: what is due, and what is done then.
//!
//! All of them stand in one [`Wheel`]. A timer of an entity belongs to a life: it names the slot
//! and its generation, and finds nobody when that life is over.
#![expect(unsafe_code, reason = "messages are kept as words until they are due")]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use crate::condition::Stage;
use crate::core::Core;
use crate::entity::{Handler, Message};
use crate::fault::{Current, NO_MESSAGE};
use crate::index::SlotNumber;
use crate::owned_record::OwnedRecord;
use crate::pending::Outside;
use crate::record::{Moved, Word};
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::stash::Stashed;
use crate::store::StoreId;
use crate::table::Table;
use crate::task::TaskId;
use crate::timer::TimerId;

/// A timer that was set; to be [cancelled](crate::Cx::cancel).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer(pub(crate) TimerId);

/// The timers of one entity, in the order in which they were set: most fire in that order too.
pub(crate) type OwnTimers = VecDeque<OwnTimer>;

/// One timer of an entity.
#[derive(Clone, Copy)]
pub(crate) struct OwnTimer {
    name: Option<u64>,
    /// What it was called when it was set. A periodic one is set anew for each period.
    handle: TimerId,
    /// In the wheel.
    id: TimerId,
    /// It fired, and its message waits in the stash.
    waits: bool,
}

/// The wait for a time without messages.
pub(crate) struct Quiet {
    quiet_ns: u64,
    /// When the last message had its turn.
    pub(crate) last_ns: u64,
    pub(crate) timer: TimerId,
    make: Make,
}

/// Makes a record with a copy of the message, from the entity to itself.
pub(crate) type Make = Box<dyn Fn(&Arc<Table>) -> OwnedRecord>;

/// A value that a timer keeps until it is due: itself in one word, or its heap block.
pub(crate) type Kept<M> = Moved<M, 8>;

/// What is due.
pub(crate) enum Alarm {
    /// The wait before a restart is over.
    Restart { store: u16, slot: SlotNumber, generation: u32 },
    /// A message to the entity itself; the value is of the message's type.
    Message { store: u16, message: u16, slot: SlotNumber, generation: u32, value: Word },
    /// The same, again and again.
    Every(Box<Every>),
    /// Look whether the entity had no message for long enough.
    Quiet { store: u16, slot: SlotNumber, generation: u32 },
    /// An async turn slept.
    Wake(TaskId),
    /// A part of an async turn slept, which has a waker of its own.
    Waker(Waker),
    /// The asker of an async turn waits no longer.
    Cancel(TaskId),
}

const _: () = assert!(size_of::<Alarm>() <= 24, "ten million of them");

/// A periodic timer.
pub(crate) struct Every {
    store: u16,
    slot: SlotNumber,
    generation: u32,
    /// What it was called when it was set; `None` until that is known.
    handle: Option<TimerId>,
    period_ns: u64,
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
        if self.timers >= self.timers_max {
            return Err(message);
        }
        let mut value = Word::uninit();
        // SAFETY: one word, which is what a kept value takes.
        unsafe { Kept::<M>::write(&raw mut value, message) };
        let Owner { kind: store, slot, generation } = owner;
        let number = self.directory.message::<E, M>();
        let alarm = Alarm::Message { store, message: number, slot, generation, value };
        let early_ns = if planted(Bug::EarlyTimer) { 1_000_000_000 } else { 0 };
        let at_ns = at_ns.saturating_sub(early_ns);
        match self.wheel.insert(at_ns, alarm) {
            Ok(id) => {
                self.own_timer(owner, name, id);
                Ok(Timer(id))
            }
            // SAFETY: the value comes back as it was written.
            Err(_) => Err(unsafe { Kept::<M>::read(&raw const value) }),
        }
    }

    /// Has copies of `message` sent by the entity to itself, every `period_ns`.
    pub(crate) fn set_periodic<E: Handler<M>, M: Message + Clone>(
        &mut self,
        (owner, key): (Owner, E::Key),
        name: Option<u64>,
        period_ns: u64,
        message: M,
    ) -> Result<Timer, M> {
        if self.timers >= self.timers_max {
            return Err(message);
        }
        let make = self.maker::<E, M>(key, message.clone());
        let Owner { kind: store, slot, generation } = owner;
        let period_ns = period_ns.max(1_000_000);
        let every = Every { store, slot, generation, handle: None, period_ns, make };
        let at_ns = self.now.monotonic_ns.saturating_add(period_ns);
        let id = self.wheel.insert(at_ns, Alarm::Every(Box::new(every))).map_err(|_| message)?;
        self.own_timer(owner, name, id);
        Ok(Timer(id))
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
        let Owner { kind: store, slot, generation } = owner;
        let last_ns = self.now.monotonic_ns;
        let at_ns = last_ns.saturating_add(quiet_ns);
        let Ok(timer) = self.wheel.insert(at_ns, Alarm::Quiet { store, slot, generation }) else {
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
        let number = self.directory.message::<E, M>();
        Box::new(move |table| OwnedRecord::tell::<E, M>(table, number, key, message.clone()))
    }

    fn own_timer(&mut self, owner: Owner, name: Option<u64>, id: TimerId) {
        self.timers += 1;
        if let Some(name) = name {
            self.cancel_named(owner, name);
        }
        let timer = OwnTimer { name, handle: id, id, waits: false };
        self.attached.entry(owner.kind, owner.slot).timers.push_back(timer);
    }

    /// Cancels a timer of the entity. Returns whether it was still set.
    pub(crate) fn cancel_timer(&mut self, owner: Owner, id: TimerId) -> bool {
        self.cancel_own(owner, |timer| timer.handle == id)
    }

    /// Cancels the timer of this name. Returns whether one was set.
    pub(crate) fn cancel_named(&mut self, owner: Owner, name: u64) -> bool {
        self.cancel_own(owner, |timer| timer.name == Some(name))
    }

    fn cancel_own(&mut self, owner: Owner, which: impl Fn(&OwnTimer) -> bool) -> bool {
        let Some(attached) = self.attached.get_mut(owner.kind, owner.slot) else { return false };
        // Most that are cancelled were set lately.
        let Some(at) = attached.timers.iter().rposition(which) else { return false };
        let timer = attached.timers.remove(at);
        timer.inspect(|timer| self.forget_timer(timer.id)).is_some()
    }

    /// Takes a timer that has fired from its entity's list. Returns whether it was there.
    fn disown(&mut self, kind: u16, slot: SlotNumber, handle: TimerId) -> bool {
        let Some(attached) = self.attached.get_mut(kind, slot) else { return false };
        let at = attached.timers.iter().position(|timer| timer.handle == handle);
        at.and_then(|at| attached.timers.remove(at)).is_some()
    }

    fn own_timer_mut(
        &mut self,
        kind: u16,
        slot: SlotNumber,
        handle: TimerId,
    ) -> Option<&mut OwnTimer> {
        let attached = self.attached.get_mut(kind, slot)?;
        attached.timers.iter_mut().find(|timer| timer.handle == handle)
    }

    /// Drops a timer that its entity has given up.
    pub(crate) fn forget_timer(&mut self, id: TimerId) {
        if let Some(alarm) = self.wheel.cancel(id) {
            self.timers -= 1;
            self.drop_alarm(alarm);
        }
    }

    /// Drops what a timer kept.
    pub(crate) fn drop_alarm(&self, alarm: Alarm) {
        if let Alarm::Message { message, mut value, .. } = alarm {
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
            && let Some(due) = self.core.wheel.pop_due(now_ns, &mut steps)
        {
            self.alarms_left -= 1;
            self.core.stats.timers_fired += 1;
            self.fire(due.id, due.value, outside);
        }
    }

    /// Drops all timers of a life that is over.
    pub(crate) fn forget_timers(&mut self, timers: OwnTimers, quiet: Option<Quiet>) {
        for timer in timers {
            let core = &mut self.core;
            // The values may have a drop of the user's.
            if catch_unwind(AssertUnwindSafe(|| core.forget_timer(timer.id))).is_err() {
                self.core.stats.faults += 1;
            }
        }
        if let Some(quiet) = quiet {
            self.core.wheel.cancel(quiet.timer);
            self.drop_guarded(|| drop(quiet));
        }
    }

    /// Lets another number of timers fire.
    pub(crate) fn refill_alarms(&mut self) {
        self.alarms_left = FIRED_PER_POLL;
    }

    fn fire(&mut self, timer: TimerId, alarm: Alarm, outside: &mut dyn Outside) {
        match alarm {
            Alarm::Restart { store, slot, generation } => {
                let id = self.stores[usize::from(store)];
                // SAFETY: one step.
                if unsafe { id.get() }.generation(slot) == generation {
                    self.restart_now(id, slot, outside);
                }
            }
            Alarm::Message { store, message, slot, generation, value } => {
                self.core.timers -= 1;
                let key = self.key_of(store, slot);
                // SAFETY: the value is of the message's type, and is given up.
                let record = unsafe { OwnedRecord::from_kept(&self.table, message, key, value) };
                // Until then it can be cancelled.
                self.run_own(record, (store, slot, generation), outside, move |core| {
                    core.disown(store, slot, timer)
                });
            }
            Alarm::Every(every) => self.fire_periodic(timer, every, outside),
            Alarm::Quiet { store, slot, generation } => {
                self.fire_quiet(timer, (store, slot, generation), outside);
            }
            Alarm::Wake(task) | Alarm::Cancel(task) if !self.core.tasks.is_here(task) => {}
            Alarm::Wake(task) => self.poll_task(task),
            Alarm::Waker(waker) => {
                self.current = Current::ANSWERING;
                waker.wake();
                self.current = Current::NONE;
            }
            Alarm::Cancel(task) => self.cancel_late(task),
        }
    }

    fn key_of(&self, store: u16, slot: SlotNumber) -> crate::key::KeyWords {
        // SAFETY: one step.
        unsafe { self.stores[usize::from(store)].get() }.key(slot)
    }

    fn fire_periodic(&mut self, timer: TimerId, mut every: Box<Every>, outside: &mut dyn Outside) {
        let (store, slot, generation) = (every.store, every.slot, every.generation);
        let handle = *every.handle.get_or_insert(timer);
        // From now and not from when it was due: a shard that was late does not catch up in a rush.
        let at_ns = self.core.now.monotonic_ns.saturating_add(every.period_ns);
        let Ok(id) = self.core.wheel.insert(at_ns, Alarm::Every(every)) else {
            self.core.timers -= 1;
            self.core.disown(store, slot, handle);
            return;
        };
        let Some(own) = self.core.own_timer_mut(store, slot, handle) else { return };
        own.id = id;
        if std::mem::replace(&mut own.waits, true) {
            // The entity is busy for longer than a period: its message waits once.
            return;
        }
        self.current = Current::new(self.stores[usize::from(store)], slot, None, NO_MESSAGE);
        let Some(Alarm::Every(every)) = self.core.wheel.get_mut(id) else { return };
        let record = (every.make)(&self.table);
        let twin = planted(Bug::TimerTwice).then(|| (every.make)(&self.table));
        self.current.clear();
        if let Some(twin) = twin {
            self.run_own(twin, (store, slot, generation), outside, |_| true);
        }
        self.run_own(record, (store, slot, generation), outside, move |core| {
            let own = core.own_timer_mut(store, slot, handle);
            own.is_some_and(|own| std::mem::take(&mut own.waits))
        });
    }

    fn fire_quiet(
        &mut self,
        timer: TimerId,
        (store, slot, generation): (u16, SlotNumber, u32),
        outside: &mut dyn Outside,
    ) {
        let (now_ns, id) = (self.core.now.monotonic_ns, self.stores[usize::from(store)]);
        // SAFETY: one step.
        let free = unsafe { id.get() }.stage(slot) == Stage::Live;
        let attached = self.core.attached.get_mut(store, slot);
        let quiet = attached.and_then(|attached| attached.quiet.as_mut());
        let Some(quiet) = quiet.filter(|quiet| quiet.timer == timer) else { return };
        let due_ns = quiet.last_ns.saturating_add(quiet.quiet_ns);
        let is_due = due_ns <= now_ns;
        if is_due || !free {
            // While it is busy, it is not quiet.
            quiet.last_ns = now_ns;
        }
        let at_ns = quiet.last_ns.saturating_add(quiet.quiet_ns);
        if let Ok(id) = self.core.wheel.insert(at_ns, Alarm::Quiet { store, slot, generation }) {
            quiet.timer = id;
        }
        if is_due && free {
            self.current = Current::new(id, slot, None, NO_MESSAGE);
            let record = (quiet.make)(&self.table);
            self.current.clear();
            self.run_own(record, (store, slot, generation), outside, |_| true);
        }
    }

    /// Runs the turn of a message that an entity sent itself, if it is still in the same life; now,
    /// or when it is its turn. `wanted` is asked just before.
    fn run_own(
        &mut self,
        record: OwnedRecord,
        (store, slot, generation): (u16, SlotNumber, u32),
        outside: &mut dyn Outside,
        wanted: impl FnOnce(&mut Core) -> bool + 'static,
    ) {
        let id = self.stores[usize::from(store)];
        self.turn_or_stash(id, (slot, generation), false, outside, move |shard, outside| {
            if wanted(&mut shard.core) {
                shard.run_owned(record, outside);
            } else {
                shard.drop_guarded(|| drop(record));
            }
        });
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
    unsafe { crate::record::Payload::<M>::write(at, Kept::<M>::read(kept)) };
}
