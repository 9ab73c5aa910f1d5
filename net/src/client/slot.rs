//! Where an answer is left for whoever waits: a thread, or a task of any executor.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

/// Where an answer is left for whoever waits.
#[derive(Debug)]
pub struct Slot<A> {
    state: Mutex<State<A>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<A> {
    answer: Option<A>,
    waker: Option<Waker>,
    /// A thread sleeps until the answer is there. To wake one is a call of the kernel's, whether
    /// one sleeps or not.
    sleeps: bool,
}

impl<A> Slot<A> {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        let state = Mutex::new(State { answer: None, waker: None, sleeps: false });
        Arc::new(Self { state, arrived: Condvar::new() })
    }

    /// Nothing that is done under the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the answer, and wakes who waits.
    pub fn fill(&self, answer: A) {
        if let Some(waker) = self.leave(answer) {
            waker.wake();
        }
    }

    /// Leaves the answer, and wakes a thread that waits; a task is left to the caller.
    pub(super) fn leave(&self, answer: A) -> Option<Waker> {
        let mut state = self.lock();
        state.answer = Some(answer);
        let (waker, sleeps) = (state.waker.take(), state.sleeps);
        drop(state);
        if sleeps {
            self.arrived.notify_one();
        }
        waker
    }

    /// Blocks the current thread until the answer is there.
    pub fn wait(&self) -> A {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            state.sleeps = true;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits no longer than until `limit`; `None` when there is no answer by then.
    pub fn wait_until(&self, limit: Instant) -> Option<A> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answer.take() {
                return Some(answer);
            }
            let left = limit.checked_duration_since(Instant::now())?;
            state.sleeps = true;
            let woken = self.arrived.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For futures: the answer, or a promise to use the waker.
    pub fn poll(&self, waker: &Waker) -> Poll<A> {
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
