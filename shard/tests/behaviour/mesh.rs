//! A node's shards in one thread.

use std::sync::Arc;

use coreside_shard::{
    AskError, Full, Key, Now, Outside, Placement, Shard, ShardConfig, Stats, Table,
};

use crate::actor::{Act, Actor, ActorKey, Echo, EchoLarge, Keep, Relay};
use crate::book::{Stamp, Witness, finish};
use crate::random::Random;
use crate::shards::{HASH, Started, start};

/// Polls after which shards that still have work are taken to be stuck.
const POLLS_MAX: usize = 1_000_000;

/// Small bounds, so that tests reach them.
pub(crate) fn config() -> ShardConfig {
    ShardConfig {
        entities_max: 10_000,
        turns_per_poll: 32,
        // Tests count the messages that are alive.
        dead_letters_max: 0,
        ..ShardConfig::new(HASH)
    }
}

pub(crate) struct Mesh {
    pub(crate) shards: Vec<Shard>,
    pub(crate) now: Now,
    placement: Placement,
    random: Random,
    seed: u64,
}

impl Mesh {
    pub(crate) fn new(
        shards: u16,
        ring_words: usize,
        config: &ShardConfig,
        table: &Arc<Table>,
        seed: u64,
    ) -> Self {
        let started = start((shards, ring_words), config, table, Arc::new(|_| ()));
        let Started { shards, placement, .. } = started;
        Self {
            shards,
            now: Now { monotonic_ns: 1_000_000_000, unix_ms: 1_700_000_000_000 },
            placement,
            random: Random::new(seed),
            seed,
        }
    }

    /// Actors of every key type on `shards` shards, with rings that are never full.
    pub(crate) fn of_actors(shards: u16, config: &ShardConfig, seed: u64) -> Self {
        Self::new(shards, 1 << 14, config, &crate::actor::table(), seed)
    }

    /// The shard on which `key` lives.
    pub(crate) fn home(&self, key: impl Key) -> usize {
        usize::from(self.placement.shard(HASH.hash(key)))
    }

    /// The `nth` number whose actor with a key of type `K` lives on `shard`.
    pub(crate) fn on<K: ActorKey>(&self, shard: usize, nth: usize) -> u64 {
        (0..).filter(|id| self.home(K::of(*id)) == shard).nth(nth).expect("there are enough")
    }

    pub(crate) fn poll(&mut self, shard: usize) {
        self.now.monotonic_ns += 1_000;
        self.shards[shard].poll(self.now, &mut ());
    }

    /// Polls shards in random order until there is nothing to do any more.
    pub(crate) fn settle(&mut self) {
        // What was told since the last poll is not published yet.
        (0..self.shards.len()).for_each(|shard| self.poll(shard));
        for _ in 0..POLLS_MAX {
            if !self.shards.iter_mut().any(Shard::has_work) {
                return;
            }
            let shard = self.random.below(self.shards.len() as u64);
            self.poll(shard as usize);
        }
        panic!("seed {}: the shards have work after {POLLS_MAX} polls", self.seed);
    }

    /// Lets time pass, and the shards notice it.
    pub(crate) fn wait(&mut self, ns: u64) {
        self.now.monotonic_ns += ns;
        // A poll looks at a share of the asks only.
        (0..4).for_each(|_| self.settle());
    }

