//! Asks that are answered in later turns, out of order, late or never, and asks within asks.

use coreside::{AskError, Cx, Later, ReplyTo, entity, handlers};

use crate::suite::book::{Asked, Life, Promise, Stamp, draw};
use crate::suite::workload::{Kind, Load, Plain, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "later",
    about: "asks answered later",
    shape: |scenario| scenario.keys = scenario.keys.min(32),
    make: || {
        Box::new(Plain { register: |builder| builder.entity::<Desk>(), send: put_one, end: settle })
    },
};

/// One message to a desk.
pub(super) fn put_one(load: &mut Load<'_>) {
    let (key, hops) = (load.key(), load.scenario.hops.min(6));
    match load.random.below(4) {
        0 => load.ask::<Desk, _>(key, |stamp| DeskKeep { stamp }, |message| message.stamp),
        1 => load.tell::<Desk, _>(key, |stamp| DeskRelease { stamp }, |message| message.stamp),
        2 => load.ask::<Desk, _>(key, |stamp| DeskRelease { stamp }, |message| message.stamp),
        _ => load.ask::<Desk, _>(key, move |stamp| DeskRelay { stamp, hops }, |m| m.stamp),
    }
}

/// Answers later.
#[entity(activate = Desk::begin)]
pub(super) struct Desk {
    number: u64,
    kept: Vec<(Promise, ReplyTo<u64>)>,
    life: Life,
}

/// Beyond these, the oldest is answered.
const KEPT_MAX: usize = 64;

#[handlers]
impl Desk {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, kept: Vec::new(), life: begin(key) }
    }

    #[local]
    fn keep(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) -> Later<u64> {
        stamp.arrive(self.number);
        let (later, reply_to) = cx.later();
        self.kept.push((stamp.promise(), reply_to));
        if self.kept.len() > KEPT_MAX {
            let (promise, reply_to) = self.kept.remove(0);
            cx.reply(reply_to, promise.reply());
        }
        may_fail(&stamp, cx);
        later
    }

    #[local]
    fn release(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        let count = self.kept.len();
        for _ in 0..draw(|random, _| random.below(count as u64 + 1)) {
            let at = draw(|random, _| random.below(self.kept.len() as u64)) as usize;
            let (promise, reply_to) = self.kept.swap_remove(at);
            // One in eight is never answered.
            if draw(|random, _| random.one_in(8)) {
                drop(reply_to);
            } else {
                cx.reply(reply_to, promise.reply());
            }
        }
        may_fail(&stamp, cx);
        stamp.reply()
    }

    #[local]
    fn relay(&mut self, mut stamp: Stamp, hops: u64, cx: &mut Cx<Self>) -> Later<u64> {
        stamp.arrive(self.number);
        let (later, reply_to) = cx.later();
        let (to, keep) = draw(|random, of| (random.below(of.keys), random.one_in(3)));
        let next = Stamp::new((self.number, to));
        let (asked, promise) = (Asked::by(&self.life, &next), stamp.promise());
        let then = move |desk: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            asked.end_in(&desk.life, answer);
            cx.reply(reply_to, promise.reply());
        };
        let desk = cx.entity::<Desk>(to);
        let refused = if keep || hops == 0 {
            let asked = desk.keep(next).ask(then).err();
            asked.map(|refused| (refused.message.stamp, refused.then))
        } else {
            let asked = desk.relay(next, hops - 1).ask(then).err();
            asked.map(|refused| (refused.message.stamp, refused.then))
        };
        if let Some((stamp, then)) = refused {
            stamp.take_back();
            then(self, Err(AskError::NotSent), cx);
        }
        may_fail(&stamp, cx);
        later
    }
}
