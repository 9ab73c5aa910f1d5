//! Supervision: a fault becomes a message, and what follows it is decided by rule.
//!
//! A fault (a panic, or a turn that [failed](crate::Cx::fail)) ends one turn. Here the shard does
//! what the type's [`Life`] declares, tells the supervisor with a [`Fault`], and, where an entity
//! ends, tells those that watch it with one [`Terminated`] each. Entities on other shards are
//! reached by [`System`] records, which user load does not delay.
#![expect(unsafe_code, reason = "an entity is reached through its store")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::attached::Attached;
use crate::condition::Stage;
use crate::dead_letter::Reason;
use crate::entity::Message;
use crate::identity::EntityId;
use crate::index::SlotNumber;
use crate::life::{Children, OnFault, Verdict};
use crate::owned_record::OwnedRecord;
use crate::pending::Outside;
use crate::reply::{AskError, Token};
use crate::sabotage::{Bug, planted};
use crate::schedule::Alarm;
use crate::shard::Shard;
use crate::stash::Stashed;
use crate::store::StoreId;
use crate::system::System;
use crate::ties::{Holder, Tie};

/// What a supervisor gets when one of its entities failed. Handle it as any message; what follows
/// for the entity is declared by its type's [`Life`](crate::Life) and happens whatever the
/// supervisor does.
///
/// # Delivery
/// Once per fault, across shards too, before anything that the entity sends in its next life. While
/// more than 1,024 wait for a supervisor that is busy, further ones are kept for the node, like
/// those of entities without a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who failed.
    pub entity: EntityId,
    /// The method of the message in whose turn it failed; empty where there was none (activation,
    /// an answer).
    pub message: &'static str,
    /// What the panic said, or the error.
    pub reason: String,
    /// Where it panicked, where backtraces are taken.
    pub backtrace: Option<String>,
    /// Faults of this entity so far, this one included, through its restarts.
    pub count: u32,
}

impl Message for Fault {
    type Reply = ();
}

/// What a watcher gets, exactly once per watch, when the watched entity is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// Who is gone.
    pub entity: EntityId,
    /// How it went.
    pub end: End,
}

impl Message for Terminated {
    type Reply = ();
}

/// How an entity ended. Its address stays valid: a message activates it anew, as nobody's child.
/// Whoever is to supervise it then [starts](crate::Cx::start) it again, and
/// [watches](crate::Cx::watch) it to know when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// In good order: by itself, or by its supervisor.
    Stopped,
    /// By a fault.
    Failed,
    /// It was put away, idle or over the budget.
    Passivated,
    /// It was not in memory when the watch arrived.
    NotThere,
}

/// A fault, on its way from the turn that failed to what follows.
pub(crate) struct Failure {
    pub(crate) token: Option<Token>,
    /// The number of the message in whose turn it happened.
    pub(crate) message: Option<u16>,
    pub(crate) reason: String,
    pub(crate) backtrace: Option<String>,
}

impl Shard {
    /// Who lives in the slot.
    pub(crate) fn identity(&self, id: StoreId, slot: SlotNumber) -> EntityId {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        self.core.identity(store.number(), store.key(slot))
    }

