//! Supervision: bosses that start entities on all shards, which fail in every way. In one half of
//! the seeds bosses stay, and it is known exactly what they are told and which lives there are; in
//! the other half they stop, fail and have faults escalated to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use coreside::sim::{Sim, SimBuilder, SimError};
use coreside::{AsyncCx, Cx, Entity, Fault, Full, entity, handlers};

use crate::suite::book::{Life, Stamp, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Workload, begin, settle};

pub(crate) const KIND: Kind = Kind {
    name: "trees",
    about: "supervisors, and entities that fail",
    shape: |scenario| {
        scenario.keys = scenario.keys.min(8);
        scenario.steps = scenario.steps.min(1000);
        scenario.batch = scenario.batch.min(8);
        scenario.curses = 0;
        scenario.entities_max = 1024;
    },
    make: || {
        LOG.take();
        Box::new(Trees)
    },
};

const WORD: &str = "supervision";

/// Each boss has as many children of each type, whose keys begin at these numbers.
const CHILDREN: u64 = 3;
const ANEW: u64 = 1000;
const ON: u64 = 2000;
const OVER: u64 = 3000;
const UP: u64 = 4000;
/// Bosses of the second type, whose children are restarted together.
const TOGETHER: u64 = 100;

/// Four fifths of the first wait.
const WAIT_NS: u64 = 8_000_000;

#[derive(Default)]
struct Log {
    is_steady: bool,
    children: BTreeMap<u64, Child>,
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

struct Trees;

impl Workload for Trees {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        let builder = builder.entity::<Boss>().entity::<Chief>().entity::<Anew>();
        builder.entity::<On>().entity::<Over>().entity::<Up>().oracle(Noted(WORD))
    }

    fn load(&mut self, load: &mut Load<'_>) {
        let is_steady = load.scenario.seed.is_multiple_of(2);
        log(|log| log.is_steady = is_steady);
        for _ in 0..load.batch() {
            let (key, act) = (load.key(), load.random.below(64));
            let which = load.random.below(4 * CHILDREN);
            if load.random.one_in(4) {
                let key = TOGETHER + key;
                let make = move |stamp| ChiefPass { stamp, act, which };
                load.tell::<Chief, _>(key, make, |message| message.stamp);
            } else {
                let make = move |stamp| BossPass { stamp, act, which };
                load.tell::<Boss, _>(key, make, |message| message.stamp);
            }
        }
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        settle(sim)?;
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
        // Who starts, stops what it started when it stops.
        for key in 0..8 {
            let _ = sim.entity::<Boss>(key).gather().try_tell();
            let _ = sim.entity::<Chief>(TOGETHER + key).gather().try_tell();
            settle(sim)?;
        }
        one_for_all(sim)?;
        for key in 0..8 {
            let _ = sim.entity::<Boss>(key).leave().try_tell();
            let _ = sim.entity::<Chief>(TOGETHER + key).leave().try_tell();
            settle(sim)?;
        }
        log(|log| {
            for (number, child) in &log.children {
                if child.alive {
                    note(WORD, format!("{number} goes on without who started it"));
                }
            }
        });
        sim.run_until_idle(1).map(|_| ())
    }
}

/// When one child of a chief fails, its brothers begin anew; those of a boss go on.
fn one_for_all(sim: &mut Sim) -> Result<(), SimError> {
    for (boss, extra) in [(0, 0), (TOGETHER, 1)] {
        let children = child_keys(boss);
        let lives = |number: u64| child(ANEW + number, |child| child.lives);
        let before: Vec<_> = children.clone().map(lives).collect();
        let is_taken = sim.entity::<Anew>(ANEW + children.start).fall().try_tell().is_ok();
        settle(sim)?;
        for (number, before) in children.clone().zip(before) {
            let is_it = number == children.start;
            let expected = before + u64::from(is_taken) * if is_it { 1 } else { extra };
            if lives(number) != expected {
                let lives = lives(number);
                note(WORD, format!("{number} of {boss} has {lives} lives, not {expected}"));
            }
        }
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
                let key = self.number * CHILDREN + which % CHILDREN;
                let refused = match which / CHILDREN {
                    0 => {
                        let key = ANEW + key;
                        if cx.start::<Anew>(key).is_err() {
                            return;
                        }
                        let next = Stamp::new((self.number, key));
                        let sent = cx.entity::<Anew>(key).work(next, act).try_tell();
                        sent.err().map(|Full(work)| work.stamp)
                    }
                    1 => {
                        let key = ON + key;
                        if cx.start::<On>(key).is_err() {
                            return;
                        }
                        let next = Stamp::new((self.number, key));
                        let sent = cx.entity::<On>(key).work(next, act).try_tell();
                        sent.err().map(|Full(work)| work.stamp)
                    }
                    2 => {
                        let key = OVER + key;
                        if cx.start::<Over>(key).is_err() {
                            return;
                        }
                        let next = Stamp::new((self.number, key));
                        let sent = cx.entity::<Over>(key).work(next, act).try_tell();
                        sent.err().map(|Full(work)| work.stamp)
                    }
                    _ => {
                        let key = UP + key;
                        if is_steady || cx.start::<Up>(key).is_err() {
                            return;
                        }
                        let next = Stamp::new((self.number, key));
                        let sent = cx.entity::<Up>(key).work(next, act).try_tell();
                        sent.err().map(|Full(work)| work.stamp)
                    }
                };
                refused.into_iter().for_each(Stamp::take_back);
            }
        }
    };
}

boss!(Boss, "Starts entities.", children = one_for_one, backoff = "1ms..4ms");
boss!(Chief, "Starts entities, which begin anew together.", children = one_for_all);

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
