//! Async turns: futures of entities, kept and polled by the shard itself.
//!
//! A handler that has to wait [begins](crate::Cx::run) a future. While an exclusive one is under
//! way it holds the entity's state, and what arrives for the entity waits in its stash; an
//! interleaved one holds nothing between its steps. The shard polls them, so an entity depends on
//! no executor: any future will do, as long as it wakes its waker.
//!
//! # Ownership
//! A future is polled and dropped by the thread that drives its shard, and nobody else. Wakers go
//! anywhere: they put a number into a list and ring the shard's bell.
#![expect(unsafe_code, reason = "states are lent to futures while nobody else may use them")]

mod wakes;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use crate::async_cx::Activating;
use crate::condition::Stage;
use crate::core::Core;
use crate::entered::{Effects, Entered, Lent};
use crate::entity::Entity;
use crate::fault::{Current, NO_MESSAGE};
use crate::future_slab::Placed;
use crate::index::SlotNumber;
use crate::owned_record::OwnedRecord;
use crate::record::{Head, Kind};
use crate::reply::{AskError, Token};
use crate::sabotage::{Bug, planted};
use crate::schedule::{Alarm, Owner};
use crate::shard::Shard;
use crate::store::StoreId;
use crate::supervise::{End, Failure};
use crate::system::System;
use crate::timer::TimerId;
use wakes::TaskWake;
pub(crate) use wakes::Wakes;

/// Names one async turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskId {
    place: u32,
    generation: u32,
}

impl TaskId {
    /// Fits 32 bits, for asks to be traced back; 0 is kept for none.
    pub(crate) fn tag(self) -> u32 {
        (self.generation & 0xfff) << 20 | (self.place + 1)
    }
}

/// What an async turn holds of its entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// The state, alone.
    Exclusive,
    /// The state, with other reads.
    Read,
    /// Nothing.
    Interleaved,
    /// The place of a state that is being made.
    Activation,
}

/// One async turn.
pub(crate) struct Task {
    /// `None` while it is polled.
    future: Option<Placed>,
    pub(crate) hold: Hold,
    pub(crate) owner: Owner,
    /// Who waits for its answer.
    pub(crate) token: Option<Token>,
    pub(crate) message: Option<u16>,
    deadline_ns: u64,
    cancel: Option<TimerId>,
    /// Polled before, and entered with its entity.
    entered: bool,
    /// A copy of its message, if that may be tried again, and how often it may.
    pub(crate) spare: Option<(OwnedRecord, u32)>,
    /// How often the message was tried before.
    trying: u32,
}

impl Task {
    pub(crate) fn new(
        future: Placed,
        hold: Hold,
        owner: Owner,
        (token, message): (Option<Token>, Option<u16>),
        deadline_ns: u64,
    ) -> Self {
        Self {
            future: Some(future),
            hold,
            owner,
            token,
            message: message.filter(|number| *number != NO_MESSAGE),
            deadline_ns,
            cancel: None,
            entered: false,
            spare: None,
            trying: 0,
        }
    }
}

struct Place {
    /// Odd while the place is taken.
    generation: u32,
    task: Option<Task>,
    wake: Arc<TaskWake>,
    waker: Waker,
}

/// All async turns of a shard.
pub(crate) struct Tasks {
    places: Vec<Place>,
    free: Vec<u32>,
    tasks_max: u32,
    wakes: Arc<Wakes>,
}

/// The most async turns that a [tag](TaskId::tag) can name.
const TASKS_MAX: u32 = (1 << 20) - 2;

impl Tasks {
    pub(crate) fn new(tasks_max: u32, wakes: Arc<Wakes>) -> Self {
        let tasks_max = tasks_max.min(TASKS_MAX);
        Self { places: Vec::new(), free: Vec::new(), tasks_max, wakes }
    }

    /// Async turns under way.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether any of them holds its entity's state.
    pub(crate) fn any_holds(&self) -> bool {
        let tasks = self.places.iter().filter_map(|place| place.task.as_ref());
        tasks.into_iter().any(|task| task.hold != Hold::Interleaved)
    }

