//! What an entity has beyond its state: kept aside, so that most have nothing.
//!
//! Who watches it, whom it started, what waits for it while it is busy. An entity that uses none of
//! that costs no byte here.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::Waker;

use crate::index::SlotNumber;
use crate::life::Faults;
use crate::schedule::Quiet;
use crate::stash::Stash;
use crate::supervise::End;
use crate::task::TaskId;
use crate::ties::{Holder, Holders, Ties};

/// All that is attached to one entity. It goes with the entity; a restart keeps what belongs to
/// the address (who watches, what waits, the count of faults) and drops what belongs to the life.
#[derive(Default)]
pub(crate) struct Attached {
    /// What waits for it, in order.
    pub(crate) stash: Stash,
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
            && self.watchers.is_empty()
            && self.supervisor.is_none()
            && self.faults.count == 0
            && self.watching.is_empty()
            && self.children.is_empty()
            && self.quiet.is_none()
            && self.tasks.is_empty()
            && self.waiting.is_empty()
            && self.ending.is_none()
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

/// By entity type and slot.
#[derive(Default)]
pub(crate) struct AttachedMap {
    entries: HashMap<u64, Box<Attached>, BuildHasherDefault<Mixed>>,
}

/// A multiplication: the keys are small numbers of our own making.
#[derive(Default)]
pub(crate) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

impl AttachedMap {
    fn name(kind: u16, slot: SlotNumber) -> u64 {
        u64::from(kind) << 32 | u64::from(slot)
    }

    pub(crate) fn get_mut(&mut self, kind: u16, slot: SlotNumber) -> Option<&mut Attached> {
        if self.entries.is_empty() {
            return None;
        }
        self.entries.get_mut(&Self::name(kind, slot)).map(|entry| &mut **entry)
    }

    pub(crate) fn get(&self, kind: u16, slot: SlotNumber) -> Option<&Attached> {
        self.entries.get(&Self::name(kind, slot)).map(|entry| &**entry)
    }

    /// What is attached to the entity in the slot, made where there is nothing yet.
    pub(crate) fn entry(&mut self, kind: u16, slot: SlotNumber) -> &mut Attached {
        self.entries.entry(Self::name(kind, slot)).or_default()
    }

    pub(crate) fn remove(&mut self, kind: u16, slot: SlotNumber) -> Option<Box<Attached>> {
        self.entries.remove(&Self::name(kind, slot))
    }

    /// Forgets the entity in the slot if nothing is attached to it any more.
    pub(crate) fn tidy(&mut self, kind: u16, slot: SlotNumber) {
        if self.get(kind, slot).is_some_and(Attached::is_nothing) {
            self.remove(kind, slot);
        }
    }

    /// Whether `what` holds for any of them.
    pub(crate) fn any(&self, what: impl Fn(&Attached) -> bool) -> bool {
        self.entries.values().any(|attached| what(attached))
    }

    /// Entities that have anything attached.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes everything out, in no order that matters.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Box<Attached>> {
        std::mem::take(&mut self.entries).into_values()
    }
}
