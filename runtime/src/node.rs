//! A node: shards on cores, the rings between them, and the way in from outside.

use std::mem::take;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use coreside_net::{DriverKind, NetConfig, NetError};
use coreside_shard::{
    Entity, EntityId, HashKey, LookAhead, Placement, PoolKeys, Registry, RegistryError,
    ShardConfig, Table,
};

use crate::arrivals::Arrivals;
use crate::driver::Drive;
use crate::faults::{self, FaultSink};
use crate::group::Pools;
use crate::handle::{Counts, Handle, Shared};
use crate::host::{Running, seats};
use crate::ingress::Ingress;
use crate::ports::Ports;
use crate::probe::{DriverChoice, choose};
use crate::signals::Signals;
use crate::stall::{Reporter, Sink, StallConfig};
use crate::stopping::{Phase, Stopping};
use crate::topology::Topology;

/// How often a node that waits for a signal looks whether its shards still run.
const LOOK: Duration = Duration::from_millis(100);

/// What a shard does while nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It goes on looking: least latency, a whole core.
    Spin,
    /// It looks for so long, then sleeps until it is woken: no time used, a wake-up of some tens of
    /// microseconds for the first message.
    Park {
        /// How long it looks before it sleeps.
        spin: Duration,
    },
}

/// Sets up a node.
///
/// # Examples
/// ```no_run
/// # use coreside::{Node, entity, handlers};
/// # #[entity]
/// # struct Account;
/// # #[handlers]
/// # impl Account {}
/// let node = Node::builder()
///     .entity::<Account>()
///     .listen(([127, 0, 0, 1], 7379).into())
///     .start()?;
/// println!("serving on {:?}", node.local_addr());
/// node.run_until_signal()?;
/// # Ok::<(), coreside::NodeError>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct NodeBuilder {
    pub(crate) registry: Registry,
    shards: Option<usize>,
    cores: Option<Vec<usize>>,
    idle: Option<Idle>,
    pub(crate) driver: DriverChoice,
    pub(crate) ports: Ports,
    pub(crate) net: NetConfig,
    shard: ShardConfig,
    ring_bytes: Option<usize>,
    ingress_jobs_max: usize,
    drain: Duration,
    catch_signals: bool,
    pub(crate) fault_sink: FaultSink,
    pub(crate) stalls: StallConfig,
    pub(crate) stall_sink: Sink,
}

/// Why a node did not start, or could not go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum NodeError {
    /// The registered types do not go together.
    Registry(RegistryError),
    /// More than 65,535 shards, or none.
    Shards(usize),
    /// A core that this process may not use.
    Core(usize),
    /// The address cannot be listened on.
    Listen(SocketAddr, std::io::Error),
    /// A shard's io_uring ring, or epoll, could not be made, or has failed.
    Net(NetError),
    /// The environment asks for a driver that there is not.
    Driver(String),
    /// A shard's thread and executor could not be made.
    Executor(String),
    /// The kernel refused memory, a descriptor or a signal handler.
    System(std::io::Error),
    /// An entity escalated its fault and has no supervisor, so nobody decides what follows.
    Escalated(EntityId),
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(error) => error.fmt(f),
            Self::Shards(count) => write!(f, "a node has 1 to 65,535 shards, not {count}"),
            Self::Core(core) => write!(
                f,
                "core {core} is not among those that this process may use; see `taskset -p $$`"
            ),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Net(error) => error.fmt(f),
            Self::Driver(name) => {
                write!(f, "CORESIDE_DRIVER is auto, uring or epoll, not '{name}'")
            }
            Self::Executor(reason) => write!(f, "a shard's executor did not start: {reason}"),
            Self::System(error) => write!(f, "the system refused a resource: {error}"),
            Self::Escalated(entity) => {
                write!(f, "{entity} failed and escalated its fault, but has no supervisor")
            }
        }
    }
}

