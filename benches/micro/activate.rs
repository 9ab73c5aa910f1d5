//! `activate/10m` and `footprint/10m`: what it takes to have ten million entities.

use crate::bench_entity::{Account, Touch, alone};
use crate::limits::Flat;
use crate::machine;
use crate::measure::{Effort, Row, millions_per_second};

const ENTITIES: u64 = 10_000_000;

/// First messages per second, each to an entity that is not in memory yet.
pub(crate) fn rate(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    let entities = effort.scaled(ENTITIES);
    let ours = || {
        let mut shard = alone();
        millions_per_second(|| {
            touch_all(&mut shard, entities);
            entities
        })
    };
    let limit = || {
        let mut flat = Flat::with_room(entities);
        millions_per_second(|| {
            for key in 0..entities {
                if flat.index.find(key).is_none() {
                    flat.activate(key);
                }
            }
            flat.states.len() as u64
        })
    };
    effort.compare("M/s", ours, limit)
}

/// Bytes per idle entity beyond its state, as the process's resident memory shows them. The limit
/// is a vector of key and state.
pub(crate) fn footprint(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    // Fewer would be lost in what the process has anyway.
    let entities = if effort.quick { ENTITIES / 10 } else { ENTITIES };
    let beyond =
        |bytes: u64, state_bytes: usize| bytes as f64 / entities as f64 - state_bytes as f64;
    let ours = || {
        let before = machine::resident_bytes();
        let mut shard = alone();
        touch_all(&mut shard, entities);
        let after = machine::resident_bytes();
        beyond(after.saturating_sub(before), size_of::<Account>())
    };
    let limit = || {
        let before = machine::resident_bytes();
        let mut states = Vec::with_capacity(entities as usize);
        for key in 0..entities {
            states.push((key, [0u64; 6]));
        }
        let after = machine::resident_bytes();
        std::hint::black_box(&states);
        beyond(after.saturating_sub(before), size_of::<[u64; 6]>())
    };
    effort.compare("B", ours, limit)
}

fn touch_all(shard: &mut coreside_shard::Shard, entities: u64) {
    for key in 0..entities {
        let told = shard.tell::<Account, Touch>(key, Touch);
        debug_assert!(told.is_ok());
        if key % 512 == 511 {
            shard.poll(Default::default(), &mut ());
        }
    }
    while !shard.poll(Default::default(), &mut ()).is_idle() {}
    assert_eq!(shard.entities::<Account>() as u64, entities);
}
