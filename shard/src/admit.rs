//! The slow way of a record to its entity: one that is not in memory, or not ready.
#![expect(unsafe_code, reason = "records are taken out of their queue")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::condition::Stage;
use crate::cx::After;
use crate::dead_letter::Reason;
use crate::fault::{Current, NO_MESSAGE};
use crate::index::SlotNumber;
use crate::key::KeyWords;
use crate::owned_record::OwnedRecord;
use crate::pending::Outside;
use crate::record::{Head, RECORD_WORDS_MAX, Word, copy_words};
use crate::reply::{AskError, Token};
use crate::sabotage::{Bug, planted};
use crate::schedule::Owner;
use crate::shard::Shard;
use crate::store::StoreId;
use crate::supervise::{End, Failure};
use crate::table::Table;
use crate::task::{Hold, TaskId};

impl Shard {
    /// Deals with a record whose entity a turn did not find ready.
    ///
    /// # Safety
    /// A tell or ask for an entity of the store stands at `at`, and is given up; `head` is its
    /// head, and `found` where its entity is.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn admit(
        &mut self,
        outside: &mut dyn Outside,
        at: *mut Word,
        head: Head,
        id: StoreId,
        found: Option<SlotNumber>,
    ) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let Some(slot) = found else {
            // SAFETY: the caller's contract.
            return unsafe { self.admit_new(outside, at, head, id) };
        };
        if store.stage(slot) == Stage::Live {
            if store.touch(slot) {
                // SAFETY: the caller's contract.
                return unsafe { self.run_noted(outside, (at, head), id, slot) };
            }
            // SAFETY: the caller's contract.
            return unsafe { self.run_record(at, head.with_status(slot + 1), outside) };
        }
        // SAFETY: the caller's contract.
        let record = unsafe { OwnedRecord::take(words_at(at, head), &self.table) };
        self.stash(id, slot, record, outside);
    }

    /// The first message for an entity.
    ///
    /// # Safety
    /// As for [`admit`](Self::admit).
    unsafe fn admit_new(
        &mut self,
        outside: &mut dyn Outside,
        at: *mut Word,
        head: Head,
        id: StoreId,
    ) {
        // On the stack, as user code may make the queue move.
        let (mut words, len) = ([Word::uninit(); RECORD_WORDS_MAX], head.words());
        // SAFETY: the caller's contract; the array takes any record.
        unsafe { copy_words(at, words.as_mut_ptr(), len) };
        // SAFETY: as above.
        let key = unsafe { key_at(words.as_ptr(), &self.table, head) };
        let Some(slot) = self.place(id, key) else {
            self.core.stats.refused += 1;
            // SAFETY: a copy of a record that is given up.
            let record = unsafe { OwnedRecord::take(&words[..len], &self.table) };
            return self.bury(record, Reason::StoreFull, AskError::NotSent);
        };
        let made = catch_unwind(AssertUnwindSafe(|| self.make_state(id, slot)));
        if let Ok(0) = made {
            // SAFETY: a copy of a record that is given up.
            return unsafe {
                self.run_record(words.as_mut_ptr(), head.with_status(slot + 1), outside);
            };
        }
        // SAFETY: as above.
        let record = unsafe { OwnedRecord::take(&words[..len], &self.table) };
        match made {
            Ok(after) => self.admit_behind(id, slot, record, after, outside),
            Err(panic) => {
                self.bury(record, Reason::ActivationFailed, AskError::Failed);
                resume_unwind(panic);
            }
        }
    }

    /// The first message for an entity whose activation asked for more.
    fn admit_behind(
        &mut self,
        id: StoreId,
        slot: SlotNumber,
        record: OwnedRecord,
        after: u8,
        outside: &mut dyn Outside,
    ) {
        if after & After::FAIL != 0 {
            self.bury(record, Reason::ActivationFailed, AskError::Failed);
            self.after_turn(id, slot, After::FAIL, (None, NO_MESSAGE), outside);
            return self.current.clear();
        }
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (kind, generation) = (store.number(), store.generation(slot));
        // It waits: whatever comes of the activation, it is not lost.
        self.core.stash_last(kind, slot, record);
        self.after_turn(id, slot, after & !After::STOP, (None, NO_MESSAGE), outside);
        self.current.clear();
        if store.stage(slot) != Stage::Live || store.generation(slot) != generation {
            self.core.stats.stashed += 1;
            return;
        }
        store.set_stage(slot, Stage::Draining);
        let more = self.drain_one(id, slot, outside);
        // SAFETY: one step, after the user's code.
        let store = unsafe { id.get() };
        if after & After::STOP != 0 && store.is_alive(slot, generation) {
            self.stop(id, slot, End::Stopped, outside);
            self.current.clear();
        }
        if more && store.is_alive(slot, generation) && store.stage(slot) == Stage::Draining {
            self.core.drain_record(kind, slot, generation);
        }
    }

    /// A slot for an entity that is not in memory, in stage `Activating`.
    pub(crate) fn place(&mut self, id: StoreId, key: KeyWords) -> Option<SlotNumber> {
        // SAFETY: one step.
        unsafe { id.get() }.place(key).ok()
    }

    /// Makes the state for a slot in stage `Activating`, or begins to. Returns what is to be done
    /// behind it.
    fn make_state(&mut self, id: StoreId, slot: SlotNumber) -> u8 {
        // SAFETY: one step.
        let kind = unsafe { id.get() }.number();
        let hook = self.table.types[usize::from(kind)].hooks.activate;
        self.current = Current::new(id, slot, None, NO_MESSAGE);
        // SAFETY: the store is that of the type, and the slot is for a state in the making.
        let after = unsafe { hook(self, id, slot) };
        self.current.clear();
        after
    }

    /// Makes the state for a slot in stage `Activating`, or begins to, without a message. Returns
    /// whether the entity wants to stop again.
    pub(crate) fn activate(
        &mut self,
        id: StoreId,
        slot: SlotNumber,
        outside: &mut dyn Outside,
    ) -> bool {
        let after = self.make_state(id, slot);
        if after == 0 {
            return false;
        }
        let goes_on = self.after_turn(id, slot, after & !After::STOP, (None, NO_MESSAGE), outside);
        self.current.clear();
        goes_on && after & After::STOP != 0
    }

    /// Keeps a record for an entity that is not ready.
    fn stash(
        &mut self,
        id: StoreId,
        slot: SlotNumber,
        record: OwnedRecord,
        outside: &mut dyn Outside,
    ) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (kind, stage) = (store.number(), store.stage(slot));
        let stash_max = self.table.types[usize::from(kind)].life.stash_max as usize;
        let attached = self.core.attached.entry(kind, slot);
        let draining = stage == Stage::Draining;
        if attached.stash.len() >= stash_max && !draining {
            if planted(Bug::SilentStash) {
                return;
            }
            return self.bury(record, Reason::StashFull, AskError::NotSent);
        }
        let token = record.token();
        self.stash_always(id, slot, record, outside);
        if let Some(token) = token.filter(|_| !draining && stage != Stage::Restarting) {
            self.probe(token, self.identity(id, slot));
        }
    }

    /// Keeps a record for an entity that is not ready, however many wait.
    pub(crate) fn stash_always(
        &mut self,
        id: StoreId,
        slot: SlotNumber,
        record: OwnedRecord,
        outside: &mut dyn Outside,
    ) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        if planted(Bug::ReorderedStash) {
            self.core.stash_first(store.number(), slot, record, 0);
        } else {
            self.core.stash_last(store.number(), slot, record);
        }
        self.core.stats.stashed += 1;
        if store.stage(slot) == Stage::Draining {
            // One comes, one goes: the stash does not grow, and the order is kept.
            self.drain_one(id, slot, outside);
        }
    }

    /// Lets an entity say goodbye and ends it; behind an async turn if one is under way. Returns
    /// whether the goodbye went well, as far as it went. `current` is left at the asker's.
    pub(crate) fn stop(
        &mut self,
        id: StoreId,
        slot: SlotNumber,
        end: End,
        outside: &mut dyn Outside,
    ) -> bool {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (kind, generation, stage) = (store.number(), store.generation(slot), store.stage(slot));
        match stage {
            Stage::Free => return true,
            Stage::Busy | Stage::Reading => {
                self.core.attached.entry(kind, slot).ending.get_or_insert(end);
                return true;
            }
            Stage::Activating | Stage::Restarting => {
                self.end(id, slot, end);
                return true;
            }
            Stage::Live | Stage::Draining => {}
        }
        let hooks = self.table.types[usize::from(kind)].hooks;
        let hook = if end == End::Passivated { hooks.on_passivate } else { hooks.on_stop };
        let token = self.current.token();
        self.current = Current::new(id, slot, token, NO_MESSAGE);
        self.core.saying_goodbye = Some((kind, slot));
        // SAFETY: the store is that of the type, and nobody uses the live entity's state.
        let after = unsafe { hook(self, id, slot) };
        let after = after & !After::STOP;
        if after != 0 && !self.after_turn(id, slot, after, (token, NO_MESSAGE), outside) {
            return false;
        }
        self.core.saying_goodbye = None;
        // SAFETY: one step, after the user's code.
        let store = unsafe { id.get() };
        if !store.is_alive(slot, generation) {
            return true;
        }
        if store.stage(slot) == Stage::Busy {
            let attached = self.core.attached.entry(kind, slot);
            attached.ending = Some(end);
            attached.said_goodbye = true;
            self.core.leaving[usize::from(kind)] += 1;
            return true;
        }
        self.current = Current::answering(token);
        if self.core.attached.get(kind, slot).is_none() && !self.core.own_timers.has_any(kind, slot)
        {
            // A panic in the state's drop is part of the turn: its asker hears of it.
            store.remove(slot);
        } else {
            self.end(id, slot, end);
        }
        true
    }

    /// Does what a turn asked for beside its answer. Returns whether the asker gets the answer.
    #[cold]
    #[inline(never)]
    pub(crate) fn after_turn(
        &mut self,
        id: StoreId,
        slot: SlotNumber,
        after: u8,
        (token, message): (Option<Token>, u16),
        outside: &mut dyn Outside,
    ) -> bool {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (kind, generation) = (store.number(), store.generation(slot));
        if after & After::FAIL != 0 {
            self.current = Current::answering(None);
            self.drop_begun();
            let reason = self.core.failure.take().unwrap_or_default();
            let message = (message != NO_MESSAGE).then_some(message);
            self.core.stats.faults += 1;
            self.fail(id, slot, Failure { token, message, reason, backtrace: None });
            return false;
        }
        if after & After::NOTE != 0 {
            let quiet = self.core.attached.get(kind, slot).is_some_and(|own| own.quiet.is_some());
            store.set_noted(slot, quiet);
        }
        if after & After::RUN != 0 {
            self.poll_begun();
        }
        if after & After::STOP != 0 {
            // The message was handled: a goodbye that fails does not have it tried again.
            let spare = self.core.spare.take();
            self.drop_guarded(|| drop(spare));
        }
        self.current = Current::new(id, slot, token, message);
        // SAFETY: one step, after the user's code.
        let stops = after & After::STOP != 0 && unsafe { id.get() }.is_alive(slot, generation);
        let well = !stops || self.stop(id, slot, End::Stopped, outside);
        self.current = Current::answering(token);
        well
    }

    /// Takes the first step of each async turn that a turn began; the one that holds the state
    /// first. A panic leaves the rest to be dropped.
    fn poll_begun(&mut self) {
        let tasks = &self.core.tasks;
        let interleaved =
            |id: &TaskId| tasks.get(*id).is_some_and(|task| task.hold == Hold::Interleaved);
        self.core.begun.sort_by_key(interleaved);
        while !self.core.begun.is_empty() {
            let id = self.core.begun.remove(0);
            if self.core.tasks.get(id).is_some_and(|task| self.is_over(task.owner)) {
                // One that was begun beside it failed, and took this one's life with it.
                let task = self.core.tasks.remove(id);
                self.drop_guarded(|| drop(task));
            }
            self.poll_task(id);
        }
    }

    /// Whether the life is over.
    fn is_over(&self, owner: Owner) -> bool {
        // SAFETY: one step.
        unsafe { self.stores[usize::from(owner.kind)].get() }.generation(owner.slot)
            != owner.generation
    }

    /// Drops async turns that a failed turn began.
    pub(crate) fn drop_begun(&mut self) {
        for task in std::mem::take(&mut self.core.begun) {
            let mut task = self.core.tasks.remove(task);
            // The copy of the message is the turn's again.
            if let Some(spare) = task.as_mut().and_then(|task| task.spare.take()) {
                self.core.spare = Some(spare);
            }
            self.drop_guarded(|| drop(task));
        }
    }

    /// Runs the turn of a message whose time is wanted.
    ///
    /// # Safety
    /// As for [`admit`](Self::admit), of a live entity.
    unsafe fn run_noted(
        &mut self,
        outside: &mut dyn Outside,
        (at, head): (*mut Word, Head),
        id: StoreId,
        slot: SlotNumber,
    ) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (kind, generation) = (store.number(), store.generation(slot));
        let now_ns = self.core.now.monotonic_ns;
        if let Some(attached) = self.core.attached.get_mut(kind, slot) {
            attached.quiet.iter_mut().for_each(|quiet| quiet.last_ns = now_ns);
        }
        // As any other for this one turn.
        store.set_noted(slot, false);
        // SAFETY: the caller's contract.
        unsafe { self.run_record(at, head.with_status(slot + 1), outside) };
        // SAFETY: one step, after the user's code.
        let store = unsafe { id.get() };
        let quiet = self.core.attached.get(kind, slot).is_some_and(|own| own.quiet.is_some());
        if quiet && store.is_alive(slot, generation) {
            store.set_noted(slot, true);
        }
    }

    /// A message whose deadline has passed is not handled.
    ///
    /// # Safety
    /// As for [`admit`](Self::admit).
    #[cold]
    pub(crate) unsafe fn expire(&mut self, at: *mut Word, head: Head) {
        // SAFETY: the caller's contract.
        let record = unsafe { OwnedRecord::take(words_at(at, head), &self.table) };
        self.bury_late(record, self.core.trying);
    }

    /// Runs the turn of a record that stands alone.
    pub(crate) fn run_owned(&mut self, record: OwnedRecord, outside: &mut dyn Outside) {
        let head = record.head();
        let mut words = record.release();
        // Another turn, though the queue stands where it stood.
        self.polls += 1;
        // SAFETY: the record is whole, of this table, and given up.
        unsafe { self.run_record(words.as_mut_ptr(), head.with_status(0), outside) };
    }

    /// Drops what is the user's; a panic there leaks what it left, and is counted.
    pub(crate) fn drop_guarded(&mut self, drop_it: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(drop_it)).is_err() {
            self.core.stats.faults += 1;
        }
    }
}

/// The words of the record at `at`.
///
/// # Safety
/// A whole record stands there, with this head, for as long as the slice is used.
unsafe fn words_at<'a>(at: *const Word, head: Head) -> &'a [Word] {
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(at, head.words()) }
}

/// The key of the record at `at`.
///
/// # Safety
/// A tell or ask of the table stands there, with this head.
pub(crate) unsafe fn key_at(at: *const Word, table: &Table, head: Head) -> KeyWords {
    let wide = table.rows[usize::from(head.message())].key_words == 2;
    // SAFETY: the key follows the head.
    let first = unsafe { at.add(1).cast::<u64>().read() };
    // SAFETY: as above.
    let second = if wide { unsafe { at.add(2).cast::<u64>().read() } } else { 0 };
    [first, second]
}
