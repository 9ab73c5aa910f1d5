//! What an async turn knows and may do.
#![expect(unsafe_code, reason = "the state is lent to a closure while nobody else may use it")]

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::condition::Stage;
use crate::core::Full;
use crate::cx::nanoseconds;
use crate::entered::{entered, try_entered};
use crate::entity::{Address, Entity, Handler, Message, Via};
use crate::fault::Current;
use crate::pending::{AskedBy, Captured, Outcome, Outside, Resume, Taken};
use crate::record::Payload;
use crate::reply::AskError;
use crate::schedule::{Alarm, Owner};
use crate::shard::Shard;
use crate::task::{Hold, TaskId};
use crate::timer::TimerId;

/// The state of an entity in the making (see [`Entity::activate_async`]).
pub type Activating<E> = Pin<Box<dyn Future<Output = E>>>;

/// What an async turn knows and may do. It is for the future that it was given to: its methods
/// panic anywhere else.
///
/// It stays on its shard's thread:
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// fn check<E: coreside_shard::Entity>() {
///     is_send::<coreside_shard::AsyncCx<E>>();
/// }
/// ```
pub struct AsyncCx<E: Entity> {
    key: E::Key,
    owner: Owner,
    entity: PhantomData<fn(E)>,
    /// It means nothing on another thread.
    stays: PhantomData<*const ()>,
}

impl<E: Entity> AsyncCx<E> {
    pub(crate) fn new(key: E::Key, owner: Owner) -> Self {
        Self { key, owner, entity: PhantomData, stays: PhantomData }
    }

    /// The key of the entity.
    pub fn key(&self) -> E::Key {
        self.key
    }

    /// Milliseconds since 1970, as of the start of this poll.
    pub fn unix_ms(&self) -> u64 {
        entered(|turn| turn.with_core(|core| core.now.unix_ms))
    }

    /// Nanoseconds of the shard's own clock, which never goes back, as of the start of this poll.
    pub fn monotonic_ns(&self) -> u64 {
        entered(|turn| turn.with_core(|core| core.now.monotonic_ns))
    }

    /// When the asker's patience ends, on the shard's own clock; the turn is cancelled then. `None`
    /// where nobody asks.
    pub fn deadline_ns(&self) -> Option<u64> {
        entered(|turn| (turn.deadline_ns != u64::MAX).then_some(turn.deadline_ns))
    }

    /// The way to the entity `key` of type `T`, wherever it lives. Await the call to ask.
    pub fn entity<T: Entity>(&self, key: T::Key) -> T::Ref<&AsyncCx<E>> {
        T::Ref::from(Address::new(key, self))
    }

    /// Ends the entity when this turn is over; with an interleaved turn, as soon as may be.
    pub fn stop(&mut self) {
        entered(|turn| turn.stop());
    }

    /// Waits.
    ///
    /// # Cost
    /// A timer in the shard's wheel: no allocation.
    pub fn sleep(&self, time: Duration) -> Sleep {
        let time_ns = nanoseconds(time);
        Sleep {
            until_ns: self.monotonic_ns().saturating_add(time_ns),
            timer: None,
            stays: PhantomData,
        }
    }

    /// Uses the entity's state, from an interleaved turn: as soon as no exclusive turn holds it.
    /// The state is only there within the closure, so none is held across a wait.
    ///
    /// # Panics
    /// In a turn that holds the state already: use `self` there.
    pub async fn with<R>(&self, work: impl FnOnce(&mut E) -> R) -> R {
        let mut work = Some(work);
        std::future::poll_fn(|cx| {
            let lent = entered(|turn| {
                assert!(
                    turn.owner == self.owner && turn.hold == Hold::Interleaved,
                    "`with` is for interleaved turns of this entity"
                );
                // SAFETY: one step.
                let stage = unsafe { turn.store.get() }.stage(turn.owner.slot);
                if stage == Stage::Live || stage == Stage::Draining {
                    return Some((turn.store, turn.state, stage));
                }
                turn.with_core(|core| {
                    let waker = core.tasks.waker_beside(turn.task, cx.waker());
                    let attached = core.attached.entry(turn.owner.kind, turn.owner.slot);
                    attached.wait(turn.task, waker);
                });
                None
            });
            let Some((store, state, stage)) = lent else { return Poll::Pending };
            let Some(work) = work.take() else { return Poll::Pending };
            // Nobody else gets the state meanwhile, whatever the closure does.
            // SAFETY: one step.
            unsafe { store.get() }.set_stage(self.owner.slot, Stage::Busy);
            // SAFETY: the owner is of type E and in this life, its state is initialised, and the
            // stage keeps everybody else from it. A panic ends the life.
            let result = work(unsafe { &mut *state.cast::<E>() });
            // SAFETY: one step, after the user's code.
            unsafe { store.get() }.set_stage(self.owner.slot, stage);
            Poll::Ready(result)
        })
        .await
    }
}

impl<E: Entity> fmt::Debug for AsyncCx<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncCx").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<S: Entity> Via for &AsyncCx<S> {
    type Call<E: Handler<M>, M: Message> = AsyncCall<E, M>;

    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> AsyncCall<E, M> {
        AsyncCall { key, message, within_ns: u64::MAX }
    }
}

/// A message that an async turn is about to send: await it to ask, or tell it.
#[must_use = "nothing is sent before it is awaited or told"]
pub struct AsyncCall<E: Entity, M> {
    key: E::Key,
    message: M,
    /// `u64::MAX` stands for no limit of its own.
    within_ns: u64,
}