    /// Keeps an async turn; gives it back where there are too many.
    pub(crate) fn add(&mut self, task: Task) -> Result<TaskId, Box<Task>> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < self.tasks_max as usize => self.add_place(),
            None => return Err(Box::new(task)),
        };
        let entry = &mut self.places[place as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.task = Some(task);
        Ok(TaskId { place, generation: entry.generation })
    }

    fn add_place(&mut self) -> u32 {
        let place = self.places.len() as u32;
        let wake = TaskWake::new(Arc::clone(&self.wakes), place);
        let waker = Waker::from(Arc::clone(&wake));
        self.places.push(Place { generation: 0, task: None, wake, waker });
        place
    }

    fn place_mut(&mut self, id: TaskId) -> Option<&mut Place> {
        let place = self.places.get_mut(id.place as usize)?;
        (place.generation == id.generation && place.task.is_some()).then_some(place)
    }

    pub(crate) fn get(&self, id: TaskId) -> Option<&Task> {
        let place = self.places.get(id.place as usize)?;
        place.task.as_ref().filter(|_| place.generation == id.generation)
    }

    /// The task with this [tag](TaskId::tag).
    pub(crate) fn by_tag(&self, tag: u32) -> Option<(TaskId, &Task)> {
        let place = (tag & 0xf_ffff).checked_sub(1)?;
        let generation = self.places.get(place as usize)?.generation;
        let id = TaskId { place, generation };
        self.get(id).filter(|_| id.tag() == tag).map(|task| (id, task))
    }

    pub(crate) fn is_here(&self, id: TaskId) -> bool {
        self.get(id).is_some()
    }

    /// Forgets a task; whoever gets it drops its future.
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let place = self.place_mut(id)?;
        let task = place.task.take();
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.place);
        task
    }

    /// Whether a waker was used since the last look.
    pub(crate) fn any_woken(&self) -> bool {
        self.wakes.any.load(Ordering::SeqCst)
    }

    /// Takes the numbers of those whose wakers were used. They may be gone by now.
    pub(crate) fn take_woken(&mut self, woken: &mut VecDeque<TaskId>) {
        if !self.wakes.any.load(Ordering::Relaxed) {
            return;
        }
        let mut places = self.wakes.lock();
        self.wakes.any.store(false, Ordering::SeqCst);
        for place in places.drain(..) {
            let Some(entry) = self.places.get(place as usize) else { continue };
            entry.wake.queued.store(false, Ordering::SeqCst);
            woken.push_back(TaskId { place, generation: entry.generation });
        }
    }

    /// The waker, where it is not the task's own.
    pub(crate) fn waker_beside(&self, id: TaskId, waker: &Waker) -> Option<Waker> {
        let own = self.places.get(id.place as usize);
        let is_own = own.is_some_and(|place| place.waker.will_wake(waker));
        (!is_own).then(|| waker.clone())
    }

    /// Takes all out, to be dropped.
    pub(crate) fn take_all(&mut self) -> Vec<Task> {
        self.free.clear();
        self.places.drain(..).filter_map(|place| place.task).collect()
    }
}

impl Core {
    /// Keeps the making of a state; it is first polled at once. Returns whether there was room.
    pub(crate) fn begin_activation<E: Entity>(
        &mut self,
        future: Activating<E>,
        owner: Owner,
    ) -> bool {
        let future = self.futures.place(async move {
            let state = future.await;
            Lent::<E>::take().fill(state);
        });
        self.begin(Task::new(future, Hold::Activation, owner, (None, None), u64::MAX))
    }

    /// Whether the entity may have another read beside the async turns under way.
    pub(crate) fn has_room_beside(&self, kind: u16, slot: SlotNumber) -> bool {
        let under_way = self.attached.get(kind, slot).map_or(0, |own| own.tasks.len());
        let most = self.table.types[usize::from(kind)].life.stash_max.max(1);
        under_way + self.begun.len() < most as usize
    }

