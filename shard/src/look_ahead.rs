//! Looking ahead: the entities of waiting records are on their way before their turns come.
//!
//! The run queue shows which entities come next. So two cursors walk it before the turns: `far`
//! asks for the index line of each record's key; by the time `near` comes to the record the line is
//! there, and it finds the slot in it, notes the slot in the record, and asks for its lines. The
//! turn then finds everything in the nearest cache.
//!
//! Both walks are loads and shifts over data, with no call per record, and they go a block of
//! records at a time: what they need of the shard stays in registers, where turns in between would
//! drive it out.
#![expect(unsafe_code, reason = "records are read in place")]

use crate::index::Place;
use crate::queue::Position;
use crate::record::{Head, Word};
use crate::shard::{Dispatch, Shard};

/// Records that are looked at, and run, at a time.
pub(crate) const BLOCK: u32 = 8;

/// How far ahead of its turn a record's index line is asked for, in words: about 50 records.
const FAR_WORDS: usize = 160;
/// How far ahead its slot is asked for: about 24 records.
const NEAR_WORDS: usize = 72;
/// A block of records, in words.
const BLOCK_WORDS: usize = 3 * BLOCK as usize;

/// How far the two walks have come.
pub(crate) struct Cursors {
    far: Position,
    near: Position,
}

impl Cursors {
    pub(crate) fn at(position: Position) -> Self {
        Self { far: position, near: position }
    }
}

impl Shard {
    /// Lets both walks keep their distance to the front of the queue.
    #[inline]
    pub(crate) fn look_ahead(&mut self, cursors: &mut Cursors) {
        let (head, tail) = (self.core.queue.head(), self.core.queue.tail());
        // A block of long records, or of records that its own turns sent, takes the front past a
        // walk; behind the front there are no records any more.
        cursors.far = cursors.far.max(head);
        cursors.near = cursors.near.max(head);
        let until = tail.min(head + FAR_WORDS + BLOCK_WORDS);
        while cursors.far < until {
            // SAFETY: the cursor steps from record to record below the tail.
            cursors.far += unsafe { self.at(cursors.far, fetch_index) };
        }
        let until = cursors.far.min(head + NEAR_WORDS + BLOCK_WORDS);
        while cursors.near < until {
            // SAFETY: as above.
            cursors.near += unsafe { self.at(cursors.near, fetch_slot) };
        }
    }

    /// Has `look` see the record at `position` if it is for an entity; returns its length.
    ///
    /// # Safety
    /// A record starts at `position`.
    #[inline(always)]
    unsafe fn at(
        &mut self,
        position: Position,
        look: impl Fn(*mut Word, Head, &Dispatch),
    ) -> usize {
        // SAFETY: the caller's contract.
        let head = unsafe { self.core.queue.record_head(position) };
        if head.is_for_entity() {
            // SAFETY: as above.
            let record = unsafe { self.core.queue.record(position) };
            // SAFETY: records are written with numbers of the table, which the rows are a copy of.
            look(record, head, unsafe { self.rows.get_unchecked(usize::from(head.message())) });
        }
        head.words()
    }
}

/// Far from its turn: asks for the index line of the record's key, and notes where in it to look.
#[inline(always)]
fn fetch_index(record: *mut Word, head: Head, row: &Dispatch) {
    // SAFETY: one step; the key follows the head, whose upper half is ours until the turn.
    unsafe {
        let (store, key) = (row.store.get(), record.add(1));
        let place = if row.key_words == 1 {
            store.fetch_index::<1>(key.cast::<[u64; 1]>().read())
        } else {
            store.fetch_index::<2>(key.cast::<[u64; 2]>().read())
        };
        record.cast::<u64>().write(head.with_status(place.to_bits()).bits());
    }
}

/// Near its turn: asks for the slot that the noted place names, and notes which it is.
#[inline(always)]
fn fetch_slot(record: *mut Word, head: Head, row: &Dispatch) {
    // SAFETY: one step; the upper half of the head is what `fetch_index` left there.
    unsafe {
        let hint = row.store.get().fetch_slot(Place::from_bits(head.upper()));
        record.cast::<u64>().write(head.with_status(hint).bits());
    }
}
