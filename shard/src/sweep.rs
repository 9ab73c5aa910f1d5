//! Sweeps: one pass over all entities of a type, on every shard, with one total.
//!
//! A sweep is cut into steps between which the shard goes on with its turns, so that a pass over
//! millions delays nobody for long. It therefore is no snapshot: entities go on changing while it
//! runs. A message that was told before the sweep was asked on the same way is seen by it.
#![expect(unsafe_code, reason = "totals of any type are kept behind one pointer")]

use crate::entity::Entity;
use crate::index::SlotNumber;
use crate::key::Key;
use crate::reply::Token;
use crate::shard::Shard;
use crate::store::Slot;

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

/// How many slots a sweep looks at per poll.
pub(crate) const SLOTS_PER_POLL: u32 = 4096;
