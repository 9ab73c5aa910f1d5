//! Calling entities of a simulated node from outside of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coreside_shard::{
    Address, AskError, Doorbell, Entity, Full, Handler, HashKey, Message, Outside, Placement,
    PoolKeys, Shard, Sweep, Table, Via,
};

use crate::group::Pools;
use crate::ingress::Ran;
use crate::tell::tell;

/// What is to be done on a shard.
pub(crate) type Job = Box<dyn FnMut(&mut Shard) -> Ran>;

/// A job that runs once, whatever room the shard has.
fn once(work: impl FnOnce(&mut Shard) + 'static) -> Job {
    let mut work = Some(work);
    Box::new(move |shard| {
        if let Some(work) = work.take() {
            work(shard);
        }
        Ran::Done
    })
}

/// The way in: a bounded queue of jobs per shard, and the means to wake it.
pub(crate) struct Gate {
    lanes: Vec<Lane>,
    jobs_max: usize,
    placement: Placement,
    pub(crate) hash_key: HashKey,
    pub(crate) table: Arc<Table>,
    pub(crate) pools: Pools,
    ask_timeout_ns: u64,
    /// Who hears the answers to what was sent under a ticket.
    pub(crate) outside: RefCell<Box<dyn Outside>>,
    refusing: Cell<bool>,
    refused: Cell<u64>,
}

struct Lane {
    jobs: RefCell<VecDeque<Job>>,
    bell: Arc<Doorbell>,
    woken: Arc<Vec<AtomicBool>>,
}

impl Gate {
    pub(crate) fn new(
        bells: Vec<Arc<Doorbell>>,
        woken: &Arc<Vec<AtomicBool>>,
        jobs_max: usize,
        (placement, hash_key): (Placement, HashKey),
        table: Arc<Table>,
        ask_timeout_ns: u64,
    ) -> Rc<Self> {
        let lane = |bell| Lane { jobs: RefCell::default(), bell, woken: Arc::clone(woken) };
        let pools = PoolKeys::new(&table, &hash_key, &placement, bells.len() as u16);
        Rc::new(Self {
            lanes: bells.into_iter().map(lane).collect(),
            jobs_max,
            placement,
            hash_key,
            table,
            pools: Pools::new(pools),
            ask_timeout_ns,
            outside: RefCell::new(Box::new(())),
            refusing: Cell::new(false),
            refused: Cell::new(0),
        })
    }

    pub(crate) fn pop(&self, shard: usize) -> Option<Job> {
        self.lanes[shard].jobs.borrow_mut().pop_front()
    }

    /// Has a job that found no room on its shard run again, before any other.
    pub(crate) fn put_back(&self, shard: usize, job: Job) {
        self.lanes[shard].jobs.borrow_mut().push_front(job);
    }

    pub(crate) fn is_empty(&self, shard: usize) -> bool {
        self.lanes[shard].jobs.borrow().is_empty()
    }

    /// Takes no new jobs from here on.
    pub(crate) fn refuse(&self) {
        self.refusing.set(true);
    }

    /// Takes no new jobs and drops those that wait.
    pub(crate) fn close(&self) {
        self.refuse();
        for shard in 0..self.lanes.len() {
            while let Some(job) = self.pop(shard) {
                drop(job);
            }
        }
    }

    /// Calls that found the gate at its bound, or closed.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Whether a call may come in; one that may not is counted.
    fn has_room(&self, shard: usize) -> bool {
        let has_room =
            !self.refusing.get() && self.lanes[shard].jobs.borrow().len() < self.jobs_max;
        if !has_room {
            self.refused.set(self.refused.get() + 1);
        }
        has_room
    }

    /// Only where there is [room](Self::has_room).
    pub(crate) fn push(&self, shard: usize, job: Job) {
        let lane = &self.lanes[shard];
        lane.jobs.borrow_mut().push_back(job);
        if lane.bell.must_ring() {
            lane.woken[shard].store(true, Ordering::Relaxed);
        }
    }
}

/// Calls entities of a simulated node, as a thread outside would. Cheap to clone.
#[derive(Clone)]
pub struct SimHandle {
    pub(crate) gate: Rc<Gate>,
    /// The shard that takes the call in; the entity's own where this is `None`.
    pub(crate) entrance: Option<u16>,
}

impl SimHandle {
    /// The way to the entity `key` of type `E`.
    pub fn entity<E: Entity>(&self, key: E::Key) -> E::Ref<Self> {
        E::Ref::from(Address::new(key, self.clone()))
    }

    /// The same node, entered by way of `shard`, as a client does whose connection is there. Such a
    /// call crosses to the entity's shard like any message between shards.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn by_way_of(&self, shard: u16) -> Self {
        assert!(usize::from(shard) < self.gate.lanes.len(), "there is no shard {shard}");
        Self { gate: Rc::clone(&self.gate), entrance: Some(shard) }
    }

    /// The shard on which the entity `key` lives.
    pub fn home<E: Entity>(&self, key: E::Key) -> u16 {
        self.gate.placement.shard(self.gate.hash_key.hash(key))
    }

    /// Runs `work` on the shard that this handle enters by (shard 0 where none was chosen), at the
    /// start of one of its next passes: whatever a driver of shards may do. A panic in it is
    /// contained. Returns whether it was taken in.
    pub fn with_shard(&self, work: impl FnOnce(&mut Shard) + 'static) -> bool {
        let shard = usize::from(self.entrance.unwrap_or(0));
        let has_room = self.gate.has_room(shard);
        if has_room {
            self.gate.push(shard, once(work));
        }
        has_room
    }

    /// The secret under which this node hashes keys, to make a [`Name`](crate::Name) of a name.
    pub fn hash_key(&self) -> &HashKey {
        &self.gate.hash_key
    }

    /// Passes over all entities `E` of the node; the total is the reply.
    ///
    /// # Panics
    /// When `S` is not registered with this node.
    pub fn sweep<E: Entity, S: Sweep<E>>(&self) -> SimReply<S> {
        assert!(self.gate.table.has_sweep::<E, S>(), "the sweep is not registered");
        let (reply, promise) = promise();
        let shard = usize::from(self.entrance.unwrap_or(0));
        if self.gate.has_room(shard) {
            let job = move |shard: &mut Shard| {
                // On a refusal the promise is dropped with the closure, which says so.
                let _ = shard.sweep::<E, S, _>(move |total, _| promise.keep(total));
            };
            self.gate.push(shard, once(job));
        }
        reply
    }
}

