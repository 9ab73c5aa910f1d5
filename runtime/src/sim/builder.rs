//! Setting a simulation up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coreside_shard::{Entity, HashKey, MeshEnd, Outside, Registry, RegistryError, Shard, mesh};

use super::clock::Clock;
use super::limits::{Disturbances, SimLimits, placement};
use super::oracle::Oracle;
use super::outside::Gate;
use super::random::Random;
use super::schedule::Schedule;
use super::seat::Seat;
use super::trace::Trace;
use super::{Sim, SimStats};
use crate::stopping::Stopping;

/// Sets up a simulation. What is not chosen is drawn from the seed.
#[must_use = "nothing runs before `build`"]
pub struct SimBuilder {
    seed: u64,
    pub(super) registry: Registry,
    shards: Option<u16>,
    limits: Option<SimLimits>,
    disturbances: Option<Disturbances>,
    oracles: Vec<Box<dyn Oracle>>,
    outside: Option<Box<dyn Outside>>,
    wakes_lost_one_in: u64,
}

/// Why a simulation was not set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum SimBuildError {
    /// The registered types do not go together.
    Registry(RegistryError),
    /// A simulated node has 1 to 64 shards.
    Shards(u16),
    /// The kernel refused memory.
    System(io::Error),
}

impl std::fmt::Display for SimBuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(error) => error.fmt(f),
            Self::Shards(count) => write!(f, "a simulated node has 1 to 64 shards, not {count}"),
            Self::System(error) => write!(f, "the system refused a resource: {error}"),
        }
    }
}

impl std::error::Error for SimBuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Registry(error) => Some(error),
            Self::System(error) => Some(error),
            Self::Shards(_) => None,
        }
    }
}

/// The bits of a mask of shards.
const SHARDS_MAX: u16 = 64;

impl SimBuilder {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            registry: Registry::new(),
            shards: None,
            limits: None,
            disturbances: None,
            oracles: Vec::new(),
            outside: None,
            wakes_lost_one_in: 0,
        }
    }

    /// Registers an entity type.
    pub fn entity<E: Entity>(mut self) -> Self {
        self.registry.entity::<E>();
        self
    }

    /// How many shards, up to 64 (default: 1 to 5).
    pub fn shards(mut self, count: u16) -> Self {
        self.shards = Some(count);
        self
    }

    /// The node's bounds (default: [`SimLimits::drawn`]).
    pub fn limits(mut self, limits: SimLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// What makes the run unpleasant (default: [`Disturbances::drawn`]).
    pub fn disturbances(mut self, disturbances: Disturbances) -> Self {
        self.disturbances = Some(disturbances);
        self
    }

    /// Another judge of the run.
    pub fn oracle(mut self, oracle: impl Oracle + 'static) -> Self {
        self.oracles.push(Box::new(oracle));
        self
    }

    /// Who hears the answers to what is sent under a [`Ticket`](super::Ticket), on any shard: what
    /// sessions of clients are to a node (default: nobody).
    pub fn outside(mut self, outside: impl Outside + 'static) -> Self {
        self.outside = Some(Box::new(outside));
        self
    }

    /// Plants a fault of the runtime itself: one in `n` wake-ups is lost. For the test that
    /// simulations find it.
    #[doc(hidden)]
    pub fn lose_wakes(mut self, one_in: u64) -> Self {
        self.wakes_lost_one_in = one_in;
        self
    }

    /// The node, with nothing sent to it yet.
    ///
    /// # Errors
    /// What is wrong with the set-up, or what the system refused.
    pub fn build(self) -> Result<Sim, SimBuildError> {
        let seed = self.seed;
        let mut drawn = Random::stream(seed, "limits");
        let limits_drawn = SimLimits::drawn(&mut drawn);
        let limits = self.limits.unwrap_or(limits_drawn);
        let disturbances_drawn = Disturbances::drawn(&mut Random::stream(seed, "disturbances"));
        let disturbances = self.disturbances.unwrap_or(disturbances_drawn);
        let count_drawn = 1 + Random::stream(seed, "shards").below(5) as u16;
        let count = self.shards.unwrap_or(count_drawn);
        if !(1..=SHARDS_MAX).contains(&count) {
            return Err(SimBuildError::Shards(count));
        }
        let table = self.registry.build().map_err(SimBuildError::Registry)?;
        let mut secrets = Random::stream(seed, "hash key");
        let secret = u128::from(secrets.bits()) << 64 | u128::from(secrets.bits());
        let hash_key = HashKey::new(secret);
        let config = limits.shard_config(hash_key);
        let placement = placement(seed, count, disturbances.uneven);
        let woken: Arc<Vec<_>> = Arc::new((0..count).map(|_| AtomicBool::new(false)).collect());
        let wake = wake(&woken, seed, self.wakes_lost_one_in);
        let seat = |end: MeshEnd| {
            let bell = end.doorbell(end.shard()).map(Arc::clone).unwrap_or_default();
            let table = Arc::clone(&table);
            Shard::new(&config, table, end, placement.clone(), Arc::clone(&wake))
                .map(|shard| Seat::new(shard, bell))
        };
        let seats = mesh(usize::from(count), limits.ring_words).into_iter().map(seat);
        let mut seats = seats.collect::<io::Result<Vec<_>>>().map_err(SimBuildError::System)?;
        let bells = seats.iter().map(|seat| Arc::clone(&seat.bell)).collect();
        let home = (placement, hash_key);
        let gate = Gate::new(bells, &woken, limits.jobs_max, home, table, config.ask_timeout_ns);
        if let Some(outside) = self.outside {
            gate.outside.replace(outside);
        }
        let clock = Clock::new(seed, &disturbances);
        seats.iter_mut().for_each(|seat| seat.shard.start_kept(clock.read()));
        Ok(Sim {
            seats,
            woken,
            gate,
            clock,
            schedule: Schedule::new(seed, count, disturbances.starving),
            faults: Random::stream(seed, "faults"),
            slow_per_mille: disturbances.slow_per_mille,
            trace: Trace::new(seed),
            oracles: self.oracles,
            stopping: Stopping::new(usize::from(count), std::time::Duration::MAX),
            limits,
            stats: SimStats::default(),
            last_shard: 0,
            escalation: None,
            seed,
        })
    }
}

/// What shards call to wake one of them, as in a node they write its eventfd.
fn wake(woken: &Arc<Vec<AtomicBool>>, seed: u64, lost_one_in: u64) -> coreside_shard::Wake {
    let woken = Arc::clone(woken);
    let random = std::sync::Mutex::new(Random::stream(seed, "lost wakes"));
    Arc::new(move |shard| {
        let is_lost =
            lost_one_in > 0 && random.lock().is_ok_and(|mut random| random.one_in(lost_one_in));
        if !is_lost {
            woken[usize::from(shard)].store(true, Ordering::Relaxed);
        }
    })
}
