//! The simulator: it repeats, seeds pass, and each oracle finds what it is there for.
#![allow(dead_code, reason = "the suite is shared with the example `sim`, which uses all of it")]

#[path = "../examples/sim/suite.rs"]
mod suite;

use std::cell::Cell;
use std::time::Duration;

use coreside::sim::{Bounds, Disturbances, Sim, SimBuilder, SimError, SimLimits};
use coreside::{Cx, Full, Later, ReplyTo, entity, handlers};

use suite::book::{Coins, Life, Stamp};
use suite::run::{Report, Sabotage, run};
use suite::scenario::Scenario;
use suite::workload::{KINDS, Kind, Load, Workload};

fn report(kind: &Kind, seed: u64) -> Report {
    run(&mut *(kind.make)(), &kind.scenario(seed), Sabotage::default())
}

#[test]
fn a_handful_of_seeds_pass() {
    for kind in KINDS {
        for seed in 0..20 {
            let report = report(kind, seed);
            assert!(report.failure.is_none(), "{} {seed}: {:?}", kind.name, report.failure);
        }
    }
}

/// Seeds that found something, which was then mended.
#[test]
fn seeds_that_failed_once_pass() {
    for (name, seeds) in [("full", &[22, 1021, 1228, 1831][..]), ("stop", &[107, 242])] {
        for seed in seeds {
            let kind = Kind::named(name).expect("a workload");
            let report = report(kind, *seed);
            assert!(report.failure.is_none(), "{name} {seed}: {:?}", report.failure);
        }
    }
}

#[test]
fn the_same_seed_goes_the_same_way_and_another_one_another() {
    for kind in KINDS {
        let hashes: Vec<_> = (100..105).map(|seed| report(kind, seed).hash).collect();
        let again: Vec<_> = (100..105).map(|seed| report(kind, seed).hash).collect();
        assert_eq!(hashes, again, "{}", kind.name);
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash), "{}", kind.name);
        }
    }
}

/// What an entity of the tests does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Swaps,
    TakesTwice,
    Forgets,
    Drops,
    AnswersFalsely,
    LivesTwice,
    Outlives,
    IsMoody,
    /// Says that it answers, and does not.
    Withholds,
}

thread_local! {
    /// Differs between two runs, as a clock or an address would.
    static MOOD: Cell<u64> = const { Cell::new(0) };
}

/// Sends messages to entities that do something wrong.
struct Cheats(Wrong);

impl Workload for Cheats {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        builder.entity::<Cheat>()
    }

    fn load(&mut self, load: &mut Load<'_>) {
        let (key, wrong) = (load.key(), self.0);
        if wrong == Wrong::Withholds {
            return load.ask::<Cheat, _>(key, |stamp| CheatWithhold { stamp }, |m| m.stamp);
        }
        load.ask::<Cheat, _>(key, move |stamp| CheatTake { stamp, wrong }, |m| m.stamp);
    }
}

/// Does something wrong, now and then.
#[entity(activate = Cheat::begin)]
struct Cheat {
    number: u64,
    kept: Option<Stamp>,
    lives: Vec<Life>,
    turns: u64,
}

