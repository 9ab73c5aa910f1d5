//! Where a shard can be watched from: a look at whose turn it is, by a signal handler that has
//! interrupted the shard's own thread, at any instruction.
//!
//! A turn is known by its *serial*: the number of the poll and the position of its record in the
//! run queue. Both are there anyway; the shard stores the head of the record beside them, and that
//! is all it does for its watcher. Two looks that see one serial have seen one turn.
//!
//! # Ownership
//! A watch point reads what its shard owns. It writes nothing, allocates nothing and takes no lock,
//! so it may be used where nothing but reading is allowed. Each word is read once and volatile, as
//! it stands in that instant: a turn that is only beginning or just ending may be seen with parts
//! of the one before it. Whoever waits for a turn to be old sees it whole.
#![expect(unsafe_code, reason = "a shard is read while its own code is interrupted")]

use crate::fault::Current;
use crate::key::KeyWords;
use crate::record::{Head, Kind};
use crate::shard::Shard;
use crate::store::StoreId;

/// A view of one shard's turns.
pub struct WatchPoint {
    shard: *const Shard,
    /// By number of the entity type: its store, and the words of its keys.
    stores: Box<[(StoreId, u8)]>,
}

/// Names one turn of one shard, or one poll's part of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(u64, u64);

/// What a turn is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A tell or an ask of the message with this number.
    Message(u16),
    /// The answer to an ask of the message with this number, where it is known. Numbers behind the
    /// messages stand for sweeps.
    Answer(Option<u16>),
    /// The sweep with this number, over some of the shard's entities.
    Sweep(u16),
}

/// A turn under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnSeen {
    /// What it is about.
    pub what: What,
    /// The number of the entity type and the key, where the turn is an entity's.
    pub entity: Option<(u16, KeyWords)>,
}

impl Shard {
    /// A view of this shard's turns.
    ///
    /// # Safety
    /// While the view is used the shard is neither moved nor dropped, and it is used on the
    /// shard's own thread only.
    pub unsafe fn watch_point(&self) -> WatchPoint {
        let stores = self.stores.iter().zip(&self.table.types);
        let stores = stores.map(|(id, row)| (*id, row.layout.key_words as u8)).collect();
        WatchPoint { shard: self, stores }
    }
}

impl WatchPoint {
    /// The turn that is under way.
    #[inline]
    pub fn serial(&self) -> Option<Serial> {
        let head = self.running();
        // SAFETY: the shard is alive, by the contract of `watch_point`.
        let polls = unsafe { (&raw const (*self.shard).polls).read_volatile() };
        // SAFETY: as above; a number that is written as a whole.
        let position = unsafe { (*self.shard).core.queue.head() } as u64;
        // A sweep goes on where the queue was left.
        let serial = Serial(polls, position << 1 | u64::from(head.kind() == Kind::Sweep));
        (head != Head::NONE).then_some(serial)
    }

    /// What the turn under way is about, and whose it is.
    pub fn turn(&self) -> TurnSeen {
        let head = self.running();
        let what = match head.kind() {
            Kind::Tell | Kind::Ask => What::Message(head.message()),
            Kind::Reply => What::Answer((head.upper() == 0).then_some(head.message())),
            Kind::Sweep => What::Sweep(head.message()),
            // The record that waited takes their place as it is run.
            Kind::System | Kind::Drain => What::Answer(None),
        };
        TurnSeen { what, entity: self.entity() }
    }

    fn running(&self) -> Head {
        // SAFETY: the shard is alive, by the contract of `watch_point`.
        unsafe { (&raw const (*self.shard).running).read_volatile() }
    }

    fn entity(&self) -> Option<(u16, KeyWords)> {
        // SAFETY: as in `running`, on the shard's thread.
        let (id, slot) = unsafe { Current::peek(&raw const (*self.shard).current) }?;
        let number = self.stores.iter().position(|(store, _)| *store == id)?;
        // SAFETY: the shard has its stores until it goes. Where one of its steps is interrupted,
        // this looks at two words that no step leaves half written.
        let store = unsafe { &*id.get() };
        if slot >= store.slots_used() {
            return None;
        }
        let at = store.at(slot).cast::<u64>();
        // SAFETY: a slot that is in use begins with its key, of one word at least.
        let first = unsafe { at.read_volatile() };
        let second = match self.stores[number].1 {
            2 => {
                // SAFETY: keys of this type have two words.
                unsafe { at.add(1).read_volatile() }
            }
            _ => 0,
        };
        Some((number as u16, [first, second]))
    }
}

impl std::fmt::Debug for WatchPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchPoint").finish_non_exhaustive()
    }
}
