//! Sweeps: one pass over all entities of a type, on every shard, with one total.
//!
//! A sweep is cut into steps between which the shard goes on with its turns, so that a pass over
//! millions delays nobody for long. It therefore is no snapshot: entities go on changing while it
//! runs. A message that was told before the sweep was asked on the same way is seen by it.
#![expect(unsafe_code, reason = "totals of any type are kept behind one pointer")]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::condition::Stage;
use crate::entity::Entity;
use crate::fault::{Current, NO_MESSAGE};
use crate::index::SlotNumber;
use crate::key::Key;
use crate::pending::{AskedBy, Outside, Waiting};
use crate::record::{Head, Kind};
use crate::reply::{AskError, Token};
use crate::request::answer_at_once_of;
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::slot::Slot;
use crate::supervise::End;

/// A pass over entities, which is the total that it makes: starts at `Default`, visits each entity
/// of a shard once, and is merged with the totals of the other shards.
pub trait Sweep<E: Entity>: Default + Send + 'static {
    /// Looks at one entity, which may be changed, and says whether it stays.
    fn visit(&mut self, key: E::Key, entity: &mut E) -> Visit;

    /// Adds the total of another shard.
    fn merge(&mut self, other: Self);
}

/// What becomes of an entity that a sweep has visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It stays as it is.
    Keep,
    /// It goes, and its state is dropped.
    Stop,
}

/// One registered sweep, with its type erased.
pub(crate) struct SweepRow {
    pub(crate) store: u16,
    /// A new total, as a raw box.
    pub(crate) start: fn() -> *mut (),
    /// Visits the entity in a live slot.
    pub(crate) visit: unsafe fn(*mut (), *mut u8) -> Visit,
    /// Answers with the total, whose box ends here.
    pub(crate) finish: unsafe fn(&mut Shard, *mut (), Token, message: u16),
    /// Drops a total, boxed and not.
    pub(crate) drop_total: unsafe fn(*mut ()),
    pub(crate) drop_reply: crate::table::DropValue,
}

impl SweepRow {
    pub(crate) fn of<E: Entity, S: Sweep<E>>(store: u16) -> Self {
        Self {
            store,
            start: || Box::into_raw(Box::<S>::default()).cast(),
            visit: visit::<E, S>,
            finish: finish::<S>,
            drop_total: drop_total::<S>,
            drop_reply: crate::record::Payload::<S>::drop,
        }
    }
}

/// # Safety
/// `total` came from the row's `start`; `slot` is a live slot of the store of `E`.
unsafe fn visit<E: Entity, S: Sweep<E>>(total: *mut (), slot: *mut u8) -> Visit {
    // SAFETY: by contract; the sweep that owns the total is the only one to touch it.
    let total = unsafe { &mut *total.cast::<S>() };
    if E::Key::WORDS == 1 {
        let slot = slot.cast::<Slot<1, E>>();
        // SAFETY: a live slot has its key, and a state that nobody else refers to between turns.
        let (key, entity) = unsafe { ((*slot).head.key, (*slot).entity.assume_init_mut()) };
        total.visit(E::Key::from_words([key[0], 0]), entity)
    } else {
        let slot = slot.cast::<Slot<2, E>>();
        // SAFETY: as above.
        let (key, entity) = unsafe { ((*slot).head.key, (*slot).entity.assume_init_mut()) };
        total.visit(E::Key::from_words(key), entity)
    }
}

/// # Safety
/// `total` came from the row's `start`, and is given up.
unsafe fn finish<S: Send + 'static>(shard: &mut Shard, total: *mut (), token: Token, message: u16) {
    // SAFETY: made by Box::into_raw of this type, taken back once.
    let total = unsafe { Box::from_raw(total.cast::<S>()) };
    shard.core.reply_record::<S>(token, message, *total);
}

/// # Safety
/// As for [`finish`].
unsafe fn drop_total<S>(total: *mut ()) {
    // SAFETY: the caller's contract.
    drop(unsafe { Box::from_raw(total.cast::<S>()) });
}

/// A sweep that is under way on this shard.
pub(crate) struct Sweeping {
    pub(crate) row: u16,
    pub(crate) total: *mut (),
    pub(crate) token: Token,
    pub(crate) next: SlotNumber,
    pub(crate) end: SlotNumber,
}

impl Sweeping {
    /// The head of the record that began it.
    pub(crate) fn head(&self) -> Head {
        Head::new(Kind::Sweep, 2, self.row)
    }
}

/// How many slots a sweep looks at per poll.
pub(crate) const SLOTS_PER_POLL: u32 = 4096;

/// How long a sweep may take.
const SWEEP_TIMEOUT_NS: u64 = 60_000_000_000;

