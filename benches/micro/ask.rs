//! `ask/local`: entities that ask each other on one core, over and over.

use crate::bench_entity::{Account, AskOn, aim_at, shard_of};
use crate::limits::{AskLimit, UNDER_WAY};
use crate::machine;
use crate::measure::{Effort, Random, Row, millions_per_second};

const ENTITIES: u64 = 1000;

/// Asks answered per second: each is a turn that asks, a turn that answers, and a turn that gets
/// the answer.
pub(crate) fn run(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    let count = effort.scaled(6_000_000);
    aim_at(ENTITIES);
    let mut shard = shard_of(ENTITIES);
    let mut random = Random::new();
    for _ in 0..UNDER_WAY {
        let told = shard.tell::<Account, AskOn>(random.below(ENTITIES), AskOn(1));
        assert!(told.is_ok(), "the queue has room for the first messages");
    }
    let mut limit = AskLimit::new(ENTITIES);
    let ours = || {
        millions_per_second(|| {
            let before = shard.stats().turns;
            while shard.stats().turns - before < count * 3 {
                shard.poll(Default::default(), &mut ());
            }
            (shard.stats().turns - before) / 3
        })
    };
    effort.compare("M/s", ours, || millions_per_second(|| limit.run(count)))
}
