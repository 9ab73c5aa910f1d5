//! Wakers: how any thread says that an async turn can go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::Wake;
use crate::doorbell::Doorbell;

/// Where the wakers of a shard's async turns leave word.
pub(crate) struct Wakes {
    woken: Mutex<Vec<u32>>,
    pub(super) any: AtomicBool,
    shard: u16,
    doorbell: Option<Arc<Doorbell>>,
    ring: Wake,
}

impl Wakes {
    pub(crate) fn new(shard: u16, doorbell: Option<Arc<Doorbell>>, ring: Wake) -> Arc<Self> {
        let (woken, any) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        Arc::new(Self { woken, any, shard, doorbell, ring })
    }

    /// Nothing that is done under the lock can leave the list half changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the wakers of one place lead to.
pub(super) struct TaskWake {
    wakes: Arc<Wakes>,
    place: u32,
    /// In the list already.
    pub(super) queued: AtomicBool,
}

impl TaskWake {
    pub(super) fn new(wakes: Arc<Wakes>, place: u32) -> Arc<Self> {
        Arc::new(Self { wakes, place, queued: AtomicBool::new(false) })
    }
}

impl std::task::Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let wakes = &self.wakes;
        let mut places = wakes.lock();
        places.push(self.place);
        wakes.any.store(true, Ordering::SeqCst);
        drop(places);
        // The sleeper looks at the list after it has said that it sleeps (see `Doorbell`).
        if wakes.doorbell.as_ref().is_some_and(|bell| bell.must_ring()) {
            (wakes.ring)(wakes.shard);
        }
    }
}
