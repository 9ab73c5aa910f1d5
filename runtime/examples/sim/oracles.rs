//! The oracles of the suite. What entities noted in the book is found after the step; what adds up
//! only in the end is looked at when nothing is left to do.

use coreside::DeadLetter;
use coreside::sim::{Oracle, Reason, Sim, SimBuilder};

use crate::suite::book::{
    ASKS, DELIVERY, LIVES, MONEY, ORDER, asks_open, book, entities_alive, finding, under_way,
};

/// All oracles of the suite.
pub(crate) fn watch(builder: SimBuilder) -> SimBuilder {
    builder
        .oracle(Time)
        .oracle(coreside::sim::Bounds { answers_kept_max: 512, answer_words_max: 4 })
        .oracle(Noted(ORDER))
        .oracle(Delivery)
        .oracle(Asks)
        .oracle(Lives)
        .oracle(Noted(MONEY))
}

/// No judge: keeps the book's clock.
struct Time;

impl Oracle for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        book(|book| book.now_ns = sim.now().as_nanos() as u64);
        Ok(())
    }
}

fn noted(oracle: &str) -> Result<(), String> {
    finding(oracle).map_or(Ok(()), Err)
}

fn equal(what: &str, found: u64, expected: u64) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found}, expected {expected}")) }
}

/// What the suite's entities call the handler of what they are told as supervisors.
const FAULT_TOLD: &str = "failed";

/// What entities noted under one name: that an order was not kept, that money was made, and what
/// concerns one workload only.
pub(crate) struct Noted(pub(crate) &'static str);

impl Oracle for Noted {
    fn name(&self) -> &'static str {
        self.0
    }

    fn after_step(&mut self, _sim: &Sim) -> Result<(), String> {
        noted(self.0)
    }

    fn at_rest(&mut self, _sim: &Sim) -> Result<(), String> {
        noted(self.0)
    }
}

/// Every message arrives once, or comes back, or is counted.
struct Delivery;

impl Oracle for Delivery {
    fn name(&self) -> &'static str {
        DELIVERY
    }

    fn after_step(&mut self, _sim: &Sim) -> Result<(), String> {
        noted(DELIVERY)
    }

    fn at_rest(&mut self, sim: &Sim) -> Result<(), String> {
        noted(self.name())?;
        // A letter keeps its message, or is only counted.
        let dead = |number| {
            let count = |reason: &Reason| sim.shard(number).dead_letter_count(*reason);
            // What is tried again carries no stamp.
            Reason::ALL.iter().filter(|reason| **reason != Reason::Poison).map(count).sum::<u64>()
        };
        let letters: u64 = (0..sim.shards()).map(dead).sum();
        // An ask that is refused because it closes a circle is dropped.
        let letters = letters + sim.count(|stats| stats.cycles);
        let missing = under_way() + book(|book| book.dropped);
        // Faults that waited for a boss at its end carry no stamp either; they are known as long as
        // no letter had to make room.
        let shards = || (0..sim.shards()).map(|number| sim.shard(number));
        let kept: usize = shards().map(|shard| shard.dead_letters().count()).sum();
        if kept as u64 != shards().map(|shard| shard.dead_letters_in_all()).sum::<u64>() {
            let beyond = missing.saturating_sub(letters);
            return equal("messages that had no turn and left no letter", beyond, 0);
        }
        let is_fault = |letter: &&DeadLetter| letter.method() == FAULT_TOLD;
        let faults: usize =
            shards().map(|shard| shard.dead_letters().filter(is_fault).count()).sum();
        equal("messages that had no turn", missing, letters - faults as u64)
    }
}

/// Every ask ends once, for a reason, with its own reply.
struct Asks;

impl Oracle for Asks {
    fn name(&self) -> &'static str {
        ASKS
    }

    fn after_step(&mut self, _sim: &Sim) -> Result<(), String> {
        noted(ASKS)
    }

    fn when_still(&mut self, sim: &Sim) -> Result<(), String> {
        // An answer waits with its asker, while that waits to be restarted.
        if (0..sim.shards()).any(|number| sim.shard(number).next_deadline_ns().is_some()) {
            return Ok(());
        }
        equal("asks with an answer that does not come", book(|book| book.owed), 0)
    }

    fn at_rest(&mut self, sim: &Sim) -> Result<(), String> {
        noted(self.name())?;
        equal("asks that have not ended", asks_open(), 0)?;
        let waiting = (0..sim.shards()).map(|number| sim.shard(number).asks_waiting() as u64).sum();
        equal("asks that wait", waiting, 0)?;
        let counted = sim.count(|stats| stats.answers_unclaimed);
        if book(|book| book.has_async_asks && book.unclaimed <= counted) {
            return Ok(());
        }
        equal("asks whose answer nobody heard", book(|book| book.unclaimed), counted)
    }
}

/// An entity lives once at a time, and its state is dropped once.
struct Lives;

impl Oracle for Lives {
    fn name(&self) -> &'static str {
        LIVES
    }

    fn after_step(&mut self, _sim: &Sim) -> Result<(), String> {
        noted(LIVES)
    }

    fn at_rest(&mut self, sim: &Sim) -> Result<(), String> {
        noted(self.name())?;
        let stored: usize = (0..sim.shards()).map(|number| sim.shard(number).states_in_all()).sum();
        let unbooked = (stored as u64).saturating_sub(entities_alive());
        let unbooked = unbooked.min(book(|book| book.unbooked_max));
        equal("entities in memory", entities_alive() + unbooked, stored as u64)
    }
}
