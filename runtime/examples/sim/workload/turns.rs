//! Async turns that ask, sleep, fail and are cancelled at their deadline: one at a time for each
//! entity, reads beside each other, nothing behind the deadline, and no circle that waits for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use coreside::sim::{Sim, SimBuilder, SimError};
use coreside::{AskError, AsyncCx, Cx, entity, handlers};

use crate::suite::book::{Life, Stamp, book, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Plain, begin, keep_small, settle};

pub(crate) const KIND: Kind = Kind {
    name: "turns",
    about: "async turns",
    shape: |scenario| {
        keep_small(scenario, 24, 800);
        // Circles have to be found well before.
        scenario.ask_timeout_ns = scenario.ask_timeout_ns.max(20_000_000);
        scenario.asks_max = scenario.asks_max.max(256);
        scenario.panics = 0;
    },
    make: || {
        LOG.take();
        Box::new(Plain { register, send, end })
    },
};

const WORD: &str = "async turns";

/// Keys of those that ask in circles, and of those whose turns hold nothing.
const CIRCLE: u64 = 1000;
const LOOSE: u64 = 2000;

/// The wheel's resolution.
const TICK_NS: u64 = 2_000_000;

#[derive(Default)]
struct Log {
    /// Turns that hold an entity: whether alone, and how many.
    held: BTreeMap<u64, (bool, u64)>,
    circles_refused: u64,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

/// Somebody holds the entity.
struct Held(u64);

impl Held {
    fn new(entity: u64, alone: bool) -> Self {
        LOG.with_borrow_mut(|log| {
            if let Some((others_alone, count)) = log.held.get(&entity)
                && (alone || *others_alone)
            {
                note(WORD, format!("{entity} has a turn beside {count} others"));
            }
            let held = log.held.entry(entity).or_insert((alone, 0));
            held.1 += 1;
        });
        Self(entity)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        LOG.with_borrow_mut(|log| {
            let Some(held) = log.held.get_mut(&self.0) else { return };
            held.1 -= 1;
            if held.1 == 0 {
                log.held.remove(&self.0);
            }
        });
    }
}

/// A read under way. It ends before its time where another one of the same life fails.
struct Reading {
    stamp: Stamp,
    _held: Held,
    has_ended: bool,
}

impl Reading {
    fn new(mut stamp: Stamp, worker: &Worker) -> Self {
        // A read may pass what waits, so it has no place in the order.
        stamp.arrive(worker.number);
        worker.goes_on();
        Self { stamp, _held: Held::new(worker.number, false), has_ended: false }
    }

    /// The reply; one in sixteen fails instead.
    fn end(mut self, worker: &Worker) -> u64 {
        worker.goes_on();
        if draw(|random, _| random.one_in(16)) {
            count("faults in reads", 1);
            worker.is_ruined.set(true);
            panic!("told to, in a read");
        }
        self.has_ended = true;
        self.stamp.reply()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stamp.will_panic();
        } else if !self.has_ended {
            // By another's fault, or because its asker waits no longer.
            self.stamp.may_fail();
        }
    }
}

/// Notes where a turn goes on that was to wait until behind its deadline.
fn on_time(deadline_ns: Option<u64>, until_ns: u64) {
    if deadline_ns.is_some_and(|deadline_ns| until_ns > deadline_ns + TICK_NS) {
        note(WORD, format!("a turn goes on at {until_ns}, its deadline was {deadline_ns:?}"));
    }
}

fn register(builder: SimBuilder) -> SimBuilder {
    // Answers to turns that were cancelled.
    book(|book| book.has_async_asks = true);
    builder.entity::<Worker>().entity::<Loose>().oracle(Noted(WORD))
}