    /// Does what follows the fault of an entity that is in memory, or was about to be.
    #[cold]
    pub(crate) fn fail(&mut self, id: StoreId, slot: SlotNumber, failure: Failure) {
        let entity = self.identity(id, slot);
        let life = self.table.types[usize::from(entity.kind)].life;
        let now_ns = self.core.now.monotonic_ns;
        let random = self.core.random();
        let attached = self.core.attached.entry(entity.kind, slot);
        let verdict = attached.faults.add(&life.backoff, now_ns, random);
        let (count, supervisor) = (attached.faults.count, attached.supervisor);
        let (said_goodbye, ends) = (attached.said_goodbye, attached.ending.is_some());
        let tried = self.core.take_spare();
        if let Some(token) = failure.token.filter(|_| tried.is_none()) {
            self.core.error_record(token, AskError::Failed);
        }
        if let Some((record, tries, tries_max)) = tried {
            self.try_again(entity, slot, (record, tries), tries_max);
        }
        let reads = |message: u16| self.table.rows[usize::from(message)].reads;
        let is_read = failure.message.is_some_and(reads);
        let method = failure.message.map(|message| self.table.rows[usize::from(message)].method);
        let fault = Fault {
            entity,
            message: method.unwrap_or_default(),
            reason: failure.reason,
            backtrace: failure.backtrace,
            count,
        };
        self.core.report_fault(supervisor, fault);
        // SAFETY: one step, after the user's code.
        let has_state = unsafe { id.get() }.stage(slot).has_state();
        let leaves = self.core.saying_goodbye.take() == Some((entity.kind, slot)) || said_goodbye;
        match life.on_fault {
            // It is on its way out, and what waits is for its next life.
            _ if leaves => self.end_for_next(id, slot, End::Failed),
            _ if is_read && planted(Bug::ReadGoesOn) => self.resume_after_fault(id, slot),
            OnFault::Resume if planted(Bug::ResumeForgets) => self.restart_after(id, slot, 0),
            OnFault::Resume if has_state => self.resume_after_fault(id, slot),
            _ if ends => self.end_for_next(id, slot, End::Failed),
            OnFault::Restart | OnFault::Resume => match verdict {
                // No message was used up, so there might be no end of it.
                _ if self.core.stopping && method.is_none() => self.end(id, slot, End::Failed),
                Verdict::Wait(wait_ns) => self.restart_after(id, slot, wait_ns),
                Verdict::Enough if life.keep_alive && !self.core.stopping => {
                    self.restart_after(id, slot, life.backoff.most.as_nanos() as u64);
                }
                Verdict::Enough => self.end(id, slot, End::Failed),
            },
            OnFault::Stop => self.end(id, slot, End::Failed),
            OnFault::Escalate => {
                self.core.escalate(entity, supervisor);
                self.end(id, slot, End::Failed);
            }
        }
    }

    /// Puts a message that made its entity fail before all others that wait, or aside for good.
    fn try_again(
        &mut self,
        entity: EntityId,
        slot: SlotNumber,
        (record, tries): (OwnedRecord, u32),
        tries_max: u32,
    ) {
        if tries >= tries_max {
            if planted(Bug::PoisonForgotten) {
                return drop(record);
            }
            return self.bury(record, Reason::Poison, AskError::Failed);
        }
        self.core.stash_first(entity.kind, slot, record, tries);
    }

    /// Drops the state and all that belongs to this life, and makes the state anew after a while.
    /// What waits, and who watches, stays.
    pub(crate) fn restart_after(&mut self, id: StoreId, slot: SlotNumber, wait_ns: u64) {
        let entity = self.identity(id, slot);
        let wait_ns = if planted(Bug::NoBackoff) { 0 } else { wait_ns };
        if planted(Bug::RestartLosesMessage)
            && let Some(attached) = self.core.attached.get_mut(entity.kind, slot)
        {
            attached.stash.pop_front();
        }
        self.core.stats.restarts += 1;
        self.leave_life(id, slot, entity, &AskError::Failed);
        self.drop_guarded(|| {
            // SAFETY: one step, after the user's code.
            unsafe { id.get() }.end_life(slot);
        });
        self.restart_in(id, slot, wait_ns);
    }