impl<E: Handler<M>, M: Message> AsyncCall<E, M> {
    /// Ends the wait for the answer after `limit`, as [`Call::within`](crate::Call::within) does.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within_ns = nanoseconds(limit);
        self
    }

    /// Sends the message and expects no answer.
    ///
    /// # Errors
    /// [`Full`] with the message inside when the queue on the way is at its bound.
    pub fn try_tell(self) -> Result<(), Full<M>> {
        entered(|turn| turn.with_core(|core| core.tell::<E, M>(self.key, self.message)))
    }

    /// Sends the message as soon as there is room on the way.
    pub async fn tell(self) {
        let (key, mut waiting) = (self.key, Some(self.message));
        std::future::poll_fn(|cx| {
            let Some(message) = waiting.take() else { return Poll::Ready(()) };
            match entered(|turn| turn.with_core(|core| core.tell::<E, M>(key, message))) {
                Ok(()) => Poll::Ready(()),
                Err(Full(message)) => {
                    waiting = Some(message);
                    // There may be room in the next poll.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl<E: Handler<M>, M: Message> IntoFuture for AsyncCall<E, M> {
    type Output = Result<M::Reply, AskError>;
    type IntoFuture = Asking<E, M>;

    fn into_future(self) -> Asking<E, M> {
        Asking { call: Some(self), answer: Rc::default() }
    }
}

/// The future of an answer. The message is sent when it is first polled.
#[must_use = "nothing is sent before it is awaited"]
pub struct Asking<E: Handler<M>, M: Message> {
    call: Option<AsyncCall<E, M>>,
    answer: Rc<AnswerCell<M::Reply>>,
}

type AnswerCell<R> = RefCell<Answering<R>>;

/// An answer that is waited for.
struct Answering<R> {
    answer: Option<Result<R, AskError>>,
    /// The async turn that looked for it last.
    task: Option<TaskId>,
    /// Whom to wake, where that is not the async turn as a whole.
    waker: Option<Waker>,
}

impl<R> Default for Answering<R> {
    fn default() -> Self {
        Self { answer: None, task: None, waker: None }
    }
}

impl<E: Handler<M>, M: Message> Unpin for Asking<E, M> {}

impl<E: Handler<M>, M: Message> Future for Asking<E, M> {
    type Output = Result<M::Reply, AskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(call) = self.call.take() {
            let asked = entered(|turn| {
                let asker = Rc::clone(&self.answer);
                let by = AskedBy::entity(turn.owner.kind);
                let resume = (resume_async::<M::Reply> as Resume, by);
                turn.with_core(|core| {
                    let deadline_ns = core.deadline_of_ask(turn.deadline_ns, call.within_ns);
                    core.asking_task = turn.task.tag();
                    let asked =
                        core.ask::<E, M, _>(call.key, call.message, asker, resume, deadline_ns);
                    core.asking_task = 0;
                    asked.is_ok()
                })
            });
            if !asked {
                return Poll::Ready(Err(AskError::NotSent));
            }
        }
        let mut answering = self.answer.borrow_mut();
        if let Some(answer) = answering.answer.take() {
            return Poll::Ready(answer);
        }
        entered(|turn| {
            answering.task = Some(turn.task);
            answering.waker = turn.with_core(|core| core.tasks.waker_beside(turn.task, cx.waker()));
        });
        Poll::Pending
    }
}

/// Hands an answer to the async turn that waits for it, and lets it go on.
///
/// # Safety
/// An `Rc` of an [`AnswerCell`] of this type was captured, which is given up; a value in `outcome`
/// is an `R`.
unsafe fn resume_async<R>(
    taken: &mut Taken,
    outcome: Outcome,
    shard: &mut Shard,
    _outside: &mut dyn Outside,
) {
    // SAFETY: the caller's contract.
    let answer = unsafe { Captured::<Rc<AnswerCell<R>>>::read(taken.captured.as_ptr()) };
    shard.current = Current::ANSWERING;
    let outcome = match outcome {
        // SAFETY: the caller's contract.
        Outcome::Value(at) => Ok(unsafe { Payload::<R>::read(at) }),
        Outcome::Error(error) => Err(error),
        Outcome::Forget => return,
    };
    let task = answer.borrow().task.filter(|task| shard.core.tasks.is_here(*task));
    let Some(task) = task else {
        shard.core.stats.answers_unclaimed += 1;
        drop((outcome, answer));
        return shard.current.clear();
    };
    let waker = {
        let mut answering = answer.borrow_mut();
        answering.answer = Some(outcome);
        answering.waker.take()
    };
    drop(answer);
    if let Some(waker) = waker {
        waker.wake();
    }
    shard.current.clear();
    shard.poll_task(task);
}

/// The future of a wait.
#[must_use = "a wait does nothing before it is awaited"]
#[derive(Debug)]
pub struct Sleep {
    until_ns: u64,
    timer: Option<TimerId>,
    /// A timer's name means nothing on another shard.
    stays: PhantomData<*const ()>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        entered(|turn| {
            turn.with_core(|core| {
                if core.now.monotonic_ns >= self.until_ns {
                    return Poll::Ready(());
                }
                let alarm = match core.tasks.waker_beside(turn.task, cx.waker()) {
                    None => Alarm::Wake(turn.task),
                    Some(waker) => Alarm::Waker(waker),
                };
                match self.timer.and_then(|timer| core.wheel.get_mut(timer)) {
                    Some(set) => *set = alarm,
                    None => self.timer = core.schedule(self.until_ns, alarm),
                }
                Poll::Pending
            })
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(timer) = self.timer else { return };
        // Outside of any async turn, the timer finds one that is gone, or that looks again.
        try_entered(|turn| turn.with_core(|core| core.wheel.cancel(timer)));
    }
}
