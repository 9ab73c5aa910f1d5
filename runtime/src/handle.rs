//! Calling entities from threads that are not shards.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coreside_shard::{
    Address, AskError, Entity, Full, Handler, HashKey, Message, Outside, Placement, Shard, Sweep,
    Table, Via,
};

use crate::group::Pools;
use crate::ingress::{Ingress, Refused};

/// Calls entities of a node from any thread and any async executor. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// What a node's shards and its handles have in common.
pub(crate) struct Shared {
    pub(crate) ingresses: Vec<Ingress>,
    pub(crate) placement: Placement,
    pub(crate) hash_key: HashKey,
    pub(crate) table: Arc<Table>,
    pub(crate) ask_timeout: Duration,
    pub(crate) board: Vec<Counts>,
    pub(crate) pools: Pools,
}

/// What one shard shows of itself; written by it now and then, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) entities: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) parks: AtomicU64,
}

/// What a node has counted, over all shards. A little behind what the shards know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Entities in memory.
    pub entities: u64,
    /// Turns run.
    pub turns: u64,
    /// Turns that panicked.
    pub faults: u64,
    /// Client connections that are open.
    pub connections: u64,
    /// Times that a shard went to sleep.
    pub parks: u64,
}

impl Handle {
    /// The way to the entity `key` of type `E`.
    pub fn entity<E: Entity>(&self, key: E::Key) -> E::Ref<Self> {
        E::Ref::from(Address::new(key, self.clone()))
    }

    /// Passes over all entities `E` of the node and returns the total. Waits for it.
    ///
    /// # Errors
    /// [`AskError`] when the node stops first.
    ///
    /// # Panics
    /// When `S` is not registered with this node.
    pub fn sweep<E: Entity, S: Sweep<E>>(&self) -> Result<S, AskError> {
        assert!(
            self.shared.table.has_sweep::<E, S>(),
            "sweep {} is not registered for entity type {}",
            std::any::type_name::<S>(),
            E::NAME
        );
        let slot = Slot::new();
        let promise = Promise(Some(Arc::clone(&slot)));
        let ingress = &self.shared.ingresses[0];
        let permit = ingress.permit().map_err(|_| AskError::NotSent)?;
        permit.push(Box::new(move |shard: &mut Shard| {
            // On a refusal the promise is dropped with the closure, which says so.
            let _ = shard.sweep::<E, S, _>(move |total, _| promise.keep(total));
        }));
        slot.wait()
    }

    /// The secret under which this node hashes keys, to make a [`Name`](crate::Name) of a name.
    pub fn hash_key(&self) -> &HashKey {
        &self.shared.hash_key
    }

    /// What was counted so far.
    pub fn stats(&self) -> NodeStats {
        let sum = |count: fn(&Counts) -> &AtomicU64| {
            self.shared.board.iter().map(|board| count(board).load(Ordering::Relaxed)).sum()
        };
        NodeStats {
            entities: sum(|counts| &counts.entities),
            turns: sum(|counts| &counts.turns),
            faults: sum(|counts| &counts.faults),
            connections: sum(|counts| &counts.connections),
            parks: sum(|counts| &counts.parks),
        }
    }

    fn ingress<E: Entity>(&self, key: E::Key) -> &Ingress {
        let shard = self.shared.placement.shard(self.shared.hash_key.hash(key));
        &self.shared.ingresses[usize::from(shard)]
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("shards", &self.shared.ingresses.len())
            .finish_non_exhaustive()
    }
}

impl Via for Handle {
    type Call<E: Handler<M>, M: Message> = Request<E, M>;

    /// # Panics
    /// When `E` is not registered with this node.
    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> Request<E, M> {
        assert!(
            self.shared.table.has_message::<E, M>(),
            "entity type {} is not registered: add `.entity::<{}>()` where the node is built",
            E::NAME,
            std::any::type_name::<E>()
        );
        let within = self.shared.ask_timeout;
        Request { handle: self, key, message: Some(message), within, slot: None }
    }
}

