//! The synchronisation primitives that ring, room and doorbell are made of: the standard library's,
//! or loom's where a test explores their interleavings (`--cfg loom`).

#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    sync::{Arc, Mutex, MutexGuard},
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    sync::{Arc, Mutex, MutexGuard},
};

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// The standard cell, made as loom's is.
#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }
}
