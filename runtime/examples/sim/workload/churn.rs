//! Churn: entities stop and are activated anew all the time, with messages and answers on the way.

use coreside::{AskError, Cx, Full, entity, handlers};

use crate::suite::book::{Asked, Life, Stamp, draw};
use crate::suite::workload::{Kind, Load, Plain, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "churn",
    about: "entities stop and come back",
    shape: |scenario| {
        scenario.stops = scenario.stops.max(200);
        scenario.keys = scenario.keys.min(48);
    },
    make: || Box::new(Plain { register: |builder| builder.entity::<Guest>(), send, end: settle }),
};

fn send(load: &mut Load<'_>) {
    let (key, hops) = (load.key(), load.scenario.hops.min(6));
    load.ask::<Guest, _>(key, move |stamp| GuestVisit { stamp, hops }, |m| m.stamp);
}

/// Comes and goes.
#[entity(activate = Guest::begin)]
struct Guest {
    number: u64,
    life: Life,
}

#[handlers]
impl Guest {
    /// One that turns round at the door has one turn, then goes.
    fn begin(key: u64, cx: &mut Cx<Self>) -> Self {
        if draw(|random, _| random.one_in(8)) {
            cx.stop();
        }
        Self { number: key, life: begin(key) }
    }

    #[local]
    fn visit(&mut self, mut stamp: Stamp, hops: u64, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        if hops > 0 {
            self.send_on(hops - 1, cx);
        }
        may_fail(&stamp, cx);
        stamp.reply()
    }

    #[skip]
    fn send_on(&mut self, hops: u64, cx: &mut Cx<Self>) {
        let (to, asks) = draw(|random, of| (random.below(of.keys), random.one_in(2)));
        let next = Stamp::new((self.number, to));
        if asks {
            let asked = Asked::by(&self.life, &next);
            let then = move |guest: &mut Self, answer: Result<u64, AskError>, _: &mut Cx<Self>| {
                asked.end_in(&guest.life, answer);
            };
            if let Err(refused) = cx.entity::<Guest>(to).visit(next, hops).ask(then) {
                refused.message.stamp.take_back();
                (refused.then)(self, Err(AskError::NotSent), cx);
            }
        } else if let Err(Full(visit)) = cx.entity::<Guest>(to).visit(next, hops).try_tell() {
            visit.stamp.take_back();
        }
    }
}
