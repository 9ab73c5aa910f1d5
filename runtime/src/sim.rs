//! Deterministic simulation: a whole node in one thread, in virtual time, from one seed.
//!
//! The shards are those of production; what is simulated is everything around them. Which shard
//! goes next, how time passes, how long rings and queues are, where partitions lie: all of it is
//! drawn from the seed, each from a stream of its own. So a run repeats exactly, and a seed that
//! fails, fails again. Entities that draw no randomness and read no clock but
//! [`Cx`](crate::Cx)'s repeat with it.
//!
//! # Examples
//! ```
//! use coreside::sim::Sim;
//! use coreside::{entity, handlers};
//!
//! #[entity]
//! struct Account {
//!     balance: i64,
//! }
//!
//! #[handlers]
//! impl Account {
//!     fn deposit(&mut self, amount: i64) -> i64 {
//!         self.balance += amount;
//!         self.balance
//!     }
//! }
//!
//! for seed in 0..20 {
//!     let mut sim = Sim::builder(seed).shards(3).entity::<Account>().build()?;
//!     let first = sim.entity::<Account>(7).deposit(10).ask();
//!     let second = sim.entity::<Account>(7).deposit(5).ask();
//!     sim.run_until_idle(100_000)?;
//!     assert_eq!(first.take(), Some(Ok(10)), "seed {seed}");
//!     assert_eq!(second.take(), Some(Ok(15)), "seed {seed}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Oracles
//! What must hold at every step is the business of an [`Oracle`]. All of a simulation is in one
//! thread, so entities can note for it what they do.
//!
//! ```
//! use std::cell::Cell;
//!
//! use coreside::sim::{Oracle, Sim};
//! use coreside::{entity, handlers};
//!
//! thread_local! {
//!     static SOLD: Cell<u64> = const { Cell::new(0) };
//! }
//!
//! #[entity]
//! struct Seat {
//!     is_taken: bool,
//! }
//!
//! #[handlers]
//! impl Seat {
//!     fn book(&mut self) -> bool {
//!         let is_free = !std::mem::replace(&mut self.is_taken, true);
//!         SOLD.set(SOLD.get() + u64::from(is_free));
//!         is_free
//!     }
//! }
//!
//! struct NoneTwice;
//!
//! impl Oracle for NoneTwice {
//!     fn name(&self) -> &'static str {
//!         "seats"
//!     }
//!
//!     fn after_step(&mut self, _sim: &Sim) -> Result<(), String> {
//!         let sold = SOLD.get();
//!         if sold <= 2 { Ok(()) } else { Err(format!("{sold} of 2 seats are sold")) }
//!     }
//! }
//!
//! for seed in 0..20 {
//!     SOLD.set(0);
//!     let mut sim = Sim::builder(seed).entity::<Seat>().oracle(NoneTwice).build()?;
//!     let mut random = sim.random("bookings");
//!     for _ in 0..10 {
//!         let _ = sim.entity::<Seat>(random.below(2)).book().ask();
//!         sim.step()?;
//!     }
//!     // An error names the oracle, what it found, and the step; the seed repeats it.
//!     sim.run_until_idle(100_000)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Sleeping
//! A shard without work sleeps as on a real core: it says so on its doorbell, looks once more, and
//! is not polled again before it is woken or a deadline is due. Other shards may run between any
//! two of these steps, so a wake-up that the doorbell's protocol could lose is lost here too, and
//! found.

mod builder;
mod clock;
mod group;
mod limits;
mod oracle;
mod outside;
mod random;
mod schedule;
mod seat;
mod trace;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use builder::{SimBuildError, SimBuilder};
pub use coreside_shard::{
    Body, Encode, Outside, Progress, Reason, Shard, SharedBytes, Stats, Ticket, WireCall, WireError,
};
pub use limits::{Disturbances, QUEUE_WORDS_MIN, RING_WORDS_MIN, SimLimits};
pub use oracle::{Bounds, Oracle, SimError, Violation};
pub use outside::{SimCall, SimHandle, SimReply};
pub use random::Random;
pub use trace::{Event, Step};