impl std::error::Error for NodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Registry(error) => Some(error),
            Self::Listen(_, error) | Self::System(error) => Some(error),
            Self::Net(error) => Some(error),
            Self::Shards(_)
            | Self::Core(_)
            | Self::Driver(_)
            | Self::Executor(_)
            | Self::Escalated(_) => None,
        }
    }
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            registry: Registry::new(),
            shards: None,
            cores: None,
            idle: None,
            driver: DriverChoice::Auto,
            ports: Ports::default(),
            net: NetConfig::default(),
            shard: ShardConfig::new(HashKey::new(random_bits())),
            ring_bytes: None,
            ingress_jobs_max: 4096,
            drain: Duration::from_secs(10),
            catch_signals: false,
            fault_sink: FaultSink::default(),
            stalls: StallConfig::default(),
            stall_sink: Sink::default(),
        }
    }
}

impl NodeBuilder {
    /// Registers an entity type.
    pub fn entity<E: Entity>(mut self) -> Self {
        self.registry.entity::<E>();
        self
    }

    /// How many shards (default: one per core that the process may use, no more than its quota pays
    /// for).
    pub fn shards(mut self, count: usize) -> Self {
        self.shards = Some(count);
        self
    }

    /// The cores to pin the shards to, in turn. Without this, shards are pinned to the allowed
    /// cores if there are enough of them and no CPU quota throttles the process.
    pub fn cores(mut self, cores: impl Into<Vec<usize>>) -> Self {
        self.cores = Some(cores.into());
        self
    }

