//! What a handler knows and may do during its turn.

use std::any::TypeId;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use crate::async_cx::AsyncCx;
use crate::attached::Attached;
use crate::core::{Core, Full};
use crate::entered::{Lent, entered};
use crate::entity::{Address, Entity, Handler, Later, Message};
use crate::identity::{EntityId, Recipient};
use crate::index::SlotNumber;
use crate::reply::{ReplyTo, Token};
use crate::sabotage::{Bug, planted};
use crate::schedule::{Owner, Timer};
use crate::store::StoreId;
use crate::supervise::{End, Fault, Terminated};
use crate::system::System;
use crate::task::{Hold, Task};
use crate::ties::{Holder, Tie};

/// What a handler knows and may do during its turn.
pub struct Cx<'a, E: Entity> {
    pub(crate) core: &'a mut Core,
    pub(crate) key: E::Key,
    pub(crate) store: StoreId,
    pub(crate) slot: SlotNumber,
    pub(crate) generation: u32,
    pub(crate) token: Option<Token>,
    pub(crate) message: u16,
    /// What is to be done behind the turn: [`After`].
    pub(crate) after: u8,
    /// `u64::MAX` where nobody waits.
    pub(crate) deadline_ns: u64,
    pub(crate) entity: PhantomData<fn(E)>,
}

/// What is to be done behind a turn, in bits; most turns have none.
pub(crate) struct After;

impl After {
    pub(crate) const STOP: u8 = 1;
    pub(crate) const FAIL: u8 = 2;
    pub(crate) const RUN: u8 = 4;
    /// Whether the times of messages are wanted has changed.
    pub(crate) const NOTE: u8 = 8;
}

impl<'a, E: Entity> Cx<'a, E> {
    /// The key of the entity whose turn it is.
    pub fn key(&self) -> E::Key {
        self.key
    }

    /// Milliseconds since 1970, as of the start of this poll.
    pub fn unix_ms(&self) -> u64 {
        self.core.now.unix_ms
    }

    /// Nanoseconds of the shard's own clock, which never goes back, as of the start of this poll.
    pub fn monotonic_ns(&self) -> u64 {
        self.core.now.monotonic_ns
    }

    /// When the asker's patience ends, on the shard's own clock. Asks of this turn inherit it.
    /// `None` where nobody waits.
    pub fn deadline_ns(&self) -> Option<u64> {
        (self.deadline_ns != u64::MAX).then_some(self.deadline_ns)
    }

    /// The way to the entity `key` of type `T`, wherever it lives.
    ///
    /// # Panics
    /// When a message is prepared and `T` is not registered with this node.
    #[inline(always)]
    pub fn entity<T: Entity>(&mut self, key: T::Key) -> T::Ref<&mut Cx<'a, E>> {
        T::Ref::from(Address::new(key, self))
    }

    /// Ends this entity after the turn: [`Entity::on_stop`] runs, its state is dropped and its
    /// memory is free. The next message for its key activates it anew.
    pub fn stop(&mut self) {
        self.after |= After::STOP;
    }

    /// Makes this turn a fault: the asker is told [`Failed`](crate::AskError::Failed), whatever
    /// the handler returns, and what [`Entity::LIFE`] declares follows. The state is as the
    /// handler leaves it where faults are resumed from, and dropped elsewhere.
    pub fn fail(&mut self, reason: impl Display) {
        self.after |= After::FAIL;
        self.core.failure = Some(reason.to_string());
    }

    /// Puts off the reply to a later turn. Return the first half from the handler, keep the second
    /// and give it to [`reply`](Self::reply) once the reply is known.
    ///
    /// # Panics
    /// When `R` is not the reply of the message that is being handled; the turn fails.
    pub fn later<R: 'static>(&mut self) -> (Later<R>, ReplyTo<R>) {
        if self.token.is_some() {
            let expected = self.core.reply_types[usize::from(self.message)];
            assert!(expected == TypeId::of::<R>(), "`later` promises the message's own reply type");
        }
        let reply_to = ReplyTo::new(self.token, self.message, self.deadline_ns);
        (Later { reply: PhantomData }, reply_to)
    }

    /// Answers an ask that was put off.
    pub fn reply<R: Send + 'static>(&mut self, to: ReplyTo<R>, reply: R) {
        self.core.reply_put_off(to, reply);
    }

    #[inline(always)]
    pub(crate) fn kind(&self) -> u16 {
        self.store.number()
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { kind: self.kind(), slot: self.slot, generation: self.generation }
    }

    fn identity(&self) -> EntityId {
        EntityId::of::<E>(self.kind(), self.key)
    }
}