use clock::Clock;
use coreside_shard::{Entity, EntityId, Sweep};
use outside::Gate;
use schedule::Schedule;
use seat::{Seat, State};
use trace::Trace;

use crate::stopping::{Phase, Stopping};

/// A node that runs in one thread and in virtual time.
pub struct Sim {
    seats: Vec<Seat>,
    woken: Arc<Vec<AtomicBool>>,
    gate: Rc<Gate>,
    clock: Clock,
    schedule: Schedule,
    faults: Random,
    slow_per_mille: u32,
    trace: Trace,
    oracles: Vec<Box<dyn Oracle>>,
    stopping: Stopping,
    limits: SimLimits,
    stats: SimStats,
    last_shard: usize,
    escalation: Option<EntityId>,
    seed: u64,
}

/// What a simulation did, beside what its shards count themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimStats {
    /// Steps of all shards.
    pub steps: u64,
    /// Polls among them.
    pub polls: u64,
    /// Times that a shard went to sleep.
    pub sleeps: u64,
    /// Times that a shard found work at its last look before it slept.
    pub stays: u64,
    /// Times that a shard was woken.
    pub wakes: u64,
    /// Times that a shard's sleep was over before it was woken.
    pub naps: u64,
    /// Jumps of the clock.
    pub clock_jumps: u64,
    /// Times that the wall clock was set.
    pub wall_steps: u64,
    /// Passes that took long.
    pub slow_passes: u64,
    /// Times that a shard was not polled for long.
    pub starvations: u64,
    /// Calls from outside that found the way in full, or the node stopping.
    pub calls_refused: u64,
}

impl Sim {
    /// Begins a simulation; what is not chosen is drawn from `seed`.
    pub fn builder(seed: u64) -> SimBuilder {
        SimBuilder::new(seed)
    }

    /// The way to the entity `key` of type `E`, from outside of the node.
    pub fn entity<E: Entity>(&self, key: E::Key) -> E::Ref<SimHandle> {
        self.handle().entity::<E>(key)
    }

    /// Passes over all entities `E` of the node; the total is the reply.
    ///
    /// # Panics
    /// When `S` is not registered with this node.
    pub fn sweep<E: Entity, S: Sweep<E>>(&self) -> SimReply<S> {
        self.handle().sweep::<E, S>()
    }

    /// Calls entities from outside of the node, also while it runs.
    pub fn handle(&self) -> SimHandle {
        SimHandle { gate: Rc::clone(&self.gate), entrance: None }
    }

    /// A stream of random numbers of this simulation's seed, for what is sent to it.
    pub fn random(&self, label: &str) -> Random {
        Random::stream(self.seed, &format!("user: {label}"))
    }

    /// Lets one shard do one thing, and some time pass. Returns whether anything was left to do.
    ///
    /// # Errors
    /// What an oracle found.
    pub fn step(&mut self) -> Result<bool, SimError> {
        let ready = self.ready();
        if ready != 0 {
            let shard = self.schedule.next(ready);
            self.step_shard(shard);
            self.clock.pass();
            self.judge(Moment::Step)?;
            return Ok(true);
        }
        // A shard of a stopping node rests from its work and does not sleep.
        if !self.seats.iter().any(|seat| matches!(seat.state, State::Resting { .. })) {
            self.judge(Moment::Still)?;
        }
        let Some(next_ns) = self.next_ns() else { return Ok(false) };
        self.clock.skip_to(next_ns);
        self.judge(Moment::Step)?;
        Ok(true)
    }

