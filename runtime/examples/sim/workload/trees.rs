//! Supervision: bosses that start entities on all shards, which fail in every way. In one half of
//! the seeds bosses stay, and it is known exactly what they are told and which lives there are; in
//! the other half they stop, fail and have faults escalated to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use coreside::sim::{Sim, SimBuilder, SimError};
use coreside::{AsyncCx, Cx, Entity, Fault, Full, Handler, Message, Via as _, entity, handlers};

use crate::suite::book::{Life, Stamp, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Plain, begin, keep_small, settle};

pub(crate) const KIND: Kind = Kind {
    name: "trees",
    about: "supervisors, and entities that fail",
    shape: |scenario| keep_small(scenario, LOADED, 1000),
    make: || {
        LOG.take();
        Box::new(Plain { register, send, end })
    },
};

const WORD: &str = "supervision";

/// Each boss has as many children of each type, whose keys begin at these numbers.
const CHILDREN: u64 = 3;
const ANEW: u64 = 1000;
const ON: u64 = 2000;
const OVER: u64 = 3000;
const UP: u64 = 4000;
/// Bosses of the second and third type: whose children are restarted together, or with one those
/// that were started behind it.
const TOGETHER: u64 = 100;
const IN_ORDER: u64 = 200;

/// Bosses of each type that have load, and that have none.
const LOADED: u64 = 8;
const SPARE: u64 = 8;

/// Nobody starts this one.
const ALONE: u64 = UP + 900;

/// Four fifths of the first wait.
const WAIT_NS: u64 = 8_000_000;

#[derive(Default)]
struct Log {
    is_steady: bool,
    children: BTreeMap<u64, Child>,
    /// Lives of bosses.
    bosses: BTreeMap<u64, u64>,
}

