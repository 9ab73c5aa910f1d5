//! Storms of pings: each is passed on from entity to entity, across all shards.

use coreside::sim::SimBuilder;
use coreside::{Cx, Full, entity, handlers};

use crate::suite::book::{Life, Stamp, draw};
use crate::suite::workload::{Kind, Load, Workload, begin, may_fail};

pub(crate) const KIND: Kind =
    Kind { name: "ping", about: "pings passed on", shape: |_| (), make: || Box::new(Ping) };

struct Ping;

impl Workload for Ping {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        builder.entity::<Pinger>()
    }

    fn load(&mut self, load: &mut Load<'_>) {
        for _ in 0..load.batch() {
            let (key, hops) = (load.key(), load.scenario.hops);
            let make = move |stamp| PingerPing { stamp, hops };
            if load.random.one_in(2) {
                load.tell::<Pinger, _>(key, make, |ping| ping.stamp);
            } else {
                load.ask::<Pinger, _>(key, make, |ping| ping.stamp);
            }
        }
    }
}

/// Passes on what it gets.
#[entity(activate = Pinger::begin)]
pub(crate) struct Pinger {
    number: u64,
    _life: Life,
}

#[handlers]
impl Pinger {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    pub(crate) fn ping(&mut self, mut stamp: Stamp, hops: u64, cx: &mut Cx<Self>) -> u64 {
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
