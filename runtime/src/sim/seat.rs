//! One shard of a simulated node: it is driven as the node's driver does it, cut into steps
//! between which other shards may run.

use std::sync::Arc;

use coreside_shard::{AskError, Doorbell, Now, Progress, Shard};

use super::outside::Gate;
use super::trace::Event;
use crate::ingress::Ran;
use crate::stopping::{Phase, Stopping};

/// A shard, and whether it sleeps.
pub(crate) struct Seat {
    pub(crate) shard: Shard,
    pub(crate) bell: Arc<Doorbell>,
    pub(crate) state: State,
    /// Passes without work before it sleeps.
    spins: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Awake,
    /// It found nothing to do, and has not said yet that it is about to sleep.
    Tired,
    /// It has said that it is about to sleep, and not looked yet.
    Drowsy,
    /// Until then, or until it is woken, in nanoseconds of the simulation.
    Asleep {
        until_ns: Option<u64>,
    },
    /// In a node that is stopping: at work, its report withdrawn.
    Withdrawn,
    /// In a node that is stopping: its work is done, and not reported yet.
    Worked {
        busy: bool,
        idle: bool,
    },
    /// In a node that is stopping: the others are not done, and it leaves them the core until then.
    Resting {
        until_ns: u64,
    },
    Ended,
}

/// The longest sleep while asks wait for their deadline: that of the driver.
const NAP_NS: u64 = 5_000_000;

/// How long a shard rests that has nothing to do in a node that is stopping: as in the driver.
const REST_NS: u64 = 200_000;

impl Seat {
    pub(crate) fn new(shard: Shard, bell: Arc<Doorbell>) -> Self {
        Self { shard, bell, state: State::Awake, spins: 0 }
    }

    /// Whether it goes on by itself.
    pub(crate) fn is_ready(&self, woken: bool, now_ns: u64) -> bool {
        match self.state {
            State::Asleep { until_ns } => woken || until_ns.is_some_and(|until| until <= now_ns),
            State::Resting { until_ns } => until_ns <= now_ns,
            State::Ended => false,
            _ => true,
        }
    }

    /// When it goes on, if nobody wakes it before.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        match self.state {
            State::Asleep { until_ns } => until_ns,
            State::Resting { until_ns } => Some(until_ns),
            _ => None,
        }
    }

    /// Takes the calls that wait outside, up to a number, and polls.
    pub(crate) fn pass(&mut self, now: Now, gate: &Gate, jobs_max: usize) -> (u32, Progress) {
        let number = usize::from(self.shard.number());
        self.shard.tick(now);
        let mut jobs = 0;
        while jobs < jobs_max as u32 && !self.shard.is_congested() {
            let Some(mut job) = gate.pop(number) else { break };
            let mut held = None;
            self.shard.attempt(|shard| {
                if job(shard) == Ran::NoRoom {
                    held = Some(job);
                }
            });
            if let Some(job) = held {
                gate.put_back(number, job);
                break;
            }
            jobs += 1;
        }
        (jobs, self.shard.poll(now, &mut **gate.outside.borrow_mut()))
    }

    /// The pass of a node that runs, and what follows from it.
    pub(crate) fn run(
        &mut self,
        now: Now,
        gate: &Gate,
        jobs_max: usize,
        spins: impl FnOnce() -> u64,
    ) -> Event {
        let (jobs, progress) = self.pass(now, gate, jobs_max);
        if jobs > 0 || !progress.is_idle() {
            self.spins = spins();
        } else if self.spins > 0 {
            self.spins -= 1;
        } else {
            self.state = State::Tired;
        }
        Event::Pass { jobs, progress }
    }

    /// Says that it is about to sleep.
    pub(crate) fn prepare_sleep(&mut self) -> Event {
        self.bell.prepare_sleep();
        self.state = State::Drowsy;
        Event::PrepareSleep
    }

    /// Looks once more, and sleeps if there is nothing.
    pub(crate) fn look_again(
        &mut self,
        gate: &Gate,
        phase: Phase,
        (now, now_ns): (Now, u64),
    ) -> Event {
        let number = usize::from(self.shard.number());
        if self.shard.has_work() || !gate.is_empty(number) || phase != Phase::Running {
            self.bell.awake();
            self.state = State::Awake;
            return Event::Stay;
        }
        let asks = (self.shard.asks_waiting() > 0).then_some(NAP_NS);
        let due = |at_ns: u64| at_ns.saturating_sub(now.monotonic_ns);
        let timers = self.shard.next_deadline_ns().map(due);
        let until_ns = [timers, asks].into_iter().flatten().min().map(|nap_ns| now_ns + nap_ns);
        self.state = State::Asleep { until_ns };
        Event::Sleep
    }

    pub(crate) fn wake(&mut self) {
        self.bell.awake();
        self.state = State::Awake;
    }

    /// A pass of a node that is stopping.
    pub(crate) fn drain(&mut self, now: Now, gate: &Gate, jobs_max: usize) -> Event {
        let number = usize::from(self.shard.number());
        let (jobs, progress) = self.pass(now, gate, jobs_max);
        let busy = jobs > 0 || !progress.is_idle();
        let idle = !busy
            && !self.shard.has_work()
            && self.shard.asks_waiting() == 0
            && !self.shard.has_unfinished_turns()
            && gate.is_empty(number);
        self.state = State::Worked { busy, idle };
        Event::Pass { jobs, progress }
    }

    pub(crate) fn report(&mut self, stopping: &Stopping, now_ns: u64) -> Event {
        if let State::Worked { busy, idle } = self.state {
            stopping.report(self.shard.number(), idle, self.shard.traffic_words());
            let until_ns = now_ns + if busy { 0 } else { REST_NS };
            self.state = State::Resting { until_ns };
        }
        Event::Report
    }

    /// Ends what still waits, so that every ask has its answer.
    pub(crate) fn end(&mut self, gate: &Gate) -> Event {
        self.shard.end_asks(AskError::MaybeExecuted, &mut **gate.outside.borrow_mut());
        self.state = State::Ended;
        Event::End
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::atomic::AtomicBool;

    use coreside_shard::{HashKey, Placement, Registry, ShardConfig};

    use super::*;

    #[test]
    fn job_that_finds_no_room_runs_again_before_all_others() {
        let table = Registry::new().build().expect("no types");
        let hash_key = HashKey::new(1);
        let shard = Shard::alone(&ShardConfig::new(hash_key), Arc::clone(&table));
        let bell = Arc::<Doorbell>::default();
        let woken = Arc::new(vec![AtomicBool::new(false)]);
        let home = (Placement::even(1), hash_key);
        let gate = Gate::new(vec![Arc::clone(&bell)], &woken, 8, home, table, 1);
        let mut seat = Seat::new(shard.expect("a shard"), bell);
        let ran = Rc::new(RefCell::new(Vec::new()));
        for (name, mut refusals) in [("first", 2), ("second", 0)] {
            let ran = Rc::clone(&ran);
            let job = move |_: &mut Shard| {
                ran.borrow_mut().push(name);
                refusals -= 1;
                if refusals < 0 { Ran::Done } else { Ran::NoRoom }
            };
            gate.push(0, Box::new(job));
        }
        let jobs: Vec<u32> = (0..3).map(|_| seat.pass(Now::default(), &gate, 8).0).collect();
        assert_eq!(jobs, [0, 0, 2]);
        assert_eq!(*ran.borrow(), ["first", "first", "first", "second"]);
        assert!(gate.is_empty(0));
    }
}
