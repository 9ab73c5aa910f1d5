//! Driving a shard: on a thread of its own, on a core of its own if may be.
//!
//! One task does everything, in this order and for ever: completions of the net, jobs from
//! outside, a poll of the shard, sends of the net. It gives way to others of its thread when it is
//! time, and sleeps when there was nothing to do for a while. What it runs on is the [`Host`]'s
//! matter.
//!
//! # Sleeping
//! Four things can bring work: the net, another shard, a thread outside, the stop. The last three
//! write the shard's eventfd. The net's ring does so too; epoll has a descriptor that is waited on
//! beside it. The order on the way to sleep closes the race with each: say that we sleep
//! ([`Doorbell`]), then look at everything once more, then wait.
//!
//! [`Doorbell`]: coreside_shard::Doorbell
#![expect(unsafe_code, reason = "a shard that lies still is watched")]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use coreside_net::{Facts, Listeners, Net, NetConfig, NetStats};
use coreside_shard::{AskError, MeshEnd, Placement, Progress, Shard, ShardConfig, Table};

use crate::clock::Clock;
use crate::faults::{self, AbortOnPanic, FaultSink, contain};
use crate::handle::{Counts, Shared};
use crate::host::{self, Host, Running, Seat};
use crate::ingress::{Ingress, Job, Ran};
use crate::node::{Idle, NodeError};
use crate::park::Wakers;
use crate::ports::Ports;
use crate::stall::Watch;
use crate::stopping::{Phase, Stopping};

/// Everything that a shard's thread is given.
pub(crate) struct Drive {
    pub(crate) shard: ShardConfig,
    pub(crate) table: Arc<Table>,
    pub(crate) mesh: MeshEnd,
    pub(crate) placement: Placement,
    pub(crate) net: NetConfig,
    pub(crate) listeners: Listeners,
    pub(crate) ports: Ports,
    pub(crate) idle: Idle,
    /// Where the clocks of all shards begin.
    pub(crate) start: Instant,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stopping: Arc<Stopping>,
    pub(crate) fault_sink: FaultSink,
}

/// Jobs taken from outside per pass.
const JOBS_PER_PASS: usize = 256;

/// Passes between two updates of what the shard shows of itself.
const PASSES_PER_REPORT: u32 = 1024;

/// The longest sleep while asks wait for their deadline.
const NAP: Duration = Duration::from_millis(5);

