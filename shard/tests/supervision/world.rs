//! A node's shards in one thread, and the clock they share.

use std::sync::Arc;

use coreside_shard::{AskError, Full, Now, Outside, Placement, Reason, Shard, ShardConfig, Stats};

use crate::book::{Stamp, Witness, check, close, finish, live, outcome, under_way};
use crate::diary::{self, Id};
use crate::random::Random;
use crate::shards::{HASH, Started, start};
use crate::subject::{Act, Do, Grenade, KINDS, Subject, Try, by_kind, table, way};

pub(crate) const MS: u64 = 1_000_000;

/// Rounds of polls after which shards that still have work are taken to be stuck.
const ROUNDS_MAX: usize = 20_000;

pub(crate) fn config() -> ShardConfig {
    ShardConfig {
        entities_max: 10_000,
        turns_per_poll: 16,
        // Tests count the values that are alive.
        dead_letters_max: 0,
        ..ShardConfig::new(HASH)
    }
}

pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
    pub(crate) now: Now,
    placement: Placement,
    pub(crate) random: Random,
    pub(crate) seed: u64,
    /// Ids that were named, so that all can be stopped in the end.
    keys: u64,
}

impl World {
    pub(crate) fn new(shards: u16, seed: u64) -> Self {
        Self::with(shards, seed, &ShardConfig { seed, ..config() })
    }

    pub(crate) fn with(shards: u16, seed: u64, config: &ShardConfig) -> Self {
        diary::clear();
        let started = start((shards, 256), config, &table(), Arc::new(|_| ()));
        let Started { shards, placement, .. } = started;
        Self {
            shards,
            now: Now { monotonic_ns: 1_000 * MS, unix_ms: 1_700_000_000_000 },
            placement,
            random: Random::new(seed),
            seed,
            keys: 0,
        }
    }

    /// The shard on which a subject lives.
    pub(crate) fn home(&self, id: Id) -> usize {
        usize::from(self.placement.shard(HASH.hash(id.1)))
    }

    /// The `nth` subject of a type that lives on `shard`.
    pub(crate) fn on(&self, kind: usize, shard: usize, nth: usize) -> Id {
        let shard = shard % self.shards.len();
        let there = (0..).map(|key| Id(kind, key)).filter(|id| self.home(*id) == shard);
        there.into_iter().nth(nth).expect("there are enough")
    }

    pub(crate) fn poll(&mut self, shard: usize) -> bool {
        !self.shards[shard].poll(self.now, &mut ()).is_idle()
    }