#[handlers]
impl Cheat {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, kept: None, lives: vec![Life::begin(key)], turns: 0 }
    }

    #[local]
    fn take(&mut self, mut stamp: Stamp, wrong: Wrong, cx: &mut Cx<Self>) -> u64 {
        self.turns += 1;
        let reply = stamp.reply();
        if !self.turns.is_multiple_of(4) && self.kept.is_none() {
            stamp.arrive(self.number);
            return reply;
        }
        match wrong {
            Wrong::Swaps => match self.kept.take() {
                None => self.kept = Some(stamp),
                Some(mut kept) => {
                    stamp.arrive(self.number);
                    kept.arrive(self.number);
                }
            },
            Wrong::TakesTwice => {
                stamp.arrive(self.number);
                stamp.arrive(self.number);
            }
            Wrong::Forgets => std::mem::forget(stamp),
            Wrong::Drops => drop(stamp),
            Wrong::AnswersFalsely => {
                stamp.arrive(self.number);
                return reply + 1;
            }
            Wrong::LivesTwice => {
                stamp.arrive(self.number);
                self.lives.push(Life::begin(self.number));
            }
            Wrong::Outlives => {
                stamp.arrive(self.number);
                std::mem::forget(self.lives.pop());
                cx.stop();
            }
            Wrong::IsMoody => {
                stamp.arrive(self.number);
                for to in 0..MOOD.replace(MOOD.get() + 1) % 5 {
                    let stamp = Stamp::new((self.number, to));
                    if let Err(Full(message)) = cx.entity::<Cheat>(to).take(stamp, wrong).try_tell()
                    {
                        message.stamp.take_back();
                    }
                }
            }
            Wrong::Withholds => stamp.arrive(self.number),
        }
        reply
    }

    #[local]
    fn withhold(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) -> Later<u64> {
        stamp.arrive(self.number);
        let (later, reply_to) = cx.later();
        let _ = stamp.reply();
        drop(reply_to);
        later
    }
}

/// A scenario without faults of its own.
fn plain(seed: u64) -> Scenario {
    let mut scenario = Scenario::drawn(seed);
    for (name, value) in [
        ("steps", 400),
        ("shards", 3),
        ("keys", 4),
        ("load_one_in", 2),
        ("panics", 0),
        ("curses", 0),
        ("stops", 0),
        ("entities_max", 64),
        ("asks_max", 1024),
        ("jobs_max", 64),
        ("ask_timeout_ns", 1_000_000_000),
    ] {
        assert!(scenario.set(name, value));
    }
    scenario
}

fn finder(workload: &mut dyn Workload, scenario: &Scenario, sabotage: Sabotage) -> String {
    let failure = run(workload, scenario, sabotage).failure;
    failure.map_or_else(|| "nobody".to_owned(), |failure| failure.oracle)
}

#[test]
fn each_oracle_finds_what_was_planted_for_it() {
    for (wrong, oracle) in [
        (Wrong::Swaps, "order"),
        (Wrong::TakesTwice, "delivery"),
        (Wrong::Forgets, "delivery"),
        (Wrong::Drops, "delivery"),
        (Wrong::AnswersFalsely, "asks"),
        (Wrong::Withholds, "asks"),
        (Wrong::LivesTwice, "lives"),
        (Wrong::Outlives, "lives"),
    ] {
        for seed in 1..4 {
            let found_by = finder(&mut Cheats(wrong), &plain(seed), Sabotage::default());
            assert_eq!(found_by, oracle, "{wrong:?}, seed {seed}");
        }
    }
}

#[test]
fn a_run_that_does_not_repeat_is_found() {
    let hash = || run(&mut Cheats(Wrong::IsMoody), &plain(1), Sabotage::default()).hash;
    assert_ne!(hash(), hash());
}

#[test]
fn lost_wake_ups_are_found() {
    let kind = Kind::named("ping").expect("a workload");
    for seed in 1..4 {
        let sabotage = Sabotage { wakes_lost_one_in: 4 };
        let scenario = Scenario { steps: 4_000, load_one_in: 32, ..plain(seed) };
        let found_by = finder(&mut *(kind.make)(), &scenario, sabotage);
        assert_eq!(found_by, "wake-ups", "seed {seed}");
    }
}

#[test]
fn work_without_an_end_is_found() {
    let kind = Kind::named("ping").expect("a workload");
    let scenario = Scenario { hops: u64::MAX, steps: 10, batch: 1, ..plain(1) };
    assert_eq!(finder(&mut *(kind.make)(), &scenario, Sabotage::default()), "liveness");
}

/// The ledger, and money that is made and put into no account.
struct Forged(Box<dyn Workload>);

impl Workload for Forged {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        self.0.register(builder)
    }

    fn load(&mut self, load: &mut Load<'_>) {
        self.0.load(load);
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        std::mem::forget(Coins::mint(1));
        self.0.end(sim)
    }
}

