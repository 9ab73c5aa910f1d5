//! Groups of entities from the outside: how a node begins them, and how other threads call them.
//!
//! What they are is said where they are made, in `coreside_shard`: topics, broadcasts, singletons,
//! pools, workers. There is no router by consistent hash beside them, as a key is one: an entity
//! whose key is made of what is to be spread is always found by the same key, and entities of one
//! type are spread over all shards.

use std::sync::atomic::{AtomicUsize, Ordering};

use coreside_shard::{
    Broadcast, Entity, Handler, Message, Name, PoolKeys, Published, Single, Table, Topic, Via,
};

use crate::handle::Handle;
use crate::node::NodeBuilder;

/// The node's pools, and the number of calls that they had from outside.
#[derive(Debug)]
pub(crate) struct Pools {
    keys: PoolKeys,
    calls: AtomicUsize,
}

impl Pools {
    pub(crate) fn new(keys: PoolKeys) -> Self {
        Self { keys, calls: AtomicUsize::new(0) }
    }

    /// The member for the next call: on each shard in turn, and there each in turn.
    ///
    /// # Panics
    /// When the node has no pool of `E`.
    pub(crate) fn next<E: Entity<Key = u64>>(&self, table: &Table) -> u64 {
        self.keys.member::<E>(table, self.calls.fetch_add(1, Ordering::Relaxed))
    }
}

/// Groups of entities.
impl NodeBuilder {
    /// Registers an entity type with one instance, which is always running: it is activated before
    /// its shard takes any work and before [`start`](Self::start) returns, restarted for ever after
    /// faults, never put away, and activated again when it stops by itself, until the node stops.
    /// Its key is [`Single`]; [`Handle::singleton`] and [`Cx::singleton`](crate::Cx::singleton)
    /// need none.
    ///
    /// # Examples
    /// ```
    /// use coreside::{Node, Single, entity, handlers};
    ///
    /// #[entity(key = Single)]
    /// struct Sequence {
    ///     last: u64,
    /// }
    ///
    /// #[handlers]
    /// impl Sequence {
    ///     fn next(&mut self) -> u64 {
    ///         self.last += 1;
    ///         self.last
    ///     }
    /// }
    ///
    /// let node = Node::builder().singleton::<Sequence>().shards(2).start()?;
    /// assert_eq!(node.singleton::<Sequence>().next().wait(), Ok(1));
    /// assert_eq!(node.singleton::<Sequence>().next().wait(), Ok(2));
    /// # Ok::<(), coreside::NodeError>(())
    /// ```
    pub fn singleton<E: Entity<Key = Single>>(mut self) -> Self {
        self.registry.singleton::<E>();
        self
    }

    /// Registers an entity type whose instances with the keys 0 to `count` (exclusive) are always
    /// running, as a [`singleton`](Self::singleton) is. Others of the type are as any entity, but
    /// that they are not put away either.
    ///
    /// One that ends again and again is begun again after the waits that its
    /// [`Backoff`](crate::Backoff) declares. What is sent to it meanwhile waits.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use coreside::{Cx, Message, Node, entity, handlers};
    ///
    /// #[derive(Clone)]
    /// struct Round;
    ///
    /// impl Message for Round {
    ///     type Reply = ();
    /// }
    ///
    /// /// Looks after one of four queues, from the start of the node on.
    /// #[entity(activate = Self::begin)]
    /// struct Collector {
    ///     rounds: u64,
    /// }
    ///
    /// #[handlers]
    /// impl Collector {
    ///     fn begin(_queue: u64, cx: &mut Cx<Self>) -> Self {
    ///         if cx.every(Duration::from_millis(1), Round).is_err() {
    ///             cx.fail("too many timers are set");
    ///         }
    ///         Self { rounds: 0 }
    ///     }
    ///
    ///     #[on]
    ///     fn round(&mut self, _round: Round) {
    ///         self.rounds += 1;
    ///     }
    ///
    ///     fn rounds(&self) -> u64 {
    ///         self.rounds
    ///     }
    /// }
    ///
    /// let node = Node::builder().workers::<Collector>(4).shards(2).start()?;
    /// while node.entity::<Collector>(3).rounds().wait() == Ok(0) {}
    /// # Ok::<(), coreside::NodeError>(())
    /// ```
    pub fn workers<E: Entity<Key = u64>>(mut self, count: u32) -> Self {
        self.registry.workers::<E>(count);
        self
    }

