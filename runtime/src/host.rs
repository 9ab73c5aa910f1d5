//! What a shard's loop runs on: a glommio executor, or a plain thread where io_uring is refused.
//!
//! glommio needs io_uring for itself, so a node on epoll does without it. The loop is the same
//! code on both, an `async` function. On an executor it waits as futures do; on a thread each of
//! its waits blocks and is over when it returns, so that one poll runs the loop from its start to
//! its end.
#![expect(unsafe_code, reason = "a thread is pinned with a system call")]

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use coreside_net::DriverKind;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder};

use crate::node::NodeError;
use crate::park::{self, Wakers};
use crate::topology::Topology;

/// Where a shard's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    Core(usize),
    Anywhere,
}

/// What the calling loop runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A glommio executor, which has pinned its thread.
    Executor,
    /// A thread that nobody else uses.
    Thread(Seat),
}

/// A shard's thread.
#[derive(Debug)]
pub(crate) enum Running {
    Executor(ExecutorJoinHandle<()>),
    Thread(JoinHandle<()>),
}

/// How long a shard sleeps that cannot be told when to wake.
const NAP: Duration = Duration::from_millis(5);

/// Starts a thread of this name that runs what `body` makes.
pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
    driver: DriverKind,
    seat: Seat,
    name: &str,
    body: impl FnOnce(Host) -> F + Send + 'static,
) -> Result<Running, NodeError> {
    match driver {
        DriverKind::Uring => executor(seat)
            .name(name)
            .spawn(move || body(Host::Executor))
            .map(Running::Executor)
            .map_err(|error| NodeError::Executor(error.to_string())),
        DriverKind::Epoll => thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(body(Host::Thread(seat))))
            .map(Running::Thread)
            .map_err(NodeError::System),
    }
}

/// What executors of shards have in common.
pub(crate) fn executor(seat: Seat) -> LocalExecutorBuilder {
    let placement = match seat {
        Seat::Core(core) => glommio::Placement::Fixed(core),
        Seat::Anywhere => glommio::Placement::Unbound,
    };
    // Files are not used yet; the default would pin 10 MiB per shard.
    LocalExecutorBuilder::new(placement).io_memory(64 << 10)
}

/// Runs a future that waits by blocking.
fn run(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    while future.as_mut().poll(&mut context).is_pending() {
        debug_assert!(false, "a wait that does not block");
    }
}

impl Running {
    /// Waits for its end.
    pub(crate) fn join(self) {
        // Only a panic while the shard is set up gets here: the hook has reported it, and `ready`
        // is dropped. Later ones end the process.
        match self {
            Self::Executor(handle) => drop(handle.join()),
            Self::Thread(handle) => drop(handle.join()),
        }
    }
}

impl Host {
    /// Sits down where the shard belongs.
    ///
    /// # Errors
    /// The kernel's, when the core may not be used.
    pub(crate) fn settle(self) -> io::Result<()> {
        match self {
            Self::Thread(Seat::Core(core)) => pin_to(core),
            Self::Thread(Seat::Anywhere) | Self::Executor => Ok(()),
        }
    }

    /// Sleeps until something is to be done, or `limit` has passed; perhaps less.
    pub(crate) async fn sleep(self, wakers: Wakers, limit: Option<Duration>) {
        let outcome = match self {
            Self::Executor => park::sleep(wakers.eventfd, limit).await,
            Self::Thread(_) => park::block(wakers, limit),
        };
        if outcome.is_err() {
            // Out of descriptors or memory: look again a little later instead.
            self.doze(NAP).await;
        }
    }

    /// Sleeps for this time, whatever happens.
    pub(crate) async fn doze(self, time: Duration) {
        match self {
            Self::Executor => glommio::timer::sleep(time).await,
            Self::Thread(_) => thread::sleep(time),
        }
    }

    /// Lets others of the same thread run, if there are any and it is time.
    pub(crate) async fn give_way(self) {
        if self == Self::Executor {
            glommio::yield_if_needed().await;
        }
    }
}

/// Where each shard's thread runs, and why it is not pinned where it is not.
pub(crate) fn seats(
    count: usize,
    cores: Option<&[usize]>,
    topology: &Topology,
    notes: &mut Vec<String>,
) -> Result<Vec<Seat>, NodeError> {
    let pinned = |cores: &[usize]| (0..count).map(|i| Seat::Core(cores[i % cores.len()])).collect();
    if let Some(cores) = cores.filter(|cores| !cores.is_empty()) {
        if let Some(core) = cores.iter().find(|core| !topology.cores.contains(core)) {
            return Err(NodeError::Core(*core));
        }
        return Ok(pinned(cores));
    }
    if let Some(quota) = topology.quota {
        notes.push(format!("shards are not pinned: the cgroup grants {quota:.2} cores of time"));
    } else if count > topology.cores.len() {
        let cores = topology.cores.len();
        notes.push(format!("shards are not pinned: there are {count} of them on {cores} cores"));
    } else {
        return Ok(pinned(&topology.cores));
    }
    Ok(vec![Seat::Anywhere; count])
}

/// Pins the calling thread.
fn pin_to(core: usize) -> io::Result<()> {
    // SAFETY: a set of bits, for which all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: sets a bit of the set, below its size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: reads the set, which has the given size.
    let outcome = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_host_is_pinned_and_runs_to_the_end_with_its_waits() {
        let cores = Topology::read().cores;
        let core = *cores.last().expect("this machine has a core");
        let (tell, told) = std::sync::mpsc::channel();
        let seat = Seat::Core(core);
        let running = spawn(DriverKind::Epoll, seat, "pinned", move |host| async move {
            host.settle().expect("the core may be used");
            host.give_way().await;
            host.doze(Duration::from_micros(1)).await;
            tell.send((Topology::read().cores, thread::current().name().map(str::to_owned)))
                .expect("the test listens");
        });
        let seen = told.recv().expect("the thread runs");
        running.expect("a thread").join();
        assert_eq!(seen, (vec![core], Some("pinned".to_owned())));
    }

    #[test]
    fn core_that_there_is_not_is_an_error() {
        assert!(pin_to(1 << 20).is_err());
    }
}
