//! Calling entities from threads that are not shards.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use coreside_net::DriverKind;
use coreside_shard::{
    Address, AskError, Entity, Full, Handler, HashKey, Message, Outside, Placement, Refused, Shard,
    Sweep, Table, Via,
};

use crate::arrivals::Arrivals;
use crate::group::Pools;
use crate::ingress::{Ingress, Job, Ran, Waiting, once};
use crate::stall::Sightings;
use crate::tell::{Tell, tell};

/// Calls entities of a node from any thread and any async executor. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// What a node's shards and its handles have in common.
pub(crate) struct Shared {
    pub(crate) ingresses: Vec<Ingress>,
    /// By shard: connections that go on there.
    pub(crate) arrivals: Vec<Arrivals>,
    pub(crate) placement: Placement,
    pub(crate) hash_key: HashKey,
    pub(crate) driver: DriverKind,
    pub(crate) table: Arc<Table>,
    pub(crate) ask_timeout: Duration,
    pub(crate) board: Vec<Counts>,
    /// What the shards' watches see; `None` where nothing is watched.
    pub(crate) sightings: Option<Arc<Sightings>>,
    pub(crate) pools: Pools,
}

/// What one shard shows of itself; written by it now and then, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) entities: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) passivations: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    pub(crate) copies_refused: AtomicU64,
    pub(crate) between_shards: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) parks: AtomicU64,
    pub(crate) busy_ns: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) system_calls: AtomicU64,
    pub(crate) sends: AtomicU64,
    pub(crate) sends_zero_copy: AtomicU64,
    pub(crate) sends_copied: AtomicU64,
    pub(crate) output_bytes: AtomicU64,
    pub(crate) message_bytes: AtomicU64,
    pub(crate) leases: AtomicU64,
    pub(crate) leased: AtomicU64,
}

/// What a node has counted, over all shards. A little behind what the shards know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Entities in memory.
    pub entities: u64,
    /// Turns run.
    pub turns: u64,
    /// Turns that failed, and panics in other code of the service's.
    pub faults: u64,
    /// States made anew after a fault.
    pub restarts: u64,
    /// Entities put away.
    pub passivations: u64,
    /// Messages that were accepted and not handled; the last of them are
    /// [kept](Handle::dead_letters), each with its reason.
    pub dead_letters: u64,
    /// Copies of published messages that a subscriber did not get because a queue on the way was
    /// full.
    pub copies_refused: u64,
    /// Messages and answers that went from one shard to another.
    pub between_shards: u64,
    /// Client connections that are open.
    pub connections: u64,
    /// Times that a shard went to sleep.
    pub parks: u64,
    /// Nanoseconds in which shards had something to do, summed over all of them. A shard that spins
    /// takes its whole core; this says how much of that it needed.
    pub busy_ns: u64,
    /// Turns that kept their shard for too long (see [`StallConfig`](crate::StallConfig)).
    pub stalls: u64,
    /// What the shards run on, all of them.
    pub driver: DriverKind,
    /// Requests of clients.
    pub requests: u64,
    /// System calls on behalf of clients' connections. Each sleep takes a few more.
    pub system_calls: u64,
    /// Outputs sent to clients.
    pub sends: u64,
    /// Of those, without a copy (see [`ZeroCopy`](crate::ZeroCopy)).
    pub sends_zero_copy: u64,
    /// Of those in turn, copied by the kernel all the same.
    pub sends_copied: u64,
    /// Bytes of output that clients have not read just now.
    pub output_bytes: u64,
    /// Bytes of clients' messages that are not handled just now.
    pub message_bytes: u64,
    /// Receive buffers that were kept for messages that are looked at where they lie.
    pub leases: u64,
    /// Those that are just now. Many for long are messages that wait for busy entities; beyond a
    /// bound, what else comes is copied.
    pub leased: u64,
}

impl Handle {
    /// The way to the entity `key` of type `E`.
    pub fn entity<E: Entity>(&self, key: E::Key) -> E::Ref<Self> {
        E::Ref::from(Address::new(key, self.clone()))
    }

    /// Passes over all entities `E` of the node and returns the total. Waits for it, so it is not
    /// for shards' threads.
    ///
    /// # Errors
    /// [`AskError`] when the node stops first; [`AskError::NotSent`] also when the first shard's
    /// ingress is at its bound.
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
        permit.push(once(move |shard: &mut Shard| {
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
            restarts: sum(|counts| &counts.restarts),
            passivations: sum(|counts| &counts.passivations),
            dead_letters: sum(|counts| &counts.dead_letters),
            copies_refused: sum(|counts| &counts.copies_refused),
            between_shards: sum(|counts| &counts.between_shards),
            connections: sum(|counts| &counts.connections),
            parks: sum(|counts| &counts.parks),
            busy_ns: sum(|counts| &counts.busy_ns),
            stalls: self.shared.sightings.as_ref().map_or(0, |sightings| sightings.stalls()),
            driver: self.shared.driver,
            requests: sum(|counts| &counts.requests),
            system_calls: sum(|counts| &counts.system_calls),
            sends: sum(|counts| &counts.sends),
            sends_zero_copy: sum(|counts| &counts.sends_zero_copy),
            sends_copied: sum(|counts| &counts.sends_copied),
            output_bytes: sum(|counts| &counts.output_bytes),
            message_bytes: sum(|counts| &counts.message_bytes),
            leases: sum(|counts| &counts.leases),
            leased: sum(|counts| &counts.leased),
        }
    }

    fn shard<E: Entity>(&self, key: E::Key) -> usize {
        usize::from(self.shared.placement.shard(self.shared.hash_key.hash(key)))
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
        let (message, waits) = (Some(message), false);
        Request { handle: self, key, message, within, waits, slot: None, in_line: None }
    }
}

/// A message from outside, about to be told or asked.
///
/// It is a future of the reply, on any executor: nothing is sent before it is first polled. Or
/// [`wait`](Self::wait) for the reply on the current thread, [`tell`](Self::tell) the message, or
/// [`try_tell`](Self::try_tell).
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
    /// Whether it waits for room in the ingress.
    waits: bool,
    slot: Option<Arc<Slot<M::Reply>>>,
    in_line: Option<InLine>,
}

