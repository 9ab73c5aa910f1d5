//! Messages that make their entity fail, some of them each time: tried again in order, and in the
//! end put aside once, with their value.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside::sim::{Sim, SimError};
use coreside::{Cx, Message, Reason, entity, handlers};

use crate::suite::book::{Life, Stamp, count, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Plain, begin, keep_small, settle};

pub(crate) const KIND: Kind = Kind {
    name: "poison",
    about: "messages that fail, and are tried again",
    shape: |scenario| keep_small(scenario, 24, 600),
    make: || {
        LOG.take();
        Box::new(Plain {
            register: |builder| builder.entity::<Taster>().oracle(Noted(WORD)),
            send,
            end,
        })
    },
};

const WORD: &str = "poison";

#[derive(Default)]
struct Log {
    next: u64,
    /// Values of pills, by number.
    values: BTreeMap<u64, i64>,
    /// Tries of those that had one, and faults that they make.
    tried: BTreeMap<u64, (u32, u32)>,
    /// Who is to be tried again before all others, by entity.
    again: BTreeMap<u64, u64>,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

/// A value that is counted.
#[derive(Debug)]
struct Pill {
    number: u64,
    faults: u32,
}

impl Pill {
    fn new(faults: u32) -> Self {
        let number = LOG.with_borrow_mut(|log| {
            log.next += 1;
            log.values.insert(log.next, 1);
            log.next
        });
        Self { number, faults }
    }
}

impl Clone for Pill {
    fn clone(&self) -> Self {
        let Self { number, faults } = *self;
        LOG.with_borrow_mut(|log| *log.values.entry(number).or_default() += 1);
        Self { number, faults }
    }
}

impl Drop for Pill {
    fn drop(&mut self) {
        LOG.with_borrow_mut(|log| *log.values.entry(self.number).or_default() -= 1);
    }
}

fn send(load: &mut Load<'_>) {
    let key = load.key();
    match load.random.below(4) {
        0 => {
            let pill = Pill::new(load.random.below(6) as u32);
            let (handle, _) = load.entrance();
            handle.with_shard(move |shard| {
                // One that is refused is dropped here.
                let _ = shard.tell::<Taster, _>(key, TasterSwallow { pill });
            });
        }
        1 => load.ask::<Taster, _>(key, |stamp| TasterRinse { stamp }, |m| m.stamp),
        _ => load.tell::<Taster, _>(key, |stamp| TasterRinse { stamp }, |m| m.stamp),
    }
}

fn end(sim: &mut Sim) -> Result<(), SimError> {
    settle(sim)?;
    let mut letters: BTreeMap<u64, i64> = BTreeMap::new();
    let mut kept = 0;
    for number in 0..sim.shards() {
        for letter in sim.shard(number).dead_letters() {
            if let Some(message) = letter.message::<Taster, TasterSwallow>() {
                *letters.entry(message.pill.number).or_default() += 1;
                if letter.reason() != Reason::Poison {
                    note(WORD, format!("pill {} is {:?}", message.pill.number, letter.reason()));
                }
                kept += 1;
            }
        }
    }
    // More than are kept were only counted.
    let all = kept == sim_count(sim);
    LOG.with_borrow(|log| {
        for (pill, (tries, faults)) in &log.tried {
            let found = letters.get(pill).copied().unwrap_or_default();
            let poison = *faults >= TasterSwallow::TRIES;
            if found > i64::from(poison) || (all && found != i64::from(poison)) {
                note(WORD, format!("pill {pill} lies {found} times among the dead letters"));
            }
            let expected = (*faults + 1).min(TasterSwallow::TRIES);
            if *tries != expected {
                note(WORD, format!("pill {pill} was tried {tries} times, not {expected}"));
            }
        }
        for (pill, values) in &log.values {
            let expected = letters.get(pill).copied().unwrap_or_default();
            if *values != expected {
                note(WORD, format!("there are {values} values of pill {pill}, not {expected}"));
            }
        }
        if let Some((taster, pill)) = log.again.first_key_value() {
            note(WORD, format!("pill {pill} was not tried again by {taster}"));
        }
    });
    sim.run_until_idle(1).map(|_| ())
}

fn sim_count(sim: &Sim) -> u64 {
    (0..sim.shards()).map(|number| sim.shard(number).dead_letter_count(Reason::Poison)).sum()
}

/// Swallows.
#[entity(
    activate = Taster::begin,
    backoff = "1ms..2ms",
    faults = "1000000 in 1m",
    stash = 100000
)]
struct Taster {
    number: u64,
    _life: Life,
}

#[handlers]
impl Taster {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    #[retry]
    fn swallow(&mut self, pill: Pill, cx: &mut Cx<Self>) {
        let (own, number) = (self.number, pill.number);
        let tries = LOG.with_borrow_mut(|log| {
            if log.again.get(&own).is_some_and(|other| *other != number) {
                note(WORD, format!("pill {number} passed one that is tried again"));
            }
            log.again.remove(&own);
            let tried = log.tried.entry(number).or_insert((0, pill.faults));
            tried.0 += 1;
            if tried.0 <= pill.faults && tried.0 < TasterSwallow::TRIES {
                log.again.insert(own, number);
            }
            tried.0
        });
        if tries <= pill.faults {
            count("pills that fail", 1);
            if number.is_multiple_of(2) {
                return cx.fail("told to");
            }
            panic!("told to");
        }
    }

    #[local]
    fn rinse(&mut self, mut stamp: Stamp) -> u64 {
        stamp.arrive(self.number);
        let passed = LOG.with_borrow(|log| log.again.get(&self.number).copied());
        if let Some(pill) = passed {
            note(WORD, format!("a message passed pill {pill}, which is tried again"));
        }
        stamp.reply()
    }
}