/// A message from outside, about to be told or asked.
///
/// It is a future of the reply, on any executor: nothing is sent before it is first polled. Or
/// [`wait`](Self::wait) for the reply on the current thread, or [`try_tell`](Self::try_tell).
///
/// # Delivery
/// In order per thread and entity; at most once. The future always ends: with the reply, or with an
/// error that says whether the work may have been done.
///
/// # Cost
/// Two heap allocations, and a system call if the shard sleeps.
#[must_use = "nothing is sent before it is awaited, waited for or told"]
pub struct Request<E: Handler<M>, M: Message> {
    handle: Handle,
    key: E::Key,
    message: Option<M>,
    within: Duration,
    slot: Option<Arc<Slot<M::Reply>>>,
}

impl<E: Handler<M>, M: Message> Request<E, M> {
    /// Ends the wait for the reply after `limit`. The shard keeps the time, to about 2 ms.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Sends the message and expects no answer.
    ///
    /// # Errors
    /// [`Full`] with the message inside when the shard's ingress is at its bound or the node is
    /// stopping.
    pub fn try_tell(self) -> Result<(), Full<M>> {
        let Self { handle, key, message: Some(message), .. } = self else { return Ok(()) };
        match handle.ingress::<E>(key).permit() {
            Ok(permit) => {
                permit.push(Box::new(move |shard: &mut Shard| {
                    // The shard's queue is far longer than its ingress; what finds it full even so
                    // is counted there.
                    if shard.tell::<E, M>(key, message).is_err() {
                        shard.count_lost();
                    }
                }));
                Ok(())
            }
            Err(_) => Err(Full(message)),
        }
    }

    /// Sends the message and blocks the current thread until the answer is there. Not for shards.
    ///
    /// # Errors
    /// Why there is no reply.
    pub fn wait(mut self) -> Result<M::Reply, AskError> {
        match self.send() {
            Ok(slot) => slot.wait(),
            Err(_) => Err(AskError::NotSent),
        }
    }

    fn send(&mut self) -> Result<Arc<Slot<M::Reply>>, Refused> {
        let ingress = self.handle.ingress::<E>(self.key);
        let Some(message) = self.message.take() else { return Err(Refused::Closed) };
        let permit = ingress.permit()?;
        let slot = Slot::new();
        let (promise, key, within) = (Promise(Some(Arc::clone(&slot))), self.key, self.within);
        permit.push(Box::new(move |shard: &mut Shard| {
            let within_ns = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
            let deadline_ns = shard.now().monotonic_ns.saturating_add(within_ns);
            let then = move |answer, _: &mut dyn Outside| promise.keep(answer);
            // On a refusal the promise is dropped with the closure, which says `NotSent`.
            let _ = shard.ask::<E, M, _>(key, message, deadline_ns, then);
        }));
        Ok(slot)
    }
}

impl<E: Handler<M>, M: Message> Unpin for Request<E, M> {}

impl<E: Handler<M>, M: Message> Future for Request<E, M> {
    type Output = Result<M::Reply, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.slot.is_none() {
            match self.send() {
                Ok(slot) => self.slot = Some(slot),
                Err(_) => return Poll::Ready(Err(AskError::NotSent)),
            }
        }
        match &self.slot {
            Some(slot) => slot.poll(cx.waker()),
            None => Poll::Pending,
        }
    }
}

/// Where an answer is left for whoever waits.
struct Slot<R> {
    state: Mutex<State<R>>,
    arrived: Condvar,
}

struct State<R> {
    answer: Option<Result<R, AskError>>,
    waker: Option<Waker>,
}

impl<R> Slot<R> {
    fn new() -> Arc<Self> {
        let state = Mutex::new(State { answer: None, waker: None });
        Arc::new(Self { state, arrived: Condvar::new() })
    }

    /// Nothing that is done under the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, answer: Result<R, AskError>) {
        let mut state = self.lock();
        state.answer = Some(answer);
        let waker = state.waker.take();
        drop(state);
        self.arrived.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wait(&self) -> Result<R, AskError> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<R, AskError>> {
        let mut state = self.lock();
        if let Some(answer) = state.answer.take() {
            return Poll::Ready(answer);
        }
        if state.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        Poll::Pending
    }
}

/// The duty to fill a slot. Dropped unkept, it says that nothing was sent.
struct Promise<R>(Option<Arc<Slot<R>>>);

impl<R> Promise<R> {
    fn keep(mut self, answer: Result<R, AskError>) {
        if let Some(slot) = self.0.take() {
            slot.fill(answer);
        }
    }
}

impl<R> Drop for Promise<R> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.fill(Err(AskError::NotSent));
        }
    }
}
