//! Telling with patience: what may not be under way yet is waited for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use coreside_shard::{Decode, Encode, Full, Handler, Message};

use super::calls::Pending;
use super::request::ClientRequest;
use super::slot::Slot;
use super::window::Notice;
use crate::native::frame::Code;

/// A message on its way to a node: made by [`ClientRequest::tell`].
///
/// It is a future on any executor, or [`wait`](Self::wait)s on the current thread. It is done when
/// the message has been sent. One that is dropped while it waits is not sent.
#[must_use = "nothing is sent before it is awaited or waited for"]
pub struct ClientTell<E: Handler<M>, M: Message> {
    request: ClientRequest<E, M>,
    sent: Option<Arc<Sent>>,
}

/// Whether a message was sent, once that is known.
struct Sent(Arc<Slot<bool>>);

impl Pending for Sent {
    fn end(&self, answer: Result<&[u8], Code>) -> Option<Waker> {
        self.0.leave(answer.is_ok())
    }
}

impl<E: Handler<M>, M: Message<Reply: Decode> + Encode> ClientTell<E, M> {
    pub(super) fn new(request: ClientRequest<E, M>) -> Self {
        Self { request, sent: None }
    }

    /// Blocks the current thread until the message has been sent.
    ///
    /// # Errors
    /// [`Full`] with the message inside when there is no connection, when it is lost, when too much
    /// waits to be sent, or when the node does not [take](ClientRequest::is_known) this message.
    pub fn wait(mut self) -> Result<(), Full<M>> {
        if self.begin()? {
            return Ok(());
        }
        let is_sent = self.sent.as_ref().is_none_or(|sent| sent.0.wait());
        self.end(is_sent)
    }

    /// Sends the message, or has it wait; returns whether it was sent.
    fn begin(&mut self) -> Result<bool, Full<M>> {
        let sent = Arc::new(Sent(Slot::new()));
        let notice: Notice = Arc::<Sent>::clone(&sent);
        let is_sent = self.request.send_tell(Some(&notice))?;
        self.sent = Some(sent).filter(|_| !is_sent);
        Ok(is_sent)
    }

    fn end(&mut self, is_sent: bool) -> Result<(), Full<M>> {
        match self.request.take() {
            Some(message) if !is_sent => Err(Full(message)),
            _ => Ok(()),
        }
    }
}

impl<E: Handler<M>, M: Message> Unpin for ClientTell<E, M> {}

impl<E: Handler<M>, M: Message<Reply: Decode> + Encode> Future for ClientTell<E, M> {
    type Output = Result<(), Full<M>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.sent.is_none() && self.begin()? {
            return Poll::Ready(Ok(()));
        }
        match self.sent.as_ref().map(|sent| sent.0.poll(cx.waker())) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(is_sent)) => {
                self.sent = None;
                Poll::Ready(self.end(is_sent))
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<E: Handler<M>, M: Message> fmt::Debug for ClientTell<E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTell").field("waits", &self.sent.is_some()).finish_non_exhaustive()
    }
}