    /// Registers an entity type without state of its own, of which each shard has `per_shard`
    /// instances, so that whoever calls one ([`Cx::pool`](crate::Cx::pool), [`Handle::pool`]) finds
    /// it on its own shard. Several let others go on while one waits in an async turn.
    ///
    /// # Examples
    /// ```
    /// use coreside::{Cx, Later, Node, entity, handlers};
    ///
    /// #[entity]
    /// struct Parser {}
    ///
    /// #[handlers]
    /// impl Parser {
    ///     fn words(&self, text: String) -> u64 {
    ///         text.split(' ').count() as u64
    ///     }
    /// }
    ///
    /// #[entity]
    /// struct Document {
    ///     words: u64,
    /// }
    ///
    /// #[handlers]
    /// impl Document {
    ///     fn append(&mut self, text: String, cx: &mut Cx<Self>) -> Later<u64> {
    ///         cx.run(async move |this, cx| {
    ///             this.words += cx.pool::<Parser>().words(text).await.unwrap_or(0);
    ///             this.words
    ///         })
    ///     }
    /// }
    ///
    /// let node = Node::builder().entity::<Document>().pool::<Parser>(2).shards(2).start()?;
    /// assert_eq!(node.entity::<Document>(1).append("one two".to_owned()).wait(), Ok(2));
    /// assert_eq!(node.pool::<Parser>().words("three".to_owned()).wait(), Ok(1));
    /// # Ok::<(), coreside::NodeError>(())
    /// ```
    ///
    /// # Panics
    /// When `per_shard` is 0.
    pub fn pool<E: Entity<Key = u64>>(mut self, per_shard: u32) -> Self {
        self.registry.pool::<E>(per_shard);
        self
    }

    /// Registers [topics](Topic) of messages `M`, any number of names.
    ///
    /// # Examples
    /// ```
    /// use coreside::{Cx, Message, Node, entity, handlers};
    ///
    /// #[derive(Clone)]
    /// struct Price {
    ///     cents: u64,
    /// }
    ///
    /// impl Message for Price {
    ///     type Reply = ();
    /// }
    ///
    /// #[entity]
    /// struct Desk {
    ///     last: u64,
    /// }
    ///
    /// #[handlers]
    /// impl Desk {
    ///     fn open(&mut self, cx: &mut Cx<Self>) -> bool {
    ///         cx.topic::<Price>("prices").subscribe().try_tell().is_ok()
    ///     }
    ///
    ///     #[on]
    ///     fn price(&mut self, price: Price) {
    ///         self.last = price.cents;
    ///     }
    ///
    ///     fn last(&self) -> u64 {
    ///         self.last
    ///     }
    /// }
    ///
    /// let node = Node::builder().entity::<Desk>().topic::<Price>().shards(2).start()?;
    /// assert_eq!(node.entity::<Desk>(1).open().wait(), Ok(true));
    ///
    /// // The subscription is on its way; until it arrives, there is nobody to hear.
    /// let publish = || node.topic::<Price>("prices").publish(Price { cents: 990 });
    /// while publish().wait() == Ok(0) {}
    /// while node.entity::<Desk>(1).last().wait() == Ok(0) {}
    /// # Ok::<(), coreside::NodeError>(())
    /// ```
    pub fn topic<M: Published>(mut self) -> Self {
        self.registry.topic::<M>();
        self
    }
}

/// Groups of entities.
impl Handle {
    /// The way to the one instance of type `E`.
    pub fn singleton<E: Entity<Key = Single>>(&self) -> E::Ref<Self> {
        self.entity::<E>(Single)
    }

    /// The way to a member of the pool of `E`: on each shard in turn, and there each in turn.
    ///
    /// # Panics
    /// When the node has no pool of `E`.
    pub fn pool<E: Entity<Key = u64>>(&self) -> E::Ref<Self> {
        self.entity::<E>(self.shared.pools.next::<E>(&self.shared.table))
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
    /// # Delivery
    /// As for one tell each.
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