    /// Keeps an async turn that a handler began; it is first polled behind the handler. Without
    /// room its asker is told that nothing was done. Returns whether there was room.
    pub(crate) fn begin(&mut self, mut task: Task) -> bool {
        if task.hold == Hold::Exclusive {
            (task.spare, task.trying) = (self.spare.take(), self.trying);
        }
        match self.tasks.add(task) {
            Ok(id) => {
                self.begun.push(id);
                true
            }
            Err(task) => {
                self.stats.refused += 1;
                if let Some(token) = task.token {
                    self.error_record(token, AskError::NotSent);
                }
                false
            }
        }
    }

    /// Whether the turn under way has begun an async turn that holds the state alone.
    pub(crate) fn has_begun_exclusive(&self) -> bool {
        let exclusive = |task: &Task| task.hold == Hold::Exclusive;
        self.begun.iter().any(|id| self.tasks.get(*id).is_some_and(exclusive))
    }
}

impl Shard {
    /// Polls those whose wakers were used.
    pub(crate) fn run_woken(&mut self) {
        self.core.tasks.take_woken(&mut self.woken);
        while let Some(id) = self.woken.pop_front() {
            self.core.stats.tasks_woken += 1;
            self.poll_task(id);
        }
    }

    /// Lets an async turn go on.
    pub(crate) fn poll_task(&mut self, id: TaskId) {
        let Some(place) = self.core.tasks.place_mut(id) else { return };
        let waker = place.waker.clone();
        let Some(task) = place.task.as_mut() else { return };
        let (owner, hold) = (task.owner, task.hold);
        let Some(mut future) = task.future.take() else { return };
        let store = self.stores[usize::from(owner.kind)];
        let message = task.message.unwrap_or(NO_MESSAGE);
        self.current = Current::new(store, owner.slot, task.token, message);
        let deadline_ns = task.deadline_ns;
        (self.core.spare, self.core.trying) = (task.spare.take(), task.trying);
        self.core.polling = Some(id);
        self.polls += 1;
        self.running = Head::new(Kind::Tell, 2, message);
        let entered = self.entered(id, (owner, hold), deadline_ns);
        // The values that a future captured go as part of its turn, which is over when they are
        // gone; also in a panic.
        let pending = entered.during(move || {
            let poll = future.poll(&mut Context::from_waker(&waker));
            poll.is_pending().then_some(future)
        });
        let effects = entered.into_effects();
        let trying = std::mem::take(&mut self.core.trying);
        self.core.polling = None;
        self.current.clear();
        let Some(future) = pending else {
            self.core.trying = trying;
            if effects.failure.is_none() {
                self.core.spare = None;
            }
            self.finish_task(id, effects);
            self.core.trying = 0;
            return;
        };
        let spare = self.core.spare.take();
        if let Some(task) = self.core.tasks.place_mut(id).and_then(|place| place.task.as_mut()) {
            task.future = Some(future);
            task.spare = spare;
            let first = !std::mem::replace(&mut task.entered, true);
            if first {
                self.enter_task(id, store);
            }
        }
        self.after_step(store, owner, effects);
    }

    /// What a future finds while it is polled or dropped.
    fn entered(&mut self, id: TaskId, (owner, hold): (Owner, Hold), deadline_ns: u64) -> Entered {
        let store = self.stores[usize::from(owner.kind)];
        // SAFETY: one step; the slot is taken while a task of it is under way.
        let state = unsafe { store.get() }.state(owner.slot);
        Entered::new(&mut self.core, (store, state), owner, (id, hold), deadline_ns)
    }

    /// Drops an async turn where it waits, so that what it waits for is taken back.
    fn drop_task(&mut self, id: TaskId, task: Task) {
        let entered = self.entered(id, (task.owner, task.hold), task.deadline_ns);
        if catch_unwind(AssertUnwindSafe(|| entered.during(|| drop(task)))).is_err() {
            self.core.stats.faults += 1;
        }
    }

