//! Requests: what comes to a shard from outside of any entity.
#![expect(unsafe_code, reason = "answers are typed again where they arrive")]

use std::mem::needs_drop;
use std::sync::Arc;

use crate::commands::CommandId;
use crate::core::{Core, Full};
use crate::entity::{Handler, Message};
use crate::fault::Current;
use crate::pending::{AskedBy, Captured, Outcome, Outside, Resume, Taken, Ticket};
use crate::record::Payload;
use crate::reply::AskError;
use crate::shard::Shard;
use crate::value::{Args, ArgumentError, ToValue};
use crate::wire::Encode;

/// Why a command was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// Its key or arguments are not what it takes.
    Argument(ArgumentError),
    /// A queue on the way is at its bound.
    Full,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument(error) => error.fmt(f),
            Self::Full => f.write_str("BUSY the node is at its bound; try again later"),
        }
    }
}

impl Shard {
    /// Sends one message from outside of the shard and expects no answer.
    ///
    /// # Errors
    /// [`Full`] with the message inside when a queue on the way is at its bound.
    pub fn tell<E: Handler<M>, M: Message>(
        &mut self,
        key: E::Key,
        message: M,
    ) -> Result<(), Full<M>> {
        self.core.tell::<E, M>(key, message)
    }

    /// Sends one message from outside of the shard; `then` runs with the answer, once, at the
    /// latest a little after `deadline_ns` of the shard's clock.
    ///
    /// # Errors
    /// [`Full`] with the message inside when a bound is reached; `then` is dropped.
    #[inline]
    pub fn ask<E, M, F>(
        &mut self,
        key: E::Key,
        message: M,
        deadline_ns: u64,
        then: F,
    ) -> Result<(), Full<M>>
    where
        E: Handler<M>,
        M: Message,
        F: FnOnce(Result<M::Reply, AskError>, &mut dyn Outside) + 'static,
    {
        self.ask_until::<E, M, F>(key, message, (deadline_ns, deadline_ns), then)
    }

    /// Sends one message from outside of the shard; `then` runs once it has been handled or given
    /// up, and is handed what became of it. The message itself has no deadline: it has its turn
    /// however late. `deadline_ns` is when `then` runs at the latest, or a little after.
    ///
    /// # Errors
    /// [`Full`] with the message inside when a bound is reached; `then` is dropped.
    #[inline]
    pub fn tell_noted<E, M, F>(
        &mut self,
        key: E::Key,
        message: M,
        deadline_ns: u64,
        then: F,
    ) -> Result<(), Full<M>>
    where
        E: Handler<M>,
        M: Message,
        F: FnOnce(Result<M::Reply, AskError>, &mut dyn Outside) + 'static,
    {
        self.ask_until::<E, M, F>(key, message, (u64::MAX, deadline_ns), then)
    }

    /// One deadline is the message's, one the answer's.
    #[inline]
    fn ask_until<E, M, F>(
        &mut self,
        key: E::Key,
        message: M,
        deadlines: (u64, u64),
        then: F,
    ) -> Result<(), Full<M>>
    where
        E: Handler<M>,
        M: Message,
        F: FnOnce(Result<M::Reply, AskError>, &mut dyn Outside) + 'static,
    {
        let resume = (answer_at_once::<M::Reply, F> as Resume, AskedBy::OUTSIDE);
        let asked = self.core.ask_until::<E, M, F>(key, message, then, resume, deadlines);
        asked.map_err(|(message, _)| Full(message))
    }

    /// Sends one message whose answer goes to [`Outside::answer_wire`] under `ticket`.
    ///
    /// # Errors
    /// [`Full`] when a bound is reached; there is no answer then.
    #[inline(always)]
    pub(crate) fn ask_wire<E, M>(
        &mut self,
        key: E::Key,
        message: M,
        deadline_ns: u64,
        ticket: Ticket,
    ) -> Result<(), Full<M>>
    where
        E: Handler<M>,
        M: Message<Reply: Encode>,
    {
        let resume = (answer_wire::<M::Reply> as Resume, AskedBy::OUTSIDE);
        let asked = self.core.ask::<E, M, Ticket>(key, message, ticket, resume, deadline_ns);
        asked.map_err(|(message, _)| Full(message))
    }

    /// Sends one message whose answer goes to [`Outside::answer`] under `ticket`.
    ///
    /// # Errors
    /// [`CallError::Full`] when a bound is reached; there is no answer then.
    pub fn ask_outside<E: Handler<M>, M: Message>(
        &mut self,
        key: E::Key,
        message: M,
        ticket: Ticket,
    ) -> Result<(), CallError>
    where
        M::Reply: ToValue,
    {
        let deadline_ns = self.core.ask_deadline_ns();
        let then = move |answer: Result<M::Reply, AskError>, outside: &mut dyn Outside| match answer
        {
            Ok(reply) => outside.answer(ticket, Ok(&reply)),
            Err(error) => outside.answer(ticket, Err(error)),
        };
        self.ask::<E, M, _>(key, message, deadline_ns, then).map_err(|_| CallError::Full)
    }