    /// What a shard does while nothing is to be done (default: looks for 50 µs, then sleeps; sleeps
    /// at once where there are more shards than cores).
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = Some(idle);
        self
    }

    /// The bounds of client connections.
    pub fn net(mut self, config: NetConfig) -> Self {
        self.net = config;
        self
    }

    /// The secret under which keys are hashed (default: random). It decides where entities live and
    /// which key a name has.
    pub fn hash_key(mut self, hash_key: HashKey) -> Self {
        self.shard.hash_key = hash_key;
        self
    }

    /// How long an ask waits for its answer (default: 1 s).
    pub fn ask_timeout(mut self, timeout: Duration) -> Self {
        self.shard.ask_timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Bytes that may wait in each run queue: rounded up to 2^n, from 32 KiB (default: 64 MiB).
    pub fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.shard.queue_words_max = bytes / 8;
        self
    }

    /// Bytes that may wait for room in each ring: rounded up to 2^n, from 32 KiB (default: 8 MiB).
    pub fn outbox_bytes_max(mut self, bytes: usize) -> Self {
        self.shard.outbox_words_max = bytes / 8;
        self
    }

    /// Bytes of each ring between two shards (default: 4 MiB shared by the rings into a shard, at
    /// least 16 KiB and at most 512 KiB each).
    pub fn ring_bytes(mut self, bytes: usize) -> Self {
        self.ring_bytes = Some(bytes);
        self
    }

    /// Entities of each type on each shard (default: 64 Mi).
    pub fn entities_max(mut self, count: usize) -> Self {
        self.shard.entities_max = count;
        self
    }

    /// Requests from threads outside that may wait at each shard (default: 4,096).
    pub fn ingress_max(mut self, count: usize) -> Self {
        self.ingress_jobs_max = count;
        self
    }

    /// When shards fetch entities ahead of their turns (default: while they take more than half of
    /// the core's second-level cache).
    pub fn look_ahead(mut self, look_ahead: LookAhead) -> Self {
        self.shard.look_ahead = look_ahead;
        self
    }

    /// How long a stop waits for work under way (default: 10 s).
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Catches SIGTERM and Ctrl-C from the start on, so that one that comes before
    /// [`Node::run_until_signal`] is not lost (default: from that call on).
    pub fn catch_signals(mut self) -> Self {
        self.catch_signals = true;
        self
    }

    /// Starts the shards and returns when all of them run.
    ///
    /// # Errors
    /// What is wrong with the set-up, or what the system refused. Nothing is left running.
    pub fn start(mut self) -> Result<Node, NodeError> {
        let signals = self.catch_signals.then(Signals::catch).transpose();
        let signals = signals.map_err(NodeError::System)?;
        let topology = Topology::read();
        let count = self.shards.unwrap_or_else(|| match &self.cores {
            Some(cores) => cores.len().max(1),
            None => topology.shards(),
        });
        if count == 0 || count > usize::from(u16::MAX) {
            return Err(NodeError::Shards(count));
        }
        if let LookAhead::Above { bytes } = &mut self.shard.look_ahead {
            *bytes = (topology.cache_bytes / 2).min(*bytes);
        }
        let mut notes = Vec::new();
        let seats = seats(count, self.cores.as_deref(), &topology, &mut notes)?;
        let idle = self.idle.unwrap_or_else(|| usual_idle(count <= topology.shards()));
        let table = take(&mut self.registry).build().map_err(NodeError::Registry)?;
        self.net.driver = choose(self.driver)?;
        let open = self.ports.open(count)?;
        let mesh = coreside_shard::mesh(count, self.ring_words(count));
        let placement = Placement::even(count as u16);
        let reporter = Reporter::start(self.stalls, take(&mut self.stall_sink), &table, count);
        let reporter = reporter.map_err(NodeError::System)?;
        let shared = self.shared(&mesh, Arc::clone(&table), placement.clone(), reporter.as_ref());
        let shared = shared.map_err(NodeError::System)?;
        let stopping = Arc::new(Stopping::new(count, self.drain));
        faults::keep_panics();
        self.shard.backtrace = faults::take_last;
        self.shard.stopwatch_ns = crate::clock::stopwatch_ns;
        let start = Instant::now();
        let (ready, started) = mpsc::channel();
        let mut running = Vec::with_capacity(count);
        for ((end, seat), listeners) in mesh.into_iter().zip(seats).zip(open.listeners) {
            let drive = Drive {
                shard: self.shard.clone(),
                table: Arc::clone(&table),
                mesh: end,
                placement: placement.clone(),
                net: self.net,
                listeners,
                ports: self.ports.clone(),
                idle,
                start,
                shared: Arc::clone(&shared),
                stopping: Arc::clone(&stopping),
                fault_sink: self.fault_sink.clone(),
            };
            match drive.start(seat, ready.clone()) {
                Ok(shard) => running.push(shard),
                Err(error) => return Err(abandon(running, &stopping, &shared, error)),
            }
        }
        drop(ready);
        if let Err(error) = all_started(&started, count) {
            return Err(abandon(running, &stopping, &shared, error));
        }
        Ok(Node {
            handle: Handle { shared },
            running,
            stopping,
            driver: self.net.driver,
            addresses: (open.resp, open.native),
            notes,
            signals,
            _reporter: reporter,
        })
    }

    fn ring_words(&self, shards: usize) -> usize {
        const SHARED_BYTES: usize = 4 << 20;
        let share = SHARED_BYTES / shards.saturating_sub(1).max(1);
        let bytes = self.ring_bytes.unwrap_or(share.clamp(16 << 10, 512 << 10));
        (bytes / 8).max(64)
    }

    fn shared(
        &self,
        mesh: &[coreside_shard::MeshEnd],
        table: Arc<Table>,
        placement: Placement,
        reporter: Option<&Reporter>,
    ) -> std::io::Result<Arc<Shared>> {
        let doorbells = mesh.iter().filter_map(|end| end.doorbell(end.shard()));
        let ingress = |doorbell: &Arc<_>| Ingress::new(self.ingress_jobs_max, Arc::clone(doorbell));
        let pools = PoolKeys::new(&table, &self.shard.hash_key, &placement, mesh.len() as u16);
        Ok(Arc::new(Shared {
            pools: Pools::new(pools),
            ingresses: doorbells.map(ingress).collect::<std::io::Result<_>>()?,
            arrivals: mesh.iter().map(|_| Arrivals::default()).collect(),
            placement,
            hash_key: self.shard.hash_key,
            driver: self.net.driver,
            table,
            ask_timeout: Duration::from_nanos(self.shard.ask_timeout_ns),
            board: mesh.iter().map(|_| Counts::default()).collect(),
            sightings: reporter.map(|reporter| Arc::clone(reporter.sightings())),
        }))
    }
}

