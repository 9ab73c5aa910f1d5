//! A message on its way to a node: asked as a future or by waiting, or told.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coreside_shard::{AskError, Decode, Encode, Full, Handler, Key, Message};

use super::Client;
use super::calls::Pending;
use super::connection::{Connection, Leaves};
use super::slot::Slot;
use super::state::{Letter, Unsent};
use super::tell::ClientTell;
use super::window::Notice;
use crate::native::frame::Code;

/// Where the answer to a message is left.
type Answer<M> = Slot<Result<<M as Message>::Reply, AskError>>;

/// A message that is about to be told or asked.
///
/// It is a future of the reply, on any executor: nothing is sent before it is first polled. Or
/// [`wait`](Self::wait) for the reply on the current thread, or [`tell`](Self::tell) or
/// [`try_tell`](Self::try_tell) the message.
///
/// While other requests of its connection are under way, it has itself polled once more before it
/// is sent, together with what others have written meanwhile.
///
/// # Delivery
/// In order per client and entity while the connections hold; at most once. The future always ends:
/// with the reply, or with an error that says whether the work may have been done.
///
/// # Waiting
/// The node says how many messages may be under way on a connection, and how many of them for one
/// entity. What goes beyond waits here: until it may be sent, nobody waits for it any more, or its
/// time is up; the error is then [`Expired`](AskError::Expired). So a slow entity has those wait
/// who ask it, and not those who ask others. At most 16 MiB wait on a connection; of what is beyond
/// half of that, an entity gets no more than its share.
///
/// # Cost
/// A heap allocation. A system call when it is the only request under way; those that one pass of
/// an executor makes, and those of several threads at once, share theirs.
#[must_use = "nothing is sent before it is awaited, waited for or told"]
pub struct ClientRequest<E: Handler<M>, M: Message> {
    client: Client,
    number: u16,
    key: E::Key,
    message: Option<M>,
    within: Duration,
    slot: Option<Arc<Answer<M>>>,
    /// The number of its connection.
    lane: usize,
    /// It has been written and waits to be sent, and where in the output.
    waits_at: Option<u64>,
}

impl<E: Handler<M>, M: Message> ClientRequest<E, M> {
    pub(super) fn new(client: Client, number: u16, key: E::Key, message: M) -> Self {
        let within = client.common().config.ask_timeout;
        Self {
            client,
            number,
            key,
            message: Some(message),
            within,
            slot: None,
            lane: 0,
            waits_at: None,
        }
    }

    /// Ends the wait for the reply after `limit`. The time that is left travels with the message.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }
}

impl<E: Handler<M>, M: Message<Reply: Decode> + Encode> ClientRequest<E, M> {
    /// Sends the message and expects no answer. Where the node has not handled what was told it
    /// before, the message waits here until it has.
    ///
    /// # Errors
    /// [`Full`] with the message inside when there is no connection, when too much waits to be
    /// sent, or when the node does not [take](Self::is_known) this message.
    pub fn try_tell(mut self) -> Result<(), Full<M>> {
        self.send_tell(None).map(|_| ())
    }

    /// Sends the message and expects no answer: a future, on any executor, that waits until the
    /// node has handled enough of what was told it before. It is how a sender is slowed by whom it
    /// tells.
    pub fn tell(self) -> ClientTell<E, M> {
        ClientTell::new(self)
    }

    /// Sends the message; returns whether it was sent, and does not wait with `notice`.
    pub(super) fn send_tell(&mut self, notice: Option<&Notice>) -> Result<bool, Full<M>> {
        let Some(message) = self.message.take() else { return Ok(true) };
        let (number, key) = (self.number, self.key.to_words());
        let letter = || Letter { number, key, message: &message };
        let tell = |(_, connection): (usize, &Connection)| {
            connection.tell(letter(), notice.map(Arc::clone))
        };
        let route = self.client.route();
        match route.lanes(self.key).map(tell).find(|sent| *sent != Err(Unsent::Down)) {
            Some(Ok(is_sent)) => {
                // Whoever waits gets it back if it is never sent.
                self.message = Some(message).filter(|_| !is_sent);
                Ok(is_sent)
            }
            _ => Err(Full(message)),
        }
    }

