//! Entities and their messages: the traits that `#[entity]` and `#[handlers]` implement.
//!
//! An entity is state with a stable address, its *key*. It is activated by the first message that
//! reaches it and handles one message at a time. For each message type it has a [`Handler`]; the
//! list of those, made once by [`Entity::register`], is the closed message table of the type.

use std::marker::PhantomData;

use crate::key::Key;
use crate::registry::Registration;
use crate::turn::Cx;

/// State plus behaviour with a stable address.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an entity",
    label = "put `#[entity]` on the type, or implement `Entity` by hand"
)]
pub trait Entity: Sized + 'static {
    /// What an entity is called within its type.
    type Key: Key;

    /// The typed reference: an [`Address`] with a method per handler where `#[handlers]` made one,
    /// the plain [`Address`] otherwise.
    type Ref<V: Via>: From<Address<Self, V>>;

    /// The name of the type, as callers outside write it: unique within a node, case-insensitive.
    const NAME: &'static str;

    /// Makes the state when the first message for `key` arrives.
    fn activate(key: Self::Key, cx: &mut Cx<'_, Self>) -> Self;

    /// Names every message that the type handles. Runs once, when a node is built.
    fn register(table: &mut Registration<'_, Self>);
}

/// A value that is sent to an entity, and the type of the answer.
pub trait Message: Send + Sized + 'static {
    /// What the handler answers; `()` where there is nothing to say.
    type Reply: Send + Sized + 'static;
}

/// The turn that an entity makes of one message type.
pub trait Handler<M: Message>: Entity {
    /// `M::Reply` for an answer at the end of the turn, [`Later<M::Reply>`](Later) for one that
    /// follows in another turn.
    type Answer: Answer<M::Reply>;

    /// Handles `message` to completion. One turn at a time per entity.
    fn handle(&mut self, message: M, cx: &mut Cx<'_, Self>) -> Self::Answer;
}

/// What a handler may return for a reply of type `R`: the reply, or a promise of one.
pub trait Answer<R> {
    /// The reply, where there is one at the end of the turn.
    fn into_reply(self) -> Option<R>;
}

impl<R> Answer<R> for R {
    #[inline(always)]
    fn into_reply(self) -> Option<R> {
        Some(self)
    }
}

/// A promise that the reply follows in a later turn: the other half of a
/// [`ReplyTo`](crate::reply::ReplyTo), made by [`Cx::later`].
#[must_use = "return it from the handler, or the asker is answered at the end of this turn"]
#[derive(Debug)]
pub struct Later<R> {
    pub(crate) reply: PhantomData<fn() -> R>,
}

impl<R> Answer<R> for Later<R> {
    #[inline(always)]
    fn into_reply(self) -> Option<R> {
        None
    }
}

/// A way to an entity: from a handler ([`Cx`]), or from a thread outside (the node's handle).
pub trait Via: Sized {
    /// A call that is ready to be told or asked.
    type Call<E: Handler<M>, M: Message>;

    /// Prepares the call of the entity `key` with `message`. Nothing is sent yet.
    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> Self::Call<E, M>;
}

/// Where an entity is (its key) and how to get there.
pub struct Address<E: Entity, V> {
    key: E::Key,
    via: V,
}

impl<E: Entity, V: Via> Address<E, V> {
    /// The address of the entity `key`, reached by `via`.
    #[inline(always)]
    pub fn new(key: E::Key, via: V) -> Self {
        Self { key, via }
    }

    /// The key.
    pub fn key(&self) -> E::Key {
        self.key
    }

    /// Prepares a call with `message`: tell it or ask it.
    #[inline(always)]
    pub fn message<M: Message>(self, message: M) -> V::Call<E, M>
    where
        E: Handler<M>,
    {
        self.via.call(self.key, message)
    }
}
