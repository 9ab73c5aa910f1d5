//! The message table: what a record's message number stands for on this node.
//!
//! Every pair of entity type and message type that was registered has a dense number, given when
//! the node is built. The table is closed: nothing is added while the node runs, so each shard
//! reads it without a lock, and a number that is in range is a handler.

#![expect(unsafe_code, reason = "values are dropped through the table, which is read unchecked")]

use std::any::TypeId;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::commands::Commands;
use crate::entity::{Entity, Handler, Message};
use crate::group::Instances;
use crate::life::Life;
use crate::peer::take_system;
use crate::pending::Outside;
use crate::record::{ASK_WORDS, Head, Kind, Word};
use crate::reply::AskError;
use crate::shard::Shard;
use crate::slot::Layout;
use crate::store::StoreId;
use crate::sweep::SweepRow;
use crate::turn::Hooks;
use crate::wire::WireRow;

/// Everything registered on a node; shared by its shards.
pub struct Table {
    pub(crate) types: Vec<TypeRow>,
    pub(crate) rows: Vec<Row>,
    pub(crate) sweeps: Vec<SweepRow>,
    pub(crate) directory: Directory,
    pub(crate) commands: Arc<Commands>,
    pub(crate) wire: Vec<WireRow>,
}

/// One entity type.
pub(crate) struct TypeRow {
    pub(crate) name: &'static str,
    pub(crate) layout: Layout,
    pub(crate) life: Life,
    pub(crate) hooks: Hooks,
    pub(crate) instances: Instances,
}

/// Runs the turn of the record at the pointer, on an entity of the store.
pub(crate) type Run = unsafe fn(&mut Shard, &mut dyn Outside, *mut Word, Head, StoreId);

/// Drops the value at the pointer.
pub(crate) type DropValue = unsafe fn(*mut Word);

/// One message type of one entity type.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) run_tell: Run,
    pub(crate) run_ask: Run,
    /// The number of the entity type, which is the number of its store on each shard.
    pub(crate) store: u16,
    pub(crate) key_words: u16,
    pub(crate) method: &'static str,
    /// Whether its turns only read.
    pub(crate) reads: bool,
    pub(crate) reply_type: TypeId,
    pub(crate) drop_message: DropValue,
    pub(crate) drop_reply: DropValue,
    /// Words that the value takes in a record.
    pub(crate) value_words: u16,
    /// Moves a value that a timer kept into a record.
    pub(crate) unkeep: unsafe fn(*const Word, *mut Word),
    /// Drops a value that a timer kept.
    pub(crate) drop_kept: DropValue,
    /// Its number on the wire, if it has one.
    pub(crate) wire: Option<u16>,
}

impl Table {
    /// The commands that callers outside may give.
    pub fn commands(&self) -> &Arc<Commands> {
        &self.commands
    }

    /// Every message as its entity type's name and its method, in the order of their numbers.
    pub fn messages(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.rows.iter().map(|row| (self.types[usize::from(row.store)].name, row.method))
    }

    /// How to drop the reply to message number `message`; numbers behind the messages are sweeps.
    pub(crate) fn drop_reply(&self, message: u16) -> DropValue {
        let message = usize::from(message);
        match self.rows.get(message) {
            Some(row) => row.drop_reply,
            None => self.sweeps[message - self.rows.len()].drop_reply,
        }
    }

    /// Drops the value of a record that nobody will run.
    ///
    /// # Safety
    /// A record of this table stands at `record`, and is given up.
    pub(crate) unsafe fn drop_record(&self, record: *mut Word) {
        // SAFETY: the first word of a record is its head.
        let head = Head::from_bits(unsafe { record.cast::<u64>().read() });
        let (value_at, drop_value) = match head.kind() {
            Kind::Tell | Kind::Ask => {
                let row = &self.rows[usize::from(head.message())];
                let asked = if head.kind() == Kind::Ask { ASK_WORDS } else { 0 };
                (1 + usize::from(row.key_words) + asked, row.drop_message)
            }
            Kind::Reply if head.upper() == 0 => (2, self.drop_reply(head.message())),
            // SAFETY: the caller's contract.
            Kind::Reply => return drop(unsafe { take_error(record, head) }),
            // SAFETY: the caller's contract.
            Kind::System => return drop(unsafe { take_system(record) }),
            Kind::Sweep | Kind::Drain => return,
        };
        // SAFETY: the value stands behind the routing words, and is of the type its number names.
        unsafe { drop_value(record.add(value_at)) };
    }

    /// The number of message `M` to entities `E`.
    pub(crate) fn find_message<E: Handler<M>, M: Message>(&self) -> Option<u16> {
        self.directory.find(TypeId::of::<(E, M)>())
    }

    /// The number of message `M` to entities `E` among [those on the wire](Self::wire).
    pub fn find_wire<E: Handler<M>, M: Message>(&self) -> Option<u16> {
        self.rows[usize::from(self.find_message::<E, M>()?)].wire
    }

    /// Whether messages `M` to entities `E` are registered.
    pub fn has_message<E: Handler<M>, M: Message>(&self) -> bool {
        self.find_message::<E, M>().is_some()
    }

    /// The number of entity type `E`.
    pub(crate) fn find_entity<E: Entity>(&self) -> Option<u16> {
        self.directory.find(TypeId::of::<E>())
    }

