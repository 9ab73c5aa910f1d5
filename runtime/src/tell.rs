//! Telling from threads outside, with patience: what finds no room waits for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use coreside_shard::{Full, Handler, Message, Refused, Shard};

use crate::handle::{InLine, Request};
use crate::ingress::{Job, Notice, Ran, Waiting};

/// The node is stopping and takes no messages any more; the message comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stopped<M>(pub M);

impl<M> fmt::Debug for Stopped<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopped(..)")
    }
}

impl<M> fmt::Display for Stopped<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node is stopping and takes no messages any more")
    }
}

impl<M> std::error::Error for Stopped<M> {}

/// A message on its way into a node: made by [`Request::tell`].
///
/// It is a future on any executor, or [`wait`](Self::wait)s on the current thread.
#[must_use = "nothing is sent before it is awaited or waited for"]
pub struct Tell<E: Handler<M>, M: Message>(Stage<E, M>);

enum Stage<E: Handler<M>, M: Message> {
    Begun(Request<E, M>),
    Waiting {
        slot: Arc<Slot<M>>,
        /// Gives the place in the line up when the future is dropped.
        _in_line: InLine,
    },
    Ended,
}

impl<E: Handler<M>, M: Message> Tell<E, M> {
    pub(crate) fn new(request: Request<E, M>) -> Self {
        Self(Stage::Begun(request))
    }

    /// Blocks the current thread until the message is taken in. Not for shards.
    ///
    /// # Errors
    /// [`Stopped`] with the message inside when the node is stopping.
    pub fn wait(mut self) -> Result<(), Stopped<M>> {
        if let Some(outcome) = self.begin() {
            return outcome;
        }
        match &self.0 {
            Stage::Waiting { slot, .. } => slot.wait(),
            Stage::Begun(_) | Stage::Ended => Ok(()),
        }
    }

    /// Sends the message where there is room; otherwise joins the line.
    fn begin(&mut self) -> Option<Result<(), Stopped<M>>> {
        let Stage::Begun(request) = std::mem::replace(&mut self.0, Stage::Ended) else {
            return Some(Ok(()));
        };
        let (request, message) = match request.try_send() {
            Ok(()) => return Some(Ok(())),
            Err((_, message, Refused::Closed)) => return Some(Err(Stopped(message))),
            Err((request, message, Refused::Full)) => (request, message),
        };
        let (key, ingress) = (request.key(), request.ingress());
        let slot = Slot::new(message);
        let (of_job, notice) = (Arc::clone(&slot), Arc::clone(&slot));
        let job: Job =
            Box::new(move |shard| of_job.send(|message| tell::<E, M>(shard, key, message)));
        let waiting = Waiting { job, deadline_ns: u64::MAX, notice: Some(notice) };
        let Some(number) = ingress.wait(waiting) else {
            return slot.take().map(|message| Err(Stopped(message)));
        };
        self.0 = Stage::Waiting { slot, _in_line: request.in_line(number) };
        None
    }
}

/// Sends one message on the shard.
pub(crate) fn tell<E: Handler<M>, M: Message>(
    shard: &mut Shard,
    key: E::Key,
    message: M,
) -> Result<(), M> {
    shard.tell::<E, M>(key, message).map_err(|Full(message)| message)
}

impl<E: Handler<M>, M: Message> Unpin for Tell<E, M> {}

impl<E: Handler<M>, M: Message> Future for Tell<E, M> {
    type Output = Result<(), Stopped<M>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.0, Stage::Begun(_))
            && let Some(outcome) = self.begin()
        {
            return Poll::Ready(outcome);
        }
        let Stage::Waiting { slot, .. } = &self.0 else { return Poll::Ready(Ok(())) };
        let outcome = slot.poll(cx.waker());
        if outcome.is_ready() {
            self.0 = Stage::Ended;
        }
        outcome
    }
}

impl<E: Handler<M>, M: Message> fmt::Debug for Tell<E, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tell").finish_non_exhaustive()
    }
}

/// A message that waits for room: with whoever waits, until the shard runs its job.
struct Slot<M> {
    state: Mutex<State<M>>,
    settled: Condvar,
}

struct State<M> {
    message: Option<M>,
    /// Whether the message was taken in, once that is known.
    taken: Option<bool>,
    waker: Option<Waker>,
}

impl<M> Slot<M> {
    fn new(message: M) -> Arc<Self> {
        let state = State { message: Some(message), taken: None, waker: None };
        Arc::new(Self { state: Mutex::new(state), settled: Condvar::new() })
    }

    /// Nothing that is done under the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<M> {
        self.lock().message.take()
    }

    /// Takes the message and has `send` try; puts it back where there is no room.
    fn send(&self, send: impl FnOnce(M) -> Result<(), M>) -> Ran {
        let Some(message) = self.take() else { return Ran::Done };
        match send(message) {
            Ok(()) => Ran::Done,
            Err(message) => {
                self.lock().message = Some(message);
                Ran::NoRoom
            }
        }
    }

    fn wait(&self) -> Result<(), Stopped<M>> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcome() {
                return outcome;
            }
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<(), Stopped<M>>> {
        let mut state = self.lock();
        if let Some(outcome) = state.outcome() {
            return Poll::Ready(outcome);
        }
        if state.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        Poll::Pending
    }
}

impl<M> State<M> {
    fn outcome(&mut self) -> Option<Result<(), Stopped<M>>> {
        match self.taken? {
            true => Some(Ok(())),
            // Its job never ran, so it is still here.
            false => Some(self.message.take().map_or(Ok(()), |message| Err(Stopped(message)))),
        }
    }
}

impl<M: Send> Notice for Slot<M> {
    fn settle(&self, taken: bool) {
        let mut state = self.lock();
        state.taken = Some(taken);
        let waker = state.waker.take();
        drop(state);
        self.settled.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coreside::{HashKey, entity, handlers};
    use coreside_shard::{Now, Registry, ShardConfig};

    #[entity]
    struct Sink {
        taken: u64,
    }

    #[handlers]
    impl Sink {
        fn take(&mut self, number: u64) -> u64 {
            self.taken += 1;
            number
        }
    }

    #[test]
    fn message_that_finds_no_room_on_its_shard_has_a_second_try() {
        let mut registry = Registry::new();
        registry.entity::<Sink>();
        let config = ShardConfig { queue_words_max: 1, ..ShardConfig::new(HashKey::new(1)) };
        let table = registry.build().expect("one type");
        let mut shard = Shard::alone(&config, table).expect("a shard");
        while tell::<Sink, SinkTake>(&mut shard, 1, SinkTake { number: 1 }).is_ok() {}
        let slot = Slot::new(SinkTake { number: 2 });
        let mut send = || slot.send(|message| tell::<Sink, SinkTake>(&mut shard, 1, message));
        assert_eq!((send(), send()), (Ran::NoRoom, Ran::NoRoom));
        let turns = shard.poll(Now::default(), &mut ()).turns;
        assert!(turns > 0, "the queue was full");
        let mut send = || slot.send(|message| tell::<Sink, SinkTake>(&mut shard, 1, message));
        assert_eq!(send(), Ran::Done);
        assert!(slot.take().is_none(), "the message is on the shard");
    }
}