fn send(load: &mut Load<'_>) {
    let (key, nap_ns) = (load.key(), load.random.magnitude(1_000, 100_000_000));
    match load.random.below(9) {
        0..2 => {
            let make = move |stamp| WorkerWork { stamp, nap_ns };
            load.ask::<Worker, _>(key, make, |message| message.stamp);
        }
        2 => {
            let make = move |stamp| WorkerWork { stamp, nap_ns };
            load.tell::<Worker, _>(key, make, |message| message.stamp);
        }
        3 => load.ask::<Worker, _>(key, |stamp| WorkerGlance { stamp }, |m| m.stamp),
        4 => {
            let make = move |stamp| WorkerRead { stamp, nap_ns };
            load.ask::<Worker, _>(key, make, |message| message.stamp);
        }
        5 => load.ask::<Worker, _>(key, |stamp| WorkerLook { stamp }, |m| m.stamp),
        6 => load.tell::<Worker, _>(key, |stamp| WorkerFail { stamp }, |m| m.stamp),
        _ => {
            let make = move |stamp| LooseWeave { stamp, nap_ns };
            load.ask::<Loose, _>(LOOSE + key, make, |message| message.stamp);
        }
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    settle(sim)?;
    for length in 1..4 {
        circle(sim, length)?;
    }
    if LOG.with_borrow(|log| !log.held.is_empty()) {
        note(WORD, "a turn has no end".to_owned());
    }
    sim.run_until_idle(1).map(|_| ())
}

/// Asks that wait for each other in a circle: one of them is refused, and all end in time.
fn circle(sim: &mut Sim, length: u64) -> Result<(), SimError> {
    let refused = |_: &Sim| LOG.with_borrow(|log| log.circles_refused);
    let (before, began) = (refused(sim), sim.now());
    let answer = sim.entity::<Worker>(CIRCLE).round(0, length).ask();
    while !answer.is_ready() {
        if !sim.step()? {
            break;
        }
    }
    let took = sim.now() - began;
    match answer.take() {
        // No room on the way in.
        Some(Err(AskError::NotSent)) => {}
        Some(Ok(_)) if refused(sim) > before && took < Duration::from_millis(10) => {
            count("circles refused", 1);
        }
        answer => note(WORD, format!("a circle of {length} ended with {answer:?} after {took:?}")),
    }
    settle(sim)?;
    // All of them go on.
    for key in 0..length {
        let answer = sim.entity::<Worker>(CIRCLE + key).greet().ask();
        settle(sim)?;
        if !matches!(answer.take(), Some(Ok(()) | Err(AskError::NotSent))) {
            note(WORD, format!("one of a circle of {length} does not go on"));
        }
    }
    Ok(())
}

/// Has turns that hold it.
#[entity(activate = Worker::begin, backoff = "1ms..4ms", faults = "1000000 in 1m", stash = 100000)]
struct Worker {
    number: u64,
    /// A read has failed: this life has no more turns.
    is_ruined: Cell<bool>,
    life: Life,
}

impl Worker {
    /// Notes that a turn has this life.
    fn goes_on(&self) {
        if self.is_ruined.get() {
            note(WORD, format!("{} goes on behind the fault of a read", self.number));
        }
    }
}

#[handlers]
impl Worker {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, is_ruined: Cell::new(false), life: begin(key) }
    }

    /// Asks and sleeps, and holds the entity meanwhile.
    #[local]
    async fn work(&mut self, stamp: Stamp, nap_ns: u64, cx: &mut AsyncCx<Self>) -> u64 {
        let mut stamp = stamp;
        stamp.arrive(self.number);
        self.goes_on();
        let _held = Held::new(self.number, true);
        let life = self.life.number();
        let deadline_ns = cx.deadline_ns();
        if nap_ns.is_multiple_of(2) {
            let until_ns = cx.monotonic_ns() + nap_ns;
            cx.sleep(Duration::from_nanos(nap_ns)).await;
            on_time(deadline_ns, until_ns);
            if cx.monotonic_ns() < until_ns {
                note(WORD, format!("{} woke before {until_ns}", self.number));
            }
        }
        for _ in 0..draw(|random, _| random.below(3)) {
            let to = draw(|random, scenario| random.below(scenario.keys));
            let next = Stamp::new((self.number, to));
            let expected = next.reply();
            let answer = if nap_ns.is_multiple_of(3) {
                cx.entity::<Self>(to).work(next, (nap_ns / 2).max(1)).await
            } else {
                cx.entity::<Self>(to).glance(next).await
            };
            judge(expected, answer);
        }
        if self.life.number() != life {
            note(WORD, format!("{} has changed its life within a turn", self.number));
        }
        stamp.reply()
    }

    #[local]
    fn glance(&mut self, mut stamp: Stamp) -> u64 {
        stamp.arrive(self.number);
        self.goes_on();
        drop(Held::new(self.number, true));
        stamp.reply()
    }

    #[local]
    #[read]
    async fn read(&self, stamp: Stamp, nap_ns: u64, cx: &mut AsyncCx<Self>) -> u64 {
        let reading = Reading::new(stamp, self);
        let until_ns = cx.monotonic_ns() + nap_ns;
        let deadline_ns = cx.deadline_ns();
        cx.sleep(Duration::from_nanos(nap_ns)).await;
        on_time(deadline_ns, until_ns);
        reading.end(self)
    }

    #[local]
    #[read]
    fn look(&self, stamp: Stamp) -> u64 {
        Reading::new(stamp, self).end(self)
    }

    #[local]
    async fn fail(&mut self, stamp: Stamp, cx: &mut AsyncCx<Self>) {
        let mut stamp = stamp;
        stamp.arrive(self.number);
        let _held = Held::new(self.number, true);
        cx.sleep(Duration::from_millis(1)).await;
        if draw(|random, _| random.one_in(2)) {
            return cx.stop();
        }
        panic!("told to");
    }

    /// Asks the next in a circle.
    async fn round(&mut self, at: u64, length: u64, cx: &mut AsyncCx<Self>) -> u64 {
        let next = (at + 1) % length;
        match cx.entity::<Self>(CIRCLE + next).round(next, length).await {
            Ok(depth) => depth + 1,
            Err(AskError::Cycle(_)) => {
                LOG.with_borrow_mut(|log| log.circles_refused += 1);
                // It has no stamp.
                book(|book| book.dropped += 1);
                0
            }
            Err(error) => {
                note(WORD, format!("an ask of a circle ended with {error:?}"));
                0
            }
        }
    }

    fn greet(&mut self) {}
}