    pub(crate) fn restart_in(&mut self, id: StoreId, slot: SlotNumber, wait_ns: u64) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let (store, generation) = (store.number(), store.generation(slot));
        let wait_ns = if self.core.stopping { 0 } else { wait_ns };
        let at_ns = self.core.now.monotonic_ns.saturating_add(wait_ns);
        self.core.schedule(at_ns, Alarm::Restart { store, slot, generation });
    }

    /// The state stays as the fault left it.
    fn resume_after_fault(&mut self, id: StoreId, slot: SlotNumber) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let attached = self.core.attached.get(store.number(), slot);
        store.set_noted(slot, attached.is_some_and(|attached| attached.quiet.is_some()));
        if !self.is_held(store.number(), slot) {
            self.release(id, slot);
        }
    }

    /// Makes the state for a slot that has none, and lets what waits have its turns.
    pub(crate) fn restart_now(&mut self, id: StoreId, slot: SlotNumber, outside: &mut dyn Outside) {
        // SAFETY: one step.
        unsafe { id.get() }.set_stage(slot, Stage::Activating);
        let stop = self.activate(id, slot, outside);
        // SAFETY: one step, after the user's code.
        if unsafe { id.get() }.stage(slot) == Stage::Live {
            self.release(id, slot);
            if stop {
                self.stop(id, slot, End::Stopped, outside);
                self.current.clear();
            }
        }
    }

    /// Ends what belongs to one life: timers, watches, async turns, children. Who waits for an
    /// answer of those turns is told `error`.
    fn leave_life(&mut self, id: StoreId, slot: SlotNumber, entity: EntityId, error: &AskError) {
        self.cancel_tasks(id, slot, error);
        self.forget_timers(entity.kind, slot);
        let Some(attached) = self.core.attached.get_mut(entity.kind, slot) else { return };
        let children = std::mem::take(&mut attached.children);
        let watching = std::mem::take(&mut attached.watching);
        attached.waiting.clear();
        attached.ending = None;
        if std::mem::take(&mut attached.said_goodbye) {
            self.core.leaving[usize::from(entity.kind)] -= 1;
        }
        for Tie { entity: child, number } in children.iter() {
            if planted(Bug::OrphanGoesOn) {
                break;
            }
            let supervisor = entity;
            self.core.send_system(System::StopChild { entity: child, supervisor, number });
        }
        for Tie { entity: watched, number } in watching.iter() {
            let watcher = entity;
            self.core.send_system(System::Unwatch { entity: watched, watcher, number });
        }
    }

    /// Ends an entity: its state goes, and everybody concerned is told. What waits in its stash
    /// goes to a new life, or, behind a fault, to the dead letters.
    pub(crate) fn end(&mut self, id: StoreId, slot: SlotNumber, end: End) {
        // SAFETY: one step, after the user's code.
        let kind = unsafe { id.get() }.number();
        let attached = self.core.attached.get_mut(kind, slot).filter(|_| end == End::Failed);
        let lost = attached.map(|attached| std::mem::take(&mut attached.stash)).unwrap_or_default();
        self.end_for_next(id, slot, end);
        lost.into_iter().for_each(|waiting| self.bury_stashed(waiting));
    }

    /// Ends an entity. What waits in its stash goes to a new life.
    fn end_for_next(&mut self, id: StoreId, slot: SlotNumber, end: End) {
        let entity = self.identity(id, slot);
        if self.core.attached.get_mut(entity.kind, slot).is_none() {
            self.forget_timers(entity.kind, slot);
            return self.drop_guarded(|| {
                // SAFETY: one step, after the user's code.
                unsafe { id.get() }.remove(slot);
            });
        }
        let failed = end == End::Failed;
        let error = if failed { AskError::Failed } else { AskError::MaybeExecuted };
        self.leave_life(id, slot, entity, &error);
        let Some(attached) = self.core.attached.remove(entity.kind, slot) else { return };
        let Attached { watchers, supervisor, stash, look, kept, .. } = *attached;
        look.and_then(|look| self.core.wheel.cancel(look));
        for watcher in watchers.into_values().skip(usize::from(planted(Bug::WatcherForgotten))) {
            self.core.send_in_order(System::TellEnded { watcher, entity, end });
        }
        if let Some(Holder { who, number }) = supervisor {
            let supervisor = who.entity;
            self.core.send_system(System::ChildEnded { supervisor, child: entity, number });
        }
        if let Some(ends) = kept.filter(|_| !self.core.stopping) {
            return self.begin_again((id, slot), entity, end, (stash, ends));
        }
        if stash.is_empty() {
            return self.drop_guarded(|| {
                // SAFETY: one step, after the user's code.
                unsafe { id.get() }.remove(slot);
            });
        }
        // What waits came before anything that is in the queue: the slot stays, for a new life.
        self.drop_guarded(|| {
            // SAFETY: one step, after the user's code.
            unsafe { id.get() }.end_life(slot);
        });
        self.core.attached.entry(entity.kind, slot).stash = stash;
        self.core.look_after(entity.kind, slot, 0);
        self.restart_in(id, slot, 0);
    }

    /// A turn that waited and will not be.
    pub(crate) fn bury_stashed(&mut self, waiting: Stashed) {
        match waiting {
            Stashed::Record { record, .. } => {
                self.bury(record, Reason::EntityFailed, AskError::Failed);
            }
            Stashed::Resume { turn, is_answer, .. } => {
                self.core.stats.answers_unclaimed += u64::from(is_answer);
                self.drop_guarded(|| drop(turn));
            }
        }
    }

    /// Gives a message up: its asker is told `error`, and it is kept among the dead letters.
    #[cold]
    pub(crate) fn bury(&mut self, record: OwnedRecord, reason: Reason, error: AskError) {
        if let Some(token) = record.token() {
            if record.is_late(self.core.now.monotonic_ns) {
                self.core.late_error_record(token, error);
            } else {
                self.core.error_record(token, error);
            }
        }
        let kind = self.table.rows[usize::from(record.head().message())].store;
        let entity = self.core.identity(kind, record.key());
        let unix_ms = self.core.now.unix_ms;
        // What the letters push out may have a drop of the user's.
        let (letters, table) = (&mut self.core.dead_letters, &self.table);
        let add = || letters.add(record, entity, reason, unix_ms, table);
        if catch_unwind(AssertUnwindSafe(add)).is_err() {
            self.core.stats.faults += 1;
        }
    }

    /// A child of `supervisor` failed: restarts those that its rule binds together.
    pub(crate) fn child_failed(&mut self, supervisor: EntityId, failed: Tie) {
        let Some((_, slot)) = self.locate(supervisor) else { return };
        let rule = self.table.types[usize::from(supervisor.kind)].life.children;
        let on_fault = self.table.types[usize::from(failed.entity.kind)].life.on_fault;
        let Some(attached) = self.core.attached.get(supervisor.kind, slot) else { return };
        let children = &attached.children;
        let bound: Vec<Tie> = match rule {
            // A fault that is resumed from costs nobody a state.
            _ if on_fault == OnFault::Resume || !children.has(&failed) => Vec::new(),
            Children::OneForOne => Vec::new(),
            Children::OneForAll => children.iter().filter(|child| *child != failed).collect(),
            Children::RestForOne => children.behind(&failed).collect(),
        };
        for Tie { entity, number } in bound.into_iter().filter(|_| !planted(Bug::BoundGoesOn)) {
            self.core.send_system(System::Restart { entity, supervisor, number });
        }
    }

    /// Makes the state of an entity anew because one that it is bound to failed. One that waits
    /// for its restart, or is on its way out, is left to that.
    pub(crate) fn restart_bound(&mut self, id: StoreId, slot: SlotNumber) {
        // SAFETY: one step.
        let store = unsafe { id.get() };
        let attached = self.core.attached.get(store.number(), slot);
        let ends = attached.is_some_and(|attached| attached.ending.is_some());
        if !ends && store.stage(slot) != Stage::Restarting {
            self.restart_after(id, slot, 0);
        }
    }

    /// The slot of an entity that is in memory here, or waits for its restart.
    pub(crate) fn locate(&self, entity: EntityId) -> Option<(StoreId, SlotNumber)> {
        let id = self.stores[usize::from(entity.kind)];
        // SAFETY: one step.
        let slot = unsafe { id.get() }.find_words(entity.key)?;
        Some((id, slot))
    }
}
