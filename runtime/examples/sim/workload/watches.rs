//! Watches: set, taken back, and ended by stops, faults and passivation of either side. One word
//! for each, and none behind a watch that was taken back.

use std::cell::RefCell;
use std::collections::BTreeSet;

use coreside::sim::{Sim, SimBuilder, SimError};
use coreside::{Cx, Full, Terminated, entity, handlers};

use crate::suite::book::{Life, Stamp, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Plain, begin, keep_small, settle};

pub(crate) const KIND: Kind = Kind {
    name: "watches",
    about: "entities that watch entities that go",
    shape: |scenario| keep_small(scenario, 24, 1500),
    make: || {
        WATCHES.take();
        Box::new(Plain { register, send, end })
    },
};

const WORD: &str = "watches";

/// Keys of those that are watched; below are those that watch.
const PREY: u64 = 1000;

thread_local! {
    /// The life that watches, and whom.
    static WATCHES: RefCell<BTreeSet<(u64, u64)>> = RefCell::default();
}

fn register(builder: SimBuilder) -> SimBuilder {
    builder.entity::<Hunter>().entity::<Prey>().oracle(Noted(WORD))
}

fn send(load: &mut Load<'_>) {
    let (key, act) = (load.key(), load.random.below(32));
    let prey = PREY + load.key();
    if load.random.one_in(2) {
        load.tell::<Hunter, _>(key, move |stamp| HunterHunt { stamp, act, prey }, |m| m.stamp);
    } else {
        load.tell::<Prey, _>(prey, move |stamp| PreyStir { stamp, act }, |m| m.stamp);
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    settle(sim)?;
    // Nobody who watches is forgotten when all that is watched goes.
    for prey in PREY..PREY + 24 {
        let _ = sim.entity::<Prey>(prey).go().try_tell();
        settle(sim)?;
    }
    let left = WATCHES.with_borrow(|watches| watches.iter().copied().next());
    if let Some((life, prey)) = left {
        note(WORD, format!("life {life} was never told that {prey} went"));
    }
    sim.run_until_idle(1).map(|_| ())
}

/// Watches.
#[entity(
    activate = Hunter::begin, backoff = "1ms..4ms",
    faults = "1000000 in 1m"
)]
struct Hunter {
    number: u64,
    life: Life,
}

impl Drop for Hunter {
    fn drop(&mut self) {
        let life = self.life.number();
        WATCHES.with_borrow_mut(|watches| watches.retain(|(own, _)| *own != life));
    }
}

#[handlers]
impl Hunter {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, life: begin(key) }
    }

    #[local]
    fn hunt(&mut self, mut stamp: Stamp, act: u64, prey: u64, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        match act {
            0..20 => self.watch(prey, cx),
            20..26 => {
                cx.unwatch::<Prey>(prey);
                let tie = (self.life.number(), prey);
                WATCHES.with_borrow_mut(|watches| watches.remove(&tie));
                count("watches taken back", 1);
            }
            26 => cx.stop(),
            27 => cx.fail("told to"),
            _ => {}
        }
    }

    #[skip]
    fn watch(&mut self, prey: u64, cx: &mut Cx<Self>) {
        if cx.watch::<Prey>(prey).is_ok() {
            let tie = (self.life.number(), prey);
            WATCHES.with_borrow_mut(|watches| watches.insert(tie));
            count("watches", 1);
        }
    }

    #[on]
    fn gone(&mut self, gone: Terminated, cx: &mut Cx<Self>) {
        let Some(prey) = gone.entity.key::<Prey>() else {
            return note(WORD, format!("told of {}", gone.entity));
        };
        let tie = (self.life.number(), prey);
        if !WATCHES.with_borrow_mut(|watches| watches.remove(&tie)) {
            note(WORD, format!("{tie:?} was told {:?} without a watch", gone.end));
        }
        count("words of ends", 1);
        if draw(|random, _| random.one_in(8)) {
            self.watch(prey, cx);
        }
    }
}

/// Is watched.
#[entity(
    activate = Prey::begin,
    idle = "20ms",
    backoff = "1ms..4ms",
    faults = "2 in 1m"
)]
struct Prey {
    number: u64,
    _life: Life,
}

#[handlers]
impl Prey {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    fn stir(&mut self, mut stamp: Stamp, act: u64, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        match act {
            0..4 => cx.stop(),
            4 => cx.fail("told to"),
            5 => panic!("told to"),
            6 => {
                let to = PREY + draw(|random, scenario| random.below(scenario.keys));
                let next = Stamp::new((self.number, to));
                if let Err(Full(stir)) = cx.entity::<Self>(to).stir(next, act - 6).try_tell() {
                    stir.stamp.take_back();
                }
            }
            _ => {}
        }
    }

    fn go(&mut self, cx: &mut Cx<Self>) {
        cx.stop();
    }
}