/// Supervision and watching.
impl<E: Entity> Cx<'_, E> {
    /// Brings the entity `key` of type `T` into memory and becomes its supervisor: this entity gets
    /// a [`Fault`] for each of its faults, and the entity ends when this one does. What follows a
    /// fault is declared by `T`'s [`Life`](crate::Life).
    ///
    /// It stays the supervisor through restarts, until the entity ends: stops, fails for good, or
    /// is put away where its `Life` says so. What a message activates after that is nobody's child,
    /// as an [`End`] says to those who watch.
    ///
    /// # Errors
    /// [`Full`] when too much waits on the way.
    pub fn start<T: Entity>(&mut self, key: T::Key) -> Result<(), Full<()>>
    where
        E: Handler<Fault>,
    {
        let entity = EntityId::of::<T>(self.core.directory.entity::<T>(), key);
        let (who, number) = (self.recipient::<Fault>(), self.core.next_tie());
        let supervisor = Holder { who, number };
        self.core.try_send_system(System::Start { entity, supervisor })?;
        let owner = self.owner();
        let children = &mut self.core.attached.entry(owner.kind, owner.slot).children;
        // One that was started before keeps its place.
        children.put(Tie { entity, number });
        Ok(())
    }

    /// Ends the entity `key` of type `T` in good order, behind its turn if it is having one.
    /// Messages that wait for it go to its next life.
    ///
    /// # Errors
    /// [`Full`] when too much waits on the way.
    pub fn stop_entity<T: Entity>(&mut self, key: T::Key) -> Result<(), Full<()>> {
        let entity = EntityId::of::<T>(self.core.directory.entity::<T>(), key);
        self.core.try_send_system(System::Stop { entity, end: End::Stopped })
    }

    /// Has this entity told by exactly one [`Terminated`] when the entity `key` of type `T` is no
    /// more, also when it is gone already. To watch what is watched already changes nothing.
    ///
    /// # Delivery
    /// Behind what the entity sent to this one before its end.
    ///
    /// # Errors
    /// [`Full`] when too much waits on the way.
    pub fn watch<T: Entity>(&mut self, key: T::Key) -> Result<(), Full<()>>
    where
        E: Handler<Terminated>,
    {
        self.watch_entity(EntityId::of::<T>(self.core.directory.entity::<T>(), key))
    }

    /// [`watch`](Self::watch), of an entity of any type.
    pub(crate) fn watch_entity(&mut self, entity: EntityId) -> Result<(), Full<()>>
    where
        E: Handler<Terminated>,
    {
        let owner = self.owner();
        let watches = |own: &Attached| own.watching.has_entity(&entity);
        if self.core.attached.get(owner.kind, owner.slot).is_some_and(watches) {
            return Ok(());
        }
        let (who, number) = (self.recipient::<Terminated>(), self.core.next_tie());
        let watcher = Holder { who, number };
        self.core.try_send_system(System::Watch { entity, watcher })?;
        let attached = self.core.attached.entry(owner.kind, owner.slot);
        attached.watching.put(Tie { entity, number });
        Ok(())
    }

    /// Takes a [`watch`](Self::watch) back: from now on there is no [`Terminated`], not even one
    /// that is under way.
    pub fn unwatch<T: Entity>(&mut self, key: T::Key) {
        self.unwatch_entity(EntityId::of::<T>(self.core.directory.entity::<T>(), key));
    }

    /// [`unwatch`](Self::unwatch), of an entity of any type.
    pub(crate) fn unwatch_entity(&mut self, entity: EntityId) {
        let (owner, watcher) = (self.owner(), self.identity());
        let Some(attached) = self.core.attached.get_mut(owner.kind, owner.slot) else { return };
        if planted(Bug::UnwatchIgnored) {
            return;
        }
        let Some(number) = attached.watching.remove_entity(&entity) else { return };
        self.core.attached.tidy(owner.kind, owner.slot);
        self.core.send_system(System::Unwatch { entity, watcher, number });
    }

    pub(crate) fn recipient<M: Message>(&self) -> Recipient
    where
        E: Handler<M>,
    {
        Recipient { entity: self.identity(), message: self.core.directory.message::<E, M>() }
    }
}

