//! Storms of pings: each is passed on from entity to entity, across all shards.

use coreside::{Cx, Full, entity, handlers};

use crate::suite::book::{Life, Stamp, draw};
use crate::suite::workload::{Kind, Load, Plain, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "ping",
    about: "pings passed on",
    shape: |_| (),
    make: || Box::new(Plain { register: |builder| builder.entity::<Pinger>(), send, end: settle }),
};

fn send(load: &mut Load<'_>) {
    if load.random.one_in(2) {
        tell_one(load);
    } else {
        let (key, hops) = (load.key(), load.scenario.hops);
        let make = move |stamp| PingerPing { stamp, hops };
        load.ask::<Pinger, _>(key, make, |ping| ping.stamp);
    }
}

/// One ping that nobody waits for.
pub(super) fn tell_one(load: &mut Load<'_>) {
    let (key, hops) = (load.key(), load.scenario.hops);
    load.tell::<Pinger, _>(key, move |stamp| PingerPing { stamp, hops }, |ping| ping.stamp);
}

/// Passes on what it gets.
#[entity(activate = Pinger::begin)]
pub(super) struct Pinger {
    number: u64,
    _life: Life,
}

#[handlers]
impl Pinger {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    fn ping(&mut self, mut stamp: Stamp, hops: u64, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        if hops > 0 {
            let to = draw(|random, scenario| random.below(scenario.keys));
            let next = Stamp::new((self.number, to));
            if let Err(Full(ping)) = cx.entity::<Pinger>(to).ping(next, hops - 1).try_tell() {
                ping.stamp.take_back();
            }
        }
        may_fail(&stamp, cx);
        stamp.reply()
    }
}