impl fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHandle").field("entrance", &self.entrance).finish_non_exhaustive()
    }
}

impl Via for SimHandle {
    type Call<E: Handler<M>, M: Message> = SimCall<E, M>;

    /// # Panics
    /// When `E` is not registered with this node.
    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> SimCall<E, M> {
        assert!(
            self.gate.table.has_message::<E, M>(),
            "entity type {} is not registered: add `.entity::<{}>()` where the simulation is built",
            E::NAME,
            std::any::type_name::<E>()
        );
        let within_ns = self.gate.ask_timeout_ns;
        SimCall { handle: self, key, message, within_ns, entity: PhantomData }
    }
}

/// A message from outside of a simulated node, about to be told or asked.
///
/// # Delivery
/// As for a [`Request`](crate::Request) of a real node: in order per way in and entity, at most
/// once.
#[must_use = "nothing is sent before it is told or asked"]
pub struct SimCall<E: Handler<M>, M: Message> {
    handle: SimHandle,
    key: E::Key,
    message: M,
    within_ns: u64,
    entity: PhantomData<fn(E)>,
}

impl<E: Handler<M>, M: Message> SimCall<E, M> {
    /// Ends the wait for the reply after `limit` of virtual time, counted from when the call is
    /// taken in.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Sends the message and expects no answer. It is on its way once the simulation is run.
    ///
    /// # Errors
    /// [`Full`] with the message inside when the shard's way in is at its bound or the node is
    /// stopping.
    pub fn try_tell(self) -> Result<(), Full<M>> {
        let shard = self.entrance();
        let Self { handle, key, message, .. } = self;
        if !handle.gate.has_room(shard) {
            return Err(Full(message));
        }
        let mut message = Some(message);
        let job = move |shard: &mut Shard| {
            let Some(taken) = message.take() else { return Ran::Done };
            message = tell::<E, M>(shard, key, taken).err();
            if message.is_none() { Ran::Done } else { Ran::NoRoom }
        };
        handle.gate.push(shard, Box::new(job));
        Ok(())
    }

    /// Sends the message; the reply is there once the simulation was run for long enough.
    pub fn ask(self) -> SimReply<M::Reply> {
        let (reply, promise) = promise();
        self.send(promise);
        reply
    }

    /// Sends the message; `then` runs with the answer, once.
    pub fn ask_then(self, then: impl FnOnce(Result<M::Reply, AskError>) + 'static) {
        self.send(Promise(Some(Box::new(then))));
    }

    fn send(self, promise: Promise<M::Reply>) {
        let shard = self.entrance();
        let Self { handle, key, message, within_ns, .. } = self;
        if !handle.gate.has_room(shard) {
            return;
        }
        let job = move |shard: &mut Shard| {
            let deadline_ns = shard.now().monotonic_ns.saturating_add(within_ns);
            let then = move |answer, _: &mut dyn Outside| promise.keep(answer);
            // On a refusal the promise is dropped with the closure, which says `NotSent`.
            let _ = shard.ask::<E, M, _>(key, message, deadline_ns, then);
        };
        handle.gate.push(shard, once(job));
    }

    fn entrance(&self) -> usize {
        usize::from(self.handle.entrance.unwrap_or_else(|| self.handle.home::<E>(self.key)))
    }
}

/// The answer to an ask from outside, once it is there.
pub struct SimReply<R>(Rc<RefCell<Option<Result<R, AskError>>>>);

impl<R> SimReply<R> {
    /// Whether the answer is there.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// The answer, if it is there; the second time, `None`.
    pub fn take(&self) -> Option<Result<R, AskError>> {
        self.0.borrow_mut().take()
    }
}

impl<R: fmt::Debug> fmt::Debug for SimReply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimReply").field(&self.0.borrow()).finish()
    }
}

/// The duty to answer. Dropped unkept, it says that nothing was sent.
struct Promise<R>(Option<Then<R>>);

type Then<R> = Box<dyn FnOnce(Result<R, AskError>)>;

impl<R> Promise<R> {
    fn keep(mut self, answer: Result<R, AskError>) {
        if let Some(then) = self.0.take() {
            then(answer);
        }
    }
}

impl<R> Drop for Promise<R> {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then(Err(AskError::NotSent));
        }
    }
}

fn promise<R: 'static>() -> (SimReply<R>, Promise<R>) {
    let place = Rc::new(RefCell::new(None));
    let reply = SimReply(Rc::clone(&place));
    (reply, Promise(Some(Box::new(move |answer| *place.borrow_mut() = Some(answer)))))
}