    /// A task that has to wait takes hold of its entity.
    fn enter_task(&mut self, id: TaskId, store: StoreId) {
        let Some(task) = self.core.tasks.get(id) else { return };
        let (owner, hold, deadline_ns) = (task.owner, task.hold, task.deadline_ns);
        self.core.attached.entry(owner.kind, owner.slot).tasks.push(id);
        let stage = match hold {
            Hold::Exclusive => Some(Stage::Busy),
            Hold::Read => Some(Stage::Reading),
            Hold::Interleaved | Hold::Activation => None,
        };
        if let Some(stage) = stage {
            // SAFETY: one step.
            unsafe { store.get() }.set_stage(owner.slot, stage);
        }
        if deadline_ns != u64::MAX {
            let cancel = self.core.schedule(deadline_ns, Alarm::Cancel(id));
            if let Some(place) = self.core.tasks.place_mut(id) {
                place.task.iter_mut().for_each(|task| task.cancel = cancel);
            }
        }
    }

    /// What a step of an async turn asked for. The entity ends behind what holds its state.
    fn after_step(&mut self, store: StoreId, owner: Owner, effects: Effects) {
        if effects.stop {
            let entity = self.identity(store, owner.slot);
            self.core.send_system(System::Stop { entity, end: End::Stopped });
        }
    }

    /// An async turn is over: its entity is ready for the next one.
    fn finish_task(&mut self, id: TaskId, effects: Effects) {
        let Some(task) = self.forget_task(id) else { return };
        let Task { owner, hold, token, message, .. } = task;
        let store = self.stores[usize::from(owner.kind)];
        if let Some(reason) = effects.failure {
            self.core.stats.faults += 1;
            return self.fail(
                store,
                owner.slot,
                Failure { token, message, reason, backtrace: None },
            );
        }
        self.after_step(store, owner, effects);
        if hold == Hold::Activation {
            // SAFETY: one step; the future wrote the state before it was ready.
            unsafe { store.get() }.set_stage(owner.slot, Stage::Live);
            self.core.stats.activations += 1;
        }
        self.release_after(store, owner, hold);
    }

    /// The entity of a task that is gone may be ready again.
    fn release_after(&mut self, store: StoreId, owner: Owner, hold: Hold) {
        match hold {
            Hold::Interleaved => {}
            Hold::Read if self.is_held(owner.kind, owner.slot) => {}
            _ => self.release(store, owner.slot),
        }
    }

    /// Whether async turns under way hold the entity's state.
    pub(crate) fn is_held(&self, kind: u16, slot: SlotNumber) -> bool {
        let Some(attached) = self.core.attached.get(kind, slot) else { return false };
        let holds = |task: &Task| task.hold != Hold::Interleaved;
        attached.tasks.iter().any(|id| self.core.tasks.get(*id).is_some_and(holds))
    }

    /// Takes a task out of all lists.
    pub(crate) fn forget_task(&mut self, id: TaskId) -> Option<Task> {
        let task = self.core.tasks.remove(id)?;
        if let Some(cancel) = task.cancel {
            self.core.wheel.cancel(cancel);
        }
        if let Some(attached) = self.core.attached.get_mut(task.owner.kind, task.owner.slot) {
            attached.tasks.retain(|other| *other != id);
        }
        Some(task)
    }

    /// The asker's deadline has passed: the async turn ends where it waits.
    pub(crate) fn cancel_late(&mut self, id: TaskId) {
        if planted(Bug::NotCancelled) {
            return;
        }
        let Some(task) = self.forget_task(id) else { return };
        self.core.stats.turns_cancelled += 1;
        let (owner, hold) = (task.owner, task.hold);
        let store = self.stores[usize::from(owner.kind)];
        self.drop_task(id, task);
        if planted(Bug::StaysShut) {
            return;
        }
        self.release_after(store, owner, hold);
    }

    /// Ends all async turns of an entity where they wait; their askers are told `error`.
    pub(crate) fn cancel_tasks(&mut self, id: StoreId, slot: SlotNumber, error: &AskError) {
        // SAFETY: one step.
        let kind = unsafe { id.get() }.number();
        let Some(attached) = self.core.attached.get_mut(kind, slot) else { return };
        for id in std::mem::take(&mut attached.tasks) {
            let Some(task) = self.forget_task(id) else { continue };
            self.core.stats.turns_cancelled += 1;
            if let Some(token) = task.token {
                self.core.error_record(token, error.clone());
            }
            self.drop_task(id, task);
        }
    }
}
