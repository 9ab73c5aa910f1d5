//! Faults: a panic in user code ends the turn it came from, and nothing else.
//!
//! The parts of a poll that run user code are guarded as a whole, not turn by turn, so a turn that
//! goes well pays two stores: whose turn it is, and that it is over. When one does not, the guard
//! reads there whose fault it is and who waits for its answer, supervision does what is declared,
//! and the poll goes on.
#![expect(unsafe_code, reason = "the entity at fault is reached through its store")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{Ordering, compiler_fence};

use crate::condition::Stage as Slot;
use crate::index::SlotNumber;
use crate::reply::{AskError, Token};
use crate::shard::Shard;
use crate::store::StoreId;
use crate::supervise::Failure;

/// Whose user code is running, for the guard against panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    stage: Stage,
    /// The number of the message; [`NO_MESSAGE`] where there is none.
    message: u16,
    slot: SlotNumber,
    store: Option<StoreId>,
    /// The asker's token; 0 when nobody asks.
    token: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No user code: a panic here is a bug of the runtime.
    None,
    /// An entity has its turn, or its state is being made.
    Turn,
    /// A continuation outside of any entity, or the drop of a value.
    Answering,
}

/// Stands for no message.
pub(crate) const NO_MESSAGE: u16 = u16::MAX;

impl Current {
    pub(crate) const NONE: Self =
        Self { stage: Stage::None, message: NO_MESSAGE, slot: 0, store: None, token: 0 };

    /// Code that belongs to no entity.
    pub(crate) const ANSWERING: Self = Self { stage: Stage::Answering, ..Self::NONE };

    #[inline(always)]
    pub(crate) fn new(
        store: StoreId,
        slot: SlotNumber,
        token: Option<Token>,
        message: u16,
    ) -> Self {
        let token = token.map_or(0, Token::bits);
        Self { stage: Stage::Turn, message, slot, store: Some(store), token }
    }

    /// Code that belongs to no entity, on behalf of an ask.
    pub(crate) fn answering(token: Option<Token>) -> Self {
        Self { token: token.map_or(0, Token::bits), ..Self::ANSWERING }
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
        store.filter(|_| stage == Stage::Turn).map(|id| (id, slot))
    }

    /// Who waits for the answer of the turn.
    pub(crate) fn token(&self) -> Option<Token> {
        (self.stage != Stage::None && self.token != 0).then(|| Token::from_bits(self.token))
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

    /// Deals with a panic in user code: does what follows a fault of the entity whose turn it was,
    /// and answers its asker.
    #[cold]
    fn contain(&mut self, panic: Box<dyn Any + Send>) {
        let current = std::mem::replace(&mut self.current, Current::NONE);
        if current.stage == Stage::None {
            let reason = panic_reason(&*panic);
            eprintln!("coreside: shard {} is broken: {reason}; aborting", self.core.shard);
            std::process::abort();
        }
        self.core.stats.faults += 1;
        self.core.reading = false;
        let reason = panic_reason(&*panic).to_owned();
        // A panic's payload may panic in its own drop.
        self.drop_guarded(|| drop(panic));
        if let Some(task) = self.core.polling.take() {
            let task = self.forget_task(task);
            self.drop_guarded(|| drop(task));
        }
        self.drop_begun();
        let token = (current.token != 0).then(|| Token::from_bits(current.token));
        // SAFETY: one step, after the user's code.
        let in_memory = |id: &StoreId| unsafe { id.get() }.stage(current.slot) != Slot::Free;
        match current.store.filter(in_memory) {
            Some(id) => {
                let backtrace = (self.core.backtrace)();
                let message = (current.message != NO_MESSAGE).then_some(current.message);
                self.fail(id, current.slot, Failure { token, message, reason, backtrace });
            }
            None => {
                if let Some(token) = token {
                    self.core.error_record(token, AskError::Failed);
                }
            }
        }
        self.core.trying = 0;
        // Nobody's, where it was not the fault of an entity's turn.
        let spare = self.core.spare.take();
        self.drop_guarded(|| drop(spare));
    }
}

fn panic_reason(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}
