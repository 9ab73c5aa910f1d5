//! The way in for threads that are not shards: a bounded queue per shard, and a line before it.
#![expect(unsafe_code, reason = "an eventfd is written with a system call")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};

use coreside_shard::{Doorbell, Refused, Room, Shard};
use crossbeam_queue::ArrayQueue;

use crate::faults::contain;

/// What a thread outside wants done on a shard. Dropped undone when the node stops first.
pub(crate) type Job = Box<dyn FnMut(&mut Shard) -> Ran + Send>;

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It is done.
    Done,
    /// The shard has no room for its message: it is to run again, before any other.
    NoRoom,
}

/// A job that runs once, whatever room the shard has.
pub(crate) fn once(work: impl FnOnce(&mut Shard) + Send + 'static) -> Job {
    let mut work = Some(work);
    Box::new(move |shard| {
        if let Some(work) = work.take() {
            work(shard);
        }
        Ran::Done
    })
}

/// A job that waits for room in the ingress.
pub(crate) struct Waiting {
    pub(crate) job: Job,
    /// When it leaves the line in any case, on the ingress's clock.
    pub(crate) deadline_ns: u64,
    /// Who is told how it ended: whether the job was taken in.
    pub(crate) notice: Option<Arc<dyn Notice>>,
}

/// Whoever waits for room.
pub(crate) trait Notice: Send + Sync {
    /// Hears, once, whether the job was taken in, or has left the line because the node stops.
    fn settle(&self, taken: bool);
}

