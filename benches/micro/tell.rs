//! `tell/N`: every turn sends one message to a random one of N entities, on one core.

use crate::bench_entity::{Account, PassOn, aim_at, shard_of};
use crate::limits::{TellLimit, UNDER_WAY};
use crate::machine;
use crate::measure::{Effort, Random, Row, millions_per_second};

/// Messages per second with `entities` accounts.
pub(crate) fn run(effort: &Effort, entities: u64) -> Row {
    machine::pin(&machine::cores(), 0);
    let entities = if entities > 1000 { effort.scaled(entities) } else { entities };
    let count = effort.scaled(20_000_000);
    aim_at(entities);
    let mut shard = shard_of(entities);
    let mut random = Random::new();
    for _ in 0..UNDER_WAY {
        let told = shard.tell::<Account, PassOn>(random.below(entities), PassOn(1));
        assert!(told.is_ok(), "the queue has room for the first messages");
    }
    let mut limit = TellLimit::new(entities);
    let ours = || {
        millions_per_second(|| {
            let before = shard.stats().turns;
            while shard.stats().turns - before < count {
                shard.poll(Default::default(), &mut ());
            }
            shard.stats().turns - before
        })
    };
    effort.compare("M/s", ours, || millions_per_second(|| limit.run(count)))
}