    /// One of the counts, summed over the shards.
    pub(crate) fn count(&self, of: impl Fn(Stats) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard.stats())).sum()
    }

    pub(crate) fn faults(&self) -> u64 {
        self.count(|stats| stats.faults)
    }

    pub(crate) fn asks_waiting(&self) -> usize {
        self.shards.iter().map(Shard::asks_waiting).sum()
    }

    pub(crate) fn entities<K: ActorKey>(&self) -> usize {
        self.shards.iter().map(Shard::entities::<Actor<K>>).sum()
    }

    /// Tells an actor from outside of shard `from`; the message's number, or `None` when full.
    pub(crate) fn tell<K: ActorKey>(&mut self, from: usize, id: u64, act: Act) -> Option<u64> {
        let stamp = Stamp::new((from as u64, K::NUMBER + id));
        let number = stamp.number;
        match self.shards[from].tell::<Actor<K>, _>(K::of(id), Echo { stamp, act }) {
            Ok(()) => Some(number),
            Err(Full(echo)) => {
                echo.stamp.take_back();
                None
            }
        }
    }

    /// Like [`tell`](Self::tell), with a message above the inline limit.
    pub(crate) fn tell_large<K: ActorKey>(
        &mut self,
        from: usize,
        id: u64,
        act: Act,
    ) -> Option<u64> {
        let stamp = Stamp::new((from as u64, K::NUMBER + id));
        let number = stamp.number;
        match self.shards[from].tell::<Actor<K>, _>(K::of(id), EchoLarge::new(stamp, act)) {
            Ok(()) => Some(number),
            Err(Full(echo)) => {
                echo.stamp.take_back();
                None
            }
        }
    }

    /// Asks an actor from outside of shard `from`, within the node's default.
    pub(crate) fn ask<K: ActorKey>(&mut self, from: usize, id: u64, act: Act) -> Option<u64> {
        let stamp = Stamp::new((from as u64, K::NUMBER + id));
        let (number, then, deadline_ns) = (stamp.number, finisher(&stamp), self.deadline_ns());
        let echo = Echo { stamp, act };
        match self.shards[from].ask::<Actor<K>, _, _>(K::of(id), echo, deadline_ns, then) {
            Ok(()) => Some(number),
            Err(Full(echo)) => {
                echo.stamp.take_back();
                None
            }
        }
    }

    /// Like [`ask`](Self::ask), with message, reply and captured values above the inline limit.
    pub(crate) fn ask_large<K: ActorKey>(&mut self, from: usize, id: u64, act: Act) -> Option<u64> {
        let stamp = Stamp::new((from as u64, K::NUMBER + id));
        let (number, captured) = (stamp.number, (Witness::new("continuation"), [7u64; 20]));
        let then = move |answer: Result<crate::actor::LargeReply, AskError>,
                         _: &mut dyn Outside| {
            let number = number + captured.1[3] - 7;
            finish(number, answer.map(|reply| reply.number));
        };
        let (echo, deadline_ns) = (EchoLarge::new(stamp, act), self.deadline_ns());
        match self.shards[from].ask::<Actor<K>, _, _>(K::of(id), echo, deadline_ns, then) {
            Ok(()) => Some(number),
            Err(Full(echo)) => {
                echo.stamp.take_back();
                None
            }
        }
    }

    /// Asks an actor to keep the reply for later.
    pub(crate) fn ask_keep<K: ActorKey>(&mut self, from: usize, id: u64) -> Option<u64> {
        let stamp = Stamp::new((from as u64, K::NUMBER + id));
        let (number, then, deadline_ns) = (stamp.number, finisher(&stamp), self.deadline_ns());
        match self.shards[from].ask::<Actor<K>, _, _>(K::of(id), Keep(stamp), deadline_ns, then) {
            Ok(()) => Some(number),
            Err(Full(Keep(stamp))) => {
                stamp.take_back();
                None
            }
        }
    }

    /// Asks an actor to ask another one and to answer with what that said.
    pub(crate) fn ask_relay<K: ActorKey>(
        &mut self,
        from: usize,
        id: u64,
        relay: impl FnOnce(Stamp) -> Relay,
    ) -> Option<u64> {
        let stamp = Stamp::new((from as u64, K::NUMBER + id));
        let (number, then, deadline_ns) = (stamp.number, finisher(&stamp), self.deadline_ns());
        match self.shards[from].ask::<Actor<K>, _, _>(K::of(id), relay(stamp), deadline_ns, then) {
            Ok(()) => Some(number),
            Err(Full(relay)) => {
                relay.stamp.take_back();
                None
            }
        }
    }

    fn deadline_ns(&self) -> u64 {
        self.now.monotonic_ns + 1_000_000_000
    }
}

fn finisher(stamp: &Stamp) -> impl FnOnce(Result<u64, AskError>, &mut dyn Outside) + 'static {
    let (number, witness) = (stamp.number, Witness::new("continuation"));
    move |answer, _| {
        finish(number, answer);
        drop(witness);
    }
}
