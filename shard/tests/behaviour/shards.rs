//! The shards of a node in one thread: what the suites of these tests share.

use std::sync::{Arc, Once};

use coreside_shard::{
    Doorbell, HashKey, MeshEnd, Placement, Shard, ShardConfig, Table, Wake, mesh,
};

pub(crate) const HASH: HashKey = HashKey::new(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);

/// The smallest ring there is holds 64 words.
pub(crate) const RING_WORDS_MIN: usize = 40;

pub(crate) struct Started {
    pub(crate) shards: Vec<Shard>,
    pub(crate) bells: Vec<Arc<Doorbell>>,
    pub(crate) placement: Placement,
}

/// Shards with a ring from each to each. What panics because a test says so is not reported.
pub(crate) fn start(
    (shards, ring_words): (u16, usize),
    config: &ShardConfig,
    table: &Arc<Table>,
    wake: Wake,
) -> Started {
    keep_expected_panics_quiet();
    let (placement, ends) = (Placement::even(shards), mesh(usize::from(shards), ring_words));
    let bells = ends.iter().filter_map(|end| end.doorbell(end.shard()).cloned()).collect();
    let start = |end: MeshEnd| {
        let table = Arc::clone(table);
        Shard::new(config, table, end, placement.clone(), wake.clone()).expect("address space")
    };
    let shards = ends.into_iter().map(start).collect();
    Started { shards, bells, placement }
}

fn keep_expected_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str().is_none_or(|text| !text.starts_with("told to")) {
                report(panic);
            }
        }));
    });
}