impl Shard {
    /// Passes over all entities `E` of the node; `then` gets the merged total.
    ///
    /// # Errors
    /// [`AskError::NotSent`] when too many asks wait already; `then` is dropped.
    pub fn sweep<E, S, F>(&mut self, then: F) -> Result<(), AskError>
    where
        E: Entity,
        S: Sweep<E>,
        F: FnOnce(Result<S, AskError>, &mut dyn Outside) + 'static,
    {
        let number = self.core.directory.sweep::<E, S>();
        let shards = self.core.shards();
        if !self.core.pending.has_room_for(usize::from(shards)) {
            return Err(AskError::NotSent);
        }
        let gather = Gather::new(shards, then);
        let deadline_ns = self.core.now.monotonic_ns.saturating_add(SWEEP_TIMEOUT_NS);
        for shard in 0..shards {
            let gather = Rc::clone(&gather);
            let then = move |part: Result<S, AskError>, outside: &mut dyn Outside| {
                let done = gather.borrow_mut().add(part, S::merge);
                if let Some((then, total)) = done {
                    then(total, outside);
                }
            };
            let resume = answer_at_once_of(&then);
            let message = (self.table.rows.len() + usize::from(number)) as u16;
            let by = AskedBy::OUTSIDE;
            let waiting = Waiting { resume, by, message, deadline_ns, task: 0 };
            let token = self.core.pending.insert(then, waiting);
            self.core.sweep_record(shard, number, token);
        }
        Ok(())
    }

    /// Puts a sweep that another shard, or this one, has asked for behind those under way.
    pub(crate) fn begin_sweep(&mut self, number: u16, token: Token) {
        let row = &self.table.sweeps[usize::from(number)];
        self.current = Current::answering(Some(token));
        let total = (row.start)();
        self.current.clear();
        // SAFETY: one step.
        let end = unsafe { self.stores[usize::from(row.store)].get() }.slots_used();
        self.sweeps.push(Sweeping { row: number, total, token, next: 0, end });
    }

    /// Lets the oldest sweep go on for a bounded number of slots.
    pub(crate) fn run_sweeps(&mut self) {
        let Some(sweeping) = self.sweeps.first() else { return };
        let row = &self.table.sweeps[usize::from(sweeping.row)];
        let (id, visit, total) = (self.stores[usize::from(row.store)], row.visit, sweeping.total);
        let (first, end) = (sweeping.next, sweeping.end);
        let until = end.min(first + SLOTS_PER_POLL);
        for slot in first..until {
            // SAFETY: one step.
            let store = unsafe { id.get() };
            if matches!(store.stage(slot), Stage::Busy | Stage::Reading) {
                // An async turn holds the state: the sweep waits for it.
                self.current = Current::NONE;
                return;
            }
            // Before the user's code: a panic there does not bring the sweep back here.
            self.sweeps[0].next = slot + 1;
            if !store.stage(slot).has_state() || planted(Bug::SweepSkips) && slot == 2 {
                continue;
            }
            self.current = Current::new(id, slot, None, NO_MESSAGE);
            // SAFETY: the total is this sweep's, and the slot is live in the row's store.
            let visited = unsafe { visit(total, store.at(slot)) };
            if visited == Visit::Stop {
                self.end(id, slot, End::Stopped);
            }
        }
        self.current = Current::NONE;
        if until == end {
            let sweeping = self.sweeps.remove(0);
            let finish = self.table.sweeps[usize::from(sweeping.row)].finish;
            let message = (self.table.rows.len() + usize::from(sweeping.row)) as u16;
            // SAFETY: the total was made by the row's `start` and is given up here.
            unsafe { finish(self, sweeping.total, sweeping.token, message) };
        }
    }
}

/// The totals of the shards, as they come in.
struct Gather<S, F> {
    missing: u16,
    total: Option<Result<S, AskError>>,
    then: Option<F>,
}

impl<S, F> Gather<S, F> {
    fn new(shards: u16, then: F) -> Rc<RefCell<Self>> {
        let gather = Self { missing: shards, total: None, then: Some(then) };
        Rc::new(RefCell::new(gather))
    }

    /// Adds a part; with the last one, everything comes back.
    fn add(
        &mut self,
        part: Result<S, AskError>,
        merge: impl FnOnce(&mut S, S),
    ) -> Option<(F, Result<S, AskError>)> {
        self.missing -= 1;
        self.total = Some(match (self.total.take(), part) {
            (None, part) => part,
            (Some(Ok(mut total)), Ok(part)) => {
                // The service's own code: should it fail, so does the sweep, and its asker hears.
                match catch_unwind(AssertUnwindSafe(|| merge(&mut total, part))) {
                    Ok(()) => Ok(total),
                    Err(_) => Err(AskError::Failed),
                }
            }
            (Some(Err(error)), _) | (Some(Ok(_)), Err(error)) => Err(error),
        });
        if self.missing > 0 {
            return None;
        }
        self.then.take().zip(self.total.take())
    }
}
