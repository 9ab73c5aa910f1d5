//! What a shard is given when it is made, what it is told at each poll, and what it counts.

use std::sync::Arc;

use crate::doorbell::Doorbell;
use crate::key::HashKey;
use crate::ring::{Consumer, Producer, ring};

/// The number of partitions that keys are divided into, for placement.
pub const PARTITIONS: usize = 4096;

/// The bounds and habits of a shard. Every bound has a default.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The node's secret for hashing keys. The same on every shard and node of a cluster.
    pub hash_key: HashKey,
    /// Words of 8 bytes that may wait in the run queue, rounded up to a power of two of 4,096 at
    /// least (default: 8 Mi words: 64 MiB).
    pub queue_words_max: usize,
    /// Words that may wait in the outbox to each other shard, rounded likewise (default: 1 Mi: 8
    /// MiB).
    pub outbox_words_max: usize,
    /// Asks that may wait for their answer (default: 1 Mi).
    pub asks_max: u32,
    /// Entities of each type (default: 64 Mi, or as many as fit 64 GiB).
    pub entities_max: usize,
    /// How long an ask waits for its answer (default: 1 s).
    pub ask_timeout_ns: u64,
    /// Turns per poll (default: 1,024).
    pub turns_per_poll: u32,
    /// When turns look ahead.
    pub look_ahead: LookAhead,
    /// Timers of entities that may be set, those that have fired and wait for a busy entity
    /// included (default: 16 Mi).
    pub timers_max: u32,
    /// Async turns that may be under way (default: 256 Ki).
    pub tasks_max: u32,
    /// System records that handlers may have under way to one shard (default: 1 Mi).
    pub system_max: usize,
    /// Dead letters that are kept (default: 1,024).
    pub dead_letters_max: usize,
    /// Bytes of states in memory, over all types that are ever put away; beyond, those that have
    /// gone longest without a turn are (default: no bound).
    pub resident_bytes_max: usize,
    /// Decides what is left to chance: the jitter of restarts (default: 0).
    pub seed: u64,
    /// A clock in nanoseconds, read twice per some hundred turns, to find those that take long
    /// (default: none; time is not measured then).
    pub stopwatch_ns: fn() -> u64,
    /// Takes the backtrace of the last panic on this thread, where one was kept (default: none is).
    pub backtrace: fn() -> Option<String>,
}

impl ShardConfig {
    /// The defaults, under a secret.
    pub fn new(hash_key: HashKey) -> Self {
        Self {
            hash_key,
            queue_words_max: 8 << 20,
            outbox_words_max: 1 << 20,
            asks_max: 1 << 20,
            entities_max: 64 << 20,
            ask_timeout_ns: 1_000_000_000,
            turns_per_poll: 1024,
            look_ahead: LookAhead::Above { bytes: 1 << 20 },
            timers_max: 16 << 20,
            tasks_max: 256 << 10,
            system_max: 1 << 20,
            dead_letters_max: 1024,
            resident_bytes_max: usize::MAX,
            seed: 0,
            stopwatch_ns: || 0,
            backtrace: || None,
        }
    }
}

/// When the shard fetches the entities of waiting records ahead of their turns.
///
/// Looking ahead hides the time that memory takes, and costs about 2 ns per turn; so it pays once
/// the entities no longer fit the core's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookAhead {
    /// Never.
    Off,
    /// Always.
    On,
    /// While the shard's entities and their index take more than this. A good value is half of the
    /// core's second-level cache (default: 1 MiB).
    Above {
        /// The line, in bytes.
        bytes: usize,
    },
}

/// The time, as the driver of the shard read it before a poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// A clock that never goes back, from any start.
    pub monotonic_ns: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// What a poll did: nothing at all means that the shard may sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records taken from the rings of other shards.
    pub received: u32,
    /// Records taken from the run queue.
    pub turns: u32,
    /// Asks that were ended by their deadline.
    pub expired: u32,
    /// System records done, timers fired, async turns woken, entities put away.
    pub other: u32,
    /// Whether work is left that needs no message to go on.
    pub more: bool,
}

impl Progress {
    /// Whether the poll found nothing to do.
    pub fn is_idle(&self) -> bool {
        self.received == 0 && self.turns == 0 && self.expired == 0 && self.other == 0 && !self.more
    }
}