/// One shard's way in, and the means to wake it.
pub(crate) struct Ingress {
    jobs: ArrayQueue<Job>,
    /// Places in `jobs`: whoever has one may push. Before them, the line.
    room: Room<Waiting>,
    /// No deadline in the line is earlier.
    earliest_ns: AtomicU64,
    /// Where the deadlines count from.
    start: Instant,
    /// Nobody takes jobs any more.
    closed: AtomicBool,
    doorbell: Arc<Doorbell>,
    eventfd: OwnedFd,
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
        let capacity = capacity.max(1);
        Ok(Self {
            jobs: ArrayQueue::new(capacity),
            room: Room::new(capacity),
            earliest_ns: AtomicU64::new(u64::MAX),
            start: Instant::now(),
            closed: AtomicBool::new(false),
            doorbell,
            // SAFETY: the descriptor is new and ours alone.
            eventfd: unsafe { OwnedFd::from_raw_fd(eventfd) },
        })
    }

    /// The right to push one job, so that a refusal comes before the message is boxed.
    pub(crate) fn permit(&self) -> Result<Permit<'_>, Refused> {
        self.room.take(|waiting| self.take_in(waiting), |notice| self.tell_taken(notice))?;
        Ok(Permit(self))
    }

    /// Puts a job into the line for room. It is taken in when its turn comes, whether or not
    /// whoever waits looks again. Returns the number to [`withdraw`](Self::withdraw) it by; `None`
    /// when the node is stopping, and the job is dropped.
    pub(crate) fn wait(&self, waiting: Waiting) -> Option<u64> {
        let deadline_ns = waiting.deadline_ns;
        let take_in = |waiting| self.take_in(waiting);
        let number = self.room.wait(waiting, take_in, |notice| self.tell_taken(notice)).ok()?;
        // Behind the entry: `expire`, which resets it, looks into the line afterwards.
        self.earliest_ns.fetch_min(deadline_ns, Ordering::SeqCst);
        Some(number)
    }

    /// Takes a job out of the line, if it is still there, and drops it.
    pub(crate) fn withdraw(&self, number: u64) {
        drop(self.room.withdraw(number));
    }

    /// The time that deadlines in the line have: now, and so much later.
    pub(crate) fn deadline_ns(&self, within: Duration) -> u64 {
        u64::try_from((self.start.elapsed().saturating_add(within)).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Drops the jobs in the line that are past their deadline, on the shard's thread.
    pub(crate) fn expire(&self) {
        if !self.room.has_waiters() {
            return;
        }
        let now_ns = self.deadline_ns(Duration::ZERO);
        if now_ns < self.earliest_ns.load(Ordering::SeqCst) {
            return;
        }
        self.earliest_ns.store(u64::MAX, Ordering::SeqCst);
        let expired = self.room.withdraw_unless(|waiting| {
            let keep = waiting.deadline_ns > now_ns;
            if keep {
                self.earliest_ns.fetch_min(waiting.deadline_ns, Ordering::SeqCst);
            }
            keep
        });
        for waiting in expired {
            contain(|| drop(waiting));
        }
    }

    /// The next job, on the shard's thread.
    pub(crate) fn pop(&self) -> Option<Job> {
        let job = self.jobs.pop()?;
        self.room.give_back(|waiting| self.take_in(waiting), |notice| self.tell_taken(notice));
        Some(job)
    }

    /// Whether there is no job, none about to be pushed, and nobody waits for room.
    pub(crate) fn is_empty(&self) -> bool {
        self.room.is_empty()
    }

    /// Takes no new jobs from here on, and sends away those who wait for room.
    pub(crate) fn refuse(&self) {
        for waiting in self.room.close() {
            let notice = waiting.notice.clone();
            contain(|| drop(waiting));
            if let Some(notice) = notice {
                contain(|| notice.settle(false));
            }
        }
    }

    /// Takes no new jobs and drops those that wait.
    pub(crate) fn close(&self) {
        self.refuse();
        self.closed.store(true, Ordering::SeqCst);
        while let Some(job) = self.pop() {
            contain(|| drop(job));
        }
    }

    /// Puts a job from the line into its place in the queue. Under the line's lock.
    fn take_in(&self, waiting: Waiting) -> Option<Arc<dyn Notice>> {
        self.push(waiting.job);
        waiting.notice
    }

    /// Behind [`take_in`](Self::take_in), without the lock.
    fn tell_taken(&self, notice: Option<Arc<dyn Notice>>) {
        if self.closed.load(Ordering::SeqCst) {
            // The shard may have looked for the last time before the push.
            self.close();
        }
        self.ring();
        if let Some(notice) = notice {
            contain(|| notice.settle(true));
        }
    }

    /// Pushes the job of somebody who has a place.
    fn push(&self, job: Job) {
        // The queue has room, if perhaps not in this very instant, between the pop and the release
        // of a place that is popped.
        let mut job = Some(job);
        while let Some(waiting) = job.take() {
            job = self.jobs.push(waiting).err();
        }
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
        self.0.push(job);
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
            ingress.permit().expect("room").push(once(|_| ()));
        }
        assert_eq!(ingress.permit().err(), Some(Refused::Full));
        assert!(ingress.pop().is_some());
        assert!(ingress.permit().is_ok());
    }

    #[test]
    fn closed_ingress_drops_what_waits_and_what_comes() {
        let ingress = ingress(2);
        let witness = Arc::new(());
        let (first, late) = (Arc::clone(&witness), Arc::clone(&witness));
        let (waiter, last) = (Arc::clone(&witness), Arc::clone(&witness));
        let waiting = |witness: Arc<()>| {
            let job = once(move |_| drop(witness));
            Waiting { job, deadline_ns: u64::MAX, notice: None }
        };
        ingress.permit().expect("room").push(once(move |_| drop(first)));
        let permit = ingress.permit().expect("room");
        assert!(ingress.wait(waiting(waiter)).is_some());
        ingress.close();
        assert!(ingress.wait(waiting(last)).is_none());
        permit.push(once(move |_| drop(late)));
        assert_eq!(Arc::strong_count(&witness), 1, "all jobs are gone");
        assert_eq!(ingress.permit().err(), Some(Refused::Closed));
    }

    #[test]
    fn job_past_its_deadline_leaves_the_line() {
        let ingress = ingress(1);
        ingress.permit().expect("room").push(once(|_| ()));
        let witness = Arc::new(());
        for deadline_ns in [0, u64::MAX, 1] {
            let witness = Arc::clone(&witness);
            let job = once(move |_| drop(witness));
            assert!(ingress.wait(Waiting { job, deadline_ns, notice: None }).is_some());
        }
        ingress.expire();
        assert_eq!(Arc::strong_count(&witness), 2, "one job has time");
        assert!(ingress.pop().is_some() && ingress.pop().is_some() && ingress.pop().is_none());
        assert!(ingress.is_empty());
    }
}
