//! Entities and their messages: the traits that `#[entity]` and `#[handlers]` implement.
//!
//! An entity is state with a stable address, its *key*. It is activated by the first message that
//! reaches it and handles one message at a time. For each message type it has a [`Handler`]; the
//! list of those, made once by [`Entity::register`], is the closed message table of the type.

use std::marker::PhantomData;

use crate::async_cx::{Activating, AsyncCx};
use crate::cx::Cx;
use crate::key::Key;
use crate::life::Life;
use crate::registry::Registration;

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

    /// What follows a fault, when an idle entity is put away, and how much may wait for a busy one.
    const LIFE: Life = Life::DEFAULT;

    /// The name that is unique where one type stands for many, as types of the runtime do.
    #[doc(hidden)]
    fn full_name() -> &'static str {
        Self::NAME
    }

    /// Makes the state when the first message for `key` arrives, or anew after a fault.
    fn activate(key: Self::Key, cx: &mut Cx<'_, Self>) -> Self;

    /// Makes the state in the course of time instead: from storage, or by asking others. Messages
    /// wait in the stash meanwhile. Where this is `Some`, [`activate`](Self::activate) is not
    /// called.
    fn activate_async(_key: Self::Key, _cx: AsyncCx<Self>) -> Option<Activating<Self>> {
        None
    }

    /// The last turn before the entity is put away, idle or over the budget. What it begins by
    /// [`Cx::run`] is waited for.
    fn on_passivate(&mut self, _cx: &mut Cx<'_, Self>) {}

    /// The last turn before the entity stops in good order; there is none behind a fault. What it
    /// begins by [`Cx::run`] is waited for.
    fn on_stop(&mut self, _cx: &mut Cx<'_, Self>) {}

    /// Names every message that the type handles. Runs once, when a node is built.
    fn register(table: &mut Registration<'_, Self>);
}

/// A value that is sent to an entity, and the type of the answer.
pub trait Message: Send + Sized + 'static {
    /// What the handler answers; `()` where there is nothing to say.
    type Reply: Send + Sized + 'static;

    /// How often the message is tried before it is put aside as poison: a message that makes its
    /// entity fail is tried again after the restart, before all others that wait, as long as it has
    /// [copies](Self::duplicate). One that is tried once is not tried again.
    const TRIES: u32 = 1;

    /// The message once more, for the next try. Called before each try where
    /// [`TRIES`](Self::TRIES) is more than 1.
    fn duplicate(&self) -> Option<Self> {
        None
    }
}

/// The turn that an entity makes of one message type.
pub trait Handler<M: Message>: Entity {
    /// `M::Reply` for an answer at the end of the turn, [`Later<M::Reply>`](Later) for one that
    /// follows in another turn.
    type Answer: Answer<M::Reply>;

    /// Whether the turn only reads: [`read`](Self::read) is called instead of
    /// [`handle`](Self::handle), also beside async reads of the entity.
    const READ: bool = false;

    /// Handles `message` to completion. One turn at a time per entity.
    fn handle(&mut self, message: M, cx: &mut Cx<'_, Self>) -> Self::Answer;

    /// Handles `message` without changing the entity.
    ///
    /// # Panics
    /// Where it is not written and [`READ`](Self::READ) is set; the turn fails.
    fn read(&self, message: M, cx: &mut Cx<'_, Self>) -> Self::Answer {
        let _ = (message, cx);
        panic!("a message that only reads needs `Handler::read`")
    }
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

/// The answer of a handler that may fail: the reply, or, behind [`Cx::fail`], none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallible<R> {
    /// The reply.
    Reply(R),
    /// The turn is a fault; the asker is told so.
    Failed,
}

impl<R> Answer<R> for Fallible<R> {
    #[inline(always)]
    fn into_reply(self) -> Option<R> {
        match self {
            Self::Reply(reply) => Some(reply),
            Self::Failed => None,
        }
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
