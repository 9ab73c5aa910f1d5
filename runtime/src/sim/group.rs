//! Groups of entities in a simulated node: begun and called as in a real one.

use coreside_shard::{
    Broadcast, Entity, Handler, Message, Name, Published, Single, Topic, Via as _,
};

use super::SimBuilder;
use super::outside::SimHandle;

/// Groups of entities, as [`NodeBuilder`](crate::NodeBuilder) has them.
impl SimBuilder {
    /// Registers an entity type with one instance, which is always running.
    pub fn singleton<E: Entity<Key = Single>>(mut self) -> Self {
        self.registry.singleton::<E>();
        self
    }

    /// Registers an entity type whose instances with the keys 0 to `count` (exclusive) are always
    /// running.
    pub fn workers<E: Entity<Key = u64>>(mut self, count: u32) -> Self {
        self.registry.workers::<E>(count);
        self
    }

    /// Registers an entity type of which each shard has `per_shard` instances for whoever calls one
    /// there.
    ///
    /// # Panics
    /// When `per_shard` is 0.
    pub fn pool<E: Entity<Key = u64>>(mut self, per_shard: u32) -> Self {
        self.registry.pool::<E>(per_shard);
        self
    }

    /// Registers [topics](Topic) of messages `M`, any number of names.
    pub fn topic<M: Published>(mut self) -> Self {
        self.registry.topic::<M>();
        self
    }
}

/// Groups of entities, as [`Handle`](crate::Handle) has them.
impl SimHandle {
    /// The way to the one instance of type `E`.
    pub fn singleton<E: Entity<Key = Single>>(&self) -> E::Ref<Self> {
        self.entity::<E>(Single)
    }

    /// The way to a member of the pool of `E`: on each shard in turn, and there each in turn.
    ///
    /// # Panics
    /// When the node has no pool of `E`.
    pub fn pool<E: Entity<Key = u64>>(&self) -> E::Ref<Self> {
        self.entity::<E>(self.gate.pools.next::<E>(&self.gate.table))
    }

    /// The topic `name` for messages `M`.
    ///
    /// # Panics
    /// When it is used and topics of `M` are not registered with this node.
    pub fn topic<M: Published>(&self, name: impl AsRef<[u8]>) -> Topic<M, Self> {
        Topic::new(Name::new(name, self.hash_key()), self.clone())
    }

    /// Tells each of these entities a clone of `message`.
    ///
    /// # Panics
    /// When `E` is not registered with this node.
    pub fn broadcast<E, M>(
        &self,
        keys: impl IntoIterator<Item = E::Key>,
        message: M,
    ) -> Broadcast<E::Key>
    where
        E: Handler<M>,
        M: Message + Clone,
    {
        let tell = |key, message| self.clone().call::<E, M>(key, message).try_tell().is_ok();
        Broadcast::of(keys, message, tell)
    }
}