impl<E: Handler<M>, M: Message> Request<E, M> {
    /// Ends the wait for the reply after `limit`. The shard keeps the time, to about 2 ms.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// Where the shard's ingress is at its bound, waits for room as part of the time for the reply,
    /// behind those who wait already (without this, the ask ends at once). An ask that finds no
    /// room in time ends with [`AskError::NotSent`]; one that is dropped while it waits is not
    /// sent.
    pub fn wait_for_room(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Sends the message and expects no answer. Where the shard's ingress is at its bound, waits
    /// for room: a future on any executor, or [`Tell::wait`].
    ///
    /// # Delivery
    /// In the order in which the futures were first polled, per entity. One that is dropped while
    /// it waits is not sent. Once there is room the message is taken in, whether or not the future
    /// is polled again.
    ///
    /// # Errors
    /// [`Stopped`](crate::Stopped) with the message inside when the node is stopping.
    ///
    /// # Cost
    /// One heap allocation where there is room; two, and the line's lock, where there is none.
    pub fn tell(self) -> Tell<E, M> {
        Tell::new(self)
    }

    /// Sends the message and expects no answer.
    ///
    /// # Errors
    /// [`Full`] with the message inside when the shard's ingress is at its bound, others wait for
    /// room there, or the node is stopping.
    pub fn try_tell(self) -> Result<(), Full<M>> {
        self.try_send().map_err(|(_, message, _)| Full(message))
    }

    /// Sends a tell if there is room. Otherwise gives back what is needed for a second try.
    pub(crate) fn try_send(mut self) -> Result<(), (Self, M, Refused)> {
        let Some(message) = self.message.take() else { return Ok(()) };
        match self.ingress().permit() {
            Ok(permit) => {
                let (key, mut message) = (self.key, Some(message));
                permit.push(Box::new(move |shard: &mut Shard| {
                    let Some(taken) = message.take() else { return Ran::Done };
                    message = tell::<E, M>(shard, key, taken).err();
                    if message.is_none() { Ran::Done } else { Ran::NoRoom }
                }));
                Ok(())
            }
            Err(refused) => Err((self, message, refused)),
        }
    }

    /// Sends the message and blocks the current thread until the answer is there. Not for shards.
    ///
    /// # Errors
    /// Why there is no reply.
    pub fn wait(mut self) -> Result<M::Reply, AskError> {
        let limit = Instant::now().checked_add(self.within);
        let Ok(slot) = self.send() else { return Err(AskError::NotSent) };
        // A limit beyond the clock's end is none: then the place in the line is kept.
        if let Some(limit) = limit
            && let Some(in_line) = self.in_line.take()
        {
            if let Some(answer) = slot.wait_until(limit) {
                return answer;
            }
            // What is still in the line is dropped, and its promise says so.
            drop(in_line);
        }
        slot.wait()
    }

    pub(crate) fn key(&self) -> E::Key {
        self.key
    }

    pub(crate) fn ingress(&self) -> &Ingress {
        &self.handle.shared.ingresses[self.handle.shard::<E>(self.key)]
    }

    /// Stands for this request in its ingress's line.
    pub(crate) fn in_line(&self, number: u64) -> InLine {
        let shard = self.handle.shard::<E>(self.key);
        InLine { shared: Arc::clone(&self.handle.shared), shard, number }
    }

    fn send(&mut self) -> Result<Arc<Slot<M::Reply>>, Refused> {
        let Some(message) = self.message.take() else { return Err(Refused::Closed) };
        let (slot, waits) = (Slot::new(), self.waits);
        match self.ingress().permit() {
            Ok(permit) => permit.push(self.job(message, &slot, None)),
            Err(Refused::Full) if waits => {
                let job = self.job(message, &slot, Some(Instant::now()));
                let deadline_ns = self.ingress().deadline_ns(self.within);
                let waiting = Waiting { job, deadline_ns, notice: None };
                let number = self.ingress().wait(waiting).ok_or(Refused::Closed)?;
                self.in_line = Some(self.in_line(number));
            }
            Err(refused) => return Err(refused),
        }
        Ok(slot)
    }

    /// Asks on the shard; `since` is when the wait for room began, if there was one.
    fn job(&self, message: M, slot: &Arc<Slot<M::Reply>>, since: Option<Instant>) -> Job {
        let promise = Promise(Some(Arc::clone(slot)));
        let (key, within) = (self.key, self.within);
        once(move |shard: &mut Shard| {
            let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
            // Dropped without an ask, the promise says `NotSent`.
            let Some(left) = within.checked_sub(waited) else { return };
            let left_ns = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            let deadline_ns = shard.now().monotonic_ns.saturating_add(left_ns);
            let then = move |answer, _: &mut dyn Outside| promise.keep(answer);
            // On a refusal the promise is dropped with the closure, which says `NotSent`.
            let _ = shard.ask::<E, M, _>(key, message, deadline_ns, then);
        })
    }
}

/// A place in the line for room in an ingress, given up when dropped.
pub(crate) struct InLine {
    shared: Arc<Shared>,
    shard: usize,
    number: u64,
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.shared.ingresses[self.shard].withdraw(self.number);
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

/// Where the answer of an ask is left.
type Slot<R> = coreside_net::client::Slot<Result<R, AskError>>;

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
