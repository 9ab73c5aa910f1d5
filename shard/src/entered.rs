//! How a future reaches the shard that polls it.
//!
//! A future outlives the turn that began it, so it cannot hold the turn's [`Cx`](crate::Cx). While
//! the shard polls it, and only then, a variable of the thread says where the shard's sending side
//! is; the methods of [`AsyncCx`](crate::AsyncCx) look there.
#![expect(unsafe_code, reason = "a pointer of the thread's leads back to the shard")]

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use crate::core::Core;
use crate::schedule::Owner;
use crate::store::StoreId;
use crate::task::{Hold, TaskId};

thread_local! {
    /// Whose future is being polled.
    static ENTERED: Cell<Option<NonNull<Entered>>> = const { Cell::new(None) };
}

/// The async turn that is being polled.
pub(crate) struct Entered {
    core: NonNull<Core>,
    /// Nobody else may use the core just now.
    in_use: Cell<bool>,
    pub(crate) store: StoreId,
    /// Where the entity's state is, or will be.
    pub(crate) state: *mut u8,
    pub(crate) owner: Owner,
    pub(crate) task: TaskId,
    pub(crate) hold: Hold,
    pub(crate) deadline_ns: u64,
    stop: Cell<bool>,
    failure: RefCell<Option<String>>,
}

/// What a step of an async turn asked for.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) stop: bool,
    pub(crate) failure: Option<String>,
}

/// Puts back what was there before, also when the poll panics.
struct Restore(Option<NonNull<Entered>>);

impl Drop for Restore {
    fn drop(&mut self) {
        ENTERED.set(self.0);
    }
}

impl Entered {
    pub(crate) fn new(
        core: &mut Core,
        (store, state): (StoreId, *mut u8),
        owner: Owner,
        (task, hold): (TaskId, Hold),
        deadline_ns: u64,
    ) -> Self {
        Self {
            core: NonNull::from(core),
            in_use: Cell::new(false),
            store,
            state,
            owner,
            task,
            hold,
            deadline_ns,
            stop: Cell::new(false),
            failure: RefCell::new(None),
        }
    }

    /// Polls with this at hand. The caller does not touch the core that it was made of meanwhile.
    pub(crate) fn during<R>(&self, poll: impl FnOnce() -> R) -> R {
        let _restore = Restore(ENTERED.replace(Some(NonNull::from(self))));
        poll()
    }

    pub(crate) fn into_effects(self) -> Effects {
        Effects { stop: self.stop.get(), failure: self.failure.take() }
    }

    /// The entity ends when its async turn does.
    pub(crate) fn stop(&self) {
        self.stop.set(true);
    }

    /// The async turn is a fault.
    pub(crate) fn fail(&self, reason: String) {
        self.failure.replace(Some(reason));
    }

    /// Uses the shard's sending side.
    ///
    /// # Panics
    /// When it is in use already, by a caller further up.
    pub(crate) fn with_core<R>(&self, work: impl FnOnce(&mut Core) -> R) -> R {
        struct Release<'a>(&'a Cell<bool>);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        assert!(!self.in_use.replace(true), "a message's own code calls the shard back");
        let _release = Release(&self.in_use);
        // SAFETY: `during` is under way, so the core is alive and its owner does not touch it; the
        // flag says that nobody further up has it.
        work(unsafe { &mut *self.core.as_ptr() })
    }
}

/// Uses the async turn that is being polled on this thread.
///
/// # Panics
/// When there is none: an `AsyncCx` is for the future that it was given to.
pub(crate) fn entered<R>(work: impl FnOnce(&Entered) -> R) -> R {
    match try_entered(work) {
        Some(result) => result,
        None => panic!("an `AsyncCx` is used outside of its async turn"),
    }
}

/// Like [`entered`], where there may be none.
pub(crate) fn try_entered<R>(work: impl FnOnce(&Entered) -> R) -> Option<R> {
    // SAFETY: what the variable points to is alive while it is set: `during` resets it.
    ENTERED.get().map(|entered| work(unsafe { entered.as_ref() }))
}

/// The state of the entity whose async turn is polled.
pub(crate) struct Lent<E> {
    state: *mut E,
    hold: Hold,
}

impl<E> Lent<E> {
    /// To be called by a future of an `E`, in its first poll.
    pub(crate) fn take() -> Self {
        entered(|turn| Self { state: turn.state.cast(), hold: turn.hold })
    }

    /// The state, until the future is done or dropped.
    pub(crate) fn exclusive<'a>(self) -> &'a mut E {
        assert!(self.hold == Hold::Exclusive, "the turn holds the state alone");
        // SAFETY: slots do not move; the state is initialised; from the first poll on the shard
        // lets nobody else use it until the future is gone.
        unsafe { &mut *self.state }
    }

    /// The state, until the future is done or dropped.
    pub(crate) fn shared<'a>(self) -> &'a E {
        assert!(self.hold == Hold::Read, "the turn holds the state with others that read");
        // SAFETY: as above, except that others read it too.
        unsafe { &*self.state }
    }

    /// Makes the state.
    pub(crate) fn fill(self, state: E) {
        assert!(self.hold == Hold::Activation, "the state is not there yet");
        // SAFETY: the slot is for this state, and nothing was written there yet.
        unsafe { self.state.write(state) };
    }
}
