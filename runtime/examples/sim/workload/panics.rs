//! Panics wherever user code runs: in turns, in continuations, in activations, in drops.

use coreside::{AskError, Cx, Full, Later, entity, handlers};

use crate::suite::book::{Asked, Life, Stamp, count, draw};
use crate::suite::workload::{Kind, Load, Plain, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "panics",
    about: "panics wherever user code runs",
    shape: |scenario| {
        scenario.panics = scenario.panics.max(20);
        scenario.curses = scenario.curses.max(5);
    },
    make: || Box::new(Plain { register: |builder| builder.entity::<Clumsy>(), send, end: settle }),
};

fn send(load: &mut Load<'_>) {
    let (key, to) = (load.key(), load.key());
    match load.random.below(5) {
        0 => load.tell::<Clumsy, _>(key, |stamp| ClumsyStumble { stamp }, |m| m.stamp),
        1 => load.ask::<Clumsy, _>(key, |stamp| ClumsyStumble { stamp }, |m| m.stamp),
        2 => load.ask::<Clumsy, _>(key, |stamp| ClumsyShatter { stamp }, |m| m.stamp),
        3 => outside(load, key),
        _ => load.ask::<Clumsy, _>(key, move |stamp| ClumsyLean { stamp, to }, |m| m.stamp),
    }
}

/// A job from outside that panics after it has told somebody something.
fn outside(load: &mut Load<'_>, key: u64) {
    let (handle, from) = load.entrance();
    handle.with_shard(move |shard| {
        let stamp = Stamp::new((from, key));
        if let Err(Full(message)) = shard.tell::<Clumsy, _>(key, ClumsyStumble { stamp }) {
            message.stamp.take_back();
        }
        count("panics outside of entities", 1);
        panic!("told to, outside of entities");
    });
}

/// Fails in every way.
#[entity(activate = Clumsy::begin)]
struct Clumsy {
    number: u64,
    panics_in_drop: bool,
    life: Life,
}

impl Drop for Clumsy {
    fn drop(&mut self) {
        if self.panics_in_drop && !std::thread::panicking() {
            count("panics in drops", 1);
            panic!("told to, in a drop");
        }
    }
}

#[handlers]
impl Clumsy {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, panics_in_drop: false, life: begin(key) }
    }

    #[local]
    fn stumble(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        may_fail(&stamp, cx);
        stamp.reply()
    }

    /// Stops, and its state panics while it is dropped.
    #[local]
    fn shatter(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        if draw(|random, _| random.one_in(4)) {
            self.panics_in_drop = true;
            stamp.will_panic();
            cx.stop();
        }
        stamp.reply()
    }

    /// Asks another, and fails when the answer comes.
    #[local]
    fn lean(&mut self, mut stamp: Stamp, to: u64, cx: &mut Cx<Self>) -> Later<u64> {
        stamp.arrive(self.number);
        let (later, reply_to) = cx.later();
        let next = Stamp::new((self.number, to));
        let (asked, promise) = (Asked::by(&self.life, &next), stamp.promise());
        let fails = draw(|random, _| random.one_in(8));
        let then = move |clumsy: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            let answered = answer.is_ok();
            asked.end_in(&clumsy.life, answer);
            cx.reply(reply_to, promise.reply());
            if fails && answered {
                count("panics in continuations", 1);
                panic!("told to, in a continuation");
            }
        };
        if let Err(refused) = cx.entity::<Clumsy>(to).stumble(next).ask(then) {
            refused.message.stamp.take_back();
            (refused.then)(self, Err(AskError::NotSent), cx);
        }
        may_fail(&stamp, cx);
        later
    }
}
