//! A future that is ready when somebody, on any thread, says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    open: bool,
    wakers: Vec<Waker>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through.
    pub(crate) fn open(&self) {
        let wakers = {
            let mut state = self.0.lock().expect("nobody panics here");
            state.open = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Wakes whoever waits without letting anybody through.
    pub(crate) fn knock(&self) {
        let state = self.0.lock().expect("nobody panics here");
        state.wakers.iter().for_each(Waker::wake_by_ref);
    }

    /// How many times somebody looked and found it closed.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().expect("nobody panics here").wakers.len()
    }

    pub(crate) fn passed(&self) -> Passed {
        Passed(self.clone())
    }
}

pub(crate) struct Passed(Gate);

impl Future for Passed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock().expect("nobody panics here");
        if state.open {
            return Poll::Ready(());
        }
        state.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

/// Pending once, having woken itself.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// All of them, polled in order; the outputs in order.
pub(crate) async fn join<T>(futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            let Some(waiting) = future else { continue };
            if let Poll::Ready(ready) = waiting.as_mut().poll(cx) {
                *output = Some(ready);
                *future = None;
            }
        }
        if futures.iter().any(Option::is_some) {
            return Poll::Pending;
        }
        Poll::Ready(outputs.iter_mut().filter_map(Option::take).collect())
    })
    .await
}