/// What a shard counts. Never reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records run, replies included.
    pub turns: u64,
    /// Entities brought into memory.
    pub activations: u64,
    /// Turns that failed, and panics in other code of the service's.
    pub faults: u64,
    /// Faults of entities that have no supervisor.
    pub faults_unsupervised: u64,
    /// States made anew after a fault.
    pub restarts: u64,
    /// Entities put away.
    pub passivations: u64,
    /// Messages that waited for a busy entity.
    pub stashed: u64,
    /// Messages that found their deadline passed.
    pub expired: u64,
    /// Asks refused because they would have waited for each other.
    pub cycles: u64,
    /// Async turns that ended where they waited.
    pub turns_cancelled: u64,
    /// Async turns that went on because their waker was used.
    pub tasks_woken: u64,
    /// Timers that fired.
    pub timers_fired: u64,
    /// System records done.
    pub system: u64,
    /// Messages refused because the store was full, or as many async turns were under way as may
    /// be.
    pub refused: u64,
    /// Replies whose ask had ended before.
    pub answers_late: u64,
    /// Replies whose asking entity was gone.
    pub answers_unclaimed: u64,
    /// Asks ended by their deadline.
    pub asks_expired: u64,
    /// Records taken from other shards.
    pub received: u64,
    /// Copies of published messages that a subscriber did not get because a queue on the way was
    /// full.
    pub copies_refused: u64,
    /// Subscriptions refused because the topic has as many subscribers on a shard as it may.
    pub subscriptions_refused: u64,
}

impl Stats {
    /// What a poll does beside records and deadlines of asks.
    pub(crate) fn other(&self) -> u64 {
        self.timers_fired + self.system + self.passivations + self.tasks_woken
    }
}

/// One shard's place among the others: its rings and everybody's doorbells.
pub struct MeshEnd {
    pub(crate) shard: u16,
    /// By sending shard; `None` at its own place.
    pub(crate) inbound: Vec<Option<Consumer>>,
    /// By receiving shard; `None` at its own place.
    pub(crate) outbound: Vec<Option<Producer>>,
    pub(crate) doorbells: Vec<Arc<Doorbell>>,
}

impl MeshEnd {
    /// A shard without others.
    pub fn alone() -> Self {
        Self { shard: 0, inbound: vec![None], outbound: vec![None], doorbells: vec![] }
    }

    /// The number of this shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The doorbell of a shard.
    pub fn doorbell(&self, shard: u16) -> Option<&Arc<Doorbell>> {
        self.doorbells.get(usize::from(shard))
    }
}

/// The rings between `shards` shards: one each way between every two.
///
/// # Panics
/// When there is no shard, or more than 65,535, or when a ring is too small (see [`ring`]).
///
/// # Cost
/// `shards * (shards - 1)` rings of `ring_words` words of 8 bytes.
pub fn mesh(shards: usize, ring_words: usize) -> Vec<MeshEnd> {
    assert!(shards >= 1, "a node has at least one shard");
    assert!(shards <= usize::from(u16::MAX), "shards are numbered with 16 bits");
    let doorbells: Vec<_> = (0..shards).map(|_| Arc::new(Doorbell::new())).collect();
    let mut ends: Vec<_> = (0..shards as u16)
        .map(|shard| MeshEnd {
            shard,
            inbound: (0..shards).map(|_| None).collect(),
            outbound: (0..shards).map(|_| None).collect(),
            doorbells: doorbells.clone(),
        })
        .collect();
    for from in 0..shards {
        for to in (0..shards).filter(|to| *to != from) {
            let (producer, consumer) = ring(ring_words);
            ends[from].outbound[to] = Some(producer);
            ends[to].inbound[from] = Some(consumer);
        }
    }
    ends
}

/// Where partitions live: the shard of each. Every shard has a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    shards: Box<[u16; PARTITIONS]>,
}

impl Placement {
    /// Partitions dealt evenly to `shards` shards.
    ///
    /// # Panics
    /// When there is no shard.
    pub fn even(shards: u16) -> Self {
        assert!(shards >= 1, "a node has at least one shard");
        let mut placement = Box::new([0; PARTITIONS]);
        for (partition, shard) in placement.iter_mut().enumerate() {
            *shard = (partition % usize::from(shards)) as u16;
        }
        Self { shards: placement }
    }

    /// Partitions placed one by one: `shards` names the shard of each.
    pub fn from_shards(shards: &[u16; PARTITIONS]) -> Self {
        Self { shards: Box::new(*shards) }
    }

    /// The partition of a key with this hash: its top 12 bits.
    #[inline(always)]
    pub fn partition(hash: u64) -> usize {
        (hash >> 52) as usize
    }

    /// The shard of a key with this hash.
    #[inline(always)]
    pub fn shard(&self, hash: u64) -> u16 {
        self.shards[Self::partition(hash)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_dealt_evenly() {
        for shards in [1u16, 2, 3, 7, 64] {
            let placement = Placement::even(shards);
            let mut counts = vec![0; usize::from(shards)];
            for partition in 0..PARTITIONS as u64 {
                counts[usize::from(placement.shard(partition << 52))] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1));
        }
    }

    #[test]
    fn mesh_joins_every_two_shards_both_ways() {
        for end in mesh(4, 64) {
            for other in 0..4 {
                let own = other == usize::from(end.shard());
                assert_eq!(end.inbound[other].is_none(), own);
                assert_eq!(end.outbound[other].is_none(), own);
            }
        }
    }
}