/// Timers. They belong to this life of the entity: none fires in a later one. An entity with
/// timers is not put away while it is idle. Resolution 1 ms, never early.
impl<E: Entity> Cx<'_, E> {
    /// Sends `message` to this entity, once, after `delay`.
    ///
    /// # Errors
    /// [`Full`] with the message inside when as many timers are set as may be.
    ///
    /// # Cost
    /// No allocation for messages up to 8 bytes once the entity had a timer; one for larger ones.
    pub fn after<M: Message>(&mut self, delay: Duration, message: M) -> Result<Timer, Full<M>>
    where
        E: Handler<M>,
    {
        let (owner, at_ns) = (self.owner(), self.due_ns(delay));
        self.core.set_timer::<E, M>(owner, None, at_ns, message).map_err(Full)
    }

    /// Like [`after`](Self::after), in place of the timer of this name, if one is set.
    ///
    /// # Errors
    /// As for [`after`](Self::after).
    pub fn after_keyed<M: Message>(
        &mut self,
        name: u64,
        delay: Duration,
        message: M,
    ) -> Result<Timer, Full<M>>
    where
        E: Handler<M>,
    {
        let (owner, at_ns) = (self.owner(), self.due_ns(delay));
        self.core.set_timer::<E, M>(owner, Some(name), at_ns, message).map_err(Full)
    }

    /// Sends a copy of `message` to this entity every `period`, at least 1 ms, until cancelled. A
    /// shard that was late does not catch up.
    ///
    /// # Errors
    /// As for [`after`](Self::after).
    pub fn every<M: Message + Clone>(
        &mut self,
        period: Duration,
        message: M,
    ) -> Result<Timer, Full<M>>
    where
        E: Handler<M>,
    {
        let owner = (self.owner(), self.key);
        self.core.set_periodic::<E, M>(owner, None, nanoseconds(period), message).map_err(Full)
    }

    /// Like [`every`](Self::every), in place of the timer of this name, if one is set.
    ///
    /// # Errors
    /// As for [`after`](Self::after).
    pub fn every_keyed<M: Message + Clone>(
        &mut self,
        name: u64,
        period: Duration,
        message: M,
    ) -> Result<Timer, Full<M>>
    where
        E: Handler<M>,
    {
        let owner = (self.owner(), self.key);
        let period_ns = nanoseconds(period);
        self.core.set_periodic::<E, M>(owner, Some(name), period_ns, message).map_err(Full)
    }

    /// Cancels a timer of this entity. Returns whether it was still to fire; if so it never will.
    pub fn cancel(&mut self, timer: Timer) -> bool {
        let owner = self.owner();
        self.core.cancel_timer(owner, timer.0)
    }

    /// Cancels the timer of this name. Returns whether one was still to fire.
    pub fn cancel_keyed(&mut self, name: u64) -> bool {
        let owner = self.owner();
        self.core.cancel_named(owner, name)
    }

    /// Sends a copy of `message` to this entity whenever it had no message for `quiet`; in place of
    /// what was set before.
    ///
    /// # Cost
    /// Each turn of the entity takes the time of a look-up, some tens of nanoseconds.
    pub fn receive_timeout<M: Message + Clone>(&mut self, quiet: Duration, message: M)
    where
        E: Handler<M>,
    {
        let owner = (self.owner(), self.key);
        self.core.set_quiet::<E, M>(owner, nanoseconds(quiet), message);
        self.after |= After::NOTE;
    }

    /// Ends what [`receive_timeout`](Self::receive_timeout) began.
    pub fn cancel_receive_timeout(&mut self) {
        let owner = self.owner();
        self.core.clear_quiet(owner);
        self.after |= After::NOTE;
    }

    fn due_ns(&self, delay: Duration) -> u64 {
        self.core.now.monotonic_ns.saturating_add(nanoseconds(delay))
    }
}

