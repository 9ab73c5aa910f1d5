//! Naming an entity of any type: what faults, terminations and dead letters say of whom.

use std::fmt;

use crate::entity::Entity;
use crate::key::{Key, KeyWords};

/// An entity's type and key, whatever the type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntityId {
    /// The number of the type on this node.
    pub(crate) kind: u16,
    pub(crate) wide: bool,
    pub(crate) name: &'static str,
    pub(crate) key: KeyWords,
}

impl EntityId {
    pub(crate) fn of<E: Entity>(kind: u16, key: E::Key) -> Self {
        Self { kind, wide: E::Key::WORDS == 2, name: E::full_name(), key: key.to_words() }
    }

    /// The name of the entity's type.
    pub fn type_name(&self) -> &'static str {
        self.name
    }

    /// The words of the entity's key; the second is 0 where it has one.
    pub fn key_words(&self) -> KeyWords {
        self.key
    }

    /// The key, if this is an entity of type `E`.
    pub fn key<E: Entity>(&self) -> Option<E::Key> {
        let same = self.name == E::full_name() && self.wide == (E::Key::WORDS == 2);
        same.then(|| E::Key::from_words(self.key))
    }
}

impl fmt::Display for EntityId {
    /// `Account/42`; keys of 128 bits in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wide {
            write!(f, "{}/{:016x}{:016x}", self.name, self.key[1], self.key[0])
        } else {
            write!(f, "{}/{}", self.name, self.key[0])
        }
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entity and the message that reaches it, both without their types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recipient {
    pub(crate) entity: EntityId,
    /// The number of the message to it.
    pub(crate) message: u16,
}
