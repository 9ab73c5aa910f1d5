//! What an entity has beyond its state: kept aside, so that most have nothing.
//!
//! Who watches it, whom it started, what waits for it while it is busy. An entity that uses none of
//! that costs eight bytes at most: those of its place beside another one's.

use std::collections::VecDeque;
use std::task::Waker;

use crate::index::SlotNumber;
use crate::life::Faults;
use crate::schedule::Quiet;
use crate::slot_map::SlotMap;
use crate::stash::Stash;
use crate::supervise::End;
use crate::task::TaskId;
use crate::ties::{Holder, Holders, Ties};
use crate::timer::TimerId;

/// All that is attached to one entity. It goes with the entity; a restart keeps what belongs to
/// the address (who watches, what waits, the count of faults) and drops what belongs to the life.
#[derive(Default)]
pub(crate) struct Attached {
    /// What waits for it, in order.
    pub(crate) stash: Stash,
    /// When it is looked for asks whose time is over.
    pub(crate) look: Option<TimerId>,
    /// Who is told when it ends.
    pub(crate) watchers: Holders,
    /// Who is told when it fails.
    pub(crate) supervisor: Option<Holder>,
    pub(crate) faults: Faults,
    /// Whom it watches, until it has been told of the end.
    pub(crate) watching: Ties,
    /// Whom it supervises, in the order in which it started them.
    pub(crate) children: Ties,
    pub(crate) quiet: Option<Quiet>,
    /// Its async turns under way: the one that holds the state, or any number that do not.
    pub(crate) tasks: Vec<TaskId>,
    /// Interleaved turns that wait for the state.
    pub(crate) waiting: VecDeque<(TaskId, Option<Waker>)>,
    /// What follows the async turn under way.
    pub(crate) ending: Option<End>,
    /// It had its last turn, of which the async turn under way is a part.
    pub(crate) said_goodbye: bool,
    /// It is always running; how often it had to be made anew after an end.
    pub(crate) kept: Option<Faults>,
}

impl Attached {
    /// Whether nothing is attached (any more).
    fn is_nothing(&self) -> bool {
        self.stash.is_empty()
            && self.look.is_none()
            && self.watchers.is_empty()
            && self.supervisor.is_none()
            && self.faults.count == 0
            && self.watching.is_empty()
            && self.children.is_empty()
            && self.quiet.is_none()
            && self.tasks.is_empty()
            && self.waiting.is_empty()
            && self.ending.is_none()
            && self.kept.is_none()
    }

    /// Has an interleaved turn wait for the state. `waker` is to be woken too, where there is one.
    pub(crate) fn wait(&mut self, task: TaskId, waker: Option<Waker>) {
        let waits = |(other, woken): &(TaskId, Option<Waker>)| {
            *other == task
                && match (woken, &waker) {
                    (Some(one), Some(other)) => one.will_wake(other),
                    (one, other) => one.is_none() && other.is_none(),
                }
        };
        if !self.waiting.iter().any(waits) {
            self.waiting.push_back((task, waker));
        }
    }

    /// Whether anybody waits for the entity to be free.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.stash.is_empty() || !self.waiting.is_empty()
    }
}

/// What is attached to entities, by type and slot.
pub(crate) struct AttachedMap {
    by_kind: Box<[SlotMap<Option<Box<Attached>>>]>,
    len: usize,
}

impl AttachedMap {
    /// Nothing yet, to entities of so many types.
    pub(crate) fn new(types: usize) -> Self {
        Self { by_kind: (0..types).map(|_| SlotMap::new()).collect(), len: 0 }
    }

    pub(crate) fn get_mut(&mut self, kind: u16, slot: SlotNumber) -> Option<&mut Attached> {
        self.by_kind[usize::from(kind)].get_mut(slot)?.as_deref_mut()
    }

    pub(crate) fn get(&self, kind: u16, slot: SlotNumber) -> Option<&Attached> {
        self.by_kind[usize::from(kind)].get(slot)?.as_deref()
    }

    /// What is attached to the entity in the slot, made where there is nothing yet.
    pub(crate) fn entry(&mut self, kind: u16, slot: SlotNumber) -> &mut Attached {
        let entry = self.by_kind[usize::from(kind)].entry(slot);
        self.len += usize::from(entry.is_none());
        entry.get_or_insert_default()
    }

    pub(crate) fn remove(&mut self, kind: u16, slot: SlotNumber) -> Option<Box<Attached>> {
        let removed = self.by_kind[usize::from(kind)].get_mut(slot)?.take();
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Forgets the entity in the slot if nothing is attached to it any more.
    pub(crate) fn tidy(&mut self, kind: u16, slot: SlotNumber) {
        if self.get(kind, slot).is_some_and(Attached::is_nothing) {
            self.remove(kind, slot);
        }
    }

    /// Whether `what` holds for any of them.
    pub(crate) fn any(&self, what: impl Fn(&Attached) -> bool) -> bool {
        self.by_kind.iter().flat_map(SlotMap::values).flatten().any(|attached| what(attached))
    }

    /// Entities that have anything attached.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Box<Attached>> {
        self.len = 0;
        let take = |map| std::mem::replace(map, SlotMap::new()).into_values();
        self.by_kind.iter_mut().flat_map(take).flatten()
    }
}