#[derive(Default)]
struct Child {
    lives: u64,
    alive: bool,
    /// Messages of this life.
    served: u64,
    faults: u64,
    told: u64,
    /// When it failed, until it lives again.
    failed_ns: Option<u64>,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

fn log<R>(look: impl FnOnce(&mut Log) -> R) -> R {
    LOG.with_borrow_mut(look)
}

fn child<R>(number: u64, look: impl FnOnce(&mut Child) -> R) -> R {
    log(|log| look(log.children.entry(number).or_default()))
}

fn register(builder: SimBuilder) -> SimBuilder {
    let builder = builder.entity::<Boss>().entity::<Chief>().entity::<Dean>();
    let builder = builder.entity::<Anew>().entity::<On>().entity::<Over>().entity::<Up>();
    builder.oracle(Noted(WORD))
}

fn send(load: &mut Load<'_>) {
    let is_steady = load.scenario.seed.is_multiple_of(2);
    log(|log| log.is_steady = is_steady);
    let (key, act) = (load.key(), load.random.below(64));
    // Few of those whose faults are escalated: where its boss has gone, one stops the node.
    let kinds = if load.random.one_in(8) { 4 } else { 3 };
    let which = load.random.below(kinds * CHILDREN);
    match load.random.below(8) {
        0 => {
            let make = move |stamp| ChiefPass { stamp, act, which };
            load.tell::<Chief, _>(TOGETHER + key, make, |message| message.stamp);
        }
        1 => {
            let make = move |stamp| DeanPass { stamp, act, which };
            load.tell::<Dean, _>(IN_ORDER + key, make, |message| message.stamp);
        }
        _ => {
            let make = move |stamp| BossPass { stamp, act, which };
            load.tell::<Boss, _>(key, make, |message| message.stamp);
        }
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    settle(sim)?;
    if sim.escalation().is_some() {
        // By one whose boss had gone before.
        count("nodes stopped by a fault", 1);
        return Ok(());
    }
    if log(|log| log.is_steady) {
        log(|log| {
            for (number, child) in &log.children {
                if *number < OVER && child.told != child.faults {
                    let Child { told, faults, .. } = child;
                    note(WORD, format!("{told} of {faults} faults of {number} were told"));
                }
            }
        });
    }
    for key in 0..=SPARE {
        let _ = sim.entity::<Boss>(key).gather().try_tell();
        let _ = sim.entity::<Chief>(TOGETHER + key).gather().try_tell();
        let _ = sim.entity::<Dean>(IN_ORDER + key).gather().try_tell();
        settle(sim)?;
    }
    bound_together(sim)?;
    escalated(sim)?;
    // Who starts, stops what it started when it stops.
    for key in 0..=SPARE {
        let _ = sim.entity::<Boss>(key).leave().try_tell();
        let _ = sim.entity::<Chief>(TOGETHER + key).leave().try_tell();
        let _ = sim.entity::<Dean>(IN_ORDER + key).leave().try_tell();
        settle(sim)?;
    }
    log(|log| {
        for (number, child) in &log.children {
            if child.alive {
                note(WORD, format!("{number} goes on without who started it"));
            }
        }
    });
    escalated_to_nobody(sim)?;
    sim.run_until_idle(1).map(|_| ())
}

/// The children of a boss, in the order in which it starts them all.
fn gathered(boss: u64) -> impl Iterator<Item = u64> {
    child_keys(boss).flat_map(|key| [ANEW, ON, OVER, UP].map(|kind| kind + key))
}

/// When one child fails, it begins anew; of a chief all others as well, of a dean those that were
/// started behind it.
fn bound_together(sim: &mut Sim) -> Result<(), SimError> {
    let falls = 4;
    let all = 4 * CHILDREN as usize;
    let rules = [(0, falls..=falls), (TOGETHER, 0..=all), (IN_ORDER, falls..=all)];
    for (boss, anew) in rules {
        let children: Vec<u64> = gathered(boss + SPARE).collect();
        let lives = |number: &u64| child(*number, |child| child.lives);
        let before: Vec<_> = children.iter().map(lives).collect();
        let is_taken = sim.entity::<Anew>(children[falls]).fall().try_tell().is_ok();
        settle(sim)?;
        for (place, (number, before)) in children.iter().zip(before).enumerate() {
            let expected = before + u64::from(is_taken && anew.contains(&place));
            if lives(number) != expected {
                let lives = lives(number);
                note(WORD, format!("{number} of {boss} has {lives} lives, not {expected}"));
            }
        }
    }
    Ok(())
}

/// When a fault is escalated, the boss is told, and fails in its child's place: its next life has
/// no children.
fn escalated(sim: &mut Sim) -> Result<(), SimError> {
    let (boss, falls) = (SPARE, UP + child_keys(SPARE).start);
    let look = || log(|log| (log.bosses.get(&boss).copied(), log.children[&falls].told));
    let before = look();
    let is_taken = sim.entity::<Up>(falls).fall().try_tell().is_ok();
    settle(sim)?;
    let expected = (before.0.map(|lives| lives + 1), before.1 + 1);
    if is_taken && look() != expected {
        let seen = look();
        note(WORD, format!("lives of a boss, and faults told: {seen:?}, not {expected:?}"));
    }
    for number in gathered(boss).filter(|_| is_taken) {
        if child(number, |child| child.alive) {
            note(WORD, format!("{number} goes on when its boss has failed"));
        }
    }
    Ok(())
}

/// A fault that is escalated and has nobody to decide about it stops the node.
fn escalated_to_nobody(sim: &mut Sim) -> Result<(), SimError> {
    if sim.entity::<Up>(ALONE).fall().try_tell().is_err() {
        return Ok(());
    }
    settle(sim)?;
    let who = sim.escalation().and_then(|entity| entity.key::<Up>());
    if who != Some(ALONE) || sim.entity::<Up>(ALONE).fall().try_tell().is_ok() {
        note(WORD, format!("the node goes on behind a fault that nobody decides on ({who:?})"));
    }
    Ok(())
}

fn child_keys(boss: u64) -> std::ops::Range<u64> {
    boss * CHILDREN..(boss + 1) * CHILDREN
}

/// A fault was told.
fn told(fault: &Fault) {
    let number = fault.entity.key_words()[0];
    count("faults told", 1);
    child(number, |child| {
        child.told += 1;
        if child.told > child.faults {
            note(WORD, format!("{number} failed {} times, told {}", child.faults, child.told));
        }
    });
}

/// Starts a child, unless it is there, and tells it.
fn start_and_tell<B, C, M>(
    boss: u64,
    key: u64,
    make: impl FnOnce(Stamp) -> M,
    back: fn(M) -> Stamp,
    cx: &mut Cx<'_, B>,
) where
    B: Handler<Fault>,
    C: Handler<M, Key = u64>,
    M: Message,
{
    if cx.start::<C>(key).is_ok()
        && let Err(Full(message)) = cx.call::<C, M>(key, make(Stamp::new((boss, key)))).try_tell()
    {
        back(message).take_back();
    }
}

macro_rules! boss {
    ($boss:ident, $doc:literal, $($option:tt)*) => {
        #[doc = $doc]
        #[entity(activate = $boss::begin, stash = 100000, faults = "1000000 in 1m", $($option)*)]
        struct $boss {
            number: u64,
            _life: Life,
        }

        #[handlers]
        impl $boss {
            fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
                log(|log| *log.bosses.entry(key).or_default() += 1);
                Self { number: key, _life: begin(key) }
            }

            #[on]
            fn failed(&mut self, fault: Fault) {
                told(&fault);
            }

            fn gather(&mut self, cx: &mut Cx<Self>) {
                for key in child_keys(self.number) {
                    let _ = cx.start::<Anew>(ANEW + key);
                    let _ = cx.start::<On>(ON + key);
                    let _ = cx.start::<Over>(OVER + key);
                    let _ = cx.start::<Up>(UP + key);
                }
            }

            fn leave(&mut self, cx: &mut Cx<Self>) {
                cx.stop();
            }

            /// Starts one of its children, unless it is there, and passes the message on.
            #[local]
            fn pass(&mut self, mut stamp: Stamp, act: u64, which: u64, cx: &mut Cx<Self>) {
                stamp.arrive(self.number);
                let is_steady = log(|log| log.is_steady);
                if !is_steady && draw(|random, _| random.one_in(16)) {
                    if act % 2 == 0 {
                        return cx.stop();
                    }
                    return cx.fail("told to");
                }
                let (own, key) = (self.number, self.number * CHILDREN + which % CHILDREN);
                match which / CHILDREN {
                    0 => start_and_tell::<_, Anew, _>(
                        own,
                        ANEW + key,
                        |stamp| AnewWork { stamp, act },
                        |work| work.stamp,
                        cx,
                    ),
                    1 => start_and_tell::<_, On, _>(
                        own,
                        ON + key,
                        |stamp| OnWork { stamp, act },
                        |work| work.stamp,
                        cx,
                    ),
                    2 => start_and_tell::<_, Over, _>(
                        own,
                        OVER + key,
                        |stamp| OverWork { stamp, act },
                        |work| work.stamp,
                        cx,
                    ),
                    _ if is_steady => {}
                    _ => start_and_tell::<_, Up, _>(
                        own,
                        UP + key,
                        |stamp| UpWork { stamp, act },
                        |work| work.stamp,
                        cx,
                    ),
                }
            }
        }
    };
}

boss!(Boss, "Starts entities.", children = one_for_one, backoff = "1ms..4ms");
boss!(Chief, "Starts entities, which begin anew together.", children = one_for_all);
boss!(Dean, "Starts entities, each bound to those before.", children = rest_for_one);

/// What an entity keeps of itself, and what is known of it elsewhere.
struct Own {
    number: u64,
    served: u64,
    _life: Life,
}

impl Own {
    fn begin<E: Entity>(key: u64, is_exact: bool, cx: &Cx<'_, E>) -> Self {
        let now_ns = cx.monotonic_ns();
        let is_steady = log(|log| log.is_steady);
        let life = begin(key);
        child(key, |child| {
            child.lives += 1;
            child.alive = true;
            child.served = 0;
            let failed_ns = child.failed_ns.take();
            if is_steady && is_exact && failed_ns.is_some_and(|at| now_ns - at < WAIT_NS) {
                note(WORD, format!("{key} lives again without a wait"));
            }
            if is_steady && (ON..ON + TOGETHER).contains(&key) && child.lives > 1 {
                note(WORD, format!("{key} has another life, although it goes on"));
            }
        });
        Self { number: key, served: 0, _life: life }
    }

