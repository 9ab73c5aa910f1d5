//! Singletons: types that have one instance on a node.

use crate::async_cx::AsyncCx;
use crate::cx::Cx;
use crate::entity::Entity;
use crate::key::{HashKey, Key, KeyWords};
use crate::registry::Registry;

/// The key of an entity type with one instance: there is no other value, so there is no second
/// instance.
///
/// Callers outside write it as `-`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Single;

impl Key for Single {
    const WORDS: usize = 1;

    #[inline(always)]
    fn to_words(self) -> KeyWords {
        [0, 0]
    }

    #[inline(always)]
    fn from_words(_: KeyWords) -> Self {
        Self
    }

    fn from_bytes(bytes: &[u8], _hash: &HashKey) -> Result<Self, &'static str> {
        if bytes == b"-" { Ok(Self) } else { Err("the key of the only instance is written as -") }
    }
}

impl Registry {
    /// Registers an entity type whose one instance is always running: it is activated before its
    /// shard does anything else ([`Shard::start_kept`](crate::Shard::start_kept)), never put away,
    /// restarted for ever after faults, and activated again when it stops by itself.
    pub fn singleton<E: Entity<Key = Single>>(&mut self) -> &mut Self {
        self.row_of::<E>().keep(1);
        self
    }
}

impl<'a, E: Entity> Cx<'a, E> {
    /// The way to the one instance of type `T`, wherever it lives.
    #[inline(always)]
    pub fn singleton<T: Entity<Key = Single>>(&mut self) -> T::Ref<&mut Cx<'a, E>> {
        self.entity::<T>(Single)
    }
}

impl<E: Entity> AsyncCx<E> {
    /// The way to the one instance of type `T`, wherever it lives. Await the call to ask.
    pub fn singleton<T: Entity<Key = Single>>(&self) -> T::Ref<&AsyncCx<E>> {
        self.entity::<T>(Single)
    }
}
