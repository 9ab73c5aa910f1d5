//! Entities that are put away, idle or over the budget, while messages arrive all the time: what
//! one stored is what its next life reads, and it is all that was ever put in.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside::{Cx, Full, entity, handlers};

use crate::suite::book::{Life, Stamp, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Plain, begin, settle};

pub(crate) const KIND: Kind = Kind {
    name: "vault",
    about: "entities put away and read back",
    shape: |scenario| {
        scenario.keys = scenario.keys.clamp(8, 64);
        scenario.steps = scenario.steps.min(1500);
        (scenario.panics, scenario.curses) = (0, 0);
    },
    make: || {
        STORAGE.take();
        Box::new(Plain {
            register: |builder| builder.entity::<Vault>().oracle(Noted(WORD)),
            send,
            end: settle,
        })
    },
};

const WORD: &str = "storage";

#[derive(Default)]
struct Shelf {
    /// What was stored.
    stored: u64,
    /// What was put in.
    put_in: u64,
}

thread_local! {
    static STORAGE: RefCell<BTreeMap<u64, Shelf>> = RefCell::default();
}

fn send(load: &mut Load<'_>) {
    let (key, amount) = (load.key(), load.random.below(100));
    let make = move |stamp| VaultPut { stamp, amount };
    if load.random.one_in(2) {
        load.tell::<Vault, _>(key, make, |message| message.stamp);
    } else {
        load.ask::<Vault, _>(key, make, |message| message.stamp);
    }
}

/// Remembers across its lives.
#[entity(
    activate = Vault::begin,
    on_passivate = Self::put_away,
    on_stop = Self::put_away,
    idle = "10ms",
    resident = 4
)]
struct Vault {
    number: u64,
    amount: u64,
    _life: Life,
}

#[handlers]
impl Vault {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        let life = begin(key);
        let amount = STORAGE.with_borrow_mut(|storage| {
            let shelf = storage.entry(key).or_default();
            if shelf.stored != shelf.put_in {
                let Shelf { stored, put_in } = shelf;
                note(WORD, format!("vault {key} has {stored} in storage of {put_in}"));
            }
            shelf.stored
        });
        Self { number: key, amount, _life: life }
    }

    #[skip]
    fn put_away(&mut self, _cx: &mut Cx<Self>) {
        count("vaults put away", 1);
        let (key, amount) = (self.number, self.amount);
        STORAGE.with_borrow_mut(|storage| storage.entry(key).or_default().stored = amount);
    }

    #[local]
    fn put(&mut self, mut stamp: Stamp, amount: u64, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        self.amount += amount;
        let (key, own) = (self.number, self.amount);
        STORAGE.with_borrow_mut(|storage| {
            let shelf = storage.entry(key).or_default();
            shelf.put_in += amount;
            if shelf.put_in != own {
                note(WORD, format!("vault {key} has {own} of {}", shelf.put_in));
            }
        });
        if draw(|random, _| random.one_in(4)) {
            let to = draw(|random, scenario| random.below(scenario.keys));
            let next = Stamp::new((key, to));
            if let Err(Full(put)) = cx.entity::<Self>(to).put(next, 1).try_tell() {
                put.stamp.take_back();
            }
        }
        if draw(|random, _| random.one_in(32)) {
            cx.stop();
        }
        stamp.reply()
    }
}
