//! The thread that makes reports of what the shards' ticks saw.
#![expect(unsafe_code, reason = "an eventfd is read and written with system calls")]

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use coreside_shard::{Table, What};
use crossbeam_queue::ArrayQueue;

use super::{Sighting, StallConfig, StallReport};

/// Whoever is told of stalls, on the reporter's thread.
pub(crate) struct Sink(pub(crate) Box<dyn FnMut(StallReport) + Send>);

impl Default for Sink {
    /// One line on the standard error, and the backtrace.
    fn default() -> Self {
        Self(Box::new(|report| eprintln!("coreside: {report}")))
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// What the ticks saw and nobody has reported yet.
#[derive(Debug)]
pub(crate) struct Sightings {
    config: StallConfig,
    lanes: Vec<Lane>,
    stopping: AtomicBool,
    eventfd: OwnedFd,
}

/// One shard's sightings.
#[derive(Debug)]
struct Lane {
    /// Pushed from a signal handler: no lock, no allocation.
    queue: ArrayQueue<Sighting>,
    /// Turns that were stalls.
    stalls: AtomicU64,
    /// Sightings that found the queue full.
    lost: AtomicU64,
}

/// Sightings of one shard that may wait: more than are reported in half a second.
const SIGHTINGS_MAX: usize = 8;

impl Sightings {
    fn new(config: StallConfig, shards: usize) -> io::Result<Arc<Self>> {
        // SAFETY: makes a new descriptor, touches no memory.
        let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if eventfd < 0 {
            return Err(io::Error::last_os_error());
        }
        let lane = |_| Lane {
            queue: ArrayQueue::new(SIGHTINGS_MAX),
            stalls: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        Ok(Arc::new(Self {
            config,
            lanes: (0..shards).map(lane).collect(),
            stopping: AtomicBool::new(false),
            // SAFETY: the descriptor is new and ours alone.
            eventfd: unsafe { OwnedFd::from_raw_fd(eventfd) },
        }))
    }

    pub(super) fn config(&self) -> &StallConfig {
        &self.config
    }

    /// Turns that were stalls, over all shards.
    pub(crate) fn stalls(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.stalls.load(Ordering::Relaxed)).sum()
    }

    /// Counts a stall. For signal handlers too.
    pub(super) fn count(&self, shard: u16) {
        self.lanes[usize::from(shard)].stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands a sighting to the reporter. For signal handlers too.
    pub(super) fn push(&self, shard: u16, sighting: Sighting) {
        let lane = &self.lanes[usize::from(shard)];
        if lane.queue.push(sighting).is_err() {
            lane.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.wake();
    }

    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes eight bytes of our own to our own descriptor, of which the counter is far
        // from its end: the call does not block.
        unsafe { libc::write(self.eventfd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Sleeps until something was pushed, or the stop.
    fn wait(&self) {
        let mut count = [0u8; 8];
        // SAFETY: reads eight bytes into our own array. Interrupted, it is called again: whoever
        // waits looks at everything in any case.
        unsafe { libc::read(self.eventfd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// A node's reporter. Dropping it ends its thread, behind the last report.
#[derive(Debug)]
pub(crate) struct Reporter {
    sightings: Arc<Sightings>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Starts the thread, unless nothing is to be watched.
    ///
    /// # Errors
    /// The kernel's, when it gives no descriptor or thread.
    pub(crate) fn start(
        config: StallConfig,
        sink: Sink,
        table: &Arc<Table>,
        shards: usize,
    ) -> io::Result<Option<Self>> {
        if config.is_off() {
            return Ok(None);
        }
        let sightings = Sightings::new(config, shards)?;
        let mut desk = Desk::new(Arc::clone(&sightings), sink, Arc::clone(table));
        let name = "coreside-stalls".to_owned();
        let thread = thread::Builder::new().name(name).spawn(move || desk.run())?;
        Ok(Some(Self { sightings, thread: Some(thread) }))
    }

    pub(crate) fn sightings(&self) -> &Arc<Sightings> {
        &self.sightings
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.sightings.stopping.store(true, Ordering::Release);
        self.sightings.wake();
        if let Some(thread) = self.thread.take()
            // The sink itself may be what stops the node.
            && thread.thread().id() != thread::current().id()
        {
            // A sink's panics are contained, and there is nothing to do about any other.
            let _ = thread.join();
        }
    }
}

/// What the reporter's thread works with.
struct Desk {
    sightings: Arc<Sightings>,
    sink: Sink,
    table: Arc<Table>,
    /// By shard.
    limits: Vec<Limit>,
}

/// How many reports of a shard there were in the current second, and how many were left out.
struct Limit {
    since: Instant,
    count: u32,
    suppressed: u64,
}

impl Desk {
    fn new(sightings: Arc<Sightings>, sink: Sink, table: Arc<Table>) -> Self {
        let limit = |_: &Lane| Limit { since: Instant::now(), count: 0, suppressed: 0 };
        let limits = sightings.lanes.iter().map(limit).collect();
        Self { sightings, sink, table, limits }
    }

    fn run(&mut self) {
        loop {
            self.sightings.wait();
            // Before the queues: what was pushed ahead of the stop is reported.
            let stopping = self.sightings.stopping.load(Ordering::Acquire);
            for shard in 0..self.limits.len() {
                while let Some(sighting) = self.sightings.lanes[shard].queue.pop() {
                    self.report(shard, &sighting);
                }
            }
            if stopping {
                return;
            }
        }
    }

    fn report(&mut self, shard: usize, sighting: &Sighting) {
        let limit = &mut self.limits[shard];
        if limit.since.elapsed() >= Duration::from_secs(1) {
            limit.since = Instant::now();
            limit.count = 0;
        }
        limit.suppressed += self.sightings.lanes[shard].lost.swap(0, Ordering::Relaxed);
        if limit.count >= self.sightings.config.reports_per_second_max {
            limit.suppressed += 1;
            return;
        }
        limit.count += 1;
        let suppressed = std::mem::take(&mut limit.suppressed);
        let (entity, message) = self.names(sighting);
        let report = StallReport {
            shard: shard as u16,
            entity,
            key: sighting.turn.entity.map(|(_, key)| key),
            message,
            lasted: Duration::from_nanos(sighting.lasted_ns),
            ended: sighting.ended,
            backtrace: (sighting.frame_count > 0).then(|| symbolize(sighting)),
            suppressed,
        };
        // The panic hook has said what was wrong with the sink.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.sink.0)(report)));
    }

    fn names(&self, sighting: &Sighting) -> (Option<&'static str>, String) {
        let row = |number: u16| self.table.messages().nth(usize::from(number));
        let entity = sighting.turn.entity;
        let entity =
            entity.and_then(|(number, _)| self.table.type_names().nth(usize::from(number)));
        match sighting.turn.what {
            What::Message(number) => match row(number) {
                Some((name, method)) => (entity.or(Some(name)), method.to_owned()),
                None => (entity, "a message".to_owned()),
            },
            What::Answer(number) => {
                let asked = number.and_then(row);
                let text = asked.map_or("an answer".to_owned(), |(name, method)| {
                    format!("an answer to {name}.{method}")
                });
                (entity, text)
            }
            What::Sweep(_) => (entity, "a sweep".to_owned()),
        }
    }
}

/// The names and lines of the turn's own frames.
fn symbolize(sighting: &Sighting) -> String {
    let frames: Vec<Vec<Symbol>> =
        sighting.frames[..sighting.frame_count].iter().map(|address| symbols(*address)).collect();
    // Outermost is what every turn has in common: the driver, the poll.
    let outermost = |is_it: fn(&Symbol) -> bool| {
        frames.iter().rposition(|frame| frame.iter().any(is_it)).map(|at| at + 1)
    };
    let end = outermost(Symbol::is_turn).or_else(|| outermost(Symbol::is_shard));
    let mut text = String::new();
    for symbol in frames[..end.unwrap_or(frames.len())].iter().flatten() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "    {}", symbol.name);
        if let Some(place) = &symbol.place {
            let _ = writeln!(text, "        at {place}");
        }
    }
    text
}

struct Symbol {
    name: String,
    place: Option<String>,
}

impl Symbol {
    /// Whether it is where a record meets its entity. Names have no path where the build keeps
    /// nothing but lines; then the file says it.
    fn is_turn(&self) -> bool {
        let is_file = |place: &str| place.contains("/src/turn.rs:");
        self.name.contains("coreside_shard::turn::")
            || self.is_shard() && self.place.as_deref().is_some_and(is_file)
    }

    fn is_shard(&self) -> bool {
        let is_file =
            |place: &str| place.contains("shard/src/") || place.contains("coreside-shard-");
        self.name.contains("coreside_shard::") || self.place.as_deref().is_some_and(is_file)
    }
}

/// What is at an address: more than one function where some were inlined.
fn symbols(address: usize) -> Vec<Symbol> {
    let mut found = Vec::new();
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        let name = symbol.name().map_or(format!("{address:#x}"), |name| format!("{name:#}"));
        let place = symbol
            .filename()
            .map(|file| format!("{}:{}", file.display(), symbol.lineno().unwrap_or_default()));
        found.push(Symbol { name, place });
    });
    if found.is_empty() {
        found.push(Symbol { name: format!("{address:#x}"), place: None });
    }
    found
}
