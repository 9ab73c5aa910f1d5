//! What a kit is made of.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::config::{LookAhead, Now, ShardConfig};
use crate::entity::Entity;
use crate::identity::EntityId;
use crate::kit::{HASH_KEY, Kit, TICK_NS};
use crate::registry::Registry;
use crate::shard::Shard;

/// A kit in the making: see [`Kit::builder`].
pub struct Builder<E: Entity> {
    pub(crate) registry: Registry,
    config: ShardConfig,
    unix_ms: u64,
    /// What asks are answered by, unless the test says otherwise.
    pub(crate) stubs: Vec<fn(&mut Kit<E>)>,
    pub(crate) always_running: bool,
}

/// When a kit's clock starts: not at 0, which a test would take for "never".
const START_NS: u64 = 1024 * TICK_NS;

impl<E: Entity> Builder<E> {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::new();
        registry.entity::<E>();
        let config = ShardConfig {
            // One is enough: all others are kept out.
            entities_max: 64,
            look_ahead: LookAhead::Off,
            ..ShardConfig::new(HASH_KEY)
        };
        let unix_ms = 1_700_000_000_000;
        Self { registry, config, unix_ms, stubs: Vec::new(), always_running: false }
    }

    /// Makes a type known that the entity sends to, watches or starts. None of its entities ever
    /// runs.
    pub fn other<T: Entity>(mut self) -> Self {
        self.registry.entity::<T>();
        self
    }

    /// What time it is at first, in milliseconds since 1970 (default: 1,700,000,000,000).
    pub fn unix_ms(mut self, unix_ms: u64) -> Self {
        self.unix_ms = unix_ms;
        self
    }

    /// How long an ask waits for its answer (default: 1 s).
    pub fn ask_timeout(mut self, timeout: Duration) -> Self {
        self.config.ask_timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// Decides what is left to chance: the jitter of restarts (default: 0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Changes the bounds of the shard, to test what the entity does at one of them:
    /// `.config(|config| config.timers_max = 0)`.
    pub fn config(mut self, change: impl FnOnce(&mut ShardConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// The kit for the entity `key`, which is not in memory yet.
    ///
    /// # Panics
    /// When two types go by the same name, or the kernel has no addresses to give.
    #[track_caller]
    pub fn build(self, key: E::Key) -> Kit<E> {
        let table = match self.registry.build() {
            Ok(table) => table,
            Err(error) => panic!("no kit can be built: {error}"),
        };
        let own = EntityId::of::<E>(table.directory.entity::<E>(), key);
        let mut shard = match Shard::alone(&self.config, table) {
            Ok(shard) => shard,
            Err(error) => panic!("no kit can be built: {error}"),
        };
        shard.keep_others_out(own);
        let now = Now { monotonic_ns: START_NS, unix_ms: self.unix_ms };
        shard.tick(now);
        let mut kit = Kit {
            shard,
            key,
            own,
            now,
            faults: VecDeque::new(),
            failed: Vec::new(),
            letters: Vec::new(),
            stubs: Vec::new(),
        };
        self.stubs.iter().for_each(|stub| stub(&mut kit));
        if self.always_running {
            kit.shard.guard(|shard| shard.begin_kept(own));
            kit.run();
        }
        kit
    }
}

impl<E: Entity> fmt::Debug for Builder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("registry", &self.registry).finish_non_exhaustive()
    }
}