    /// Polls shards in random order, on a clock that stands, until there is nothing to do.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX * self.shards.len() {
            let shard = self.random.below(self.shards.len() as u64) as usize;
            if self.poll(shard) {
                quiet = 0;
                continue;
            }
            quiet += 1;
            if quiet < 4 {
                continue;
            }
            let any = (0..self.shards.len()).fold(false, |any, shard| self.poll(shard) | any);
            if !any && !self.shards.iter_mut().any(Shard::has_work) {
                return;
            }
        }
        panic!("seed {}: the shards have work without end", self.seed);
    }

    /// Lets time pass by the millisecond, and settles at each.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.monotonic_ns += MS;
            self.settle();
        }
    }

    pub(crate) fn tell(&mut self, id: Id, act: Act) -> u64 {
        let from = self.random.below(self.shards.len() as u64) as usize;
        self.tell_from(from, id, act)
    }

    pub(crate) fn tell_from(&mut self, from: usize, id: Id, act: Act) -> u64 {
        self.keys = self.keys.max(id.1 + 1);
        let stamp = Stamp::new((from as u64, way(id)));
        let (number, message) = (stamp.number, Do { stamp, act });
        let shard = &mut self.shards[from];
        match by_kind!(id.0, N => shard.tell::<Subject<N>, _>(id.1, message)) {
            Ok(()) => {}
            Err(Full(message)) => message.stamp.take_back(),
        }
        number
    }

    pub(crate) fn ask(&mut self, id: Id, act: Act) -> u64 {
        let from = self.random.below(self.shards.len() as u64) as usize;
        self.ask_from(from, id, act)
    }

    /// Asks within ten seconds; the outcome is in the book.
    pub(crate) fn ask_from(&mut self, from: usize, id: Id, act: Act) -> u64 {
        self.ask_within(from, id, act, 10_000)
    }

    pub(crate) fn ask_within(&mut self, from: usize, id: Id, act: Act, ms: u64) -> u64 {
        self.keys = self.keys.max(id.1 + 1);
        let stamp = Stamp::new((from as u64, way(id)));
        let (number, message) = (stamp.number, Do { stamp, act });
        let then = finisher(number);
        let (shard, deadline_ns) = (&mut self.shards[from], self.now.monotonic_ns + ms * MS);
        let asked = by_kind!(id.0, N => {
            shard.ask::<Subject<N>, _, _>(id.1, message, deadline_ns, then)
        });
        if let Err(Full(message)) = asked {
            message.stamp.take_back();
            finish(number, Err(AskError::NotSent));
        }
        number
    }

    /// Asks with a message that may be tried three times.
    pub(crate) fn ask_try(&mut self, id: Id, ms: u64) -> u64 {
        self.keys = self.keys.max(id.1 + 1);
        let from = self.random.below(self.shards.len() as u64) as usize;
        let number = 1 << 40 | self.random.below(1 << 30);
        let message = Try(number, Witness::new("copy"));
        let (shard, deadline_ns) = (&mut self.shards[from], self.now.monotonic_ns + ms * MS);
        let asked = by_kind!(id.0, N => {
            shard.ask::<Subject<N>, _, _>(id.1, message, deadline_ns, finisher(number))
        });
        if asked.is_err() {
            finish(number, Err(AskError::NotSent));
        }
        number
    }

    pub(crate) fn ask_grenade(&mut self, id: Id) -> u64 {
        self.keys = self.keys.max(id.1 + 1);
        let number = 1 << 41 | self.random.below(1 << 30);
        let (home, message) = (self.home(id), Grenade(Witness::new("grenade")));
        let (shard, deadline_ns) = (&mut self.shards[home], self.now.monotonic_ns + 10_000 * MS);
        let asked = by_kind!(id.0, N => {
            shard.ask::<Subject<N>, _, _>(id.1, message, deadline_ns, finisher(number)).is_ok()
        });
        assert!(asked, "room");
        number
    }

    /// Asks, settles, and returns how it ended.
    pub(crate) fn asked(&mut self, id: Id, act: Act) -> Option<Result<u64, AskError>> {
        let number = self.ask(id, act);
        self.settle();
        outcome(number)
    }

    /// Tells, and settles.
    pub(crate) fn told(&mut self, id: Id, act: Act) -> u64 {
        let number = self.tell(id, act);
        self.settle();
        number
    }

    /// One of the counts, summed over the shards.
    pub(crate) fn stat(&self, of: impl Fn(Stats) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(shard.stats())).sum()
    }

    pub(crate) fn dead(&self, reason: Reason) -> u64 {
        self.shards.iter().map(|shard| shard.dead_letter_count(reason)).sum()
    }

    pub(crate) fn entities(&self, kind: usize) -> usize {
        by_kind!(kind, N => self.shards.iter().map(Shard::entities::<Subject<N>>).sum())
    }

    pub(crate) fn entities_in_all(&self) -> usize {
        self.shards.iter().map(Shard::entities_in_all).sum()
    }

    pub(crate) fn attached(&self) -> usize {
        self.shards.iter().map(Shard::entities_attached).sum()
    }

    /// Faults of somebody without a supervisor.
    pub(crate) fn faults_kept(&mut self, id: Id) -> usize {
        let own = |fault: &coreside_shard::Fault| diary::id_of(fault.entity) == id;
        let kept = self.shards.iter_mut().flat_map(Shard::take_faults);
        kept.filter(own).count()
    }

    pub(crate) fn unsupervised_faults(&mut self) -> usize {
        self.shards.iter_mut().map(|shard| shard.take_faults().count()).sum()
    }

    /// Stops everybody; then nothing may be left of anybody.
    pub(crate) fn close(mut self) {
        let context = format!("seed {}", self.seed);
        for kind in 0..KINDS {
            (0..self.keys).for_each(|key| diary::plan(Id(kind, key), diary::Plan::default()));
        }
        self.wait_ms(20);
        for _ in 0..200 {
            if self.entities_in_all() == 0 {
                break;
            }
            for kind in (0..KINDS).filter(|kind| self.entities(*kind) > 0).collect::<Vec<_>>() {
                (0..self.keys).for_each(|key| {
                    self.tell(Id(kind, key), Act::Stop);
                });
            }
            self.settle();
            self.wait_ms(200);
        }
        assert_eq!(self.entities_in_all(), 0, "{context}: somebody does not stop");
        self.now.monotonic_ns += 11_000 * MS;
        (0..8).for_each(|_| self.settle());
        assert_eq!(self.attached(), 0, "{context}: what is attached leaks");
        assert_eq!(self.shards.iter().map(Shard::async_turns).sum::<usize>(), 0, "{context}");
        assert_eq!(self.shards.iter().map(Shard::timers).sum::<usize>(), 0, "{context}");
        assert_eq!(self.shards.iter().map(Shard::asks_waiting).sum::<usize>(), 0, "{context}");
        assert_eq!(under_way(), 0, "{context}: messages are lost");
        for kind in ["state", "message", "copy", "future", "continuation", "bell", "grenade"] {
            assert_eq!(live(kind), 0, "{context}: {kind}");
        }
        check(&context);
        drop(self);
        diary::clear();
        close(&context);
    }
}

fn finisher(number: u64) -> impl FnOnce(Result<u64, AskError>, &mut dyn Outside) + 'static {
    let witness = Witness::new("continuation");
    move |answer, _| {
        finish(number, answer);
        drop(witness);
    }
}