impl Drive {
    /// Starts the thread; `ready` hears how it went.
    pub(crate) fn start(
        self,
        seat: Seat,
        ready: Sender<Result<(), NodeError>>,
    ) -> Result<Running, NodeError> {
        let name = format!("coreside-{}", self.mesh.shard());
        host::spawn(self.net.driver, seat, &name, move |host| async move {
            match self.set_up(host) {
                Ok(mut driver) => {
                    // Nobody listens any more if another shard failed to start.
                    let _ = ready.send(Ok(()));
                    drop(ready);
                    driver.run().await;
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })
    }

    fn set_up(self, host: Host) -> Result<Driver, NodeError> {
        host.settle().map_err(NodeError::System)?;
        let number = self.mesh.shard();
        let shared = Arc::clone(&self.shared);
        let wake = move |shard: u16| shared.ingresses[usize::from(shard)].wake();
        let port = self.listeners.resp.as_ref().and_then(|listener| listener.local_addr().ok());
        let mut shard =
            Shard::new(&self.shard, self.table, self.mesh, self.placement, Arc::new(wake))
                .map_err(NodeError::System)?;
        let mut net = Net::new(self.net, self.listeners).map_err(NodeError::Net)?;
        net.register_eventfd(self.shared.ingresses[usize::from(number)].eventfd())
            .map_err(NodeError::Net)?;
        let shards = self.shared.ingresses.len() as u16;
        net.set_native_facts(self.ports.facts((number, shards), self.shared.hash_key));
        let mut clock = Clock::new(self.start);
        shard.start_kept(clock.now());
        let spin = match self.idle {
            Idle::Spin => None,
            Idle::Park { spin } => Some(spin),
        };
        Ok(Driver {
            host,
            number,
            watch: None,
            shard,
            net,
            clock,
            spin,
            shared: self.shared,
            stopping: self.stopping,
            fault_sink: self.fault_sink,
            held: None,
            passes: 0,
            busy: Busy::default(),
            port: port.map_or(0, |address| address.port()),
            next_facts_ns: 0,
            refusal_told: false,
        })
    }
}

/// One shard with its sockets, on its thread.
struct Driver {
    host: Host,
    number: u16,
    /// Reads the shard, so it goes first.
    watch: Option<Watch>,
    shard: Shard,
    net: Net,
    clock: Clock,
    /// How long to look for work before sleeping; `None` for ever.
    spin: Option<Duration>,
    shared: Arc<Shared>,
    stopping: Arc<Stopping>,
    fault_sink: FaultSink,
    /// A job that found no room on the shard: the next to run.
    held: Option<Job>,
    passes: u32,
    busy: Busy,
    port: u16,
    /// When the sessions are told about the node next.
    next_facts_ns: u64,
    refusal_told: bool,
}

/// How long the shard had something to do. A pass ends where the next one begins, so this reads no
/// clock.
#[derive(Default)]
struct Busy {
    total_ns: u64,
    began_ns: u64,
    /// The last pass had something to do.
    worked: bool,
}

impl Busy {
    fn pass_begins(&mut self, now_ns: u64) {
        if self.worked {
            self.total_ns += now_ns - self.began_ns;
        }
        self.began_ns = now_ns;
    }
}

impl Driver {
    async fn run(&mut self) {
        let _unbroken = AbortOnPanic { shard: self.number };
        self.watch();
        self.report();
        let mut idle_since_ns = None;
        while self.stopping.phase() == Phase::Running {
            if self.pass() {
                idle_since_ns = None;
            } else if let Some(spin) = self.spin {
                let now_ns = self.clock.monotonic_ns();
                let since_ns = *idle_since_ns.get_or_insert(now_ns);
                if now_ns - since_ns >= spin.as_nanos() as u64 {
                    self.park().await;
                    idle_since_ns = None;
                }
            } else {
                std::hint::spin_loop();
            }
            self.host.give_way().await;
        }
        self.drain().await;
        self.end();
    }

    /// Has stalls of this shard seen from here on.
    fn watch(&mut self) {
        let Some(sightings) = self.shared.sightings.clone() else { return };
        // SAFETY: from its run on, the driver lies still on this thread; the watch goes before the
        // shard does.
        let point = unsafe { self.shard.watch_point() };
        match Watch::start(self.number, point, sightings) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                eprintln!("coreside: shard {}: stalls are not seen: {error}", self.number);
            }
        }
    }

    /// One pass over everything that may have work. Returns whether anything had.
    fn pass(&mut self) -> bool {
        let now = self.clock.now();
        self.busy.pass_begins(now.monotonic_ns);
        self.shard.tick(now);
        self.net.tick(now.monotonic_ns);
        let received = self.net.receive(&mut self.shard) + self.exchange_connections();
        let (jobs, progress) = faults::contained(self.number, || {
            let jobs = self.take_jobs();
            let progress: Progress = self.shard.poll(now, self.net.outside());
            (jobs, progress)
        });
        if self.shard.has_faults() {
            self.tell_faults();
        }
        let sent = match self.net.flush() {
            Ok(sent) => sent,
            Err(error) => {
                self.stop_node(NodeError::Net(error));
                0
            }
        };
        self.passes = self.passes.wrapping_add(1);
        if self.passes.is_multiple_of(PASSES_PER_REPORT) {
            self.report();
        }
        self.busy.worked = received + jobs + sent > 0 || !progress.is_idle();
        self.busy.worked
    }

