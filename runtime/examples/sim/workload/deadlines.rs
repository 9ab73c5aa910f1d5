//! Asks within asks, sync and async, with time that passes between: no part of the work is begun
//! when the first asker's patience is over, and no part has a deadline behind it.

use std::time::Duration;

use coreside::sim::SimBuilder;
use coreside::{AskError, AsyncCx, Cx, Later, entity, handlers};

use crate::suite::book::{Life, Stamp, book, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, Plain, begin, keep_small, settle};

pub(crate) const KIND: Kind = Kind {
    name: "deadlines",
    about: "asks within asks, and their deadlines",
    shape: |scenario| {
        keep_small(scenario, 32, 600);
        scenario.ask_timeout_ns = scenario.ask_timeout_ns.min(50_000_000);
    },
    make: || Box::new(Plain { register, send, end: settle }),
};

const WORD: &str = "deadlines";

fn register(builder: SimBuilder) -> SimBuilder {
    // Those of async turns that were cancelled.
    book(|book| book.has_async_asks = true);
    builder.entity::<Relay>().oracle(Noted(WORD))
}

fn send(load: &mut Load<'_>) {
    let (key, hops) = (load.key(), load.scenario.hops.min(5));
    let root_ns = u64::MAX;
    if load.random.one_in(2) {
        let make = move |stamp| RelayHop { stamp, root_ns, hops };
        load.ask::<Relay, _>(key, make, |message| message.stamp);
    } else {
        let make = move |stamp| RelayTrek { stamp, root_ns, hops };
        load.ask::<Relay, _>(key, make, |message| message.stamp);
    }
}

/// What becomes of an ask is in the book for the first one of a chain only: those behind it may
/// end in any way, but with a right reply.
fn judge(expected: u64, answer: Result<u64, AskError>) {
    match answer {
        Ok(reply) if reply != expected => note(WORD, format!("{reply}, not {expected}")),
        Ok(_) => count("nested asks answered", 1),
        Err(_) => count("nested asks not answered", 1),
    }
}

/// Returns the deadline of the first ask; notes where this one's is behind it, or over.
fn look(root_ns: u64, deadline_ns: Option<u64>, now_ns: u64) -> u64 {
    // The lowest bit of an inherited deadline is used otherwise.
    let own_ns = deadline_ns.map_or(u64::MAX, |deadline_ns| deadline_ns & !1);
    if own_ns > root_ns {
        note(WORD, format!("the deadline {own_ns} is behind that of the first ask, {root_ns}"));
    }
    if deadline_ns.is_some_and(|deadline_ns| deadline_ns <= now_ns) {
        note(WORD, format!("work that was over at {own_ns} was begun at {now_ns}"));
    }
    root_ns.min(own_ns)
}

/// Asks on.
#[entity(activate = Relay::begin, stash = 1000)]
struct Relay {
    number: u64,
    _life: Life,
}

#[handlers]
impl Relay {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    fn hop(&mut self, mut stamp: Stamp, root_ns: u64, hops: u64, cx: &mut Cx<Self>) -> Later<u64> {
        stamp.arrive(self.number);
        let root_ns = look(root_ns, cx.deadline_ns(), cx.monotonic_ns());
        let (later, reply_to) = cx.later();
        if hops == 0 {
            cx.reply(reply_to, stamp.reply());
            return later;
        }
        let (to, treks) = draw(|random, of| (random.below(of.keys), random.one_in(2)));
        let (next, promise) = (Stamp::new((self.number, to)), stamp.promise());
        let expected = next.reply();
        let then = move |own: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            judge(expected, answer);
            own.ask_again(root_ns, cx);
            cx.reply(reply_to, promise.reply());
        };
        let refused = if treks {
            let asked = cx.entity::<Self>(to).trek(next, root_ns, hops - 1).ask(then).err();
            asked.map(|refused| (refused.message.stamp, refused.then))
        } else {
            let asked = cx.entity::<Self>(to).hop(next, root_ns, hops - 1).ask(then).err();
            asked.map(|refused| (refused.message.stamp, refused.then))
        };
        if let Some((stamp, then)) = refused {
            stamp.take_back();
            then(self, Err(AskError::NotSent), cx);
        }
        later
    }

    /// From a continuation, which has the deadline of the turn that asked.
    #[skip]
    fn ask_again(&mut self, root_ns: u64, cx: &mut Cx<Self>) {
        let to = draw(|random, of| random.below(of.keys));
        let next = Stamp::new((self.number, to));
        let expected = next.reply();
        let then = move |_: &mut Self, answer: Result<u64, AskError>, _: &mut Cx<Self>| {
            judge(expected, answer);
        };
        if let Err(refused) = cx.entity::<Self>(to).hop(next, root_ns, 0).ask(then) {
            refused.message.stamp.take_back();
        }
    }

    #[local]
    #[interleave]
    async fn trek(stamp: Stamp, root_ns: u64, hops: u64, cx: AsyncCx<Self>) -> u64 {
        let mut stamp = stamp;
        let own = cx.key();
        stamp.arrive(own);
        let promise = stamp.promise();
        let root_ns = look(root_ns, cx.deadline_ns(), cx.monotonic_ns());
        if hops == 0 {
            return promise.reply();
        }
        let (to, nap_ns) =
            draw(|random, of| (random.below(of.keys), random.below(of.ask_timeout_ns / 2)));
        cx.sleep(Duration::from_nanos(nap_ns)).await;
        let next = Stamp::new((own, to));
        let expected = next.reply();
        let relay = cx.entity::<Self>(to);
        let answer = if nap_ns.is_multiple_of(3) {
            relay.hop(next, root_ns, hops - 1).await
        } else {
            relay.trek(next, root_ns, hops - 1).within(Duration::from_nanos(nap_ns)).await
        };
        if answer == Err(AskError::NotSent) {
            // There was no room on the way, and the message has been dropped here.
            book(|book| book.dropped -= 1);
        }
        judge(expected, answer);
        promise.reply()
    }
}