    /// Takes the message back.
    pub(super) fn take(&mut self) -> Option<M> {
        self.message.take()
    }

    /// Sends the message and blocks the current thread until the answer is there.
    ///
    /// # Errors
    /// Why there is no reply.
    pub fn wait(mut self) -> Result<M::Reply, AskError> {
        self.send(Leaves::Now)?.wait()
    }

    /// Whether the node takes this message from this client: it may not know it, or have it for
    /// others only. `None` while there is no connection.
    pub fn is_known(&self) -> Option<bool> {
        let knows = |(_, connection): (usize, &Connection)| connection.knows(self.number);
        self.client.route().lanes(self.key).find_map(knows)
    }

    fn send(&mut self, leaves: Leaves) -> Result<Arc<Answer<M>>, AskError> {
        let message = self.message.take().ok_or(AskError::NotSent)?;
        let slot = Slot::new();
        let (number, key) = (self.number, self.key.to_words());
        for (lane, connection) in self.client.route().lanes(self.key) {
            let letter = Letter { number, key, message: &message };
            let pending = Arc::<Answer<M>>::clone(&slot);
            match connection.ask(letter, self.within, pending, leaves) {
                Ok(waits_at) => {
                    (self.lane, self.waits_at) = (lane, waits_at);
                    return Ok(slot);
                }
                Err(Unsent::Down) => {}
                Err(Unsent::Full) => return Err(AskError::NotSent),
                Err(Unsent::Unknown) => return Err(AskError::NoSuchMessage),
            }
        }
        Err(AskError::NotSent)
    }
}

impl<E: Handler<M>, M: Message> ClientRequest<E, M> {
    /// Sends the message, and those of others, if it still waits to be sent.
    fn flush(&mut self) {
        if let Some(position) = self.waits_at.take() {
            self.client.route().lane(self.lane).flush(position);
        }
    }
}

impl<E: Handler<M>, M: Message> Drop for ClientRequest<E, M> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<E: Handler<M>, M: Message> Unpin for ClientRequest<E, M> {}

impl<E: Handler<M>, M: Message<Reply: Decode> + Encode> Future for ClientRequest<E, M> {
    type Output = Result<M::Reply, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.slot.is_none() {
            match self.send(Leaves::Soon) {
                Ok(slot) => self.slot = Some(slot),
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.waits_at.is_some() {
                // Behind the tasks that are to be polled anyway, whose requests it takes along.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.flush();
        let Some(slot) = &self.slot else { return Poll::Ready(Err(AskError::NotSent)) };
        let answer = slot.poll(cx.waker());
        if answer.is_ready() {
            self.client.route().lane(self.lane).wake_others();
        }
        answer
    }
}

impl<R: Decode + Send> Pending for Slot<Result<R, AskError>> {
    fn end(&self, answer: Result<&[u8], Code>) -> Option<Waker> {
        let answer = match answer {
            // What was done is done, though nobody can read what came of it.
            Ok(body) => R::decode(body).map_err(|_| AskError::MaybeExecuted),
            Err(Code::Unconvertible) => Err(AskError::Unconvertible),
            Err(Code::Unsayable | Code::TooLong) => Err(AskError::Unsayable),
            Err(Code::Failed) => Err(AskError::Failed),
            Err(Code::Expired) => Err(AskError::Expired),
            Err(Code::Unknown) => Err(AskError::NoSuchMessage),
            Err(Code::NotSent | Code::Full | Code::Invalid) => Err(AskError::NotSent),
            Err(_) => Err(AskError::MaybeExecuted),
        };
        self.leave(answer)
    }
}