    /// Runs for so much virtual time.
    ///
    /// # Errors
    /// What an oracle found.
    pub fn run_for(&mut self, time: Duration) -> Result<(), SimError> {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = self.clock.now_ns().saturating_add(time_ns);
        while self.clock.now_ns() < until_ns {
            let is_still = self.ready() == 0;
            if is_still && self.next_ns().is_none_or(|next_ns| next_ns > until_ns) {
                self.clock.skip_to(until_ns);
            } else {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Runs until all shards sleep and nothing waits: no message, no ask. Returns the number of
    /// steps.
    ///
    /// # Errors
    /// What an oracle found, or that work was left after `steps_max` steps.
    pub fn run_until_idle(&mut self, steps_max: u64) -> Result<u64, SimError> {
        for steps in 0..steps_max {
            if !self.step()? {
                self.judge(Moment::Rest)?;
                return Ok(steps);
            }
        }
        Err(SimError::StillBusy { steps: self.stats.steps })
    }

    /// Stops the node as in production: takes nothing new, finishes what is there, ends. Runs until
    /// every shard has ended.
    ///
    /// # Errors
    /// As for [`run_until_idle`](Self::run_until_idle).
    pub fn stop(&mut self, steps_max: u64) -> Result<u64, SimError> {
        self.begin_stop();
        self.run_until_idle(steps_max)
    }

    fn begin_stop(&mut self) {
        self.gate.refuse();
        self.stopping.begin();
        self.seats.iter_mut().for_each(|seat| seat.shard.release_kept());
        self.woken.iter().for_each(|woken| woken.store(true, Ordering::Relaxed));
    }

    /// Whose fault was escalated and has nobody to decide about it: the node stops because of it,
    /// as in production.
    pub fn escalation(&self) -> Option<EntityId> {
        self.escalation
    }

    /// Ends all disturbances: from now on shards take turns evenly and time passes in small steps.
    /// What was begun must come to its end in bounded time then.
    pub fn calm(&mut self) {
        self.schedule.calm();
        self.clock.calm();
        self.slow_per_mille = 0;
    }

    /// Virtual time since the simulation began.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.clock.now_ns())
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the simulation did so far.
    pub fn stats(&self) -> SimStats {
        SimStats {
            clock_jumps: self.clock.jumped,
            wall_steps: self.clock.stepped,
            starvations: self.schedule.starvations,
            calls_refused: self.gate.refused(),
            ..self.stats
        }
    }

    /// One of the counts of the shards, summed over them.
    pub fn count(&self, of: impl Fn(&Stats) -> u64) -> u64 {
        self.seats.iter().map(|shard| of(&shard.shard.stats())).sum()
    }

    /// The bounds of this node.
    pub fn limits(&self) -> &SimLimits {
        &self.limits
    }

    /// How many shards the node has.
    pub fn shards(&self) -> usize {
        self.seats.len()
    }

    /// Shard `number`.
    ///
    /// # Panics
    /// When there is none.
    pub fn shard(&self, number: usize) -> &Shard {
        &self.seats[number].shard
    }

    /// The shard that had the last step.
    pub fn last_shard(&self) -> usize {
        self.last_shard
    }

    /// Stands for everything that happened so far: the same for the same seed and the same calls.
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// The last steps, the oldest first.
    pub fn last_steps(&self) -> impl Iterator<Item = &Step> {
        self.trace.last()
    }

    fn is_woken(&self, shard: usize) -> bool {
        self.woken[shard].load(Ordering::Relaxed)
    }

    /// The shards that may go on, as a mask.
    fn ready(&self) -> u64 {
        let now_ns = self.clock.now_ns();
        let is_ready = |shard: usize| self.seats[shard].is_ready(self.is_woken(shard), now_ns);
        (0..self.seats.len()).filter(|shard| is_ready(*shard)).fold(0, |mask, at| mask | 1 << at)
    }

    fn next_ns(&self) -> Option<u64> {
        self.seats.iter().filter_map(Seat::next_ns).min()
    }

    fn step_shard(&mut self, number: usize) {
        self.stats.steps += 1;
        self.last_shard = number;
        let now = self.clock.read();
        let phase = self.stopping.phase();
        let jobs_max = self.limits.jobs_per_pass;
        let is_woken = self.is_woken(number);
        let seat = &mut self.seats[number];
        let event = match (seat.state, phase) {
            (State::Asleep { .. }, _) => {
                self.woken[number].store(false, Ordering::Relaxed);
                seat.wake();
                if is_woken { Event::Wake } else { Event::Nap }
            }
            (State::Tired, Phase::Running) => seat.prepare_sleep(),
            (State::Drowsy, _) => seat.look_again(&self.gate, phase, (now, self.clock.now_ns())),
            (State::Worked { .. }, _) => seat.report(&self.stopping, self.clock.now_ns()),
            (_, Phase::Stopped) => {
                self.gate.close();
                seat.end(&self.gate)
            }
            (State::Withdrawn, _) => seat.drain(now, &self.gate, jobs_max),
            (_, Phase::Draining) => {
                self.stopping.withdraw(number as u16);
                seat.state = State::Withdrawn;
                Event::Withdraw
            }
            (_, Phase::Running) => seat.run(now, &self.gate, jobs_max, || self.schedule.spins()),
        };
        let fingerprint = seat.shard.fingerprint();
        let (steps, now_ns) = (self.stats.steps, self.clock.now_ns());
        let step = Step { number: steps, shard: number as u16, now_ns, event, fingerprint };
        self.trace.add(step, &seat.shard.stats());
        let escalation = seat.shard.take_escalation();
        self.count_event(event);
        if escalation.is_some() {
            self.escalation = self.escalation.or(escalation);
            self.begin_stop();
        }
    }

    fn count_event(&mut self, event: Event) {
        match event {
            Event::Pass { progress, .. } => {
                self.stats.polls += 1;
                if progress.turns > 0 && self.faults.per_mille(self.slow_per_mille) {
                    self.stats.slow_passes += 1;
                    self.clock.slow_turn();
                }
            }
            Event::Sleep => self.stats.sleeps += 1,
            Event::Stay => self.stats.stays += 1,
            Event::Wake => self.stats.wakes += 1,
            Event::Nap => self.stats.naps += 1,
            _ => {}
        }
    }

    /// Asks the oracles, and looks for shards that sleep although something waits for them.
    fn judge(&mut self, moment: Moment) -> Result<(), SimError> {
        let mut finding = self.sleeper_with_work().map(|shard| {
            ("wake-ups", format!("shard {shard} sleeps on a message, and nobody wakes it"))
        });
        let mut oracles = std::mem::take(&mut self.oracles);
        for oracle in &mut oracles {
            if finding.is_some() {
                break;
            }
            let verdict = match moment {
                Moment::Step => oracle.after_step(self),
                Moment::Still => oracle.when_still(self),
                Moment::Rest => oracle.at_rest(self),
            };
            finding = verdict.err().map(|what| (oracle.name(), what));
        }
        self.oracles = oracles;
        match finding {
            None => Ok(()),
            Some((oracle, what)) => {
                Err(SimError::Violation(Violation { oracle, what, step: self.stats.steps }))
            }
        }
    }

    /// Between two steps whoever published has rung: a shard that sleeps has no work, or was woken.
    fn sleeper_with_work(&mut self) -> Option<usize> {
        let woken = Arc::clone(&self.woken);
        self.seats.iter_mut().enumerate().position(|(number, seat)| {
            matches!(seat.state, State::Asleep { .. })
                && !woken[number].load(Ordering::Relaxed)
                && (seat.shard.has_work() || !self.gate.is_empty(number))
        })
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("shards", &self.seats.len())
            .field("now", &self.now())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Sim {
    /// Calls that nobody took any more are dropped before the shards are.
    fn drop(&mut self) {
        self.gate.close();
    }
}

/// When oracles are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Behind a step, or behind time in which nobody had anything to do.
    Step,
    /// Nobody has anything to do now.
    Still,
    /// Somebody wanted to know that.
    Rest,
}
