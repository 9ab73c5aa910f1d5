//! Topics: whoever has subscribed gets what is published under a name.

use std::marker::PhantomData;

use super::hub::{Hub, Publish, Subscribe, Unsubscribe};
use super::subscriber::Subscriber;
use crate::async_cx::AsyncCx;
use crate::call::Call;
use crate::cx::Cx;
use crate::entered::entered;
use crate::entity::{Entity, Handler, Message, Via};
use crate::key::{Key, Name};
use crate::registry::Registry;

/// What may be published: a message without an answer, of which each subscriber gets a clone.
pub trait Published: Message<Reply = ()> + Clone {}

impl<M: Message<Reply = ()> + Clone> Published for M {}

/// A topic of this node, and how to get there.
///
/// A topic is a name and a type of message. Each of its operations is a call of an entity, the
/// topic's [`Hub`], to be told or asked like any other. It is made by `topic` of [`Cx`],
/// [`AsyncCx`] and the node's handle, where [`Registry::topic`] registered the message's type.
///
/// # Delivery
/// A subscriber gets what was published, each message once, in the order in which the hub took it;
/// so all subscribers see one order, and within it that of each publisher. What an entity publishes
/// behind its own subscription it gets itself.
///
/// A copy that finds a queue full is not delivered, and is counted
/// ([`Stats::copies_refused`](crate::Stats::copies_refused)); nobody waits for it. A subscriber
/// that is busy for long has a stash for it like for any message, and the dead letters behind.
///
/// # How long a subscription lasts
/// Until it is taken back, or the subscriber is no longer in memory: because it stopped, ended with
/// a fault, or was put away. A restart keeps it. An entity that is to have it in each life
/// subscribes when it is activated; a second subscription changes nothing. One that is not in
/// memory cannot subscribe: nothing that is published activates anybody. A subscription that
/// arrives when its entity is in its next life already is one of that life.
///
/// # Cost
/// Publishing is one record to the hub, one more to each shard that has subscribers, and there a
/// clone and a record for each. A topic without subscribers takes no memory.
///
/// # Panics
/// A message whose `clone` panics is not delivered to those behind; the topic goes on.
#[must_use = "a topic does nothing before it is used"]
pub struct Topic<M, V> {
    name: Name,
    via: V,
    message: PhantomData<fn(M)>,
}

impl<M: Published, V: Via> Topic<M, V> {
    /// The topic of this name, reached by `via`.
    pub fn new(name: Name, via: V) -> Self {
        Self { name, via, message: PhantomData }
    }

    /// Publishes `message`. Who asks is told for how many subscribers it is on its way; one that
    /// has just subscribed for a second time, or ended, may be counted still.
    pub fn publish(self, message: M) -> V::Call<Hub<M>, Publish<M>> {
        self.via.call::<Hub<M>, _>(self.name, Publish(message))
    }

    /// Has the entity `key` of type `E` get what is published from now on, if it is in memory. Who
    /// asks is told whether there was [room](Hub::SUBSCRIBERS_MAX).
    pub fn subscribe_entity<E: Handler<M>>(self, key: E::Key) -> V::Call<Hub<M>, Subscribe<M>> {
        let subscribe = Subscribe::new(key.to_words(), Subscriber::new::<E>);
        self.via.call::<Hub<M>, _>(self.name, subscribe)
    }

    /// Takes the subscription of the entity `key` of type `E` back. What is on its way arrives.
    /// Where the queue on the way is full it stays, a fault is counted, and who asks is told
    /// [`Failed`](crate::AskError::Failed).
    pub fn unsubscribe_entity<E: Handler<M>>(self, key: E::Key) -> V::Call<Hub<M>, Unsubscribe<M>> {
        let unsubscribe = Unsubscribe::new(key.to_words(), Subscriber::new::<E>);
        self.via.call::<Hub<M>, _>(self.name, unsubscribe)
    }
}

impl<'c, 'a, M: Published, E: Handler<M>> Topic<M, &'c mut Cx<'a, E>> {
    /// Has this entity get what is published from now on. Who asks is told whether there was
    /// [room](Hub::SUBSCRIBERS_MAX).
    ///
    /// # Panics
    /// When the messages are not registered with this entity's type; the turn fails.
    pub fn subscribe(self) -> Call<'c, 'a, E, Hub<M>, Subscribe<M>> {
        let key = self.via.key;
        let _checked = Subscriber::new::<E>(&self.via.core.directory, key.to_words());
        self.subscribe_entity::<E>(key)
    }

    /// Takes the subscription of this entity back, like
    /// [`unsubscribe_entity`](Self::unsubscribe_entity).
    pub fn unsubscribe(self) -> Call<'c, 'a, E, Hub<M>, Unsubscribe<M>> {
        let key = self.via.key;
        self.unsubscribe_entity::<E>(key)
    }
}

impl<'a, E: Entity> Cx<'a, E> {
    /// The topic `name` for messages `M`.
    ///
    /// # Panics
    /// When it is used and topics of `M` are not registered with this node.
    ///
    /// # Cost
    /// A hash of the name; [`Topic::new`] takes one that was hashed before.
    pub fn topic<M: Published>(&mut self, name: impl AsRef<[u8]>) -> Topic<M, &mut Cx<'a, E>> {
        Topic::new(Name::new(name, &self.core.hash_key), self)
    }
}

impl<E: Entity> AsyncCx<E> {
    /// The topic `name` for messages `M`. Await its calls to ask.
    ///
    /// # Panics
    /// When it is used and topics of `M` are not registered with this node.
    pub fn topic<M: Published>(&self, name: impl AsRef<[u8]>) -> Topic<M, &AsyncCx<E>> {
        let hash_key = entered(|turn| turn.with_core(|core| core.hash_key));
        Topic::new(Name::new(name, &hash_key), self)
    }
}

impl Registry {
    /// Registers topics of messages `M`, any number of names.
    pub fn topic<M: Published>(&mut self) -> &mut Self {
        self.entity::<Hub<M>>().entity::<super::relay::Relay<M>>()
    }
}

impl<M, V> std::fmt::Debug for Topic<M, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}
