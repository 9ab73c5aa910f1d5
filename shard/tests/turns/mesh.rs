//! A node's shards in one thread, with a clock that moves when a test says so.

use std::sync::Arc;

use coreside_shard::{
    AskError, Doorbell, Entity, Full, Handler, Message, Now, Outside, Placement, Progress, Shard,
    ShardConfig, Stats, Wake,
};

use crate::agent::{Agent, Plain, Sort, table, tell_of};
use crate::gate::Gate;
use crate::notes::{finish, next_ask, outcome};
use crate::random::Random;
use crate::shards::{HASH, Started, start};

pub(crate) const MS: u64 = 1_000_000;
/// Polls after which shards that still have work are taken to be stuck.
const POLLS_MAX: usize = 1_000_000;

pub(crate) fn config() -> ShardConfig {
    let entities_max = if cfg!(miri) { 256 } else { 1 << 20 };
    ShardConfig { entities_max, turns_per_poll: 32, ..ShardConfig::new(HASH) }
}

pub(crate) struct Mesh {
    pub(crate) shards: Vec<Shard>,
    pub(crate) now: Now,
    pub(crate) bells: Vec<Arc<Doorbell>>,
    placement: Placement,
    random: Random,
    seed: u64,
}

impl Mesh {
    pub(crate) fn new(shards: u16, seed: u64) -> Self {
        Self::with(shards, 1 << 12, &config(), seed)
    }

    pub(crate) fn with(shards: u16, ring_words: usize, config: &ShardConfig, seed: u64) -> Self {
        Self::with_wake(shards, ring_words, config, seed, Arc::new(|_| ()))
    }

    pub(crate) fn with_wake(
        shards: u16,
        ring_words: usize,
        config: &ShardConfig,
        seed: u64,
        wake: Wake,
    ) -> Self {
        let started = start((shards, ring_words), config, &table(), wake);
        let Started { shards, bells, placement } = started;
        Self {
            shards,
            bells,
            now: Now { monotonic_ns: 1000 * MS, unix_ms: 1_700_000_000_000 },
            placement,
            random: Random::new(seed),
            seed,
        }
    }

    /// The shard on which the agent `key` lives.
    pub(crate) fn home(&self, key: u64) -> usize {
        usize::from(self.placement.shard(HASH.hash(key)))
    }

    /// The `nth` key whose agents live on `shard`.
    pub(crate) fn on(&self, shard: usize, nth: usize) -> u64 {
        (0..).filter(|key| self.home(*key) == shard).nth(nth).expect("there are enough")
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(crate) fn poll(&mut self, shard: usize) -> Progress {
        self.now.monotonic_ns += 1_000;
        self.shards[shard].poll(self.now, &mut ())
    }

    fn has_work(&mut self) -> bool {
        let now_ns = self.now.monotonic_ns;
        let due = |shard: &Shard| shard.next_deadline_ns().is_some_and(|due| due <= now_ns);
        self.shards.iter_mut().any(|shard| shard.has_work() || due(shard))
    }

    /// Polls shards in random order until there is nothing to do any more at this time.
    pub(crate) fn settle(&mut self) {
        (0..self.shards.len()).for_each(|shard| {
            self.poll(shard);
        });
        for _ in 0..POLLS_MAX {
            if !self.has_work() {
                return;
            }
            let shard = self.below(self.shards.len() as u64) as usize;
            self.poll(shard);
        }
        panic!("seed {}: the shards have work after {POLLS_MAX} polls", self.seed);
    }

    /// Lets time pass in steps of at most a millisecond, and the shards notice it.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.monotonic_ns += MS;
            self.settle();
        }
    }

    /// Lets time pass at once.
    pub(crate) fn jump_ms(&mut self, ms: u64) {
        self.now.monotonic_ns += ms * MS;
        // A poll looks at a share of the asks only.
        (0..4).for_each(|_| self.settle());
    }

    /// Milliseconds of the shards' clock.
    pub(crate) fn at_ms(&self) -> u64 {
        self.now.monotonic_ns / MS
    }

    pub(crate) fn count(&self, of: impl Fn(Stats) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard.stats())).sum()
    }

    pub(crate) fn async_turns(&self) -> usize {
        self.shards.iter().map(Shard::async_turns).sum()
    }

    pub(crate) fn timers(&self) -> usize {
        self.shards.iter().map(Shard::timers).sum()
    }

    /// Tells an agent, from its own shard.
    pub(crate) fn tell<S: Sort, M: Message>(&mut self, key: u64, message: M)
    where
        Agent<S>: Handler<M> + Entity<Key = u64>,
    {
        let home = self.home(key);
        assert!(self.shards[home].tell::<Agent<S>, M>(key, message).is_ok(), "room");
    }

    /// Tells a plain agent.
    pub(crate) fn tell_plain<M: Message>(&mut self, key: u64, message: M)
    where
        Agent<Plain>: Handler<M> + Entity<Key = u64>,
    {
        self.tell::<Plain, M>(key, message);
    }

    /// Has an agent in a turn that lasts until the gate is opened.
    pub(crate) fn hold<S: Sort>(&mut self, key: u64) -> Gate {
        let gate = Gate::new();
        let held = gate.clone();
        self.tell::<S, _>(
            key,
            tell_of(move |_: &mut Agent<S>, cx| {
                let _later = cx.run(async move |_, _| held.passed().await);
            }),
        );
        gate
    }

    /// Asks an agent, from outside, within 1 s.
    pub(crate) fn ask<S: Sort, M: Message<Reply = u64>>(&mut self, key: u64, message: M) -> u64
    where
        Agent<S>: Handler<M> + Entity<Key = u64>,
    {
        self.ask_within::<S, M>(key, message, 1000)
    }

    pub(crate) fn ask_within<S: Sort, M: Message<Reply = u64>>(
        &mut self,
        key: u64,
        message: M,
        ms: u64,
    ) -> u64
    where
        Agent<S>: Handler<M> + Entity<Key = u64>,
    {
        let home = self.home(key);
        let ask = self.try_ask::<S, M>(home, key, message, ms);
        ask.unwrap_or_else(|_| panic!("room"))
    }

    pub(crate) fn try_ask<S: Sort, M: Message<Reply = u64>>(
        &mut self,
        from: usize,
        key: u64,
        message: M,
        ms: u64,
    ) -> Result<u64, Full<M>>
    where
        Agent<S>: Handler<M> + Entity<Key = u64>,
    {
        let ask = next_ask();
        let deadline_ns = self.now.monotonic_ns + ms * MS;
        let then = move |answer: Result<u64, AskError>, _: &mut dyn Outside| finish(ask, answer);
        self.shards[from].ask::<Agent<S>, M, _>(key, message, deadline_ns, then).map(|()| ask)
    }

    /// Asks a plain agent, lets the shards settle, and says what came back.
    pub(crate) fn answer<M: Message<Reply = u64>>(
        &mut self,
        key: u64,
        message: M,
    ) -> Option<Result<u64, AskError>>
    where
        Agent<Plain>: Handler<M> + Entity<Key = u64>,
    {
        let ask = self.ask::<Plain, M>(key, message);
        self.settle();
        outcome(ask)
    }
}
