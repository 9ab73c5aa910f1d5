//! Calls: a message that a handler is about to send.

use std::time::Duration;

use crate::core::Full;
use crate::cx::{Cx, nanoseconds};
use crate::entity::{Entity, Handler, Message, Via};
use crate::pending::{AskedBy, Resume};
use crate::reply::AskError;
use crate::turn::{Asker, AskerWithin, resume, resume_within};

/// A message that a handler is about to send.
#[must_use = "nothing is sent before `try_tell` or `ask`"]
pub struct Call<'c, 'a, S: Entity, E: Entity, M> {
    cx: &'c mut Cx<'a, S>,
    key: E::Key,
    message: M,
    /// `u64::MAX` stands for no limit of its own.
    within_ns: u64,
}

impl<'c, 'a, S: Entity> Via for &'c mut Cx<'a, S> {
    type Call<E: Handler<M>, M: Message> = Call<'c, 'a, S, E, M>;

    #[inline(always)]
    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> Self::Call<E, M> {
        Call { cx: self, key, message, within_ns: u64::MAX }
    }
}

impl<S: Entity, E: Handler<M>, M: Message> Call<'_, '_, S, E, M> {
    /// Ends the wait for the answer after `limit`. Where somebody waits for the answer to the
    /// message that is being handled, that deadline ends it too, whichever comes first; what
    /// follows the answer has the time that is left until the latter. Where nobody waits, `limit`
    /// takes the place of the node's timeout for asks, and may be longer.
    #[inline]
    pub fn within(mut self, limit: Duration) -> Self {
        self.within_ns = nanoseconds(limit);
        self
    }

    /// Sends the message and expects no answer.
    ///
    /// # Delivery
    /// In the order sent, exactly once while the entity lives.
    ///
    /// # Errors
    /// [`Full`] with the message inside when the queue on the way is at its bound.
    ///
    /// # Cost
    /// A few nanoseconds: the message is moved into the run queue or the ring. No allocation
    /// for messages up to [`INLINE_BYTES_MAX`](crate::INLINE_BYTES_MAX) bytes, one for larger ones.
    #[inline(always)]
    pub fn try_tell(self) -> Result<(), Full<M>> {
        self.cx.core.tell::<E, M>(self.key, self.message)
    }

    /// Sends the message; the answer comes as a turn of its own, in which `then` runs with this
    /// entity. If the entity is gone by then, `then` is dropped and does not run.
    ///
    /// # Delivery
    /// `then` gets the reply, or an error that says whether the work may have been done: always
    /// one of the two, at the latest when the deadline has passed: that of the message that is
    /// being handled, if somebody waits for its answer, else the node's for asks.
    ///
    /// # Errors
    /// [`NotAsked`] with the message and `then` inside when a bound is reached.
    ///
    /// # Cost
    /// Two records. No allocation while `then` captures at most 24 bytes, 16 with
    /// [`within`](Self::within).
    #[inline(always)]
    pub fn ask<F>(self, then: F) -> Result<(), NotAsked<M, F>>
    where
        F: FnOnce(&mut S, Result<M::Reply, AskError>, &mut Cx<'_, S>) + 'static,
    {
        let by = AskedBy::entity(self.cx.kind());
        let Cx { core, slot, generation, deadline_ns: deadline_of_turn, .. } = self.cx;
        let asker = Asker { slot: *slot, generation: *generation, then };
        let deadline_ns = core.deadline_of_ask(*deadline_of_turn, self.within_ns);
        // Known when this is compiled, where nothing but `within` comes between.
        if self.within_ns != u64::MAX {
            let asker = AskerWithin { asker, deadline_ns: *deadline_of_turn };
            let resume = (resume_within::<S, M::Reply, F> as Resume, by);
            return core
                .ask::<E, M, _>(self.key, self.message, asker, resume, deadline_ns)
                .map_err(|(message, asker)| NotAsked { message, then: asker.asker.then });
        }
        let resume = (resume::<S, M::Reply, F> as Resume, by);
        core.ask::<E, M, _>(self.key, self.message, asker, resume, deadline_ns)
            .map_err(|(message, asker)| NotAsked { message, then: asker.then })
    }
}

/// An ask that was not sent because a bound was reached.
///
/// # Examples
/// To treat it as an answer that never came, call what was to get the answer:
/// `(refused.then)(self, Err(AskError::NotSent), cx)`.
#[derive(Clone, Copy)]
pub struct NotAsked<M, F> {
    /// The message.
    pub message: M,
    /// What was to get the answer.
    pub then: F,
}

impl<M, F> std::fmt::Debug for NotAsked<M, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NotAsked(a queue on the way to the entity is full)")
    }
}
