//! The bounds and disturbances of a simulated node: drawn from its seed, or chosen.

use std::time::Duration;

use coreside_shard::{HashKey, LookAhead, PARTITIONS, Placement, ShardConfig};

use super::random::Random;

/// The bounds of a simulated node. Drawn small, so that a short run meets every one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimLimits {
    /// Words of each ring between two shards.
    pub ring_words: usize,
    /// Words that may wait in a run queue.
    pub queue_words_max: usize,
    /// Words that may wait in the outbox to one other shard.
    pub outbox_words_max: usize,
    /// Asks that may wait on a shard.
    pub asks_max: u32,
    /// Entities of each type on a shard.
    pub entities_max: usize,
    /// Turns per poll.
    pub turns_per_poll: u32,
    /// Calls from outside that may wait at each shard.
    pub jobs_max: usize,
    /// Calls from outside that a shard takes per pass.
    pub jobs_per_pass: usize,
    /// How long an ask waits for its answer.
    pub ask_timeout: Duration,
    /// When turns look ahead.
    pub look_ahead: LookAhead,
}

/// Rings are this long at least: twice the longest record, in words.
pub const RING_WORDS_MIN: usize = 40;

/// Run queues and outboxes are this long at least, in words.
pub const QUEUE_WORDS_MIN: usize = 4096;

impl SimLimits {
    /// Bounds of every size, from the smallest there is; asks and entities have room.
    pub fn drawn(random: &mut Random) -> Self {
        let look_ahead = [LookAhead::Off, LookAhead::On, LookAhead::Above { bytes: 8192 }]
            [random.below(3) as usize];
        Self {
            ring_words: RING_WORDS_MIN << random.below(8),
            queue_words_max: QUEUE_WORDS_MIN << random.below(4),
            outbox_words_max: QUEUE_WORDS_MIN << random.below(3),
            asks_max: random.magnitude(256, 65_536) as u32,
            entities_max: 65_536,
            turns_per_poll: random.magnitude(1, 1024) as u32,
            jobs_max: random.magnitude(64, 4096) as usize,
            jobs_per_pass: random.magnitude(1, 256) as usize,
            ask_timeout: Duration::from_secs(1),
            look_ahead,
        }
    }

    pub(crate) fn shard_config(&self, hash_key: HashKey) -> ShardConfig {
        ShardConfig {
            queue_words_max: self.queue_words_max,
            outbox_words_max: self.outbox_words_max,
            asks_max: self.asks_max,
            entities_max: self.entities_max,
            ask_timeout_ns: u64::try_from(self.ask_timeout.as_nanos()).unwrap_or(u64::MAX),
            turns_per_poll: self.turns_per_poll,
            look_ahead: self.look_ahead,
            ..ShardConfig::new(hash_key)
        }
    }
}

/// What makes a simulated run unpleasant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disturbances {
    /// Some shards are polled far less often than others, or not at all for a while.
    pub starving: bool,
    /// Virtual time jumps by milliseconds to minutes between two polls.
    pub jumps: bool,
    /// The wall clock is set, forwards and back.
    pub wall_steps: bool,
    /// The shards' clock has been running for days when the simulation begins.
    pub late_start: bool,
    /// Of a thousand passes, how many take a millisecond to a second.
    pub slow_per_mille: u32,
    /// Partitions lie unevenly on the shards.
    pub uneven: bool,
}

impl Disturbances {
    /// An even run.
    pub const NONE: Self = Self {
        starving: false,
        jumps: false,
        wall_steps: false,
        late_start: false,
        slow_per_mille: 0,
        uneven: false,
    };

    /// All of them.
    pub const ALL: Self = Self {
        starving: true,
        jumps: true,
        wall_steps: true,
        late_start: true,
        slow_per_mille: 2,
        uneven: true,
    };

    /// Each or not: runs without one find what runs with it hide.
    pub fn drawn(random: &mut Random) -> Self {
        Self {
            starving: random.one_in(2),
            jumps: random.one_in(3),
            wall_steps: random.one_in(3),
            late_start: random.one_in(2),
            slow_per_mille: if random.one_in(2) { random.below(5) as u32 } else { 0 },
            uneven: random.one_in(2),
        }
    }
}

/// Partitions on shards: even, at random, or most of them on one.
pub(crate) fn placement(seed: u64, shards: u16, uneven: bool) -> Placement {
    if !uneven {
        return Placement::even(shards);
    }
    let mut random = Random::stream(seed, "placement");
    let crowded = random.below(u64::from(shards)) as u16;
    let crowded_per_mille = *random.pick(&[0, 500, 950]);
    let mut places = [0; PARTITIONS];
    for place in &mut places {
        let anywhere = random.below(u64::from(shards)) as u16;
        *place = if random.per_mille(crowded_per_mille) { crowded } else { anywhere };
    }
    Placement::from_shards(&places)
}
