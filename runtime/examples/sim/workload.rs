//! The workloads, one per file: entities, and what is sent to them. A new one is a file and a line
//! in [`KINDS`].

mod churn;
mod deadlines;
mod full;
mod groups;
mod later;
mod ledger;
mod many;
mod panics;
mod ping;
mod poison;
mod stop;
mod sweeps;
mod timers;
mod trees;
mod turns;
mod vault;
mod watches;
mod wire;

use std::cell::Cell;
use std::rc::Rc;

use coreside::sim::Outside;
use coreside::sim::{Random, Sim, SimBuilder, SimError, SimHandle};
use coreside::{AskError, Cx, Entity, Full, Handler, Message};

use crate::suite::book::{Asked, Life, Stamp, book, count, fault};
use crate::suite::run::STEPS_MAX;
use crate::suite::scenario::Scenario;

/// What is done to a simulated node.
pub(crate) trait Workload {
    /// Registers its entities.
    fn register(&self, builder: SimBuilder) -> SimBuilder;

    /// Sends something from outside.
    fn load(&mut self, load: &mut Load<'_>);

    /// Load has stopped: lets everything come to its end, and looks at what it came to.
    ///
    /// # Errors
    /// What an oracle found, or that there is no end.
    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        settle(sim)
    }
}

/// A workload that keeps nothing itself, and sends one message after the other.
pub(crate) struct Plain {
    /// Registers its entities.
    pub(crate) register: fn(SimBuilder) -> SimBuilder,
    /// Sends one message from outside.
    pub(crate) send: fn(&mut Load<'_>),
    /// Lets everything come to its end.
    pub(crate) end: fn(&mut Sim) -> Result<(), SimError>,
}

impl Workload for Plain {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        (self.register)(builder)
    }

    fn load(&mut self, load: &mut Load<'_>) {
        (0..load.batch()).for_each(|_| (self.send)(load));
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        (self.end)(sim)
    }
}

/// A workload by its name.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Makes a drawn scenario one for this workload.
    pub(crate) shape: fn(&mut Scenario),
    pub(crate) make: fn() -> Box<dyn Workload>,
}

/// All workloads.
pub(crate) const KINDS: &[Kind] = &[
    ping::KIND,
    many::KIND,
    ledger::KIND,
    later::KIND,
    full::KIND,
    panics::KIND,
    sweeps::KIND,
    churn::KIND,
    stop::KIND,
    watches::KIND,
    vault::KIND,
    poison::KIND,
    timers::KIND,
    deadlines::KIND,
    trees::KIND,
    turns::KIND,
    groups::KIND,
    wire::KIND,
];

impl Kind {
    /// The workload called `name`.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The workload that a seed has where nobody chose one.
    pub(crate) fn of(seed: u64) -> &'static Self {
        &KINDS[(seed % KINDS.len() as u64) as usize]
    }

    /// The scenario of a seed for this workload.
    pub(crate) fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::drawn(seed);
        (self.shape)(&mut scenario);
        scenario
    }
}

/// For a workload that knows everything of each of its entities: few of them, of which each can be
/// made, and not too much at a time.
pub(crate) fn keep_small(scenario: &mut Scenario, keys: u64, steps: u64) {
    scenario.keys = scenario.keys.min(keys);
    scenario.steps = scenario.steps.min(steps);
    scenario.batch = scenario.batch.min(8);
    scenario.curses = 0;
    scenario.entities_max = 1024;
}

/// Ends all disturbances and runs until nothing is left to do.
pub(crate) fn settle(sim: &mut Sim) -> Result<(), SimError> {
    sim.calm();
    sim.run_until_idle(STEPS_MAX).map(|_| ())
}

/// Load about to be put on.
pub(crate) struct Load<'a> {
    pub(crate) sim: &'a Sim,
    pub(crate) scenario: &'a Scenario,
    pub(crate) random: &'a mut Random,
}

/// Whoever sends from outside is told apart by the shard that it enters by.
pub(crate) const OUTSIDE: u64 = 1 << 32;

impl<'a> Load<'a> {
    pub(crate) fn new(sim: &'a Sim, scenario: &'a Scenario, random: &'a mut Random) -> Self {
        Self { sim, scenario, random }
    }

    /// How many messages to send.
    pub(crate) fn batch(&mut self) -> u64 {
        self.random.between(1, self.scenario.batch)
    }

    pub(crate) fn key(&mut self) -> u64 {
        self.random.below(self.scenario.keys)
    }

    /// A way in, and the number of who sends.
    pub(crate) fn entrance(&mut self) -> (SimHandle, u64) {
        let shard = self.random.below(self.sim.shards() as u64) as u16;
        (self.sim.handle().by_way_of(shard), OUTSIDE + u64::from(shard))
    }

    /// Tells entity `key`; `back` takes the stamp out of a message that was refused.
    pub(crate) fn tell<E, M>(
        &mut self,
        key: u64,
        make: impl FnOnce(Stamp) -> M + 'static,
        back: fn(M) -> Stamp,
    ) where
        E: Handler<M, Key = u64>,
        M: Message,
    {
        let (handle, from) = self.entrance();
        handle.with_shard(move |shard| {
            let message = make(Stamp::new((from, key)));
            if let Err(Full(message)) = shard.tell::<E, M>(key, message) {
                back(message).take_back();
            }
        });
    }

    /// Asks entity `key`; its reply must be that of the stamp.
    pub(crate) fn ask<E, M>(
        &mut self,
        key: u64,
        make: impl FnOnce(Stamp) -> M + 'static,
        back: fn(M) -> Stamp,
    ) where
        E: Handler<M, Key = u64>,
        M: Message<Reply = u64>,
    {
        let (handle, from) = self.entrance();
        let timeout_ns = self.scenario.ask_timeout_ns;
        handle.with_shard(move |shard| {
            let stamp = Stamp::new((from, key));
            // Shared until the ask was taken in: a refusal gives the message back, not `then`.
            let asked = Rc::new(Cell::new(Some(Asked::new(&stamp))));
            let kept = Rc::clone(&asked);
            let then = move |answer: Result<u64, AskError>, _: &mut dyn Outside| {
                if let Some(asked) = kept.take() {
                    asked.end(answer);
                }
            };
            let deadline_ns = shard.now().monotonic_ns + timeout_ns;
            if let Err(Full(message)) = shard.ask::<E, M, _>(key, make(stamp), deadline_ns, then) {
                back(message).take_back();
                asked.take().into_iter().for_each(Asked::take_back);
            }
        });
    }
}

/// Begins the life of an entity, or panics where the scenario says so.
pub(crate) fn begin(entity: u64) -> Life {
    if fault(|scenario| scenario.curses) {
        book(|book| book.cursed += 1);
        count("panics in activations", 1);
        panic!("told to, in an activation");
    }
    Life::begin(entity)
}

/// Stops the entity or panics in the turn of `stamp`, where the scenario says so.
pub(crate) fn may_fail<E: Entity>(stamp: &Stamp, cx: &mut Cx<'_, E>) {
    if fault(|scenario| scenario.stops) {
        count("entities stopped", 1);
        cx.stop();
    }
    if fault(|scenario| scenario.panics) {
        stamp.will_panic();
        count("panics in turns", 1);
        panic!("told to, in a turn");
    }
}
