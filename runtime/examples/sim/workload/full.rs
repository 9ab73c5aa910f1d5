//! Full rings: the smallest there are, and everybody floods everybody.

use coreside::sim::{QUEUE_WORDS_MIN, RING_WORDS_MIN, SimBuilder};
use coreside::{AskError, Cx, Full, entity, handlers};

use crate::suite::book::{Asked, Life, Stamp, count, draw};
use crate::suite::workload::{Kind, Load, Workload, begin, may_fail};

pub(crate) const KIND: Kind = Kind {
    name: "full",
    about: "tiny rings, all to all",
    shape: |scenario| {
        scenario.shards = scenario.shards.max(2);
        scenario.ring_words = RING_WORDS_MIN as u64;
        scenario.queue_words_max = QUEUE_WORDS_MIN as u64;
        scenario.outbox_words_max = QUEUE_WORDS_MIN as u64;
        scenario.keys = scenario.keys.min(16);
        scenario.load_one_in = scenario.load_one_in.min(3);
        scenario.steps = scenario.steps.min(400);
    },
    make: || Box::new(FullRings),
};

struct FullRings;

impl Workload for FullRings {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        builder.entity::<Flooder>()
    }

    fn load(&mut self, load: &mut Load<'_>) {
        for _ in 0..load.random.between(1, 4) {
            let key = load.key();
            load.ask::<Flooder, _>(key, |stamp| FlooderFlood { stamp }, |message| message.stamp);
        }
    }
}

/// Fills what there is to fill.
#[entity(activate = Flooder::begin)]
struct Flooder {
    number: u64,
    _life: Life,
}

#[handlers]
impl Flooder {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: begin(key) }
    }

    #[local]
    fn flood(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.number);
        let (keys, batch) = draw(|_, scenario| (scenario.keys, scenario.batch));
        for round in 0..batch {
            for to in 0..keys {
                let stamp = Stamp::new((self.number, to));
                let flooder = cx.entity::<Flooder>(to);
                if round % 3 == 2 {
                    let asked = Asked::new(&stamp);
                    let then = move |_: &mut Self, answer: Result<_, AskError>, _: &mut Cx<_>| {
                        asked.end(answer);
                    };
                    if let Err(refused) = flooder.fill(stamp, [to; 12]).ask(then) {
                        refused.message.stamp.take_back();
                        (refused.then)(self, Err(AskError::NotSent), cx);
                    }
                } else if let Err(Full(fill)) = flooder.fill(stamp, [to; 12]).try_tell() {
                    fill.stamp.take_back();
                    count("queues full", 1);
                }
            }
        }
        may_fail(&stamp, cx);
        stamp.reply()
    }

    #[local]
    fn fill(&mut self, mut stamp: Stamp, words: [u64; 12], cx: &mut Cx<Self>) -> u64 {
        let to = if words == [self.number; 12] { self.number } else { u64::MAX };
        stamp.arrive(to);
        may_fail(&stamp, cx);
        stamp.reply()
    }
}