    /// Whether sweep `S` over entities `E` is registered.
    pub fn has_sweep<E: Entity, S: 'static>(&self) -> bool {
        self.directory.find(TypeId::of::<(E, S, ())>()).is_some()
    }

    /// The names of the entity types, in the order of their numbers.
    pub fn type_names(&self) -> impl Iterator<Item = &'static str> {
        self.types.iter().map(|row| row.name)
    }
}

/// The error of a reply that brings none. An error that has a value of its own brings it in a box.
///
/// # Safety
/// A reply with a status stands at `record`, with this head, and is given up.
pub(crate) unsafe fn take_error(record: *const Word, head: Head) -> Option<AskError> {
    if head.upper() != AskError::CYCLE {
        return AskError::from_status(head.upper());
    }
    // SAFETY: behind the token stands the pointer of a live box, taken back once.
    Some(*unsafe { Box::from_raw(record.add(2).cast::<*mut AskError>().read()) })
}

/// Type to number: a small hash table of the compiler's type identifiers, built once.
///
/// # Cost
/// The identifier is a constant of the caller's code, and the table is made so that no two share a
/// cell: one multiplication, one load, one comparison.
#[derive(Clone)]
pub(crate) struct Directory {
    cells: Box<[Cell]>,
    multiplier: u64,
    shift: u32,
}

#[derive(Clone, Copy)]
struct Cell {
    id: TypeId,
    number: u16,
}

/// Tries per size of the table before it is made larger.
const TRIES: u64 = 1000;

impl Directory {
    /// The directory of these types, which must differ.
    pub(crate) fn new(entries: &[(TypeId, u16)]) -> Self {
        let mut bits = (entries.len() * 2).next_power_of_two().trailing_zeros().max(4);
        loop {
            // Odd multipliers from a Weyl sequence: arbitrary, and the same in every run.
            let multipliers = (1..=TRIES).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            for multiplier in multipliers {
                if let Some(directory) = Self::without_collision(entries, bits, multiplier) {
                    return directory;
                }
            }
            bits += 1;
        }
    }

    fn without_collision(entries: &[(TypeId, u16)], bits: u32, multiplier: u64) -> Option<Self> {
        // A type that nobody registers, because nobody else can name it.
        struct Nothing;
        let free = TypeId::of::<Nothing>();
        let shift = u64::BITS - bits;
        let mut cells = vec![Cell { id: free, number: 0 }; 1 << bits];
        for (id, number) in entries {
            let cell = &mut cells[(bits_of(id).wrapping_mul(multiplier) >> shift) as usize];
            if cell.id != free {
                return None;
            }
            *cell = Cell { id: *id, number: *number };
        }
        Some(Self { cells: cells.into_boxed_slice(), multiplier, shift })
    }

    #[inline(always)]
    fn find(&self, id: TypeId) -> Option<u16> {
        let at = (bits_of(&id).wrapping_mul(self.multiplier) >> self.shift) as usize;
        // SAFETY: the shift leaves as many bits as the number of cells has.
        let cell = unsafe { self.cells.get_unchecked(at) };
        (cell.id == id).then_some(cell.number)
    }

    /// The number of message `M` to entity `E`.
    ///
    /// # Panics
    /// When the type was not registered with this node.
    #[inline(always)]
    pub(crate) fn message<E: Handler<M>, M: Message>(&self) -> u16 {
        match self.find(TypeId::of::<(E, M)>()) {
            Some(number) => number,
            None => not_registered(E::NAME, std::any::type_name::<M>()),
        }
    }

    /// The number of entity type `E`.
    ///
    /// # Panics
    /// When the type was not registered with this node.
    #[inline(always)]
    pub(crate) fn entity<E: Entity>(&self) -> u16 {
        match self.find(TypeId::of::<E>()) {
            Some(number) => number,
            None => not_registered(E::NAME, "it"),
        }
    }

    /// The number of sweep `S` over the entities `E`.
    ///
    /// # Panics
    /// When it was not registered with this node.
    pub(crate) fn sweep<E: Entity, S: 'static>(&self) -> u16 {
        match self.find(TypeId::of::<(E, S, ())>()) {
            Some(number) => number,
            None => not_registered(E::NAME, std::any::type_name::<S>()),
        }
    }
}

/// What a fault says by which a test kit knows that it lacks a type.
pub(crate) const NOT_REGISTERED: &str = "is not registered: add `.entity::<";

#[cold]
#[inline(never)]
fn not_registered(entity: &str, what: &str) -> ! {
    panic!("entity type {entity} or {what} {NOT_REGISTERED}{entity}>()` where the node is built");
}

/// The identifier's own bits: it is a hash already.
#[inline(always)]
fn bits_of(id: &TypeId) -> u64 {
    struct Bits(u64);
    impl Hasher for Bits {
        #[inline(always)]
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }
        #[inline(always)]
        fn write_u64(&mut self, bits: u64) {
            self.0 = bits;
        }
        #[inline(always)]
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut bits = Bits(0);
    id.hash(&mut bits);
    bits.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_finds_what_it_was_built_from_and_nothing_else() {
        let ids = [
            TypeId::of::<u8>(),
            TypeId::of::<u16>(),
            TypeId::of::<(u8, u16)>(),
            TypeId::of::<String>(),
            TypeId::of::<[u8; 7]>(),
        ];
        let entries: Vec<_> = ids.iter().enumerate().map(|(i, id)| (*id, i as u16)).collect();
        let directory = Directory::new(&entries);
        for (id, number) in entries {
            assert_eq!(directory.find(id), Some(number));
        }
        assert_eq!(directory.find(TypeId::of::<i8>()), None);
    }
}