    /// Sends connections to the shards that their clients asked for, and takes those that come.
    fn exchange_connections(&mut self) -> usize {
        for moving in self.net.take_moving() {
            let shard = usize::from(moving.shard);
            self.shared.arrivals[shard].put(moving);
            self.shared.ingresses[shard].ring();
        }
        let arrivals = &self.shared.arrivals[usize::from(self.number)];
        if arrivals.is_empty() {
            return 0;
        }
        let arrived = arrivals.take();
        let count = arrived.len();
        for moving in arrived {
            self.net.adopt(moving, &mut self.shard);
        }
        count
    }

    /// Tells of faults that no supervisor hears of, and stops the node where nobody decides.
    #[cold]
    fn tell_faults(&mut self) {
        for fault in self.shard.take_faults() {
            self.fault_sink.tell(self.number, fault);
        }
        if let Some(entity) = self.shard.take_escalation() {
            self.stop_node(NodeError::Escalated(entity));
        }
    }

    /// Begins the stop of a node that cannot go on, and says so once.
    fn stop_node(&self, error: NodeError) {
        let line = format!("coreside: shard {}: {error}; stopping the node", self.number);
        if self.stopping.fail(error) {
            eprintln!("{line}");
            self.shared.ingresses.iter().for_each(Ingress::wake);
        }
    }

    fn ingress(&self) -> &Ingress {
        &self.shared.ingresses[usize::from(self.number)]
    }

    fn take_jobs(&mut self) -> usize {
        let mut count = 0;
        while count < JOBS_PER_PASS && !self.shard.is_congested() {
            let Some(mut job) = self.held.take().or_else(|| self.ingress().pop()) else { break };
            let held = &mut self.held;
            // A panic ends the job, whose caller hears of it by the promise that is dropped.
            self.shard.attempt(move |shard| {
                if job(shard) == Ran::NoRoom {
                    *held = Some(job);
                }
            });
            if self.held.is_some() {
                break;
            }
            count += 1;
        }
        self.ingress().expire();
        count
    }

    /// Sleeps until something wants this shard.
    async fn park(&mut self) {
        self.report();
        let shared = Arc::clone(&self.shared);
        let ingress = &shared.ingresses[usize::from(self.number)];
        ingress.prepare_sleep();
        let work = self.shard.has_work()
            || self.held.is_some()
            || !ingress.is_empty()
            || !shared.arrivals[usize::from(self.number)].is_empty()
            || self.stopping.phase() != Phase::Running
            || !self.net.prepare_park();
        if work {
            ingress.awake();
            return;
        }
        let counts = &shared.board[usize::from(self.number)];
        counts.parks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.watch.iter().for_each(Watch::pause);
        let wakers = Wakers { eventfd: ingress.eventfd(), net: self.net.wait_descriptor() };
        self.host.sleep(wakers, self.nap()).await;
        self.watch.iter().for_each(Watch::resume);
        ingress.clear_wakeups();
        ingress.awake();
        self.net.unpark();
    }

    /// How long the shard may sleep when nothing wakes it; `None` for ever.
    fn nap(&self) -> Option<Duration> {
        let now_ns = self.clock.monotonic_ns();
        let due = |at_ns: u64| Duration::from_nanos(at_ns.saturating_sub(now_ns));
        let timers = self.shard.next_deadline_ns().map(due);
        let asks = (self.shard.asks_waiting() > 0).then_some(NAP);
        let net = self.net.next_deadline_ns().map(due);
        [timers, asks, net].into_iter().flatten().min()
    }

