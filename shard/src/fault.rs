//! Faults: a panic in user code ends the turn it came from, and nothing else.
//!
//! The parts of a poll that run user code are guarded as a whole, not turn by turn, so a turn that
//! goes well pays two stores: whose turn it is, and that it is over. When one does not, the guard
//! reads there which entity to drop and who waits for its answer, and the poll goes on.
#![expect(unsafe_code, reason = "the entity at fault is reached through its store")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{Ordering, compiler_fence};

use crate::index::SlotNumber;
use crate::reply::{AskError, Token};
use crate::shard::Shard;
use crate::store::StoreId;

/// Whose user code is running, for the guard against panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    stage: Stage,
    slot: SlotNumber,
    store: Option<StoreId>,
    /// The asker's token; 0 when nobody asks.
    token: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No user code: a panic here is a bug of the runtime.
    None,
    /// The state for a slot is being made.
    Activating,
    /// An entity has its turn.
    Turn,
    /// A continuation outside of any entity, or the drop of a value.
    Answering,
}

impl Current {
    pub(crate) const NONE: Self = Self { stage: Stage::None, slot: 0, store: None, token: 0 };

    #[inline(always)]
    pub(crate) fn new(store: StoreId, slot: SlotNumber, token: Option<Token>) -> Self {
        Self { stage: Stage::Turn, slot, store: Some(store), token: token.map_or(0, Token::bits) }
    }

    /// The user's code has returned.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        // Whose turn it was may have been read by a watcher that interrupted it, so it must have
        // been written. For the compiler only: no instruction.
        compiler_fence(Ordering::SeqCst);
        self.stage = Stage::None;
    }

    /// Whose turn it is, read by a watcher that has interrupted the shard.
    ///
    /// # Safety
    /// `this` is alive, and the caller is on its shard's thread.
    pub(crate) unsafe fn peek(this: *const Self) -> Option<(StoreId, SlotNumber)> {
        // SAFETY: alive by contract; written by this thread only, a field at a time.
        let (stage, slot, store) = unsafe {
            (
                (&raw const (*this).stage).read_volatile(),
                (&raw const (*this).slot).read_volatile(),
                (&raw const (*this).store).read_volatile(),
            )
        };
        store.filter(|_| matches!(stage, Stage::Turn | Stage::Activating)).map(|id| (id, slot))
    }

    pub(crate) fn activating(store: StoreId, slot: SlotNumber, token: Option<Token>) -> Self {
        Self { stage: Stage::Activating, ..Self::new(store, slot, token) }
    }

    /// Code that belongs to no entity.
    pub(crate) const ANSWERING: Self = Self { stage: Stage::Answering, ..Self::NONE };

    /// The total of a sweep is being made, for whoever asked for it.
    pub(crate) fn starting(token: Token) -> Self {
        Self { token: token.bits(), ..Self::ANSWERING }
    }
}

impl Shard {
    /// Runs `work`, which may send messages; a panic in it is contained and counted. Returns
    /// whether there was none.
    pub fn attempt(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        self.guard(|shard| {
            shard.current = Current::ANSWERING;
            work(shard);
            shard.current.clear();
        })
    }

    /// Runs a part of a poll; deals with a panic in user code that ends it. Returns whether there
    /// was none.
    #[inline]
    pub(crate) fn guard(&mut self, part: impl FnOnce(&mut Self)) -> bool {
        match catch_unwind(AssertUnwindSafe(|| part(self))) {
            Ok(()) => true,
            Err(panic) => {
                self.contain(panic);
                false
            }
        }
    }

    /// Deals with a panic in user code: drops the entity whose turn it was, and answers its asker.
    ///
    /// This is the seam for supervision: the policy that follows a fault is decided here.
    #[cold]
    fn contain(&mut self, panic: Box<dyn Any + Send>) {
        let current = std::mem::replace(&mut self.current, Current::NONE);
        match current.stage {
            Stage::None => {
                let reason = panic_reason(&*panic);
                eprintln!("coreside: shard {} is broken: {reason}; aborting", self.core.shard);
                std::process::abort();
            }
            Stage::Activating => {
                // SAFETY: one step, after the user's code.
                current.store.into_iter().for_each(|id| unsafe { id.get() }.discard(current.slot));
            }
            Stage::Turn => {
                // SAFETY: one step, after the user's code.
                let Some(store) = current.store.map(|id| unsafe { id.get() }) else { return };
                if store.is_live(current.slot) {
                    // A second panic, in the state's own drop, leaks what it left.
                    let remove = || store.remove(current.slot);
                    if catch_unwind(AssertUnwindSafe(remove)).is_err() {
                        self.core.stats.faults += 1;
                    }
                }
            }
            Stage::Answering => {}
        }
        self.core.stats.faults += 1;
        // A panic's payload may panic in its own drop.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        if current.token != 0 {
            self.core.error_record(Token::from_bits(current.token), AskError::Failed);
        }
    }
}

fn panic_reason(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}
