//! Everything at once, from a seed, against a model of what may come of it.

use std::collections::{BTreeMap, BTreeSet};

use coreside_shard::{AskError, ShardConfig};

use crate::book::{book, outcome};
use crate::diary::{Event, Goodbye, Id, Make, Plan, events, plan};
use crate::random::Random;
use crate::subject::{Act, ESCALATE, KINDS, RESUME, Then};
use crate::world::{MS, World, config};

/// Those that stay to the end, and hear of everything that they watch.
const KEEPERS: std::ops::Range<u64> = 50..53;

struct Run {
    world: World,
    random: Random,
    keys: u64,
    /// What each message was to do.
    acts: BTreeMap<u64, Act>,
    asks: Vec<u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let shards = 1 + random.below(3) as u16;
        let config = ShardConfig {
            turns_per_poll: 1 + random.below(40) as u32,
            entities_max: if random.one_in(4) { 6 } else { 1_000 },
            resident_bytes_max: if random.one_in(3) { 1_500 } else { usize::MAX },
            tasks_max: if random.one_in(4) { 3 } else { 1_000 },
            seed,
            ..config()
        };
        let keys = 2 + random.below(5);
        let world = World::with(shards, seed, &config);
        Self { world, random, keys, acts: BTreeMap::new(), asks: Vec::new() }
    }

    fn anybody(&mut self) -> Id {
        Id(self.random.below(KINDS as u64) as usize, self.random.below(self.keys))
    }

    fn then(&mut self) -> Then {
        match self.random.below(6) {
            0 => Then::Panic,
            1 => Then::Fail,
            2 => Then::Stop,
            _ => Then::Answer,
        }
    }

    fn act(&mut self) -> Act {
        let (other, then, ms) = (self.anybody(), self.then(), self.random.below(5));
        match self.random.below(40) {
            0..=2 => Act::Panic,
            3 => Act::Fail,
            4 => Act::FailAndStop,
            5 => Act::PanicTwice,
            6..=8 => Act::Stop,
            9..=12 => Act::Start(other),
            13 | 14 => Act::StopOther(other),
            15..=18 => Act::Watch(other),
            19 | 20 => Act::Unwatch(other),
            21..=24 => Act::Run(ms, then),
            25 | 26 => Act::Interleave(ms, then),
            27 => Act::Ring(ms),
            28 | 29 => Act::Tell(other),
            30 | 31 => Act::Ask(other),
            _ => Act::Nothing,
        }
    }

    fn plan(&mut self) {
        let (id, other, ms) = (self.anybody(), self.anybody(), self.random.below(4));
        let make = [
            Make::Plain,
            Make::Panic,
            Make::Fail,
            Make::Stop,
            Make::Quiet,
            Make::Run,
            Make::RunPanic,
            Make::AtOnce,
            Make::PanicAtOnce,
            Make::Slow(ms),
            Make::SlowPanic(ms),
        ][self.random.below(11) as usize];
        let goodbye = match self.random.below(8) {
            0 => Goodbye::Panic,
            1 => Goodbye::Fail,
            2 | 3 => Goodbye::Slow(ms),
            4 => Goodbye::SlowPanic(ms),
            5 if other.0 != id.0 => Goodbye::Tell(other),
            _ => Goodbye::Plain,
        };
        let (makes, failing_tries) = (self.random.below(4) as u32, self.random.below(5) as u32);
        plan(id, Plan { make, makes, goodbye, failing_tries, ..Plan::default() });
    }

    fn send(&mut self) {
        let (id, act) = (self.anybody(), self.act());
        if self.random.one_in(12) {
            let number = self.world.ask_try(id, 200);
            return self.asks.push(number);
        }
        let number = match self.random.below(3) {
            0 => self.world.tell(id, act),
            1 => {
                let (from, ms) = (self.random.below(self.world.shards.len() as u64), 40);
                let within = 1 + self.random.below(ms);
                self.world.ask_within(from as usize, id, act, within)
            }
            _ => self.world.ask(id, act),
        };
        if book(|book| book.outcomes.contains_key(&number)) {
            return;
        }
        self.acts.insert(number, act);
    }

    fn keeper_watches(&mut self) {
        let keeper = Id(RESUME, KEEPERS.start + self.random.below(3));
        let mut other = self.anybody();
        while other.0 == RESUME {
            other = self.anybody();
        }
        let act = if self.random.one_in(4) { Act::Unwatch(other) } else { Act::Watch(other) };
        let number = self.world.tell(keeper, act);
        self.acts.insert(number, act);
    }

    fn step(&mut self) {
        match self.random.below(30) {
            0..=12 => self.send(),
            13 | 14 => self.keeper_watches(),
            15 => self.plan(),
            16 if self.random.one_in(6) => self.world.wait_ms(1 + self.random.below(20)),
            16 if self.random.one_in(20) => self.world.now.monotonic_ns += 1_100 * MS,
            17 => self.world.now.monotonic_ns += MS,
            _ => {
                let shard = self.random.below(self.world.shards.len() as u64) as usize;
                self.world.poll(shard);
            }
        }
    }

    fn finish(mut self) {
        let seed = self.world.seed;
        for kind in 0..KINDS {
            (0..self.keys).for_each(|key| plan(Id(kind, key), Plan::default()));
        }
        self.world.wait_ms(30);
        self.world.now.monotonic_ns += 11_000 * MS;
        (0..8).for_each(|_| self.world.settle());
        for _ in 0..3 {
            for kind in (0..KINDS).filter(|kind| *kind != RESUME) {
                (0..self.keys).for_each(|key| {
                    self.world.tell(Id(kind, key), Act::Stop);
                });
            }
            self.world.settle();
            self.world.wait_ms(10);
            self.world.now.monotonic_ns += 13_000 * MS;
            (0..4).for_each(|_| self.world.settle());
        }
        self.check_watches();
        for number in &self.asks {
            assert!(outcome(*number).is_some(), "seed {seed}: ask {number} has not ended");
        }
        let cycles = book(|book| {
            book.outcomes
                .values()
                .filter(|outcome| matches!(outcome, Err(AskError::Cycle(_))))
                .count()
        });
        assert_eq!(cycles, 0, "seed {seed}: continuations make nobody wait");
        self.world.close();
    }

    /// Each watch was told of once at most, none after it was taken back or its life was over, and
    /// of what the keepers watched none was forgotten.
    fn check_watches(&self) {
        let seed = self.world.seed;
        let mut watches: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        for event in events() {
            match event {
                Event::Made(id) | Event::SaidPassivate(id) => {
                    watches.remove(&id);
                }
                Event::Handled(id, number) => match self.acts.get(&number) {
                    Some(Act::Watch(other)) => {
                        watches.entry(id).or_default().insert(*other);
                    }
                    Some(Act::Unwatch(other)) => {
                        watches.entry(id).or_default().remove(other);
                    }
                    _ => {}
                },
                Event::Terminated(id, other, _) => {
                    let known = watches.get_mut(&id).is_some_and(|own| own.remove(&other));
                    assert!(
                        known,
                        "seed {seed}: {id:?} is told of {other:?} and does not watch it"
                    );
                }
                _ => {}
            }
        }
        for (id, left) in watches.iter().filter(|(id, _)| id.0 == RESUME && id.1 >= KEEPERS.start) {
            assert!(left.is_empty(), "seed {seed}: {id:?} was not told of {left:?}");
        }
    }
}

#[test]
fn nothing_is_lost_or_doubled_whatever_fails() {
    for seed in 1..=300 {
        let mut run = Run::new(seed);
        (0..400).for_each(|_| run.step());
        run.finish();
    }
}

#[test]
fn nothing_leaks_when_a_run_is_cut() {
    for seed in 1_000..=1_150 {
        let mut run = Run::new(seed);
        (0..300).for_each(|_| run.step());
        (0..run.world.shards.len()).for_each(|shard| {
            run.world.poll(shard);
        });
        drop(run.world);
        crate::diary::clear();
        crate::book::close(&format!("seed {seed}"));
    }
}

#[test]
fn the_node_goes_on_when_a_fault_was_escalated_to_nobody() {
    let mut world = World::new(2, 1);
    world.told(Id(ESCALATE, 1), Act::Panic);
    assert_eq!(
        world.asked(Id(ESCALATE, 1), Act::Nothing),
        Some(Ok(1)),
        "until its driver stops it"
    );
    world.close();
}