/// What becomes of a nested ask: in any way, but with a right reply.
fn judge(expected: u64, answer: Result<u64, AskError>) {
    match answer {
        Ok(reply) if reply != expected => note(WORD, format!("{reply}, not {expected}")),
        Ok(_) => count("nested asks answered", 1),
        Err(AskError::NotSent) => {
            // There was no room on the way, and the message has been dropped here.
            book(|book| book.dropped -= 1);
        }
        Err(AskError::Cycle(_)) => count("circles refused", 1),
        Err(_) => count("nested asks not answered", 1),
    }
}

/// Has turns that hold nothing.
#[entity(activate = Loose::begin)]
struct Loose {
    number: u64,
    visits: u64,
    _life: Life,
}

#[handlers]
impl Loose {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, visits: 0, _life: begin(key) }
    }

    #[local]
    #[interleave]
    async fn weave(stamp: Stamp, nap_ns: u64, cx: AsyncCx<Self>) -> u64 {
        let mut stamp = stamp;
        let own = cx.key();
        stamp.arrive(own);
        let deadline_ns = cx.deadline_ns();
        let before = cx.with(|loose| loose.visits).await;
        let until_ns = cx.monotonic_ns() + nap_ns;
        cx.sleep(Duration::from_nanos(nap_ns)).await;
        on_time(deadline_ns, until_ns);
        let after = cx.with(|loose| {
            loose.visits += 1;
            if loose.number != own {
                note(WORD, format!("{own} was lent the state of {}", loose.number));
            }
            loose.visits
        });
        if after.await <= before {
            note(WORD, format!("{own} has lost a visit"));
        }
        stamp.reply()
    }
}