/// What shards do that are not told, where there is a core for each or not.
fn usual_idle(is_roomy: bool) -> Idle {
    Idle::Park { spin: Duration::from_micros(if is_roomy { 50 } else { 0 }) }
}

/// Waits until `count` shards have said how their start went.
fn all_started(started: &Receiver<Result<(), NodeError>>, count: usize) -> Result<(), NodeError> {
    (0..count).try_for_each(|_| {
        started.recv().unwrap_or_else(|_| {
            Err(NodeError::Executor("its thread ended before it was ready".to_owned()))
        })
    })
}

/// Ends the shards that run already, because the start of the node failed.
fn abandon(
    running: Vec<Running>,
    stopping: &Stopping,
    shared: &Shared,
    error: NodeError,
) -> NodeError {
    stopping.stop_now();
    shared.ingresses.iter().for_each(Ingress::wake);
    running.into_iter().for_each(Running::join);
    error
}

/// A running node. Dropping it stops it gracefully.
///
/// It is also a [`Handle`], of which other threads take clones.
#[derive(Debug)]
pub struct Node {
    handle: Handle,
    running: Vec<Running>,
    stopping: Arc<Stopping>,
    pub(crate) driver: DriverKind,
    /// Where Redis clients, and native clients, are served.
    addresses: (Option<SocketAddr>, Option<SocketAddr>),
    notes: Vec<String>,
    signals: Option<Signals>,
    /// Ends behind the shards.
    _reporter: Option<Reporter>,
}

impl Node {
    /// Sets up a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// A handle to take elsewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where clients are served.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.0
    }

    /// Where native clients are served.
    pub fn native_addr(&self) -> Option<SocketAddr> {
        self.addresses.1
    }

    /// How many shards the node has.
    pub fn shards(&self) -> usize {
        self.handle.shared.ingresses.len()
    }

    /// What an operator should know about how the node was set up, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Serves until SIGTERM or Ctrl-C, or until the node cannot go on, then stops gracefully. A
    /// second signal stops at once.
    ///
    /// # Errors
    /// Why the node could not go on: a shard lost its sockets, or an entity without a supervisor
    /// escalated its fault. Or the signals cannot be caught, and the node stops at once.
    pub fn run_until_signal(mut self) -> Result<(), NodeError> {
        let signals = match self.signals.take() {
            Some(signals) => signals,
            None => Signals::catch().map_err(NodeError::System)?,
        };
        while self.stopping.phase() == Phase::Running && !signals.wait(LOOK) {}
        let (stopping, at_once) = (Arc::clone(&self.stopping), Arc::clone(&self.stopping));
        let shared = Arc::clone(&self.handle.shared);
        signals.on_next(move || {
            at_once.stop_now();
            shared.ingresses.iter().for_each(Ingress::wake);
        });
        self.stop();
        stopping.take_failure().map_or(Ok(()), Err)
    }

    /// Stops gracefully: takes no new work, finishes what is under way within the drain limit, and
    /// ends the shards' threads.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopping.begin();
        self.handle.shared.ingresses.iter().for_each(Ingress::wake);
        self.running.drain(..).for_each(Running::join);
    }
}

impl Deref for Node {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

/// 128 bits that callers outside cannot guess, from the system's source of randomness.
fn random_bits() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    // Each `RandomState` has keys of its own from the system; its hash of nothing depends on them.
    let half = || u128::from(RandomState::new().hash_one(0u8));
    half() << 64 | half()
}