#[test]
fn money_that_is_gone_is_found() {
    let ledger = Kind::named("ledger").expect("a workload");
    let found_by = finder(&mut Forged((ledger.make)()), &plain(1), Sabotage::default());
    assert_eq!(found_by, "money");
}

/// Keeps answers long after their asks have ended, and gives them all at once.
#[entity]
struct Hoarder {
    kept: Vec<ReplyTo<u64>>,
}

#[handlers]
impl Hoarder {
    #[local]
    fn keep(&mut self, cx: &mut Cx<Self>) -> Later<u64> {
        let (later, reply_to) = cx.later();
        self.kept.push(reply_to);
        later
    }

    #[local]
    fn release(&mut self, cx: &mut Cx<Self>) {
        self.kept.drain(..).for_each(|reply_to| cx.reply(reply_to, 0));
    }
}

#[test]
fn answers_kept_beyond_their_deadlines_stay_within_the_bounds() {
    let mut limits = SimLimits::drawn(&mut coreside::sim::Random::stream(1, "limits"));
    limits.asks_max = 64;
    limits.ring_words = 40;
    limits.outbox_words_max = 4096;
    limits.jobs_max = 64;
    limits.ask_timeout = Duration::from_millis(1);
    let mut sim = Sim::builder(1)
        .shards(2)
        .entity::<Hoarder>()
        .limits(limits)
        .disturbances(Disturbances::NONE)
        .oracle(Bounds { answers_kept_max: 0, answer_words_max: 3 })
        .build()
        .expect("a node");
    let far = sim.handle().by_way_of(1 - sim.handle().home::<Hoarder>(1));
    for _ in 0..100 {
        let replies: Vec<_> = (0..32).map(|_| far.entity::<Hoarder>(1).keep().ask()).collect();
        sim.run_until_idle(1_000_000).expect("nothing is wrong yet");
        assert!(replies.iter().all(|reply| matches!(reply.take(), Some(Err(_)))));
    }
    assert!(sim.entity::<Hoarder>(1).release().try_tell().is_ok());
    sim.run_until_idle(1_000_000).expect("what goes beyond is for asks that wait");
}

/// Fails, and leaves it to its supervisor to decide.
#[entity(on_fault = escalate)]
struct Careless;

#[handlers]
impl Careless {
    #[local]
    fn fall(&mut self, cx: &mut Cx<Self>) {
        cx.fail("told to");
    }
}

#[test]
fn a_fault_that_nobody_decides_on_stops_the_node() {
    for seed in 0..20 {
        let mut sim = Sim::builder(seed).entity::<Careless>().build().expect("a node");
        assert!(sim.entity::<Careless>(5).fall().try_tell().is_ok());
        sim.run_until_idle(100_000).expect("an end");
        let who = sim.escalation().and_then(|entity| entity.key::<Careless>());
        assert_eq!(who, Some(5), "seed {seed}");
        assert!(sim.entity::<Careless>(6).fall().try_tell().is_err(), "the node has stopped");
    }
}

#[test]
fn a_call_ends_with_its_reply_or_with_the_reason_why_not() {
    let mut sim = Sim::builder(7).shards(2).entity::<Hoarder>().build().expect("a node");
    let (kept, told) = (sim.entity::<Hoarder>(1).keep().ask(), sim.entity::<Hoarder>(1).release());
    let hurried = sim.entity::<Hoarder>(1).keep().within(Duration::from_millis(1)).ask();
    sim.run_for(Duration::from_millis(100)).expect("no violation");
    assert!(!kept.is_ready(), "nobody has released it");
    assert!(matches!(hurried.take(), Some(Err(_))), "its time is over");
    assert!(told.try_tell().is_ok());
    sim.run_until_idle(100_000).expect("no violation");
    assert_eq!(kept.take(), Some(Ok(0)));
    sim.stop(100_000).expect("an end");
    let refused = sim.entity::<Hoarder>(1).keep().ask();
    assert_eq!(refused.take(), Some(Err(coreside::AskError::NotSent)), "the node has stopped");
    assert!(sim.entity::<Hoarder>(1).release().try_tell().is_err());
}