/// Async turns.
impl<E: Entity> Cx<'_, E> {
    /// Goes on asynchronously behind this turn, with the entity's state: until `turn` is done, the
    /// entity takes no other message, which wait in its stash. Return what this returns; the asker
    /// gets the future's output. When the asker's deadline passes, the future is dropped where it
    /// waits.
    ///
    /// # Panics
    /// As [`later`](Self::later), within a turn that only reads, and when called twice in a turn.
    ///
    /// # Cost
    /// No allocation for futures up to 4 KiB, once as many were under way before.
    pub fn run<R, F>(&mut self, turn: F) -> Later<R>
    where
        R: Send + 'static,
        F: AsyncFnOnce(&mut E, &mut AsyncCx<E>) -> R + 'static,
    {
        let (later, to) = self.later::<R>();
        let mut cx = AsyncCx::new(self.key, self.owner());
        let future = async move {
            let state = Lent::<E>::take();
            let reply = turn(state.exclusive(), &mut cx).await;
            answer(to, reply);
        };
        self.begin(future, Hold::Exclusive);
        later
    }

    /// Like [`run`](Self::run), for what may fail: an `Err` is a fault.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_fallible<R, X, F>(&mut self, turn: F) -> Later<R>
    where
        R: Send + 'static,
        X: Display,
        F: AsyncFnOnce(&mut E, &mut AsyncCx<E>) -> Result<R, X> + 'static,
    {
        let (later, to) = self.later::<R>();
        let mut cx = AsyncCx::new(self.key, self.owner());
        let future = async move {
            let state = Lent::<E>::take();
            match turn(state.exclusive(), &mut cx).await {
                Ok(reply) => answer(to, reply),
                Err(error) => entered(|turn| turn.fail(error.to_string())),
            }
        };
        self.begin(future, Hold::Exclusive);
        later
    }

    /// Goes on asynchronously in a turn that only reads: other reads of the entity may have their
    /// turns meanwhile, and everything else waits.
    ///
    /// # Panics
    /// As [`later`](Self::later).
    pub fn run_read<R, F>(&mut self, turn: F) -> Later<R>
    where
        R: Send + 'static,
        F: AsyncFnOnce(&E, &mut AsyncCx<E>) -> R + 'static,
    {
        let (later, to) = self.later::<R>();
        let mut cx = AsyncCx::new(self.key, self.owner());
        let future = async move {
            let state = Lent::<E>::take();
            let reply = turn(state.shared(), &mut cx).await;
            answer(to, reply);
        };
        self.begin(future, Hold::Read);
        later
    }

    /// Goes on asynchronously without the entity's state, which goes on with its messages; the
    /// future reaches the state through [`AsyncCx::with`]. It is dropped when the entity's life
    /// ends.
    ///
    /// # Panics
    /// As [`later`](Self::later).
    pub fn interleave<R, F>(&mut self, turn: F) -> Later<R>
    where
        R: Send + 'static,
        F: AsyncFnOnce(AsyncCx<E>) -> R + 'static,
    {
        let (later, to) = self.later::<R>();
        let cx = AsyncCx::new(self.key, self.owner());
        let future = async move {
            let reply = turn(cx).await;
            answer(to, reply);
        };
        self.begin(future, Hold::Interleaved);
        later
    }

    fn begin(&mut self, future: impl Future<Output = ()> + 'static, hold: Hold) {
        let reading = self.core.reading;
        assert!(hold != Hold::Exclusive || !reading, "a turn that only reads cannot `run`");
        assert!(hold != Hold::Read || reading, "`run_read` is for turns that only read");
        let alone = hold != Hold::Exclusive || !self.core.has_begun_exclusive();
        assert!(alone, "a turn can `run` one future: both would have the state");
        self.after |= After::RUN;
        let asked = (self.token, Some(self.message));
        let future = self.core.futures.place(future);
        let task = Task::new(future, hold, self.owner(), asked, self.deadline_ns);
        self.core.begin(task);
    }
}

/// Longer times than the clock counts are as good as for ever.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn answer<R: Send + 'static>(to: ReplyTo<R>, reply: R) {
    entered(|turn| turn.with_core(|core| core.reply_put_off(to, reply)));
}
