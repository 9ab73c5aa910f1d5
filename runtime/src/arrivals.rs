//! Connections on their way from one shard to another: the client has asked for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use coreside_net::Moving;

/// What has arrived at one shard.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    any: AtomicBool,
    /// Each has a descriptor, so the limit of those is that of this list.
    waiting: Mutex<Vec<Moving>>,
}

impl Arrivals {
    /// Leaves a connection. The shard is to be woken behind this.
    pub(crate) fn put(&self, moving: Moving) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(moving);
        self.any.store(true, Ordering::SeqCst);
    }

    /// Whether there is something to be taken. Costs a load.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    /// Takes what there is.
    pub(crate) fn take(&self) -> Vec<Moving> {
        self.any.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