    /// Finishes what is under way, within the limit.
    async fn drain(&mut self) {
        self.net.drain();
        self.ingress().refuse();
        self.shard.release_kept();
        let begun_ns = self.clock.monotonic_ns();
        let limit_ns = self.stopping.limit().as_nanos() as u64;
        while self.stopping.phase() == Phase::Draining {
            self.stopping.withdraw(self.number);
            let busy = self.pass();
            let idle = !busy
                && !self.shard.has_work()
                && self.shard.asks_waiting() == 0
                && !self.shard.has_unfinished_turns()
                && self.held.is_none()
                && self.ingress().is_empty()
                && !self.net.has_unfinished_work();
            if self.stopping.report(self.number, idle, self.shard.traffic_words()) {
                break;
            }
            if self.clock.monotonic_ns() - begun_ns > limit_ns {
                eprintln!(
                    "coreside: shard {}: work was left when the drain limit passed",
                    self.number
                );
                break;
            }
            if !busy {
                // Others are not done: leave them the core.
                self.host.doze(Duration::from_micros(200)).await;
            }
            self.host.give_way().await;
        }
        self.stopping.stop_now();
    }

    /// Ends what still waits, so that every ask has its answer.
    fn end(&mut self) {
        let held = self.held.take();
        contain(|| drop(held));
        self.ingress().close();
        self.shard.end_asks(AskError::MaybeExecuted, self.net.outside());
        // What the ends of asks have put into the sessions goes out if the sockets take it.
        let _ = self.net.flush();
        self.report();
    }

    fn report(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        let stats = self.shard.stats();
        let counts: &Counts = &self.shared.board[usize::from(self.number)];
        counts.entities.store(self.shard.entities_in_all() as u64, Relaxed);
        counts.turns.store(stats.turns, Relaxed);
        counts.faults.store(stats.faults, Relaxed);
        counts.restarts.store(stats.restarts, Relaxed);
        counts.passivations.store(stats.passivations, Relaxed);
        counts.dead_letters.store(self.shard.dead_letters_in_all(), Relaxed);
        counts.copies_refused.store(stats.copies_refused, Relaxed);
        counts.between_shards.store(stats.received, Relaxed);
        counts.connections.store(self.net.connection_count() as u64, Relaxed);
        counts.busy_ns.store(self.busy.total_ns, Relaxed);
        self.report_net(counts);
        self.tell_refusal();
        let now_ns = self.clock.monotonic_ns();
        if now_ns >= self.next_facts_ns {
            self.next_facts_ns = now_ns + 1_000_000_000;
            self.net.set_facts(Facts {
                shard: self.number,
                shards: self.shared.ingresses.len() as u16,
                tcp_port: self.port,
                rss_bytes: resident_bytes(),
                uptime_s: now_ns / 1_000_000_000,
                entities: self.shard.entities_in_all() as u64,
            });
        }
    }

    fn report_net(&self, counts: &Counts) {
        use std::sync::atomic::Ordering::Relaxed;
        let stats = self.net.stats();
        let NetStats { sessions, native, enters, sends, leases, leased, .. } = stats;
        counts.requests.store(sessions.requests + native.requests, Relaxed);
        counts.system_calls.store(enters, Relaxed);
        counts.output_bytes.store(stats.output_bytes, Relaxed);
        counts.message_bytes.store(stats.message_bytes, Relaxed);
        counts.sends.store(sends.plain + sends.zero_copy, Relaxed);
        counts.sends_zero_copy.store(sends.zero_copy, Relaxed);
        counts.sends_copied.store(sends.copied, Relaxed);
        counts.leases.store(leases, Relaxed);
        counts.leased.store(leased, Relaxed);
    }

    /// Says once that outputs are copied although they were not to be.
    fn tell_refusal(&mut self) {
        let Some(error) = self.net.stats().sends.refusal.filter(|_| !self.refusal_told) else {
            return;
        };
        self.refusal_told = true;
        let error = io::Error::from_raw_os_error(error);
        eprintln!(
            "coreside: shard {}: the kernel refuses to send without a copy ({error}); all outputs \
             are copied",
            self.number
        );
    }
}

/// Memory of the process that is resident, as the kernel shows it; 0 where it does not.
fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * PAGE
}
