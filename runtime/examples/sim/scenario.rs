//! A scenario: everything that a seed decides about a run, as numbers that can be lowered.

use std::fmt::Write as _;
use std::time::Duration;

use coreside::LookAhead;
use coreside::sim::{Disturbances, QUEUE_WORDS_MIN, RING_WORDS_MIN, Random, SimLimits};

/// One run: drawn from its seed, then perhaps made smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Steps during which load is put on.
    pub(crate) steps: u64,
    /// One step in so many begins with load.
    pub(crate) load_one_in: u64,
    /// Messages per load.
    pub(crate) batch: u64,
    /// How often a message is passed on.
    pub(crate) hops: u64,
    pub(crate) shards: u64,
    pub(crate) keys: u64,
    pub(crate) ring_words: u64,
    pub(crate) queue_words_max: u64,
    pub(crate) outbox_words_max: u64,
    pub(crate) asks_max: u64,
    pub(crate) entities_max: u64,
    pub(crate) turns_per_poll: u64,
    pub(crate) jobs_max: u64,
    pub(crate) jobs_per_pass: u64,
    pub(crate) ask_timeout_ns: u64,
    pub(crate) look_ahead: u64,
    pub(crate) starving: u64,
    pub(crate) jumps: u64,
    pub(crate) wall_steps: u64,
    pub(crate) late_start: u64,
    pub(crate) uneven: u64,
    pub(crate) slow_per_mille: u64,
    /// Of a thousand turns, how many panic.
    pub(crate) panics: u64,
    /// Of a thousand activations, how many panic.
    pub(crate) curses: u64,
    /// Of a thousand turns, how many end their entity.
    pub(crate) stops: u64,
}

/// A number of a scenario: its name, where it is, and how low it may be made.
pub(crate) type Field = (&'static str, fn(&mut Scenario) -> &mut u64, u64);

/// What a minimiser lowers, in this order, and what a command line may set.
pub(crate) const FIELDS: &[Field] = &[
    ("steps", |scenario| &mut scenario.steps, 1),
    ("shards", |scenario| &mut scenario.shards, 1),
    ("keys", |scenario| &mut scenario.keys, 1),
    ("batch", |scenario| &mut scenario.batch, 1),
    ("hops", |scenario| &mut scenario.hops, 0),
    ("panics", |scenario| &mut scenario.panics, 0),
    ("curses", |scenario| &mut scenario.curses, 0),
    ("stops", |scenario| &mut scenario.stops, 0),
    ("starving", |scenario| &mut scenario.starving, 0),
    ("jumps", |scenario| &mut scenario.jumps, 0),
    ("wall_steps", |scenario| &mut scenario.wall_steps, 0),
    ("late_start", |scenario| &mut scenario.late_start, 0),
    ("uneven", |scenario| &mut scenario.uneven, 0),
    ("slow_per_mille", |scenario| &mut scenario.slow_per_mille, 0),
    ("look_ahead", |scenario| &mut scenario.look_ahead, 0),
    ("load_one_in", |scenario| &mut scenario.load_one_in, 1),
    ("turns_per_poll", |scenario| &mut scenario.turns_per_poll, 1),
    ("jobs_per_pass", |scenario| &mut scenario.jobs_per_pass, 1),
    ("jobs_max", |scenario| &mut scenario.jobs_max, 1),
    ("asks_max", |scenario| &mut scenario.asks_max, 1),
    ("entities_max", |scenario| &mut scenario.entities_max, 1),
    ("ring_words", |scenario| &mut scenario.ring_words, RING_WORDS_MIN as u64),
    ("queue_words_max", |scenario| &mut scenario.queue_words_max, QUEUE_WORDS_MIN as u64),
    ("outbox_words_max", |scenario| &mut scenario.outbox_words_max, QUEUE_WORDS_MIN as u64),
    ("ask_timeout_ns", |scenario| &mut scenario.ask_timeout_ns, 1_000_000),
];

impl Scenario {
    /// The scenario of a seed, before its workload has a say.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut random = Random::stream(seed, "scenario");
        let limits = SimLimits::drawn(&mut Random::stream(seed, "scenario limits"));
        let disturbances = Disturbances::drawn(&mut Random::stream(seed, "disturbances"));
        let mut rate =
            |one_in, max| if random.one_in(one_in) { random.magnitude(1, max) } else { 0 };
        let (panics, curses, stops) = (rate(3, 100), rate(5, 100), rate(3, 200));
        let keys = random.magnitude(1, 200);
        Self {
            seed,
            steps: random.magnitude(64, 4096),
            load_one_in: random.magnitude(1, 16),
            batch: random.magnitude(1, 32),
            hops: random.magnitude(1, 16) - 1,
            shards: 1 + random.below(5),
            keys,
            ring_words: limits.ring_words as u64,
            queue_words_max: limits.queue_words_max as u64,
            outbox_words_max: limits.outbox_words_max as u64,
            asks_max: random.magnitude(8, 4096),
            // In one run of eight the store is too small for all.
            entities_max: if random.one_in(8) { random.between(1, keys) } else { 1024 },
            turns_per_poll: limits.turns_per_poll as u64,
            jobs_max: limits.jobs_max as u64,
            jobs_per_pass: limits.jobs_per_pass as u64,
            ask_timeout_ns: random.magnitude(1_000_000, 1_000_000_000),
            look_ahead: random.below(3),
            starving: disturbances.starving.into(),
            jumps: disturbances.jumps.into(),
            wall_steps: disturbances.wall_steps.into(),
            late_start: disturbances.late_start.into(),
            uneven: disturbances.uneven.into(),
            slow_per_mille: disturbances.slow_per_mille.into(),
            panics,
            curses,
            stops,
        }
    }

    pub(crate) fn limits(&self) -> SimLimits {
        let look_ahead = [LookAhead::Off, LookAhead::On, LookAhead::Above { bytes: 4096 }];
        SimLimits {
            ring_words: self.ring_words as usize,
            queue_words_max: self.queue_words_max as usize,
            outbox_words_max: self.outbox_words_max as usize,
            asks_max: self.asks_max as u32,
            entities_max: self.entities_max as usize,
            turns_per_poll: self.turns_per_poll as u32,
            jobs_max: self.jobs_max as usize,
            jobs_per_pass: self.jobs_per_pass as usize,
            ask_timeout: Duration::from_nanos(self.ask_timeout_ns),
            look_ahead: look_ahead[self.look_ahead as usize % look_ahead.len()],
        }
    }

    pub(crate) fn disturbances(&self) -> Disturbances {
        Disturbances {
            starving: self.starving > 0,
            jumps: self.jumps > 0,
            wall_steps: self.wall_steps > 0,
            late_start: self.late_start > 0,
            uneven: self.uneven > 0,
            slow_per_mille: self.slow_per_mille as u32,
        }
    }

    /// Sets one number by its name; false when there is none of that name.
    pub(crate) fn set(&mut self, name: &str, value: u64) -> bool {
        let Some((_, place, least)) = FIELDS.iter().find(|(of, ..)| *of == name) else {
            return false;
        };
        *place(self) = value.max(*least);
        true
    }

    /// What differs from `other`, as `name=value` words.
    pub(crate) fn differences(&self, other: &Self) -> String {
        let (mut one, mut other) = (self.clone(), other.clone());
        let mut words = String::new();
        for (name, place, _) in FIELDS {
            let value = *place(&mut one);
            if value != *place(&mut other) {
                // A string takes everything.
                let _ = write!(words, " {name}={value}");
            }
        }
        words.trim_start().to_owned()
    }
}
