//! The way in for threads that are not shards: a bounded queue per shard.
#![expect(unsafe_code, reason = "an eventfd is written with a system call")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fmt, io};

use coreside_shard::{Doorbell, Shard};
use crossbeam_queue::ArrayQueue;

/// What a thread outside wants done on a shard. Dropped undone when the node stops first.
pub(crate) type Job = Box<dyn FnOnce(&mut Shard) + Send>;

/// One shard's way in, and the means to wake it.
pub(crate) struct Ingress {
    jobs: ArrayQueue<Job>,
    /// Places taken in `jobs`, or about to be: whoever takes one may push.
    taken: AtomicUsize,
    /// No new jobs; those that wait are still done.
    refusing: AtomicBool,
    /// Nobody takes jobs any more.
    closed: AtomicBool,
    doorbell: Arc<Doorbell>,
    eventfd: OwnedFd,
}

/// Why a job was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is at its bound.
    Full,
    /// The node is stopping.
    Closed,
}

/// The right to push one job. Whoever takes one pushes: until then the shard waits for it to stop.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Ingress);

impl Ingress {
    pub(crate) fn new(capacity: usize, doorbell: Arc<Doorbell>) -> io::Result<Self> {
        // SAFETY: makes a new descriptor, touches no memory.
        let eventfd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if eventfd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            jobs: ArrayQueue::new(capacity.max(1)),
            taken: AtomicUsize::new(0),
            refusing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            doorbell,
            // SAFETY: the descriptor is new and ours alone.
            eventfd: unsafe { OwnedFd::from_raw_fd(eventfd) },
        })
    }

    /// The right to push one job, so that a refusal comes before the message is boxed.
    pub(crate) fn permit(&self) -> Result<Permit<'_>, Refused> {
        if self.refusing.load(Ordering::Acquire) {
            return Err(Refused::Closed);
        }
        if self.taken.fetch_add(1, Ordering::SeqCst) >= self.jobs.capacity() {
            self.taken.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::Full);
        }
        // Once more, behind the place that was taken: either this sees the refusal, or the shard,
        // which refuses before it looks for the last time, sees the place.
        if self.refusing.load(Ordering::SeqCst) {
            self.taken.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::Closed);
        }
        Ok(Permit(self))
    }

    /// The next job, on the shard's thread.
    pub(crate) fn pop(&self) -> Option<Job> {
        let job = self.jobs.pop()?;
        self.taken.fetch_sub(1, Ordering::SeqCst);
        Some(job)
    }

    /// Whether there is no job, and none about to be pushed.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.load(Ordering::SeqCst) == 0
    }

    /// Takes no new jobs from here on.
    pub(crate) fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }

    /// Takes no new jobs and drops those that wait.
    pub(crate) fn close(&self) {
        self.refuse();
        self.closed.store(true, Ordering::SeqCst);
        while self.pop().is_some() {}
    }

    /// Says that the shard is about to sleep (see [`Doorbell`]).
    pub(crate) fn prepare_sleep(&self) {
        self.doorbell.prepare_sleep();
    }

    /// Says that the shard is awake.
    pub(crate) fn awake(&self) {
        self.doorbell.awake();
    }

    /// Wakes the shard if it sleeps. To be called after something was put where it looks.
    pub(crate) fn ring(&self) {
        if self.doorbell.must_ring() {
            self.wake();
        }
    }

    /// Wakes the shard whether it sleeps or not.
    pub(crate) fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes of our own to our own descriptor. A full counter (EAGAIN) is
        // as good as written: the shard has not slept since.
        unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Takes all wake-ups off the eventfd, so that it can be waited on again.
    pub(crate) fn clear_wakeups(&self) {
        let mut count = [0u8; 8];
        // SAFETY: reads eight bytes into our own array; nothing to read is no matter.
        unsafe { libc::read(self.eventfd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    pub(crate) fn eventfd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

impl Permit<'_> {
    /// Pushes the job and wakes the shard if it sleeps.
    pub(crate) fn push(self, job: Job) {
        // The permit is a place: the queue has room, if perhaps not in this very instant, between
        // the pop and the release of a place that is popped.
        let mut job = Some(job);
        while let Some(waiting) = job.take() {
            job = self.0.jobs.push(waiting).err();
        }
        if self.0.closed.load(Ordering::SeqCst) {
            // The shard may have looked for the last time before the push.
            self.0.close();
        }
        self.0.ring();
    }
}

impl fmt::Debug for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingress").field("waiting", &self.jobs.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingress(capacity: usize) -> Ingress {
        Ingress::new(capacity, Arc::new(Doorbell::new())).expect("an eventfd")
    }

    #[test]
    fn full_ingress_refuses_until_a_job_is_taken() {
        let ingress = ingress(2);
        for _ in 0..2 {
            ingress.permit().expect("room").push(Box::new(|_| ()));
        }
        assert_eq!(ingress.permit().err(), Some(Refused::Full));
        assert!(ingress.pop().is_some());
        assert!(ingress.permit().is_ok());
    }

    #[test]
    fn closed_ingress_drops_what_waits_and_what_comes() {
        let ingress = ingress(4);
        let witness = Arc::new(());
        let (first, late) = (Arc::clone(&witness), Arc::clone(&witness));
        ingress.permit().expect("room").push(Box::new(move |_| drop(first)));
        let permit = ingress.permit().expect("room");
        ingress.close();
        permit.push(Box::new(move |_| drop(late)));
        assert_eq!(Arc::strong_count(&witness), 1, "both jobs are gone");
        assert_eq!(ingress.permit().err(), Some(Refused::Closed));
    }
}