    fn serve(&mut self, stamp: &mut Stamp) {
        stamp.arrive(self.number);
        self.served += 1;
        let served = child(self.number, |child| {
            child.served += 1;
            child.served
        });
        if served != self.served {
            note(WORD, format!("{} has served {}, not {served}", self.number, self.served));
        }
    }

    fn fails(&self, now_ns: u64) {
        count("faults of children", 1);
        child(self.number, |child| {
            child.faults += 1;
            child.failed_ns = Some(now_ns);
        });
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        child(self.number, |child| child.alive = false);
    }
}

macro_rules! child {
    ($child:ident, $exact:literal, $doc:literal, $($option:tt)*) => {
        #[doc = $doc]
        #[entity(activate = $child::begin, stash = 100000, $($option)*)]
        struct $child {
            own: Own,
        }

        #[handlers]
        impl $child {
            fn begin(key: u64, cx: &mut Cx<Self>) -> Self {
                Self { own: Own::begin(key, $exact, cx) }
            }

            #[local]
            fn work(&mut self, stamp: Stamp, act: u64, cx: &mut Cx<Self>) {
                let mut stamp = stamp;
                self.own.serve(&mut stamp);
                match act {
                    0..6 => self.own.fails(cx.monotonic_ns()),
                    6..12 => {
                        let key = self.own.number;
                        // In its next turn, which is async.
                        let next = Stamp::new((key, key));
                        let sent = cx.entity::<Self>(key).toil(next, act).try_tell();
                        sent.err().into_iter().for_each(|Full(toil)| toil.stamp.take_back());
                    }
                    _ => {}
                }
                match act {
                    0..3 => cx.fail("told to"),
                    3..6 => panic!("told to"),
                    _ => {}
                }
            }

            #[local]
            #[fallible]
            async fn toil(
                &mut self,
                stamp: Stamp,
                act: u64,
                cx: &mut AsyncCx<Self>,
            ) -> Result<(), &'static str> {
                let mut stamp = stamp;
                self.own.serve(&mut stamp);
                cx.sleep(Duration::from_millis(act)).await;
                match act {
                    6..8 => {
                        self.own.fails(cx.monotonic_ns());
                        panic!("told to");
                    }
                    8..10 => {
                        self.own.fails(cx.monotonic_ns());
                        Err("told to")
                    }
                    _ => Ok(()),
                }
            }

            fn fall(&mut self, cx: &mut Cx<Self>) {
                self.own.fails(cx.monotonic_ns());
                cx.fail("told to");
            }
        }
    };
}

child!(Anew, true, "Begins anew.", backoff = "10ms..40ms", faults = "1000000 in 1m");
child!(On, false, "Goes on as it is.", on_fault = resume);
child!(Over, false, "Ends.", on_fault = stop);
child!(Up, false, "Has its faults escalated.", on_fault = escalate);
