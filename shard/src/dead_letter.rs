//! Dead letters: messages that were accepted and will not be handled, each counted by its reason.
//!
//! A shard keeps the last of them whole, so that one can be looked at, and replayed.
#![expect(unsafe_code, reason = "a letter's value is read as the type that its number names")]

use std::collections::VecDeque;
use std::fmt;

use crate::entity::{Handler, Message};
use crate::identity::EntityId;
use crate::owned_record::OwnedRecord;
use crate::record::{Kind, Payload};
use crate::table::Table;

/// Why a message was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The store holds as many entities as it may.
    StoreFull,
    /// The entity was busy, and as many messages as may wait for it did.
    StashFull,
    /// The deadline passed before the turn.
    Expired,
    /// The entity failed and was ended while the message waited for it.
    EntityFailed,
    /// The message made its entity fail as often as it was tried.
    Poison,
    /// The entity failed while it was activated for this message.
    ActivationFailed,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::StoreFull,
        Self::StashFull,
        Self::Expired,
        Self::EntityFailed,
        Self::Poison,
        Self::ActivationFailed,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoreFull => "the store of its type is full",
            Self::StashFull => "the entity was busy and its stash full",
            Self::Expired => "the deadline passed before the turn",
            Self::EntityFailed => "the entity failed while the message waited",
            Self::Poison => "the message made the entity fail each time it was tried",
            Self::ActivationFailed => "the entity failed while it was activated",
        })
    }
}

/// A message that was not handled, with its value.
pub struct DeadLetter {
    entity: EntityId,
    method: &'static str,
    reason: Reason,
    unix_ms: u64,
    record: OwnedRecord,
}

impl DeadLetter {
    /// To whom it was sent.
    pub fn entity(&self) -> EntityId {
        self.entity
    }

    /// The method that would have handled it.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Why it was not handled.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// When it was given up, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.unix_ms
    }

    /// Whether an answer was wanted. The asker has been told that there is none.
    pub fn is_ask(&self) -> bool {
        self.record.head().kind() == Kind::Ask
    }

    /// Bytes that the message takes in a queue.
    pub fn bytes(&self) -> usize {
        size_of_val(self.record.words())
    }

    /// The message, if it is an `M` to an `E`.
    pub fn message<E: Handler<M>, M: Message>(&self) -> Option<&M> {
        let named = self.record.is::<E, M>();
        // SAFETY: the number says that the value is an M, and the letter owns it.
        named.then(|| unsafe { Payload::<M>::peek(self.record.value().as_ptr()) })
    }

    /// The message as a tell, to be sent again.
    pub(crate) fn into_tell(self) -> OwnedRecord {
        self.record.into_tell()
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("entity", &self.entity)
            .field("method", &self.method)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// The last dead letters of a shard, and how many there were for each reason.
pub(crate) struct DeadLetters {
    letters: VecDeque<DeadLetter>,
    letters_max: usize,
    counts: [u64; Reason::ALL.len()],
}

impl DeadLetters {
    pub(crate) fn new(letters_max: usize) -> Self {
        Self { letters: VecDeque::new(), letters_max, counts: [0; Reason::ALL.len()] }
    }

    /// How many there were for a reason.
    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// How many there were.
    pub(crate) fn count_in_all(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Keeps a record; the oldest one goes where there are too many.
    pub(crate) fn add(
        &mut self,
        record: OwnedRecord,
        entity: EntityId,
        reason: Reason,
        unix_ms: u64,
        table: &Table,
    ) {
        self.counts[reason as usize] += 1;
        let method = table.rows[usize::from(record.head().message())].method;
        self.letters.push_back(DeadLetter { entity, method, reason, unix_ms, record });
        if self.letters.len() > self.letters_max {
            self.letters.pop_front();
        }
    }

    /// The letters, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &DeadLetter> {
        self.letters.iter()
    }

    /// Takes a letter out.
    pub(crate) fn take(&mut self, at: usize) -> Option<DeadLetter> {
        self.letters.remove(at)
    }
}