    /// Sends one command of one key; the answer goes to [`Outside::answer`] under `ticket`, in a
    /// later poll.
    ///
    /// # Errors
    /// What is wrong with key or arguments, or that a bound is reached; there is no answer then.
    pub fn ask_command(
        &mut self,
        id: CommandId,
        key: &[u8],
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        let table = Arc::as_ptr(&self.table);
        // SAFETY: the table lives as long as the shard, which does not replace it; a command sends
        // a message and nothing else.
        let commands = unsafe { &(*table).commands };
        let mut outcome = Err(CallError::Argument(ArgumentError::Message(
            "ERR the arguments could not be read: the command's own code failed",
        )));
        // Reading arguments may be the service's own code.
        self.attempt(|shard| outcome = (commands.row(id).ask)(shard, key, args, ticket));
        outcome
    }

    /// Starts the sweep that a command without key stands for; the total goes to
    /// [`Outside::answer`].
    ///
    /// # Errors
    /// As for [`ask_command`](Self::ask_command).
    pub fn ask_sweep(
        &mut self,
        id: CommandId,
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        self.ask_command(id, &[], args, ticket)
    }

    /// Ends every ask that waits here with `error`: the shard is about to stop. Those that entities
    /// make because of it are left to its drop.
    pub fn end_asks(&mut self, error: AskError, outside: &mut dyn Outside) {
        for number in 0..self.core.pending.places() {
            let Some(taken) = self.core.pending.take_at(number) else { continue };
            let error = error.clone();
            self.attempt(|shard| shard.resume(taken, Outcome::Error(error), outside));
        }
    }
}

impl Core {
    /// Like [`ask_until`](Self::ask_until), with one deadline for both.
    #[inline(always)]
    pub(crate) fn ask<E: Handler<M>, M: Message, F>(
        &mut self,
        key: E::Key,
        message: M,
        continuation: F,
        (resume, by): (Resume, AskedBy),
        deadline_ns: u64,
    ) -> Result<(), (M, F)> {
        let deadlines = (deadline_ns, deadline_ns);
        self.ask_until::<E, M, F>(key, message, continuation, (resume, by), deadlines)
    }
}

/// Runs a continuation that touches no entity.
///
/// # Safety
/// An `F` was captured, which is given up; a value in `outcome` is an `R`.
unsafe fn answer_at_once<R, F>(
    taken: &mut Taken,
    outcome: Outcome,
    shard: &mut Shard,
    outside: &mut dyn Outside,
) where
    F: FnOnce(Result<R, AskError>, &mut dyn Outside),
{
    // SAFETY: the caller's contract.
    let then = unsafe { Captured::<F>::read(taken.captured.as_ptr()) };
    shard.current = Current::ANSWERING;
    match outcome {
        // SAFETY: the caller's contract.
        Outcome::Value(at) => then(Ok(unsafe { Payload::<R>::read(at) }), outside),
        Outcome::Error(error) => then(Err(error), outside),
        Outcome::Forget => drop(then),
    }
    shard.current.clear();
}

/// Passes the answer to an ask from the network on, from where it stands.
///
/// # Safety
/// A [`Ticket`] was captured; a value in `outcome` is an `R`, which is given up.
unsafe fn answer_wire<R: Encode>(
    taken: &mut Taken,
    outcome: Outcome,
    shard: &mut Shard,
    outside: &mut dyn Outside,
) {
    // SAFETY: the caller's contract.
    let ticket = unsafe { Captured::<Ticket>::read(taken.captured.as_ptr()) };
    shard.current = Current::ANSWERING;
    match outcome {
        Outcome::Value(at) if needs_drop::<R>() || !Payload::<R>::INLINE => {
            // SAFETY: the caller's contract.
            let reply = unsafe { Payload::<R>::read(at) };
            outside.answer_wire(ticket, Ok(&reply));
        }
        Outcome::Value(at) => {
            // SAFETY: the caller's contract. Nothing is left to be dropped.
            let reply = unsafe { Payload::<R>::peek(at) };
            outside.answer_wire(ticket, Ok(reply));
        }
        Outcome::Error(error) => outside.answer_wire(ticket, Err(error)),
        Outcome::Forget => {}
    }
    shard.current.clear();
}

/// [`answer_at_once`] for a closure whose type has no name.
pub(crate) fn answer_at_once_of<R, F>(_: &F) -> Resume
where
    F: FnOnce(Result<R, AskError>, &mut dyn Outside),
{
    answer_at_once::<R, F>
}
