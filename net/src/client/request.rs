//! A message on its way to a node: told, or asked as a future or by waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coreside_shard::{AskError, Decode, Encode, Full, Handler, Key, Message};

use super::Client;
use super::connection::{Connection, Pending, Unsent};
use super::slot::Slot;
use crate::native::frame::Code;

/// Where the answer to a message is left.
type Answer<M> = Slot<Result<<M as Message>::Reply, AskError>>;

/// A message that is about to be told or asked.
///
/// It is a future of the reply, on any executor: nothing is sent before it is first polled. Or
/// [`wait`](Self::wait) for the reply on the current thread, or [`try_tell`](Self::try_tell) the
/// message.
///
/// # Delivery
/// In order per client and entity while the connections hold; at most once. The future always ends:
/// with the reply, or with an error that says whether the work may have been done.
///
/// # Cost
/// Two heap allocations; a system call unless another request is being sent just now, which takes
/// this one along.
#[must_use = "nothing is sent before it is awaited, waited for or told"]
pub struct ClientRequest<E: Handler<M>, M: Message> {
    client: Client,
    number: u16,
    key: E::Key,
    message: Option<M>,
    within: Duration,
    slot: Option<Arc<Answer<M>>>,
}

impl<E: Handler<M>, M: Message> ClientRequest<E, M> {
    pub(super) fn new(client: Client, number: u16, key: E::Key, message: M) -> Self {
        let within = client.common().config.ask_timeout;
        Self { client, number, key, message: Some(message), within, slot: None }
    }

    /// Ends the wait for the reply after `limit`. The time that is left travels with the message.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }
}

impl<E: Handler<M>, M: Message<Reply: Decode> + Encode> ClientRequest<E, M> {
    /// Sends the message and expects no answer.
    ///
    /// # Errors
    /// [`Full`] with the message inside when there is no connection, or too much waits to be sent.
    pub fn try_tell(mut self) -> Result<(), Full<M>> {
        let Some(message) = self.message.take() else { return Ok(()) };
        let (number, key) = (self.number, self.key.to_words());
        let tell = |connection: &Connection| connection.tell(number, key, &message);
        match self.client.lanes::<E>(self.key).map(tell).find(|sent| *sent != Err(Unsent::Down)) {
            Some(Ok(())) => Ok(()),
            _ => Err(Full(message)),
        }
    }

    /// Sends the message and blocks the current thread until the answer is there.
    ///
    /// # Errors
    /// Why there is no reply.
    pub fn wait(mut self) -> Result<M::Reply, AskError> {
        match self.send() {
            Some(slot) => slot.wait(),
            None => Err(AskError::NotSent),
        }
    }

    fn send(&mut self) -> Option<Arc<Answer<M>>> {
        let message = self.message.take()?;
        let slot = Slot::new();
        let mut waiting: Box<dyn Pending> = Box::new(Waiting { slot: Arc::clone(&slot) });
        let key = self.key.to_words();
        for connection in self.client.lanes::<E>(self.key) {
            match connection.ask(self.number, key, &message, self.within, waiting) {
                Ok(()) => return Some(slot),
                Err((Unsent::Down, back)) => waiting = back,
                Err((Unsent::Full, _)) => return None,
            }
        }
        None
    }
}

impl<E: Handler<M>, M: Message> Unpin for ClientRequest<E, M> {}

impl<E: Handler<M>, M: Message<Reply: Decode> + Encode> Future for ClientRequest<E, M> {
    type Output = Result<M::Reply, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.slot.is_none() {
            self.slot = self.send();
        }
        match &self.slot {
            Some(slot) => slot.poll(cx.waker()),
            None => Poll::Ready(Err(AskError::NotSent)),
        }
    }
}

/// Whoever waits for the reply of an ask.
struct Waiting<R> {
    slot: Arc<Slot<Result<R, AskError>>>,
}

impl<R: Decode + Send> Pending for Waiting<R> {
    fn end(self: Box<Self>, answer: Result<&[u8], Code>) {
        let answer = match answer {
            // What was done is done, though nobody can read what came of it.
            Ok(body) => R::decode(body).map_err(|_| AskError::MaybeExecuted),
            Err(Code::Failed) => Err(AskError::Failed),
            Err(Code::Expired) => Err(AskError::Expired),
            Err(
                Code::NotSent | Code::Full | Code::Invalid | Code::Unknown | Code::Unconvertible,
            ) => Err(AskError::NotSent),
            Err(_) => Err(AskError::MaybeExecuted),
        };
        self.slot.fill(answer);
    }
}
